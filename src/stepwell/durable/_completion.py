"""When a map or parallel is over: the user's criteria (durable.md §10)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, overload

import msgspec

from stepwell.durable._checks import check_callable, check_count, check_number
from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from stepwell.core import BranchEnded, Completion


class BatchItemStatus(Enum):
    """How far one branch of a batch has come. STARTED: it had not ended when the batch did."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    STARTED = "STARTED"


class CompletionOutcome(Enum):
    """How ``should_complete`` lets a batch end."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class CompletionDecision(msgspec.Struct, frozen=True):
    """What ``should_complete`` answers. Made by `complete_batch` and `continue_batch`."""

    complete: bool
    outcome: CompletionOutcome | None = None


def complete_batch(outcome: CompletionOutcome = CompletionOutcome.SUCCEEDED) -> CompletionDecision:
    """The batch is over: what still runs is cancelled. Raises ValidationError for another outcome."""
    if not isinstance(outcome, CompletionOutcome):
        raise ValidationError(f"outcome must be a CompletionOutcome, not {outcome!r}")
    return CompletionDecision(complete=True, outcome=outcome)


def continue_batch() -> CompletionDecision:
    """The batch goes on until all of its branches have ended."""
    return CompletionDecision(complete=False)


class CompletionItemStatus(msgspec.Struct, frozen=True):
    """One branch as ``should_complete`` sees it. ``index`` from 0; ``status`` None: not started yet."""

    index: int
    status: BatchItemStatus | None = None


class CompletionStatus(msgspec.Struct, frozen=True):
    """A batch as ``should_complete`` sees it, after a branch has ended.

    ``total_count`` and ``items`` count every branch asked for, started or not; ``completed_count`` is
    ``success_count + failure_count``.
    """

    success_count: int
    failure_count: int
    completed_count: int
    total_count: int
    items: Sequence[CompletionItemStatus] = ()


class _Branches(Sequence[CompletionItemStatus]):
    """The branches, made only when they are looked at: most criteria look at the counts alone."""

    __slots__ = ("_all", "_ended", "_started", "_total")

    def __init__(self, total: int, ended: Mapping[int, BranchEnded], started: Container[int]) -> None:
        self._total = total
        self._ended = ended
        self._started = started
        self._all: tuple[CompletionItemStatus, ...] | None = None

    def _items(self) -> tuple[CompletionItemStatus, ...]:
        if self._all is None:
            self._all = tuple(CompletionItemStatus(index, self._status(index)) for index in range(self._total))
        return self._all

    def _status(self, index: int) -> BatchItemStatus | None:
        end = self._ended.get(index)
        if end is not None:
            return BatchItemStatus.SUCCEEDED if end.ok else BatchItemStatus.FAILED
        return BatchItemStatus.STARTED if index in self._started else None

    def __len__(self) -> int:
        return self._total

    @overload
    def __getitem__(self, index: int) -> CompletionItemStatus: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[CompletionItemStatus, ...]: ...
    def __getitem__(self, index: int | slice) -> CompletionItemStatus | tuple[CompletionItemStatus, ...]:
        return self._items()[index]

    def __iter__(self) -> Iterator[CompletionItemStatus]:
        return iter(self._items())

    def __eq__(self, other: object) -> bool:
        return self._items() == tuple(other) if isinstance(other, tuple | _Branches) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._items())


def completion_status(
    total: int, ended: Mapping[int, BranchEnded], started: Container[int], *, succeeded: int | None = None
) -> CompletionStatus:
    """What to show to ``should_complete``. ``succeeded``: how many of ``ended`` did, where that is known already."""
    if succeeded is None:
        succeeded = sum(end.ok for end in ended.values())
    done = len(ended)
    return CompletionStatus(succeeded, done - succeeded, done, total, _Branches(total, ended, started))


class CompletionConfig(msgspec.Struct, frozen=True):
    """When a map or parallel ends early; it always ends when all branches have.

    With no criterion at all the first failure ends it. ``min_successful``: so many successes end it (alone: failures
    never do). ``tolerated_failure_count``, ``tolerated_failure_percentage`` (0 to 100, of all branches asked for): more
    failures than that end it. ``should_complete``: this function of a `CompletionStatus` alone decides, after each
    branch that ends, with `complete_batch` or `continue_batch`; its decision is recorded.

    Raises ValidationError for negative numbers, percentages outside 0 to 100 and what cannot be called.
    """

    min_successful: int | None = None
    tolerated_failure_count: int | None = None
    tolerated_failure_percentage: float | None = None
    should_complete: Callable[[CompletionStatus], CompletionDecision] | None = None

    def __post_init__(self) -> None:
        if self.min_successful is not None:
            check_count("min_successful", self.min_successful, 0)
        if self.tolerated_failure_count is not None:
            check_count("tolerated_failure_count", self.tolerated_failure_count, 0)
        if self.tolerated_failure_percentage is not None:
            check_number("tolerated_failure_percentage", self.tolerated_failure_percentage, 0, 100)
        check_callable("should_complete", self.should_complete)

    @staticmethod
    def first_successful() -> CompletionConfig:
        """The first success ends it; failures do not."""
        return CompletionConfig(min_successful=1)

    @staticmethod
    def all_completed() -> CompletionConfig:
        """Every branch runs to its end, whatever the others do."""
        return CompletionConfig(tolerated_failure_percentage=100)

    @staticmethod
    def all_successful() -> CompletionConfig:
        """The first failure ends it."""
        return CompletionConfig(tolerated_failure_count=0, tolerated_failure_percentage=0)

    def validate(self, total: int) -> None:
        """Check against the number of branches: ValidationError where ``min_successful`` is greater."""
        if self.min_successful is not None and self.min_successful > total:
            raise ValidationError(f"min_successful is {self.min_successful}, but there are only {total} branches")

    def to_core(self) -> Completion:
        """The criteria as the engine knows them."""
        from stepwell.core import Completion

        return Completion(
            self.min_successful,
            self.tolerated_failure_count,
            self.tolerated_failure_percentage,
            custom=self.should_complete is not None,
        )

    def ask(self, status: CompletionStatus) -> str:
        """What ``should_complete`` says: "" (go on) or the completion reason.

        Raises what the function raises, and ValidationError when it answers with anything but a CompletionDecision.
        """
        if self.should_complete is None:
            return ""
        decision: Any = self.should_complete(status)
        if not isinstance(decision, CompletionDecision):
            raise ValidationError(
                f"should_complete must return complete_batch(…) or continue_batch(), not {type(decision).__name__}"
            )
        if not decision.complete:
            return ""
        failed = decision.outcome is CompletionOutcome.FAILED
        return "CUSTOM_COMPLETION_FAILED" if failed else "CUSTOM_COMPLETION_SUCCEEDED"


for _public in (
    BatchItemStatus, CompletionOutcome, CompletionDecision, complete_batch, continue_batch, CompletionItemStatus,
    CompletionStatus, CompletionConfig,
):  # fmt: skip
    _public.__module__ = "stepwell.durable.config"
del _public
