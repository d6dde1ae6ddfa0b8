"""A real S3 server for tests (moto's), in a process of its own, spoken to over HTTP by the library that workers use.

Import the fixtures into a ``conftest.py`` or a test file: ``from s3_server import s3, s3_server``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import wait_for

_TIED_TO_PARENT = """
import ctypes, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
from moto.server import main
main(["-H", "127.0.0.1", "-p", "0"])
"""
_ADDRESS = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
_numbers = itertools.count()


class S3Server:
    """One server; :meth:`stop` it. ``environment`` is what its clients need."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / "s3.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _TIED_TO_PARENT], stdout=output, stderr=output
            )
        self.url = wait_for(self._address, what=f"an S3 server: {self._output}")
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            # Nothing of this machine's.
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def _address(self) -> str:
        assert self._process.poll() is None, self._output.read_text()
        found = _ADDRESS.search(self._output.read_text())
        return found[1] if found else ""

    def make_bucket(self, name: str) -> None:
        """An empty one."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=30).close()

    def keys(self, bucket: str) -> list[str]:
        """All objects in it, as the server itself sees them."""
        with urllib.request.urlopen(f"{self.url}/{bucket}?list-type=2", timeout=30) as reply:
            return re.findall(r"<Key>([^<]*)</Key>", reply.read().decode())

    def require_known_keys(self, value: bool) -> None:
        """From now on refuse everybody whose access key it doesn't know: it knows none."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", data=b"0" if value else b"inf")
        request.add_header("Content-Type", "text/plain")
        with urllib.request.urlopen(request, timeout=30) as reply:
            assert json.loads(reply.read())["status"] == "ok"

    def freeze(self, value: bool) -> None:
        """Answer nothing any more; go on."""
        self._process.send_signal(signal.SIGSTOP if value else signal.SIGCONT)

    def stop(self) -> None:
        """At once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One for the session."""
    pytest.importorskip("moto")
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket, with this process's environment set for it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{next(_numbers)}"
    s3_server.make_bucket(bucket)
    return f"s3://{bucket}"
