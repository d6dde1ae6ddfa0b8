"""A trained network's identity."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over every parameter and buffer: name, type, shape and bytes, in the order of their names.

    Equal for two networks if and only if they are equal to the last bit.
    """
    sha256 = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        there = tensor.detach().to("cpu").contiguous()
        sha256.update(f"{name} {there.dtype} {tuple(there.shape)}\n".encode())
        sha256.update(there.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()
