"""What this process is built of, for people who compare processes: versions of Tenure and of what carries its calls."""

from __future__ import annotations

import importlib.metadata
import platform

from tenure import __version__


def build_info() -> dict[str, str]:
    """``version`` (Tenure's), ``python``, ``grpc`` and ``protobuf``; nothing is imported for it."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "grpc": installed_version("grpcio"),
        "protobuf": installed_version("protobuf"),
    }


def installed_version(distribution: str) -> str:
    """Of what pip calls so; empty when it isn't installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
