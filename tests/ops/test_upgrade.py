"""upgrade, from and to really different builds, under a search that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import signal
import site
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psutil
import pytest
from cluster import ARCHITECTURE
from ops_scripts import KEPT, USAGE, Said, Scripts, pid_of
from processes import eventually, is_alive
from rolling_scene import SearchProgram
from worker_process import TESTS

from tenure.client import Client

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_FOLDERS = ("client", "common", "master", "proto", "worker")
ROLLED_BACK = 9


def build_wheel(folder: Path, version: str, changes: Mapping[str, tuple[str, str]] | None = None) -> Path:
    """A wheel of this tree with another version number, and with ``changes``: (old, new) text by file of the package.

    It names no dependencies: those are in the environment that runs the tests.
    """
    files = {"tenure/__init__.py": (ROOT / "src" / "tenure" / "__init__.py").read_text(), "tenure/py.typed": ""}
    for name in PACKAGE_FOLDERS:
        for path in sorted((ROOT / name).rglob("*")):
            if path.suffix in (".py", ".lua", ".html", ".js", ".css", ".svg", ".proto"):
                files[f"tenure/{path.relative_to(ROOT)}"] = path.read_text()
    number = re.compile(r'^__version__ = ".*"$', re.MULTILINE)
    files["tenure/__init__.py"] = number.sub(f'__version__ = "{version}"', files["tenure/__init__.py"])
    for name, (old, new) in (changes or {}).items():
        assert old in files[name], f"{name} has no {old!r}"
        files[name] = files[name].replace(old, new)
    facts = f"tenure-{version}.dist-info"
    files[f"{facts}/METADATA"] = f"Metadata-Version: 2.1\nName: tenure\nVersion: {version}\n"
    files[f"{facts}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{facts}/entry_points.txt"] = "[console_scripts]\ntenure = tenure.client.cli:main\n"
    record = f"{facts}/RECORD"
    files[record] = "".join(f"{name},{_digest(text)}\n" for name, text in files.items()) + f"{record},,\n"
    wheel = folder / f"tenure-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def _digest(text: str) -> str:
    digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"sha256={digest},{len(text.encode())}"


class Installed:
    """A master with a store of its own and two workers, started as systemd would: by ROOT/bin/tenure.

    Attributes:
        root: Of the versions.
        folder: Everything else.
    """

    def __init__(self, folder: Path, scripts: Scripts) -> None:
        self.root = folder / "opt"
        self.folder = folder
        self._scripts = scripts
        self._processes: list[asyncio.subprocess.Process] = []
        # The dependencies, and the evaluators: a version's environment holds nothing but Tenure.
        self._environment = {"PYTHONPATH": os.pathsep.join([*site.getsitepackages(), str(TESTS)])}

    @property
    def ready_files(self) -> list[Path]:
        return [self.folder / f"{name}.ready" for name in ("master", "w1", "w2")]

    @property
    def address(self) -> str:
        return str(json.loads(self.ready_files[0].read_text())["grpc"])

    async def upgrade(self, *arguments: str | Path, code: int = KEPT, targets: bool = True) -> Said:
        """Run upgrade on all of it; what it said, which must have come to ``code``."""
        said = await self._scripts("upgrade", *self._given(*arguments, targets=targets), **self._environment)
        assert said.code == code, (said.out[-3000:], said.err[-3000:])
        return said

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        quick = {"LEASE_TTL_SECONDS": "6", "HEARTBEAT_SECONDS": "0.5", "DATA_DIR": str(self.folder / "data")}
        await self._start("master", "MASTER", self.ready_files[0], quick)
        await eventually(self.ready_files[0].exists, what="the master's ready file")
        for path in self.ready_files[1:]:
            settings = {"EVALUATOR": "evaluators:evaluate", "CHECKPOINTS": str(self.folder / "checkpoints")}
            settings |= {"WORKER_ID": path.stem, "WORK_DIR": str(self.folder / path.stem), "DRAIN_GRACE_SECONDS": "10"}
            await self._start("worker", "WORKER", path, settings)
        await eventually(lambda: all(path.exists() for path in self.ready_files), what="the workers' ready files")

    async def _start(self, command: str, prefix: str, ready: Path, settings: Mapping[str, str]) -> None:
        common = {"LISTEN": "127.0.0.1:0", "HTTP": "127.0.0.1:0", "READY_FILE": str(ready)}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENURE_")}
        environment |= {f"TENURE_{prefix}_{name}": value for name, value in {**common, **settings}.items()}
        if command == "worker":
            environment["TENURE_MASTER"] = self.address
        with (self.folder / "all.log").open("ab") as log:
            self._processes.append(
                await asyncio.create_subprocess_exec(
                    str(self.root / "bin" / "tenure"),
                    command,
                    env=environment | self._environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def versions(self) -> list[str]:
        """What runs, by the environments that it was started from."""
        interpreters = [psutil.Process(pid_of(path)).cmdline()[0] for path in self.ready_files]
        return [name.removeprefix(f"{self.root}/versions/").partition("/")[0] for name in interpreters]

    @property
    def current(self) -> str:
        return Path(os.readlink(self.root / "current")).name

    async def destroy(self) -> None:
        """End everything, whatever version it is."""
        for path in self.ready_files:
            with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
                process = psutil.Process(pid_of(path))
                for each in [*process.children(recursive=True), process]:
                    each.kill()
        for started in self._processes:
            if started.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    started.kill()
            await started.wait()

    async def upgrade_killed_in_a_drain(self, *arguments: str | Path) -> None:
        """Kill an upgrade between w1's SIGTERM and its start; nothing runs in w1's place then."""
        gate = self.folder / f"gate-{len(list(self.folder.glob('gate-*')))}"
        extra = {"ignore_stop": "1", "gate": str(gate)}
        with Client(self.address, timeout_seconds=30) as client:
            specs = [
                {"architecture": ARCHITECTURE, "config": {"extra": extra}, "key": f"{gate.name}-{n}"} for n in "ab"
            ]
            handles = await asyncio.to_thread(client.search("first").submit_many, specs)
            await eventually(lambda: all(handle.record().state == "LEASED" for handle in handles), what="two leases")
            old = psutil.Process(pid_of(self.ready_files[1]))
            leavings = self._leavings()
            process = await self._scripts.start("upgrade", *self._given(*arguments), **self._environment)

            def has_gone_on() -> bool:
                return self._leavings() > leavings or process.returncode is not None

            try:
                await eventually(has_gone_on, deadline=120, what="a drain")
            finally:
                process.kill()
                out, err = await process.communicate()
            assert process.returncode == -signal.SIGKILL, (out, err)
            gate.touch()
            await eventually(lambda: not is_alive(old.pid), what="w1's end")
            for handle in handles:
                assert (await asyncio.to_thread(handle.result, 60)).metrics

    def _leavings(self) -> int:
        return (self.folder / "all.log").read_text().count("worker.leaving")

    def _given(self, *arguments: str | Path, targets: bool = True) -> list[str]:
        given: list[str | Path] = [*arguments, "--root", self.root, "--state-dir", self.folder / "state"]
        given.append("--pip-option=--no-deps")
        if targets:
            given += ["--ready-file", *self.ready_files, "--log", self.folder / "all.log", "--output", "json"]
        return [str(each) for each in given]


@pytest.fixture
async def installed(tmp_path: Path, scripts: Scripts) -> AsyncIterator[Installed]:
    """Nothing is installed or started yet."""
    made = Installed(tmp_path, scripts)
    yield made
    await made.destroy()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_versions_come_and_go_and_the_search_notices_nothing(installed: Installed, tmp_path: Path) -> None:
    old, new = build_wheel(tmp_path, "0.1.1"), build_wheel(tmp_path, "0.2.0")
    run = "def run(settings: {}Settings) -> int:\n"
    broken = '    raise RuntimeError("this build is broken")\n'
    names = {"tenure/worker/main.py": "Worker", "tenure/master/main.py": "Master"}
    no_worker, no_master = (
        build_wheel(tmp_path, f"0.3.{number}", {name: (run.format(kind), run.format(kind) + broken)})
        for number, (name, kind) in enumerate(names.items())
    )
    foreign = build_wheel(tmp_path, "0.4.0", {"tenure/master/store/keys.py": ("VERSION = 1", "VERSION = 2")})

    await installed.upgrade("--to", old, "--install-only", targets=False)
    await installed.start()
    assert installed.versions() == ["0.1.1"] * 3
    program = SearchProgram(installed.address).start()
    await eventually(lambda: program.results or program.errors, what="the first result")

    # A store that it can't read is noticed before anything happens.
    said = await installed.upgrade("--to", foreign, "--no-backup", code=USAGE)
    assert "reads stores of schema 2, and this store has schema 1" in said.err

    # Broken masters, then broken workers behind sound masters: each goes back by itself.
    for wheel, version in ((no_master, "0.3.1"), (no_worker, "0.3.0")):
        pids = [pid_of(path) for path in installed.ready_files]
        said = await installed.upgrade("--to", wheel, "--no-backup", code=ROLLED_BACK)
        assert "ended with status" in said.report["why"]
        assert said.report["rolled_back"]
        assert said.report["figures"]["errors seen by clients"] == 0
        assert installed.versions() == ["0.1.1"] * 3
        assert installed.current == "0.1.1"
        assert (installed.root / "versions" / version).exists(), "it stays there, to be looked into"
        assert pid_of(installed.ready_files[2]) == pids[2], "the second worker's turn never came"

    # The bad ones are no versions to go back to.
    said = await installed.upgrade("--rollback", code=USAGE)
    assert "has no version before 0.1.1" in said.err

    said = await installed.upgrade("--to", new, "--backup-to", tmp_path / "backup")
    assert said.report["kept"]
    assert installed.versions() == ["0.2.0"] * 3
    assert installed.current == "0.2.0"
    with Client(installed.address, timeout_seconds=30) as client:
        assert (await asyncio.to_thread(client.stats)).version == "0.2.0"
        assert {worker.version for worker in await asyncio.to_thread(client.workers)} == {"0.2.0"}
    assert list((tmp_path / "backup").glob("tenure-*")), "a backup was made"

    said = await installed.upgrade("--rollback")
    assert installed.versions() == ["0.1.1"] * 3
    assert installed.current == "0.1.1"

    program_records = await program.finish()
    assert program.errors == []
    assert {record.state for record in program_records.values()} == {"SUCCEEDED"}
    assert {(record.attempts, record.losses) for record in program_records.values()} == {(0, 0)}
    ends = {attempt.outcome for record in program_records.values() for attempt in record.attempt_records}
    assert ends <= {"success", "release"}


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_what_was_killed_half_way_goes_on_or_back_by_the_same_command(
    installed: Installed, tmp_path: Path
) -> None:
    old, new = build_wheel(tmp_path, "0.1.1"), build_wheel(tmp_path, "0.2.0")
    forward = ("--to", new, "--no-backup")
    await installed.upgrade("--to", old, "--install-only", targets=False)
    await installed.start()

    # Forward, and back from there: what is down is started by the old version, which needs no second restart.
    await installed.upgrade_killed_in_a_drain(*forward)
    said = await installed.upgrade(*forward, "--dry-run")
    assert "worker w1 was left down by a run that was broken off, and would be started first" in said.err
    said = await installed.upgrade("--rollback")
    assert "worker w1 was left down by a run that was broken off: it is started first" in said.err
    assert installed.versions() == ["0.1.1"] * 3
    assert installed.current == "0.1.1"

    # Forward, and on.
    await installed.upgrade_killed_in_a_drain(*forward)
    said = await installed.upgrade(*forward)
    assert "worker w1 was left down by a run that was broken off: it is started first" in said.err
    assert installed.versions() == ["0.2.0"] * 3

    # Back, and on back, not forward again.
    await installed.upgrade_killed_in_a_drain("--rollback")
    said = await installed.upgrade("--rollback")
    assert "worker w1 was left down by a run that was broken off: it is started first" in said.err
    assert installed.versions() == ["0.1.1"] * 3
    assert installed.current == "0.1.1"
