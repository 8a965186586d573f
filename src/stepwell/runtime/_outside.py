"""What a life and the world outside of it have to do with each other: facts that come in, waits that they end.

All that comes from outside passes `Outside.admit`, under the life's lock, where it is queued as a record: that is where
a second answer, a late one, and a fact that was read twice are dropped. The engine's own ends of such operations
(time-outs) are claimed in the same place, so that no operation ever gets two ends.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from stepwell.core import (
    AnyRecord,
    CallbackBeat,
    CallbackCreated,
    CallbackFailed,
    CallbackSucceeded,
    CancelRequested,
    InvokeFailed,
    InvokeStarted,
    InvokeSucceeded,
    OperationCancelled,
    Parked,
    RunCancelled,
    RunSucceeded,
    ScopeCancelled,
    ScopeFailed,
    ScopeSucceeded,
    SignalReceived,
    SignalTaken,
    topic_of_signal,
)
from stepwell.errors import ErrorRecord
from stepwell.journal import RUN_DOOR, DoorRow, Outgoing, Park, Unpark
from stepwell.runtime._inbox import (
    CANCEL,
    CHILD,
    ChildFact,
    blobs_of,
    decode_fact,
    encode_cancel,
    encode_fact,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepwell.core import Await, Wanted
    from stepwell.journal import Fact, HotChange, Ticket
    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Branch
    from stepwell.runtime._wait import Wait

CALLBACK = "callback"
"""Kind of the rows by which callbacks are found from outside."""
LEFT = (ScopeSucceeded, ScopeFailed, ScopeCancelled, OperationCancelled)
"""Records after which nothing inside of an operation goes on."""


class CallbackRow(msgspec.Struct, frozen=True, array_like=True):
    """A callback as the outside finds it. ``status``: STARTED, SUCCEEDED, FAILED, TIMED_OUT or CANCELLED."""

    status: str
    key: str
    name: str | None = None
    sub_type: str | None = None
    form: str | None = None


def row_place(callback_id: str, run_id: str) -> str:
    """Key of a callback's row: the run, and the part of the id that nobody can guess (the whole may be long)."""
    return f"{run_id}/{callback_id.rpartition('.')[2]}"


class Outside:
    """See the module. Its methods say whether they are called under the life's lock."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self.cancel_seen = life.run.cancel is not None
        self._claimed: set[str] = set()
        """Keys of operations whose end is queued."""
        self._doubtful: set[str] = set()
        """Those of them whose end is a compare-and-set that may come to nothing."""
        self._under_way: dict[Ticket, int] = {}
        """Batches that move facts out of the inbox, until they are folded: how many facts had come by then. The lease
        knows of facts only when they are folded: whoever parks must find them on record or be refused.
        """
        self._opening: dict[str, CallbackCreated | InvokeStarted] = {}
        """What has its start queued and not folded yet: it, too, ends with the branch that it stands in."""
        self._given: dict[str, int] = {}
        """How many signals are given away or about to be, by name."""
        self._newest = 0
        """Number of the newest fact that was queued as a record."""
        self._later: list[Callable[[], None]] = []
        """What is done once the operation at hand waits: an invoked run is driven from then on, so that it does not end
        before whoever invoked it has parked, and journals do not depend on which thread was quicker.
        """
        self._topics: dict[str, dict[Wait, None]] = {}

    # -- facts

    def read(self) -> tuple[list[Fact], int]:
        """The facts that lie in the inbox, and how many have come so far."""
        life = self._life
        rid = life.lease.rid
        with life.own_store():
            hot = life.store.hot_get(life.run.id)
            if rid is None or hot is None:
                return [], life.lease.inbox
            return life.store.inbox_load(rid), hot.inbox

    def admit(self, facts: Sequence[Fact]) -> tuple[tuple[AnyRecord, ...], tuple[int, ...]]:
        """The records to queue for these facts, and the numbers of those that are dealt with. Under ``lock``, where the
        batch is queued: a cancel that is read and then not queued has not been seen, or it would be lost. A fact about
        an operation that is just being ended otherwise stays where it is, and what came after it: that end fails if the
        fact was there before it.
        """
        records: list[AnyRecord] = []
        taken: list[int] = []
        for fact in facts:
            if fact.n > self._newest:
                record = decode_fact(fact, self._life.redactor)
                if getattr(record, "key", None) in self._doubtful:
                    break
                self._newest = fact.n
                if self._is_news(record, fact):
                    records.append(record)
                    if blobs := blobs_of(record):
                        self._life.line.ride((), (), blobs)
            taken.append(fact.n)
        return tuple(records), tuple(taken)

    def _is_news(self, record: AnyRecord, fact: Fact) -> bool:
        match record:
            case CancelRequested():
                seen, self.cancel_seen = self.cancel_seen, True
                return not seen
            case CallbackBeat(key=key):
                return self._is_open(key)
            case CallbackSucceeded(key=key) | CallbackFailed(key=key):
                return self._claim(key)
            case InvokeSucceeded(key=key) | InvokeFailed(key=key):
                op = self._life.run.ops.get(key)
                child = msgspec.msgpack.decode(fact.data, type=ChildFact).child
                return op is not None and op.child == child and self._claim(key)
            case _:
                return True

    def _is_open(self, key: str) -> bool:
        op = self._life.run.ops.get(key)
        return op is not None and op.status == "started" and key not in self._claimed

    def _claim(self, key: str) -> bool:
        """Whether the caller may end this operation. Under ``lock``."""
        if not self._is_open(key):
            return False
        self._claimed.add(key)
        return True

    def inbox_ticket(self) -> Ticket | None:
        """Something has come into the inbox: the batch that moves it into the run's records; None if nothing is new.

        Raises:
            LifeOver: the life may write no more.
        """
        life = self._life
        facts, seen = self.read()
        with life.lock:
            life.writable(None, ())
            records, taken = self.admit(facts)
            if not taken:
                if not facts and not self._under_way:
                    life.lease.inbox = max(seen, life.lease.inbox)
                return None
            ticket = life.line.enqueue(records, life.unparked(), inbox_taken=taken)
            self._under_way[ticket] = seen if len(taken) == len(facts) else 0
            return ticket

    def repark(self, ticket: Ticket) -> Ticket:
        """The same batch after `InboxChanged`: without `Parked` if the frames stay, else with what the inbox held."""
        life, batch = self._life, ticket.batch
        kept = tuple(record for record in batch.records if type(record) is not Parked)
        assert type(batch.change) is Park
        facts, seen = self.read()
        life.line.ride((), batch.notes, batch.blobs)
        with life.lock:
            records, taken = self.admit(facts)
            if not batch.change.release:
                life.unpark()
                ticket = life.line.enqueue((*kept, *records), inbox_taken=taken)
                self._under_way[ticket] = seen if len(taken) == len(facts) else 0
                return ticket
            # What another thread took out of the inbox is folded by now: its branch was woken, or is about to be.
            cancelled = life.run.cancel is not None and not life.rolling_back
            ready = bool(records) or bool(life.busy) or cancelled or any(wait.is_ready() for wait in life.waits)
            wake = batch.change.wake_at
            if ready:  # at once, and never later than it would have been
                now = life.store.now()
                wake = now if wake is None else min(now, wake)
            parked = tuple(
                msgspec.structs.replace(record, until=wake) for record in batch.records if type(record) is Parked
            )
            change = Park(wake, batch.change.waiting_for, seen, True)
            life.parking = life.line.enqueue((*kept, *records, *parked), change, inbox_taken=taken)
            return life.parking

    # -- ends and beginnings of the run's own

    def open_ticket(self, branch: Branch, record: CallbackCreated | InvokeStarted) -> Ticket:
        """The batch of a callback or an invoke that begins: from its commit on a callback can be answered."""
        life = self._life
        rows: tuple[DoorRow, ...] = ()
        if isinstance(record, CallbackCreated):
            row = CallbackRow("STARTED", record.key, record.name, record.sub_type, record.form)
            rows = (self._row(record.callback_id, row),)
        with life.lock:
            life.writable(branch, (record,))
            self._opening[record.key] = record
            return life.line.enqueue((record,), life.unparked(), rows=rows)

    def opened(self, key: str) -> None:
        """Its start is folded, or was refused."""
        with self._life.lock:
            self._opening.pop(key, None)

    def _row(self, callback_id: str, row: CallbackRow) -> DoorRow:
        return DoorRow(RUN_DOOR, CALLBACK, row_place(callback_id, self._life.run.id), encode_fact(row))

    def end_ticket(self, branch: Branch, want: Wanted, record: AnyRecord) -> Ticket | None:
        """The batch of an end without an answer; None if an answer is on its way. It is `InboxChanged` if one has come
        that is not read yet: then `unclaim`.
        """
        life = self._life
        with life.lock:
            life.writable(branch, (record,))
            if want.kind != "signal":
                if not self._claim(want.key):
                    return None
                self._doubtful.add(want.key)
            life.unpark()
            status: Literal["running", "rolling_back"] = "rolling_back" if life.rolling_back else "running"
            life.unparked()
            if life.line.riding:
                life.line.enqueue()  # what rides is written whatever becomes of this batch
            rows = self.closing_rows(want.key, "TIMED_OUT")
            late = isinstance(record, InvokeFailed) and record.how == "timed_out"
            facts = self._cancelling(want.key, "the run that invoked it waited for it no longer") if late else ()
            return life.line.enqueue((record,), Unpark(status, life.lease.inbox), rows=rows, facts=facts)

    def closing_rows(self, key: str, status: str) -> tuple[DoorRow, ...]:
        """What the outside is told of a callback that ends without an answer."""
        op = self._life.run.ops.get(key)
        if op is None or op.callback_id is None:
            return ()
        return (self._row(op.callback_id, CallbackRow(status, key, op.name, op.sub_type, op.form)),)

    def unclaim(self, key: str) -> None:
        """The end was not written."""
        with self._life.lock:
            self._claimed.discard(key)
            self._doubtful.discard(key)

    def ended(self, key: str) -> None:
        """The end is on record."""
        with self._life.lock:
            self._doubtful.discard(key)

    def signal_ticket(self, branch: Branch, want: Wanted, signal: str) -> Ticket | None:
        """The batch that gives the next signal to this operation; None if there is none."""
        life = self._life
        with life.lock:
            index = max(self._given.get(signal, 0), life.run.taken.get(signal, 0))
            if index >= len(life.run.signals.get(signal, ())):
                return None
            record = SignalTaken(life.store.now(), want.key, signal, index)
            life.writable(branch, (record,))
            self._given[signal] = index + 1
            return life.line.enqueue((record,), life.unparked())

    def signal_is_free(self, signal: str) -> bool:
        """Whether a signal has come that nobody was given, nor is about to be."""
        run = self._life.run
        return len(run.signals.get(signal, ())) > max(self._given.get(signal, 0), run.taken.get(signal, 0))

    def cancel_ticket(self, branch: Branch, record: OperationCancelled) -> Ticket | None:
        """The batch of an operation that user code cancelled: no answer ends it any more. None: one was quicker."""
        with self._life.lock:
            self._life.writable(branch, (record,))
            return self.cancel_locked(record)

    def cancel_locked(self, record: OperationCancelled) -> Ticket | None:
        """The same, under ``lock`` already."""
        if record.key in self._claimed:
            return None
        self._claimed.add(record.key)
        records, rows, facts = self.left((record,))
        return self._life.line.enqueue(records, self._life.unparked(), rows=rows, facts=facts)

    def left(self, records: Sequence[AnyRecord]) -> tuple[Sequence[AnyRecord], list[DoorRow], list[Outgoing]]:
        """The records of a batch, and what the outside is told with it: callbacks and invokes inside of what ends here
        end with it, so that no answer is taken that nobody can ask for, and no child runs on for nobody. Under
        ``lock``.
        """
        run = self._life.run
        rows: list[DoorRow] = []
        facts: list[Outgoing] = []
        if not (run.outside or self._opening) or not any(isinstance(record, LEFT) for record in records):
            return records, rows, facts
        found: list[AnyRecord] = []
        for record in records:
            if isinstance(record, LEFT):
                inside = f"{record.key}/", f"{record.key}["
                for key in [k for k in run.outside if k.startswith(inside)]:
                    if self._claim(key):
                        found.append(OperationCancelled(record.at, key, run.ops[key].kind))
                        self._part(key, rows, facts)
                for key in [k for k in self._opening if k.startswith(inside) and k not in self._claimed]:
                    self._claimed.add(key)
                    made = self._opening[key]
                    if isinstance(made, CallbackCreated):
                        found.append(OperationCancelled(record.at, key, "callback"))
                        row = CallbackRow("CANCELLED", key, made.name, made.sub_type, made.form)
                        rows.append(self._row(made.callback_id, row))
                    else:
                        found.append(OperationCancelled(record.at, key, made.kind))
                if isinstance(record, OperationCancelled) and record.key in run.outside:
                    self._part(record.key, rows, facts)
            found.append(record)
        return found, rows, facts

    def _part(self, key: str, rows: list[DoorRow], facts: list[Outgoing]) -> None:
        """What is told to whoever would have ended this operation."""
        rows += self.closing_rows(key, "CANCELLED")
        facts += self._cancelling(key, "the run that invoked it goes on without it")

    def _cancelling(self, key: str, reason: str) -> tuple[Outgoing, ...]:
        """What ends the child of this operation."""
        child = self._life.run.ops[key].child
        if child is None:
            return ()
        return (Outgoing(child, CANCEL, self._life.store.now(), encode_cancel(reason, None)),)

    def told_parent(self, record: AnyRecord, change: HotChange | None) -> tuple[Outgoing, ...]:
        """What the run that waits for this one is told with its end."""
        run = self._life.run
        started = run.started
        if started is None or started.parent is None or started.parent_key is None:
            return ()
        how = str(getattr(change, "status", "failed"))
        payload = record.payload if isinstance(record, RunSucceeded) else None
        error = None if isinstance(record, RunSucceeded) else ended_error(record, run.id)
        data = encode_fact(ChildFact(started.parent_key, run.id, how, payload, error))
        return (Outgoing(started.parent, CHILD, record.at, data),)

    # -- waits

    def later(self, act: Callable[[], None]) -> None:
        """Do it once the operation at hand waits; at once where the life has ended, for then nothing will."""
        with self._life.lock:
            if not self._life.ended:
                self._later.append(act)
                return
        act()

    def do_later(self) -> None:
        """The operation waits, or the life has ended."""
        with self._life.lock:
            acts, self._later = self._later, []
        for act in acts:
            act()

    def readiness(self, effect: Await) -> Callable[[], bool]:
        """Whether what is waited for has come; to be asked under ``lock``."""
        return effect.ready if effect.signal is None else partial(self.signal_is_free, effect.signal)

    def watch(self, wait: Wait) -> None:
        """The wait is to be looked at when something with one of its topics comes. Under ``lock``."""
        for topic in wait.topics:
            self._topics.setdefault(topic, {})[wait] = None

    def unwatch(self, wait: Wait) -> None:
        """It is over. Under ``lock``."""
        for topic in wait.topics:
            waits = self._topics.get(topic)
            if waits is not None:
                waits.pop(wait, None)
                if not waits:
                    del self._topics[topic]

    def react(self, ticket: Ticket | None) -> None:
        """What it moved out of the inbox is on record: end the waits that it is for; a cancellation unwinds the
        handler.
        """
        life = self._life
        records: Sequence[AnyRecord] = ()
        if ticket is not None:
            records = ticket.batch.records
            with life.lock:
                life.lease.inbox = max(life.lease.inbox, self._under_way.pop(ticket, 0))
        if life.run.cancel is not None and not life.rolling_back and life.over is None:
            life.unwind("cancelled")
        topics = [topic for record in records if (topic := _topic(record)) is not None]
        if not topics or not self._topics:
            return
        with life.lock:
            woken = [wait for topic in topics for wait in self._topics.get(topic, ()) if wait.is_ready()]
            for wait in woken:
                if wait.resume is not None:
                    wait.resume()
                else:
                    life.wait_end(wait)
        life.wake(woken)


def _topic(record: AnyRecord) -> str | None:
    match record:
        case CallbackBeat(key=key) | CallbackSucceeded(key=key) | CallbackFailed(key=key):
            return key
        case InvokeSucceeded(key=key) | InvokeFailed(key=key):
            return key
        case SignalReceived(name=name):
            return topic_of_signal(name)
        case _:
            return None


def ended_error(record: AnyRecord, run_id: str) -> ErrorRecord:
    """The error of a run that did not succeed, as whoever invoked it gets it."""
    error = getattr(record, "error", None)
    if isinstance(error, ErrorRecord):
        return error
    if isinstance(record, RunCancelled):
        return ErrorRecord("RunCancelled", f"run {run_id} was cancelled: {record.reason or 'no reason given'}")
    return ErrorRecord("RunTimedOut", f"run {run_id} timed out")
