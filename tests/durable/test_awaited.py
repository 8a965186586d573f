"""Operations of an async context that nobody awaits, and all the ways in which they can be awaited."""

from __future__ import annotations

import asyncio
import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution
from tests.durable.kit import nothing, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def dropped() -> Iterator[Engine]:
    """Every wait unwinds the frames."""
    engine = Engine("memory://awaited", hold=0)
    yield engine
    engine.stop()


FORGOTTEN: dict[str, Callable[[Any], Any]] = {
    "step 'lost'": lambda c: c.step(nothing, name="lost"),
    "step 'nothing'": lambda c: c.step(nothing),
    "wait 'lost'": lambda c: c.wait(600, name="lost"),
    "child 'lost'": lambda c: c.run_in_child_context(nothing, "lost"),
    "map 'lost'": lambda c: c.map([1], nothing, "lost"),
    "uuid 'uuid'": lambda c: c.uuid(),
}


@pytest.mark.parametrize("name", FORGOTTEN)
def test_one_that_is_forgotten_is_named_and_does_not_keep_the_run_from_parking(dropped: Engine, name: str) -> None:
    lives: list[int] = []

    @durable_execution
    async def handler(event: Any, context: Any) -> str:
        lives.append(1)
        if len(lives) == 1:
            FORGOTTEN[name](context)
            gc.collect()
        await context.wait(0.01, name="pause")
        return "done"

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert dropped.run(handler, id="r") == "done"
    assert [str(w.message) for w in seen] == [f"{name} was called and never awaited"]
    assert len(lives) == 2
    found = [r["record"] for r in records(dropped, "r", lives=True)]
    assert "Parked" in found
    assert [r["key"] for r in records(dropped, "r") if "key" in r] == ["pause", "pause"], "nothing of it is on record"


async def as_task(work: Any) -> Any:
    return await asyncio.create_task(work)


async def in_group(work: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work)
    return task.result()


async def gathered(work: Any) -> Any:
    (value,) = await asyncio.gather(work)
    return value


async def waited(work: Any) -> Any:
    return await asyncio.wait_for(work, 20)


async def awaited(work: Any) -> Any:
    return await work


@pytest.mark.parametrize("way", [awaited, as_task, in_group, gathered, waited])
def test_every_way_to_await_one(dropped: Engine, way: Any) -> None:
    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        first = await way(context.step(lambda: 1, name="s"))
        await way(context.wait(0.01))
        return [first, await way(context.run_in_child_context(lambda child: child.step(lambda: 2, name="s"), "c"))]

    assert dropped.run(handler) == [1, 2]


def test_a_task_that_is_cancelled_before_it_begins_does_not_keep_the_run_from_parking(dropped: Engine) -> None:
    lives: list[int] = []

    @durable_execution
    async def handler(event: Any, context: Any) -> str:
        lives.append(1)
        if len(lives) == 1:
            task = asyncio.create_task(context.step(nothing, name="lost"))
            task.cancel()
            await asyncio.wait({task})
        await context.wait(0.01, name="pause")
        return "done"

    assert dropped.run(handler, id="r") == "done"
    assert len(lives) == 2


def test_one_that_is_awaited_later_is_not_called_forgotten(dropped: Engine) -> None:

    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        later = context.step(lambda: "later", name="later")
        await asyncio.gather(context.wait(0.01), asyncio.sleep(0))
        return await later

    assert dropped.run(handler) == "later"
