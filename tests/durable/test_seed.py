"""Every block that the page about steps prints, as printed, with only the import prefix swapped (durable.md §19.1)."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.durable import AsyncDurableContext, DurableContext, StepError

if TYPE_CHECKING:
    from tests.durable.conftest import Run

GETTING_STARTED = '''\
from aws_durable_execution_sdk_python import (
    DurableContext,
    durable_execution,
    durable_step,
    StepContext,
)

@durable_step
def add_numbers(step_context: StepContext, a: int, b: int) -> int:
    """Add two numbers together."""
    return a + b

@durable_execution
def handler(event: dict, context: DurableContext) -> int:
    """Simple durable function with a step."""
    result = context.step(add_numbers(5, 3))
    return result
'''

SIGNATURE = """\
def step(
    func: Callable[[StepContext], T],
    name: str | None = None,
    config: StepConfig | None = None,
) -> T
"""

DECORATOR = '''\
from aws_durable_execution_sdk_python import durable_step, StepContext

@durable_step
def validate_order(step_context: StepContext, order_id: str) -> dict:
    """Validate an order."""
    # Your validation logic here
    return {"order_id": order_id, "valid": True}

@durable_execution
def handler(event: dict, context: DurableContext) -> dict:
    order_id = event["order_id"]
    validation = context.step(validate_order(order_id))
    return validation
'''

WITH_AND_WITHOUT = """\
# With @durable_step (recommended)
result = context.step(validate_order(order_id))

# Optionally, use a lambda function
result = context.step(lambda _: validate_order_logic(order_id))
"""

EXPLICIT_NAME = """\
@durable_execution
def handler(event: dict, context: DurableContext) -> str:
    # Explicit name
    result = context.step(
        lambda _: "Step with explicit name",
        name="custom_step"
    )
    return f"Result: {result}"
"""

AUTOMATIC_NAME = """\
@durable_step
def process_payment(step_context: StepContext, amount: float) -> dict:
    return {"status": "completed", "amount": amount}

@durable_execution
def handler(event: dict, context: DurableContext) -> dict:
    # Step is automatically named "process_payment"
    result = context.step(process_payment(100.0))
    return result
"""

CONFIGURATION = '''\
from aws_durable_execution_sdk_python import (
    DurableContext,
    durable_execution,
    durable_step,
    StepContext,
)
from aws_durable_execution_sdk_python.config import StepConfig, StepSemantics
from aws_durable_execution_sdk_python.retries import (
    RetryStrategyConfig,
    create_retry_strategy,
)

@durable_step
def process_data(step_context: StepContext, data: str) -> dict:
    """Process data with potential for transient failures."""
    # Your processing logic here
    return {"processed": data, "status": "completed"}

@durable_execution
def handler(event: dict, context: DurableContext) -> dict:
    # Create a retry strategy
    retry_config = RetryStrategyConfig(
        max_attempts=3,
        retryable_error_types=[RuntimeError, ValueError],
    )

    # Configure the step
    step_config = StepConfig(
        retry_strategy=create_retry_strategy(retry_config),
        step_semantics=StepSemantics.AT_LEAST_ONCE_PER_RETRY,
    )

    # Use the configuration
    result = context.step(process_data(event["data"]), config=step_config)
    return result
'''

BACKOFF = """\
from aws_durable_execution_sdk_python import (
    DurableContext,
    durable_execution,
)
from aws_durable_execution_sdk_python.config import StepConfig
from aws_durable_execution_sdk_python.retries import (
    RetryStrategyConfig,
    create_retry_strategy,
)

@durable_execution
def handler(event: dict, context: DurableContext) -> str:
    # Configure exponential backoff
    retry_config = RetryStrategyConfig(
        max_attempts=3,
        initial_delay_seconds=1,
        max_delay_seconds=10,
        backoff_rate=2.0,
    )

    step_config = StepConfig(
        retry_strategy=create_retry_strategy(retry_config)
    )

    result = context.step(
        lambda _: "Step with exponential backoff",
        name="retry_step",
        config=step_config,
    )
    return f"Result: {result}"
"""

SPECIFIC_ERRORS = '''\
from random import random
from aws_durable_execution_sdk_python import (
    DurableContext,
    durable_execution,
    durable_step,
    StepContext,
)
from aws_durable_execution_sdk_python.config import StepConfig
from aws_durable_execution_sdk_python.retries import (
    RetryStrategyConfig,
    create_retry_strategy,
)

@durable_step
def unreliable_operation(step_context: StepContext) -> str:
    """Operation that might fail."""
    if random() > 0.5:
        raise RuntimeError("Random error occurred")
    return "Operation succeeded"

@durable_execution
def handler(event: dict, context: DurableContext) -> str:
    # Only retry RuntimeError, not other exceptions
    retry_config = RetryStrategyConfig(
        max_attempts=3,
        retryable_error_types=[RuntimeError],
    )

    result = context.step(
        unreliable_operation(),
        config=StepConfig(create_retry_strategy(retry_config)),
    )

    return result
'''

AT_MOST_ONCE = '''\
from aws_durable_execution_sdk_python.config import StepConfig, StepSemantics

@durable_step
def charge_credit_card(step_context: StepContext, amount: float) -> dict:
    """Charge a credit card - should only happen once."""
    # Payment processing logic
    return {"transaction_id": "txn_123", "status": "completed"}

@durable_execution
def handler(event: dict, context: DurableContext) -> dict:
    # Use at-most-once to prevent duplicate charges
    step_config = StepConfig(
        step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY
    )

    payment = context.step(
        charge_credit_card(event["amount"]),
        config=step_config,
    )

    return payment
'''

SEQUENCE = '''\
@durable_step
def fetch_user(step_context: StepContext, user_id: str) -> dict:
    """Fetch user data."""
    return {"user_id": user_id, "name": "Jane Doe", "email": "jane_doe@example.com"}

@durable_step
def validate_user(step_context: StepContext, user: dict) -> bool:
    """Validate user data."""
    return user.get("email") is not None

@durable_step
def send_notification(step_context: StepContext, user: dict) -> dict:
    """Send notification to user."""
    return {"sent": True, "email": user["email"]}

@durable_execution
def handler(event: dict, context: DurableContext) -> dict:
    user_id = event["user_id"]

    # Step 1: Fetch user
    user = context.step(fetch_user(user_id))

    # Step 2: Validate user
    is_valid = context.step(validate_user(user))

    if not is_valid:
        return {"status": "failed", "reason": "invalid_user"}

    # Step 3: Send notification
    notification = context.step(send_notification(user))

    return {
        "status": "completed",
        "user_id": user_id,
        "notification_sent": notification["sent"],
    }
'''

MANY_ARGUMENTS = """\
@durable_step
def my_step(step_context: StepContext, arg1: str, arg2: int) -> str:
    return f"{arg1}: {arg2}"

result = context.step(my_step("value", 42))
"""

LAMBDA = """\
result = context.step(lambda _: "some value", name="my_step")
"""


PAGE = [
    GETTING_STARTED,
    DECORATOR,
    EXPLICIT_NAME,
    AUTOMATIC_NAME,
    CONFIGURATION,
    BACKOFF,
    SPECIFIC_ERRORS,
    AT_MOST_ONCE,
]
"""The blocks that stand alone, up to those that need another one before them."""
COLOURS = ["def", "async handler", "async all"]


def coloured(text: str, colour: str) -> str:
    """The block as it is, with an ``async def`` handler, or with ``async def`` steps, too."""
    if colour == "def":
        return text
    text = text.replace("def handler(", "async def handler(").replace("context.step(", "await context.step(")
    text = text.replace("context: DurableContext", "context: AsyncDurableContext")
    if colour == "async all":
        text = text.replace("@durable_step\ndef ", "@durable_step\nasync def ")
    return text


def framed(text: str) -> str:
    """A fragment in a handler that returns its result."""
    step, mark, rest = text.partition("\n\nresult = ")
    before, call = (step + "\n\n", "result = " + rest) if mark and step.startswith("@") else ("", text)
    body = textwrap.indent(call, "    ")
    return f"{before}@durable_execution\ndef handler(event: dict, context: DurableContext):\n{body}    return result\n"


def play(*texts: str, colour: str = "def") -> dict[str, Any]:
    """Names after the blocks have run one after the other."""
    space: dict[str, Any] = {"__name__": "page", "AsyncDurableContext": AsyncDurableContext}
    for number, text in enumerate(texts):
        swapped = coloured(text, colour).replace("aws_durable_execution_sdk_python", "stepwell.durable")
        exec(compile(swapped, f"block{number}.py", "exec", dont_inherit=True), space)
    return space


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def steps_of(run: Run) -> list[tuple[str | None, Any, str]]:
    return [(op.name, op.result, op.status.name) for op in run.engine.get_run("r").operations]


def test_getting_started(run: Run, colour: str) -> None:
    page = play(GETTING_STARTED, colour=colour)
    assert run(page["handler"], id="r") == 8
    assert steps_of(run) == [("add_numbers", 8, "SUCCEEDED")]
    assert run(page["handler"], id="r") == 8, "recorded, not run again"
    assert run.keys("r", "StepStarted") == ["add_numbers"]


def test_signature() -> None:
    space: dict[str, Any] = {}
    text = "from __future__ import annotations\n" + SIGNATURE.rstrip() + ": ...\n"
    exec(compile(text, "signature.py", "exec", dont_inherit=True), space)
    printed = inspect.signature(space["step"])
    for context in (DurableContext, AsyncDurableContext):
        ours = list(inspect.signature(context.step).parameters.values())[1:]
        for ask, have in zip(printed.parameters.values(), ours, strict=False):
            assert (ask.name, ask.default, ask.kind) == (have.name, have.default, have.kind)
        assert all(p.kind is p.KEYWORD_ONLY for p in ours[3:])
    annotations = inspect.signature(DurableContext.step).parameters
    assert annotations["name"].annotation == "str | None"
    assert annotations["config"].annotation == "StepConfig | None"


def test_decorator(run: Run, colour: str) -> None:
    page = play(*PAGE[:2], colour=colour)
    assert run(page["handler"], {"order_id": "o"}, id="r") == {"order_id": "o", "valid": True}
    assert steps_of(run)[0][0] == "validate_order"


@pytest.mark.parametrize("number", [0, 1], ids=["decorated", "lambda"])
def test_with_and_without_decorator(run: Run, colour: str, number: int) -> None:
    head = "order_id = 'o'\ndef validate_order_logic(order_id):\n    return {'order_id': order_id, 'valid': True}\n"
    page = play(*PAGE[:2], head, framed(WITH_AND_WITHOUT.split("\n\n")[number].rstrip() + "\n"), colour=colour)
    assert run(page["handler"], id="r") == {"order_id": "o", "valid": True}
    assert steps_of(run)[0][0] == ["validate_order", None][number]


def test_explicit_name(run: Run, colour: str) -> None:
    assert run(play(*PAGE[:3], colour=colour)["handler"], id="r") == "Result: Step with explicit name"
    assert steps_of(run) == [("custom_step", "Step with explicit name", "SUCCEEDED")]


def test_automatic_name(run: Run, colour: str) -> None:
    assert run(play(*PAGE[:4], colour=colour)["handler"], id="r") == {"status": "completed", "amount": 100.0}
    assert run.engine.get_run("r").get_step("process_payment").result == {"status": "completed", "amount": 100.0}


def test_configuration(run: Run, colour: str) -> None:
    page = play(*PAGE[:5], colour=colour)
    assert run(page["handler"], {"data": "d"}, id="r") == {"processed": "d", "status": "completed"}


def test_retry_with_exponential_backoff(run: Run, colour: str) -> None:
    page = play(*PAGE[:6], colour=colour)
    assert run(page["handler"], id="r") == "Result: Step with exponential backoff"
    strategy = page["create_retry_strategy"](
        page["RetryStrategyConfig"](
            max_attempts=3, initial_delay_seconds=1, max_delay_seconds=10, backoff_rate=2.0, jitter_strategy="NONE"
        )
    )
    error = RuntimeError()
    assert [strategy(error, n).delay.to_seconds() for n in (1, 2)] == [1, 2]
    assert not strategy(error, 3).should_retry


def test_retry_specific_exceptions_succeeds(run: Run, colour: str) -> None:
    page = play(*PAGE[:7], colour=colour)
    page["random"] = lambda: 0.1
    assert run(page["handler"], id="r") == "Operation succeeded"


def test_retry_specific_exceptions_does_not_retry_others(run: Run, colour: str) -> None:
    page = play(*PAGE[:7], colour=colour)
    page["random"] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError) as failed:
        run(page["handler"], id="r")
    assert isinstance(failed.value, StepError)
    assert run.keys("r", "StepRetryPlanned") == []


def test_at_most_once(run: Run, colour: str) -> None:
    page = play(*PAGE, colour=colour)
    assert run(page["handler"], {"amount": 5}, id="r") == {"transaction_id": "txn_123", "status": "completed"}


def test_steps_in_sequence(run: Run, colour: str) -> None:
    page = play(*PAGE, SEQUENCE, colour=colour)
    done = {"status": "completed", "user_id": "u", "notification_sent": True}
    assert run(page["handler"], {"user_id": "u"}, id="r") == done
    assert [name for name, _, _ in steps_of(run)] == ["fetch_user", "validate_user", "send_notification"]


def test_many_arguments(run: Run, colour: str) -> None:
    page = play(*PAGE, framed(MANY_ARGUMENTS), colour=colour)
    assert run(page["handler"], id="r") == "value: 42"
    assert steps_of(run)[0][0] == "my_step"


def test_lambda(run: Run, colour: str) -> None:
    assert run(play(*PAGE, framed(LAMBDA), colour=colour)["handler"], id="r") == "some value"
    assert steps_of(run) == [("my_step", "some value", "SUCCEEDED")]
