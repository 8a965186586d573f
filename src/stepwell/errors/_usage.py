"""The caller's mistakes: whatever raises one of these has written nothing."""

from __future__ import annotations

from collections.abc import Iterable

from stepwell.errors._root import StepwellError


class UsageError(StepwellError):
    """The call cannot work as it was made; nothing was written."""

    exit_code = 2
    http_status = 400


class UnknownRun(UsageError):
    """There is no such run.

    `run_id` is what was asked for.
    """

    http_status = 404

    def __init__(self, message: str | None = None, *, run_id: str | None = None, hint: str | None = None) -> None:
        if message is None and run_id is not None:
            message = f"there is no run {run_id!r}"
        super().__init__(message, hint=hint)
        self.run_id = run_id


class DuplicateRun(UsageError):
    """A run with this id exists and was started with something else.

    `expected` is what the recorded run was started with, `found` what this call asks for.
    """

    http_status = 409

    def __init__(
        self,
        message: str | None = None,
        *,
        run_id: str | None = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        if message is None and run_id is not None:
            message = f"run {run_id!r} exists and was started with something else"
        super().__init__(message, hint=hint)
        self.run_id = run_id
        self.expected = expected
        self.found = found


class RunHeld(UsageError):
    """Somebody else holds the run: it was not taken up here.

    `run_id` is the run, `holder` the worker that has it, as well as it is known.
    """

    exit_code = 4
    http_status = 409

    def __init__(
        self,
        message: str | None = None,
        *,
        run_id: str | None = None,
        holder: str | None = None,
        hint: str | None = None,
    ) -> None:
        if message is None and run_id is not None:
            message = f"run {run_id} is held by {holder or 'somebody else'}"
        super().__init__(message, hint=hint)
        self.run_id = run_id
        self.holder = holder


class BadArguments(UsageError):
    """The arguments are not usable.

    `problems` names each of them, in the order in which they were found.
    """

    def __init__(self, message: str | None = None, *, problems: Iterable[str] = (), hint: str | None = None) -> None:
        self.problems = tuple(problems)
        if message is None and self.problems:
            message = "; ".join(self.problems)
        super().__init__(message, hint=hint)


class MissingExtra(UsageError):
    """An optional part of Stepwell is not installed.

    `extra` is the name of the part; the text says how to install it. `needed_for` is put in front of the text.
    """

    def __init__(self, extra: str, needed_for: str | None = None, *, hint: str | None = None) -> None:
        command = f'pip install "stepwell[{extra}]"'
        subject = needed_for if needed_for is not None else "this"
        super().__init__(f"{subject} needs the extra {extra!r}: {command}", hint=hint or command)
        self.extra = extra


class FlowError(UsageError, ValueError):
    """The flow file has mistakes.

    `problems` holds all of them, each with its own place; `file`, `line` and `column` (from 1) are those of the first.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        problems: Iterable[object] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line
        self.column = column
        self.problems = tuple(problems)
