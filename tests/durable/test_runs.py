"""Durable functions on a store: what durable.md says of runs, steps, waits, scopes, batches, errors and undo."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import (
    DuplicateRun,
    Engine,
    NonDeterminismError,
    Retry,
    RollbackFailed,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunTimedOut,
    Secret,
    UnknownRun,
    UsageError,
    durable_execution,
    durable_step,
    with_retry,
)
from stepwell.durable import (
    ChildContextError,
    NestedStepError,
    ParallelBranch,
    SerDesError,
    StepContext,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
    ValidationError,
    WaitForConditionError,
    WithRetryConfig,
)
from stepwell.durable._program import DurableProgram
from stepwell.durable.config import CompletionConfig, MapConfig, NestingType, ParallelConfig
from stepwell.durable.waits import WaitForConditionConfig, WaitForConditionDecision
from stepwell.errors import BadArguments
from stepwell.runtime import CANCEL, encode_cancel
from stepwell.testing._clock import VirtualClock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.durable.conftest import Run

FAST = Retry(3, delay=0.001, jitter="none")
NEVER = Retry(1)


class Plug(BaseException):
    """Pulled in the middle of a body: the life ends there, and the run is interrupted."""


def _count(calls: list[int]) -> int:
    calls.append(1)
    return len(calls)


def _say(seen: list[str], what: str, value: str) -> str:
    seen.append(what)
    return value


def nothing() -> None:
    return None


def test_a_finished_run_is_not_run_again(run: Run) -> None:
    calls: list[int] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(lambda: _count(calls), name="count")

    assert run(handler, id="r") == 1
    assert run(handler, id="r") == 1
    assert calls == [1]


def test_another_function_or_input_is_refused(run: Run) -> None:
    one = durable_execution(lambda event: event)
    two = durable_execution(name="two")(lambda event: event)
    run(one, {"a": 1}, id="r")
    with pytest.raises(DuplicateRun):
        run(one, {"a": 2}, id="r")
    with pytest.raises(DuplicateRun):
        run(two, {"a": 1}, id="r")
    assert run.engine.run(one, id="r") == {"a": 1}, "without input, the recorded one"


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "x" * 129, "a\n"])
def test_bad_ids_are_refused_before_anything_is_written(run: Run, bad: str) -> None:
    with pytest.raises(BadArguments):
        run(durable_execution(lambda event: event), id=bad)
    assert run.engine.list_runs() == []


def test_an_interrupted_run_goes_on_where_it_stopped(run: Run) -> None:
    seen: list[str] = []

    def second() -> str:
        seen.append("second")
        if seen.count("second") == 1:
            raise Plug
        return "b"

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        a = context.step(lambda: _say(seen, "first", "a"), name="first")
        return [a, context.step(second, name="second")]

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run.engine.get_run("r").status == "interrupted"
    assert run(handler, id="r") == ["a", "b"]
    assert seen == ["first", "second", "second"]
    assert run.keys("r", "StepStarted") == ["first", "second"], "one start a started attempt"


def test_at_most_once_is_not_repeated(run: Run) -> None:
    calls: list[int] = []

    def charge() -> None:
        calls.append(1)
        raise Plug

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(charge, name="charge", at_most_once=True)

    with pytest.raises(Plug):
        run(handler, id="r")
    with pytest.raises(StepInterruptedError, match=r"step 'charge' was interrupted in attempt 1; it may or may not"):
        run(handler, id="r")
    assert calls == [1]


def test_retries_and_their_records(run: Run) -> None:
    attempts: list[int] = []

    @durable_step
    def flaky(context: Any) -> int:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise ConnectionError("away")
        return int(context.attempt)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(flaky(), retry=FAST)

    assert run(handler, id="r") == 3
    assert attempts == [1, 2, 3]
    assert run.keys("r", "StepRetryPlanned") == ["flaky", "flaky"]


def test_identity_of_errors_in_every_life(run: Run) -> None:
    caught: list[tuple[str, str, str | None]] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        try:
            context.step(lambda: int("x"), name="parse", retry=NEVER)
        except ValueError as error:
            assert isinstance(error, StepError)
            caught.append((type(error).__name__, str(error), error.error_type))
        if len(caught) == 1:
            raise Plug
        return "done"

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == "done"
    assert caught[0] == caught[1]
    assert caught[0][0] == "StepError"
    assert caught[0][2] == "ValueError"


def test_run_failed_is_what_left_the_handler(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: dict[str, int]()["k"], name="look", retry=NEVER)

    with pytest.raises(RunFailed) as failed:
        run(handler, id="r")
    assert isinstance(failed.value, KeyError)
    assert isinstance(failed.value, StepError)
    assert failed.value.run_id == "r"
    assert failed.value.key == "look"
    error = run.engine.get_run("r").error
    assert error is not None
    assert "KeyError" in str(error)


def test_nested_steps_are_refused(run: Run) -> None:
    """durable.md §19.12."""

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: context.step(nothing, name="inner"), name="outer")

    with pytest.raises(NestedStepError, match=r"step 'outer' called context\.step\('inner'\) inside its body"):
        run(handler, id="r")
    assert run.keys("r", "StepStarted") == ["outer"]


def test_values_come_back_as_they_were(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        value = context.step(lambda: (1, {"d": Decimal("1.5")}, {2, 3}, b"x"), name="v")
        assert value == (1, {"d": Decimal("1.5")}, {2, 3}, b"x")
        assert isinstance(context.now(), datetime)
        return [context.random(), context.randint(1, 6), str(context.uuid())]

    first = run(handler, id="r")
    assert run(handler, id="r") == first


def test_what_cannot_be_recorded_fails_its_step_without_retry(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: {"f": open}, name="open", retry=FAST)

    with pytest.raises(SerDesError, match=r"open\.f"):
        run(handler, id="r")
    assert run.keys("r", "StepRetryPlanned") == []


def test_large_results_round_trip(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return len(context.step(lambda: "x" * 5_000_000, name="big"))

    assert run(handler, id="r") == 5_000_000


def test_a_time_out_fails_the_attempt(run: Run) -> None:
    import threading

    gate = threading.Event()

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: gate.wait(10), name="hang", timeout=0.02, retry=NEVER)

    with pytest.raises(StepTimeoutError):
        run(handler, id="r")
    gate.set()


def test_wait_for_condition(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def strategy(state: int, attempts: int) -> Any:
            if state >= 3:
                return WaitForConditionDecision.stop_polling()
            return WaitForConditionDecision.continue_waiting(0.001)

        return context.wait_for_condition(lambda state, _: state + 1, WaitForConditionConfig(strategy, 0), "poll")

    assert run(handler, id="r") == 3
    assert run.keys("r", "StepStarted") == ["poll"] * 3


def test_a_failing_check_fails_the_poll_at_once(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config: Any = WaitForConditionConfig(lambda *_: WaitForConditionDecision.continue_waiting(1), 0)
        context.wait_for_condition(lambda *_: 1 / 0, config)

    with pytest.raises(ZeroDivisionError) as failed:
        run(handler)
    assert isinstance(failed.value, WaitForConditionError)


def test_child_contexts(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        good = context.run_in_child_context(lambda child: child.step(lambda: child.key, name="s"), "inner")
        try:
            context.run_in_child_context(lambda child: child.step(lambda: int("x"), retry=NEVER), "bad")
        except ChildContextError as error:
            assert isinstance(error, ValueError)
            return good
        return None

    assert run(handler, id="r") == "inner"
    assert run.keys("r", "StepSucceeded") == ["inner/s"]


@pytest.mark.parametrize("nesting", list(NestingType))
@pytest.mark.parametrize("width", [None, 1, 2])
def test_map_in_every_form(run: Run, nesting: NestingType, width: int | None) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config: Any = MapConfig(max_concurrency=width, nesting_type=nesting)
        batch = context.map([1, 2, 3], lambda c, item, index: c.step(lambda: item * 10 + index, name="s"), "m", config)
        if event.get("plug") and not context.is_replaying():
            context.step(nothing, name="after")
        return batch.to_dict()["completionReason"], batch.get_results()

    assert run(handler) == ("ALL_COMPLETED", [10, 21, 32])


def test_map_wider_than_the_pool_with_waits_inside() -> None:
    engine = Engine("memory://wide", max_threads=4)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def outer(child: Any, item: int) -> int:
            child.wait(0.001)
            inner = child.map(range(6), lambda c, i: (c.wait(0.001), c.step(lambda: i, name="s"))[1])
            return sum(inner.get_results())

        return sum(context.map(range(12), outer).get_results())

    try:
        assert engine.run(handler) == 12 * 15
    finally:
        engine.stop()


def test_failures_of_branches_are_in_the_result(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def item(child: Any, value: int) -> Any:
            return child.step(lambda: 10 // value, retry=NEVER, name="divide")

        config: Any = MapConfig(completion_config=CompletionConfig.all_completed())
        batch = context.map([1, 0, 2], item, "m", config)
        try:
            batch.throw_if_error()
        except ZeroDivisionError as error:
            assert isinstance(error, ChildContextError)
        return [batch.success_count, batch.failure_count, str(batch.status)]

    assert run(handler) == [2, 1, "BatchItemStatus.FAILED"]


def test_parallel_names_and_early_end(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        branches = [ParallelBranch(lambda c: c.step(lambda: "fast"), "fast"), lambda c: c.wait(60)]
        batch = context.parallel(branches, "race", config)
        return [batch.completion_reason.value, batch.get_results(), batch.started_count]

    assert run(handler, id="r") == ["MIN_SUCCESSFUL_REACHED", ["fast"], 1]
    assert run.keys("r", "ScopeCancelled") == ["race[1]"]


def test_bad_criteria_write_nothing(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.map([1], lambda c, i: i, "m", MapConfig(completion_config=CompletionConfig(min_successful=2)))

    with pytest.raises(ValidationError):
        run(handler, id="r")
    assert run.keys("r", "ScopeStarted") == []


def test_with_retry(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def block(child: Any, attempt: int) -> int:
            return int(child.step(lambda: ([1, 0, 1][attempt] and attempt) or 1 / 0, name="s", retry=NEVER))

        return with_retry(context, block, WithRetryConfig(retry_strategy=FAST), "block")

    assert run(handler, id="r") == 2
    assert run.keys("r", "WaitStarted") == ["block/block-backoff-1"]


def test_undo_runs_last_first(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: 1, name="a", undo=lambda _, result: undone.append(result))
        context.on_failure(lambda _, what: undone.append(what), "noted", name="n")
        context.run_in_child_context(
            lambda child: child.step(lambda: 2, name="b", undo=lambda _, result: undone.append(result)), "inner"
        )
        context.step(lambda: 1 / 0, name="fail", retry=NEVER)

    with pytest.raises(ZeroDivisionError):
        run(handler, id="r")
    assert undone == [2, "noted", 1]
    with pytest.raises(UsageError, match="its finished steps were undone; start a new run"):
        run.engine.get_run("r").retry()


def test_an_interrupted_rollback_is_continued(run: Run) -> None:
    undone: list[str] = []

    def undo(_: Any, result: str) -> None:
        undone.append(result)
        if undone == ["b"]:
            raise Plug

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: "a", name="a", undo=undo)
        context.run_in_child_context(lambda child: child.step(lambda: "b", name="b", undo=undo), "inner")
        raise LookupError("no")

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run.engine.get_run("r").status == "rolling_back"
    with pytest.raises(LookupError):
        run(handler, id="r")
    assert undone == ["b", "b", "a"]


def test_a_failing_undo_is_reported_and_the_next_goes_on(run: Run) -> None:
    undone: list[str] = []

    from stepwell.durable import StepConfig

    @durable_execution
    def quick(event: Any, context: Any) -> Any:
        context.step(lambda: 1, name="a", undo=lambda *_: undone.append("a"))
        context.step(lambda: 2, name="b", config=StepConfig(undo=lambda *_: 1 / 0, undo_retry=NEVER))
        raise LookupError("no")

    with pytest.raises(RollbackFailed, match="b: ZeroDivisionError"):
        run(quick, id="r")
    assert undone == ["a"]
    assert run.engine.get_run("r").status == "failed"


def test_retry_gives_failed_operations_new_attempts(run: Run) -> None:
    calls: list[str] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: calls.append("first"), name="first")

        def second() -> str:
            calls.append("second")
            return "ok" if calls.count("second") > 1 else str(1 / 0)

        return context.step(second, name="second", retry=NEVER)

    with pytest.raises(ZeroDivisionError):
        run(handler, id="r")
    assert run.engine.get_run("r").retry() == "ok"
    assert calls == ["first", "second", "second"]
    assert run.engine.get_run("r").status == "succeeded"


def test_retry_skip_and_set(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return [context.step(lambda: 1 / 0, name="a", retry=NEVER), context.step(lambda: 2, name="b")]

    with pytest.raises(ZeroDivisionError):
        run(handler, id="r")
    assert run.engine.get_run("r").retry(set={"a": 7}) == [7, 2]


def test_cancel_undoes_and_ends(run: Run) -> None:
    undone: list[int] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: 1, name="a", undo=lambda _, r: undone.append(r))
        context.wait(600)

    handle = run.engine.start_run(handler, id="r")
    with pytest.raises(TimeoutError):
        handle.wait(0.1)
    handle.cancel("enough")
    with pytest.raises(RunCancelled, match="enough"):
        handle.result(10)
    assert undone == [1]
    with pytest.raises(UsageError):
        handle.cancel()


def test_a_run_has_its_own_time_limit(run: Run) -> None:
    @durable_execution(timeout=0.05)
    def handler(event: Any, context: Any) -> Any:
        context.wait(600)

    with pytest.raises(RunTimedOut):
        run(handler)


def test_changed_code_blocks_the_run(run: Run) -> None:
    version = [1]

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        if version[0] == 1:
            context.step(nothing, name="load")
            raise Plug
        context.wait(0, name="load")

    with pytest.raises(Plug):
        run(handler, id="r")
    version[0] = 2
    with pytest.raises(NonDeterminismError, match=r"was recorded as step; the code at test_runs\.py:"):
        run(handler, id="r")
    handle = run.engine.get_run("r")
    assert handle.status == "blocked"
    with pytest.raises((NonDeterminismError, RunBlocked)):
        run(handler, id="r")


def test_five_deaths_block_the_run() -> None:
    from stepwell.core import LifeLost, LifeStarted, RunStarted, RunState, StepStarted, crash_loop, fold_all

    state = RunState("r")
    fold_all(state, [RunStarted(0, "f", None), LifeStarted(0, 1, "w", "start"), StepStarted(0, "x", 1, name="x")])
    for epoch in range(2, 7):
        assert crash_loop(state) is None
        fold_all(state, [LifeLost(0, epoch - 1, "w", "dead"), LifeStarted(0, epoch, "w", "takeover")])
    assert crash_loop(state) == "crashes: step 'x' ended the process 5 times"


def test_secrets_never_reach_the_journal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_TEST_CANARY", "canary-4711")

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def leak() -> str:
            raise ValueError(f"cannot log in with {event['password'].reveal()}")

        context.step(leak, retry=NEVER, name="login")

    with pytest.raises(ValueError, match=r"cannot log in with \*\*\*"):
        run(handler, {"password": Secret.env("STEPWELL_TEST_CANARY")}, id="r")
    store, row = run.engine.store, run.engine.find("r")
    assert all(b"canary-4711" not in entry.data for entry in store.record_load(row.rid))


def test_foreign_threads_are_refused(run: Run) -> None:
    import threading

    refused: list[BaseException] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def use() -> None:
            try:
                context.step(nothing)
            except UsageError as error:
                refused.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()

    run(handler)
    assert "used from thread" in str(refused[0])


def test_unknown_runs(run: Run) -> None:
    with pytest.raises(UnknownRun):
        run.engine.get_run("nobody")


def test_run_refuses_a_running_loop(run: Run) -> None:
    async def main() -> None:
        run(durable_execution(lambda event: event))

    with pytest.raises(UsageError, match="run_async"):
        asyncio.run(main())


@pytest.mark.parametrize("hold", [0, 60])
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_journals_of_all_ways_are_equal(hold: float, colour: str) -> None:
    config: Any = MapConfig(completion_config=CompletionConfig.all_completed())

    @durable_execution(name="twin")
    def sync_twin(event: Any, context: Any) -> Any:
        def item(child: Any, value: int) -> int:
            child.wait(0.01 * (value + 1))
            return int(child.step(lambda: value, name="s"))

        batch = context.map([0, 1, 2], item, "m", config)
        context.wait(0.005)
        return batch.get_results()

    @durable_execution(name="twin")
    async def async_twin(event: Any, context: Any) -> Any:
        async def item(child: Any, value: int) -> int:
            await child.wait(0.01 * (value + 1))
            return int(await child.step(lambda: value, name="s"))

        batch = await context.map([0, 1, 2], item, "m", config)
        await context.wait(0.005)
        return batch.get_results()

    engine = Engine(f"memory://equal-{hold}-{colour}", hold=hold)
    try:
        assert engine.run(sync_twin if colour == "sync" else async_twin, id="r") == [0, 1, 2]
        history = engine.get_run("r").history()
    finally:
        engine.stop()
    by_key: dict[Any, list[str]] = {}
    for record in history:
        if record["record"] not in ("LifeStarted", "LifeLost", "Parked"):
            by_key.setdefault(record.get("key"), []).append(record["record"])
    # Threads race; what each operation leaves does not.
    expected: dict[Any, list[str]] = {
        None: ["RunStarted", "RunSucceeded"],
        "m": ["ScopeStarted", "ScopeSucceeded"],
        **{f"m[{i}]": ["ScopeStarted", "ScopeSucceeded"] for i in range(3)},
        **{f"m[{i}]/wait": ["WaitStarted", "WaitEnded"] for i in range(3)},
        **{f"m[{i}]/s": ["StepStarted", "StepSucceeded"] for i in range(3)},
        "wait": ["WaitStarted", "WaitEnded"],
    }
    assert by_key == expected


def test_contexts_are_twins() -> None:
    import inspect

    from stepwell.durable import AsyncDurableContext, DurableContext

    def public(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(value).parameters)
            for name, value in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    assert public(DurableContext) == public(AsyncDurableContext)


def test_transactional_step_commits_with_its_record(tmp_path: Path) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/store.db")
    attempts: list[int] = []

    @durable_step
    def load(context: Any) -> int:
        attempts.append(1)
        context.connection.execute("create table if not exists rows (n)")
        context.connection.execute("insert into rows values (1)")
        if len(attempts) == 1:
            raise ConnectionError("away")
        return 1

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(load(), transactional=True, retry=FAST)

    try:
        assert engine.run(handler, id="r") == 1
        rows: Any = engine.store.file.read("select count(*) from rows")  # type: ignore[attr-defined]
        assert rows == [(1,)]
    finally:
        engine.stop()


def test_transactional_step_in_another_file_is_exactly_once(tmp_path: Path) -> None:
    import sqlite3

    engine, target = Engine("memory://other"), f"sqlite:///{tmp_path}/other.db"
    pulled: list[int] = []

    @durable_step
    def load(context: Any) -> int:
        context.connection.execute("create table if not exists rows (n)")
        context.connection.execute("insert into rows values (1)")
        with pytest.raises(UsageError):
            context.connection.commit()
        return 1

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        value = context.step(load(), name="load", transactional=target)
        if not pulled:
            pulled.append(1)
            raise Plug
        return value

    with pytest.raises(Plug):
        engine.run(handler, id="r")
    assert engine.run(handler, id="r") == 1
    engine.stop()
    connection = sqlite3.connect(tmp_path / "other.db")
    assert connection.execute("select count(*) from rows").fetchone() == (1,)
    assert connection.execute("select count(*) from stepwell_once").fetchone() == (1,)
    connection.close()


def double(value: int) -> int:
    return value * 2


def test_steps_in_another_process(run: Run) -> None:
    from functools import partial

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(partial(double, 21), name="double", executor="process")

    assert run(handler) == 42


def on_the_second_attempt(context: StepContext) -> list[Any]:
    if context.attempt == 1:
        raise ValueError("not yet")
    return [context.attempt, context.idempotency_key]


def test_a_step_in_another_process_knows_its_attempt(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(
            on_the_second_attempt,
            name="s",
            executor="process",
            retry=Retry(2, delay=0),
            idempotency_key="{run_id}-{name}",
        )

    assert run(handler, id="r") == [2, "r-s"]


def test_a_transactional_body_may_not_write_to_the_store_otherwise(tmp_path: Path) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/store.db")
    other = durable_execution(name="other")(lambda event: event)

    @durable_step
    def load(context: Any) -> None:
        engine.run(other)

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(load(), transactional=True, retry=NEVER)

    try:
        with pytest.raises(UsageError, match="holds the store's write lock"):
            engine.run(handler)
    finally:
        engine.stop()


def test_a_queued_body_does_not_begin_once_its_branch_was_let_go_of() -> None:
    engine, gate, begun = Engine("memory://queued", max_threads=1), threading.Event(), list[str]()

    def held() -> None:
        begun.append("held")
        gate.wait()

    def queued() -> None:
        begun.append("queued")

    async def quick() -> str:
        return "quick"

    async def until_held(context: Any) -> str:
        while not begun:
            await asyncio.sleep(0)
        return str(await context.step(quick, name="quick"))

    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        branches = [lambda c: c.step(held, name="held"), lambda c: c.step(queued, name="queued"), until_held]
        return (await context.parallel(branches, config=config)).get_results()

    try:
        assert engine.run(handler) == ["quick"]
        gate.set()
        after = threading.Event()
        engine.host.submit_for_loop(after.set)
        assert after.wait(10)
        assert begun == ["held"]
    finally:
        gate.set()
        engine.stop()


def test_a_cancelled_run_does_not_wait_for_branches_that_no_thread_is_free_for() -> None:
    """The only thread drives the run: a branch that it has queued would never begin, and never end."""
    engine, begun = Engine("memory://only", max_threads=1), threading.Event()

    @durable_execution(name="only")
    def handler(event: Any, context: Any) -> Any:
        def body(step_context: Any) -> None:
            handle.cancel()
            begun.set()
            step_context.check()

        handle = engine.get_run(context.run_id)
        return context.map([1, 2, 3], lambda c, item: c.step(body, name="s", retry=NEVER), name="m").get_results()

    try:
        handle = engine.start_run(handler, id="r")
        with pytest.raises(RunCancelled):
            handle.result(timeout=20)
        assert begun.is_set()
    finally:
        engine.stop(grace=0.1)


def test_a_retried_run_has_its_time_anew() -> None:
    clock = VirtualClock()
    engine, calls = Engine("memory://anew", clock=clock), list[int]()

    @durable_execution(name="anew", timeout=60)
    def handler(event: Any, context: Any) -> str:
        def body(step_context: Any) -> str:
            calls.append(1)
            if len(calls) == 1:
                clock.advance(61)
                while not step_context.cancelled:
                    engine.host.pulse.look()
                raise TimeoutError
            return "done"

        return str(context.step(body, name="s", retry=NEVER))

    try:
        with pytest.raises(RunTimedOut):
            engine.run(handler, id="r")
        assert engine.get_run("r").retry() == "done"
    finally:
        engine.stop(grace=0.1)


def test_the_beat_does_not_wait_for_a_look_that_waits_for_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transactional step may hold the writer for seconds; without beats all leases of the process would lapse."""
    engine = Engine("memory://beat", lease=0.6)
    store, host, looking, beaten = engine.store, engine.host, threading.Event(), threading.Event()
    take_inbox, beat, beats = host.take_inbox, store.worker_beat, list[str]()

    def look(life: Any) -> None:
        looking.set()
        take_inbox(life)

    def count(worker: str) -> None:
        beat(worker)
        if looking.is_set():
            beats.append(worker)
        if len(beats) == 5:
            beaten.set()

    monkeypatch.setattr(host, "take_inbox", look)
    monkeypatch.setattr(store, "worker_beat", count)

    @durable_execution(name="beat")
    def handler(event: Any, context: Any) -> None:
        def body() -> None:
            with host.writer.exclusive():
                store.fact_deliver("r", CANCEL, store.now(), encode_cancel(None, None))
                assert looking.wait(20)
                assert beaten.wait(20)

        context.step(body, name="s", retry=NEVER)
        context.wait(600)

    try:
        with pytest.raises(RunCancelled):
            engine.run(handler, id="r")
    finally:
        engine.stop(grace=0.1)


def test_a_holder_that_died_while_its_run_waited_is_on_record_as_lost() -> None:
    engine = Engine("memory://lost-waiting", hold=1e6)
    store: Any = engine.store
    other = Engine(store.view())

    @durable_execution(name="lost-waiting")
    def handler(event: Any, context: Any) -> None:
        context.wait(600)

    try:
        engine.start_run(handler, id="r")
        while (hot := store.hot_get("r")).status != "waiting":
            store.wait(1)
        assert hot.owner == engine.host.worker
        life = other.host.take(hot, DurableProgram(handler), "due")
        assert life is not None
        other.host.give_back(life)
        found = [r["record"] for r in other.get_run("r").history()]
        assert found[-3:] == ["Parked", "LifeLost", "LifeStarted"]
    finally:
        engine.stop(grace=0.1)
        other.stop(grace=0.1)


def test_a_run_without_an_id_can_be_watched(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(lambda: 1, name="s")

    async def main() -> list[Any]:
        return [await run.engine.run_async(handler) for _ in range(20)]

    assert asyncio.run(main()) == [1] * 20
    assert [run(handler, timeout=30) for _ in range(20)] == [1] * 20
