"""The AWS-shaped history of real runs, held against files. ``STEPWELL_GOLDEN=write`` writes them anew."""

from __future__ import annotations

import asyncio
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from stepwell import Retry, RunCancelled, Secret, StepConfig, UsageError, durable_execution, with_retry
from stepwell.durable import DurableContext
from stepwell.durable.config import (
    ChildConfig,
    CompletionConfig,
    MapConfig,
    NestingType,
    ParallelBranch,
    ParallelConfig,
)
from stepwell.durable.retries import WithRetryConfig
from stepwell.durable.serdes import SerDes
from stepwell.durable.waits import WaitForConditionConfig, WaitForConditionDecision
from tests.client.virtual import Virtual
from tests.durable.kit import NEVER, Once, Plug

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def virtual(request: pytest.FixtureRequest) -> Iterator[Virtual]:
    made = Virtual(request.node.name, large_child_results="replay")
    yield made
    made.engine.stop()


def compare(name: str, handle: Any) -> None:
    events = handle.history("aws")["Events"]
    text = msgspec.json.format(msgspec.json.encode([_steady(event) for event in events]), indent=1).decode() + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("STEPWELL_GOLDEN") == "write":
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


def _steady(value: Any) -> Any:
    """Without what depends on where and how it runs."""
    match value:
        case {"StackTrace": _}:
            return {**value, "StackTrace": ["…"]}
        case {"CallbackId": _}:
            return {**value, "CallbackId": "…"}
        case {"ErrorType": "Runtime.ExitError"}:
            return {**value, "ErrorMessage": value["ErrorMessage"].partition(": ")[2]}
        case dict():
            return {key: _steady(inner) for key, inner in value.items()}
        case str():
            return re.sub(r"(\w+\.py):\d+", r"\1:N", value)
        case _:
            return value


class Shout(SerDes[str]):
    def serialize(self, value: str, serdes_context: Any) -> str | None:
        return value.upper() if value else None

    def deserialize(self, data: str, serdes_context: Any) -> str:
        return data


def test_steps(virtual: Virtual) -> None:
    @durable_execution(timeout=3600)
    def handler(event: Any, context: DurableContext) -> Any:
        context.step(lambda _: {"n": 1}, name="plain")
        context.step(lambda _: "quiet", serdes=Shout())
        context.step(lambda _: "", name="none", serdes=Shout())
        context.step(lambda _: None, name="null")
        context.once("once", lambda: 2)
        again = Once(ValueError("not yet"))
        context.step(again, name="again", retry=Retry(3, delay=1.5, jitter="none"))
        try:
            context.step(lambda _: 1 / 0, name="never", retry=NEVER)
        except ZeroDivisionError:
            return "caught"

    compare("steps", virtual.end(handler, {"a": [1, 2]}))


def test_a_poll(virtual: Virtual) -> None:
    def strategy(state: int, attempts: int) -> WaitForConditionDecision:
        if state >= 2:
            return WaitForConditionDecision.stop_polling()
        return WaitForConditionDecision.continue_waiting(7)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> int:
        return context.wait_for_condition(lambda state, _: state + 1, WaitForConditionConfig(strategy, 0), "poll")

    compare("poll", virtual.end(handler))


def test_waits(virtual: Virtual) -> None:
    @durable_execution
    async def handler(event: Any, context: Any) -> None:
        await context.wait(0.25, "short")
        await context.wait(90)
        waiting = asyncio.ensure_future(context.wait(60, "cancelled"))

        async def body() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        await context.step(body, name="meanwhile")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    compare("waits", virtual.end(handler))


def test_scopes(virtual: Virtual) -> None:
    def one(context: DurableContext) -> int:
        return context.step(lambda _: 1, name="one")

    def outer(context: DurableContext) -> int:
        return context.run_in_child_context(one, "inner")

    def failing(context: DurableContext) -> None:
        raise LookupError("gone")

    def second_time(context: DurableContext, attempt: int) -> int:
        if attempt == 1:
            raise ValueError(attempt)
        return attempt

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.run_in_child_context(outer, "outer", ChildConfig(sub_type="Order"))
        context.run_in_child_context(one, "virtual", ChildConfig(is_virtual=True))
        context.run_in_child_context(
            lambda _: "x" * 300_000, "large", ChildConfig(summary_generator=lambda x: "many x")
        )
        context.run_in_child_context(lambda _: "x" * 300_000, "larger")
        with pytest.raises(LookupError):
            context.run_in_child_context(failing, "failing")
        config: WithRetryConfig[Any] = WithRetryConfig(Retry(2, delay=1, jitter="none"))
        with_retry(context, second_time, config, "block")

    compare("scopes", virtual.end(handler))


def test_batches(virtual: Virtual) -> None:
    def item(context: DurableContext, given: int) -> int:
        if given > 2:
            raise ValueError(given)
        return context.step(lambda _: given, name="give")

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        config: MapConfig[Any] = MapConfig(max_concurrency=1, completion_config=CompletionConfig.all_completed())
        context.map([1, 3], item, "map", config)
        context.map([2], item, config=MapConfig(nesting_type=NestingType.FLAT))

    compare("batches", virtual.end(handler))


def test_a_batch_that_lets_go(virtual: Virtual) -> None:
    async def waiting(context: Any) -> None:
        await context.wait(60, "long")

    async def quick(context: Any) -> Any:
        return await context.step(lambda _: 1, name="quick")

    @durable_execution
    async def handler(event: Any, context: Any) -> None:
        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        await context.parallel([waiting, ParallelBranch(quick, "winner")], "first", config)

    compare("let-go", virtual.end(handler))


def test_an_end_by_failure_before_any_operation(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.wait(-1)

    compare("validation", virtual.end(handler))


def test_an_end_by_time(virtual: Virtual) -> None:
    @durable_execution(timeout=10)
    def handler(event: Any, context: DurableContext) -> None:
        context.wait(60)

    compare("timed-out", virtual.end(handler))


def test_an_end_by_a_person(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.wait(60)

    handle = virtual.start(handler)
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.resume()
    compare("stopped", handle)


def test_undo_steps_are_steps_of_a_context(virtual: Virtual) -> None:
    flaky = Once(ConnectionError("try again"))

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: "a", name="a", undo=lambda c, r: None)
        context.step(
            lambda _: "b", "b", StepConfig(undo=lambda c, r: flaky(), undo_retry=Retry(2, delay=1, jitter="none"))
        )
        context.step(lambda _: "c", "c", StepConfig(undo=lambda c, r: 1 / 0, undo_retry=NEVER))
        context.on_failure(lambda c: None, name="note")
        raise LookupError("end")

    compare("undo", virtual.end(handler))


def test_rollback_in_a_run_that_succeeds(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: "a", name="a", undo=lambda c, r: None)
        context.rollback()
        context.step(lambda _: "b", name="b")

    compare("rollback", virtual.end(handler))


def test_what_has_no_events(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.now()
        context.random()
        context.uuid()
        context.on_failure(lambda c: None)
        context.progress(0.5)
        context.logger.info("said")

    compare("no-events", virtual.end(handler))


def test_an_interrupted_life_is_an_invocation(virtual: Virtual) -> None:
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(plug, name="s")

    handle = virtual.engine.enqueue(handler, None, id="r")
    with pytest.raises(Plug):
        virtual.live(handle)
    virtual.clock.advance(5)
    virtual.live(handle)
    compare("interrupted", handle)


def test_a_blocked_run_and_then_the_right_code(virtual: Virtual) -> None:
    kinds = ["wait", "step", "wait"]

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        if kinds[0] == "wait":
            context.wait(60, "x")
        else:
            context.step(lambda _: 1, name="x")

    handle = virtual.start(handler)
    virtual.clock.advance(60)
    kinds.pop(0)
    with pytest.raises(Exception, match="recorded as wait"):
        virtual.live(handle)
    kinds.pop(0)
    virtual.live(handle)
    compare("blocked", handle)


def test_a_retried_run_goes_on_counting(virtual: Virtual) -> None:
    again = Once(ValueError("first"))

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.step(again, name="s", retry=NEVER)

    handle = virtual.end(handler)
    assert handle.retry() == 2
    compare("retried", handle)


@pytest.mark.parametrize("hold", [0, 3600])
def test_frames_that_are_kept_show_as_those_that_are_not(hold: int, request: pytest.FixtureRequest) -> None:
    """A run parks whether or not its frames are kept (durable.md §3.4): the events are the same."""

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.wait(0.01)
        context.step(lambda _: 1, name="s")
        context.wait(0.01)

    from stepwell.journal import SystemClock

    virtual = Virtual(request.node.name, hold=hold, clock=SystemClock())
    handle = virtual.engine.start_run(handler, None, id="r")
    handle.wait(10)
    kinds = [event["EventType"] for event in handle.history("aws")["Events"]]
    virtual.engine.stop()
    assert kinds == [
        "ExecutionStarted", "WaitStarted", "InvocationCompleted",
        "WaitSucceeded", "StepStarted", "StepSucceeded", "WaitStarted", "InvocationCompleted",
        "WaitSucceeded", "InvocationCompleted", "ExecutionSucceeded",
    ]  # fmt: skip


def test_a_large_payload_is_read_from_where_it_lies(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: "é" * 100_000, name="large")

    events = virtual.end(handler).history("aws")["Events"]
    assert events[2]["StepSucceededDetails"]["Result"] == {"Payload": f'"{"é" * 100_000}"', "Truncated": False}


def test_a_payload_that_the_store_has_lost(virtual: Virtual, monkeypatch: pytest.MonkeyPatch) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: "x" * 100_000, name="large")

    handle = virtual.end(handler)
    monkeypatch.setattr(virtual.engine.store, "blob_get", lambda digest: None)
    assert handle.history("aws")["Events"][2]["StepSucceededDetails"]["Result"] == {"Truncated": True}


def test_secrets_stay_masked(virtual: Virtual, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "canary-in-a-mine")

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        text = event["key"].reveal()
        with pytest.warns(RuntimeWarning, match="was masked"):
            context.step(lambda _: {"told": text}, name="tells")
        context.step(lambda _: {}[text], name="fails", retry=NEVER)

    events = virtual.end(handler, {"key": Secret.env("CANARY")}).history("aws")["Events"]
    assert "canary-in-a-mine" not in str(events)
    assert events[2]["StepSucceededDetails"]["Result"]["Payload"] == '{"told":"***"}'


def test_without_data(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.step(lambda _: "result", name="s")
        context.step(lambda _: 1 / 0, name="f", retry=NEVER)

    handle = virtual.end(handler, "event")
    events = handle.history("aws", include_data=False)["Events"]
    assert "Payload" not in str(events)
    assert [e["EventType"] for e in events] == [e["EventType"] for e in handle.history("aws")["Events"]]
    assert events[0]["ExecutionStartedDetails"] == {"Input": {}}
    assert events[2]["StepSucceededDetails"] == {"Result": {}, "RetryDetails": {"CurrentAttempt": 1}}
    assert events[4]["StepFailedDetails"] == {"Error": {}, "RetryDetails": {"CurrentAttempt": 1}}


def test_numbers_without_gaps_and_aware_times(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        for _ in range(700):
            context.step(lambda _: None, name="s")

    events = virtual.end(handler).history("aws")["Events"]
    assert [event["EventId"] for event in events] == list(range(1, 1404))
    assert events[0]["EventTimestamp"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert not any(value is None for event in events for value in event.values())


def test_another_format(virtual: Virtual) -> None:
    handle = virtual.end(durable_execution(lambda event: None))
    with pytest.raises(UsageError, match="there are 'stepwell' and 'aws'"):
        handle.history("xml")  # type: ignore[call-overload]
