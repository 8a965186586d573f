"""Declaring and starting: what a durable function is, what an id decides, what an engine and a handle answer."""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import timedelta
from typing import Any

import pytest

import stepwell
from stepwell import (
    DuplicateRun,
    Duration,
    Engine,
    NonDeterminismError,
    RetryStrategyConfig,
    RunFailed,
    RunTimedOut,
    UnknownRun,
    UsageError,
    durable_execution,
)
from stepwell.durable import DurableFunction, ValidationError
from stepwell.errors import BadArguments
from tests.durable.conftest import Run
from tests.durable.kit import NEVER, Once, Plug, names, nothing, raiser, records


def echo(event: Any) -> Any:
    return event


def counted(calls: list[int]) -> int:
    calls.append(1)
    return len(calls)


# -- declaring


def test_bare_and_called_give_a_durable_function() -> None:
    bare, called = durable_execution(echo), durable_execution(name="other")(echo)
    assert isinstance(bare, DurableFunction)
    assert (bare.name, called.name) == (f"{__name__}:echo", "other")
    assert bare.func is echo
    assert getattr(bare, "__name__", "") == "echo"


def test_signatures(run: Run) -> None:
    assert run(durable_execution(lambda event, context: [event, context.key]), 1) == [1, ""]
    assert run(durable_execution(lambda event: event), 1) == 1
    assert run(durable_execution(lambda anything: [anything][0]), 1) == 1
    assert run(durable_execution(lambda context: context.key), 1) == ""
    assert run(durable_execution(lambda ctx: ctx.key), 1) == ""


@pytest.mark.parametrize("body", [lambda: 1, lambda a, b, c: 1, lambda event, *, extra: 1])
def test_other_signatures_are_refused_at_decoration(body: Any) -> None:
    with pytest.raises(UsageError):
        durable_execution(body)


def test_generators_are_refused_at_decoration() -> None:
    def generator(event: Any) -> Any:
        yield event

    async def agenerator(event: Any) -> Any:
        yield event

    for body in (generator, agenerator):
        with pytest.raises(UsageError, match="generator"):
            durable_execution(body)


def test_calling_it_says_how_to_start_a_run() -> None:
    with pytest.raises(UsageError, match=re.escape("call stepwell.run(handler, event) to start a run")):
        durable_execution(echo)({})


def test_called_with_a_context_it_runs_inline(run: Run) -> None:
    inner = durable_execution(lambda event, context: context.step(lambda: event + 1, name="s"))

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return inner(event, context)

    assert run(handler, 4, id="r") == 5
    assert run.keys("r", "StepSucceeded") == ["s"]


def test_two_functions_with_one_name_in_one_engine_are_refused(run: Run) -> None:
    def one(event: Any) -> int:
        return 1

    def two(event: Any) -> int:
        return 2

    run.engine.register(durable_execution(name="same")(one))
    with pytest.raises(UsageError, match="same"):
        run.engine.register(durable_execution(name="same")(two))


def test_a_closure_made_anew_replaces_the_former(run: Run) -> None:
    def make(value: int) -> DurableFunction:
        def closure(event: Any) -> int:
            return value

        return durable_execution(closure)

    assert [run(make(n)) for n in (1, 2)] == [1, 2]


def test_decorating_again_is_legal_outside_engines() -> None:
    durable_execution(name="latest")(lambda event: 1)
    latest = durable_execution(name="latest")(lambda event: 2)
    engine = Engine("memory://latest")
    try:
        assert engine.run("latest") == 2
        assert latest.name == "latest"
    finally:
        engine.stop()


# -- starting


def test_input_omitted_is_an_empty_event_and_none_is_none(run: Run) -> None:
    handler = durable_execution(echo)
    assert run.engine.run(handler) == {}
    assert run.engine.run(handler, None) is None


def test_the_event_is_what_the_serializer_gives_back(run: Run) -> None:
    given = {"a": (1, 2)}
    seen: list[Any] = []
    run(durable_execution(lambda event: seen.extend([event])), given)
    assert seen == [given]
    assert seen[0] is not given


def test_a_plain_function_and_a_name_can_be_run(run: Run) -> None:
    assert run(echo, 3) == 3
    run.engine.register(durable_execution(name="by-name")(echo))
    assert run.engine.run("by-name", 4) == 4


@pytest.mark.parametrize("colour", ["def", "async def"])
def test_run_async(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        return await context.step(lambda: event, name="s")

    def plain(event: Any, context: Any) -> Any:
        return context.step(lambda: event, name="s")

    async def main() -> Any:
        engine = Engine("memory://run-async")
        try:
            return await engine.run_async(durable_execution(plain if colour == "def" else body), 5, id="r")
        finally:
            await asyncio.to_thread(engine.stop)

    assert asyncio.run(main()) == 5


def test_a_caller_that_gives_up_does_not_end_the_run(run: Run) -> None:
    gate = threading.Event()

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(lambda: gate.wait(10), name="s")

    with pytest.raises(TimeoutError):
        run(handler, id="r", timeout=0.02)
    gate.set()
    assert run.engine.get_run("r").result(10) is True


def test_start_returns_once_the_start_is_on_record(run: Run) -> None:
    gate = threading.Event()
    handler = durable_execution(lambda event, context: context.step(lambda: gate.wait(10), name="s"))
    handle = run.engine.start_run(handler, {}, id="r")
    assert names(run.engine, "r")[0] == "RunStarted"
    assert handle.status == "running"
    gate.set()
    assert handle.result(10) is True


def test_two_callers_at_one_moment_are_one_run(run: Run) -> None:
    calls: list[int] = []
    barrier = threading.Barrier(4)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(lambda: counted(calls), name="s")

    found: list[Any] = []

    def caller() -> None:
        barrier.wait(10)
        found.append(run.engine.run(handler, {}, id="r", timeout=10))

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (found, calls) == ([1] * 4, [1])


# -- what an id decides


@pytest.mark.parametrize("bad", ["", " ", "a b", "a/b", "x" * 129, "a\n", "\x00"])
def test_bad_ids(run: Run, bad: str) -> None:
    with pytest.raises(BadArguments):
        run(echo, id=bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"tags": "one"}, {"tags": 3}, {"tags": [3]}, {"tags": ["half \ud800"]}, {"tags": [""]}, {"queue": 3},
        {"queue": ""}, {"timeout": -1}, {"timeout": "soon"}, {"id": 3},
    ],
)  # fmt: skip
def test_a_bad_start_writes_nothing(run: Run, bad: dict[str, Any]) -> None:
    given: dict[str, Any] = {"id": "r", **bad}
    with pytest.raises(UsageError):
        run.engine.run(echo, {}, **given)
    with pytest.raises(UsageError):
        asyncio.run(run.engine.run_async(echo, {}, **given))
    assert run.engine.list_runs() == []


def test_what_is_no_run_or_list_of_runs(run: Run) -> None:
    ids: tuple[Any, ...] = (3, None, "half \ud800")
    for bad in ids:
        with pytest.raises(UnknownRun):
            run.engine.get_run(bad)
    filters: tuple[dict[str, Any], ...] = ({"status": "lost"}, {"limit": -1}, {"limit": "all"})
    for wrong in filters:
        with pytest.raises(ValidationError):
            run.engine.list_runs(**wrong)


@pytest.mark.parametrize(
    "bad",
    [
        {"name": 3}, {"retry": 3}, {"retry": RetryStrategyConfig()}, {"timeout": -1}, {"hold": "x"}, {"version": 3},
        {"tags": "one"}, {"tags": [3]}, {"queue": ""}, {"queue": 3}, {"serdes": 3}, {"plugins": 3},
    ],
)  # fmt: skip
def test_bad_settings_of_a_function(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        durable_execution(lambda event: event, **bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"retry": 3}, {"hold": -1}, {"max_threads": 0}, {"max_threads": "x"}, {"lease": 0}, {"lease": -1},
        {"start_flush": -1}, {"large_child_results": "x"}, {"serdes": 3}, {"plugins": 3}, {"executor": "x"},
        {"executor": 3}, {"queues": "default"}, {"queues": [3]}, {"functions": [3]},
    ],
)  # fmt: skip
def test_bad_settings_of_an_engine(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Engine("memory://bad-settings", **bad)


def test_spans_of_time_are_written_as_everywhere(run: Run) -> None:
    second = Duration(1)
    engine = Engine("memory://spans", hold=second, lease=second, start_flush=Duration(milliseconds=1))
    try:
        handle = engine.start_run(echo, {}, id="r")
        assert handle.result(Duration(20)) == {}
        handle.wait(timedelta(seconds=20))
    finally:
        engine.stop()


@pytest.mark.parametrize("good", ["a", "x" * 128, "a:b@c-d.e#f", "größe"])
def test_good_ids(run: Run, good: str) -> None:
    assert run(echo, 1, id=good) == 1


def test_generated_ids_sort_by_age(run: Run) -> None:
    for _ in range(3):
        run(echo)
    ids = [handle.id[:10] for handle in run.engine.list_runs()]
    assert ids == sorted(ids, reverse=True)


def test_an_ended_run_answers_from_the_record(run: Run) -> None:
    once = Once(ValueError("no"))
    handler = durable_execution(lambda event, context: context.step(once, name="s", retry=NEVER))
    for _ in range(2):
        with pytest.raises(ValueError, match="no") as failed:
            run(handler, id="r")
        assert isinstance(failed.value, RunFailed)
    assert once.calls == 1


def test_input_is_compared_after_serializing(run: Run) -> None:
    handler = durable_execution(echo)
    run(handler, {"a": 1, "b": [1]}, id="r")
    assert run(handler, {"a": 1, "b": [1]}, id="r") == {"a": 1, "b": [1]}
    before = records(run.engine, "r")
    with pytest.raises(DuplicateRun) as refused:
        run(handler, {"a": 1, "b": (1,)}, id="r")
    assert refused.value.run_id == "r"
    assert records(run.engine, "r") == before, "nothing written"


def test_another_function_is_refused_and_both_are_named(run: Run) -> None:
    run(durable_execution(name="one")(echo), 1, id="r")
    with pytest.raises(DuplicateRun, match=r"one.*two"):
        run(durable_execution(name="two")(echo), 1, id="r")


def test_an_interrupted_run_is_taken_up_with_its_recorded_input(run: Run) -> None:
    once = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(once, name="s")
        return event

    with pytest.raises(Plug):
        run(handler, {"n": 1}, id="r")
    assert run.engine.get_run("r").status == "interrupted"
    assert run.engine.run(handler, id="r") == {"n": 1}


def test_a_pending_run_is_taken_up(run: Run) -> None:
    handler = durable_execution(echo)
    assert run.engine.enqueue(handler, 5, id="r").status == "pending"
    assert run.engine.run(handler, id="r") == 5


# -- engines and handles


def test_a_worker_drives_what_is_due() -> None:
    handler = durable_execution(name="worked")(echo)
    with Engine("memory://worker", functions=[handler]) as engine:
        assert engine.enqueue(handler, 7).result(10) == 7


def test_start_and_stop_are_idempotent() -> None:
    engine = Engine("memory://idempotent")
    engine.start()
    engine.start()
    engine.stop()
    engine.stop()


def test_async_with() -> None:
    async def main() -> Any:
        async with Engine("memory://async-with") as engine:
            return await engine.run_async(echo, 1, id="r")

    assert asyncio.run(main()) == 1


def test_get_run_takes_a_unique_prefix(run: Run) -> None:
    run(echo, id="order-1")
    run(echo, id="order-2")
    assert run.engine.get_run("order-1").id == "order-1"
    with pytest.raises(UnknownRun, match="could be"):
        run.engine.get_run("order")
    run(echo, id="other")
    assert run.engine.get_run("ot").id == "other"
    for unknown in ("nope", ""):
        with pytest.raises(UnknownRun):
            run.engine.get_run(unknown)


def test_list_runs(run: Run) -> None:
    bad = durable_execution(name="bad")(lambda event: 1 / 0)
    run(echo, id="a")
    with pytest.raises(ZeroDivisionError):
        run(bad, id="b")
    assert [h.id for h in run.engine.list_runs()] == ["b", "a"]
    assert [h.id for h in run.engine.list_runs("failed")] == ["b"]
    assert [h.id for h in run.engine.list_runs(name="bad")] == ["b"]
    assert [h.id for h in run.engine.list_runs(limit=1)] == ["b"]


def test_what_a_handle_shows(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: {"n": 1}, name="first")
        context.wait(0, name="pause")
        context.run_in_child_context(lambda child: child.step(nothing, name="inner"), "scope")
        return 1

    run(handler, id="r")
    handle = run.engine.get_run("r")
    assert (handle.id, handle.status, handle.error, handle.result()) == ("r", "succeeded", None, 1)
    assert [(op.name, op.operation_type.name) for op in handle.operations] == [
        ("first", "STEP"),
        ("pause", "WAIT"),
        ("scope", "CONTEXT"),
    ]
    assert handle.get_step("first").result == {"n": 1}
    assert handle.get_step("inner").name == "inner"
    assert handle.get_wait("pause").name == "pause"
    assert handle.get_context("scope").child_operations[0].name == "inner"
    with pytest.raises(LookupError, match="first"):
        handle.get_step("nope")


def test_async_twins_of_the_blocking_calls(run: Run) -> None:
    run(echo, 2, id="r")
    handle = run.engine.get_run("r")

    async def main() -> Any:
        await handle.wait_async(10)
        return await handle.result_async(10)

    assert asyncio.run(main()) == 2


def test_a_waiting_handle_gives_up_in_time(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.wait(600))
    handle = run.engine.start_run(handler, id="r")
    with pytest.raises(TimeoutError):
        handle.wait(0.02)
    with pytest.raises(TimeoutError):
        handle.result(0.01)
    assert handle.status in ("waiting", "running")


def test_cancel_of_an_ended_run(run: Run) -> None:
    run(echo, id="r")
    with pytest.raises(UsageError, match="ended"):
        run.engine.get_run("r").cancel()


def test_the_time_limit_of_a_run_holds_through_waits(run: Run) -> None:
    handler = durable_execution(timeout=0.02)(lambda event, context: context.wait(600))
    with pytest.raises(RunTimedOut):
        run(handler, id="r")
    assert run.engine.get_run("r").status == "timed_out"


def test_the_record_of_a_plain_run(run: Run) -> None:
    run(durable_execution(lambda event, context: context.step(lambda: 1, name="s")), id="r")
    assert [r["record"] for r in run.engine.get_run("r").history()] == [
        "RunStarted",
        "LifeStarted",
        "StepStarted",
        "StepSucceeded",
        "RunSucceeded",
    ]


def test_what_left_the_handler_is_the_error_on_record(run: Run) -> None:
    with pytest.raises(RunFailed) as failed:
        run(durable_execution(raiser_of_lookup), id="r")
    assert isinstance(failed.value, LookupError)
    error = run.engine.get_run("r").error
    assert error is not None
    assert (error.type, error.message) == ("LookupError", "gone")


def raiser_of_lookup(event: Any) -> Any:
    return raiser(LookupError("gone"))()


def test_the_names_of_the_front_page() -> None:
    for name in [
        "Engine",
        "RunHandle",
        "run",
        "run_async",
        "start",
        "durable_execution",
        "durable_step",
        "durable_with_child_context",
        "durable_parallel_branch",
        "with_retry",
        "DurableContext",
        "AsyncDurableContext",
        "StepContext",
        "StepConfig",
        "StepSemantics",
        "Duration",
        "Retry",
        "RetryStrategyConfig",
        "create_retry_strategy",
        "RetryPresets",
        "BatchResult",
        "Secret",
    ]:
        assert hasattr(stepwell, name), name
    assert stepwell.NonDeterminismError is NonDeterminismError
