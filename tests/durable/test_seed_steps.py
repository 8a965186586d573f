"""The seed's blocks about steps, with the import prefix swapped: each does what its page says."""

from __future__ import annotations

import inspect
from random import random
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.durable import DurableContext, StepContext, durable_execution, durable_step
from stepwell.durable.config import StepConfig, StepSemantics
from stepwell.durable.retries import RetryStrategyConfig, create_retry_strategy

if TYPE_CHECKING:
    from tests.durable.conftest import Run


@durable_step
def add_numbers(step_context: StepContext, a: int, b: int) -> int:
    """Add two numbers together."""
    return a + b


def test_getting_started(run: Run) -> None:
    @durable_execution
    def handler(event: dict[str, Any], context: DurableContext) -> int:
        """Simple durable function with a step."""
        return context.step(add_numbers(5, 3))

    assert run(handler) == 8


def test_printed_signature() -> None:
    parameters = list(inspect.signature(DurableContext.step).parameters.values())
    assert [(p.name, p.default) for p in parameters[1:4]] == [
        ("func", inspect.Parameter.empty),
        ("name", None),
        ("config", None),
    ]


def test_naming(run: Run) -> None:
    @durable_step
    def validate_order(step_context: StepContext, order_id: str) -> dict[str, Any]:
        return {"order_id": order_id, "valid": True}

    @durable_execution
    def handler(event: dict[str, Any], context: DurableContext) -> list[Any]:
        first = context.step(validate_order(event["order_id"]))
        second = context.step(lambda _: validate_order.func(_, event["order_id"]))
        third = context.step(lambda _: "Step with explicit name", name="custom_step")
        return [first, second, f"Result: {third}"]

    order = {"order_id": "o-1", "valid": True}
    assert run(handler, {"order_id": "o-1"}, id="r") == [order, order, "Result: Step with explicit name"]
    assert [op.name for op in run.engine.get_run("r").operations] == ["validate_order", None, "custom_step"]


def test_configuration(run: Run) -> None:
    @durable_step
    def process_data(step_context: StepContext, data: str) -> dict[str, str]:
        """Process data with potential for transient failures."""
        return {"processed": data, "status": "completed"}

    @durable_execution
    def handler(event: dict[str, Any], context: DurableContext) -> dict[str, str]:
        retry_config = RetryStrategyConfig(max_attempts=3, retryable_error_types=[RuntimeError, ValueError])
        step_config = StepConfig(
            retry_strategy=create_retry_strategy(retry_config),
            step_semantics=StepSemantics.AT_LEAST_ONCE_PER_RETRY,
        )
        return context.step(process_data(event["data"]), config=step_config)

    assert run(handler, {"data": "x"}) == {"processed": "x", "status": "completed"}


def test_retry_with_exponential_backoff(run: Run) -> None:
    @durable_execution
    def handler(event: dict[str, Any], context: DurableContext) -> str:
        retry_config = RetryStrategyConfig(
            max_attempts=3, initial_delay_seconds=1, max_delay_seconds=10, backoff_rate=2.0
        )
        step_config = StepConfig(retry_strategy=create_retry_strategy(retry_config))
        result = context.step(lambda _: "Step with exponential backoff", name="retry_step", config=step_config)
        return f"Result: {result}"

    assert run(handler) == "Result: Step with exponential backoff"


def test_retry_specific_exceptions(run: Run) -> None:
    @durable_step
    def unreliable_operation(step_context: StepContext) -> str:
        """Operation that might fail."""
        if random() > 2:
            raise RuntimeError("Random error occurred")
        return "Operation succeeded"

    @durable_execution
    def handler(event: dict[str, Any], context: DurableContext) -> str:
        retry_config = RetryStrategyConfig(max_attempts=3, retryable_error_types=[RuntimeError])
        return context.step(unreliable_operation(), config=StepConfig(create_retry_strategy(retry_config)))

    assert run(handler) == "Operation succeeded"


def test_at_most_once(run: Run) -> None:
    @durable_step
    def charge_credit_card(step_context: StepContext, amount: float) -> dict[str, str]:
        """Charge a credit card - should only happen once."""
        return {"transaction_id": "txn_123", "status": "completed"}

    @durable_execution
    def handler(event: dict[str, Any], context: DurableContext) -> dict[str, str]:
        step_config = StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)
        return context.step(charge_credit_card(event["amount"]), config=step_config)

    assert run(handler, {"amount": 9.5}) == {"transaction_id": "txn_123", "status": "completed"}


def test_steps_in_sequence(run: Run) -> None:
    @durable_step
    def fetch_user(step_context: StepContext, user_id: str) -> dict[str, str]:
        return {"user_id": user_id, "name": "Jane Doe", "email": "jane_doe@example.com"}

    @durable_step
    def validate_user(step_context: StepContext, user: dict[str, str]) -> bool:
        return user.get("email") is not None

    @durable_step
    def send_notification(step_context: StepContext, user: dict[str, str]) -> dict[str, Any]:
        return {"sent": True, "email": user["email"]}

    @durable_execution
    def handler(event: dict[str, Any], context: DurableContext) -> dict[str, Any]:
        user = context.step(fetch_user(event["user_id"]))
        if not context.step(validate_user(user)):
            return {"status": "failed", "reason": "invalid_user"}
        notification = context.step(send_notification(user))
        return {"status": "completed", "user_id": user["user_id"], "notification_sent": notification["sent"]}

    assert run(handler, {"user_id": "u"}) == {"status": "completed", "user_id": "u", "notification_sent": True}


def test_wrong_arguments_fail_where_they_are_bound() -> None:
    with pytest.raises(TypeError):
        add_numbers(1)  # type: ignore[call-arg]
