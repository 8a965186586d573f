"""What a step is told, and the small objects beside it (durable.md §4, §5.1, §17.2)."""

import logging
from enum import Enum, StrEnum
from typing import Any

import pytest

from stepwell import errors
from stepwell.core import idempotency_key, operation_id
from stepwell.durable import exceptions, lambda_service, types
from stepwell.durable._step_context import StepContext
from stepwell.durable.lambda_service import (
    CallbackDetails,
    ContextDetails,
    InvocationStatus,
    Operation,
    OperationAction,
    OperationStatus,
    OperationSubType,
    OperationType,
    StepDetails,
    WaitDetails,
)
from stepwell.durable.types import DurableExecutionArn, LambdaContext, OperationContext, WaitForConditionCheckContext

LOGGER = logging.getLogger("tests")


class Port:
    """Remembers what the body said."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.stop = False

    def heartbeat(self, details: Any) -> None:
        self.said.append(("heartbeat", details))

    def progress(self, done: float, total: float | None, message: str) -> None:
        self.said.append(("progress", done, total, message))

    def check(self) -> None:
        if self.stop:
            raise RuntimeError("stop")

    def cancelled(self) -> bool:
        return self.stop


def test_made_by_hand_it_does_nothing() -> None:
    context = StepContext(LOGGER, 2)
    assert (context.logger, context.attempt) == (LOGGER, 2)
    assert (context.run_id, context.name, context.key, context.connection, context.last_heartbeat) == (
        "",
        None,
        "",
        None,
        None,
    )
    assert context.cancelled is False
    assert context.heartbeat({"at": 3}) is None  # type: ignore[func-returns-value]
    assert context.progress(1, 2, "half") is None  # type: ignore[func-returns-value]
    assert context.check() is None  # type: ignore[func-returns-value]
    assert StepContext(LOGGER).attempt == 1
    assert isinstance(context, OperationContext)
    assert types.StepContext is StepContext
    assert StepContext.__module__ == "stepwell.durable"


def test_it_is_frozen_and_the_rest_is_by_keyword() -> None:
    with pytest.raises(AttributeError):
        StepContext(LOGGER).attempt = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        StepContext(LOGGER, 1, "run")  # type: ignore[call-arg]


def test_ids_of_the_engine() -> None:
    context = StepContext(LOGGER, 1, run_id="r1", name="charge", key="etl/charge")
    assert context.operation_id == operation_id("etl/charge")
    assert context.idempotency_key == idempotency_key("r1", "etl/charge")
    assert StepContext(LOGGER, 9, run_id="r1", key="etl/charge").idempotency_key == context.idempotency_key
    given = StepContext(
        LOGGER, 1, run_id="r1", name="charge", key="etl/charge", _template="o-{run_id}-{name}-{key}-{x}"
    )
    assert given.idempotency_key == "o-r1-charge-etl/charge-{x}"
    assert StepContext(LOGGER, 1, key="k", _template="{operation_id}").idempotency_key == operation_id("k")


def test_it_speaks_to_the_engine() -> None:
    port = Port()
    context = StepContext(LOGGER, 1, _port=port)
    context.heartbeat()
    context.heartbeat([1])
    context.progress(3, 4, "rows")
    context.check()
    assert port.said == [("heartbeat", None), ("heartbeat", [1]), ("progress", 3, 4, "rows")]
    port.stop = True
    assert context.cancelled
    with pytest.raises(RuntimeError):
        context.check()


def test_check_context() -> None:
    context = WaitForConditionCheckContext(LOGGER, 4)
    assert (context.logger, context.attempt) == (LOGGER, 4)
    with pytest.raises(AttributeError):
        context.attempt = 5  # type: ignore[misc]


def test_lambda_context() -> None:
    left: list[float | None] = [1.2345, -3.0, None]
    context = LambdaContext("life-1", "app.py:handler", tenant_id="t", remaining=lambda: left.pop(0))
    assert (context.aws_request_id, context.function_name, context.tenant_id) == ("life-1", "app.py:handler", "t")
    assert [context.get_remaining_time_in_millis() for _ in range(3)] == [1234, 0, 900_000]
    assert LambdaContext("l", "f").get_remaining_time_in_millis() == 900_000


def test_arns() -> None:
    text = "arn:stepwell:lambda:local:000000000000:function:app.handler:$LATEST/durable-execution/r1/r1"
    ours = DurableExecutionArn.for_run("app:handler", "r1")
    assert str(ours) == text
    assert DurableExecutionArn.from_arn(text) == ours
    aws = "arn:aws:lambda:us-east-1:123456789012:function:f:3/durable-execution/name/0b1c"
    parsed = DurableExecutionArn.from_arn(aws)
    assert parsed is not None
    assert (parsed.function_name, parsed.execution_name, parsed.invocation_id) == ("f", "name", "0b1c")
    assert (parsed.partition, parsed.region, parsed.account_id, parsed.version) == (
        "aws",
        "us-east-1",
        "123456789012",
        "3",
    )
    assert str(parsed) == aws
    unversioned = DurableExecutionArn.from_arn(aws.replace(":3/", "/"))
    assert unversioned is not None
    assert unversioned.version is None
    for other in ("", "r1", "arn:aws:s3:::bucket", aws + "/more", aws[:-5]):
        assert DurableExecutionArn.from_arn(other) is None


def test_kinds_of_enums() -> None:
    for plain in (OperationStatus, OperationType, OperationAction, InvocationStatus):
        assert issubclass(plain, Enum)
        assert not issubclass(plain, str)
        assert all(member.name == member.value for member in plain)
    assert issubclass(OperationSubType, StrEnum)
    assert " ".join(OperationSubType) == (
        "Step Wait Callback RunInChildContext Map MapIteration Parallel ParallelBranch WaitForCallback WaitForCondition "
        "ChainedInvoke"
    )
    statuses = "STARTED PENDING READY SUCCEEDED FAILED CANCELLED TIMED_OUT STOPPED"
    assert " ".join(status.name for status in OperationStatus) == statuses
    assert str(InvocationStatus.SUCCEEDED) == "InvocationStatus.SUCCEEDED"
    assert OperationSubType("Step") is OperationSubType.STEP


def test_operations_look_into_their_details() -> None:
    error = errors.ErrorObject("m", "T", None, None)
    step = Operation("1", OperationType.STEP, OperationStatus.FAILED, sub_type=OperationSubType.STEP,
                     step_details=StepDetails(3, None, None, error))  # fmt: skip
    assert (step.attempt, step.error, step.result, step.next_attempt_timestamp) == (3, error, None, None)
    scope = Operation("2", OperationType.CONTEXT, OperationStatus.SUCCEEDED, name="c",
                      context_details=ContextDetails(result="7"), child_operations=(step,))  # fmt: skip
    assert (scope.result, scope.error, scope.child_operations, scope.attempt) == ("7", None, (step,), 0)
    wait = Operation("3", OperationType.WAIT, OperationStatus.STARTED, wait_details=WaitDetails())
    assert (wait.result, wait.error, wait.scheduled_end_timestamp, wait.callback_id) == (None, None, None, None)
    callback = Operation(
        "4", OperationType.CALLBACK, OperationStatus.SUCCEEDED, callback_details=CallbackDetails("cb", "x")
    )
    assert (callback.callback_id, callback.result) == ("cb", "x")


def test_every_name_exists_once() -> None:
    for module in (exceptions, lambda_service, types):
        assert module.__all__ == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
    assert exceptions.SuspendExecution is errors.Suspend
    assert exceptions.NonDeterministicExecutionError is errors.NonDeterminismError
    assert lambda_service.ErrorObject is errors.ErrorObject
    for name in exceptions.__all__:
        if name != "SuspendExecution":
            assert getattr(exceptions, name) is getattr(errors, name)
    with pytest.raises(AttributeError):
        _ = types.Nothing
