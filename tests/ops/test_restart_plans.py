"""What a rolling restart is planned from: groups, amounts, templates, URLs, and what the run before has left."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import start_master
from restarting.accounting import Accounting
from restarting.console import Console
from restarting.groups import Amount, Selector, batches_of, groups_of
from restarting.plan import Processes, _workers
from restarting.probe import Probe
from restarting.processes import AnotherRun, CannotRestart
from restarting.run_record import RunRecord
from restarting.store_servers import StoreUrl, is_in_step
from restarting.templates import READY_MADE, UnfitValue, fill_in, made_ready, naming, template
from restarting.worker_target import missing_workers
from restarting.workers import _foreign_workers

from tenure.client import WorkerRecord
from tenure.client.device_records import SlotRecord
from tenure.common.errors import InvalidSetting
from tenure.proto import tenure_pb2


def worker(name: str, *, host: str = "h", slots: int = 1, instance: str = "old", **labels: str) -> WorkerRecord:
    message = tenure_pb2.Worker(worker_id=name, instance_id=instance, host=host, slots=slots, labels=labels)
    return WorkerRecord.from_message(message)


WORKERS = [worker("w1", zone="a", gpu="a100"), worker("w2", zone="b"), worker("w3", zone="a"), worker("w4", host="x")]


@pytest.mark.parametrize(
    ("selectors", "groups"),
    [
        ([], [("", ["w1", "w2", "w3", "w4"])]),
        (["zone"], [("zone=a", ["w1", "w3"]), ("zone=b", ["w2"])]),
        (["zone=b", "zone"], [("zone=b", ["w2"]), ("zone=a", ["w1", "w3"])]),
        (["gpu=a1*", "host"], [("gpu=a1*", ["w1"]), ("host=h", ["w2", "w3"]), ("host=x", ["w4"])]),
        (["id=w[12]"], [("id=w[12]", ["w1", "w2"])]),
    ],
)
def test_groups_of_workers(selectors: list[str], groups: list[tuple[str, list[str]]]) -> None:
    assert groups_of(WORKERS, [Selector.parse(text) for text in selectors]) == groups


@pytest.mark.parametrize(
    ("amount", "sizes"), [("1", [1, 1, 1]), ("2", [2, 1]), ("50%", [1, 1, 1]), ("67%", [2, 1]), ("100%", [2, 1])]
)
def test_never_more_than_that_are_down_and_never_of_two_groups(amount: str, sizes: list[int]) -> None:
    groups = groups_of(WORKERS[:3], [Selector.parse("zone")])
    assert [len(ids) for _, ids in batches_of(groups, Amount.parse(amount))] == sizes
    assert Amount.parse("1%").of(3) == 1


@pytest.mark.parametrize("text", ["0", "-1", "0%", "101%", "a", "", "1.5"])
def test_an_amount_that_can_not_be_right(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no amount"):
        Amount.parse(text)


def test_a_template_is_filled_in_or_refused() -> None:
    assert fill_in(template("ssh {host} 'restart {worker}'"), "x", host="h", worker="w") == ["ssh", "h", "restart w"]
    with pytest.raises(CannotRestart, match=r"\{port\} stand for nothing"):
        fill_in(["restart", "{port}"], "worker w", host="h")
    for kind, commands in READY_MADE.items():
        for name in commands:
            ready = made_ready(kind, template(name))
            assert ready is not None
            fill_in(ready, "x", host="h", port="1", address="h:1", worker="w", name="n")
    assert made_ready("store", template("systemctl restart redis")) == ["systemctl", "restart", "redis"]
    assert made_ready("store", None) is None
    assert naming("127.0.0.1:50051=m1") == ("127.0.0.1:50051", "m1")


class Registered:
    """A client whose masters know these workers."""

    def __init__(self, known: Sequence[WorkerRecord]) -> None:
        self.known = known

    def workers(self, *, include_gone: bool = False) -> Sequence[WorkerRecord]:
        return self.known


def planned_workers(client: Any, given: argparse.Namespace) -> Any:
    return _workers(given, Processes(), client)


HOSTILE = [
    "-oProxyCommand=touch X",
    "--all",
    "w; touch X",
    "$(touch X)",
    "w\n",
    "a b",
    "",
    "%h",
    "ünï",
    "me@elsewhere",
    "../w",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["host", "worker", "name"])
def test_what_a_worker_says_of_itself_is_never_more_than_a_name(field: str, value: str) -> None:
    values = {"host": "gpu-7", "worker": "w1", "name": "n"} | {field: value}
    with pytest.raises(UnfitValue) as raised:
        fill_in(template(f"ssh -- far 'restart tenure-worker@{{{field}}}'"), "worker w1", **values)
    assert f"worker w1: its {field} is {value!r}" in str(raised.value)
    assert fill_in(["restart", "it"], "worker w1", **values) == ["restart", "it"], "what isn't asked for does no harm"


@pytest.mark.parametrize("value", ["gpu-7.example.org", "::1", "[fe80::1%eth0]", "10.0.0.7", "w_1", "10.0.0.7:50051"])
def test_usual_names_stand_in_a_command(value: str) -> None:
    assert fill_in(["ssh", "--", "{host}"], "worker w1", host=value) == ["ssh", "--", value]


@pytest.mark.parametrize("plan", [planned_workers, lambda client, given: list(_foreign_workers(client, given))])
def test_a_worker_that_says_it_is_an_option_is_refused_when_the_plan_is_made(plan: Any) -> None:
    given = argparse.Namespace(worker=None, names={}, workers_via=["ssh", "{host}"], via=["ssh", "{host}"])
    known = [replace(worker("w1"), status="live"), replace(worker("w2", host="-oProxyCommand=touch X"), status="live")]
    with pytest.raises(UnfitValue, match="worker w2: its host is '-oProxyCommand=touch X'"):
        plan(Registered(known), given)


def test_one_value_is_not_filled_into_another() -> None:
    with pytest.raises(UnfitValue):
        fill_in(["restart", "{worker}"], "worker w1", worker="{host}", host="h")


def test_hosts_and_pods_are_no_options_in_what_is_ready_made() -> None:
    for commands in READY_MADE.values():
        for by, text in commands.items():
            if by != "systemd":  # a unit's name begins with "tenure-"
                assert " -- {" in text


def slot(state: str) -> SlotRecord:
    return SlotRecord(0, state, (), "", "")


def test_a_worker_is_back_with_a_new_instance_and_as_many_working_slots() -> None:
    before = {"w": worker("w", slots=2)}
    new = worker("w", slots=2, instance="new")
    assert missing_workers(["w"], before, {}) == ["w"]
    assert missing_workers(["w"], before, before) == ["w"], "the old one, not yet gone"
    assert missing_workers(["w"], before, {"w": new}) == []
    starting = replace(new, slot_list=(slot("free"), slot("starting")))
    assert missing_workers(["w"], before, {"w": starting}) == ["w"]
    # A slot that was broken before need not be mended by a restart.
    was_broken = {"w": replace(before["w"], slot_list=(slot("free"), slot("cordoned")))}
    assert missing_workers(["w"], was_broken, {"w": starting}) == []
    assert missing_workers(["w", "v"], before, {}, [worker("x", slots=2)]) == ["w"], "one newcomer stands in for one"


@pytest.mark.parametrize(
    ("text", "kind", "hosts", "login"),
    [
        ("redis://u:p%40@h:1/2", "server", (("h", 1),), {"username": "u", "password": "p@"}),
        ("unix:///run/s", "server", (), {"username": None, "password": None}),
        (
            "rediss+sentinel://a,b:2/tenure?sentinel_password=x",
            "sentinel",
            (("a", 26379), ("b", 2)),
            {"username": None, "password": None, "ssl": True},
        ),
        ("redis+cluster://a:1,[::1]:2", "cluster", (("a", 1), ("::1", 2)), {"username": None, "password": None}),
    ],
)
def test_a_stores_url_is_taken_apart(text: str, kind: str, hosts: Any, login: Any) -> None:
    url = StoreUrl.parse(text)
    assert (url.kind, url.hosts, url.login) == (kind, hosts, login)
    assert "p%40" not in url.shown


def test_what_is_no_stores_url() -> None:
    with pytest.raises(InvalidSetting):
        StoreUrl.parse("http://h")


def test_a_replica_is_in_step_with_everything_of_its_primary() -> None:
    primary = {"role": "master", "master_repl_offset": 10}
    replica = {"role": "slave", "master_link_status": "up", "slave_repl_offset": 10}
    assert is_in_step(replica, primary)
    assert not is_in_step({**replica, "slave_repl_offset": 9}, primary)
    assert not is_in_step({**replica, "master_link_status": "down"}, primary)
    assert not is_in_step({**replica, "loading": 1}, primary)
    assert not is_in_step({}, primary)


def test_one_run_at_a_time_and_the_next_goes_on(tmp_path: Path) -> None:
    with RunRecord(tmp_path / "ops", "rolling-restart") as first:
        first.note("worker w1", "instance-1")
        with pytest.raises(AnotherRun, match=r"another run is going on \(pid \d+\)"), RunRecord(tmp_path / "ops", "x"):
            pass
    with RunRecord(tmp_path / "ops", "rolling-restart") as second:
        assert second.begun == first.begun
        assert second.has_done("worker w1", "instance-1")
        assert not second.has_done("worker w1", "instance-2"), "it was restarted since"
        assert not second.has_done("worker w2", ""), "nobody knows who that is"
        second.finish()
    with RunRecord(tmp_path / "ops", "rolling-restart") as third:
        assert not third.has_done("worker w1", "instance-1")


def test_the_probe_tells_errors_and_leaves_nothing(tmp_path: Path) -> None:
    master = start_master(tmp_path / "master")
    try:
        probe = Probe(master.address, timeout_seconds=0.5)
        probe.step = "a kill"
        probe.start()
        master.kill()
        assert probe.erred.wait(30), "a client that gives up after half a second"
        seen = probe.stop()
        assert seen.longest_step == "a kill"
        assert seen.errors
        assert "no master answers" in seen.errors[0]
    finally:
        master.remove()


def test_a_run_that_stopped_before_its_end_does_not_read_as_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert Console(as_json=False).report(Accounting(), unfinished=True) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "NOT DONE: it stopped before its end, see the error"
    Console(as_json=False).report(Accounting())
    assert capsys.readouterr().out.splitlines()[-1] == "kept: nothing was lost"
