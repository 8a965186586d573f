"""Async steps and async callers; time-outs; and that every way to run a pipeline leaves one journal."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from stepwell import Engine
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import BaseStep, LoggingStep, ParallelSteps, Retry, StepFailed, StepResult, TimingStep
from tests.pipeline.kit import Context, Pipeline, Step, events, raising, records


class Slow(BaseStep[Context]):
    """All of it is async."""

    name = ""
    progress_weight = 1.0

    def __init__(self, name: str, error: Exception | None = None) -> None:
        self.name = name
        self.error = error
        self.calls: list[str] = []

    async def can_skip(self, context: Context) -> bool:
        await asyncio.sleep(0)
        return False

    async def execute(self, context: Context) -> StepResult:
        self.calls.append("execute")
        await asyncio.sleep(0)
        value = await context.once("k", self.make)
        context.seen.append(f"{self.name}{value}")
        if self.error is not None:
            raise self.error
        return StepResult(rollback_data={"by": self.name})

    async def make(self) -> int:
        await asyncio.sleep(0)
        return 7

    async def rollback(self, context: Context, result: StepResult) -> None:
        await asyncio.sleep(0)
        self.calls.append("rollback")
        context.seen.append(f"-{self.name}")

    async def restore(self, context: Context, result: StepResult) -> None:
        await asyncio.sleep(0)
        self.calls.append("restore")


def executed(pipeline: Pipeline, *, is_async: bool) -> dict[str, Any]:
    return asyncio.run(pipeline.made.execute_async()) if is_async else pipeline.execute()


@pytest.mark.parametrize("is_async", [False, True])
def test_async_steps_work_in_both_colours(engine: Engine, is_async: bool) -> None:
    a, b = Slow("a"), Slow("b")
    pipeline = Pipeline(engine, a, LoggingStep(TimingStep(b)), Step("c"))
    assert executed(pipeline, is_async=is_async)["steps_executed"] == 3
    assert pipeline.context.seen == ["a7", "b7", "c"]
    assert pipeline.percents == [33, 66, 100]
    assert "duration_seconds" in pipeline.context.step_results[1].data


@pytest.mark.parametrize("is_async", [False, True])
def test_async_rollback_in_both_colours(engine: Engine, is_async: bool) -> None:
    a, b = Slow("a"), Slow("b", ValueError("boom"))
    pipeline = Pipeline(engine, a, b)
    with pytest.raises(StepFailed, match=r"^Step 'b' failed: boom$") as caught:
        executed(pipeline, is_async=is_async)
    assert caught.value.__cause__ is b.error
    assert pipeline.context.seen == ["a7", "b7", "-b", "-a"]


@pytest.mark.parametrize("is_async", [False, True])
def test_async_restore_in_both_colours(engine: Engine, is_async: bool) -> None:
    a = Slow("a")
    with pytest.raises(KeyboardInterrupt):
        Pipeline(engine, a, Step("b", do=raising(KeyboardInterrupt())), run_id="r").execute()
    executed(Pipeline(engine, a, Step("b"), run_id="r"), is_async=is_async)
    assert a.calls == ["execute", "restore"]


def test_a_sync_pipeline_runs_in_the_calling_thread(engine: Engine) -> None:
    where: list[int] = []

    class Here(Step):
        def can_skip(self, context: Context) -> bool:
            where.append(threading.get_ident())
            return False

        def rollback(self, context: Context, result: StepResult) -> None:
            where.append(threading.get_ident())

    def look(*_: Any) -> None:
        where.append(threading.get_ident())

    with pytest.raises(StepFailed):
        Pipeline(engine, Here("a", do=look), Here("b", do=raising(ValueError())), callback=look).execute()
    assert set(where) == {threading.get_ident()}
    assert len(where) == 6


def steps_of_every_kind(*, fails: bool) -> list[BaseStep[Any]]:
    class Skips(Step):
        def can_skip(self, context: Context) -> bool:
            return True

    class Retried(Step):
        retry = Retry(delay=0.0, jitter=False)

        def execute(self, context: Context) -> StepResult:
            if context.attempt == 1:
                message = "again"
                raise OSError(message)
            return super().execute(context)

    group = ParallelSteps("g", [Count("m1"), Count("m2")], max_workers=1)
    last = Step("z", do=raising(ValueError("boom"))) if fails else Step("z")
    return [Step("a", 0.1), Skips("b", 0.1), Retried("c"), group, last]


class Count(Step):
    """Changes nothing that its sibling changes, too."""

    def execute(self, context: Context) -> StepResult:
        context.errors.append(self.name)
        return StepResult()

    def rollback(self, context: Context, result: StepResult) -> None:
        context.errors.append(f"-{self.name}")


def journal(engine: Engine, run_id: str | None) -> list[Any]:
    """Records without times, lives, and what is told of a failure's place."""
    found = []
    for record in records(engine, run_id):
        if record["record"] in ("LifeStarted", "LifeLost"):
            continue
        if record["record"] in ("RunFailed", "RollbackStarted", "StepRetryPlanned"):
            _, record["error"], *_ = record["error"] or (None, None)
            record.pop("until", None)
        text = record.get("payload")
        if isinstance(text, str) and '"timestamp"' in text:
            head, _, rest = text.partition('"timestamp":{')
            rest = rest.partition("}")[2]
            record["payload"] = head + (rest if '"cause"' not in rest else rest.partition('"stack"')[0])
        found.append(record)
    return found


@pytest.mark.parametrize("fails", [False, True])
def test_point_4_sync_async_and_resumed_runs_leave_equal_records(engine: Engine, fails: bool) -> None:
    journals = []
    for is_async in (False, True):
        pipeline = Pipeline(engine, *steps_of_every_kind(fails=fails))
        try:
            executed(pipeline, is_async=is_async)
        except StepFailed as error:
            assert str(error) == "Step 'z' failed: boom"
        journals.append(journal(engine, pipeline.made.run_id))
    steps = steps_of_every_kind(fails=fails)
    for stop in (0, 1, 2):

        def interrupt(current: int, _total: int, stop: int = stop) -> None:
            if current > stop * 20:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Pipeline(engine, *steps, run_id="r", callback=interrupt).execute()
    last = Pipeline(engine, *steps, run_id="r")
    try:
        last.execute()
    except StepFailed as error:
        assert fails, error
    journals.append(journal(engine, "r"))
    assert journals[0] == journals[1]
    assert journals[0] == journals[2]


# -- groups


@pytest.mark.parametrize("is_async", [False, True])
def test_members_run_side_by_side_each_on_a_copy(engine: Engine, is_async: bool) -> None:
    meet = threading.Barrier(2)
    seen: dict[str, Any] = {}

    def x(context: Context) -> StepResult:
        meet.wait(30)
        context.number = 1
        seen["x"] = (context.text, context.current_step)
        return StepResult(data={"x": 1})

    def y(context: Context) -> StepResult:
        context.text = "y"
        context.errors.append("from y")
        meet.wait(30)
        seen["y"] = (context.number, context.current_step)
        return StepResult(data={"y": 1})

    class Only(Step):
        def execute(self, context: Context) -> StepResult:
            assert self.do is not None
            result: StepResult = self.do(context)
            return result

    context = Context(RuntimeContext(), errors=["before"])
    group = ParallelSteps("g", [Only("x", 0.5, x), Only("y", 0.25, y)])
    pipeline = Pipeline(engine, group, Step("z", 0.25), context=context)
    assert executed(pipeline, is_async=is_async) == {"success": True, "steps_executed": 3, "steps_total": 3}
    assert seen == {"x": ("", "x"), "y": (0, "y")}
    assert (context.number, context.text, context.errors) == (1, "y", ["before", "from y"])
    assert [r.data for r in context.step_results] == [{"x": 1}, {"y": 1}, {"by": "z"}]
    assert len(pipeline.percents) == 3
    assert pipeline.percents == sorted(pipeline.percents)
    assert pipeline.percents[-1] == 100


def test_two_members_that_disagree_fail_the_group(engine: Engine) -> None:
    pipeline = Pipeline(engine, ParallelSteps("g", [Step("x"), Step("y")], max_workers=1))
    with pytest.raises(StepFailed) as caught:
        pipeline.execute()
    assert str(caught.value) == "Step 'g' failed: context field 'seen' was changed by 'x' and 'y'"


def test_after_a_members_failure_no_new_one_starts(engine: Engine) -> None:
    late = Count("c")
    group = ParallelSteps("g", [Count("a"), Step("b", do=raising(ValueError("boom"))), late], max_workers=1)
    pipeline = Pipeline(engine, Count("first"), group)
    with pytest.raises(StepFailed, match=r"^Step 'b' failed: boom$"):
        pipeline.execute()
    assert pipeline.context.errors == ["first", "a", "-a", "-first"]
    assert late.calls == []


# -- time-outs


@pytest.mark.parametrize("is_async", [False, True])
def test_a_step_that_takes_too_long_fails_and_what_it_still_does_is_not_seen(engine: Engine, is_async: bool) -> None:
    over, ended = threading.Event(), threading.Event()

    def hang(context: Context) -> None:
        context.text = "half"
        over.wait(30)
        context.text = "late"
        context.log("late", {})
        context.runtime_ctx.set_progress(1, 1)
        ended.set()

    step = Step("a", do=hang)
    step.timeout = 0.05
    pipeline = Pipeline(engine, Step("first"), step)
    with pytest.raises(StepFailed, match=r"^Step 'a' failed: timed out after 0\.05 s$") as caught:
        executed(pipeline, is_async=is_async)
    over.set()
    assert ended.wait(30)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert pipeline.context.text == ""
    assert pipeline.context.seen == ["first", "-a", "-first"]
    assert events(engine, pipeline.made.run_id) == []


def test_a_step_in_time_hands_its_changes_over(engine: Engine) -> None:
    step = Step("a", do=lambda c: setattr(c, "text", "done"))
    step.timeout = 30
    pipeline = Pipeline(engine, step)
    pipeline.execute()
    assert (pipeline.context.text, pipeline.context.seen) == ("done", ["a"])


def test_an_async_body_is_cancelled_when_its_time_is_up(engine: Engine) -> None:
    ends: list[str] = []

    class Hangs(Slow):
        timeout = 0.05

        async def execute(self, context: Context) -> StepResult:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("cancelled")
            return StepResult()

    with pytest.raises(StepFailed, match=r"timed out after 0\.05 s$"):
        Pipeline(engine, Hangs("a")).execute()
    assert ends == ["cancelled"]


def test_a_late_attempt_may_be_made_again(engine: Engine) -> None:
    over = threading.Event()

    def first_hangs(context: Context) -> None:
        if context.attempt == 1:
            over.wait(30)

    step = Step("a", do=first_hangs)
    step.timeout, step.retry = 0.05, Retry(delay=0.0, on=(TimeoutError,))
    pipeline = Pipeline(engine, step)
    pipeline.execute()
    over.set()
    assert step.calls == ["execute", "execute"]
    assert pipeline.context.seen == ["a"]


# -- wrappers


def test_wrappers_tell_and_measure(engine: Engine) -> None:
    pipeline = Pipeline(engine, LoggingStep(TimingStep(Step("a"))))
    pipeline.execute()
    (start, end) = events(engine, pipeline.made.run_id)
    assert start == ["step_start", {"step": "logged_timed_a", "inner": "timed_a"}, None]
    elapsed = end[1].pop("elapsed")
    assert end == ["step_end", {"step": "logged_timed_a", "inner": "timed_a", "success": True}, None]
    assert elapsed == round(elapsed, 3)
    assert isinstance(pipeline.context.step_results[0].data["duration_seconds"], float)


def test_a_wrapped_step_is_skipped_retried_and_rolled_back_as_the_inner_one_says(engine: Engine) -> None:
    class Skips(Step):
        def can_skip(self, context: Context) -> bool:
            return True

    inner = Step("b", do=raising(OSError("boom")))
    inner.retry, inner.timeout = Retry(max_attempts=2, delay=0.0), 60
    pipeline = Pipeline(engine, LoggingStep(Skips("a")), LoggingStep(inner))
    with pytest.raises(StepFailed, match=r"^Step 'logged_b' failed: boom$"):
        pipeline.execute()
    assert inner.calls == ["execute", "execute", "rollback"]
    told = [event[0] for event in events(engine, pipeline.made.run_id)]
    assert told == ["step_start", "step_end", "step_start", "step_end", "step_rollback"]
    assert events(engine, pipeline.made.run_id)[1][1]["error"] == "boom"
