"""What changes training images at random."""

from __future__ import annotations

import torch
from torch import Tensor


def shifted(images: Tensor, seed: int) -> Tensor:
    """Each image moved by up to an eighth of its height and of its width; its border is repeated behind it."""
    count, _, height, width = images.shape
    generator = torch.Generator().manual_seed(seed)

    def places(size: int) -> Tensor:
        reach = max(1, size // 8)
        moves = torch.randint(-reach, reach + 1, (count, 1), generator=generator)
        return (torch.arange(size) + moves).clamp(0, size - 1).to(images.device)

    rows, columns = places(height), places(width)
    return images[
        torch.arange(count, device=images.device)[:, None, None],
        :,
        rows[:, :, None],
        columns[:, None, :],
    ].permute(0, 3, 1, 2)
