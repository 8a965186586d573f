"""An invoked run does not end before the run that waits for it has parked, whichever thread is quicker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 25


@durable_execution(name="order:child")
def child(event: Any, context: Any) -> Any:
    return event


@durable_execution(name="order:parent")
def parent(event: Any, context: Any) -> Any:
    return context.invoke("order:child", 1)


@durable_execution(name="order:parent-async")
async def parent_async(event: Any, context: Any) -> Any:
    return await context.invoke("order:child", 1)


@pytest.mark.parametrize("hold", [0, 60])
@pytest.mark.parametrize("handler", [parent, parent_async], ids=["sync", "async"])
def test_the_parent_parks_first(tmp_path: Path, handler: Any, hold: int) -> None:
    engine = Engine(f"sqlite:///{tmp_path / 'store.db'}", hold=hold, functions=[child, parent, parent_async])
    try:
        for n in range(ROUNDS):
            assert engine.run(handler, None, id=f"r{n}") == 1
            records = [r["record"] for r in engine.get_run(f"r{n}").history() if r["record"] != "LifeStarted"]
            assert records == ["RunStarted", "InvokeStarted", "Parked", "InvokeSucceeded", "RunSucceeded"]
    finally:
        engine.stop()


def test_a_child_whose_parent_goes_away_before_it_waits_is_driven_all_the_same() -> None:
    """User code cancels the task that invokes, in the very turn in which the child was put on record."""
    engine = Engine("memory://goes-away", functions=[child])

    @durable_execution
    async def handler(event: Any, context: Any) -> None:
        task = asyncio.ensure_future(context.invoke("order:child", 1))

        async def body() -> None:
            while not engine.get_run("r").children():
                await asyncio.sleep(0)
            task.cancel()

        await context.step(body, name="cancels")
        with pytest.raises(asyncio.CancelledError):
            await task

    try:
        engine.run(handler, None, id="r")
        (made,) = engine.get_run("r").children()
        made.wait(10)
        assert made.status in ("succeeded", "cancelled")
    finally:
        engine.stop()
