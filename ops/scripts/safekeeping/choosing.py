"""Which backup of a folder is taken, and which are passed over on the way to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safekeeping.console import Damaged, Misused
from safekeeping.folder import Backup, backups_in, damages, holds_backup, read

_SHOWN_MAX = 3


@dataclass(frozen=True)
class Choice:
    """What a path names.

    Attributes:
        backup: Itself, or the newest verified one below it.
        damaged: Why newer ones were not taken that had been good once.
        older: Verified ones that are older, the newest first.
    """

    backup: Backup
    damaged: list[str] = field(default_factory=list)
    older: list[Backup] = field(default_factory=list)

    @contextlib.contextmanager
    def naming_another(self) -> Iterator[None]:
        """Where it turns out to be damaged, say what could be taken instead."""
        try:
            yield
        except Damaged as error:
            if not self.older:
                raise Damaged(f"{error}. No older verified one is beside it") from None
            raise Damaged(f"{error}. The newest verified one before it is {self.older[0].path}") from None


def choose(path: Path, say: Callable[[str], None] = lambda _: None, *, whole: bool = False) -> Choice:
    """The backup that a path names: itself, or the newest verified one in a folder of backups.

    Args:
        path: Of a backup, or of a folder of them.
        say: Told which newer ones are passed over, and why: it costs the work between the two.
        whole: Of a folder, read the files too, and pass over what is damaged.

    Raises:
        Misused: There is none.
        Damaged: It is.
    """
    if not path.exists():
        raise Misused(f"{path} does not exist; give a backup, or the folder that holds them")
    if holds_backup(path) or not path.is_dir():
        chosen = read(path)
        others: list[Backup] = []
        with contextlib.suppress(PermissionError):
            others = backups_in(path.absolute().parent)[0]
        older = [each for each in others if each.verified and each.moment_unix < chosen.moment_unix]
        return Choice(chosen, older=older)
    found, unreadable = backups_in(path)
    passed, damaged = [], []
    for number, backup in enumerate(found):
        if not backup.verified:
            passed.append(f"{backup.path}: it is {backup.verdict}")
        elif whole and (wrong := _damages(backup)):
            damaged.append(f"{backup.path}: it is damaged: {'; '.join(wrong[:_SHOWN_MAX])}")
        else:
            damaged = [str(each) for each in unreadable if each.is_newer_than(backup)] + damaged
            older = [each for each in found[number + 1 :] if each.verified]
            for line in (*damaged, *passed):
                say(f"note: passed over {line}")
            return Choice(backup, damaged, older)
    told = "; ".join([*map(str, unreadable), *damaged, *passed])
    raise Misused(f"{path} is no backup and holds no verified one{': ' + told if told else ''}")


def _damages(backup: Backup) -> list[str]:
    try:
        return damages(backup)
    except Damaged as error:
        return [str(error)]
