"""`BaseStep` and `StepResult`: one step of a pipeline, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from stepwell.pipeline.steps.context import BaseStepContext

C = TypeVar("C", bound="BaseStepContext")


def now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)


@dataclass
class StepResult:
    """How a step ended.

    Args:
        success: whether it did what it is for.
        data: what it made; recorded.
        error: what went wrong, if it did not.
        rollback_data: what `BaseStep.rollback` needs to undo it; recorded.
        skipped: it was not executed.
        timestamp: when it was made; aware, UTC.
    """

    success: bool = True
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    rollback_data: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False
    timestamp: datetime = field(default_factory=now)


@dataclass(frozen=True)
class Retry:
    """How a failing step is tried again: after ``delay`` seconds, then ``backoff`` times as long, and so on.

    Args:
        max_attempts: the first one included.
        delay: seconds before the second attempt.
        backoff: what each further delay is multiplied with.
        max_delay: no delay is longer; seconds.
        jitter: each delay is shortened by a part of its own, so that many do not come back at once.
        on: the exceptions that are tried again.
        failed_results: also try again when ``success`` is False in the step's result.

    Raises:
        ValueError: ``max_attempts`` below 1, or a negative delay.
    """

    max_attempts: int = 3
    delay: float = 1.0
    backoff: float = 2.0
    max_delay: float = 60.0
    jitter: bool = True
    on: tuple[type[BaseException], ...] | type[BaseException] = (Exception,)
    failed_results: bool = False

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            message = f"max_attempts must be at least 1, got {self.max_attempts}"
            raise ValueError(message)
        for name in ("delay", "backoff", "max_delay"):
            if not getattr(self, name) >= 0:
                message = f"{name} must not be negative, got {getattr(self, name)}"
                raise ValueError(message)
        if isinstance(self.on, type):
            object.__setattr__(self, "on", (self.on,))


class BaseStep(ABC, Generic[C]):
    """One step of a pipeline. ``name``, ``progress_weight`` and ``execute`` are a subclass's to give; plain class
    attributes will do for the first two. Each of the methods may be ``async def``.

    A step with a ``rollback`` of its own costs one commit more than others: its start is on record before its body
    runs. That is how a step is rolled back which a kill has cut off, when its run is cancelled before it is taken up,
    or when it failed elsewhere (in another member of the step's group): it comes first, with a failed result that holds
    no ``rollback_data``, and `BaseStepContext.once` gives what the step's own calls have on record. What a rollback
    needs to know of a step that never ended belongs into ``once``, or into a field of an earlier step.
    """

    retry: Retry | None = None
    """How it is tried again; default not at all."""
    timeout: float | None = None
    """Seconds per attempt; default no limit."""
    at_most_once: bool = False
    """Whether an attempt that was begun is never begun again, even though nobody knows how it ended."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the step is called; unique in its registry. Its records are kept under this name."""

    @property
    @abstractmethod
    def progress_weight(self) -> float:
        """The step's part in the pipeline's progress, in relation to the other steps' (finite, not negative)."""

    @abstractmethod
    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Do the work. An exception is a failure, too."""

    def can_skip(self, context: C) -> bool | Awaitable[bool]:
        """Whether there is nothing to do. Asked at most once per run."""
        return False

    def rollback(self, context: C, result: StepResult) -> Awaitable[None] | None:
        """Undo the step, because it or a later one failed. May be called again after a crash: write it idempotent.

        Args:
            context: the pipeline's.
            result: how the step ended, as it was recorded.
        """
        return None

    def restore(self, context: C, result: StepResult) -> Awaitable[None] | None:
        """Make again what is not recorded (transient fields), in a process that takes the run up after this step."""
        return None
