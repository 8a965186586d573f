"""P1, P3, P5, P6 and P7 as functions over any journal, for simulator, killing tests, conformance suite and `doctor`.

P2 and P4 compare a journal with what stands outside it: they are the business of whoever can see both.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from stepwell.client._slim import fold_slim
from stepwell.core import (
    AnyRecord,
    LifeLost,
    LifeStarted,
    Parked,
    Reopened,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunState,
    RunSucceeded,
    RunTimedOut,
    encode_records,
)
from stepwell.errors import Corrupt
from stepwell.testing._invariants_keys import OUTCOMES, KeyWatch, RollbackWatch, Rule, RunEnd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stepwell.journal import EndStatus, HotRow, Note

Row = tuple[int, int, "Sequence[AnyRecord]"]
"""One row of a journal: seq, epoch, records."""


class Violation(msgspec.Struct, frozen=True):
    """One promise that one journal breaks.

    ``rule`` is the promise, or ``attempts`` (numbers and starts of attempts), ``waits`` (nothing before its time),
    ``scopes`` (nothing inside what has ended), ``ends`` (nothing after the end), ``order`` (a journal that no run can
    have); whoever holds a journal against something else may add names. ``key`` is "" where it is about the run itself.
    """

    rule: str
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.key or 'run'}: {self.message}"


def check_run(
    rows: Iterable[Row],
    *,
    open: bool,
    hot: HotRow | None = None,
    status: EndStatus | None = None,
    alive: bool | None = None,
) -> list[Violation]:
    """Hold one run's whole journal to the promises.

    Args:
        rows: all of it, in order of seq. Gone through twice; a long journal need not be in memory where it can be.
        open: the run has not ended.
        hot: an open run's hot row, if it is to be held against the journal.
        status: an ended run's status in the catalogue, likewise.
        alive: whether the run's holder lives; None if nobody knows.
    """
    watch = _Watch()
    again = list(rows) if isinstance(rows, Iterator) else rows
    for seq, epoch, records in again:
        watch.row(seq, epoch, records)
    watch.last(open=open, status=status)
    if open and hot is not None:
        watch.held(hot, alive=alive)
    found = watch.found
    if not found:
        watch.keys.ops.clear()  # what is known of 100,000 operations is not needed beside what they fold to
        found += _folds(again)
    return found


def find_text(
    rows: Iterable[Row], notes: Iterable[Note], needle: str, others: Mapping[str, str | bytes] | None = None
) -> list[Violation]:
    """Every place of a journal in which a secret can be read (P7): as it is, or as JSON, base64 or a URL writes it.

    ``others`` are further texts by name: blobs, log files, pages. No message repeats the secret.
    """
    forms = {needle, json.dumps(needle)[1:-1], json.dumps(needle, ensure_ascii=False)[1:-1], quote(needle, safe="")}
    wanted = [form.encode("utf-8", "surrogatepass") for form in forms] + [base64.b64encode(needle.encode())]
    found = []
    for place, text in _places(rows, notes, others or {}):
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if any(form in data for form in wanted):
            found.append(Violation("P7", "", f"a secret can be read in {place}"))
    return found


def _places(
    rows: Iterable[Row], notes: Iterable[Note], others: Mapping[str, str | bytes]
) -> Iterator[tuple[str, str | bytes]]:
    for seq, _, records in rows:
        for record in records:
            yield f"row {seq}, {type(record).__name__} {getattr(record, 'key', '')}".rstrip(), encode_records([record])
    for note in notes:
        yield f"a {note.kind} note of {note.key or 'the run'}", f"{note.key}\n{note.data}"
    yield from others.items()


def _folds(rows: Iterable[Row]) -> Iterator[Violation]:
    """What no rule here objects to, the engine can read: else one of the two is wrong."""
    run = RunState("checked")
    try:
        for _, _, records in rows:
            for record in records:
                fold_slim(run, record)
    except Corrupt as error:
        yield Violation("order", "", str(error))


class _Watch:
    """One pass over a journal."""

    def __init__(self) -> None:
        self.found: list[Violation] = []
        self.keys = KeyWatch(self.say)
        self.rollback = RollbackWatch(self.say, self.keys)
        self.seq = 0
        self.epoch = 0
        self.life: int | None = None
        """Epoch of the life in force; None before the first."""
        self.lost = False
        self.end: RunEnd | None = None
        self.blocked: RunBlocked | None = None
        self.parked: Parked | None = None

    def say(self, rule: Rule, key: str, message: str) -> None:
        """Note one violation."""
        self.found.append(Violation(rule, key, message))

    # -- rows and lives

    def row(self, seq: int, epoch: int, records: Sequence[AnyRecord]) -> None:
        """Take one more row."""
        if seq != self.seq + 1:
            self.say("order", "", f"row {seq} follows row {self.seq}")
        if epoch < self.epoch:
            self.say("P3", "", f"row {seq} was written by life {epoch} after life {self.epoch} had begun")
        if seq == 1 and not (records and isinstance(records[0], RunStarted)):
            self.say("order", "", "the journal does not begin with the run's start")
        self.seq, self.epoch = seq, max(self.epoch, epoch)
        begins = any(isinstance(record, LifeStarted) for record in records)
        if not begins and self.life is not None and epoch != self.life:
            self.say("P3", "", f"row {seq} was written by life {epoch}, but life {self.life} is in force")
        if not begins and self.life is None and seq > 1:
            self.say("P3", "", f"row {seq} was written before any life had begun")
        for position, record in enumerate(records):
            self._life(seq, epoch, position, record)
            self._after(record)
            self.keys.see(record)
            self.rollback.see(record)

    def _life(self, seq: int, epoch: int, position: int, record: AnyRecord) -> None:
        match record:
            case RunStarted() if (seq, position) != (1, 0):
                self.say("order", "", f"row {seq} starts the run again")
            case LifeStarted(epoch=begun):
                if begun != epoch:
                    self.say("P3", "", f"life {begun} begins in a row of life {epoch}")
                if self.life is not None and begun <= self.life:
                    self.say("P3", "", f"life {begun} begins although life {self.life} has begun")
                self.life, self.lost, self.parked, self.blocked = begun, False, None, None
            case LifeLost(epoch=lost):
                if lost != self.life:
                    self.say("P3", "", f"life {lost} is said to be lost, but life {self.life} was in force")
                self.lost = True
            case _ if self.lost and not isinstance(record, Reopened):
                self.say("P3", getattr(record, "key", ""), f"{type(record).__name__} of a life that was lost")
            case Parked():
                self.parked = record
            case _:
                pass

    # -- ends

    def _after(self, record: AnyRecord) -> None:
        key = getattr(record, "key", "")
        if self.end is not None and not isinstance(record, Reopened):
            self.say("ends", key, f"{type(record).__name__} after {type(self.end).__name__}")
        if self.blocked is not None and not isinstance(record, Reopened | LifeLost):
            self.say("ends", key, f"{type(record).__name__} of a life that had blocked the run")
        match record:
            case RunBlocked():
                self.blocked = record
            case Reopened():
                self.end = self.blocked = None
            case RunSucceeded() | RunFailed() | RunCancelled() | RunTimedOut():
                self.end = record
            case _:
                pass

    def last(self, *, open: bool, status: EndStatus | None) -> None:
        """After the last row: the journal and the catalogue agree on whether and how the run ended."""
        end = None if self.end is None else OUTCOMES[type(self.end)]
        if open and end is not None:
            self.say("P5", "", f"the run is open, but its journal ends with {type(self.end).__name__}")
        if not open and end is None and status != "continued":
            self.say("P5", "", "the run has ended, but its journal has no end")
        if end is not None and status not in (None, end):
            self.say("P5", "", f"the catalogue calls it {status}, its journal {end}")

    def held(self, hot: HotRow, *, alive: bool | None) -> None:
        """An open run is held, or waits for something, or is visibly waiting for somebody (P5)."""
        status, owned = hot.status, hot.owner is not None
        if status == "running" and not owned:
            self.say("P5", "", "it is called running, but nobody holds it")
        if owned and alive is False:
            self.say("P5", "", f"it is called {status}, but {hot.owner}, who holds it, is gone")
        if status in ("pending", "interrupted", "blocked") and owned:
            self.say("P5", "", f"it is called {status}, but {hot.owner} holds it")
        if status in ("blocked", "rolling_back") and not owned and not hot.reason:
            self.say("P5", "", f"it is {status}, held by nobody, without a reason")
        if (status == "blocked") != (self.blocked is not None):
            said = "says" if self.blocked is not None else "does not say"
            self.say("P5", "", f"it is called {status}, but its journal {said} that it is blocked")
        if status == "waiting":
            self._waits(hot)
        if status == "pending" and self.life is not None and not self.lost:
            self.say("P5", "", f"it is called pending, but life {self.life} has begun")
        if self.life is not None and hot.epoch != self.life:
            self.say("P3", "", f"its hot row is of life {hot.epoch}, its journal of life {self.life}")

    def _waits(self, hot: HotRow) -> None:
        if hot.wake_at is None and not hot.waiting_for:
            self.say("P5", "", "it waits for nothing, without end")
        if self.parked is None:
            self.say("P5", "", "it is called waiting, but its journal does not say that it was parked")
        elif self.parked.until is not None and (hot.wake_at is None or hot.wake_at > self.parked.until):
            late = "never" if hot.wake_at is None else f"{hot.wake_at - self.parked.until} µs too late"
            self.say("P5", "", f"its journal says when it is to wake, but it is woken {late}")
