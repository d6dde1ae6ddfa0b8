"""``tenure architecture check``: the same shapes, refusals and numbers as on a worker, without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine
from graphs import chain, graph, node, text

from tenure.common.estimate import estimate
from tenure.common.exits import ExitCode

NETWORK = graph(
    [node("c", "conv2d", filters=8, padding="same"), node("pool", "maxpool"), node("out", "dense"), node("x", "relu")],
    [("c", "pool"), ("pool", "out"), ("c", "x")],
)
NETWORK["nodes"][2]["metadata"]["is_output"] = True


@pytest.fixture
def tenure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine("127.0.0.1:1", capsys, monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "network.json"
    path.write_text(text(NETWORK))
    return str(path)


def test_tells_shapes_and_cost(tenure: CommandLine, file: str) -> None:
    said = tenure("architecture", "check", file, "--input", "1,8,8", "--batch-size", "32", "--output", "json")
    assert said.code == 0, said.err
    cost = estimate(text(NETWORK), (1, 8, 8), 10)
    assert (said.json["parameters"], said.json["flops"]) == (cost.parameters, cost.flops)
    assert said.json["batches"] == [{"batch_size": 32, "training_bytes": cost.training_bytes(32)}]
    assert [one["output_shape"] for one in said.json["nodes"]] == [[8, 8, 8], [8, 4, 4], [10], [8, 8, 8]]
    assert [one["used"] for one in said.json["nodes"]] == [True, True, True, False]
    assert (said.json["output"], said.json["head"]) == ("out", False)


def test_tells_people(tenure: CommandLine, file: str) -> None:
    said = tenure("architecture", "check", file, "--input", "1,8,8", "--classes", "3")
    assert said.code == 0, said.err
    assert "8×4×4" in said.out
    assert "never run" in said.out
    assert "out, then a head of 10 to 3" in said.out
    assert "1,403" in said.out, "parameters of all nodes and of the head"


def test_reads_stdin(tenure: CommandLine) -> None:
    said = tenure("architecture", "check", "-", "--input", "12", stdin=text(chain(node("a", "dense"))))
    assert said.code == 0, said.err


def test_says_whether_it_fits(tenure: CommandLine, file: str) -> None:
    cost = estimate(text(NETWORK), (1, 8, 8), 10)
    options = ("--input", "1,8,8", "--batch-size", "64", "--memory")
    assert "  fits" in tenure("architecture", "check", file, *options, str(cost.training_bytes(64))).out
    said = tenure("architecture", "check", file, *options, str(cost.training_bytes(64, 4)), "--output", "json")
    assert said.code == 0
    assert (said.json["batches"][0]["fits"], said.json["batches"][0]["micro_batches"]) == (True, 4)
    said = tenure("architecture", "check", file, *options, "10kB")
    assert said.code == ExitCode.NO
    assert "doesn't fit" in said.out


def test_refuses_as_a_worker_would(tenure: CommandLine, file: str) -> None:
    said = tenure("architecture", "check", file, "--input", "12")
    assert said.code == ExitCode.USAGE
    assert "error: architecture.nodes[0]: node 'c' (conv2d): needs an image" in said.err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--input", "8,8"), "--input: is not a shape (given: 8,8)"),
        (("--input", "0"), "--input: is not a shape"),
        (("--input", "9", "--memory", "lots"), "--memory: is no amount of memory (given: lots)"),
        (("--input", "9", "--memory", "10%"), "--memory: is no amount of memory (given: 10%)"),
        (("--input", "1,8,8", "--optimizer", "lion"), "--optimizer: is unknown (given: lion)"),
        (("--input", "1,8,8", "--precision", "int4"), "--precision: is unknown (given: int4)"),
        (("--input", "1,8,8", "--classes", "0"), "--classes: is out of range"),
    ],
)
def test_bad_options_are_named(tenure: CommandLine, file: str, options: tuple[str, ...], error: str) -> None:
    if options[1] == "9":
        Path(file).write_text(text(chain(node("a", "dense"))))
    said = tenure("architecture", "check", file, *options)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert error in said.err


def test_a_file_that_can_not_be_read(tenure: CommandLine, tmp_path: Path) -> None:
    assert "FILE: can't be read" in tenure("architecture", "check", str(tmp_path / "no.json"), "--input", "9").err
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert "FILE: is not UTF-8" in tenure("architecture", "check", str(tmp_path / "bytes"), "--input", "9").err


def test_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "from tenure.client.cli import main\n"
        "code = main(['architecture', 'check', '-', '--input', '9', '--memory', '1GiB'])\n"
        "print(int(code), sorted({'torch', 'numpy'} & set(sys.modules)))\n"
    )
    graph_text = text(chain(node("a", "dense")))
    done = subprocess.run([sys.executable, "-c", program], input=graph_text, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
