"""`stepwell.testing.runner`: the SDK's shapes over the same runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Retry, UnknownRun, durable_execution, durable_step, durable_with_child_context
from stepwell.durable.config import ChildConfig, MapConfig, NestingType
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus, OperationSubType, OperationType
from stepwell.testing import (
    DurableChildContextTestRunner,
    DurableFunctionTestResult,
    DurableFunctionTestRunner,
)
from stepwell.testing.runner import (
    ContextOperation,
    DurableFunctionsTestError,
    StepOperation,
    WaitOperation,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@durable_step
def flaky(step_context: Any, fails: int) -> None:
    if step_context.attempt <= fails:
        raise ValueError(f"attempt {step_context.attempt}")


@durable_execution
def handler(event: Any, context: Any) -> Any:
    context.step(flaky(event.get("fails", 0)), retry=Retry(3, delay=600, jitter="none"))
    context.wait(5, name="pause")

    def box(inside: Any) -> Any:
        inside.run_in_child_context(lambda c: c.step(lambda: 1, name="hidden"), "veil", ChildConfig(is_virtual=True))
        return {"who": inside.step(lambda: "me", name="who")}

    found = context.run_in_child_context(box, name="box")
    flat = MapConfig[Any](nesting_type=NestingType.FLAT)
    context.map([1, 2], lambda inside, n, *_: inside.step(lambda: n, name=f"item {n}"), name="flat", config=flat)
    return found


@durable_execution
def echo(event: Any, context: Any) -> Any:
    return event


def test_results_are_serialized_text() -> None:
    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run({"fails": 1}, timeout=30)
    assert isinstance(result, DurableFunctionTestResult)
    assert result.status is InvocationStatus.SUCCEEDED
    assert result.execution_status is OperationStatus.SUCCEEDED
    assert result.result == '{"who":"me"}'
    assert result.error is None
    assert [op.name for op in result.operations] == ["flaky", "pause", "box", "flat"]
    step = result.get_step("flaky")
    assert isinstance(step, StepOperation)
    assert (step.operation_type, step.sub_type, step.status) == (
        OperationType.STEP,
        OperationSubType.STEP,
        OperationStatus.SUCCEEDED,
    )
    assert (step.attempt, step.result, step.error, step.parent_id) == (2, "null", None, None)
    assert step.start_timestamp is not None
    assert step.end_timestamp is not None
    wait = result.get_wait("pause")
    assert isinstance(wait, WaitOperation)
    assert wait.scheduled_end_timestamp is not None
    assert wait.start_timestamp is not None
    assert (wait.scheduled_end_timestamp - wait.start_timestamp).total_seconds() == 5


def test_contexts_show_what_is_inside_and_virtual_ones_do_not_appear() -> None:
    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run()
    box = result.get_context("box")
    assert isinstance(box, ContextOperation)
    assert box.result == '{"who":"me"}'
    assert [op.name for op in box.child_operations] == ["hidden", "who"]
    assert box.get_step("who").result == '"me"'
    assert box.get_step("hidden").parent_id == box.operation_id
    assert [op.name for op in result.get_context("flat").child_operations] == ["item 1", "item 2"]
    assert result.get_operation_by_name("item 2").result == "2"
    assert "veil" not in [op.name for op in result.get_all_operations()]
    with pytest.raises(DurableFunctionsTestError, match="no context called 'veil'; there is: box, flat"):
        result.get_context("veil")


@pytest.mark.parametrize(
    "given, result",
    [
        (None, "{}"),
        ('{"a": [1]}', '{"a":[1]}'),
        ("7", "7"),
        ("plain words", '"plain words"'),
        ([1, None], "[1,null]"),
    ],
)
def test_an_input_that_is_json_text_is_what_it_encodes(given: Any, result: str) -> None:
    with DurableFunctionTestRunner(echo) as runner:
        assert runner.run(given).result == result


def test_an_error_is_as_the_run_left_it() -> None:
    with DurableFunctionTestRunner(handler) as runner:
        result = runner.run({"fails": 9})
    assert (result.status, result.execution_status) == (InvocationStatus.FAILED, OperationStatus.FAILED)
    assert result.result is None
    assert result.error is not None
    assert result.error.to_dict()["ErrorType"] == "StepError"
    assert result.get_step("flaky").status is OperationStatus.FAILED
    assert result.get_step("flaky").error.type == "ValueError"


def test_background_runs_have_arns_of_their_own() -> None:
    with DurableFunctionTestRunner(echo) as runner:
        first, second = runner.run_async("1", function_name="fn"), runner.run_async("2", function_name="fn")
        assert first.endswith(":function:fn:$LATEST/durable-execution/execution-name/execution-name")
        assert second.endswith("/execution-name-2")
        assert [runner.wait_for_result(arn).result for arn in (second, first)] == ["2", "1"]
        assert runner.wait_for_result(first).execution_arn == first
        with pytest.raises(UnknownRun):
            runner.wait_for_result("arn:of/nobody/x", timeout=1)


@pytest.mark.parametrize("limits", [{"timeout": 0.05}, {"execution_timeout": 0.05}])
def test_a_run_that_takes_too_long_is_timed_out(limits: Any) -> None:
    go_on = threading.Event()

    @durable_execution
    def slow(event: Any, context: Any) -> None:
        context.step(lambda: go_on.wait(30), name="slow")

    with DurableFunctionTestRunner(slow) as runner:
        result = runner.run(**limits)
        go_on.set()
    assert (result.status, result.execution_status) == (InvocationStatus.FAILED, OperationStatus.TIMED_OUT)
    assert result.get_step("slow").status is OperationStatus.STARTED


def test_a_paused_run_begins_no_life() -> None:
    def first() -> bool:
        reached.set()
        return go_on.wait(30)

    @durable_execution
    def waits(event: Any, context: Any) -> str:
        context.step(first, name="first")
        context.wait(10)
        return "done"

    reached, go_on = threading.Event(), threading.Event()
    with DurableFunctionTestRunner(waits) as runner:
        arn = runner.run_async()
        assert reached.wait(30)
        runner.pause_execution(arn)
        go_on.set()
        paused = runner.wait_for_result(arn, timeout=0.1)
        assert paused.execution_status is OperationStatus.TIMED_OUT
        assert [op.status for op in paused.operations] == [OperationStatus.SUCCEEDED, OperationStatus.STARTED]
        runner.resume_execution(arn)
        assert runner.wait_for_result(arn).result == '"done"'


def test_the_history_is_told_in_events() -> None:
    with DurableFunctionTestRunner(handler) as runner:
        arn = runner.run().execution_arn
        events = runner.get_execution_history(arn).events
        full = runner.get_execution_history(arn, include_execution_data=True).events
    assert [event.event_id for event in events] == list(range(1, len(events) + 1))
    assert (events[0].event_type, events[-1].event_type) == ("ExecutionStarted", "ExecutionSucceeded")
    who = next(event for event in events if event.name == "who")
    box = next(event for event in events if event.name == "box")
    assert (who.event_type, who.sub_type, who.parent_id) == ("StepStarted", "Step", box.id)
    assert who.event_timestamp.tzinfo is not None
    assert full[-1].details is not None
    assert full[-1].details["Result"]["Payload"] == '{"who":"me"}'
    assert "Payload" not in str(events[-1].details)


@durable_with_child_context
def inside(context: Any, a: int, b: int = 0) -> int:
    return int(context.step(lambda: a + b, name="add"))


@durable_with_child_context
async def inside_async(context: Any, a: int, b: int = 0) -> int:
    return int(await context.step(lambda: a + b, name="add"))


def plain(context: Any, a: int, b: int = 0) -> int:
    return int(context.step(lambda: a + b, name="add"))


@pytest.mark.parametrize("function", [inside, inside_async, plain], ids=["bound", "async", "plain"])
def test_a_child_context_runs_on_its_own(function: Callable[..., Any]) -> None:
    with DurableChildContextTestRunner(function, 5, b=3) as runner:
        result = runner.run()
    assert result.result == "8"
    assert result.get_step("add").result == "8"


def test_the_names_of_the_page_are_one_object() -> None:
    import stepwell.durable.execution
    import stepwell.testing.runner

    assert stepwell.testing.InvocationStatus is stepwell.durable.execution.InvocationStatus
    assert stepwell.testing.DurableFunctionTestRunner is stepwell.testing.runner.DurableFunctionTestRunner
    assert not hasattr(stepwell.testing, "WebRunner")
