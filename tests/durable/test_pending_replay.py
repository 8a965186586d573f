"""Pendings in a run whose frames are dropped at each wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution
from tests.durable.kit import Plug, nothing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def dropped() -> Iterator[Engine]:
    """An engine that keeps no frames."""
    engine = Engine("memory://dropped-pendings", hold=0)
    yield engine
    engine.stop()


@durable_execution
def cancels(event: Any, context: Any) -> Any:
    pending = context.wait_async(100_000, name="long")
    context.wait(0.01)
    answers = [pending.cancel()]
    context.wait(0.01)
    answers.append(pending.done())
    return answers[0]


@durable_execution
async def cancels_async(event: Any, context: Any) -> Any:
    pending = context.wait_async(100_000, name="long")
    await context.wait(0.01)
    answer = await pending.cancel()
    await context.wait(0.01)
    return answer


def test_a_timer_goes_on_beside_the_code_that_set_it(dropped: Engine) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        pending = context.wait_async(0.01, name="beside")
        assert pending.result() is None
        return "done"

    assert dropped.run(handler, id="r") == "done"
    waits = [r["record"] for r in dropped.get_run("r").history() if r.get("key") == "beside"]
    assert waits == ["WaitStarted", "WaitEnded"]


@pytest.mark.parametrize("handler", [cancels, cancels_async], ids=["sync", "async"])
def test_what_was_cancelled_is_not_cancelled_again_by_a_replay(dropped: Engine, handler: Any) -> None:
    for number in range(5):
        assert dropped.run(handler, id=f"r{number}") is True
        ends = [r["record"] for r in dropped.get_run(f"r{number}").history() if r.get("key") == "long"]
        assert ends == ["WaitStarted", "OperationCancelled"]


def test_one_that_is_on_record_and_never_asked_parks_nobody() -> None:
    """Its scope settles it without anything else in between."""
    plug = [Plug()]

    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        async def inside(child: Any) -> Any:
            child.step_async(nothing, "forgotten")
            return await child.step(lambda: "inside", name="s")

        first = await context.run_in_child_context(inside, "first")
        if plug:
            raise plug.pop()
        return first

    @durable_execution
    async def cut_off(event: Any, context: Any) -> Any:
        async def inside(child: Any) -> Any:
            child.step_async(nothing, "forgotten")
            await child.step(lambda: "inside", name="s")
            if plug:
                raise plug.pop()
            return "inside"

        return await context.run_in_child_context(inside, "first")

    for function in (handler, cut_off):
        plug[:] = [Plug()]
        with Engine(f"memory://forgotten-{function.name}", hold=0) as engine:
            with pytest.raises(Plug):
                engine.run(function, {}, id="r")
            assert engine.start_run(function, {}, id="r").result(20) == "inside"
