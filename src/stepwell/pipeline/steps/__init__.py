"""Steps, their shared context, the list they stand in, and what runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.pipeline.steps.base import BaseStep, Retry, StepResult
from stepwell.pipeline.steps.context import BaseStepContext
from stepwell.pipeline.steps.failed import StepFailed
from stepwell.pipeline.steps.group import ParallelSteps
from stepwell.pipeline.steps.orchestrator import Orchestrator
from stepwell.pipeline.steps.registry import StepRegistry
from stepwell.pipeline.steps.utils import LoggingStep, TimingStep, ValidationStep

if TYPE_CHECKING:
    from stepwell.pipeline.actions.dataset import ConvertDatasetStep as ConvertDatasetStep
    from stepwell.pipeline.actions.dataset import ExportDatasetStep as ExportDatasetStep

_OF_ACTIONS = frozenset({"ConvertDatasetStep", "ExportDatasetStep"})
"""Imported when first asked for (PEP 562): they bring pydantic."""

__all__ = [
    "BaseStep",
    "BaseStepContext",
    "ConvertDatasetStep",
    "ExportDatasetStep",
    "LoggingStep",
    "Orchestrator",
    "ParallelSteps",
    "Retry",
    "StepFailed",
    "StepRegistry",
    "StepResult",
    "TimingStep",
    "ValidationStep",
]


def __getattr__(name: str) -> Any:
    if name not in _OF_ACTIONS:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from stepwell.pipeline.actions import dataset

    return getattr(dataset, name)
