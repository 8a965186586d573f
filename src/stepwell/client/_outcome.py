"""How a run has ended, as its waiter gets it: the value, or the error of the run (durable.md §14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from stepwell import core, serde
from stepwell.errors import (
    Corrupt,
    NonDeterminismError,
    RollbackFailed,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunTimedOut,
)
from stepwell.runtime import load
from stepwell.runtime._values import text_of

if TYPE_CHECKING:
    from stepwell.core import RunState
    from stepwell.errors import ErrorRecord
    from stepwell.journal import RunRow, Store


class Reader:
    """A store, where the runtime asks for a life."""

    def __init__(self, store: Store) -> None:
        self.store = store


def state_of(store: Store, row: RunRow) -> RunState:
    """The run's journal, folded. Raises `Corrupt` if it cannot be."""
    return load(store, row.id, row.rid)


def outcome(store: Store, row: RunRow, run: RunState | None = None, codec: Any = None) -> Any:
    """The value of an ended run.

    Raises:
        RunFailed, RunCancelled, RunTimedOut, RollbackFailed: as it ended.
    """
    run = run or state_of(store, row)
    end = run.end
    match end:
        case core.RunSucceeded(payload=payload):
            text = text_of(cast("Any", Reader(store)), payload, "result")
            return serde.decode(text, key="result") if codec is None else codec.decode(text, "result")
        case core.RunFailed(error=error):
            raise failure(row.id, error)
        case core.RunCancelled(reason=reason, error=error):
            left = rollback_error(row.id, error)
            raise RunCancelled(f"run {row.id} was cancelled: {reason or 'no reason given'}", run_id=row.id) from left
        case core.RunTimedOut(error=error):
            left = rollback_error(row.id, error)
            raise RunTimedOut(f"run {row.id} timed out", run_id=row.id) from left
        case _:
            message = f"run {row.id} is {row.status} but its journal has no end"
            raise Corrupt(message)


def failure(run_id: str, error: ErrorRecord) -> BaseException:
    """What `run` raises for a failed run."""
    if "stepwell.errors:RollbackFailed" in error.classes:
        return cast("BaseException", rollback_error(run_id, error))
    return serde.rebuild(error, RunFailed, run_id=run_id)


def rollback_error(run_id: str, error: ErrorRecord | None) -> BaseException | None:
    """What the rollback left behind."""
    if error is None:
        return None
    failed = RollbackFailed(error.message, run_id=run_id)
    if error.cause is not None:
        failed.__cause__ = serde.rebuild(error.cause, RunFailed, run_id=run_id)
    return failed


def blocked_error(row: RunRow) -> BaseException:
    """What a caller gets who waits for a blocked run."""
    reason = row.reason or "blocked"
    if reason.startswith("code-changed"):
        return NonDeterminismError(reason.removeprefix("code-changed: "))
    return RunBlocked(f"run {row.id} is blocked: {reason}", run_id=row.id, reason=reason)
