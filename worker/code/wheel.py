"""Whether an unpacked wheel can run here: its tags fit this interpreter, and what it requires is installed.

Nothing is ever installed: a wheel's files are used where they were unpacked.
"""

from __future__ import annotations

import email.parser
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from email.message import Message
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import parse_tag, sys_tags

from tenure.common.errors import InvalidCode


def check_wheel(directory: Path, path: Sequence[str]) -> None:
    """Pass what is no wheel, and a wheel that can run.

    Args:
        directory: Where it was unpacked.
        path: Where the evaluator's process looks for installed packages.

    Raises:
        InvalidCode: Names what is missing, or what it was built for.
    """
    for information in sorted(directory.glob("*.dist-info")):
        if (wheel := _headers(information / "WHEEL")) is not None:
            _check_tags(information.name, wheel.get_all("Tag", []))
        if (metadata := _headers(information / "METADATA")) is not None:
            _check_requirements(information.name, metadata.get_all("Requires-Dist", []), [str(directory), *path])


def _headers(file: Path) -> Message | None:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return email.parser.HeaderParser().parsestr(text)


def _check_tags(name: str, tags: Iterable[str]) -> None:
    given = list(tags)
    built_for = {tag for text in given for tag in parse_tag(text.strip())}
    if built_for and not built_for & set(sys_tags()):
        raise InvalidCode(
            f"{name.removesuffix('.dist-info')} was built for another platform than this worker's",
            field="code",
            given=", ".join(given),
            expected=f"a wheel for Python {platform.python_version()} on {platform.machine()}, or one of pure Python",
        )


def _check_requirements(name: str, requirements: Iterable[str], path: list[str]) -> None:
    missing = []
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise InvalidCode(
                f"{name.removesuffix('.dist-info')} requires what can't be read: {error}", field="code", given=text
            ) from None
        # Without an extra: nobody asked for one.
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _installed(requirement.name, path)
        if installed is None:
            missing.append(f"{requirement} (not installed)")
        elif not requirement.specifier.contains(installed, prereleases=True):
            missing.append(f"{requirement} (installed: {installed})")
    if missing:
        raise InvalidCode(
            f"{name.removesuffix('.dist-info')} requires what this worker doesn't have: {', '.join(missing)}",
            field="code",
            expected="install it on the workers; nothing is installed with shipped code",
        )


def _installed(name: str, path: list[str]) -> str | None:
    """The version of a package that a process with this path finds."""
    found = next(iter(importlib.metadata.distributions(name=name, path=path)), None)
    return None if found is None else found.version
