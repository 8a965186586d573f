"""Steps, their shared context, the list they stand in, and what runs them."""

from __future__ import annotations

from stepwell.pipeline.steps.base import BaseStep, Retry, StepResult
from stepwell.pipeline.steps.context import BaseStepContext
from stepwell.pipeline.steps.failed import StepFailed
from stepwell.pipeline.steps.group import ParallelSteps
from stepwell.pipeline.steps.orchestrator import Orchestrator
from stepwell.pipeline.steps.registry import StepRegistry
from stepwell.pipeline.steps.utils import LoggingStep, TimingStep, ValidationStep

__all__ = [
    "BaseStep",
    "BaseStepContext",
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
