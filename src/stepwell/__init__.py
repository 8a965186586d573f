"""Steps that never run twice: durable execution for Python, on one SQLite file or PostgreSQL."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.client import Engine, RunHandle, run, run_async, start
    from stepwell.durable._bound import (
        durable_parallel_branch,
        durable_step,
        durable_wait_for_callback,
        durable_with_child_context,
    )
    from stepwell.durable._function import durable_execution
    from stepwell.durable._with_retry import with_retry
    from stepwell.durable.concurrency.models import BatchResult
    from stepwell.durable.config import Duration, StepConfig, StepSemantics
    from stepwell.durable.context import AsyncDurableContext, DurableContext, StepContext
    from stepwell.durable.retries import Retry, RetryPresets, RetryStrategyConfig, create_retry_strategy
    from stepwell.errors import (
        BadArguments,
        Corrupt,
        DuplicateRun,
        Fenced,
        FlowError,
        JournalBusy,
        JournalError,
        MissingExtra,
        NonDeterminismError,
        PayloadError,
        ReplayError,
        RollbackFailed,
        RunBlocked,
        RunCancelled,
        RunError,
        RunFailed,
        RunTimedOut,
        SchemaTooNew,
        SchemaTooOld,
        StepwellError,
        UnknownRun,
        UsageError,
    )
    from stepwell.serde import Secret

__version__ = "0.1.0"

_ERRORS = [
    "BadArguments",
    "Corrupt",
    "DuplicateRun",
    "Fenced",
    "FlowError",
    "JournalBusy",
    "JournalError",
    "MissingExtra",
    "NonDeterminismError",
    "PayloadError",
    "ReplayError",
    "RollbackFailed",
    "RunBlocked",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunTimedOut",
    "SchemaTooNew",
    "SchemaTooOld",
    "StepwellError",
    "UnknownRun",
    "UsageError",
]
# Public name -> module. Imported when first asked for (PEP 562), so that nothing pays for what it does not use.
_NAMES = {
    **dict.fromkeys(_ERRORS, "errors"),
    **dict.fromkeys(("Engine", "RunHandle", "run", "run_async", "start"), "client"),
    **dict.fromkeys(
        ("durable_parallel_branch", "durable_step", "durable_wait_for_callback", "durable_with_child_context"),
        "durable._bound",
    ),
    **dict.fromkeys(("Duration", "StepConfig", "StepSemantics"), "durable.config"),
    **dict.fromkeys(("AsyncDurableContext", "DurableContext", "StepContext"), "durable.context"),
    **dict.fromkeys(("Retry", "RetryPresets", "RetryStrategyConfig", "create_retry_strategy"), "durable.retries"),
    "BatchResult": "durable.concurrency.models",
    "Secret": "serde",
    "durable_execution": "durable._function",
    "with_retry": "durable._with_retry",
}

__all__ = [
    "AsyncDurableContext",
    "BadArguments",
    "BatchResult",
    "Corrupt",
    "DuplicateRun",
    "DurableContext",
    "Duration",
    "Engine",
    "Fenced",
    "FlowError",
    "JournalBusy",
    "JournalError",
    "MissingExtra",
    "NonDeterminismError",
    "PayloadError",
    "ReplayError",
    "Retry",
    "RetryPresets",
    "RetryStrategyConfig",
    "RollbackFailed",
    "RunBlocked",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunHandle",
    "RunTimedOut",
    "SchemaTooNew",
    "SchemaTooOld",
    "Secret",
    "StepConfig",
    "StepContext",
    "StepSemantics",
    "StepwellError",
    "UnknownRun",
    "UsageError",
    "create_retry_strategy",
    "durable_execution",
    "durable_parallel_branch",
    "durable_step",
    "durable_wait_for_callback",
    "durable_with_child_context",
    "run",
    "run_async",
    "start",
    "with_retry",
]


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        message = f"module 'stepwell' has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"stepwell.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
