"""The settings of durable operations. All are frozen and checked when they are made."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Generic

import msgspec

from stepwell.durable._checks import (
    check_callable,
    check_count,
    check_executor,
    check_member,
    check_number,
    check_serdes,
    check_strategy,
    check_sub_type,
    check_text,
    check_time_limit,
    checked_id,
)
from stepwell.durable._completion import (
    BatchItemStatus,
    CompletionConfig,
    CompletionDecision,
    CompletionItemStatus,
    CompletionOutcome,
    CompletionStatus,
    complete_batch,
    continue_batch,
)
from stepwell.durable._duration import Duration
from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from stepwell.durable._duration import DurationLike
    from stepwell.durable.retries import RetryStrategy
    from stepwell.durable.serdes import SerDes
    from stepwell.durable.types import SummaryGenerator

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = [
    "BatchItemStatus",
    "CallbackConfig",
    "ChildConfig",
    "CompletionConfig",
    "CompletionDecision",
    "CompletionItemStatus",
    "CompletionOutcome",
    "CompletionStatus",
    "Duration",
    "InvokeConfig",
    "JitterStrategy",
    "MapConfig",
    "NestingType",
    "ParallelBranch",
    "ParallelConfig",
    "StepConfig",
    "StepSemantics",
    "WaitForCallbackConfig",
    "complete_batch",
    "continue_batch",
]


class JitterStrategy(StrEnum):
    """How much of a delay x is left to chance (u is from 0 to 1): NONE x, HALF x/2 + u·x/2, FULL u·x."""

    NONE = "NONE"
    FULL = "FULL"
    HALF = "HALF"


class StepSemantics(Enum):
    """What a crash inside a step's body means.

    AT_LEAST_ONCE_PER_RETRY: the attempt runs again. AT_MOST_ONCE_PER_RETRY: it counts as failed with
    StepInterruptedError, which only an explicit retry strategy retries.
    """

    AT_MOST_ONCE_PER_RETRY = "AT_MOST_ONCE_PER_RETRY"
    AT_LEAST_ONCE_PER_RETRY = "AT_LEAST_ONCE_PER_RETRY"


class NestingType(Enum):
    """How the branches of a batch are recorded. NESTED: each is a scope. FLAT: their operations stand in the batch."""

    NESTED = "NESTED"
    FLAT = "FLAT"


class _StepFields(msgspec.Struct, frozen=True):
    retry_strategy: RetryStrategy | None = None
    step_semantics: StepSemantics = StepSemantics.AT_LEAST_ONCE_PER_RETRY
    serdes: SerDes[Any] | None = None


class StepConfig(_StepFields, frozen=True, kw_only=True):
    """Settings of one step; the first three may be given by position.

    Args:
        retry_strategy: What `create_retry_strategy` or `Retry` gives, or any function of error and attempts made that
            returns a `RetryDecision`. None: the function's, else the engine's, else `RetryPresets.default()` for errors
            that another attempt may mend.
        step_semantics: What a crash inside the body means; by default the attempt runs again.
        serdes: How the result is recorded; None: tagged JSON.
        sub_type: Shown in the history; 1 to 32 of ``A-Z a-z 0-9 _ -``.
        timeout: Longest time of one attempt (Duration, timedelta or seconds), then StepTimeoutError. None: no limit.
        heartbeat_timeout: Longest time between two calls of ``heartbeat()``. None: no limit.
        executor: Where the body runs: "thread", "process", "ray", "dask" or an executor. None: as the run decides.
        transactional: The body shares a transaction with the record of its success: True (the store's database), the
            URL of another one, or a function that connects.
        idempotency_key: Template of the key that the body sends to others; ``{run_id} {key} {name} {operation_id}`` are
            filled in. None: ``RUNID:KEYHASH``.
        undo: ``undo(step_context, result)``, run when the run fails, is cancelled or times out.
        undo_retry: Retry strategy of ``undo``; None: 5 attempts.
        weight: Share of the run's progress, 0 or more. None: 1.

    Raises:
        ValidationError: a value is of another kind or outside its limits.
    """

    sub_type: str | None = None
    timeout: DurationLike | None = None
    heartbeat_timeout: DurationLike | None = None
    executor: Any = None
    transactional: bool | str | Callable[[], Any] = False
    idempotency_key: str | None = None
    undo: Callable[..., Any] | None = None
    undo_retry: RetryStrategy | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        check_strategy("retry_strategy", self.retry_strategy)
        check_member("step_semantics", self.step_semantics, StepSemantics)
        check_serdes("serdes", self.serdes)
        check_sub_type(self.sub_type)
        check_time_limit("timeout", self.timeout)
        check_time_limit("heartbeat_timeout", self.heartbeat_timeout)
        check_callable("undo", self.undo)
        check_strategy("undo_retry", self.undo_retry)
        if self.weight is not None:
            check_number("weight", self.weight, 0)
        check_executor(self.executor)
        if not isinstance(self.transactional, bool | str) and not callable(self.transactional):
            raise ValidationError(f"transactional must be a bool, a URL or callable, not {self.transactional!r}")
        check_text("idempotency_key", self.idempotency_key)


class ChildConfig(msgspec.Struct, Generic[T], frozen=True):
    """Settings of a child context.

    Args:
        serdes: How the result is recorded; None: tagged JSON.
        sub_type: Shown in the history; 1 to 32 of ``A-Z a-z 0-9 _ -``.
        summary_generator: Text to keep of a result that is too large to keep.
        is_virtual: No records of its own: its operations show the enclosing scope as parent, and the body runs on each
            replay.

    Raises:
        ValidationError: a value is of another kind or outside its limits.
    """

    serdes: SerDes[T] | None = None
    sub_type: str | None = None
    summary_generator: SummaryGenerator[T] | None = None
    is_virtual: bool = False

    def __post_init__(self) -> None:
        check_serdes("serdes", self.serdes)
        check_sub_type(self.sub_type)
        check_callable("summary_generator", self.summary_generator)


class _CallbackFields(msgspec.Struct, frozen=True):
    timeout: DurationLike = 0
    heartbeat_timeout: DurationLike = 0
    serdes: SerDes[Any] | None = None


class CallbackConfig(_CallbackFields, frozen=True, kw_only=True):
    """Settings of a callback; the first three may be given by position.

    Args:
        timeout: Longest time until the answer (Duration, timedelta or seconds), then CallbackTimeoutError. 0: no limit.
        heartbeat_timeout: Longest time between two heartbeats. 0: no limit.
        serdes: How the text that is sent becomes the value. None: it is the value, and an empty answer is None.
        sub_type: Shown in the history; 1 to 32 of ``A-Z a-z 0-9 _ -``.

    Raises:
        ValidationError: a value is of another kind or outside its limits.
    """

    sub_type: str | None = None

    def __post_init__(self) -> None:
        check_time_limit("timeout", self.timeout or None)
        check_time_limit("heartbeat_timeout", self.heartbeat_timeout or None)
        check_serdes("serdes", self.serdes)
        check_sub_type(self.sub_type)


class WaitForCallbackConfig(CallbackConfig, frozen=True, kw_only=True):
    """As `CallbackConfig`, and how the submitter is tried again.

    Args:
        retry_strategy: Of the step that runs the submitter. None: as any step.
    """

    retry_strategy: RetryStrategy | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strategy("retry_strategy", self.retry_strategy)


class _InvokeFields(msgspec.Struct, frozen=True):
    serdes_payload: SerDes[Any] | None = None
    serdes_result: SerDes[Any] | None = None
    tenant_id: str | None = None


class InvokeConfig(_InvokeFields, frozen=True, kw_only=True):
    """Settings of an invoke; the first three may be given by position.

    Args:
        serdes_payload: How the payload becomes the child's input. None: tagged JSON.
        serdes_result: How the child's result is read. None: tagged JSON.
        tenant_id: Recorded, and the child's ``lambda_context.tenant_id``.
        timeout: Longest time to wait for the child (Duration, timedelta or seconds), then InvokeError; the child is
            cancelled. None: no limit.
        id: The child's run id. None: derived from this run's id and the operation's key.

    Raises:
        ValidationError: a value is of another kind or outside its limits.
        BadArguments: no run can have this id.
    """

    timeout: DurationLike | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        check_serdes("serdes_payload", self.serdes_payload)
        check_serdes("serdes_result", self.serdes_result)
        check_text("tenant_id", self.tenant_id)
        check_time_limit("timeout", self.timeout)
        check_text("id", self.id)
        if self.id is not None:
            checked_id(self.id)


class _MapFields(msgspec.Struct, Generic[T], frozen=True):
    max_concurrency: int | None = None
    completion_config: CompletionConfig = CompletionConfig()
    serdes: SerDes[Any] | None = None
    item_serdes: SerDes[Any] | None = None
    summary_generator: SummaryGenerator[Any] | None = None
    nesting_type: NestingType = NestingType.NESTED
    item_namer: Callable[[T, int], str] | None = None


class MapConfig(_MapFields[T], Generic[T], frozen=True, kw_only=True):
    """Settings of a map over items of type T.

    Args:
        max_concurrency: Most items at a time, 1 or more. None: all.
        completion_config: When it ends early; by default at the first failure.
        serdes: How the whole result is recorded; also the items', where there is no ``item_serdes``.
        item_serdes: How the result of each item is recorded.
        summary_generator: Text to keep of a result that is too large to keep.
        nesting_type: Whether each item is a scope of its own; by default it is.
        item_namer: ``item_namer(item, index)`` gives the name of a branch; None: ``map-item-{index}``.
        item_key: ``item_key(item, index)`` gives a str or int, different for all items, by which a later life finds an
            item's branch again when the inputs have changed. None: the index.

    Raises:
        ValidationError: a value is of another kind or outside its limits.
    """

    item_key: Callable[[T, int], str | int] | None = None

    def __post_init__(self) -> None:
        _check_batch(self)
        check_callable("item_namer", self.item_namer)
        check_callable("item_key", self.item_key)


class ParallelConfig(msgspec.Struct, frozen=True):
    """Settings of a parallel: as `MapConfig`, with `CompletionConfig.all_successful()` as default.

    Raises:
        ValidationError: a value is of another kind or outside its limits.
    """

    max_concurrency: int | None = None
    completion_config: CompletionConfig = CompletionConfig.all_successful()
    serdes: SerDes[Any] | None = None
    item_serdes: SerDes[Any] | None = None
    summary_generator: SummaryGenerator[Any] | None = None
    nesting_type: NestingType = NestingType.NESTED

    def __post_init__(self) -> None:
        _check_batch(self)


def _check_batch(config: MapConfig[Any] | ParallelConfig) -> None:
    if config.max_concurrency is not None:
        check_count("max_concurrency", config.max_concurrency, 1)
    check_member("completion_config", config.completion_config, CompletionConfig)
    check_serdes("serdes", config.serdes)
    check_serdes("item_serdes", config.item_serdes)
    check_callable("summary_generator", config.summary_generator)
    check_member("nesting_type", config.nesting_type, NestingType)


class ParallelBranch(msgspec.Struct, Generic[T], frozen=True):
    """One branch of a parallel with a name: ``func(context)``. Name None: ``parallel-branch-{index}``.

    Raises:
        ValidationError: ``func`` cannot be called.
    """

    func: Callable[..., T]
    name: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.func):
            raise ValidationError(f"func must be callable, not {self.func!r}")

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        """Call the function."""
        return self.func(*args, **kwargs)
