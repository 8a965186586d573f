"""P1 to P6 as functions over any journal: simulator, killing tests and ``stepwell doctor`` use the same ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stepwell.core import (
    AnyRecord,
    LifeLost,
    LifeStarted,
    Recorded,
    Reopened,
    RollbackStarted,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunState,
    RunSucceeded,
    RunTimedOut,
    ScopeCancelled,
    ScopeFailed,
    ScopeSucceeded,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    WaitEnded,
    WaitStarted,
    fold,
    parent_of,
)
from stepwell.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stepwell.journal import HotRow

UNDO = "undo/"
_ENDS = (RunSucceeded, RunFailed, RunCancelled, RunTimedOut)


class Violation(msgspec.Struct, frozen=True):
    """One promise that one journal breaks. ``rule``: P1 … P6, or ``order`` for a journal that no run can have."""

    rule: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.key or 'run'}: {self.message}"


Row = tuple[int, int, "Sequence[AnyRecord]"]
"""One row of a journal: seq, epoch, records."""


def check_run(rows: Iterable[Row], *, open: bool, hot: HotRow | None = None) -> list[Violation]:
    """Hold one run's journal to the promises. ``open``: it has not ended; ``hot``: then, its hot row."""
    watch = _Watch()
    for seq, epoch, records in rows:
        watch.row(seq, epoch)
        for record in records:
            watch.record(record, epoch)
    watch.end(open=open, hot=hot)
    return watch.found


class _Watch:
    """One pass over a journal."""

    def __init__(self) -> None:
        self.found: list[Violation] = []
        self.run = RunState("checked")
        self.seq = 0
        self.epoch = 0
        self.succeeded: set[str] = set()
        self.attempts: dict[str, int] = {}
        self.closed: set[str] = set()
        self.waits: dict[str, int] = {}
        self.undoable: list[str] = []
        self.undone: list[str] = []
        self.ended: AnyRecord | None = None
        self.sound = True

    def say(self, rule: str, key: str, message: str) -> None:
        self.found.append(Violation(rule, key, message))

    def row(self, seq: int, epoch: int) -> None:
        if seq != self.seq + 1:
            self.say("order", "", f"row {seq} follows row {self.seq}")
        if epoch < self.epoch:
            self.say("P3", "", f"row {seq} was written by life {epoch} after life {self.epoch} had begun")
        self.seq, self.epoch = seq, max(epoch, self.epoch)

    def record(self, record: AnyRecord, epoch: int) -> None:
        if self.ended is not None and not isinstance(record, Reopened | LifeStarted):
            self.say("order", "", f"{type(record).__name__} after the run's end")
        if self.sound:
            try:
                fold(self.run, record)
            except Corrupt as error:
                self.sound = False  # one line, not one for each record that follows
                self.say("order", getattr(record, "key", ""), str(error))
        key = getattr(record, "key", None)
        if isinstance(key, str):
            self.inside(key, record)
        self.look(record, epoch)

    def inside(self, key: str, record: AnyRecord) -> None:
        """Nothing is recorded inside a scope after its end."""
        scope = parent_of(key)
        while scope and not key.startswith(UNDO):
            if scope in self.closed:
                self.say("order", key, f"{type(record).__name__} inside the scope {scope}, which had ended")
                return
            scope = parent_of(scope)

    def look(self, record: AnyRecord, epoch: int) -> None:
        match record:
            case LifeStarted(epoch=begun):
                if begun != epoch:
                    self.say("P3", "", f"life {begun} begins in a row of life {epoch}")
            case StepStarted(key=key, attempt=attempt):
                self.started(key, attempt)
            case StepSucceeded(key=key, undo=undo):
                self.success(key, undo=undo)
            case Recorded(key=key, undo=True):
                self.undoable.append(key)
            case StepFailed(key=key) if key.startswith(UNDO):
                self.undone.append(key.removeprefix(UNDO))
            case ScopeSucceeded(key=key) | ScopeFailed(key=key) | ScopeCancelled(key=key):
                self.closed.add(key)
            case WaitStarted(key=key, until=until):
                self.waits[key] = until
            case WaitEnded(key=key, at=at):
                if at < self.waits.get(key, 0):
                    self.say("order", key, f"the wait ended {self.waits[key] - at} µs early")
            case Reopened():
                self.reopened()
            case RunSucceeded() | RunFailed() | RunCancelled() | RunTimedOut():
                self.ended = record
            case RunStarted() | LifeLost() | RollbackStarted() | RunBlocked() | StepRetryPlanned() | _:
                pass

    def started(self, key: str, attempt: int) -> None:
        if key in self.succeeded:
            self.say("P1", key, f"attempt {attempt} began after the step had succeeded")
        if attempt != self.attempts.get(key, 0) + 1:
            self.say("order", key, f"attempt {attempt} follows attempt {self.attempts.get(key, 0)}")
        self.attempts[key] = attempt

    def success(self, key: str, *, undo: bool) -> None:
        if key in self.succeeded:
            self.say("P1", key, "it succeeded twice")
        self.succeeded.add(key)
        if key.startswith(UNDO):
            self.undone.append(key.removeprefix(UNDO))
        if undo:
            self.undoable.append(key)

    def reopened(self) -> None:
        self.ended = None
        self.succeeded = {key for key, op in self.run.ops.items() if op.status == "succeeded"}
        self.closed = {key for key in self.closed if key in self.run.ops and self.run.ops[key].ended}

    def end(self, *, open: bool, hot: HotRow | None) -> None:
        if open and self.ended is not None:
            self.say("P5", "", "the run is open, but its journal has an end")
        if not open and self.ended is None:
            self.say("P5", "", "the run has ended, but its journal has no end")
        if open and hot is not None and hot.status in ("running", "rolling_back") and hot.owner is None:
            self.say("P5", "", f"it is called {hot.status}, but nobody holds it")
        if open and hot is not None and hot.status == "blocked" and not hot.reason:
            self.say("P5", "", "it is blocked without a reason")
        if isinstance(self.ended, RunFailed | RunCancelled | RunTimedOut):
            self.undo()

    def undo(self) -> None:
        """Every finished reversible step was undone or its undo has failed, last first."""
        for key in self.undoable:
            op = self.run.ops.get(key)
            if op is not None and op.status == "succeeded" and key not in self.undone:
                self.say("P6", key, "the run has ended without its undo")
        order = [key for key in reversed(self.undoable) if key in self.undone]
        if not self.run.reopened and [key for key in self.undone if key in order] != order:
            self.say("P6", "", f"undone in the order {self.undone}, not {order}")
