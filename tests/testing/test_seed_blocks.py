"""The four test blocks that the page about steps prints, as printed, with only the prefix swapped (durable.md §19.1)."""
# ruff: noqa: W293 - blank lines, too, are as printed

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

BASIC = '''\
import pytest
from aws_durable_execution_sdk_python_testing import InvocationStatus
from my_function import handler

@pytest.mark.durable_execution(
    handler=handler,
    lambda_function_name="my_function",
)
def test_step(durable_runner):
    """Test a function with steps."""
    with durable_runner:
        result = durable_runner.run(input={"data": "test"}, timeout=10)
    
    # Check overall status
    assert result.status is InvocationStatus.SUCCEEDED
    
    # Check final result
    assert result.result == 8
'''

RESULTS = '''\
@pytest.mark.durable_execution(
    handler=handler,
    lambda_function_name="my_function",
)
def test_step_result(durable_runner):
    """Test and inspect step results."""
    with durable_runner:
        result = durable_runner.run(input={"data": "test"}, timeout=10)
    
    # Get step by name
    step_result = result.get_step("add_numbers")
    assert step_result.result == 8
    
    # Check step status
    assert step_result.status is InvocationStatus.SUCCEEDED
'''

RETRY = '''\
@pytest.mark.durable_execution(
    handler=handler_with_retry,
    lambda_function_name="retry_function",
)
def test_step_retry(durable_runner):
    """Test step retry behavior."""
    with durable_runner:
        result = durable_runner.run(input={}, timeout=30)
    
    # Function should eventually succeed after retries
    assert result.status is InvocationStatus.SUCCEEDED
    
    # Inspect the step that retried
    step_result = result.get_step("unreliable_operation")
    assert step_result.status is InvocationStatus.SUCCEEDED
'''

ERROR = '''\
@pytest.mark.durable_execution(
    handler=handler_with_error,
    lambda_function_name="error_function",
)
def test_step_error(durable_runner):
    """Test step error handling."""
    with durable_runner:
        result = durable_runner.run(input={}, timeout=10)
    
    # Function should fail
    assert result.status is InvocationStatus.FAILED
    
    # Check the error
    assert "RuntimeError" in str(result.error)
'''

FUNCTION = '''\
from aws_durable_execution_sdk_python import DurableContext, StepContext, durable_execution, durable_step
from aws_durable_execution_sdk_python.config import StepConfig
from aws_durable_execution_sdk_python.retries import RetryStrategyConfig, create_retry_strategy

@durable_step
def add_numbers(step_context: StepContext, a: int, b: int) -> int:
    """Add two numbers together."""
    return a + b

@durable_execution
ASYNC def handler(event: dict, context: DurableContext) -> int:
    """Simple durable function with a step."""
    result = AWAIT context.step(add_numbers(5, 3))
    return result

@durable_step
def unreliable_operation(step_context: StepContext) -> str:
    if step_context.attempt < 3:
        raise RuntimeError("Random error occurred")
    return "Operation succeeded"

@durable_execution
ASYNC def handler_with_retry(event: dict, context: DurableContext) -> str:
    strategy = create_retry_strategy(RetryStrategyConfig(max_attempts=3, retryable_error_types=[RuntimeError]))
    return AWAIT context.step(unreliable_operation(), config=StepConfig(retry_strategy=strategy))

@durable_step
def failing_operation(step_context: StepContext) -> str:
    raise RuntimeError("Something went wrong")

@durable_execution
ASYNC def handler_with_error(event: dict, context: DurableContext) -> str:
    strategy = create_retry_strategy(RetryStrategyConfig(max_attempts=2))
    return AWAIT context.step(failing_operation(), config=StepConfig(retry_strategy=strategy))
'''


def swapped(text: str) -> str:
    testing = text.replace("aws_durable_execution_sdk_python_testing", "stepwell.testing")
    return testing.replace("aws_durable_execution_sdk_python", "stepwell.durable")


def write_pages(folder: Path, *, colour: str) -> None:
    words = ("async ", "await ") if colour == "async" else ("", "")
    function = FUNCTION.replace("ASYNC ", words[0]).replace("AWAIT ", words[1])
    (folder / "my_function.py").write_text(swapped(function))
    blocks = [BASIC, "from my_function import handler_with_error, handler_with_retry\n", RESULTS, RETRY, ERROR]
    (folder / "test_page.py").write_text(swapped("\n".join(blocks)))


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_printed_test_blocks_pass(pytester: pytest.Pytester, colour: str) -> None:
    pytester.makeini("[pytest]")
    write_pages(pytester.path, colour=colour)
    result = pytester.runpytest_subprocess("-W", "error", "--strict-markers", "--strict-config", "-p", "no:randomly")
    result.assert_outcomes(passed=4)
