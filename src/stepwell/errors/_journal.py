"""The store refused, or cannot be used."""

from __future__ import annotations

from stepwell.errors._root import StepwellError


class JournalError(StepwellError):
    """The store cannot be used."""

    exit_code = 7
    http_status = 503


class Fenced(JournalError):
    """Somebody else holds the run now; what this worker computed was not written."""


class JournalBusy(JournalError):
    """The store is held by another process for too long.

    `holder` names that process as well as it is known.
    """

    def __init__(self, message: str | None = None, *, holder: str | None = None, hint: str | None = None) -> None:
        if message is None and holder is not None:
            message = f"the store is held by {holder}"
        super().__init__(message, hint=hint)
        self.holder = holder


class _SchemaMismatch(JournalError):
    """The store has another schema than this version of Stepwell.

    `found` is the store's schema, `expected` the one this version reads and writes.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        found: int | str | None = None,
        expected: int | str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.found = found
        self.expected = expected


class SchemaTooOld(_SchemaMismatch):
    """The store was made by an older version and has not been migrated."""


class SchemaTooNew(_SchemaMismatch):
    """The store was made by a newer version of Stepwell."""


class Corrupt(JournalError):
    """The store holds something that Stepwell did not write."""
