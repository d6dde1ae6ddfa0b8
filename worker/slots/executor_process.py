"""One executor as its supervisor sees it: spawn, talk, listen, notice its end, kill it with everything it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil
import structlog

from tenure.common import tracing
from tenure.worker.output import RunOutput
from tenure.worker.pipe import Message, PipeBroken, encode_frame, read_frame
from tenure.worker.span_intake import pass_on_spans

log = structlog.get_logger()

_OUTPUT_CHUNK_BYTES = 64 * 1024
# What one drain takes at most: the evaluation may still be printing.
_OUTPUT_DRAIN_BYTES = 4 * 1024 * 1024
_LEAVE_SECONDS = 2.0
_EVENTS_MAX = 1000


@dataclass(frozen=True)
class Exited:
    """The process has ended.

    Attributes:
        signal: That ended it, 0 for none.
        code: Its exit code, 0 if a signal ended it.
        killed: Whether the supervisor killed it.
        reason: Why it was killed, or what was wrong with what it said; empty if it ended by itself.
    """

    signal: int
    code: int
    killed: bool
    reason: str

    def __str__(self) -> str:
        if self.reason:
            return self.reason
        if self.signal:
            hint = ", maybe for want of memory" if self.signal == signal.SIGKILL else ""
            return f"was killed by {_signal_name(self.signal)}{hint}"
        return f"ended with exit code {self.code}"


class ExecutorProcess:
    """A running executor. Make it with :meth:`start`; :meth:`kill` or :meth:`leave` it.

    Everything that happens is put into ``events``, in order: messages (dicts), and at last one :class:`Exited`.
    """

    def __init__(self, process: asyncio.subprocess.Process, pipe: socket.socket, output_end: int) -> None:
        self.pid = process.pid
        # Bounded: an evaluation that logs without end is slowed down, not kept in memory.
        self.events: asyncio.Queue[Message | Exited | None] = asyncio.Queue(_EVENTS_MAX)
        self.exited = asyncio.Event()
        self._process = process
        self._pipe = pipe
        self._output_end = output_end
        self._output = RunOutput(None)
        self._kill_reason = ""
        self._killed = False
        self._writer: asyncio.StreamWriter | None = None
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        *,
        evaluator: str,
        code: str = "",
        devices: Sequence[str],
        checkpoints_url: str,
        max_parameters: int,
        environment: Mapping[str, str],
        memory_bytes_max: int = 0,
    ) -> ExecutorProcess:
        """Spawn, with the directory ``code`` in front of the evaluator's path; the first event is ``ready``,
        ``refused``, or the end."""
        ours, theirs = socket.socketpair()
        output_end, their_output = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *_command(theirs.fileno(), evaluator, code, devices, checkpoints_url, max_parameters),
                f"--memory-max={memory_bytes_max}",
                *(("--traces",) if tracing.on() else ()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=their_output,
                stderr=their_output,
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
                # A session of its own: the terminal's Ctrl-C is the supervisor's alone, and a group to kill.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            os.close(output_end)
            raise
        finally:
            theirs.close()
            os.close(their_output)
        executor = cls(process, ours, output_end)
        await executor._listen()
        return executor

    @property
    def ended(self) -> bool:
        """Whether the process is gone and its end was noticed."""
        return self.exited.is_set()

    def send(self, message: Message) -> None:
        """Send without waiting; to a process that is gone, nothing happens: its end is an event of its own.

        Raises:
            PipeBroken: The message is over the limit of a frame.
        """
        frame = encode_frame(message)
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame)

    def wake(self) -> None:
        """Put None into the events: something else wants whoever waits there to look up."""
        with contextlib.suppress(asyncio.QueueFull):
            self.events.put_nowait(None)

    def capture(self, output: RunOutput | None) -> None:
        """From now on what it prints goes there (None: nowhere but memory); what it printed so far doesn't."""
        self.drain_output()
        self._output = output or RunOutput(None)

    def drain_output(self) -> None:
        """Take what it has printed up to now; what it printed before a message it sent is then there."""
        taken = 0
        while taken < _OUTPUT_DRAIN_BYTES and (data := self._read_output()):
            taken += len(data)
            self._output.write(data)

    def output_tail(self) -> str:
        """The last of its output, for a process that never got ready."""
        self.drain_output()
        return self._output.tail()

    def kill(self, reason: str) -> None:
        """Kill the process group; the :class:`Exited` event follows."""
        if not self.ended:
            self._kill_reason = self._kill_reason or reason
            self._killed = True
            self._kill_group()

    async def leave(self) -> None:
        """Ask an idle executor to end, kill it if it doesn't, and wait for the end."""
        if not self.ended:
            with contextlib.suppress(PipeBroken):
                self.send({"type": "leave"})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.exited.wait(), _LEAVE_SECONDS)
            self.kill("told to leave")
        await self.exited.wait()

    def resident_bytes(self) -> int:
        """Memory of the process and its children; 0 once it is gone."""
        try:
            process = psutil.Process(self.pid)
            members = [process, *process.children(recursive=True)]
        except psutil.Error:
            return 0
        total = 0
        for member in members:
            with contextlib.suppress(psutil.Error):
                total += int(member.memory_info().rss)
        return total

    async def _listen(self) -> None:
        os.set_blocking(self._output_end, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._output_end, self._on_output)
        reader, self._writer = await asyncio.open_unix_connection(sock=self._pipe)
        self._watch = asyncio.create_task(self._watch_process(reader), name=f"executor-{self.pid}")

    async def _watch_process(self, reader: asyncio.StreamReader) -> None:
        messages = asyncio.create_task(self._read_messages(reader))
        code = await self._process.wait()
        # Everything it started, and the watchdog. The group's id is not reused before its last member is gone.
        self._kill_group()
        _reap_orphans(self.pid)
        # What it said before its end comes first; a daemon it left behind may hold the pipe open for ever.
        await asyncio.wait((messages,), timeout=_LEAVE_SECONDS)
        messages.cancel()
        asyncio.get_running_loop().remove_reader(self._output_end)
        self.drain_output()
        os.close(self._output_end)
        self._output_end = -1
        if self._writer is not None:
            self._writer.close()
        self.exited.set()
        await self.events.put(Exited(max(-code, 0), max(code, 0), self._killed, self._kill_reason))

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await read_frame(reader)
                if message["type"] == "spans":
                    pass_on_spans(message)
                else:
                    await self.events.put(message)
        except PipeBroken as broken:
            if str(broken) != "closed":
                self.kill(f"broke the protocol: {broken}")

    def _on_output(self) -> None:
        data = self._read_output()
        if data:
            self._output.write(data)
        elif data is not None:
            asyncio.get_running_loop().remove_reader(self._output_end)

    def _read_output(self) -> bytes | None:
        """What is there; None if nothing is there now, empty at the end."""
        if self._output_end < 0:
            return b""
        try:
            return os.read(self._output_end, _OUTPUT_CHUNK_BYTES)
        except BlockingIOError:
            return None

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def executor_environment(
    base: Mapping[str, str], *, gpus: Sequence[str], python_path: str, slots: int
) -> dict[str, str]:
    """The environment of an executor.

    Args:
        base: The worker's own.
        gpus: What ``CUDA_VISIBLE_DEVICES`` is to list; none hides every GPU.
        python_path: Goes in front of ``PYTHONPATH``.
        slots: The cores are shared by so many, unless somebody has set the number of threads.
    """
    environment = dict(base)
    environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    # The numbers of NVML, which chose the GPUs and watches them, are these, whatever the worker was started with.
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environment["PYTHONUNBUFFERED"] = "1"
    if python_path:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (python_path, base.get("PYTHONPATH", ""))))
    if slots > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // slots)))
    return environment


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command(
    pipe: int, evaluator: str, code: str, devices: Sequence[str], checkpoints_url: str, max_parameters: int
) -> Sequence[str]:
    return (
        sys.executable,
        # The working directory is not put in front of sys.path; the executor appends it.
        "-P",
        "-m",
        "tenure.worker.executor",
        f"--pipe={pipe}",
        f"--supervisor={os.getpid()}",
        f"--evaluator={evaluator}",
        f"--code={code}",
        f"--devices={','.join(devices)}",
        f"--checkpoints={checkpoints_url}",
        f"--max-parameters={max_parameters}",
    )


def _reap_orphans(group: int) -> None:
    """Members of the killed group that became our children: we are process 1 of a container without an init."""
    if sys.platform == "linux":
        with contextlib.suppress(ChildProcessError):
            while os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None:
                pass


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
