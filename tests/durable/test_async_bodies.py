"""Async steps of a sync run: on the engine's loop, and cancelled there when their time is up (durable.md §5.6)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import RunFailed, durable_execution
from stepwell.durable import StepContext, StepError, StepTimeoutError
from tests.durable.kit import FAST, NEVER, names

if TYPE_CHECKING:
    from tests.durable.conftest import Run


@pytest.mark.parametrize("limit", ["timeout", "heartbeat_timeout"])
def test_a_body_whose_time_is_up_is_cancelled_and_has_ended(run: Run, limit: str) -> None:
    ended: list[str] = []

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.append("cleaned up")
            raise

    limits: dict[str, Any] = {limit: 0.02}
    handler = durable_execution(lambda event, context: context.step(body, name="s", retry=NEVER, **limits))
    with pytest.raises(StepTimeoutError) as failed:
        run(handler)
    assert isinstance(failed.value, StepError)
    assert ended == ["cleaned up"], "before the caller goes on"
    assert run.engine.host.abandoned == 0, "no thread hangs behind it"


def test_the_next_attempt_does_not_meet_it(run: Run) -> None:
    seen: list[str] = []

    async def body(context: StepContext) -> str:
        seen.append(f"begin {context.attempt}")
        try:
            if context.attempt == 1:
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append(f"end {context.attempt}")
        return "done"

    handler = durable_execution(lambda event, context: context.step(body, name="s", timeout=0.5, retry=FAST))
    assert run(handler, id="r") == "done"
    assert seen == ["begin 1", "end 1", "begin 2", "end 2"]
    assert names(run.engine, "r")[1:-1] == ["StepStarted s", "StepRetryPlanned s", "StepStarted s", "StepSucceeded s"]


def test_what_it_says_after_its_time_is_dropped(run: Run) -> None:
    async def body() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "too late"
        return "never"

    handler = durable_execution(lambda event, context: context.step(body, name="s", timeout=0.02, retry=NEVER))
    with pytest.raises(StepTimeoutError):
        run(handler, id="r")
    assert names(run.engine, "r")[-2:] == ["StepFailed s", "RunFailed"]


class Late:
    """What a function that took all its time gives to be awaited."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.begun = False

    def __await__(self) -> Any:
        self.begun = True
        return iter(())

    def close(self) -> None:
        self.closed.set()


def test_a_body_that_had_not_begun_when_its_time_was_up(run: Run) -> None:
    leave, late = threading.Event(), Late()

    def body() -> Any:
        assert leave.wait(20)
        return late

    handler = durable_execution(lambda event, context: context.step(body, name="s", timeout=0.02, retry=NEVER))
    with pytest.raises(StepTimeoutError):
        run(handler)
    leave.set()
    assert late.closed.wait(20)
    assert not late.begun


def test_a_body_that_cancels_itself_fails(run: Run) -> None:
    async def body() -> None:
        raise asyncio.CancelledError

    handler = durable_execution(lambda event, context: context.step(body, name="s", retry=NEVER))
    with pytest.raises(RunFailed) as failed:
        run(handler)
    assert isinstance(failed.value, concurrent.futures.CancelledError)


@pytest.mark.parametrize("options", [{}, {"timeout": 20}])
def test_context_variables_reach_it(run: Run, options: dict[str, Any]) -> None:
    word: ContextVar[str] = ContextVar("word")

    async def body() -> str:
        await asyncio.sleep(0)
        return word.get()

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        word.set("set by the handler")
        return context.step(body, name="s", **options)

    assert run(handler) == "set by the handler"
