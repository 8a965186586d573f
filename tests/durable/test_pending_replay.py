"""Pendings in a run whose frames are dropped at each wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution

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
