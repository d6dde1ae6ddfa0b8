"""NVML recorded and replayed: a double of ``pynvml`` for machines without a GPU, and the recorder for those with one.

A recording is JSON: ``answers`` by call, as ``nvmlDeviceGetUUID(gpu0)``; handles are ``{"handle": name}``, structures
are objects, errors ``{"error": "NVML_ERROR_…"}``. ``{"then": [a, b]}`` answers a, then b for ever; ``{"gate": file,
"shut": a, "open": b}`` answers a, and b while that file is there. ``events`` come out of ``nvmlEventSetWait_v2`` one
after the other, each once its ``gate`` (a file, if it names one) exists. A call that was not recorded fails the test.
The constants and the error classes are the real ones.

The recordings in tests/nvml were made by hand, from nvidia-ml-py's code and NVML's documentation (their ``about`` says
so). On a machine with a GPU ``python tests/nvml_double.py`` prints a real one, of what Tenure asks.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

from tenure.common.logs import configure_logs
from tenure.worker.gpu.nvml import fault_of, figures_of, find_gpus

FOLDER = Path(__file__).resolve().parent / "nvml"


class Unrecorded(AssertionError):
    """The recording has no answer to this call."""


class ReplayedNvml:
    """Behaves like the ``pynvml`` module by a recording.

    Attributes:
        calls: What was asked, in order.
    """

    def __init__(self, recording: dict[str, Any], gates: str = "") -> None:
        self.calls: list[str] = []
        self._answers: dict[str, Any] = recording["answers"]
        self._events: list[dict[str, Any]] = list(recording.get("events", []))
        self._gates = gates
        self._times: dict[str, int] = {}
        self._ended = threading.Event()

    def __getattr__(self, name: str) -> Any:
        # Functions are lower case, constants too, some of them (nvmlEventType…); what can be called is one or a class.
        real = getattr(pynvml, name)
        if not name.startswith("nvml") or not callable(real):
            return real

        def call(*arguments: Any) -> Any:
            return self._answer(f"{name}({', '.join(map(str, arguments))})")

        return call

    def nvmlEventSetWait_v2(self, events: Any, timeout_ms: int) -> Any:
        """The next event, or a time-out."""
        deadline = time.monotonic() + timeout_ms / 1000
        while self._events and time.monotonic() < deadline:
            gate = self._events[0].get("gate")
            if gate is None or os.path.exists(os.path.join(self._gates, gate)):
                event = self._events.pop(0)
                if "error" in event:
                    raise pynvml.NVMLError(getattr(pynvml, event["error"]))
                return SimpleNamespace(**event)
            time.sleep(0.01)
        self._ended.wait(max(0.0, deadline - time.monotonic()))
        raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)

    def _answer(self, call: str) -> Any:
        self.calls.append(call)
        if call not in self._answers:
            raise Unrecorded(call)
        answer = self._answers[call]
        if isinstance(answer, dict) and "then" in answer:
            times = self._times[call] = self._times.get(call, -1) + 1
            answer = answer["then"][min(times, len(answer["then"]) - 1)]
        if isinstance(answer, dict) and "gate" in answer:
            answer = answer["open" if os.path.exists(os.path.join(self._gates, answer["gate"])) else "shut"]
        if not isinstance(answer, dict):
            return answer
        if "error" in answer:
            raise pynvml.NVMLError(getattr(pynvml, answer["error"]))
        return answer["handle"] if "handle" in answer else SimpleNamespace(**answer)


class RecordingNvml:
    """The real ``pynvml``, or what behaves like it, noting what is asked and answered."""

    def __init__(self, nvml: Any = pynvml) -> None:
        self.answers: dict[str, Any] = {}
        self._nvml = nvml
        self._handles: dict[int, str] = {}
        # Kept, so that their ids stay theirs.
        self._named: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._nvml, name)
        if not name.startswith("nvml") or not callable(real):
            return real

        def call(*arguments: Any) -> Any:
            spoken = f"{name}({', '.join(self._handles.get(id(one), str(one)) for one in arguments)})"
            try:
                answer = real(*arguments)
            except pynvml.NVMLError as error:
                self.answers[spoken] = {"error": _error_name(error.value)}
                raise
            self.answers[spoken] = self._plain(name, answer)
            return answer

        return call

    def _plain(self, name: str, answer: Any) -> Any:
        if hasattr(answer, "_fields_"):
            return {field: getattr(answer, field) for field, *_ in answer._fields_}
        if isinstance(answer, SimpleNamespace):
            return vars(answer)
        if isinstance(answer, bytes):
            return answer.decode()
        if hasattr(answer, "contents") or "EventSetCreate" in name:
            self._named.append(answer)
            handle = self._handles.setdefault(id(answer), "events" if "Event" in name else f"gpu{len(self._handles)}")
            return {"handle": handle}
        return answer


def replayed(name: str, gates: str = "", answers: dict[str, Any] | None = None) -> ReplayedNvml:
    """The double of a recording in tests/nvml; ``answers`` replace some of the recorded ones."""
    recording = json.loads((FOLDER / f"{name}.json").read_text())
    recording["answers"] |= answers or {}
    return ReplayedNvml(recording, gates)


def recorded(nvml: RecordingNvml) -> dict[str, Any]:
    """Ask what a worker asks."""
    for gpu in (gpus := find_gpus(nvml, None)):
        figures_of(nvml, gpu)
        fault_of(nvml, gpu)
    for board in {gpu.index: gpu.board for gpu in gpus}.values():
        nvml.nvmlDeviceGetIndex(board)
        with contextlib.suppress(pynvml.NVMLError):
            events = nvml.nvmlEventSetCreate()
            nvml.nvmlDeviceRegisterEvents(board, pynvml.nvmlEventTypeXidCriticalError, events)
            nvml.nvmlEventSetFree(events)
    return {"about": "Recorded.", "answers": nvml.answers, "events": []}


def _error_name(value: int) -> str:
    return next(name for name in dir(pynvml) if name.startswith("NVML_ERROR_") and getattr(pynvml, name) == value)


def main() -> None:
    """Print a recording of this machine; what is to be said about it goes to stderr."""
    configure_logs("worker", "console", "info")
    json.dump(recorded(RecordingNvml()), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
