"""Fork: what of a run's journal another run may begin with. Pure.

A fork begins with the operations that have finished. What is open is nobody's business but the source's: a fork asks
for it anew. It does not own what it has not done: nothing of what is copied is undone if the fork fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stepwell.core._fold import fold
from stepwell.core._keys import parent_of
from stepwell.core._records import (
    BlobRef,
    CallbackCreated,
    CallbackFailed,
    CallbackSucceeded,
    InvokeFailed,
    InvokeStarted,
    InvokeSucceeded,
    OperationCancelled,
    Recorded,
    Reopened,
    ScopeCancelled,
    ScopeFailed,
    ScopeStarted,
    ScopeSucceeded,
    SignalAwaited,
    SignalReceived,
    SignalTaken,
    SignalTimedOut,
    StepFailed,
    StepStarted,
    StepSucceeded,
    WaitEnded,
    WaitStarted,
)
from stepwell.core._state import RunState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stepwell.core._records import AnyRecord
    from stepwell.core._state import Op

_SCOPES = frozenset(
    {"child", "map", "map_item", "parallel", "parallel_branch", "with_retry", "wait_for_callback", "gather", "race"}
)
_STEPS = frozenset({"step", "once", "wait_for_condition", "rollback"})
_ENDS = (
    StepSucceeded, StepFailed, WaitEnded, ScopeSucceeded, ScopeFailed, ScopeCancelled, Recorded, OperationCancelled,
    CallbackSucceeded, CallbackFailed, InvokeSucceeded, InvokeFailed, SignalTaken, SignalTimedOut,
)  # fmt: skip


class _Copy:
    """One pass over the journal of the source."""

    def __init__(self, run_id: str, records: Iterable[AnyRecord]) -> None:
        self.run = RunState(run_id)
        self._by_key: dict[str, list[tuple[int, AnyRecord]]] = {}
        self._settled: dict[str, int] = {}
        """Operations that somebody took as finished when the run was reopened, and where."""
        for position, record in enumerate(records):
            fold(self.run, record)
            key = getattr(record, "key", None)
            if isinstance(key, str):
                self._by_key.setdefault(key, []).append((position, record))
            elif isinstance(record, Reopened):
                names = {*record.skip, *(name for name, _ in record.set)}
                for op in self.run.ops.values():
                    if {op.key, op.name} & names:
                        self._settled[op.key] = position

    def select(self, at: str | None) -> list[AnyRecord]:
        """The records of what has finished and stands before ``at``, in their order."""
        ops = self.run.ops
        before = dict.fromkeys(ops)
        if at is not None:
            order = list(ops)
            before = dict.fromkeys(order[: order.index(at)])
        # A scope is finished only with all that is in it.
        begun_anew = {scope for key in ops if key not in before for scope in _around(key)}
        kept = [key for key in before if ops[key].ended and key not in begun_anew]
        finished = set(kept)
        scopes = dict.fromkeys(scope for key in kept for scope in _around(key) if scope not in finished)
        open_scopes = [scope for scope in scopes if scope in before and ops[scope].kind in _SCOPES]
        placed = [self._scope_start(scope) for scope in open_scopes]
        for key in kept:
            placed += self._records(ops[key])
        placed.sort(key=lambda place: place[0])
        return list(_own(record for _, record in placed))

    def _scope_start(self, key: str) -> tuple[int, AnyRecord]:
        position, _ = self._by_key[key][0]
        return position, _start_of(self.run.ops[key])

    def _records(self, op: Op) -> list[tuple[int, AnyRecord]]:
        recorded = self._by_key[op.key]
        if not op.reopened and op.key not in self._settled:
            return recorded
        # Begun more than once, or ended by a person: the shortest story with the same end.
        ends = [position for position, record in recorded if isinstance(record, _ENDS)]
        end = max([*ends, self._settled.get(op.key, -1)])
        story = _end_of(op)
        if isinstance(story, Recorded):
            return [(end, story)]
        return [(recorded[0][0], _start_of(op)), (end, story)]


def _around(key: str) -> Iterable[str]:
    parent = parent_of(key)
    while parent:
        yield parent
        parent = parent_of(parent)


def _start_of(op: Op) -> AnyRecord:
    """The record that begins such an operation."""
    at, key = op.started_at, op.key
    if op.kind in _STEPS:
        return StepStarted(at, key, 1, op.kind, op.name, op.sub_type, op.fingerprint, op.weight)
    if op.kind in _SCOPES:
        return ScopeStarted(at, key, op.kind, op.name, op.sub_type, op.total, op.weight)
    if op.kind == "wait":
        return WaitStarted(at, key, op.until, op.name)
    if op.kind == "callback":
        return CallbackCreated(
            at, key, op.callback_id or "", op.name, op.sub_type, op.timeout_at, op.heartbeat, op.form
        )
    if op.kind in ("invoke", "start"):
        return InvokeStarted(
            at, key, op.child or "", op.function or "", None, op.kind, op.name, op.tenant, op.until or None
        )
    return SignalAwaited(at, key, op.signal or op.name or "", op.until or None)


def _end_of(op: Op) -> AnyRecord:
    """The record that leaves such an operation as it is."""
    at, key = op.ended_at, op.key
    if op.status == "cancelled":
        return ScopeCancelled(at, key) if op.kind in _SCOPES else OperationCancelled(at, key, op.kind)
    if op.kind == "wait":
        # Ended by a person it may have been before its time.
        return WaitEnded(max(at, op.until), key)
    if op.status == "failed":
        assert op.error is not None
        if op.kind in _SCOPES:
            return ScopeFailed(at, key, op.error)
        if op.kind == "callback":
            return CallbackFailed(at, key, op.error, timed_out=op.how == "timed_out", by=op.by)
        if op.kind in ("invoke", "start"):
            return InvokeFailed(at, key, op.error, op.how or "failed")
        return SignalTimedOut(at, key, op.error) if op.kind == "signal" else StepFailed(at, key, op.error)
    if op.kind in _SCOPES:
        return ScopeSucceeded(at, key, op.payload, op.replay_children)
    if op.kind == "callback":
        return CallbackSucceeded(at, key, op.payload, op.by)
    if op.kind in ("invoke", "start"):
        return InvokeSucceeded(at, key, op.payload)
    if op.kind == "signal":
        return SignalTaken(at, key, op.signal or op.name or "", 0)
    if op.kind in _STEPS and op.attempt:
        return StepSucceeded(at, key, op.payload)
    return Recorded(at, key, op.kind, op.payload, name=op.name)


def _own(records: Iterable[AnyRecord]) -> Iterable[AnyRecord]:
    """The records as the fork's own: signals come right before they are taken, and nothing is there to be undone."""
    taken: dict[str, int] = {}
    for record in records:
        if isinstance(record, StepSucceeded | Recorded) and record.undo:
            yield msgspec.structs.replace(record, undo=False)
        elif isinstance(record, SignalTaken):
            index = taken.get(record.signal, 0)
            taken[record.signal] = index + 1
            yield msgspec.structs.replace(record, index=index)
        else:
            yield record


def fork_records(run_id: str, records: Iterable[AnyRecord], at: str | None, *, again: bool) -> list[AnyRecord]:
    """What a fork of this run begins with, after its own start.

    Args:
        run_id: of the source.
        records: its whole journal.
        at: key of the operation before which the fork goes on by itself; None: where the source stands.
        again: failed operations, and the scopes around them, are not taken as finished (as a retry does).

    Raises:
        Corrupt: the journal is damaged.
    """
    copy = _Copy(run_id, records)
    payloads = {key: op.payload for key, op in copy.run.ops.items() if op.kind == "signal"}
    if again:
        fold(copy.run, Reopened(0))
    selected: list[AnyRecord] = []
    for record in copy.select(at):
        if isinstance(record, SignalTaken):
            selected.append(SignalReceived(record.at, record.signal, payloads[record.key]))
        selected.append(record)
    return selected


def blobs_in(records: Sequence[AnyRecord]) -> dict[bytes, None]:
    """Hashes of the large values that these records refer to."""
    found: dict[bytes, None] = {}
    for record in records:
        for field in ("payload", "input"):
            value = getattr(record, field, None)
            if isinstance(value, BlobRef):
                found[value.hash] = None
    return found


__all__ = ["blobs_in", "fork_records"]
