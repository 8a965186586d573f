"""Records: the facts a run's journal is made of.

This is the storage format. A batch of records is one row of the journal, encoded as a msgpack array of
arrays, each with its number first. What would break old journals: renumbering a ``tag``, removing or
reordering a field, or adding a field without a default. Adding fields at the end, with defaults, is safe.

Every record is in the past tense, frozen, and says when it happened (``at``: microseconds since 1970 UTC,
the store's time). ``key`` says where in the run the operation stands.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from stepwell.errors import ErrorRecord

Kind = Literal[
    "step",
    "wait",
    "child",
    "map",
    "parallel",
    "map_item",
    "parallel_branch",
    "wait_for_condition",
    "now",
    "random",
    "uuid",
    "once",
    "on_failure",
    "rollback",
    "with_retry",
    "completion",
    "callback",
    "wait_for_callback",
    "invoke",
    "start",
    "signal",
    "publish",
    "gather",
    "race",
]
"""What an operation is. Asking for a recorded key with another kind is a `NonDeterminismError`."""


class BlobRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A large payload kept apart, by content: ``hash`` (BLAKE2b-256 of the text's UTF-8), ``size`` in bytes."""

    hash: bytes
    size: int


Payload = str | BlobRef | None
"""A serialized value: its text, or where the text lies; None where there is no value (not the value None)."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One fact. Never changed, never taken back."""

    at: int


class RunStarted(Record, frozen=True, array_like=True, gc=False, tag=1):
    """A run exists. ``function`` is the name it was started under, ``target`` where its code was found."""

    function: str
    input: Payload
    door: str = "durable"
    target: str | None = None
    queue: str = "default"
    parent: str | None = None
    deadline: int | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    parent_key: str | None = None
    """The operation of ``parent`` that waits for this run: its end is delivered there."""
    tenant: str | None = None
    depth: int = 0
    """How many runs stand above this one, each started by the next."""
    metadata: tuple[tuple[str, str], ...] = ()
    """What the plugins of ``parent`` tell the plugins of this run: names and texts."""


class LifeStarted(Record, frozen=True, array_like=True, gc=False, tag=2):
    """A worker holds the run from here on. ``why``: start, due, resume, retry, takeover."""

    epoch: int
    worker: str
    why: str
    pid: int = 0
    host: str = ""


class Parked(Record, frozen=True, array_like=True, gc=False, tag=3):
    """Nothing of the run can go on before ``until`` (None: before something comes from outside)."""

    until: int | None
    waiting_for: tuple[str, ...] = ()


class LifeLost(Record, frozen=True, array_like=True, gc=False, tag=4):
    """The life with this epoch ended without handing back its lease. ``how``: dead or expired."""

    epoch: int
    worker: str
    how: str


class StepStarted(Record, frozen=True, array_like=True, gc=False, tag=5):
    """An attempt began. ``fingerprint`` is kept for unnamed steps only (durable.md §3.2).

    ``undo``: whatever becomes of it, rollback has something to undo here.
    """

    key: str
    attempt: int
    kind: Kind = "step"
    name: str | None = None
    sub_type: str | None = None
    fingerprint: str | None = None
    weight: float | None = None
    undo: bool = False


class StepSucceeded(Record, frozen=True, array_like=True, gc=False, tag=6):
    """The step has its value for good. ``undo``: rollback has something to undo here."""

    key: str
    payload: Payload
    undo: bool = False


class StepFailed(Record, frozen=True, array_like=True, gc=False, tag=7):
    """The last attempt failed and there will be no other. ``undo``: rollback has something to undo here, too."""

    key: str
    error: ErrorRecord
    undo: bool = False


class StepRetryPlanned(Record, frozen=True, array_like=True, gc=False, tag=8):
    """Attempt ``attempt`` is over; the next one may start at ``until``.

    For a poll that goes on there is no error but the new state, in ``payload``.
    """

    key: str
    attempt: int
    until: int
    error: ErrorRecord | None = None
    payload: Payload = None


class WaitStarted(Record, frozen=True, array_like=True, gc=False, tag=9):
    """A timer was set."""

    key: str
    until: int
    name: str | None = None


class WaitEnded(Record, frozen=True, array_like=True, gc=False, tag=10):
    """The timer ended and the code after it may go on."""

    key: str


class ScopeStarted(Record, frozen=True, array_like=True, gc=False, tag=11):
    """A child context, map, parallel, item or branch began. ``total``: branches asked for, of map and parallel."""

    key: str
    kind: Kind
    name: str | None = None
    sub_type: str | None = None
    total: int | None = None
    weight: float | None = None


class ScopeSucceeded(Record, frozen=True, array_like=True, gc=False, tag=12):
    """The scope has its value for good.

    ``replay_children``: the value was too large to keep (durable.md §9); it is made again from the records inside.
    """

    key: str
    payload: Payload
    replay_children: bool = False


class ScopeFailed(Record, frozen=True, array_like=True, gc=False, tag=13):
    """The scope ended with an error."""

    key: str
    error: ErrorRecord


class ScopeCancelled(Record, frozen=True, array_like=True, gc=False, tag=14):
    """The scope's batch ended early, without waiting for it."""

    key: str


class Recorded(Record, frozen=True, array_like=True, gc=False, tag=15):
    """Something of the outside world, as it was at first sight."""

    key: str
    kind: Kind
    payload: Payload
    undo: bool = False
    name: str | None = None


class RollbackStarted(Record, frozen=True, array_like=True, gc=False, tag=16):
    """The run will end with ``outcome``, after its finished reversible steps are undone."""

    outcome: Literal["failed", "cancelled", "timed_out"]
    error: ErrorRecord | None = None
    reason: str | None = None


class CancelRequested(Record, frozen=True, array_like=True, gc=False, tag=17):
    """Somebody asked for the end of the run."""

    reason: str | None = None
    by: str | None = None


class OperationCancelled(Record, frozen=True, array_like=True, gc=False, tag=18):
    """User code cancelled the task that awaited this operation; replay raises the same CancelledError."""

    key: str
    kind: Kind = "step"


class Reopened(Record, frozen=True, array_like=True, gc=False, tag=19):
    """Somebody retried an ended or blocked run: its failed operations get a fresh budget.

    ``force``: run again although finished. ``skip``: take as finished with null. ``set``: (name or key, text) pairs,
    take as finished with this value. ``again``: keys of what runs again although finished, without what stands in it:
    a door whose failures are on record as values names them here.
    """

    by: str | None = None
    force: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    again: tuple[str, ...] = ()


class RunBlocked(Record, frozen=True, array_like=True, gc=False, tag=20):
    """The run needs a person. ``reason`` is shown; a later life clears it."""

    reason: str


class RunSucceeded(Record, frozen=True, array_like=True, gc=False, tag=21):
    """The handler returned."""

    payload: Payload


class RunFailed(Record, frozen=True, array_like=True, gc=False, tag=22):
    """The handler let an error out (and what could be undone is undone, or reported in the error)."""

    error: ErrorRecord


class RunCancelled(Record, frozen=True, array_like=True, gc=False, tag=23):
    """The run was cancelled."""

    reason: str | None = None
    error: ErrorRecord | None = None


class RunTimedOut(Record, frozen=True, array_like=True, gc=False, tag=24):
    """The run's own deadline passed."""

    error: ErrorRecord | None = None


class CallbackCreated(Record, frozen=True, array_like=True, gc=False, tag=25):
    """Somebody outside may answer under ``callback_id``, until ``timeout_at``, and must be heard of every ``heartbeat``
    microseconds. ``form``: JSON of what an answer must look like and who is asked (approvals).
    """

    key: str
    callback_id: str
    name: str | None = None
    sub_type: str | None = None
    timeout_at: int | None = None
    heartbeat: int | None = None
    form: str | None = None


class CallbackBeat(Record, frozen=True, array_like=True, gc=False, tag=26):
    """Whoever is to answer is still at it."""

    key: str


class CallbackSucceeded(Record, frozen=True, array_like=True, gc=False, tag=27):
    """The answer. ``by``: who gave it, where that is known."""

    key: str
    payload: Payload
    by: str | None = None


class CallbackFailed(Record, frozen=True, array_like=True, gc=False, tag=28):
    """A refusal from outside, or (``timed_out``) no answer in time."""

    key: str
    error: ErrorRecord
    timed_out: bool = False
    by: str | None = None


class InvokeStarted(Record, frozen=True, array_like=True, gc=False, tag=29):
    """Another run, ``child``, is started with ``payload``. ``until``: when this run stops waiting for it."""

    key: str
    child: str
    function: str
    payload: Payload
    kind: Kind = "invoke"
    name: str | None = None
    tenant: str | None = None
    until: int | None = None


class InvokeSucceeded(Record, frozen=True, array_like=True, gc=False, tag=30):
    """The child's value; of a ``start``: it is on record."""

    key: str
    payload: Payload


class InvokeFailed(Record, frozen=True, array_like=True, gc=False, tag=31):
    """The child did not succeed, or could not be started. ``how``: failed, timed_out or cancelled."""

    key: str
    error: ErrorRecord
    how: str = "failed"


class SignalReceived(Record, frozen=True, array_like=True, gc=False, tag=32):
    """A signal came from outside. It waits under its name, behind those that came before."""

    name: str
    payload: Payload
    by: str | None = None


class SignalAwaited(Record, frozen=True, array_like=True, gc=False, tag=33):
    """The run waits for the next signal called ``signal``, until ``until``."""

    key: str
    signal: str
    until: int | None = None


class SignalTaken(Record, frozen=True, array_like=True, gc=False, tag=34):
    """The ``index``-th signal with this name (from 0) was given to the code that asked for it."""

    key: str
    signal: str
    index: int


class SignalTimedOut(Record, frozen=True, array_like=True, gc=False, tag=35):
    """No signal came in time."""

    key: str
    error: ErrorRecord


AnyRecord = (
    RunStarted
    | LifeStarted
    | Parked
    | LifeLost
    | StepStarted
    | StepSucceeded
    | StepFailed
    | StepRetryPlanned
    | WaitStarted
    | WaitEnded
    | ScopeStarted
    | ScopeSucceeded
    | ScopeFailed
    | ScopeCancelled
    | Recorded
    | RollbackStarted
    | CancelRequested
    | OperationCancelled
    | Reopened
    | RunBlocked
    | RunSucceeded
    | RunFailed
    | RunCancelled
    | RunTimedOut
    | CallbackCreated
    | CallbackBeat
    | CallbackSucceeded
    | CallbackFailed
    | InvokeStarted
    | InvokeSucceeded
    | InvokeFailed
    | SignalReceived
    | SignalAwaited
    | SignalTaken
    | SignalTimedOut
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[AnyRecord])


def encode_records(records: list[AnyRecord]) -> bytes:
    """One journal row's data: a msgpack array of records."""
    return _encoder.encode(records)


def decode_records(data: bytes) -> list[AnyRecord]:
    """The records of one journal row.

    Raises:
        msgspec.DecodeError: the row is damaged, or written by a newer version.
    """
    return _decoder.decode(data)
