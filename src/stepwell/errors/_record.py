"""The journal's form of an error."""

from __future__ import annotations

import msgspec


class ErrorRecord(msgspec.Struct, frozen=True, array_like=True):
    """An error as the journal keeps it, in plain data.

    The format is positional: fields are only ever added at the end, with a default. Changing the meaning of `classes`
    or of `args` would turn recorded failures into errors that no `except` clause of running code catches.
    """

    type: str
    """`error_type` of durable.md §14: bare name for builtins and our own classes, `module.QualName` otherwise."""
    message: str
    """`str(error)` when it was raised."""
    data: str | None = None
    """The error's attribute `data`, if it was a string."""
    stack_trace: tuple[str, ...] = ()
    """Formatted frames of user code, outermost first."""
    classes: tuple[str, ...] = ()
    """`module:qualname` of what was raised; of an operation error: its own class, then each class of the original.
    Empty: nothing was raised in Python (a failure sent in from outside)."""
    args: str | None = None
    """The error's `args` as text of `stepwell.serde`; None where they cannot be recorded."""
    attrs: str | None = None
    """JSON object of those attributes that can be recorded, each in the format of `stepwell.serde`."""
    cause: ErrorRecord | None = None
    """What it was raised from, or while handling what; at most 8 deep."""
