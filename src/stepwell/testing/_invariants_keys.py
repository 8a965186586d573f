"""What the records of one key may be, one after another (P1), and what a rollback owes (P6).

Deliberately not `stepwell.core.fold`: an error there must not hide itself from the functions that look for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepwell.core import (
    CallbackCreated,
    CallbackFailed,
    CallbackSucceeded,
    InvokeFailed,
    InvokeStarted,
    InvokeSucceeded,
    OperationCancelled,
    Recorded,
    Reopened,
    RollbackStarted,
    RunCancelled,
    RunFailed,
    RunSucceeded,
    RunTimedOut,
    ScopeCancelled,
    ScopeFailed,
    ScopeStarted,
    ScopeSucceeded,
    SignalAwaited,
    SignalTaken,
    SignalTimedOut,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    WaitEnded,
    WaitStarted,
    parent_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import AnyRecord, Kind
    from stepwell.errors import ErrorRecord

    Say = Callable[["Rule", str, str], None]

Rule = Literal["P1", "P3", "P5", "P6", "P7", "attempts", "waits", "scopes", "ends", "order"]

UNDO = "undo/"
"""Where the steps stand that undo others."""

RunEnd = RunSucceeded | RunFailed | RunCancelled | RunTimedOut
OutsideEnd = CallbackSucceeded | CallbackFailed | InvokeSucceeded | InvokeFailed | SignalTaken | SignalTimedOut
End = StepSucceeded | StepFailed | WaitEnded | ScopeSucceeded | ScopeFailed | ScopeCancelled | OutsideEnd
FAILURES = StepFailed | ScopeFailed | CallbackFailed | InvokeFailed | SignalTimedOut
OUTCOMES = {RunFailed: "failed", RunCancelled: "cancelled", RunTimedOut: "timed_out", RunSucceeded: "succeeded"}


@dataclass(slots=True)
class Seen:
    """One operation, as its records leave it. ``until``: when a timer or a next attempt may come."""

    kind: Kind
    name: str | None
    status: Literal["started", "planned", "succeeded", "failed", "cancelled", "reopened"]
    attempt: int = 0
    until: int = 0

    @property
    def ended(self) -> bool:
        """It stands until somebody reopens the run."""
        return self.status in ("succeeded", "failed", "cancelled")


class KeyWatch:
    """P1, attempts, timers and scopes."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.ops: dict[str, Seen] = {}

    def see(self, record: AnyRecord) -> None:
        """Take one more record."""
        key = getattr(record, "key", None)
        if isinstance(key, str):
            self._inside(key, record)
        match record:
            case StepStarted():
                self._attempt(record)
            case StepRetryPlanned():
                self._planned(record)
            case WaitStarted(key=key, until=until, name=name):
                self._begin(key, "wait", name, "WaitStarted").until = until
            case ScopeStarted(key=key, kind=kind, name=name):
                self._begin(key, kind, name, "ScopeStarted")
            case Recorded(key=key, kind=kind):
                self._begin(key, kind, None, "Recorded").status = "succeeded"
            case OperationCancelled(key=key, kind=kind):
                op = self.ops.setdefault(key, Seen(kind, None, "started"))
                self._not_ended(key, op, "OperationCancelled")
                op.status = "cancelled"
            case CallbackCreated(key=key, name=name):
                self._begin(key, "callback", name, "CallbackCreated")
            case InvokeStarted(key=key, kind=kind, name=name):
                self._begin(key, kind, name, "InvokeStarted")
            case SignalAwaited(key=key, signal=name):
                self._begin(key, "signal", name, "SignalAwaited")
            case SignalTaken(key=key, signal=name) if key not in self.ops or self.ops[key].status == "reopened":
                self._begin(key, "signal", name, "SignalTaken").status = "succeeded"
            case Reopened():
                self._reopened(record)
            case _ if isinstance(record, End):
                self._end(record)
            case _:
                pass

    def _inside(self, key: str, record: AnyRecord) -> None:
        scope = "" if key.startswith(UNDO) else parent_of(key)
        if isinstance(record, StepFailed) and record.undo:
            return  # the end of a step that a dead process left open may come with the rollback
        while scope:
            if scope in self.ops and self.ops[scope].ended:
                self.say("scopes", key, f"{type(record).__name__} inside {scope}, which had ended")
                return
            scope = parent_of(scope)

    def _not_ended(self, key: str, op: Seen, what: str) -> bool:
        if op.ended:
            again = "again" if op.status == "succeeded" else "after its end"
            self.say("P1", key, f"{what} {again}: it had {op.status}, and nobody reopened it")
        return not op.ended

    def _attempt(self, r: StepStarted) -> None:
        op = self.ops.get(r.key)
        if op is None:
            op = self.ops[r.key] = Seen(r.kind, r.key if r.name == r.key else r.name, "reopened")
        elif self._not_ended(r.key, op, f"StepStarted of attempt {r.attempt}"):
            if op.status == "started":
                self.say("attempts", r.key, f"attempt {r.attempt} began while attempt {op.attempt} was under way")
            if op.status == "planned" and r.at < op.until:
                self.say("waits", r.key, f"attempt {r.attempt} began {op.until - r.at} µs before its time")
        if r.attempt != op.attempt + 1:
            self.say("attempts", r.key, f"attempt {r.attempt} follows attempt {op.attempt}")
        self._same_kind(r.key, op, r.kind)
        op.status, op.attempt = "started", r.attempt
        if r.name and r.name != op.name:
            op.name = r.name

    def _same_kind(self, key: str, op: Seen, kind: Kind) -> None:
        if op.kind != kind:
            self.say("order", key, f"it is on record as {op.kind} and as {kind}")

    def _planned(self, r: StepRetryPlanned) -> None:
        op = self.ops.get(r.key)
        if op is None:
            self.say("attempts", r.key, "a next attempt was planned of a step that never began")
            return
        if self._not_ended(r.key, op, "StepRetryPlanned") and (op.status, op.attempt) != ("started", r.attempt):
            what = f"attempt {op.attempt} is {op.status}"
            self.say("attempts", r.key, f"a successor of attempt {r.attempt} was planned, but {what}")
        op.status, op.until = "planned", r.until

    def _begin(self, key: str, kind: Kind, name: str | None, what: str) -> Seen:
        op = self.ops.get(key)
        if op is None:
            op = self.ops[key] = Seen(kind, name, "started")
        else:
            if self._not_ended(key, op, what) and op.status != "reopened":
                self.say("order", key, f"{what} twice")
            self._same_kind(key, op, kind)
            op.status = "started"
        return op

    def _end(self, r: End) -> None:
        what = type(r).__name__
        op = self.ops.get(r.key)
        if op is None:
            self.say("attempts", r.key, f"{what} of what never began")
            op = self.ops[r.key] = Seen("step", None, "started")
        elif self._not_ended(r.key, op, what):
            # A step whose next attempt is planned may fail without it: nobody is left to make it.
            if op.status != "started" and not (op.status == "planned" and isinstance(r, StepFailed)):
                self.say("attempts", r.key, f"{what} while it was {op.status}: no attempt was under way")
            if isinstance(r, WaitEnded) and r.at < op.until:
                self.say("waits", r.key, f"the wait ended {op.until - r.at} µs before its time")
        if isinstance(r, FAILURES):
            op.status = "failed"
        else:
            op.status = "cancelled" if isinstance(r, ScopeCancelled) else "succeeded"

    def _reopened(self, r: Reopened) -> None:
        """What failed, what is forced and what stands in it may begin anew, and so may all scopes around it."""
        force, settle = set(r.force), {*r.skip, *(name for name, _ in r.set)}
        forced = tuple(key + end for key, op in self.ops.items() if {key, op.name} & force for end in "/[")
        again = set(r.again) & self.ops.keys()
        for key, op in self.ops.items():
            if {key, op.name} & settle:
                op.status = "succeeded"
            elif op.status in ("failed", "cancelled") or {key, op.name} & force or key.startswith(forced):
                again.add(key)
        for key in sorted(again):
            if self.ops[key].ended:
                self.ops[key].status = "reopened"
            while key := parent_of(key):
                if key in self.ops and self.ops[key].ended:
                    self.ops[key].status = "reopened"
        # A decision about a batch is made anew with the batch.
        for key in [k for k, op in self.ops.items() if op.kind == "completion" and self._is_reopened(parent_of(k))]:
            del self.ops[key]

    def _is_reopened(self, key: str) -> bool:
        return key in self.ops and self.ops[key].status == "reopened"


class RollbackWatch:
    """P6: what is finished and reversible is undone, last first, or the run's end says what could not be."""

    def __init__(self, say: Say, keys: KeyWatch) -> None:
        self.say = say
        self.keys = keys
        self.undoable: dict[str, None] = {}
        """Finished operations with an undo, in the order in which they finished."""
        self.rollback: RollbackStarted | None = None
        self.begun: list[str] = []
        """What the rollback began to undo, in order."""

    def see(self, record: AnyRecord) -> None:
        """Take one more record."""
        match record:
            case StepSucceeded(key=key, undo=True) | StepFailed(key=key, undo=True) | Recorded(key=key, undo=True):
                self.undoable.pop(key, None)
                self.undoable[key] = None
            case RollbackStarted():
                if self.rollback is not None:
                    self.say("P6", "", "the rollback began twice")
                self.rollback, self.begun = record, []
            case Reopened():
                self.rollback = None
            case StepStarted(key=key) | ScopeStarted(key=key) | WaitStarted(key=key) if self.rollback is not None:
                if not key.startswith(UNDO):
                    self.say("P6", key, f"{type(record).__name__} of the handler after the rollback had begun")
                elif isinstance(record, StepStarted) and record.attempt == 1:
                    self._in_turn(key.removeprefix(UNDO))
            case RunSucceeded() | RunFailed() | RunCancelled() | RunTimedOut():
                self._end(record)
            case _:
                pass

    def _in_turn(self, key: str) -> None:
        order = list(self.undoable)
        last = self.begun[-1] if self.begun else None
        if key not in order:
            self.say("P6", UNDO + key, "it undoes what has not finished or has no undo")
            return
        if last is not None and order.index(key) > order.index(last) and not self._side_by_side(key, last):
            self.say("P6", UNDO + key, f"it was undone after {last}, which had finished before it")
        self.begun.append(key)

    def _side_by_side(self, key: str, other: str) -> bool:
        """Steps of two branches of one batch: which finished last is chance, and a door may undo them in its order."""
        parent = parent_of(key)
        batch = self.keys.ops.get(parent)
        return batch is not None and batch.kind == "map" and parent == parent_of(other)

    def _end(self, end: RunEnd) -> None:
        if self.rollback is not None and OUTCOMES[type(end)] != self.rollback.outcome:
            self.say("P6", "", f"a rollback towards {self.rollback.outcome} ended in {type(end).__name__}")
        if isinstance(end, RunSucceeded):
            return
        told = _told(end.error)
        for key in self.undoable:
            op, undo = self.keys.ops.get(key), self.keys.ops.get(UNDO + key)
            if op is None or op.status not in ("succeeded", "failed"):
                continue
            if undo is None or not undo.ended:
                state = "was never begun" if undo is None else f"is {undo.status}"
                self.say("P6", key, f"the run ended in {type(end).__name__}, but the undo {state}")
            elif undo.status == "failed" and not re.search(rf"(?<![\w/]){re.escape(key)}(?![\w/])", told):
                self.say("P6", key, "its undo failed, and the run's end does not say so")


def _told(error: ErrorRecord | None) -> str:
    """What the end says of the rollback; its causes are the run's own error."""
    return error.message if error is not None and error.type == "RollbackFailed" else ""
