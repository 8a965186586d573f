"""`DurableRunner`: results, virtual time, crashes, replay."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Retry, UsageError, durable_execution, durable_step
from stepwell.durable.config import MapConfig
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus, OperationType
from stepwell.durable.waits import WaitForConditionConfig, WaitForConditionDecision
from stepwell.testing import DurableRunner
from stepwell.testing.runner import DurableFunctionsTestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

bodies: list[str] = []
"""The ledger: what ran, in order."""


@pytest.fixture(autouse=True)
def ledger() -> Iterator[None]:
    bodies.clear()
    yield
    bodies.clear()


@durable_step
def charge(step_context: Any, amount: int) -> int:
    bodies.append("charge")
    step_context.logger.info("charging %d", amount)
    return amount


@durable_step
def flaky(step_context: Any, fails: int) -> int:
    bodies.append(f"flaky {step_context.attempt}")
    if step_context.attempt <= fails:
        raise ValueError(f"attempt {step_context.attempt}")
    return int(step_context.attempt)


@durable_execution
def order(event: Any, context: Any) -> Any:
    paid = context.step(charge(event.get("amount", 7)))
    context.wait(3600, name="an hour")
    tried = context.step(flaky(event.get("fails", 0)), retry=Retry(3, delay=600, max_delay=600, jitter="none"))
    kept = context.run_in_child_context(lambda inside: inside.step(lambda: {"kept": paid}, name="keep"), name="box")
    return [paid, tried, kept]


@durable_execution
async def order_async(event: Any, context: Any) -> Any:
    paid = await context.step(charge(event.get("amount", 7)))
    await context.wait(3600, name="an hour")
    tried = await context.step(flaky(event.get("fails", 0)), retry=Retry(3, delay=600, max_delay=600, jitter="none"))

    async def box(inside: Any) -> Any:
        return await inside.step(lambda: {"kept": paid}, name="keep")

    return [paid, tried, await context.run_in_child_context(box, name="box")]


both = pytest.mark.parametrize("handler", [order, order_async], ids=["sync", "async"])


@both
def test_a_result_tells_all_of_the_run(handler: Any) -> None:
    with DurableRunner(handler, "orders") as runner:
        result = runner.run({"amount": 3, "fails": 2}, id="order-1")
    assert result.run_id == "order-1"
    assert result.status is InvocationStatus.SUCCEEDED
    assert result.execution_status is OperationStatus.SUCCEEDED
    assert result.result == [3, 3, {"kept": 3}]
    assert result.error is None
    assert [op.name for op in result.operations] == ["charge", "an hour", "flaky", "box"]
    assert [op.name for op in result.get_all_operations()] == ["charge", "an hour", "flaky", "box", "keep"]
    step = result.get_step("flaky")
    assert (step.name, step.result, step.attempt, step.error) == ("flaky", 3, 3, None)
    assert step.status is InvocationStatus.SUCCEEDED
    wait = result.get_wait("an hour")
    assert (wait.end_timestamp - wait.start_timestamp).total_seconds() >= 3600
    assert result.get_context("box").get_step("keep").result == {"kept": 3}
    assert result.get_operation_by_name("keep") is result.get_context("box").operations[0]
    assert [line["text"] for line in result.logs] == ["charging 3"]
    assert result.history()[0]["record"] == "RunStarted"
    assert result.history("aws")["Events"][-1]["EventType"] == "ExecutionSucceeded"
    assert result.history()[0]["function"] == "orders"


def test_a_missing_name_is_told_with_the_names_there_are() -> None:
    with DurableRunner(order) as runner:
        result = runner.run()
    with pytest.raises(DurableFunctionsTestError, match=r"no step called 'chrge'; there is: charge, flaky, keep$"):
        result.get_step("chrge")
    with pytest.raises(DurableFunctionsTestError, match=r"no wait called 'charge'; there is: an hour$"):
        result.get_wait("charge")
    with pytest.raises(DurableFunctionsTestError, match=r"no callback called 'x'; there is: none with a name$"):
        result.get_callback("x")
    with pytest.raises(UsageError, match="there is stepwell, aws"):
        result.history("xml")


@both
def test_a_failed_run_shows_what_failed(handler: Any) -> None:
    with DurableRunner(handler) as runner:
        result = runner.run({"fails": 9})
    assert result.status is InvocationStatus.FAILED
    assert result.execution_status is OperationStatus.FAILED
    assert result.result is None
    assert "StepError: attempt 3 [ValueError]" in str(result.error)
    assert result.get_step("flaky").status is InvocationStatus.FAILED
    assert str(result.get_step("flaky").error) == "ValueError: attempt 3"
    assert bodies == ["charge", "flaky 1", "flaky 2", "flaky 3"]


def test_it_works_without_with_and_again() -> None:
    runner = DurableRunner(order)
    assert runner.run({"amount": 1}, id="one").result[0] == 1
    runner.close()
    runner.close()
    with runner:
        assert runner.run({"amount": 2}).result[0] == 2
        again = runner.run(id="one")
    assert again.result[0] == 1
    assert bodies.count("charge") == 2


@both
def test_time_jumps_over_waits_and_retries(handler: Any) -> None:
    with DurableRunner(handler) as runner:
        result = runner.run({"fails": 2}, timeout=30)
    first = result.get_step("charge").start_timestamp
    spent = (result.get_step("flaky").end_timestamp - first).total_seconds()
    assert 3600 + 600 + 600 <= spent < 4800 + 60


def test_polls_are_jumped_to_in_the_order_of_their_time() -> None:
    def poll(name: str, seconds: int) -> Any:
        def check(state: int, check_context: Any) -> int:
            bodies.append(name)
            return state + 1

        def strategy(state: int, checks: int) -> WaitForConditionDecision:
            stop = state >= 3
            return (
                WaitForConditionDecision.stop_polling() if stop else WaitForConditionDecision.continue_waiting(seconds)
            )

        return lambda context: context.wait_for_condition(check, WaitForConditionConfig(strategy, 0), name=name)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.parallel([poll("slow", 50), poll("fast", 20)]).get_results()

    with DurableRunner(handler) as runner:
        assert runner.run().result == [3, 3]
    assert sorted(bodies[:2]) == ["fast", "slow"]
    assert bodies[2:] == ["fast", "fast", "slow", "slow"]


def test_time_stands_while_code_runs_in_any_run() -> None:
    running, go_on = threading.Event(), threading.Event()

    def busy_body() -> bool:
        running.set()
        return go_on.wait(30)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        if event["busy"]:
            context.step(busy_body, name="busy")
        else:
            context.wait(1000)
        return context.now().timestamp()

    with DurableRunner(handler) as runner:
        busy = runner.start({"busy": True})
        assert running.wait(30)
        waits = runner.start({"busy": False})
        with pytest.raises(TimeoutError):
            waits.wait(0.05)
        go_on.set()
        early, late = runner.result(busy).result, runner.result(waits).result
    assert late - early > 900


def test_deadlines_of_a_run_are_not_jumped_to_and_advance_passes_them() -> None:
    @durable_execution(timeout=3600)
    def handler(event: Any, context: Any) -> Any:
        context.wait(event["wait"])
        return "done"

    with DurableRunner(handler) as runner:
        assert runner.run({"wait": 60}).result == "done"
        late = runner.run({"wait": 7200})
    assert late.execution_status is OperationStatus.TIMED_OUT
    assert late.status is InvocationStatus.FAILED
    assert late.error is not None
    assert "timed out" in str(late.error)


def test_real_time_where_it_is_asked_for() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        before = context.now()
        context.wait(0.02)
        return (context.now() - before).total_seconds()

    with DurableRunner(handler, skip_time=False) as runner:
        begun = time.monotonic()
        assert runner.run().result >= 0.02
        assert time.monotonic() - begun >= 0.02
        with pytest.raises(UsageError, match="time is real"):
            runner.advance(1)


def test_a_run_that_takes_too_long_has_failed() -> None:
    go_on = threading.Event()

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: go_on.wait(30), name="hangs")

    with DurableRunner(handler) as runner:
        result = runner.run(timeout=0.05)
        go_on.set()
    assert result.status is InvocationStatus.FAILED
    assert result.execution_status is OperationStatus.TIMED_OUT
    assert "did not end within 0.05 s of real time; it is running in step 'hangs'" in str(result.error)


def test_runs_in_a_store_on_disk_are_found_again(tmp_path: Path) -> None:
    with DurableRunner(order, store=f"sqlite:///{tmp_path / 'kit.db'}") as runner:
        assert runner.run({"fails": 1}, id="a").result == [7, 2, {"kept": 7}]
    with DurableRunner(order, store=f"sqlite:///{tmp_path / 'kit.db'}") as runner:
        assert runner.run(id="a").result == [7, 2, {"kept": 7}]
    assert bodies == ["charge", "flaky 1", "flaky 2"]


# -- crashes


def lives(result: Any, record: str = "LifeLost") -> int:
    return [r["record"] for r in result.history()].count(record)


@both
def test_a_crash_before_the_record_runs_the_body_again(handler: Any) -> None:
    with DurableRunner(handler) as runner:
        runner.crash_at("charge", times=3)
        result = runner.run()
    assert result.result == [7, 1, {"kept": 7}]
    assert bodies == ["charge"] * 4 + ["flaky 1"]
    assert lives(result) == 3
    assert result.get_step("charge").attempt == 1


@both
def test_a_crash_after_the_record_runs_nothing_again(handler: Any) -> None:
    with DurableRunner(handler) as runner:
        runner.crash_at("charge", "after")
        runner.crash_at("keep", "after")
        runner.crash_at("box", "after")
        runner.crash_at("an hour", "after")
        result = runner.run()
    assert result.result == [7, 1, {"kept": 7}]
    assert bodies == ["charge", "flaky 1"]
    assert lives(result) == 4


@both
def test_nothing_behind_the_crash_has_run(handler: Any) -> None:
    with DurableRunner(handler) as runner:
        runner.crash_at("flaky", "after")
        result = runner.run({"fails": 1})
    # The end of the first attempt is a planned retry: on record before the crash, so its time was waited for.
    assert bodies == ["charge", "flaky 1", "flaky 2"]
    assert result.get_step("flaky").attempt == 2
    assert result.result == [7, 2, {"kept": 7}]


def test_an_at_most_once_step_is_not_run_again() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(charge(1), at_most_once=True)

    with DurableRunner(handler) as runner:
        runner.crash_at("charge")
        result = runner.run()
    assert "StepInterruptedError" in str(result.error)
    assert bodies == ["charge"]


def test_items_of_a_map_crash_one_by_one() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def item(inside: Any, n: int, *_: Any) -> Any:
            def work() -> int:
                bodies.append(str(n))
                return n

            return inside.step(work, name="work")

        return context.map([1, 2, 3], item, config=MapConfig(max_concurrency=1)).get_results()

    with DurableRunner(handler) as runner:
        runner.crash_at("map[1]/work")
        result = runner.run()
    assert result.result == [1, 2, 3]
    assert bodies == ["1", "2", "2", "3"]


def test_parallel_branches_of_a_dropped_life_end_before_the_next_begins() -> None:
    running, go_on = threading.Event(), threading.Event()

    def slow(inside: Any) -> Any:
        def body() -> str:
            bodies.append("slow begins")
            running.set()
            go_on.wait(30)
            bodies.append("slow ends")
            return "slow"

        return inside.step(body, name="slow")

    def quick(inside: Any) -> Any:
        def body() -> str:
            running.wait(30)
            threading.Timer(0.05, go_on.set).start()
            return "quick"

        return inside.step(body, name="quick")

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.parallel([slow, quick]).get_results()

    with DurableRunner(handler) as runner:
        runner.crash_at("quick", "after")
        assert runner.run().result == ["slow", "quick"]
    assert bodies == ["slow begins", "slow ends"] * 2


def test_five_crashes_in_a_row_block_the_run() -> None:
    with DurableRunner(order) as runner:
        runner.crash_at("charge", times=50)
        result = runner.run()
    assert result.status is InvocationStatus.FAILED
    assert "crashes: step 'charge' ended the process 5 times" in str(result.error)


def test_a_crash_that_never_comes_about_fails_the_test() -> None:
    with DurableRunner(order) as runner:
        runner.crash_at("chrge")
        with pytest.raises(DurableFunctionsTestError, match=r"crash_at\('chrge'\) never came about"):
            runner.run()
        runner.crash_at("nowhere")
        with pytest.raises(DurableFunctionsTestError, match=r"'nowhere'. never"):
            runner.close()


@pytest.mark.parametrize("wrong", [{"when": "during"}, {"times": 0}])
def test_a_crash_that_cannot_be_is_refused(wrong: Any) -> None:
    with DurableRunner(order) as runner, pytest.raises(UsageError, match="crash_at"):
        runner.crash_at("charge", **wrong)


def test_a_transactional_step_is_there_once(tmp_path: Path) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def insert(step_context: Any) -> int:
            step_context.connection.execute("create table if not exists paid (n integer)")
            step_context.connection.execute("insert into paid values (1)")
            return int(step_context.connection.execute("select count(*) from paid").fetchone()[0])

        return context.step(insert, name="insert", transactional=True)

    with DurableRunner(handler, store=f"sqlite:///{tmp_path / 'kit.db'}") as runner:
        runner.crash_at("insert", "before")
        runner.crash_at("insert", "after")
        result = runner.run()
    assert result.result == 1
    assert lives(result) == 2


# -- replay


def test_code_outside_of_steps_that_changes_fails_the_test() -> None:
    count = iter(range(100))

    @durable_execution
    def other_result(event: Any, context: Any) -> Any:
        return next(count)

    @durable_execution
    def other_step(event: Any, context: Any) -> Any:
        return context.step(lambda: bodies.append("step"), name=f"step {next(count)}")

    @durable_execution
    def other_kind(event: Any, context: Any) -> Any:
        if next(count) % 2 == 0:
            context.step(lambda: None, name="same")
        else:
            context.wait(1, name="same")

    @durable_execution
    def other_error(event: Any, context: Any) -> Any:
        raise ValueError(str(next(count)))

    @durable_execution
    def then_waits(event: Any, context: Any) -> Any:
        if next(count) % 2:
            context.wait(5, name="more")

    told = {
        other_result: "its result was 0, replayed it is 1",
        other_step: "step 'step 3' at step 3 is not on record and would run",
        other_kind: "was recorded as step; .* now asks for wait",
        other_error: "it failed with ValueError: 6, replayed with ValueError: 7",
        then_waits: "operation 'more' at more is not on record and would run",
    }
    for handler, problem in told.items():
        with DurableRunner(handler) as runner, pytest.raises(DurableFunctionsTestError, match=problem):
            runner.run()
    assert bodies == ["step"]


def test_an_async_function_is_replayed_too() -> None:
    count = iter(range(100))

    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        return await context.step(lambda: bodies.append("step"), name=f"step {next(count)}")

    with DurableRunner(handler) as runner, pytest.raises(DurableFunctionsTestError, match="'step 1' at step 1"):
        runner.run()
    assert bodies == ["step"]


def test_the_check_can_be_turned_off() -> None:
    count = iter(range(100))

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return next(count)

    with DurableRunner(handler, replay_twice=False) as runner:
        assert runner.run().result == 0


def test_runs_that_were_started_are_replayed_at_the_end() -> None:
    count = iter(range(100))

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return next(count)

    runner = DurableRunner(handler)
    runner.start().wait(30)
    with pytest.raises(DurableFunctionsTestError, match="does not replay"), runner:
        pass


def test_a_rolled_back_run_replays() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: "seat", name="reserve", undo=lambda _, seat: bodies.append(f"back {seat}"))
        raise ValueError("no money")

    with DurableRunner(handler) as runner:
        result = runner.run()
    assert str(result.error) == "ValueError: no money"
    assert bodies == ["back seat"]


# -- what the test framework raises


class Stop(BaseException):
    """As `pytest.fail` raises."""


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_what_is_no_exception_comes_out_of_run(colour: str) -> None:
    def body() -> None:
        raise Stop

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(body, name="stops")

    @durable_execution
    async def handler_async(event: Any, context: Any) -> Any:
        await context.step(body, name="stops")

    with DurableRunner(handler if colour == "sync" else handler_async) as runner, pytest.raises(Stop):
        runner.run(timeout=30)


def test_operation_types_are_the_enums_members() -> None:
    with DurableRunner(order) as runner:
        result = runner.run()
    assert [op.operation_type for op in result.operations] == [
        OperationType.STEP,
        OperationType.WAIT,
        OperationType.STEP,
        OperationType.CONTEXT,
    ]
