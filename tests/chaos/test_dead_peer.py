"""A peer that dies while its stream is busy: its lease must be cut at once, whatever the master was doing then.

Regression: streams written by generators stayed suspended when the peer died during a send, and about one death in ten
then cost the whole lease TTL instead of the grace.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path

import pytest
from cluster import ARCHITECTURE
from processes import eventually, start_master

from tenure.client import Client

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

LEASE_SECONDS = 120
ROUNDS = 12

# A worker that renews its lease as fast as it can, so that the master is nearly always answering it.
BUSY_PEER = """
import queue, sys, threading, time
import grpc
from tenure.proto import Hello, MasterServiceStub, RegisterRequest, Renewal, Renewals, SessionUp, Want

address, name = sys.argv[1:]
up, held = queue.Queue(), []
up.put(SessionUp(hello=Hello(worker=RegisterRequest(worker_id=name, instance_id=name, slots=1))))
up.put(SessionUp(want=Want(slots=1)))

def flood():
    while True:
        if held:
            up.put(SessionUp(renewals=Renewals(renewals=held)))
        time.sleep(0.002)

threading.Thread(target=flood, daemon=True).start()
for down in MasterServiceStub(grpc.insecure_channel(address)).Session(iter(up.get, None)):
    for task in down.tasks.tasks:
        held.append(Renewal(task_id=task.task_id, lease_token=task.lease_token, epoch=task.epoch))
        print(task.task_id, flush=True)
"""


async def test_lease_of_a_busy_peer_is_cut_when_it_dies(tmp_path: Path) -> None:
    master = start_master(tmp_path, lease_ttl_seconds=LEASE_SECONDS, grace_seconds=0.5, tick_seconds=0.1)
    chance = random.Random(1)
    try:
        with Client(master.address, timeout_seconds=60) as client:
            handle = await asyncio.to_thread(
                lambda: client.search("s").submit(json.dumps(ARCHITECTURE), key="k", max_losses=ROUNDS + 1)
            )
            for number in range(ROUNDS):
                peer = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", BUSY_PEER, master.address, f"peer-{number}", stdout=asyncio.subprocess.PIPE
                )
                assert peer.stdout is not None
                await peer.stdout.readline()
                await asyncio.sleep(chance.uniform(0.05, 0.4))
                peer.kill()
                await peer.wait()
                died = time.monotonic()
                # Far below the lease's time, far above the grace: only a forgotten stream takes that long.
                await eventually(
                    lambda: handle.record().state == "QUEUED", LEASE_SECONDS / 4, f"requeue after death {number}"
                )
                assert time.monotonic() - died < LEASE_SECONDS / 4
    finally:
        master.remove()
