"""Observers: they read what is committed, in the order of commits, and change nothing.

A life that has no observer has no `Watch`, and pays for nothing. Else each batch is put into the watch's queue where it
is folded, under the writer's mutex; hooks are called later, by the threads that drive the run and without any lock:
whatever a hook waits for can go on.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import msgspec

from stepwell.core import AnyRecord, Op, Reopened, RunStarted, fold, parent_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from stepwell.core import RunState
    from stepwell.runtime._life import Life
    from stepwell.runtime._live import Ending
    from stepwell.runtime._scope import Scope

Outcome = Literal["succeeded", "failed", "incomplete"]
LONGEST_HOLD = 1.0
"""Seconds that a branch waits for the hooks of what it has done while another branch is calling hooks. A hook may wait
for something that only this branch can bring about; then order and completeness stay, and only the branch goes on."""


class Change(msgspec.Struct, frozen=True):
    """One record, the operation as it left it, and the one around that (copies; None for records about the run)."""

    record: AnyRecord
    op: Op | None = None
    parent: Op | None = None


class Committed(msgspec.Struct, frozen=True):
    """Records of one run that are durable now."""

    run_id: str
    function: str
    epoch: int
    """The life that wrote them, from 1."""
    ends: int
    """How often the run had ended before these records."""
    began_at: int
    """When it was put on record, or was last reopened."""
    started: RunStarted | None
    changes: tuple[Change, ...]

    @property
    def records(self) -> tuple[AnyRecord, ...]:
        """The records alone."""
        return tuple(change.record for change in self.changes)


class BodyView(msgspec.Struct, frozen=True):
    """A function of the user's that an operation is about to call."""

    life: Life
    key: str
    attempt: int
    """0 for scopes."""
    again: bool
    """It belongs to a finished scope, and its value is made again."""


class Observer:
    """What may be told of the lives of runs; every method does nothing here. Private until 1.0.

    Exceptions are logged once per observer and method. Threads of one run call one after the other, except
    ``on_body_…``, which are called on the thread (or in the task) of the body.
    """

    eager = False
    """Each record is to be committed by itself, and starts before their bodies: as plugins need it."""

    def on_life_start(self, life: Life, news: tuple[Change, ...]) -> None:
        """A life of a run begins; ``news``: what came from outside since the last one."""

    def on_commit(self, committed: Committed) -> None:
        """Records are durable."""

    def on_replay(self, life: Life, op: Op) -> None:
        """Code asks for an operation that an earlier life began and that is still open; ``op``: as it was then."""

    def on_body_start(self, body: BodyView) -> Any:
        """A body begins. What is returned is given to ``on_body_end``."""

    def on_body_end(self, body: BodyView, outcome: Outcome, error: BaseException | None, token: Any) -> None:
        """The body was left."""

    def metadata(self, life: Life, op: Op) -> Mapping[str, str]:
        """What the observers of the run that this operation starts are to be told; recorded with its start."""
        return {}

    def on_life_end(self, life: Life, ending: Ending) -> None:
        """The life has ended: parked, ended, or given up."""


class Watch:
    """The observers of one life."""

    def __init__(self, life: Life, observers: Sequence[Observer]) -> None:
        self._life = life
        self._observers = tuple(observers)
        self.eager = any(observer.eager for observer in observers)
        self._queue: deque[Committed] = deque()
        self._turn = threading.Condition(threading.Lock())
        self._queued = self._delivered = 0
        self._deliverer: int | None = None
        self._begun = False
        self._unseen = self._open()
        """Operations that were open when the life began and that its code has not asked for yet, as they were then."""
        self._news = 0
        """Batches of the queue that are older than the life."""

    def _open(self) -> dict[str, Op]:
        return {op.key: copied(op) for op in self._life.run.ops.values() if op.status in ("started", "planned")}

    # -- under the writer's mutex

    def fold(self, records: Sequence[AnyRecord]) -> None:
        """Fold records into the run's state, one by one, and keep how each left its operation."""
        run, changes = self._life.run, []
        ends = run.ends
        try:
            for record in records:
                fold(run, record)
                op = run.ops.get(getattr(record, "key", None))  # type: ignore[arg-type]
                changes.append(Change(record) if op is None else Change(record, copied(op), around(run, op.key)))
        finally:
            self._put(changes, ends)

    def put(self, records: Sequence[AnyRecord]) -> None:
        """Records about the run that are folded already: those of a claim."""
        self._put([Change(record) for record in records], self._life.run.ends)

    def _put(self, changes: Sequence[Change], ends: int) -> None:
        life, run = self._life, self._life.run
        if changes:
            committed = Committed(
                run.id, life.program.name, life.lease.epoch, ends, began_at(run), run.started, tuple(changes)
            )
            with self._turn:
                self._queue.append(committed)
                self._queued += 1

    # -- by the threads that drive the run

    def begin(self) -> None:
        """The life begins on this thread."""
        with self._turn:
            queued = list(self._queue)
            self._news = len(queued)
        changes = [change for committed in queued for change in committed.changes]
        if any(isinstance(change.record, Reopened) for change in changes):
            self._unseen = self._open()  # who reopened the run may have settled what was open
        news = tuple(change for change in changes if change.op is not None)
        for change in news:
            if change.op is not None and change.op.ended:
                self._unseen.pop(change.op.key, None)
        for observer in self._observers:
            self._tell(observer, "on_life_start", self._life, news)
        self._begun = True
        self.deliver()

    def end(self, ending: Ending) -> None:
        """The life has ended: tell what has not been told, then that."""
        if not self._begun:
            self.begin()
        self.deliver()
        for observer in self._observers:
            self._tell(observer, "on_life_end", self._life, ending)

    def replayed(self, key: str) -> None:
        """Code asks for an operation."""
        if key in self._unseen:
            self.deliver()
            self._replayed(key)

    def _replayed(self, key: str) -> None:
        op = self._unseen.pop(key, None)
        if op is not None:
            for observer in self._observers:
                self._tell(observer, "on_replay", self._life, op)

    def deliver(self) -> None:
        """Call the hooks of all that is committed; on return they have been called (but see `LONGEST_HOLD`)."""
        if self._delivered == self._queued or not self._begun:
            return
        me = threading.get_ident()
        turn = self._turn
        with turn:
            mark = self._queued
            if self._deliverer == me:
                return  # a hook does engine work: what it commits has its turn later
            turn.wait_for(lambda: self._deliverer is None or self._delivered >= mark, LONGEST_HOLD)
            if self._deliverer is not None or self._delivered >= mark:
                return
            self._deliverer = me
        try:
            while (committed := self._next()) is not None:
                self._announce(committed)
                for observer in self._observers:
                    self._tell(observer, "on_commit", committed)
        finally:
            with turn:
                if self._deliverer == me:
                    self._deliverer = None
                turn.notify_all()

    def _announce(self, committed: Committed) -> None:
        """What ends before its code has asked for it (a branch that is let go of) has been open until now."""
        if self._news:
            self._news -= 1
        elif self._unseen:
            for change in committed.changes:
                if change.op is not None:
                    self._replayed(change.op.key)

    def _next(self) -> Committed | None:
        """The next batch; with None this thread is the deliverer no more, in one step with finding nothing."""
        with self._turn:
            self._delivered = self._queued - len(self._queue)
            self._turn.notify_all()
            if not self._queue:
                self._deliverer = None
                return None
            return self._queue.popleft()

    def metadata(self, op: Op) -> tuple[tuple[str, str], ...]:
        """What the observers of the run that an operation is about to start are told; secrets masked."""
        self.deliver()
        found: dict[str, str] = {}
        for observer in self._observers:
            told = self._tell(observer, "metadata", self._life, copied(op)) or {}
            found |= {str(name): str(text) for name, text in told.items()}
        masked: dict[str, str] = self._life.redactor.redact_value(found)
        return tuple(masked.items())

    def body(self, scope: Scope, key: str, attempt: int = 0) -> Body:
        """``with watch.body(...):`` around the call of a body, on its thread."""
        op = self._life.run.ops.get(key)
        again = attempt == 0 and op is not None and op.status == "succeeded"
        return Body(self._observers, self._tell, BodyView(self._life, key, attempt, again))

    def _tell(self, observer: Observer, method: str, *args: Any) -> Any:
        try:
            return getattr(observer, method)(*args)
        except Exception as error:
            complain_once(observer, method, error)
            return None


class Body:
    """One call of a body, watched."""

    def __init__(self, observers: Sequence[Observer], tell: Callable[..., Any], view: BodyView) -> None:
        self._observers = observers
        self._tell = tell
        self._view = view
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        self._tokens = [self._tell(observer, "on_body_start", self._view) for observer in self._observers]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        outcome = "succeeded" if error is None else "failed" if isinstance(error, Exception) else "incomplete"
        for observer, token in zip(reversed(self._observers), reversed(self._tokens), strict=True):
            self._tell(observer, "on_body_end", self._view, outcome, error, token)


_complained: WeakKeyDictionary[type, set[str]] = WeakKeyDictionary()


def complain_once(about: object, method: str, error: Exception) -> None:
    """Log what a hook raised, the first time that this hook of this class raises in this process."""
    methods = _complained.setdefault(type(about), set())
    if method in methods:
        return
    methods.add(method)
    import logging

    name = type(about).__qualname__
    logging.getLogger("stepwell").error("%s.%s raised: its errors change nothing", name, method, exc_info=error)


def began_at(run: RunState) -> int:
    """When the run was put on record, or was last reopened."""
    return run.reopened_at or (0 if run.started is None else run.started.at)


def around(run: RunState, key: str) -> Op | None:
    """The nearest operation around this one that is on record."""
    parent = parent_of(key)
    while parent:
        if (op := run.ops.get(parent)) is not None:
            return copied(op)
        parent = parent_of(parent)
    return None


def copied(op: Op) -> Op:
    """The operation as it is now."""
    copy = Op.__new__(Op)
    copy.__dict__.update(op.__dict__)
    return copy
