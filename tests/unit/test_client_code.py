"""What is packed of a directory, a module or a wheel, and under which name."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tenure.client.code import pack
from tenure.common import limits
from tenure.common.errors import InvalidCode, InvalidInput

EVALUATOR = "my_pkg.train:evaluate"


def fill(directory: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in a directory of its own."""
    files = {"__init__.py": "", "train.py": "def evaluate(task, context): ...\n", "data/words.txt": "a b"}
    return fill(tmp_path / "work" / "my_pkg", files)


FILES = ("my_pkg/__init__.py", "my_pkg/data/words.txt", "my_pkg/train.py")


def test_the_package_and_the_directory_it_is_in_are_the_same_code(package: Path) -> None:
    packed = pack(package, EVALUATOR)
    assert packed.files == FILES
    assert pack(package.parent, EVALUATOR) == packed
    with zipfile.ZipFile(io.BytesIO(packed.archive)) as archive:
        assert archive.read("my_pkg/data/words.txt") == b"a b"


def test_the_digest_is_of_names_and_contents_alone(package: Path) -> None:
    before = pack(package, EVALUATOR)
    # Of the bytes themselves: a version that packs otherwise is noticed, as every search would train anew.
    assert before.digest == "8d060ba4779ca5fb5b0bd8ea8e31b709018e1f63a40ec84ed8e6c9e6fad0c9cc"
    for path in package.rglob("*"):
        os.utime(path, (1, 1))
    (package / "train.py").chmod(0o600)
    assert pack(package, EVALUATOR) == before
    (package / "train.py").write_text("def evaluate(task, context): return {}\n")
    assert pack(package, EVALUATOR).digest != before.digest


def test_what_is_no_code_stays_out(package: Path) -> None:
    before = pack(package, EVALUATOR)
    fill(
        package,
        {
            ".git/config": "x",
            "__pycache__/train.cpython-311.pyc": "x",
            "sub/__pycache__/a.pyc": "x",
            ".venv/bin/python": "x",
            "left.pyc": "x",
            "runs/1/log.txt": "x",
            "notes.md": "x",
            "data/big.bin": "x",
            ".tenureignore": "# not needed\n\nruns/\n*.md\ndata/*.bin\n",
        },
    )
    assert pack(package, EVALUATOR) == before


def test_a_module_and_a_wheel(tmp_path: Path) -> None:
    module = fill(tmp_path, {"train.py": "x = 1\n"}) / "train.py"
    assert pack(module, "train:evaluate").files == ("train.py",)
    wheel = tmp_path / "my_pkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("my_pkg-1.0.data/purelib/my_pkg/train.py", "x = 1")
        archive.writestr("my_pkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
    packed = pack(wheel, EVALUATOR)
    assert packed.archive == wheel.read_bytes()
    with pytest.raises(InvalidCode, match=r"holds no module other"):
        pack(wheel, "other:evaluate")
    wheel.write_bytes(b"PK no wheel at all")
    with pytest.raises(InvalidCode, match="is no wheel"):
        pack(wheel, EVALUATOR)


@pytest.mark.parametrize(
    ("path", "evaluator", "told"),
    [
        (".", EVALUATOR, "holds no module my_pkg"),
        ("work", "my_pkg.tain:evaluate", r"holds no module my_pkg\.tain"),
        ("work/my_pkg/train.py", EVALUATOR, r"holds no module my_pkg\.train"),
        ("nowhere", EVALUATOR, "can't be read"),
    ],
)
def test_code_without_the_evaluator_is_refused(
    package: Path, tmp_path: Path, path: str, evaluator: str, told: str
) -> None:
    with pytest.raises(InvalidCode, match=told):
        pack(tmp_path / path, evaluator)
    with pytest.raises(InvalidInput, match="is not a reference"):
        pack(package, "my_pkg.train")


def test_links_stay_within(package: Path, tmp_path: Path) -> None:
    (package / "again.py").symlink_to("train.py")
    assert "my_pkg/again.py" in pack(package, EVALUATOR).files
    for target, told in (
        (tmp_path / "secret", "leads out"),
        (package / "data", "nor a link to a file"),
        ("gone", "nor"),
    ):
        (tmp_path / "secret").write_text("x")
        (package / "link").unlink(missing_ok=True)
        (package / "link").symlink_to(target)
        with pytest.raises(InvalidCode, match=told) as raised:
            pack(package, EVALUATOR)
        assert str(package / "link") in str(raised.value)
    fill(package, {".tenureignore": "link"})
    pack(package, EVALUATOR)


def test_what_is_too_large_names_its_largest_files(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CODE_BYTES_MAX", 2 * 2**20)
    fill(package, {"data/a.bin": b"a" * 2**20, "data/b.bin": b"b" * 3 * 2**20})
    with pytest.raises(InvalidCode) as raised:
        pack(package, EVALUATOR)
    assert "is 4.0 MiB large; the largest files: my_pkg/data/b.bin (3.0 MiB), my_pkg/data/a.bin (1.0 MiB)" in str(
        raised.value
    )
    assert ".tenureignore" in raised.value.expected


def test_nothing_hides_what_runs_it(package: Path) -> None:
    fill(package.parent, {"tenure/__init__.py": ""})
    with pytest.raises(InvalidCode, match="would hide the package tenure"):
        pack(package.parent, EVALUATOR)


def test_nothing_is_taken_back_in(package: Path) -> None:
    fill(package, {".tenureignore": "*.md\n!README.md\n"})
    with pytest.raises(InvalidCode, match="can't take anything back in"):
        pack(package, EVALUATOR)


def test_what_tenures_own_evaluator_is_to_import(package: Path) -> None:
    """A data set, say: the evaluator itself is not in it."""
    built_in = "tenure.worker.torch_eval:evaluate"
    assert pack(package, built_in) == pack(package, EVALUATOR)
    (package / "__init__.py").unlink()
    assert pack(package, built_in).files == ("data/words.txt", "train.py")
    assert pack(package.parent, built_in).files == ("my_pkg/data/words.txt", "my_pkg/train.py")
