"""An engine that stops lets the bodies that are under way come to their end, and records what ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.journal import open_store
from tests.durable.kit import FAST


class Gates:
    """A body that says when it has begun, and ends when it may."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.calls = 0

    def work(self) -> str:
        self.calls += 1
        self.begun.set()
        assert self.may_end.wait(30)
        return "done"

    async def work_async(self) -> str:
        self.calls += 1
        self.begun.set()
        await asyncio.to_thread(self.may_end.wait, 30)
        return "done"


def stopped_in_a_body(handler: Any, gates: Gates, name: str) -> tuple[Any, Engine]:
    """Stop an engine while a body is under way; the body ends before the grace does. Another engine on the store."""
    store = open_store(f"memory://{name}")
    engine, other = Engine(store.view()), Engine(store)  # type: ignore[attr-defined]
    handle = engine.start_run(handler, {}, id="r")
    assert gates.begun.wait(30)
    life = engine.host.lives["r"]
    stopping = threading.Thread(target=engine.stop)
    stopping.start()
    while life.over is None:
        store.wait(0.01)
    gates.may_end.set()
    stopping.join(30)
    assert not stopping.is_alive()
    return handle, other


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_body_that_ends_meanwhile_is_not_run_again(colour: str) -> None:
    gates, after = Gates(), []

    @durable_execution
    def sync(event: Any, context: Any) -> Any:
        value = context.step(gates.work, name="long")
        after.append(value)
        return context.step(lambda: "next", name="next")

    @durable_execution
    async def slow(event: Any, context: Any) -> Any:
        value = await context.step(gates.work_async, name="long")
        after.append(value)
        return await context.step(lambda: "next", name="next")

    handler = sync if colour == "sync" else slow
    _, other = stopped_in_a_body(handler, gates, f"stopping-{colour}")
    run = other.get_run("r")
    assert [r["key"] for r in run.history() if r["record"] == "StepSucceeded"] == ["long"]
    assert run.status == "interrupted"
    assert other.run(handler, id="r") == "next"
    assert gates.calls == 1
    other.stop()


def test_an_attempt_that_fails_meanwhile_counts() -> None:
    gates = Gates()

    def body() -> str:
        if gates.calls:
            return "second"
        gates.work()
        raise ConnectionError("away")

    handler = durable_execution(lambda event, context: context.step(body, name="long", retry=FAST))
    _, other = stopped_in_a_body(handler, gates, "stopping-fails")
    assert [r["attempt"] for r in other.get_run("r").history() if r["record"] == "StepRetryPlanned"] == [1]
    assert other.run(handler, id="r") == "second"
    other.stop()


def test_a_function_whose_only_parameter_has_a_default_is_called_without_the_context() -> None:
    engine = Engine("memory://defaults")
    handler = durable_execution(lambda event, context: [context.step(lambda i=i: i * 2, name="s") for i in range(3)])
    assert engine.run(handler) == [0, 2, 4]
    star = durable_execution(lambda event, context: context.step(lambda *args: len(args), name="s"))
    assert engine.run(star) == 1
    engine.stop()
