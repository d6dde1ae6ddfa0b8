"""sd_notify's protocol: what a process says of itself, to whom, and when it falls silent."""

from __future__ import annotations

import asyncio
import faulthandler
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from notify_listener import Listener, Message

from tenure.common import notify
from tenure.common.notify import Notifier, Phase


@pytest.fixture(params=["notify", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    name = "notify" if request.param == "notify" else f"@tenure-test-{secrets.token_hex(8)}"
    with Listener(tmp_path, name) as made:
        yield made


@pytest.fixture(autouse=True)
def _faulthandler_as_it_was() -> Iterator[None]:
    was = faulthandler.is_enabled()
    yield
    if not was:
        faulthandler.disable()


def heard(listener: Listener) -> Message:
    message = listener.next()
    assert message is not None
    return message


def test_it_says_that_it_serves_how_it_stands_and_that_it_ends(listener: Listener) -> None:
    notifier = Notifier.take(listener.environment())
    notifier.watch(lambda: "2 sessions")
    notifier.ready()
    assert listener.next() == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "2 sessions"}
    notifier.beat()
    assert listener.next() == {"STATUS": "2 sessions"}
    notifier.stopping()
    assert listener.next() == {"STOPPING": "1", "MAINPID": str(os.getpid()), "STATUS": "2 sessions"}


def test_what_it_took_is_inherited_by_nobody(listener: Listener) -> None:
    environ = {**listener.environment(3.0), "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    Notifier.take(environ)
    assert environ == {"PATH": "/bin"}


def test_the_watchdog_is_fed_at_half_its_time_or_more_often(listener: Listener) -> None:
    assert Notifier.take(listener.environment(3.0)).beat_seconds == 1.5
    assert Notifier.take(listener.environment(600)).beat_seconds == notify.BEAT_SECONDS_MAX
    notifier = Notifier.take(listener.environment(3.0))
    notifier.beat()
    assert listener.next() == {"WATCHDOG": "1", "STATUS": "starting"}


def test_a_watchdog_leaves_stacks_behind(listener: Listener) -> None:
    faulthandler.disable()
    Notifier.take(listener.environment())
    assert not faulthandler.is_enabled()
    Notifier.take(listener.environment(3.0))
    assert faulthandler.is_enabled()


def test_the_watchdog_of_another_process_is_not_fed(listener: Listener) -> None:
    notifier = Notifier.take({**listener.environment(3.0), "WATCHDOG_PID": str(os.getpid() + 1)})
    notifier.beat()
    assert listener.next() == {"STATUS": "starting"}


def test_while_something_is_stuck_the_watchdog_hears_nothing_and_people_do(listener: Listener) -> None:
    stuck = ["the ticker"]
    notifier = Notifier.take(listener.environment(3.0))
    notifier.watch(lambda: "serving", lambda: stuck[0])
    notifier.beat()
    assert listener.next() == {"STATUS": "the ticker"}
    stuck[0] = ""
    notifier.beat()
    assert listener.next() == {"WATCHDOG": "1", "STATUS": "serving"}


async def test_it_beats_by_the_event_loop(listener: Listener) -> None:
    turns = asyncio.Event()

    def status() -> str:
        if len(listener.heard) >= 3:
            turns.set()
        listener.heard.append({})
        return "serving"

    notifier = Notifier.take(listener.environment(0.02))
    notifier.watch(status)
    beat = asyncio.create_task(notifier.run())
    await turns.wait()
    beat.cancel()
    assert listener.next() == {"WATCHDOG": "1", "STATUS": "serving"}


@pytest.mark.parametrize(("within", "extended"), [(math.inf, True), (60.0, True), (0.0, False), (-1.0, False)])
def test_a_drain_asks_for_time_up_to_its_limit(listener: Listener, within: float, extended: bool) -> None:
    notifier = Notifier.take(listener.environment())
    notifier.stopping(within)
    message = listener.next()
    assert message is not None
    assert ("EXTEND_TIMEOUT_USEC" in message) is extended
    if extended:
        assert int(message["EXTEND_TIMEOUT_USEC"]) >= 2e6 * notify.BEAT_SECONDS_MAX, "the next beat comes in time"


async def test_a_start_asks_for_time_and_a_serving_process_does_not(listener: Listener) -> None:
    notifier = Notifier.take(listener.environment())
    beat = asyncio.create_task(notifier.run(start_seconds=300))
    starting = await asyncio.to_thread(listener.next)
    notifier.ready()
    serving = listener.next()
    beat.cancel()
    assert starting is not None
    assert serving is not None
    assert "EXTEND_TIMEOUT_USEC" in starting
    assert "EXTEND_TIMEOUT_USEC" not in serving


def test_a_start_asks_for_time_for_as_long_as_it_goes_on(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    notifier = Notifier.take({"NOTIFY_SOCKET": listener.address})

    def asks() -> bool:
        notifier.beat()
        return "EXTEND_TIMEOUT_USEC" in heard(listener)

    assert not asks(), "nothing has gone on yet"
    for _ in range(10):
        notifier.progress()
        now += notify.BEAT_SECONDS_MAX
        assert asks()
    now += 2 * notify.BEAT_SECONDS_MAX
    assert not asks(), "it has stopped going on"
    notifier.progress()
    notifier.ready()
    assert "EXTEND_TIMEOUT_USEC" not in heard(listener)
    notifier.progress()
    assert not asks(), "it has started"


def test_a_message_that_nobody_took_is_said_again(tmp_path: Path) -> None:
    notifier = Notifier.take({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    notifier.ready()  # nobody listens yet: no error
    with Listener(tmp_path) as listener:
        notifier.beat()
        message = listener.next()
    assert message is not None
    assert message["READY"] == "1"


def test_a_supervisor_that_does_not_read_holds_nothing_up(listener: Listener) -> None:
    notifier = Notifier.take(listener.environment(3.0))
    for _ in range(10_000):
        notifier.beat()
    notifier.stopping()
    assert listener.is_silent_for(0.1)
    assert all("STOPPING" not in message for message in listener.heard), "there was no room"
    notifier.beat()
    assert listener.next() == {
        "STOPPING": "1",
        "MAINPID": str(os.getpid()),
        "WATCHDOG": "1",
        "STATUS": "starting",
    }


def test_a_status_is_one_short_line(listener: Listener) -> None:
    notifier = Notifier.take(listener.environment())
    notifier.watch(lambda: "first\nREADY=1 " + "x" * 5000)
    notifier.beat()
    message = listener.next()
    assert message is not None
    assert message.keys() == {"STATUS"}
    assert message["STATUS"].startswith("first READY=1 xxx")
    assert len(message["STATUS"]) <= 1000


async def test_without_a_supervisor_nothing_happens() -> None:
    notifier = Notifier.take({})
    notifier.ready()
    await notifier.run()
    notifier.stopping()
    assert notifier.phase is Phase.STOPPING


@pytest.mark.parametrize("environ", [{"NOTIFY_SOCKET": "vsock:2:9999"}, {"WATCHDOG_USEC": "soon"}])
def test_what_cannot_be_used_is_said_and_left(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    given = next(iter(environ.values()))
    notifier = Notifier.take(environ)
    notifier.ready()
    assert given in capsys.readouterr().out
