"""Messages from the executor to its supervisor, in order, with progress reports thinned out."""

from __future__ import annotations

import socket
import threading
import time

from tenure.worker.pipe import Message, send_frame

PROGRESS_INTERVAL_SECONDS = 0.05


class Outbox:
    """Sends messages; any thread may.

    Progress replaces progress that waits, so that an evaluation may report thousands of steps a second; everything
    else is sent before the call returns, behind the progress that was reported before it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._changed = threading.Condition()
        self._progress: Message | None = None
        self._progress_sent_at = 0.0
        threading.Thread(target=self._flush_progress, name="tenure-progress", daemon=True).start()

    def send(self, message: Message) -> None:
        """Send now; raises PipeBroken when the supervisor is gone or the message is over the limit."""
        with self._changed:
            self._send_waiting()
            send_frame(self._sock, message)

    def report(self, progress: Message) -> None:
        """Send, or replace what waits and send a little later."""
        with self._changed:
            waited = self._progress is not None
            self._progress = progress
            if time.monotonic() - self._progress_sent_at >= PROGRESS_INTERVAL_SECONDS:
                self._send_waiting()
            elif not waited:
                self._changed.notify()

    def _send_waiting(self) -> None:
        if self._progress is not None:
            progress, self._progress = self._progress, None
            self._progress_sent_at = time.monotonic()
            send_frame(self._sock, progress)

    def _flush_progress(self) -> None:
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._progress is not None)
                left = self._progress_sent_at + PROGRESS_INTERVAL_SECONDS - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                else:
                    self._send_waiting()
