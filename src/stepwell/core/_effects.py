"""Effects: what a flow asks its trampoline to do. A flow yields them and never performs them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    from stepwell.core._batch import BatchWanted
    from stepwell.core._decide import Diverged, StepWanted, Wanted
    from stepwell.core._records import AnyRecord, CallbackCreated, InvokeStarted, Payload
    from stepwell.errors import ErrorRecord


class Now(msgspec.Struct, frozen=True):
    """The store's time, in microseconds. Sent back: int."""


class Ride(msgspec.Struct, frozen=True):
    """Write the records with the run's next commit."""

    records: tuple[AnyRecord, ...]


class Commit(msgspec.Struct, frozen=True):
    """Make the records durable and fold them, before anything else happens."""

    records: tuple[AnyRecord, ...]


class Park(msgspec.Struct, frozen=True):
    """Make the records durable (if any), then let this branch wait until ``until``."""

    want: Wanted
    until: int
    records: tuple[AnyRecord, ...] = ()


class Call(msgspec.Struct, frozen=True):
    """Run a step's body. Sent back: `Done` or `Failed`."""

    want: StepWanted
    attempt: int
    state: Payload = None
    """For polls: the state so far."""


class Enter(msgspec.Struct, frozen=True):
    """Run a scope's body in a context of its own. Sent back: `Done` or `Failed`."""

    want: ScopeWanted


class Decode(msgspec.Struct, frozen=True):
    """A recorded payload back to its value."""

    want: Wanted
    payload: Payload


class Rebuild(msgspec.Struct, frozen=True):
    """A recorded error back to the exception that the caller gets."""

    want: Wanted
    error: ErrorRecord
    attempts: int


class Diverge(msgspec.Struct, frozen=True):
    """The code has changed: end the life as blocked. Never sent back to."""

    want: Wanted
    what: Diverged


class Spawn(msgspec.Struct, frozen=True):
    """Give branch ``index`` a slot: it runs from here on, beside the others."""

    index: int


class TakeEvent(msgspec.Struct, frozen=True):
    """Wait for the next branch to end. Sent back: `BranchEnded`."""


class CancelBranches(msgspec.Struct, frozen=True):
    """Let go of the branches that still run. Sent back: their indexes, once they can write no more."""


class AskCompletion(msgspec.Struct, frozen=True):
    """Ask the user's ``should_complete``. Sent back: "" (go on) or a completion reason."""

    asked: BatchWanted
    ended: dict[int, BranchEnded]


class Conclude(msgspec.Struct, frozen=True):
    """Make a batch's result of its parts. Sent back: `Done`."""

    asked: BatchWanted
    reason: str
    ended: dict[int, BranchEnded]
    started: frozenset[int]


class Replayed(msgspec.Struct, frozen=True):
    """A recorded batch's result. First with ``again`` None; sent back: the indexes of the branches whose values must be
    made again. Then with those; sent back: the value.
    """

    asked: BatchWanted
    payload: Payload
    replay_children: bool
    again: dict[int, BranchEnded] | None


class CancelledHere(msgspec.Struct, frozen=True):
    """Raise what a cancelled operation raises. Never sent back to."""

    want: Wanted


class Await(msgspec.Struct, frozen=True):
    """Make the records durable (if any), then wait for something from outside: until ``ready`` says that it has come
    (asked again when a fact with one of the ``topics`` is on record), or ``until``. Sent back to decide again; it may
    come back early. A ``signal`` has come where nobody is about to be given it, either: the run's state is behind that.
    """

    want: Wanted
    until: int | None
    topics: tuple[str, ...]
    ready: Callable[[], bool]
    records: tuple[AnyRecord, ...] = ()
    signal: str | None = None


class OpenOutside(msgspec.Struct, frozen=True):
    """Commit the start of something that is ended from outside, and make it known there."""

    want: Wanted
    record: CallbackCreated | InvokeStarted


class EndOutside(msgspec.Struct, frozen=True):
    """Commit the end of something that was not answered — unless an answer has come meanwhile. Decide again after."""

    want: Wanted
    record: AnyRecord


class TakeSignal(msgspec.Struct, frozen=True):
    """Give the next signal with this name to this operation, if there is one. Sent back: whether."""

    want: Wanted
    signal: str


class StartChild(msgspec.Struct, frozen=True):
    """See to it that the child of this operation is on record and driven. Sent back: None while it goes on, else the
    record that ends the operation.
    """

    want: Wanted


Effect = (
    Now | Ride | Commit | Park | Call | Enter | Decode | Rebuild | Diverge
    | Spawn | TakeEvent | CancelBranches | AskCompletion | Conclude | Replayed | CancelledHere
    | Await | OpenOutside | EndOutside | TakeSignal | StartChild
)  # fmt: skip

T = TypeVar("T")
Flow = Generator[Effect, Any, T]
"""A conversation with a trampoline that ends with a T."""


class Done(msgspec.Struct, frozen=True):
    """A body returned: ``payload`` goes on record, ``value`` is what its caller gets (it has been through the
    serializer both ways), ``at`` when. ``stop``: for polls, whether the state is final; ``delay`` seconds else.
    """

    payload: Payload
    value: Any
    at: int
    stop: bool = True
    delay: float = 0.0
    replay_children: bool = False
    committed: bool = False
    """Its success is on record already: it shared a transaction with the body."""


class Failed(msgspec.Struct, frozen=True):
    """A body raised ``exception``; ``error`` is its form for the record. ``final``: no policy may retry it."""

    error: ErrorRecord
    at: int
    exception: BaseException | None = None
    final: bool = False


class BranchEnded(msgspec.Struct, frozen=True):
    """A branch of a map or parallel has ended."""

    index: int
    ok: bool
    payload: Payload
    value: Any
    error: ErrorRecord | None = None


class ScopeWanted(msgspec.Struct, frozen=True):
    """A scope that code asks for. ``virtual``: no records of its own. ``begun``: its start is on its way already."""

    want: Wanted
    body: Any
    virtual: bool = False
    begun: bool = False
