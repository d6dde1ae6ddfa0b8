"""One transition is one Lua file, and each file says what it takes and answers (house rule 1)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tidy.tree import ROOT, files

from tenure.common.states import TRANSITIONS, Transition

LUA = ROOT / "master" / "store" / "lua"
SCRIPTS = [path for path in files(".lua", under="master/store/lua") if path.parent == LUA]
FRAGMENTS = [path for path in files(".lua", under="master/store/lua") if path.parent != LUA]


def header(path: Path) -> str:
    """The comment lines that a file begins with."""
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return "\n".join(lines)


def code(path: Path) -> str:
    """The file without its comments."""
    return re.sub(r"--.*", "", path.read_text())


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= len(TRANSITIONS)
    assert FRAGMENTS


@pytest.mark.parametrize("row", TRANSITIONS, ids=lambda row: row.name)
def test_every_transition_has_its_script(row: Transition) -> None:
    assert (LUA / f"{row.name}.lua").is_file()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_begins_with_its_contract(path: Path) -> None:
    text = header(path)
    assert text.startswith(f"{path.stem}: "), f"the first line of {path.name} says what it does: -- {path.stem}: …"
    needed = ("KEYS", "ARGV", "Replies") if "ARGV" in code(path) else ("KEYS", "Replies")
    for part in needed:
        assert re.search(rf"^{part}", text, re.MULTILINE), f"the header of {path.name} doesn't name {part}"


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_begins_with_its_purpose(path: Path) -> None:
    assert len(header(path)) > 20


@pytest.mark.parametrize("path", SCRIPTS + FRAGMENTS, ids=lambda path: path.name)
def test_no_script_looks_through_all_keys_or_takes_a_foreign_clock(path: Path) -> None:
    for command in ("KEYS", "FLUSHALL", "FLUSHDB", "SCAN", "RANDOMKEY"):
        assert not re.search(rf"call\(\s*['\"]{command}['\"]", code(path), re.IGNORECASE), command
    assert "os.time" not in code(path)


def test_lua_stands_in_lua_files_only() -> None:
    strays = [
        str(path.relative_to(ROOT))
        for path in files(".py", under="master")
        if re.search(r"redis\.call\(|redis\.pcall\(", path.read_text())
    ]
    assert strays == []
