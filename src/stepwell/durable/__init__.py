"""Durable functions: ordinary Python whose operations on a context are recorded."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Public name -> module. Imported when first asked for (PEP 562): decorating a function costs nothing.
_NAMES = {
    "AsyncDurableContext": "context",
    "BatchCompletionError": "exceptions",
    "BatchItemStatus": "config",
    "BatchResult": "concurrency.models",
    "ChildContextError": "exceptions",
    "CompletionDecision": "config",
    "CompletionItemStatus": "config",
    "CompletionOutcome": "config",
    "CompletionStatus": "config",
    "DurableContext": "context",
    "DurableExecutionsError": "exceptions",
    "DurableFunction": "execution",
    "DurableOperationError": "exceptions",
    "Duration": "config",
    "ExecutionError": "exceptions",
    "InvocationError": "exceptions",
    "NestedStepError": "exceptions",
    "NonDeterminismError": "exceptions",
    "ParallelBranch": "config",
    "RetryableSerDesError": "exceptions",
    "Retry": "retries",
    "RetryStrategyConfig": "retries",
    "SerDesError": "exceptions",
    "StepConfig": "config",
    "StepContext": "_step_context",
    "StepError": "exceptions",
    "StepInterruptedError": "exceptions",
    "StepSemantics": "config",
    "StepTimeoutError": "exceptions",
    "ValidationError": "exceptions",
    "WaitForConditionError": "exceptions",
    "WithRetryConfig": "retries",
    "complete_batch": "config",
    "continue_batch": "config",
    "create_retry_strategy": "retries",
    "durable_execution": "_function",
    "durable_parallel_branch": "_bound",
    "durable_step": "_bound",
    "durable_with_child_context": "_bound",
    "is_suspending": "_suspending",
    "with_retry": "_with_retry",
}

__all__ = [
    "AsyncDurableContext",
    "BatchCompletionError",
    "BatchItemStatus",
    "BatchResult",
    "ChildContextError",
    "CompletionDecision",
    "CompletionItemStatus",
    "CompletionOutcome",
    "CompletionStatus",
    "DurableContext",
    "DurableExecutionsError",
    "DurableFunction",
    "DurableOperationError",
    "Duration",
    "ExecutionError",
    "InvocationError",
    "NestedStepError",
    "NonDeterminismError",
    "ParallelBranch",
    "Retry",
    "RetryStrategyConfig",
    "RetryableSerDesError",
    "SerDesError",
    "StepConfig",
    "StepContext",
    "StepError",
    "StepInterruptedError",
    "StepSemantics",
    "StepTimeoutError",
    "ValidationError",
    "WaitForConditionError",
    "WithRetryConfig",
    "__version__",
    "complete_batch",
    "continue_batch",
    "create_retry_strategy",
    "durable_execution",
    "durable_parallel_branch",
    "durable_step",
    "durable_with_child_context",
    "is_suspending",
    "with_retry",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
