"""Durable functions: ordinary Python whose operations on a context are recorded."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.durable._bound import durable_parallel_branch as durable_parallel_branch
    from stepwell.durable._bound import durable_step as durable_step
    from stepwell.durable._bound import durable_wait_for_callback as durable_wait_for_callback
    from stepwell.durable._bound import durable_with_child_context as durable_with_child_context
    from stepwell.durable._function import durable_execution as durable_execution
    from stepwell.durable._outside import Callback as Callback
    from stepwell.durable._outside import RunRef as RunRef
    from stepwell.durable._pending import Pending as Pending
    from stepwell.durable._step_context import StepContext as StepContext
    from stepwell.durable._suspending import is_suspending as is_suspending
    from stepwell.durable._with_retry import with_retry as with_retry
    from stepwell.durable.concurrency.models import BatchResult as BatchResult
    from stepwell.durable.config import BatchItemStatus as BatchItemStatus
    from stepwell.durable.config import CompletionDecision as CompletionDecision
    from stepwell.durable.config import CompletionItemStatus as CompletionItemStatus
    from stepwell.durable.config import CompletionOutcome as CompletionOutcome
    from stepwell.durable.config import CompletionStatus as CompletionStatus
    from stepwell.durable.config import Duration as Duration
    from stepwell.durable.config import ParallelBranch as ParallelBranch
    from stepwell.durable.config import StepConfig as StepConfig
    from stepwell.durable.config import StepSemantics as StepSemantics
    from stepwell.durable.config import complete_batch as complete_batch
    from stepwell.durable.config import continue_batch as continue_batch
    from stepwell.durable.context import AsyncDurableContext as AsyncDurableContext
    from stepwell.durable.context import DurableContext as DurableContext
    from stepwell.durable.exceptions import ApprovalRejected as ApprovalRejected
    from stepwell.durable.exceptions import BatchCompletionError as BatchCompletionError
    from stepwell.durable.exceptions import CallbackError as CallbackError
    from stepwell.durable.exceptions import CallbackExternalError as CallbackExternalError
    from stepwell.durable.exceptions import CallbackSubmitterError as CallbackSubmitterError
    from stepwell.durable.exceptions import CallbackTimeoutError as CallbackTimeoutError
    from stepwell.durable.exceptions import ChildContextError as ChildContextError
    from stepwell.durable.exceptions import DurableExecutionsError as DurableExecutionsError
    from stepwell.durable.exceptions import DurableOperationError as DurableOperationError
    from stepwell.durable.exceptions import ExecutionError as ExecutionError
    from stepwell.durable.exceptions import InvocationError as InvocationError
    from stepwell.durable.exceptions import InvokeError as InvokeError
    from stepwell.durable.exceptions import NestedStepError as NestedStepError
    from stepwell.durable.exceptions import NonDeterminismError as NonDeterminismError
    from stepwell.durable.exceptions import PluginLoadError as PluginLoadError
    from stepwell.durable.exceptions import RetryableSerDesError as RetryableSerDesError
    from stepwell.durable.exceptions import SerDesError as SerDesError
    from stepwell.durable.exceptions import StepError as StepError
    from stepwell.durable.exceptions import StepInterruptedError as StepInterruptedError
    from stepwell.durable.exceptions import StepTimeoutError as StepTimeoutError
    from stepwell.durable.exceptions import ValidationError as ValidationError
    from stepwell.durable.exceptions import WaitForConditionError as WaitForConditionError
    from stepwell.durable.execution import DurableFunction as DurableFunction
    from stepwell.durable.retries import Retry as Retry
    from stepwell.durable.retries import RetryStrategyConfig as RetryStrategyConfig
    from stepwell.durable.retries import WithRetryConfig as WithRetryConfig
    from stepwell.durable.retries import create_retry_strategy as create_retry_strategy

# Public name -> module. Imported when first asked for (PEP 562): decorating a function costs nothing.
_NAMES = {
    "ApprovalRejected": "exceptions",
    "AsyncDurableContext": "context",
    "BatchCompletionError": "exceptions",
    "BatchItemStatus": "config",
    "BatchResult": "concurrency.models",
    "Callback": "_outside",
    "CallbackError": "exceptions",
    "CallbackExternalError": "exceptions",
    "CallbackSubmitterError": "exceptions",
    "CallbackTimeoutError": "exceptions",
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
    "InvokeError": "exceptions",
    "NestedStepError": "exceptions",
    "NonDeterminismError": "exceptions",
    "ParallelBranch": "config",
    "Pending": "_pending",
    "PluginLoadError": "exceptions",
    "Retry": "retries",
    "RetryStrategyConfig": "retries",
    "RetryableSerDesError": "exceptions",
    "RunRef": "_outside",
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
    "durable_wait_for_callback": "_bound",
    "durable_with_child_context": "_bound",
    "is_suspending": "_suspending",
    "with_retry": "_with_retry",
}

__all__ = [
    "ApprovalRejected",
    "AsyncDurableContext",
    "BatchCompletionError",
    "BatchItemStatus",
    "BatchResult",
    "Callback",
    "CallbackError",
    "CallbackExternalError",
    "CallbackSubmitterError",
    "CallbackTimeoutError",
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
    "InvokeError",
    "NestedStepError",
    "NonDeterminismError",
    "ParallelBranch",
    "Pending",
    "PluginLoadError",
    "Retry",
    "RetryStrategyConfig",
    "RetryableSerDesError",
    "RunRef",
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
    "durable_wait_for_callback",
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
