"""What is on record and what the code now asks for do not go together."""

from __future__ import annotations

from stepwell.errors._root import StepwellError


class ReplayError(StepwellError):
    """The record of the run cannot be used by this code."""

    exit_code = 2
    http_status = 409


class PayloadError(ReplayError):
    """A recorded value cannot be read.

    `key` is the step that it belongs to, where that is known; the text names the class and the reason.
    """

    key: str | None = None

    def __init__(self, message: str | None = None, *, key: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


class ReplayWarning(UserWarning):
    """An unnamed step's function differs from the one on record."""
