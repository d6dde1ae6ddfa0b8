"""Commands that restart something for us: templates, and ready-made ones for usual supervisors."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence

from restarting.console import words
from restarting.processes import CannotRestart

# Workers say themselves who and where they are, and nobody asks whether that is true: what they say must be neither an
# option of the command nor, where a shell reads it (the far end of ssh), more than one word. IPv6 begins with a colon.
_FIT = re.compile(r"[A-Za-z0-9_\[:][A-Za-z0-9_.:%\]-]*")

# By what is restarted, then by whom. Each must return only when the old process has ended.
READY_MADE: Mapping[str, Mapping[str, str]] = {
    "masters": {
        "systemd": "systemctl restart tenure-master",
        "ssh": "ssh -- {host} sudo systemctl restart tenure-master",
        "docker": "docker restart -- {name}",
        "compose": "docker compose --project-name tenure restart -- {name}",
        "kubectl": "kubectl delete pod -- {name}",
    },
    "workers": {
        "systemd": "systemctl restart tenure-worker@{worker}",
        "ssh": "ssh -- {host} sudo systemctl restart tenure-worker@{worker}",
        "docker": "docker restart -- {name}",
        "compose": "docker compose --project-name tenure restart -- {name}",
        "kubectl": "kubectl delete pod -- {host}",
    },
    "store": {
        "systemd": "systemctl restart valkey-server",
        "ssh": "ssh -- {host} sudo systemctl restart valkey-server",
        "docker": "docker restart -- {name}",
        "compose": "docker compose --project-name tenure restart -- {name}",
        "kubectl": "kubectl delete pod -- {name}",
    },
}


def template(text: str) -> list[str]:
    """A command in one argument, or the name of a ready-made one, which :func:`made_ready` replaces."""
    return words(text)


def made_ready(kind: str, given: Sequence[str] | None) -> list[str] | None:
    """The template that was meant: of a single word that names a ready-made one, that one."""
    if given is not None and len(given) == 1 and given[0] in READY_MADE[kind]:
        return words(READY_MADE[kind][given[0]])
    return list(given) if given is not None else None


def naming(text: str) -> tuple[str, str]:
    """``TARGET=NAME``, as an argument."""
    target, equals, name = text.partition("=")
    if not (target and equals and name):
        raise argparse.ArgumentTypeError(f"{text!r}: give TARGET=NAME, as in 127.0.0.1:50051=tenure-master-1")
    return target, name


class UnfitValue(CannotRestart):
    """A name or host that would mean something else in a command than what it names."""


def fill_in(command: Sequence[str], of: str, **values: str) -> list[str]:
    """The command with ``{…}`` replaced.

    Args:
        command: Words.
        of: Whose values these are, for people: ``worker gpu-7``.
        values: By the name in braces.

    Raises:
        UnfitValue: A value that it wants could be taken for something else than a name.
        CannotRestart: It names something that is not known here.
    """
    filled = list(command)
    for name, value in values.items():
        if not any(f"{{{name}}}" in part for part in command):
            continue
        if not _FIT.fullmatch(value):
            raise UnfitValue(
                f"{of}: its {name} is {value!r}, which can't stand in `{' '.join(command)}`: that takes letters, "
                "digits and _ . : % [ ] - (no - . % ] at the start); restart that one by hand, and leave it out here"
            )
        filled = [part.replace(f"{{{name}}}", value) for part in filled]
    known = {f"{{{name}}}" for name in ("host", "port", "address", "worker", "name")}
    left = sorted(name for name in known if any(name in part for part in filled))
    if left:
        raise CannotRestart(f"{' and '.join(left)} stand for nothing in `{' '.join(command)}`")
    return filled
