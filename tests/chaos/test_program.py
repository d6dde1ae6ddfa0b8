"""The program behind ``make chaos SEEDS=…``: its arguments, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chaos_suite.__main__ import main, parse
from chaos_suite.network_faults import MANNERS, WAYS
from chaos_suite.sample import good_history
from chaos_suite.scene import KINDS

GOOD_ARGUMENTS = [
    (["--seeds", "3"], [1, 2, 3]),
    (["--seeds", "7-9"], [7, 8, 9]),
    (["--seeds", "17-17"], [17]),
]
BAD_ARGUMENTS = [
    (["--seeds", "0"], "no range of seeds"),
    (["--seeds", "9-7"], "no range of seeds"),
    (["--seeds", "many"], "no range of seeds"),
    (["--faults", "store_kill,earthquake"], "no kind of fault is called earthquake"),
    (["--strikes", "0"], "give at least 1"),
    (["--minutes", "0"], "give more than 0"),
]


@pytest.mark.parametrize(("arguments", "seeds"), GOOD_ARGUMENTS)
def test_seeds_are_a_number_or_a_range(arguments: list[str], seeds: list[int]) -> None:
    assert list(parse(arguments).seeds) == seeds


@pytest.mark.parametrize(("arguments", "words"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_every_kind_of_fault_is_listed_with_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["chaos_suite", "--list"])
    assert main() == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == sorted(KINDS)
    assert all(meaning.endswith(".") for _, meaning in lines)


def test_every_kind_of_fault_is_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parent.parent.parent / "docs" / "chaos.md").read_text()
    network = {f"{way}_{manner}" for way in WAYS for manner in MANNERS}
    names = {*MANNERS, *(f"{way}_…" for way in WAYS), *(set(KINDS) - network)}
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(("fault", "status", "words"), [(None, 0, ""), ("keys", 1, "I10: left behind: k")])
def test_a_kept_history_can_be_judged_again(
    fault: str | None,
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = good_history()
    for event in events:
        if event["what"] == fault:
            event["left"] = ["k"]
    file = tmp_path / "history.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    monkeypatch.setattr("sys.argv", ["chaos_suite", "--judge", str(file)])
    assert main() == status
    assert words in capsys.readouterr().out
