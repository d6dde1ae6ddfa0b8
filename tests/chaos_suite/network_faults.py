"""The ways between workers, clients, masters and the store break in every manner a network has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tcp_relay import TcpRelay

from chaos_suite.fleet import HARMLESS_SECONDS, LEASE_SECONDS
from chaos_suite.scene import Scene, Strike, fault

Effect = Callable[[TcpRelay, Scene], None]

# What each manner does to a relay, and for how many seconds. 0: it is over at once.
MANNERS: dict[str, tuple[Effect, tuple[float, ...]]] = {
    "cut": (lambda relay, scene: None, (0.0,)),
    "delay": (lambda relay, scene: setattr(relay, "delay_seconds", scene.chance.uniform(0.05, 0.4)), (2.0,)),
    "throttle": (lambda relay, scene: setattr(relay, "bytes_per_second", 4_000.0), (2.0,)),
    "hold_up": (lambda relay, scene: relay.hold_up(), (0.5, HARMLESS_SECONDS, LEASE_SECONDS + 2)),
    "half_open": (lambda relay, scene: setattr(relay, "swallowing", True), (0.5, HARMLESS_SECONDS, LEASE_SECONDS + 2)),
    "drop_replies": (lambda relay, scene: relay.drop_replies(scene.chance.randint(1, 3)), (2.0,)),
}
MEANINGS = {
    "cut": "Every connection {way} breaks at once.",
    "delay": "Everything {way} takes longer, each way.",
    "throttle": "The line {way} is as slow as an old modem's.",
    "hold_up": "Nothing passes {way}, nobody is told, and nothing is lost.",
    "half_open": "Connections {way} are accepted, and what is said on them is lost.",
    "drop_replies": "Requests {way} are carried out, and the replies are lost with their connections.",
}
WAYS = {
    "worker": "between workers and masters",
    "client": "between clients and masters",
    "store": "between masters and the store",
}


def _make(way: str, manner: str) -> Strike:
    effect, durations = MANNERS[manner]

    async def strike(scene: Scene) -> None:
        relays = scene.fleet.ways[way]
        chosen = sorted(relays) if scene.chance.random() < 0.5 else [scene.chance.choice(sorted(relays))]
        seconds = scene.chance.choice(durations)
        async with scene.striking(f"{way}_{manner}", _harmed(scene, way, seconds), masters=chosen, seconds=seconds):
            for name in chosen:
                effect(relays[name], scene)
            if manner == "cut":
                await asyncio.gather(*(relays[name].cut() for name in chosen))
            await asyncio.sleep(seconds)
            for name in chosen:
                await relays[name].heal()

    strike.__doc__ = MEANINGS[manner].format(way=WAYS[way])
    return strike


def _harmed(scene: Scene, way: str, seconds: float) -> list[str]:
    """Who may lose leases: nobody by what is over before a lease could run out."""
    if seconds < LEASE_SECONDS:
        return []
    match way:
        case "worker":
            return scene.fleet.living()
        case "store":
            return scene.harm_by_silence
        case _:
            return []


for _way in WAYS:
    for _manner in MANNERS:
        fault("progress", "work", external=_way == "store", name=f"{_way}_{_manner}")(_make(_way, _manner))
