"""What a run does, step by step: order, progress, the one failure path, and the error that comes out."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from dataclasses import dataclass, field
from typing import Any

import pytest

from stepwell import Engine
from stepwell.client import run_object
from stepwell.errors import BadArguments, DuplicateRun, RunCancelled, RunFailed
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import (
    BaseStep,
    BaseStepContext,
    Orchestrator,
    ParallelSteps,
    Retry,
    StepFailed,
    StepRegistry,
    StepResult,
)
from tests.pipeline.kit import Context, Pipeline, Step, events, raising, records


class Skipped(Step):
    """Skipped."""

    answer: Any = True

    def can_skip(self, context: Context) -> Any:
        self.calls.append("can_skip")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class Wide(Context):
    """With a field for anything."""

    handle_of: Any = None


def result_of(pipeline: Pipeline) -> list[tuple[bool, bool, str | None]]:
    return [(r.success, r.skipped, r.error) for r in pipeline.context.step_results]


def test_steps_run_in_order_and_the_summary_counts_them(engine: Engine) -> None:
    pipeline = Pipeline(engine, Step("a", 0.1), Step("b", 0.7), Step("c", 0.2))
    assert pipeline.execute() == {"success": True, "steps_executed": 3, "steps_total": 3}
    assert pipeline.percents == [10, 80, 100]
    assert pipeline.context.seen == ["a", "b", "c"]
    assert [r.data for r in pipeline.context.step_results] == [{"by": "a"}, {"by": "b"}, {"by": "c"}]
    assert pipeline.context.current_step is None
    assert engine.get_run(pipeline.made.run_id or "").status == "succeeded"


def test_no_steps_are_a_success(engine: Engine) -> None:
    pipeline = Pipeline(engine)
    assert pipeline.execute() == {"success": True, "steps_executed": 0, "steps_total": 0}
    assert pipeline.percents == []


def test_skipped_steps_count_for_progress_but_were_not_executed(engine: Engine) -> None:
    skipped = Skipped("b", 0.7)
    pipeline = Pipeline(engine, Step("a", 0.1), skipped, Step("c", 0.2))
    assert pipeline.execute() == {"success": True, "steps_executed": 2, "steps_total": 3}
    assert pipeline.percents == [10, 80, 100]
    assert skipped.calls == ["can_skip"]
    assert result_of(pipeline) == [(True, False, None), (True, True, None), (True, False, None)]


@pytest.mark.parametrize("answer", [1, "yes", [0]])
def test_the_truth_of_the_answer_counts(engine: Engine, answer: Any) -> None:
    skipped = Skipped("a")
    skipped.answer = answer
    assert Pipeline(engine, skipped).execute()["steps_executed"] == 0


def test_a_failing_step_is_rolled_back_first_then_the_others_in_reverse(engine: Engine) -> None:
    a, b, c, d = Step("a"), Skipped("b"), Step("c", do=raising(ValueError("boom"))), Step("d")
    pipeline = Pipeline(engine, a, b, c, d)
    with pytest.raises(StepFailed) as caught:
        pipeline.execute()
    error = caught.value
    assert str(error) == "Step 'c' failed: boom"
    assert isinstance(error, RuntimeError)
    assert isinstance(error, RunFailed)
    assert isinstance(error.__cause__, ValueError)
    assert (error.step, error.run_id, error.rollback_errors) == ("c", pipeline.made.run_id, ())
    assert error.result is pipeline.context.step_results[-1]
    assert pipeline.context.seen == ["a", "-c", "-a"]
    assert (a.calls, b.calls, d.calls) == (["execute", "rollback"], ["can_skip"], [])
    assert pipeline.percents == [25, 50]
    assert pipeline.context.errors == []
    assert pipeline.context.current_step is None
    assert engine.get_run(error.run_id or "").status == "failed"


class Unfit(Step):
    """Returns what it is given."""

    def __init__(self, given: Any) -> None:
        super().__init__("a")
        self.given = given

    def execute(self, context: Context) -> Any:
        return self.given


@pytest.mark.parametrize(
    "given, text",
    [
        (StepResult(success=False, error="no luck"), "no luck"),
        (StepResult(success=False), "no error message given"),
        (None, "execute() must return a StepResult, got NoneType"),
        ({"success": True}, "execute() must return a StepResult, got dict"),
        (StepResult(data=[1]), "result.data must be a dict, got list"),  # type: ignore[arg-type]
        (StepResult(rollback_data=None), "result.rollback_data must be a dict, got NoneType"),  # type: ignore[arg-type]
        (StepResult(data={"x": object()}), "result.data['x'] cannot be recorded (object)"),
        (StepResult(rollback_data={"x": {1: print}}), "result.rollback_data['x'] cannot be recorded (builtin_function_or_method)"),
    ],
)  # fmt: skip
def test_results_that_are_failures(engine: Engine, given: Any, text: str) -> None:
    pipeline = Pipeline(engine, Unfit(given))
    with pytest.raises(StepFailed) as caught:
        pipeline.execute()
    assert str(caught.value) == f"Step 'a' failed: {text}"
    assert caught.value.__cause__ is None
    assert not pipeline.context.step_results[0].success


@pytest.mark.parametrize(
    "error, text", [(ValueError("x y"), "x y"), (ValueError(), "ValueError"), (KeyError("k"), "'k'")]
)
def test_the_text_of_an_exception(engine: Engine, error: Exception, text: str) -> None:
    with pytest.raises(StepFailed, match=f"^{re.escape(f'Step {chr(39)}a{chr(39)} failed: {text}')}$") as caught:
        Pipeline(engine, Step("a", do=raising(error))).execute()
    assert caught.value.__cause__ is error


def test_an_exception_in_can_skip_is_the_steps_failure(engine: Engine) -> None:
    a, b = Step("a"), Skipped("b")
    b.answer = OSError("cannot look")
    pipeline = Pipeline(engine, a, b)
    with pytest.raises(StepFailed, match=r"^Step 'b' failed: cannot look$") as caught:
        pipeline.execute()
    assert caught.value.__cause__ is b.answer
    assert b.calls == ["can_skip", "rollback"]
    assert a.calls == ["execute", "rollback"]
    assert result_of(pipeline) == [(True, False, None), (False, False, "cannot look")]


def test_an_exception_in_the_callback_is_the_failure_of_the_step_that_had_succeeded(engine: Engine) -> None:
    def callback(current: int, _total: int) -> None:
        if current == 66:
            message = "bar is gone"
            raise OSError(message)

    given: list[StepResult] = []

    class Watched(Step):
        def rollback(self, context: Context, result: StepResult) -> None:
            super().rollback(context, result)
            given.append(result)

    pipeline = Pipeline(engine, Watched("a"), Watched("b"), Watched("c"), callback=callback)
    with pytest.raises(StepFailed, match=r"^Step 'b' failed: bar is gone$"):
        pipeline.execute()
    assert pipeline.context.seen == ["a", "b", "-b", "-a"]
    assert [(r.success, r.error, r.data, r.rollback_data) for r in given] == [
        (False, "bar is gone", {"by": "b"}, {"by": "b"}),
        (True, None, {"by": "a"}, {"by": "a"}),
    ]


def test_a_rollback_that_raises_is_told_and_the_others_go_on(engine: Engine) -> None:
    class Bad(Step):
        def rollback(self, context: Context, result: StepResult) -> None:
            message = "stuck"
            raise OSError(message)

    pipeline = Pipeline(engine, Step("a"), Bad("b"), Step("c", do=raising(ValueError("boom"))))
    with pytest.raises(StepFailed, match=r"^Step 'c' failed: boom$") as caught:
        pipeline.execute()
    text = "Rollback failed for step 'b': stuck"
    assert caught.value.rollback_errors == (text,)
    assert pipeline.context.errors == [text]
    assert pipeline.context.seen == ["a", "b", "-c", "-a"]


def test_the_same_run_id_gives_the_recorded_outcome_and_runs_nothing(engine: Engine) -> None:
    steps = [Step("a"), Step("b", do=raising(ValueError("boom")))]
    with pytest.raises(StepFailed) as first:
        Pipeline(engine, *steps, run_id="r").execute()
    again = Pipeline(engine, Step("a"), Step("b"), run_id="r")
    with pytest.raises(StepFailed) as second:
        again.execute()
    assert str(second.value) == str(first.value)
    assert repr(second.value.__cause__) == "ValueError('boom')"
    assert second.value.result == first.value.result
    assert again.context.seen == ["a", "-b", "-a"]
    assert again.percents == []
    assert [step.calls for step in steps] == [["execute", "rollback"], ["execute", "rollback"]]


def test_a_succeeded_run_fills_the_context_and_calls_the_callback_once(engine: Engine) -> None:
    Pipeline(engine, Step("a"), Step("b"), run_id="r").execute()
    b = Step("b")
    again = Pipeline(engine, Step("a"), b, run_id="r")
    assert again.execute() == {"success": True, "steps_executed": 2, "steps_total": 2}
    assert again.context.seen == ["a", "b"]
    assert again.percents == [100]
    assert b.calls == []
    assert len(again.context.step_results) == 2


def test_each_execute_without_an_id_is_a_new_run(engine: Engine) -> None:
    pipeline = Pipeline(engine, Step("a"))
    pipeline.context.errors.append("mine")
    pipeline.execute()
    first, results = pipeline.made.run_id, pipeline.context.step_results
    pipeline.execute()
    assert pipeline.made.run_id != first
    assert pipeline.context.step_results is results
    assert len(results) == 1
    assert pipeline.context.errors == ["mine"]


def test_an_id_of_another_pipeline_is_refused(engine: Engine) -> None:
    Pipeline(engine, Step("a"), run_id="r").execute()
    with pytest.raises(DuplicateRun, match="use another id"):
        Pipeline(engine, Step("a"), run_id="r", name="other").execute()


def test_a_run_under_way_is_refused_to_others(engine: Engine) -> None:
    refused: list[str] = []

    def inside(context: Context) -> None:
        with pytest.raises(DuplicateRun) as caught:
            Pipeline(engine, Step("a"), run_id="r").execute()
        refused.append(str(caught.value))

    Pipeline(engine, Step("a", do=inside), run_id="r").execute()
    assert engine.host.worker in refused[0]
    assert "stepwell wait r" in refused[0]


def test_steps_that_are_added_meanwhile_are_ignored(engine: Engine) -> None:
    made: StepRegistry[Any] = StepRegistry()
    made.register(Step("a", do=lambda _: made.register(Step("late"))))
    context = Context(RuntimeContext())
    assert Orchestrator(made, context, engine=engine).execute()["steps_total"] == 1


def test_names_are_read_again_when_the_run_starts(engine: Engine) -> None:
    a, b = Step("a"), Step("b")
    pipeline = Pipeline(engine, a, b)
    b.name = "a"
    with pytest.raises(ValueError, match=r"^Step 'a' is already registered$"):
        pipeline.execute()
    b.name, b.progress_weight = "b", -1
    with pytest.raises(ValueError, match=r"^Step 'b': progress_weight must be a finite number >= 0, got -1$"):
        pipeline.execute()
    assert engine.list_runs() == []


def test_only_dataclasses_are_contexts() -> None:
    class Plain(BaseStepContext):
        pass

    for context in (object(), Plain(RuntimeContext())):
        bad: Any = context
        with pytest.raises(TypeError, match="context must be a dataclass"):
            Orchestrator(StepRegistry(), bad)


# -- what is recorded


@dataclass
class Rich(Context):
    """With fields that are not recorded."""

    conn: Any = None
    token: str = field(default="", metadata={"secret": True})


def test_a_field_that_cannot_be_recorded_fails_the_step(engine: Engine) -> None:
    def connect(context: Rich) -> None:
        context.conn = sqlite3.connect(":memory:")

    pipeline = Pipeline(engine, Step("a"), Step("b", do=connect), context=Rich(RuntimeContext()))
    with pytest.raises(StepFailed) as caught:
        pipeline.execute()
    pipeline.context.conn.close()
    assert str(caught.value) == (
        "Step 'b' failed: context field 'conn' cannot be recorded (sqlite3.Connection); "
        'declare it with field(metadata={"transient": True})'
    )
    assert pipeline.context.seen == ["a", "b", "-b", "-a"]


def test_an_initial_field_that_cannot_be_recorded_is_refused(engine: Engine) -> None:
    with pytest.raises(BadArguments, match=r"^context field 'conn' cannot be recorded \(object\)"):
        Pipeline(engine, Step("a"), context=Rich(RuntimeContext(), conn=object())).execute()
    assert engine.list_runs() == []


def test_only_changed_fields_are_written(engine: Engine) -> None:
    def change(context: Context) -> StepResult:
        context.number += 1
        return StepResult()

    pipeline = Pipeline(engine, Unfit(StepResult()), Step("b", do=change))
    pipeline.execute()
    found = [r["payload"] for r in records(engine, pipeline.made.run_id) if r["record"] == "StepSucceeded"]
    assert '"fields"' not in found[0]
    assert '"fields":{"seen":["b"],"number":1}' in found[1]


def test_a_field_that_comes_back_to_an_earlier_object_is_written_again(engine: Engine) -> None:
    """Fields whose objects cannot change are told apart by identity: what came between must not be forgotten."""
    for first in ("a text that is an object of its own", ("a tuple", (1, frozenset({2})))):
        values: list[Any] = [[1], first, ([],), first]

        def change(context: Context) -> StepResult:
            context.handle_of = values.pop(0)  # type: ignore[attr-defined]  # noqa: B023
            return StepResult()

        steps = [Step(name, do=change) for name in "abcd"]
        context = Wide(RuntimeContext(), handle_of=first)
        pipeline = Pipeline(engine, *steps, context=context)
        pipeline.execute()
        found = [r["payload"] for r in records(engine, pipeline.made.run_id) if r["record"] == "StepSucceeded"]
        assert ['"handle_of"' in text for text in found] == [True] * 4


def test_a_list_inside_a_tuple_is_looked_at(engine: Engine) -> None:
    context = Wide(RuntimeContext(), handle_of=([1], "x"))

    def change(context: Context) -> StepResult:
        context.handle_of[0].append(2)  # type: ignore[attr-defined]
        return StepResult()

    pipeline = Pipeline(engine, Step("a"), Step("b", do=change), context=context, run_id="wide")
    pipeline.execute()
    again = Pipeline(engine, Step("a"), Step("b"), context=Wide(RuntimeContext()), run_id="wide")
    again.execute()
    assert again.context.handle_of == ([1, 2], "x")


def test_point_9_a_secret_is_nowhere(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    canary = "canary-0123456789"

    def leak(context: Rich) -> StepResult:
        context.text = f"url?{context.token}"
        context.log("called", {"with": context.token})
        context.runtime_ctx.log("called", {"with": context.token})
        context.set_metrics({"token": context.token})
        context.once("k", lambda: context.token)
        return StepResult(data={"t": context.token}, error=None)

    class Leaks(Step):
        def rollback(self, context: Any, result: StepResult) -> None:
            raise OSError(context.token)

    context = Rich(RuntimeContext(), token=canary, text=f"at first {canary}")
    pipeline = Pipeline(
        engine, Leaks("a", do=leak), Step("b", do=raising(ValueError(f"401 {canary}"))), context=context
    )
    with pytest.raises(StepFailed) as caught:
        pipeline.execute()
    run_id = pipeline.made.run_id
    assert str(caught.value) == "Step 'b' failed: 401 ***"
    said = [events(engine, run_id, kind) for kind in ("event", "metrics", "log", "bar")]
    assert canary not in repr(said) + repr(records(engine, run_id)) + caplog.text + repr(context.errors)
    assert ["secret_masked", {"fields": ["text", "result.data"]}, None] in said[0]


def test_attributes_that_are_no_fields_are_told_of_once(engine: Engine) -> None:
    def stray(context: Any) -> None:
        context.stray = 1

    pipeline = Pipeline(engine, Step("a", do=stray), Step("b", do=stray))
    pipeline.execute()
    found = events(engine, pipeline.made.run_id)
    assert found == [["context_attribute_not_recorded", {"attribute": "stray"}, None]]


def test_an_event_is_kept_once_whichever_way_it_came(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "stepwell.pipeline")

    def say(context: Context) -> None:
        context.log("one", {"n": 1}, "f")
        context.runtime_ctx.log("two", {"n": 2})
        context.log("three", {"what": object()})

    pipeline = Pipeline(engine, Step("a", do=say))
    pipeline.execute()
    assert events(engine, pipeline.made.run_id) == [
        ["one", {"n": 1}, "f"],
        ["two", {"n": 2}, None],
        ["three", {"what": "<object>"}, None],
    ]
    assert events(engine, pipeline.made.run_id, "log") == []


def test_the_latest_of_bars_and_metrics_is_kept(engine: Engine) -> None:
    def say(context: Context) -> None:
        for n in range(100):
            context.set_progress(n + 1, 100)
            context.set_metrics({"n": n, f"m{n % 2}": n})

    pipeline = Pipeline(engine, Step("a", do=say))
    pipeline.execute()
    bars = events(engine, pipeline.made.run_id, "bar")
    assert bars[0] == ["a", 1, 100, 1.0]
    assert bars[-1] == ["a", 100, 100, 100.0]
    merged: dict[str, int] = {}
    for _, value in events(engine, pipeline.made.run_id, "metrics"):
        merged |= value
    assert merged == {"n": 99, "m0": 98, "m1": 99}
    assert len(bars) < 50


def test_point_10_a_thousand_empty_steps_are_a_record_each(engine: Engine) -> None:
    class Empty(BaseStep[Context]):
        name = ""
        progress_weight = 1.0

        def __init__(self, name: str) -> None:
            self.name = name

        def execute(self, context: Context) -> StepResult:
            return StepResult()

    pipeline = Pipeline(engine, *(Empty(f"s{n}") for n in range(1000)))
    pipeline.execute()
    row = engine.find(pipeline.made.run_id or "")
    rows = list(engine.store.record_load(row.rid, after=0, limit=5000))
    assert len(rows) <= 1003


# -- attempts


class Flaky(Step):
    """Fails in its first attempts."""

    def __init__(self, fails: int, retry: Retry, error: Any = OSError("again")) -> None:  # noqa: B008
        super().__init__("a")
        self.fails, self.retry, self.error = fails, retry, error
        self.attempts: list[tuple[int, list[str], int]] = []

    def execute(self, context: Context) -> StepResult:
        self.attempts.append((context.attempt, list(context.seen), context.number))
        context.seen.append(f"try {context.attempt}")
        context.number += 1
        if context.attempt <= self.fails:
            if isinstance(self.error, StepResult):
                return self.error
            raise self.error
        return StepResult()


QUICK = Retry(max_attempts=3, delay=0.0)


def test_each_attempt_begins_with_the_fields_as_they_were(engine: Engine) -> None:
    step = Flaky(2, QUICK)
    pipeline = Pipeline(engine, step)
    pipeline.execute()
    assert step.attempts == [(1, [], 0), (2, [], 0), (3, [], 0)]
    assert (pipeline.context.seen, pipeline.context.number) == (["try 3"], 1)
    assert [r["record"] for r in records(engine, pipeline.made.run_id)].count("StepRetryPlanned") == 2


@pytest.mark.parametrize(
    "retry, error, attempts",
    [
        (QUICK, OSError("again"), 3),
        (Retry(max_attempts=1), OSError("again"), 1),
        (Retry(delay=0, on=(ValueError,)), OSError("again"), 1),
        (Retry(delay=0, on=OSError), ConnectionError("again"), 3),
        (QUICK, StepResult(success=False, error="again"), 1),
        (Retry(delay=0, failed_results=True), StepResult(success=False, error="again"), 3),
    ],
)
def test_what_is_tried_again(engine: Engine, retry: Retry, error: Any, attempts: int) -> None:
    step = Flaky(9, retry, error)
    pipeline = Pipeline(engine, step)
    with pytest.raises(StepFailed, match=r"^Step 'a' failed: again$"):
        pipeline.execute()
    assert len(step.attempts) == attempts
    assert step.calls == ["rollback"]


def test_once_is_made_once_over_all_attempts(engine: Engine) -> None:
    made: list[str] = []
    found: list[Any] = []

    def make() -> int:
        made.append("k")
        return len(made)

    def do(context: Context) -> None:
        found.append(context.once("k", make))
        found.append(context.once("k", lambda: "other"))
        if context.attempt == 1:
            with pytest.raises(OSError, match="part"):
                context.once("bad", lambda: raising(OSError("part"))(context))
            raise OSError
        found.append(context.once("bad", lambda: "now"))

    step = Step("a", do=do)
    step.retry = QUICK
    Pipeline(engine, step).execute()
    assert made == ["k"]
    assert found == [1, 1, 1, 1, "now"]


# -- the end of it all


@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), SystemExit(3), asyncio.CancelledError()])
def test_an_interruption_is_no_failure(engine: Engine, error: BaseException) -> None:
    a, b = Step("a"), Step("b", do=raising(error))
    pipeline = Pipeline(engine, a, b, run_id="r")
    with pytest.raises(type(error)) as caught:
        pipeline.execute()
    assert caught.value is error
    assert a.calls == ["execute"]
    assert pipeline.context.current_step is None
    assert engine.get_run("r").status == "interrupted"
    again = Pipeline(engine, a, Step("b"), run_id="r")
    assert again.execute()["steps_executed"] == 2
    assert a.calls == ["execute"]
    assert again.percents == [50, 100]


def test_an_interrupted_rollback_is_finished_by_the_next(engine: Engine) -> None:
    class Stops(Step):
        def rollback(self, context: Context, result: StepResult) -> None:
            self.calls.append("rollback")
            if len(self.calls) == 2:
                raise KeyboardInterrupt

    a, b, c = Step("a"), Stops("b"), Step("c", do=raising(ValueError("boom")))
    with pytest.raises(KeyboardInterrupt):
        Pipeline(engine, a, b, c, run_id="r").execute()
    assert engine.get_run("r").status == "rolling_back"
    with pytest.raises(StepFailed, match=r"^Step 'c' failed: boom$"):
        Pipeline(engine, a, b, c, run_id="r").execute()
    assert a.calls == ["execute", "rollback"]
    assert b.calls == ["execute", "rollback", "rollback"]
    assert c.calls == ["execute", "rollback"]


def test_a_cancelled_run_is_rolled_back(engine: Engine) -> None:
    def cancel(context: Context) -> None:
        assert not context.cancelled
        engine.get_run("r").cancel("changed my mind")
        engine.host.take_inbox(engine.host.lives["r"])
        assert context.cancelled

    a, b, c = Step("a"), Step("b", do=cancel), Step("c")
    pipeline = Pipeline(engine, a, b, c, run_id="r")
    with pytest.raises(RunCancelled, match="changed my mind"):
        pipeline.execute()
    assert (a.calls, b.calls, c.calls) == (["execute", "rollback"], ["execute", "rollback"], [])
    assert engine.get_run("r").status == "cancelled"
    with pytest.raises(RunCancelled):
        Pipeline(engine, a, b, c, run_id="r").execute()


def test_a_cancel_of_a_run_that_nobody_holds_is_honoured_when_it_is_executed_again(engine: Engine) -> None:
    a, b = Step("a"), Step("b", do=raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        Pipeline(engine, a, b, run_id="r").execute()
    engine.get_run("r").cancel()
    with pytest.raises(RunCancelled):
        Pipeline(engine, a, Step("b"), run_id="r").execute()
    assert a.calls == ["execute", "rollback"]


# -- code that has changed


def interrupted(engine: Engine, *steps: BaseStep[Any]) -> None:
    with pytest.raises(KeyboardInterrupt):
        Pipeline(engine, *steps, Step("last", do=raising(KeyboardInterrupt())), run_id="r").execute()


def test_steps_are_matched_by_name(engine: Engine) -> None:
    interrupted(engine, Step("a"), Step("b"))
    a, b, new = Step("a"), Step("b"), Step("new")
    again = Pipeline(engine, b, new, a, Step("last"), run_id="r")
    assert again.execute() == {"success": True, "steps_executed": 4, "steps_total": 4}
    assert (a.calls, b.calls, new.calls) == ([], [], ["execute"])
    assert again.context.seen == ["a", "b", "new", "last"]


class Calm(Step):
    """Leaves the context alone when it is executed."""

    def execute(self, context: Context) -> StepResult:
        return StepResult(data={"by": self.name}, rollback_data={"by": self.name})


NAMES = ("undo", "can_skip", "failed", "once:x", "a/b#c", "g[0]", "ü")
GROUPS = (None, "g", "undo", "can_skip")


@pytest.mark.parametrize("name, group", [(name, group) for name in NAMES for group in GROUPS if name != group])
def test_a_step_may_have_any_name(engine: Engine, name: str, group: str | None) -> None:
    found = []
    for _ in range(2):
        steps = [Calm(name), Calm("z")]
        made: list[BaseStep[Any]] = [*steps] if group is None else [ParallelSteps(group, steps)]
        pipeline = Pipeline(engine, *made, Step("boom", do=raising(ValueError("no"))), run_id="named")
        with pytest.raises(StepFailed, match="Step 'boom' failed: no"):
            pipeline.execute()
        found.append((pipeline.context.seen, result_of(pipeline)))
    assert found[0] == found[1], "on record as it was"
    assert found[0][0] == ["-boom", "-z", f"-{name}"]
    shown = run_object(engine.store, engine.find("named"))
    assert [(step["name"], step["status"]) for step in shown["steps"]] == [
        (name, "succeeded"), ("z", "succeeded"), ("boom", "failed"),
    ]  # fmt: skip
    assert [step["step"] for step in shown["rollback"]] == ["boom", "z", name]


def test_a_step_that_has_gone_cannot_be_rolled_back(engine: Engine) -> None:
    interrupted(engine, Step("a"), Step("gone"))
    again = Pipeline(engine, Step("a"), Step("last", do=raising(ValueError("boom"))), run_id="r")
    with pytest.raises(StepFailed) as caught:
        again.execute()
    text = "Rollback failed for step 'gone': the step is no longer registered"
    assert caught.value.rollback_errors == (text,)
    assert again.context.errors == [text]
    assert again.context.seen == ["a", "gone", "-last", "-a"]


def test_recorded_values_win_over_the_constructors(engine: Engine) -> None:
    with pytest.raises(KeyboardInterrupt):
        Pipeline(
            engine,
            Step("last", do=raising(KeyboardInterrupt())),
            run_id="r",
            context=Context(RuntimeContext(), number=1),
        ).execute()
    again = Pipeline(engine, Step("last"), run_id="r", context=Context(RuntimeContext(), number=2, text="new"))
    again.execute()
    assert (again.context.number, again.context.text) == (1, "")
    assert ["context_differs", {"fields": ["number", "text"]}, None] in events(engine, "r")


def test_restore_makes_transient_fields_again(engine: Engine) -> None:
    class Opens(Step):
        def restore(self, context: Context, result: StepResult) -> None:
            self.calls.append(f"restore {result.data['by']}")
            context.handle = "open"

    interrupted(engine, Opens("a"), Skipped("b"))
    a = Opens("a")
    seen: list[Any] = []
    Pipeline(engine, a, Skipped("b"), Step("last", do=lambda c: seen.append(c.handle)), run_id="r").execute()
    assert a.calls == ["restore a"]
    assert seen == ["open"]


def test_an_exception_in_restore_is_the_steps_failure(engine: Engine) -> None:
    class Opens(Step):
        def restore(self, context: Context, result: StepResult) -> None:
            message = "locked"
            raise OSError(message)

    interrupted(engine, Step("a"), Opens("b"), Step("c"))
    a = Step("a")
    again = Pipeline(engine, a, Opens("b"), Step("c"), Step("last"), run_id="r")
    with pytest.raises(StepFailed, match=r"^Step 'b' failed: locked$"):
        again.execute()
    assert again.context.seen == ["a", "b", "c", "-last", "-c", "-b", "-a"]
    assert again.percents == []


def test_a_step_that_became_a_group_blocks_the_run(engine: Engine) -> None:
    from stepwell.errors import NonDeterminismError
    from stepwell.pipeline.steps import ParallelSteps

    interrupted(engine, Step("a"))
    again = Pipeline(engine, ParallelSteps("a", [Step("x")]), Step("last"), run_id="r")
    with pytest.raises(NonDeterminismError, match="recorded as a step"):
        again.execute()
    assert engine.get_run("r").status == "blocked"
    assert Pipeline(engine, Step("a"), Step("last"), run_id="r").execute()["steps_executed"] == 2


def test_an_orchestrator_inside_a_step_is_a_run_of_its_own(engine: Engine) -> None:
    def inside(context: Context) -> None:
        Pipeline(engine, Step("inner"), run_id=f"{context.run_id}.inner").execute()

    Pipeline(engine, Step("a", do=inside), run_id="r").execute()
    assert engine.get_run("r.inner").status == "succeeded"
