"""fsck proves how many tasks share a payload and have a class."""

from __future__ import annotations

import asyncio

import pytest
from store_scene import Scene

from tenure.common.spec import Requirements


async def fill(scene: Scene) -> None:
    await scene.submit(3, architecture="{}")
    await scene.submit(2, architecture="[]", requirements=Requirements(1))
    await scene.submit(120, search="another")


@pytest.mark.parametrize("by", [1, -1, 10])
@pytest.mark.parametrize(("hash_name", "kind"), [("payload-refs", "payload"), ("class-tasks", "class")])
async def test_a_count_that_is_wrong_is_named(scene: Scene, hash_name: str, kind: str, by: int) -> None:
    await fill(scene)
    assert await scene.violations() == []
    name = max(scene.client.hgetall(scene.key(hash_name)).items(), key=lambda pair: int(pair[1]))[0].decode()
    scene.client.hincrby(scene.key(hash_name), name, by)
    (told,) = await scene.violations()
    scene.client.hincrby(scene.key(hash_name), name, -by)
    assert told == f"{kind} {name}: {abs(by)} {'fewer' if by > 0 else 'more'} tasks have it than counted"


async def test_a_count_without_tasks_is_named(scene: Scene) -> None:
    await fill(scene)
    scene.client.hset(scene.key("payload-refs"), "f" * 32, 2)
    told = await scene.violations()
    scene.client.hdel(scene.key("payload-refs"), "f" * 32)
    assert told == [f"payload {'f' * 32}: 2 fewer tasks have it than counted"]


async def test_a_store_in_use_is_not_suspected(scene: Scene) -> None:
    await fill(scene)

    async def use() -> None:
        for _ in range(40):
            await scene.submit(5, architecture="{}")
            for grant in await scene.claim(count=5):
                await scene.complete(grant)
            await scene.tasks.forget("s", 0, 10**12)

    using = asyncio.create_task(use())
    while not using.done():
        assert [each for each in await scene.violations() if "than counted" in each] == []
    await using
    assert await scene.violations() == []
