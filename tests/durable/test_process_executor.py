"""Bodies in another process: their context, and what they say while they run (durable.md §5.6)."""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, RunCancelled, UsageError, durable_execution, durable_step
from stepwell.client import run_object
from stepwell.durable import StepContext, StepInterruptedError, StepTimeoutError
from stepwell.journal import SystemClock
from tests.durable.kit import FAST, NEVER, names

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.durable.conftest import Run


def about(context: StepContext) -> list[Any]:
    if context.attempt == 1:
        context.heartbeat({"rows": 5})
        raise ValueError("once")
    return [context.attempt, context.last_heartbeat, context.name, context.key, context.idempotency_key, os.getpid()]


def test_its_context_is_that_of_the_attempt(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        here = context.step(lambda step: step.idempotency_key, name="away", retry=FAST, idempotency_key="{run_id}-k")
        there = context.run_in_child_context(
            lambda c: c.step(about, name="away", executor="process", retry=FAST, idempotency_key="{run_id}-k"), "c"
        )
        return [here, *there]

    here, attempt, heartbeat, name, key, idempotency, pid = run(handler, id="r")
    assert (attempt, heartbeat, name, key) == (2, {"rows": 5}, "away", "c/away")
    assert here == idempotency == "r-k"
    assert pid != os.getpid()


async def here() -> int:
    return os.getpid()


def test_an_engine_has_one_for_the_sync_bodies_of_steps_that_name_none() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return [
            context.step(os.getpid),
            context.step(os.getpid, executor="thread"),
            context.step(here),
            context.step(os.getpid) == context.step(os.getpid),
        ]

    engine = Engine("memory://has-one", executor="process")
    try:
        away, *others, same = engine.run(handler, {})
    finally:
        engine.stop()
    assert away != os.getpid()
    assert others == [os.getpid()] * 2
    assert same, "its processes serve one step after the other"


def tells(context: StepContext) -> bool:
    context.progress(1, 4)
    context.progress(3, 4, "nearly")
    context.check()
    return context.cancelled


def test_it_says_how_far_it_is(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        assert context.step(tells, name="away", executor="process") is False
        raise ValueError("look at what was told")

    with pytest.raises(ValueError, match="look at"):
        run(handler, id="r")
    store, row = run.engine.store, run.engine.find("r")
    notes = store.note_load(row.rid, kind="progress", key="away", after=0, limit=9)
    assert [note.data for _, note in notes] == ['[1,4,""]', '[3,4,"nearly"]']
    assert run_object(store, row)["progress"]["percent"] == 50.0


@durable_step
def stops(context: StepContext, way: str) -> None:
    context.progress(0.1)
    while True:
        if way == "check":
            context.check()
        elif way == "heartbeat":
            context.heartbeat()
        elif context.cancelled:
            raise ValueError("stopped by itself")


@pytest.mark.parametrize("way", ["check", "heartbeat", "cancelled"])
def test_a_cancelled_run_reaches_it(run: Run, way: str) -> None:
    handler = durable_execution(lambda event, context: context.step(stops(way), executor="process", retry=NEVER))
    handle = run.engine.start_run(handler, id="r")
    store, row = run.engine.store, run.engine.find("r")
    while not store.note_load(row.rid, kind="progress", key="stops", after=0, limit=1):
        store.wait(1)
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.result(30)
    assert "StepSucceeded stops" not in names(run.engine, "r")


def hangs(context: StepContext) -> None:
    context.heartbeat("alive")
    threading.Event().wait()


@pytest.mark.parametrize("limit", [{"heartbeat_timeout": 0.05}, {"timeout": 0.05}])
def test_one_that_stays_silent_is_killed(run: Run, limit: dict[str, Any]) -> None:
    handler = durable_execution(
        lambda event, context: context.step(hangs, name="away", executor="process", retry=NEVER, **limit)
    )
    with pytest.raises(StepTimeoutError, match=r"sent no heartbeat for|timed out after"):
        run(handler)


class Clock(SystemClock):
    """Steps forward by hand."""

    by_hand = 0.0

    def monotonic(self) -> float:
        return self.by_hand


class Talks:
    """An executor whose body sends a heartbeat when half its time is over."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.left: list[float | None] = []

    def converse(self, *_: Any, name: str, left: Callable[[], float | None], hear: Callable[[str, Any], bool]) -> str:
        self.left.append(left())
        self.clock.by_hand += 5
        self.left.append(left())
        hear("heartbeat", "half")
        self.left.append(left())
        return name


def test_a_heartbeat_gives_it_all_its_time_again() -> None:
    clock = Clock()
    executor = Talks(clock)
    engine = Engine("memory://heartbeat", clock=clock)
    handler = durable_execution(
        lambda event, context: context.step(hangs, name="away", executor=executor, heartbeat_timeout=10)
    )
    assert engine.run(handler) == "away"
    assert executor.left == [10, 5, 10]
    engine.stop()


class Plain:
    """An executor of a user: it can only call."""

    def call(self, func: Any, args: Any, kwargs: Any, *, timeout: float | None, name: str) -> Any:
        return func(*args, **kwargs), timeout, name

    def close(self) -> None:
        raise NotImplementedError


def where(context: StepContext) -> int:
    context.heartbeat()
    context.progress(1)
    context.check()
    return context.attempt


def test_an_executor_that_can_only_call_still_does(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(where, name="s", executor=Plain(), timeout=3))
    assert run(handler) == (1, 3.0, "s")


@durable_step
def says(context: StepContext, word: str) -> None:
    context.logger.info("from the context: %s", word)
    logging.getLogger("somebody").warning("from elsewhere")
    if context.attempt == 1:
        raise ValueError("after some words")


def test_its_lines_are_kept_beside_the_step(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(says("hello"), executor="process", retry=FAST))
    run(handler, id="r")
    lines = [(line["attempt"], line["level"], line["text"]) for line in run.engine.get_run("r").logs()]
    each = [(20, "from the context: hello"), (30, "from elsewhere")]
    assert lines == [(attempt, level, text) for attempt in (1, 2) for level, text in each]


def unsendable(context: StepContext) -> str:
    with pytest.raises(Exception, match=r"pickle|local"):
        context.heartbeat(lambda: 1)
    context.heartbeat("and on")
    return "done"


def test_details_that_cannot_be_sent_are_the_bodys_error(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(unsendable, name="s", executor="process"))
    assert run(handler) == "done"


def test_one_process_serves_one_step_after_the_other(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return [context.step(partial(os.getpid), name="pid", executor="process") for _ in range(3)]

    assert len(set(run(handler))) == 1


def dies() -> None:
    os._exit(7)


def test_a_process_that_dies_fails_the_attempt_and_not_the_run(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> str:
        try:
            context.step(dies, name="away", executor="process")
        except StepInterruptedError as error:
            return str(error)
        return "never"

    assert "the process of step 'away' died (exit code 7)" in run(handler, id="r")
    assert run.keys("r", "StepRetryPlanned") == [], "the default does not repeat what may have run"


@pytest.mark.parametrize(
    "func, says",
    [
        (lambda: 1, "cannot be imported by another process"),
        (partial(print, threading.Lock()), r"argument 0 .* cannot be sent to another process"),
        (partial(print, end=threading.Lock()), r"argument end .* cannot be sent to another process"),
    ],
)
def test_what_cannot_travel_is_named_before_anything_is_written(run: Run, func: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        run(durable_execution(lambda event, context: context.step(func, name="s", executor="process")), id="r")
    assert run.keys("r", "StepStarted") == []
