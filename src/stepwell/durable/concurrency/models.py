"""The result of a map or parallel, and of each of its branches (durable.md §10)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Self, cast

import msgspec

from stepwell import serde
from stepwell.durable.config import (
    BatchItemStatus,
    CompletionConfig,
    CompletionDecision,
    CompletionItemStatus,
    CompletionStatus,
)
from stepwell.errors import BatchCompletionError, ChildContextError, ErrorObject, ErrorRecord

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    R = TypeVar("R", default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R")

__all__ = [
    "BatchCompletionError",
    "BatchItem",
    "BatchItemStatus",
    "BatchResult",
    "CompletionPolicy",
    "CompletionReason",
]


class CompletionReason(Enum):
    """Why a batch was over."""

    ALL_COMPLETED = "ALL_COMPLETED"
    MIN_SUCCESSFUL_REACHED = "MIN_SUCCESSFUL_REACHED"
    FAILURE_TOLERANCE_EXCEEDED = "FAILURE_TOLERANCE_EXCEEDED"
    CUSTOM_COMPLETION_SUCCEEDED = "CUSTOM_COMPLETION_SUCCEEDED"
    CUSTOM_COMPLETION_FAILED = "CUSTOM_COMPLETION_FAILED"


class CompletionPolicy(msgspec.Struct, frozen=True):
    """The criteria of a `CompletionConfig` for a batch of ``total`` branches."""

    total: int
    min_successful: int | None = None
    tolerated_failure_count: int | None = None
    tolerated_failure_percentage: float | None = None
    should_complete: Callable[[CompletionStatus], CompletionDecision] | None = None

    @classmethod
    def from_config(cls, total: int, config: CompletionConfig | None) -> CompletionPolicy:
        """The policy of ``config`` (None: no criterion, the first failure ends the batch)."""
        config = CompletionConfig() if config is None else config
        return cls(
            total,
            config.min_successful,
            config.tolerated_failure_count,
            config.tolerated_failure_percentage,
            config.should_complete,
        )

    def verdict(
        self, succeeded: int, failed: int, items: tuple[CompletionItemStatus, ...] = ()
    ) -> CompletionReason | None:
        """Why the batch is over after so many successes and failures; None while it goes on.

        Raises what ``should_complete`` raises, and ValidationError where its answer is no CompletionDecision.
        """
        from stepwell.core import verdict

        config = CompletionConfig(
            self.min_successful, self.tolerated_failure_count, self.tolerated_failure_percentage, self.should_complete
        )
        done = succeeded + failed
        answer = config.ask(CompletionStatus(succeeded, failed, done, self.total, items))
        reason = answer or verdict(config.to_core(), succeeded=succeeded, failed=failed, total=self.total)
        return None if reason is None else CompletionReason(reason)

    def is_complete(self, succeeded: int, failed: int, items: tuple[CompletionItemStatus, ...] = ()) -> bool:
        """Whether the batch is over."""
        return self.verdict(succeeded, failed, items) is not None

    def reason(self, succeeded: int, failed: int, items: tuple[CompletionItemStatus, ...] = ()) -> CompletionReason:
        """Why the batch is over; ALL_COMPLETED where no criterion says so."""
        return self.verdict(succeeded, failed, items) or CompletionReason.ALL_COMPLETED


class _ItemFields(msgspec.Struct, Generic[R], frozen=True, eq=False):
    index: int
    status: BatchItemStatus
    result: R | None = None
    error: ErrorObject | None = None


class BatchItem(_ItemFields[R], Generic[R], frozen=True, kw_only=True, eq=False):
    """One branch of a batch: ``index`` from 0, its status, and its result or error. Frozen, compared by these four.

    Of a branch that failed in a run, ``key`` and ``run_id`` say where, and ``record`` is its error as recorded.
    """

    record: ErrorRecord | None = None
    key: str | None = None
    run_id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """``{"index", "status", "result", "error"}``, the error in its wire form."""
        return {
            "index": self.index,
            "status": self.status.value,
            "result": self.result,
            "error": None if self.error is None else self.error.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gives; a missing result or error is None."""
        error = data.get("error")
        return cls(
            data["index"],
            BatchItemStatus(data["status"]),
            data.get("result"),
            ErrorObject.from_dict(error) if error else None,
        )

    def _content(self) -> tuple[object, ...]:
        return self.index, self.status, self.result, self.error

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if isinstance(other, BatchItem) else NotImplemented

    def __hash__(self) -> int:
        return hash((self.index, self.status, self.error))

    def __repr__(self) -> str:
        return f"BatchItem(index={self.index!r}, status={self.status!r}, result={self.result!r}, error={self.error!r})"


def succeeded_item(index: int, result: R) -> BatchItem[R]:
    """A branch that returned ``result``."""
    return BatchItem(index, BatchItemStatus.SUCCEEDED, result)


def failed_item(
    index: int, record: ErrorRecord, *, key: str | None = None, run_id: str | None = None
) -> BatchItem[Any]:
    """A branch that the error ``record`` escaped from; ``key`` is the branch's."""
    error = serde.to_error_object(record)
    return BatchItem(index, BatchItemStatus.FAILED, None, error, record=record, key=key, run_id=run_id)


def started_item(index: int) -> BatchItem[Any]:
    """A branch that had not ended when its batch did."""
    return BatchItem(index, BatchItemStatus.STARTED)


class BatchResult(msgspec.Struct, Generic[R], frozen=True):
    """What map and parallel return: the branches that were started, in order of index, and why the batch was over.

    Errors of branches are never raised by map and parallel themselves: see `throw_if_error`.
    """

    all: list[BatchItem[R]]
    completion_reason: CompletionReason

    @classmethod
    def from_items(
        cls, items: Iterable[BatchItem[R]], completion_config: CompletionConfig | None = None
    ) -> BatchResult[R]:
        """A result whose reason is what ``completion_config`` (None: no criterion) says of exactly these branches."""
        listed = list(items)
        count = [item.status for item in listed].count
        states = tuple(CompletionItemStatus(item.index, item.status) for item in listed)
        policy = CompletionPolicy.from_config(len(listed), completion_config)
        succeeded, failed = count(BatchItemStatus.SUCCEEDED), count(BatchItemStatus.FAILED)
        return cls(listed, policy.reason(succeeded, failed, states))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], completion_config: CompletionConfig | None = None) -> BatchResult[R]:
        """Read what `to_dict` gives; a missing reason is found as by `from_items`."""
        items = [BatchItem[R].from_dict(item) for item in data["all"]]
        reason = data.get("completionReason")
        if reason is None:
            return cls.from_items(items, completion_config)
        return cls(items, CompletionReason(reason))

    def to_dict(self) -> dict[str, Any]:
        """``{"all": [{"index", "status", "result", "error"}, …], "completionReason": …}``."""
        return {"all": [item.to_dict() for item in self.all], "completionReason": self.completion_reason.value}

    def _with(self, status: BatchItemStatus) -> list[BatchItem[R]]:
        return [item for item in self.all if item.status is status]

    def succeeded(self) -> list[BatchItem[R]]:
        """The branches that returned."""
        return self._with(BatchItemStatus.SUCCEEDED)

    def failed(self) -> list[BatchItem[R]]:
        """The branches that raised."""
        return self._with(BatchItemStatus.FAILED)

    def started(self) -> list[BatchItem[R]]:
        """The branches that had not ended."""
        return self._with(BatchItemStatus.STARTED)

    def get_results(self) -> list[R]:
        """The results of the branches that returned, in order of index."""
        return [cast("R", item.result) for item in self.succeeded()]

    def get_errors(self) -> list[ErrorObject]:
        """The errors of the branches that raised, in order of index."""
        return [item.error or ErrorObject() for item in self.failed()]

    @property
    def status(self) -> BatchItemStatus:
        """SUCCEEDED or FAILED: as ``should_complete`` decided, else FAILED if any branch failed."""
        if self.completion_reason is CompletionReason.CUSTOM_COMPLETION_FAILED:
            return BatchItemStatus.FAILED
        if self.completion_reason is CompletionReason.CUSTOM_COMPLETION_SUCCEEDED:
            return BatchItemStatus.SUCCEEDED
        return BatchItemStatus.FAILED if self.has_failure else BatchItemStatus.SUCCEEDED

    @property
    def has_failure(self) -> bool:
        """Whether any branch failed."""
        return any(item.status is BatchItemStatus.FAILED for item in self.all)

    @property
    def success_count(self) -> int:
        """How many branches returned."""
        return len(self.succeeded())

    @property
    def failure_count(self) -> int:
        """How many branches raised."""
        return len(self.failed())

    @property
    def started_count(self) -> int:
        """How many branches had not ended."""
        return len(self.started())

    @property
    def total_count(self) -> int:
        """How many branches were started."""
        return len(self.all)

    def throw_if_error(self) -> None:
        """Raise the error of the first branch that failed; return if none did.

        Raises:
            ChildContextError: a branch failed. It is an instance of the class that the branch raised, too, where that
                is known.
            BatchCompletionError: none failed, but ``should_complete`` ended the batch as failed.
        """
        for item in self.all:
            if item.status is BatchItemStatus.FAILED:
                raise error_of(item)
        if self.completion_reason is CompletionReason.CUSTOM_COMPLETION_FAILED:
            reason = self.completion_reason
            raise BatchCompletionError(f"batch completed as failed ({reason.value})", completion_reason=reason)


def error_of(item: BatchItem[Any]) -> BaseException:
    """What a failed branch raises."""
    record = item.record or _record_of(item.error or ErrorObject())
    return serde.rebuild(record, ChildContextError, key=item.key, attempts=1, run_id=item.run_id)


def _record_of(error: ErrorObject) -> ErrorRecord:
    """Of an error that is known by its description only."""
    cause = None if error.cause is None else _record_of(error.cause)
    frames = tuple(error.stack_trace or ())
    return ErrorRecord(error.type or "", error.message or "", error.data, frames, cause=cause)


# In the format of values. A failed branch keeps the record of its error, so that it can be raised as its own class.


def _item_to_plain(item: BatchItem[Any]) -> list[Any]:
    known = [item.index, item.status.value, item.result]
    if item.record is not None:
        return [*known, None, msgspec.to_builtins(item.record), item.key, item.run_id]
    return known if item.error is None else [*known, item.error]


def _item_from_plain(content: list[Any]) -> BatchItem[Any]:
    index, status, result, *rest = content
    if len(rest) > 1:
        _, record, key, run_id = rest
        return failed_item(index, msgspec.convert(record, ErrorRecord), key=key, run_id=run_id)
    return BatchItem(index, BatchItemStatus(status), result, rest[0] if rest else None)


def _to_plain(batch: BatchResult[Any]) -> list[Any]:
    return [batch.completion_reason.value, batch.all]


def _from_plain(content: list[Any]) -> BatchResult[Any]:
    return BatchResult(content[1], CompletionReason(content[0]))


serde.register("batchitem", BatchItem, _item_to_plain, _item_from_plain)
serde.register("batch", BatchResult, _to_plain, _from_plain)
