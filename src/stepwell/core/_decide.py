"""Decide: what to do when code asks for an operation. Pure; the answer is one of a closed union."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.core._records import Kind

if TYPE_CHECKING:
    from stepwell.core._records import Payload
    from stepwell.core._state import Op, RunState
    from stepwell.errors import ErrorRecord


class Wanted(msgspec.Struct, frozen=True):
    """An operation that code asks for: the part that identity and display need.

    Seen by the garbage collector, unlike records: a body leads to contexts, lives and the frames of its errors.
    """

    key: str
    kind: Kind
    name: str | None = None
    sub_type: str | None = None
    weight: float | None = None
    codec: Any = None
    """How its value is read back; means nothing to the core."""


Planner = Callable[[str, BaseException, int], float | None]
"""Retry policy of one step: key, error and attempts made so far to seconds until the next attempt, or None to give
up. It raises `BadStrategy` where the user's strategy cannot be used."""


class StepWanted(Wanted, frozen=True):
    """A step that code asks for. ``body`` means nothing to the core: it is handed back with the `Call` effect."""

    body: Any = None
    plan: Planner | None = None
    at_most_once: bool = False
    durable_start: bool = False
    """The start is durable before the body, whatever the semantics (process executor)."""
    undo: bool = False
    fingerprint: str | None = None
    undo_failed: bool = False
    """Its undo is run where it did not succeed, too: what it did until then is to be undone first."""


# What to do.


class Return(msgspec.Struct, frozen=True):
    """The journal has the value."""

    payload: Payload


class Raise(msgspec.Struct, frozen=True):
    """The journal has the error."""

    error: ErrorRecord
    attempts: int


class Cancelled(msgspec.Struct, frozen=True):
    """The operation was cancelled by user code in an earlier life."""


class ParkUntil(msgspec.Struct, frozen=True):
    """Its time has not come."""

    until: int


class Execute(msgspec.Struct, frozen=True):
    """Run attempt ``attempt``. ``fresh``: its start is not on record yet."""

    attempt: int
    fresh: bool


class Lost(msgspec.Struct, frozen=True):
    """An earlier life began this at-most-once attempt and left no end: it may or may not have run."""

    attempt: int


class Diverged(msgspec.Struct, frozen=True):
    """The key is on record as something else: the code has changed under the run."""

    expected: str
    found: str


Decision = Return | Raise | Cancelled | ParkUntil | Execute | Lost | Diverged


def replay(run: RunState, key: str, kind: Kind) -> Op | None:
    """The recorded success under a key, or None: all that most calls of a replay need."""
    op = run.ops.get(key)
    return op if op is not None and op.status == "succeeded" and op.kind == kind else None


def diverged(op: Op, want: Wanted) -> Diverged | None:
    """Whether the recorded operation is of another kind than the one asked for."""
    return Diverged(op.kind, want.kind) if op.kind != want.kind else None


def settled(op: Op) -> Return | Raise | Cancelled | None:
    """What an operation that has ended gives to the code that asks for it."""
    match op.status:
        case "succeeded":
            return Return(op.payload)
        case "failed":
            assert op.error is not None
            return Raise(op.error, op.attempt - op.base)
        case "cancelled":
            return Cancelled()
        case _:
            return None


def decide(run: RunState, want: StepWanted, now: int) -> Decision:
    """What to do about a step, a poll or an undo that code asks for."""
    op = run.ops.get(want.key)
    if op is None:
        return Execute(1, fresh=True)
    if (other := diverged(op, want)) is not None:
        return other
    if (end := settled(op)) is not None:
        return end
    if op.status == "planned":
        return ParkUntil(op.until) if op.until > now else Execute(op.attempt + 1, fresh=True)
    if op.status == "reopened":
        return Execute(op.attempt + 1, fresh=True)
    if want.at_most_once and op.epoch < run.epoch:
        return Lost(op.attempt)
    return Execute(op.attempt, fresh=False)


def crash_loop(run: RunState, limit: int = 5) -> str | None:
    """Why the next life must not begin, or None (durable.md §3.5)."""
    for key, deaths in run.deaths.items():
        if deaths >= limit:
            return f"crashes: step '{step_name(run, key)}' ended the process {deaths} times"
    if run.expiries >= limit:
        where = ", ".join(f"'{step_name(run, key)}'" for key in sorted(run.executing)) or "no step"
        return f"lost its lease {run.expiries} times in step {where}"
    return None


def step_name(run: RunState, key: str) -> str:
    """How a step is called in texts: its name, else its key."""
    op = run.ops.get(key)
    return op.name if op is not None and op.name else key
