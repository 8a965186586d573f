"""The end of a run, as the one who waits for it sees it.

A RunError decides exit code and HTTP status, also when it is at the same time an instance of the class that left the
handler (durable.md §14): therefore each class here states both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stepwell.errors._root import StepwellError

if TYPE_CHECKING:
    from stepwell.errors._object import ErrorObject


class RunError(StepwellError):
    """The run did not succeed.

    `run_id` names it.
    """

    exit_code = 1
    http_status = 500
    run_id: str | None = None

    def __init__(self, message: str | None = None, *, run_id: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id


class RunFailed(RunError):
    """The run failed.

    `key` and `attempts` belong to the operation that ended it, where there is one; `error` is what is on record,
    `cause` the exception that left the handler (the same object as `__cause__`).
    """

    exit_code = 1
    http_status = 500
    # Class-level defaults keep a property of the same name, on a class this one is combined with, out of the way.
    key: str | None = None
    attempts: int | None = None
    error: ErrorObject | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        run_id: str | None = None,
        key: str | None = None,
        attempts: int | None = None,
        error: ErrorObject | None = None,
        cause: BaseException | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id, hint=hint)
        self.key = key
        self.attempts = attempts
        self.error = error
        if cause is not None:
            self.__cause__ = cause

    @property
    def cause(self) -> BaseException | None:
        """The exception that left the handler, rebuilt from the record."""
        return self.__cause__

    def __reduce__(self) -> tuple[Any, ...]:
        reduced = super().__reduce__()
        if self.__cause__ is None or "_recipe" in self.__dict__:
            return reduced
        import pickle  # late: it is not small, and few processes need it

        make, args, state = reduced
        try:
            pickle.dumps(self.__cause__)
        except Exception:
            return reduced  # a cause that cannot travel must not keep the failure from arriving
        return make, args, {**state, "__cause__": self.__cause__}


class RunCancelled(RunError):
    """The run was cancelled.

    `reason` is what was given with the request.
    """

    exit_code = 6
    http_status = 409

    def __init__(
        self,
        message: str | None = None,
        *,
        run_id: str | None = None,
        reason: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id, hint=hint)
        self.reason = reason


class RunTimedOut(RunError):
    """The run did not end within its time."""

    exit_code = 1
    http_status = 504


class RunBlocked(RunError):
    """The run needs a person before it can go on.

    `reason` says why, in the words that `stepwell ls` shows.
    """

    exit_code = 1
    http_status = 409

    def __init__(
        self,
        message: str | None = None,
        *,
        run_id: str | None = None,
        reason: str | None = None,
        hint: str | None = None,
    ) -> None:
        if message is None and reason is not None:
            message = f"the run is blocked: {reason}"
        super().__init__(message, run_id=run_id, hint=hint)
        self.reason = reason


class RollbackFailed(RunError):
    """The run was rolled back, but not every step could be undone.

    `failures` lists what could not be undone, in the order in which it was tried.
    """

    exit_code = 1
    http_status = 500

    def __init__(
        self,
        message: str | None = None,
        *,
        run_id: str | None = None,
        failures: Iterable[object] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, run_id=run_id, hint=hint)
        self.failures = tuple(failures)
