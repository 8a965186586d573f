"""Pipelines: ordered step classes with weight, skip and rollback, that share one context and survive a kill."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.pipeline._target import pipeline as pipeline
    from stepwell.pipeline.context import RuntimeContext as RuntimeContext
    from stepwell.pipeline.plugins import run_plugin as run_plugin
    from stepwell.pipeline.steps.base import BaseStep as BaseStep
    from stepwell.pipeline.steps.base import Retry as Retry
    from stepwell.pipeline.steps.base import StepResult as StepResult
    from stepwell.pipeline.steps.context import BaseStepContext as BaseStepContext
    from stepwell.pipeline.steps.failed import StepFailed as StepFailed
    from stepwell.pipeline.steps.group import ParallelSteps as ParallelSteps
    from stepwell.pipeline.steps.orchestrator import Orchestrator as Orchestrator
    from stepwell.pipeline.steps.registry import StepRegistry as StepRegistry
    from stepwell.pipeline.steps.utils.logging import LoggingStep as LoggingStep
    from stepwell.pipeline.steps.utils.timing import TimingStep as TimingStep
    from stepwell.pipeline.steps.utils.validation import ValidationStep as ValidationStep

# Name -> module. Imported when first asked for (PEP 562).
_NAMES = {
    "BaseStep": "steps.base",
    "BaseStepContext": "steps.context",
    "LoggingStep": "steps.utils.logging",
    "Orchestrator": "steps.orchestrator",
    "ParallelSteps": "steps.group",
    "Retry": "steps.base",
    "RuntimeContext": "context",
    "pipeline": "_target",
    "StepFailed": "steps.failed",
    "StepRegistry": "steps.registry",
    "StepResult": "steps.base",
    "TimingStep": "steps.utils.timing",
    "ValidationStep": "steps.utils.validation",
    "run_plugin": "plugins",
}

__all__ = [
    "BaseStep",
    "BaseStepContext",
    "LoggingStep",
    "Orchestrator",
    "ParallelSteps",
    "Retry",
    "RuntimeContext",
    "StepFailed",
    "StepRegistry",
    "StepResult",
    "TimingStep",
    "ValidationStep",
    "pipeline",
    "run_plugin",
]


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
