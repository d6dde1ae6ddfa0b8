"""Shipped code on a worker's disk: what is unpacked, what is refused, what is kept."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import stat
import sys
import zipfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from tenure.common import limits
from tenure.common.errors import InvalidCode
from tenure.worker.code.archive import unpack
from tenure.worker.code.cache import CodeCache
from tenure.worker.code.fetch import CodeUnavailable
from tenure.worker.code.wheel import check_wheel


def zipped(files: Mapping[str, bytes | str], **attributes: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            information = zipfile.ZipInfo(name)
            information.external_attr = attributes.get("mode", stat.S_IFREG | 0o644) << 16
            archive.writestr(information, content)
    return sink.getvalue()


def unpacked(tmp_path: Path, archive: bytes) -> Mapping[str, tuple[int, str]]:
    (tmp_path / "archive").write_bytes(archive)
    (tmp_path / "within" / "target").mkdir(parents=True, exist_ok=True)
    return unpack(tmp_path / "archive", tmp_path / "within" / "target")


# ---- unpacking -------------------------------------------------------------------------------------------------------


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    files = unpacked(tmp_path, zipped({"p/__init__.py": "", "p/": "", "p/a.py": "x = 1\n"}))
    target = tmp_path / "within" / "target"
    assert files == {
        "p/__init__.py": (0, hashlib.sha256(b"").hexdigest()),
        "p/a.py": (6, hashlib.sha256(b"x = 1\n").hexdigest()),
    }
    assert (target / "p" / "a.py").read_text() == "x = 1\n"
    assert stat.S_IMODE((target / "p" / "a.py").stat().st_mode) == 0o444


@pytest.mark.parametrize(
    "name", ["../out.py", "/etc/out.py", "p/../../out.py", "p\\..\\out.py", "C:/out.py", "./a.py", "p//a.py", "../"]
)
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidCode, match="leads out"):
        unpacked(tmp_path, zipped({"a.py": "", name: "stolen"}))
    assert list((tmp_path / "within").rglob("*.py")) == []
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "within"}


def test_a_name_ends_at_its_nul(tmp_path: Path) -> None:
    """As zipfile reads it; what the header says behind it names nothing."""
    unpacked(tmp_path, zipped({"a.py": "", "p/Xa.py": ""}).replace(b"p/Xa.py", b"q.py\0/a"))
    assert sorted(path.name for path in (tmp_path / "within" / "target").iterdir()) == ["a.py", "q.py"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_nothing_but_files(tmp_path: Path, kind: int) -> None:
    with pytest.raises(InvalidCode, match="neither a file nor a directory"):
        unpacked(tmp_path, zipped({"link": "/etc/passwd"}, mode=kind | 0o777))
    assert list((tmp_path / "within" / "target").iterdir()) == []


def test_a_bomb_is_not_lit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.py", b"\0" * 5_000_000)
    monkeypatch.setattr(limits, "CODE_UNPACKED_BYTES_MAX", 1_000_000)
    assert len(sink.getvalue()) < 10_000
    with pytest.raises(InvalidCode, match="holds 5000000 bytes once unpacked"):
        unpacked(tmp_path, sink.getvalue())
    # One that lies about it: no more is written than it says.
    lying = sink.getvalue().replace((5_000_000).to_bytes(4, "little"), (1_000).to_bytes(4, "little"))
    with pytest.raises(InvalidCode):
        unpacked(tmp_path, lying)
    assert sum(path.stat().st_size for path in (tmp_path / "within").rglob("*.py")) <= 1_000


@pytest.mark.parametrize(
    ("archive", "told"),
    [
        (b"no zip", "can't be unpacked"),
        (zipped({"a.py": "x" * 100})[:-30], "can't be unpacked"),
        (zipped({"a.py": "x = 1"}).replace(b"x = 1", b"x = 2"), "can't be unpacked"),
        (zipped({"a": "", "a/b.py": ""}), "is there twice"),
        (zipped({"tenure/__init__.py": ""}), "would hide the package tenure"),
        (zipped({"m.py": "", "x-1.data/purelib/m.py": ""}), "two files for one place"),
    ],
)
def test_what_is_no_archive_of_code(tmp_path: Path, archive: bytes, told: str) -> None:
    with pytest.raises(InvalidCode, match=told):
        unpacked(tmp_path, archive)


# ---- wheels ----------------------------------------------------------------------------------------------------------


def wheel(tmp_path: Path, tag: str, *requirements: str) -> Path:
    required = "".join(f"Requires-Dist: {one}\n" for one in requirements)
    unpacked(
        tmp_path,
        zipped(
            {
                "m-1.0.data/purelib/m.py": "x = 1",
                "m-1.0.data/scripts/run": "",
                "m-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n",
                "m-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: m\n{required}",
            }
        ),
    )
    return tmp_path / "within" / "target"


def test_a_wheel_is_laid_out_as_an_installer_would(tmp_path: Path) -> None:
    directory = wheel(tmp_path, "py3-none-any", "m==9; extra == 'more'", "nothing-like-it; python_version < '3'")
    assert sorted(path.name for path in directory.iterdir()) == ["m-1.0.dist-info", "m.py"]
    check_wheel(directory, [])


def test_a_wheel_names_what_is_missing(tmp_path: Path) -> None:
    directory = wheel(tmp_path, "py3-none-any", "grpcio>=1.54", "grpcio<1", "nothing-like-it>=2", "tenacity")
    with pytest.raises(InvalidCode) as raised:
        check_wheel(directory, sys.path)
    assert raised.value.message.startswith("m-1.0 requires what this worker doesn't have: grpcio<1 (installed: 1.")
    assert raised.value.message.endswith("nothing-like-it>=2 (not installed)")


def test_a_wheel_for_another_platform(tmp_path: Path) -> None:
    with pytest.raises(InvalidCode, match="built for another platform") as raised:
        check_wheel(wheel(tmp_path, "cp311-cp311-win_amd64"), [])
    assert raised.value.given == "cp311-cp311-win_amd64"


# ---- the cache -------------------------------------------------------------------------------------------------------


class Source:
    """Where archives come from; counts how often."""

    def __init__(self) -> None:
        self.fetched = 0

    def of(self, archive: bytes) -> Callable[[BinaryIO], Awaitable[None]]:
        async def fetch(file: BinaryIO) -> None:
            self.fetched += 1
            await asyncio.sleep(0)
            file.write(archive)

        return fetch


def named(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()


async def test_it_is_fetched_and_unpacked_once(tmp_path: Path) -> None:
    archive, source = zipped({"m.py": "x = 1"}), Source()
    cache = CodeCache(tmp_path)
    got = await asyncio.gather(*(cache.get(named(archive), source.of(archive)) for _ in range(8)))
    assert source.fetched == 1
    assert {(path / "m.py").read_text() for path in got} == {"x = 1"}
    # Another process of this worker finds it.
    assert await CodeCache(tmp_path).get(named(archive), source.of(archive)) == got[0]
    assert source.fetched == 1
    assert [path.name for path in tmp_path.iterdir()] == [named(archive)]


async def test_what_is_not_as_it_was_is_fetched_again(tmp_path: Path) -> None:
    archive, source = zipped({"m.py": "x = 1", "n.py": "y"}), Source()
    path = await CodeCache(tmp_path).get(named(archive), source.of(archive))
    for damage in ("x = 2", "x", None):
        (path / "m.py").unlink()
        if damage is not None:
            (path / "m.py").write_text(damage)
        again = await CodeCache(tmp_path).get(named(archive), source.of(archive))
        assert (again / "m.py").read_text() == "x = 1"
    (path.parent / "manifest.json").write_text("{")
    await CodeCache(tmp_path).get(named(archive), source.of(archive))
    assert source.fetched == 5


async def test_what_came_must_be_what_was_asked_for(tmp_path: Path) -> None:
    archive, source = zipped({"m.py": "x = 1"}), Source()
    cache = CodeCache(tmp_path)
    with pytest.raises(CodeUnavailable, match="has the digest"):
        await cache.get(named(archive), source.of(archive + b"x"))
    bad = zipped({"../m.py": ""})
    with pytest.raises(InvalidCode):
        await cache.get(named(bad), source.of(bad))
    assert list(tmp_path.iterdir()) == []
    assert (await cache.get(named(archive), source.of(archive)) / "m.py").exists()


async def test_the_last_used_are_kept_within_the_bounds(tmp_path: Path) -> None:
    archives = [zipped({"m.py": str(number) * 100}) for number in range(5)]
    used: set[str] = {named(archives[0])}
    source = Source()
    cache = CodeCache(tmp_path, lambda: used, entries_max=3)
    for age, archive in enumerate(archives[:3]):
        os.utime((await cache.get(named(archive), source.of(archive))).parent, (age, age))
    await cache.get(named(archives[3]), source.of(archives[3]))
    # The oldest is in use; the next one had to go.
    assert {path.name for path in tmp_path.iterdir()} == {named(archives[n]) for n in (0, 2, 3)}
    small = CodeCache(tmp_path, lambda: (), bytes_max=150)
    await small.get(named(archives[4]), source.of(archives[4]))
    assert {path.name for path in tmp_path.iterdir()} == {named(archives[n]) for n in (3, 4)}
    # What was deleted comes back when it is needed.
    await cache.get(named(archives[1]), source.of(archives[1]))
    assert source.fetched == 6


async def test_leftovers_of_a_process_that_died_go(tmp_path: Path) -> None:
    (tmp_path / ".unpacking-x" / "files").mkdir(parents=True)
    (tmp_path / ".fetched-x").write_text("half")
    archive, source = zipped({"m.py": "x = 1"}), Source()
    await CodeCache(tmp_path).get(named(archive), source.of(archive))
    assert [path.name for path in tmp_path.iterdir()] == [named(archive)]
