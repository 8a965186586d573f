"""Context variables are copied into handlers, steps, threads, branches and tasks (durable.md §3.6)."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.durable.config import MapConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.durable.conftest import Run

word: ContextVar[str] = ContextVar("word", default="unset")


@pytest.fixture(autouse=True)
def outside() -> Iterator[None]:
    token = word.set("outside")
    yield
    word.reset(token)


def get() -> str:
    return word.get()


async def get_async() -> str:
    await asyncio.sleep(0)
    return word.get()


def change(context: Any, *_: Any) -> Any:
    before = word.get()
    word.set("changed inside")
    return [before, context.step(get, name="s")]


async def change_async(context: Any, *_: Any) -> Any:
    before = word.get()
    word.set("changed inside")
    return [before, await context.step(get, name="s")]


SYNC: dict[str, Callable[[Any], Any]] = {
    "inline": lambda c: c.step(get),
    "on a thread": lambda c: c.step(get, timeout=20),
    "on the loop": lambda c: c.step(get_async),
    "on a thread and the loop": lambda c: c.step(get_async, timeout=20),
    "child": lambda c: c.run_in_child_context(lambda child: child.step(get), "c"),
    "once": lambda c: c.once("k", get),
}
ASYNC: dict[str, Callable[[Any], Any]] = {
    "task": lambda c: c.step(get_async),
    "timed task": lambda c: c.step(get_async, timeout=20),
    "on a thread": lambda c: c.step(get),
    "on another thread": lambda c: c.step(get, timeout=20),
    "child": lambda c: c.run_in_child_context(lambda child: child.step(get), "c"),
}


@pytest.mark.parametrize("way", SYNC)
def test_in_a_sync_run(run: Run, way: str) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        outer = word.get()
        word.set("set by the handler")
        return [outer, SYNC[way](context)]

    assert run(handler) == ["outside", "set by the handler"]
    assert word.get() == "outside"


@pytest.mark.parametrize("way", ASYNC)
def test_in_an_async_run(run: Run, way: str) -> None:
    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        outer = word.get()
        word.set("set by the handler")
        return [outer, await ASYNC[way](context)]

    assert run(handler) == ["outside", "set by the handler"]
    assert word.get() == "outside"


@pytest.mark.parametrize("most", [None, 1])
def test_branches_get_a_copy_each(run: Run, most: int | None) -> None:
    """What one sets, no other sees, and not the handler."""

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        word.set("set by the handler")
        items = context.map(range(3), change, config=MapConfig(max_concurrency=most)).get_results()
        branches = context.parallel([change, change]).get_results()
        return [*items, *branches, word.get()]

    each = ["set by the handler", "changed inside"]
    assert run(handler) == [each] * 5 + ["set by the handler"]


def test_async_branches_get_a_copy_each(run: Run) -> None:
    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        word.set("set by the handler")
        items = (await context.map(range(3), change_async)).get_results()
        branches = (await context.parallel([change_async, change_async])).get_results()
        return [*items, *branches, word.get()]

    each = ["set by the handler", "changed inside"]
    assert run(handler) == [each] * 5 + ["set by the handler"]


def test_of_more_branches_than_threads(run: Run) -> None:
    """Some of them run on their coordinator's own thread."""
    handler = durable_execution(
        lambda event, context: context.map(
            range(200), lambda child, item: child.map(range(3), lambda inner, _: change(inner)).get_results()
        ).get_results()
    )
    assert run(handler) == [[["outside", "changed inside"]] * 3] * 200
    assert word.get() == "outside"


@pytest.mark.parametrize("coloured", [False, True])
def test_every_life_begins_with_those_of_its_caller(coloured: bool) -> None:
    seen: list[str] = []

    @durable_execution
    def plain(event: Any, context: Any) -> None:
        seen.append(word.get())
        word.set("set by the handler")
        context.wait(0.01)

    @durable_execution
    async def awaited(event: Any, context: Any) -> None:
        seen.append(word.get())
        word.set("set by the handler")
        await context.wait(0.01)

    engine = Engine("memory://lives", hold=0)
    engine.run(awaited if coloured else plain)
    engine.stop()
    assert seen == ["outside", "outside"]


def test_a_run_in_the_background(run: Run) -> None:
    assert run.engine.start_run(durable_execution(lambda event, context: context.step(get))).result(20) == "outside"
    coloured: Any = durable_execution(get_outer)
    assert run.engine.start_run(coloured).result(20) == ["outside", "outside"]

    async def main() -> Any:
        return await run.engine.run_async(coloured)

    assert asyncio.run(main()) == ["outside", "outside"]


async def get_outer(event: Any, context: Any) -> Any:
    return [word.get(), await context.step(get)]
