"""The command tree: every help has examples, every setting an option, every error an exit code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from command_line import CommandLine
from pydantic_settings import BaseSettings

import tenure
from tenure.client.cli.app import app
from tenure.common.errors import ERRORS_BY_CODE
from tenure.common.exits import EXIT_CODE_MEANING, ExitCode, exit_code_of
from tenure.master.settings import MasterSettings
from tenure.worker.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "demo",
    "master",
    "worker",
    "stats",
    "fsck",
    "version",
    "architecture check",
    *(f"tasks {verb}" for verb in ("submit", "list", "show", "logs", "cancel", "requeue")),
    *(f"dead {verb}" for verb in ("list", "show", "requeue")),
    *(f"searches {verb}" for verb in ("list", "show", "set", "pause", "resume", "cancel", "wait")),
    *(f"workers {verb}" for verb in ("list", "show", "drain", "cordon", "uncordon")),
}


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command and group below, with the words that call it."""
    yield name, command
    for word, child in getattr(command, "commands", {}).items():
        yield from commands(child, f"{name} {word}".strip())


TREE = dict(commands(typer.main.get_command(app)))


@pytest.fixture
def tenure_cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine("127.0.0.1:1", capsys, monkeypatch)


def test_the_commands_are_those_that_are_documented() -> None:
    leaves = {name for name, command in TREE.items() if not getattr(command, "commands", None)}
    assert leaves == COMMANDS


@pytest.mark.parametrize("name", TREE)
def test_every_help_has_examples(name: str, tenure_cli: CommandLine) -> None:
    said = tenure_cli(*name.split(), "--help")
    assert said.code == 0
    assert "Examples:" in said.out
    assert "tenure " in said.out.partition("Examples:")[2]


@pytest.mark.parametrize("name", TREE)
def test_every_option_says_what_it_takes(name: str) -> None:
    for parameter in TREE[name].params:
        if parameter.param_type_name == "option" and parameter.name not in ("install_completion", "show_completion"):
            assert parameter.help, parameter.name
            flag = parameter.name == "help" or parameter.is_flag
            assert bool(parameter.metavar) is not flag, parameter.name


def test_the_root_help_documents_every_exit_code(tenure_cli: CommandLine) -> None:
    text = tenure_cli("--help").out
    for code in ExitCode:
        assert f"\n {code.value:>5}  " in text
        assert EXIT_CODE_MEANING[code].split()[0] in text


def test_every_error_has_an_exit_code() -> None:
    for cls in ERRORS_BY_CODE.values():
        assert exit_code_of(cls("wrong")) is not ExitCode.OK


@pytest.mark.parametrize(("command", "settings"), [("master", MasterSettings), ("worker", WorkerSettings)])
def test_every_setting_is_an_option_of_the_same_name_and_default(
    command: str, settings: type[BaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {parameter.name: parameter for parameter in TREE[command].params if parameter.name != "help"}
    assert set(options) == set(settings.model_fields)
    for name, field in settings.model_fields.items():
        help_text = options[name].help
        if isinstance(field.default, int | float) and field.default:
            assert f"Default: {field.default:g}".replace("1e+06", "1000000") in help_text, name
        elif isinstance(field.default, str) and field.default and name != "log_format":
            assert field.default in help_text, name


def test_version(tenure_cli: CommandLine) -> None:
    assert tenure_cli("version").out.startswith(f"tenure {tenure.__version__}, Python 3.")
    assert tenure_cli("version", "--output", "json").json["tenure"] == tenure.__version__


@pytest.mark.parametrize(
    "arguments",
    [
        ["tasks", "submit", "-"],
        ["nonsense"],
        ["tasks", "list", "--search", "s", "--state", "RUNNING"],
        ["tasks", "list", "--search", "s", "--limit", "0"],
        ["stats", "--output", "yaml"],
        ["searches", "wait", "s", "--wait-seconds", "-1"],
        ["stats", "--master", "nonsense"],
        ["tasks", "show", "x" * 10_240],
        ["searches", "show", ""],
        ["tasks", "requeue"],
        ["dead", "requeue"],
        ["tasks", "requeue", "0-1", "--search", "s"],
        ["workers", "drain", "a\nb"],
        ["searches", "set", "s", "--priority", "99999999999"],
        ["master", "--listen", "nonsense"],
        ["master", "--durability", "perfect"],
        ["master", "--lease-ttl-seconds", "5"],
        ["master", "--store", "http://x", "--data-dir", "/nonexistent"],
        ["worker", "--slots", "-1"],
        ["worker", "--evaluator", "nonsense"],
        ["worker", "--dispatch", "pigeon"],
        ["fsck", "--store", "mysql://x"],
        ["demo", "--trials", "0"],
        ["demo", "--data-dir", "/dev/null"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_bad_usage_is_exit_code_2_and_no_traceback(arguments: list[str], tenure_cli: CommandLine) -> None:
    said = tenure_cli(*arguments)
    assert said.code == ExitCode.USAGE
    assert said.err.strip()
    assert "Traceback" not in said.err + said.out


def test_without_a_command_the_help_is_shown(tenure_cli: CommandLine) -> None:
    assert "Commands" in tenure_cli().out + tenure_cli().err


def test_nobody_there_is_exit_code_3(tenure_cli: CommandLine) -> None:
    said = tenure_cli("stats", "--timeout", "0.3")
    assert said.code == ExitCode.UNAVAILABLE
    assert said.err.splitlines()[-1].startswith("error: master: no master answers")
    assert tenure_cli("fsck", "--store", "redis://127.0.0.1:1/0").code == ExitCode.UNAVAILABLE


def test_the_console_script_and_the_module_are_the_same() -> None:
    command = [sys.executable, "-m", "tenure.client.cli", "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tenure ")
    assert done.stderr == ""


def test_the_generated_page_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_cli_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
