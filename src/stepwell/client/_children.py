"""Runs that other runs invoke: started once, driven here where their function is known."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from stepwell.client._functions import names_of, target_of
from stepwell.client._outcome import state_of
from stepwell.core import US, InvokeFailed, InvokeSucceeded, RunSucceeded
from stepwell.durable._program import DurableProgram
from stepwell.errors import InvokeError
from stepwell.journal import NewRun, RunExists
from stepwell.runtime import CANCEL, encode_cancel
from stepwell.runtime._outside import ended_error
from stepwell.runtime._run_journal import Place
from stepwell.runtime._values import text_of
from stepwell.serde import capture

if TYPE_CHECKING:
    from stepwell.client._engine import Engine
    from stepwell.core import AnyRecord, Op
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import RunRow
    from stepwell.runtime import Life

DEEPEST = 100
"""Runs that may stand above one another, each invoked by the one before."""


class Children:
    """`stepwell.runtime.Children` of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, function: DurableFunction) -> None:
        """Make a function known."""
        self._engine.functions.add(function)

    def start(self, life: Life, op: Op) -> AnyRecord | None:
        """See to it that the child is on record and driven; see `stepwell.runtime._api.Children`."""
        engine, now = self._engine, life.store.now()
        assert op.child is not None
        assert op.function is not None
        row = engine.store.run_get(op.child)
        if row is None:
            refused = self._begin(life, op)
            if refused is not None:
                return InvokeFailed(now, op.key, capture(refused))
            row = engine.store.run_get(op.child)
        if row is None:
            return None  # it has been taken away already: its end waits in the inbox
        if row.parent != life.run.id:
            message = f"run {row.id} is on record already, of {row.function}, and not started by {life.run.id}"
            return InvokeFailed(now, op.key, capture(InvokeError(message, "DuplicateRun")))
        if op.kind == "start":
            return InvokeSucceeded(now, op.key, None)
        if row.ended_at is not None:
            return self._end(op, row, now)
        function = engine.functions.invokable(op.function)
        if function is not None and row.id not in engine.host.lives:
            self._drive(life, op, function, None)
        return None

    def _begin(self, life: Life, op: Op) -> InvokeError | None:
        engine, host = self._engine, self._engine.host
        started = life.run.started
        depth = 1 + (0 if started is None else started.depth)
        if depth > DEEPEST:
            return InvokeError(f"runs invoke each other {DEEPEST} deep; '{op.function}' was not started")
        name = str(op.function)
        function = engine.functions.invokable(name)
        queue = None if function is not None else self._queue_of(name)
        if function is None and queue is None:
            return InvokeError(f"function '{name}' is not registered", "FunctionNotRegistered")
        text = text_of(life, op.payload, op.key)
        new = self._new(life, op, function, queue, text)
        told = () if life.watch is None else life.watch.metadata(op)
        place = Place(op.key if op.kind == "invoke" else None, op.tenant, depth, told)
        try:
            if function is None:
                host.begin_pending(new, text, place=place)
            else:
                child = host.begin(new, DurableProgram(function, new.function), text, place=place)
                self._drive(life, op, function, child)
        except RunExists:
            pass  # of an earlier life; the caller looks at it
        return None

    def _drive(self, life: Life, op: Op, function: DurableFunction, child: Life | None) -> None:
        """Drive the child; of an invoke, when its parent waits for it."""
        run_id = str(op.child)
        if op.kind == "invoke":
            life.outside.later(lambda: self._engine.drive.keep(function, run_id, child))
        else:
            self._engine.drive.keep(function, run_id, child)

    def _new(self, life: Life, op: Op, function: DurableFunction | None, queue: str | None, text: str) -> NewRun:
        at = life.store.now()
        timeout = None if function is None else function.timeout
        return NewRun(
            str(op.child),
            str(op.function) if function is None else function.name,
            "durable",
            blake2b(text.encode(), digest_size=16).digest(),
            at,
            queue or (function.queue if function is not None else "default"),
            () if function is None else function.tags,
            None if function is None else target_of(function),
            life.run.id,
            None if timeout is None else at + round(timeout * US),
            function is not None,
            self._engine.host.lease,
        )

    def _queue_of(self, name: str) -> str | None:
        """A queue served by a living worker that knows the function; None: there is none."""
        store = self._engine.store
        silent = store.worker_silence()
        for worker in store.worker_list():
            if silent.get(worker.id, 0.0) != float("inf") and worker.queues and _names(worker.functions, name):
                return worker.queues[0]
        return None

    def _end(self, op: Op, row: RunRow, now: int) -> AnyRecord:
        end = state_of(self._engine.store, row).end
        if isinstance(end, RunSucceeded):
            return InvokeSucceeded(now, op.key, end.payload)
        assert end is not None
        return InvokeFailed(now, op.key, ended_error(end, row.id), str(row.status))

    def cancel(self, run_id: str) -> None:
        """Ask for the end of a child; nothing if it has ended."""
        host = self._engine.host
        with host.writer.exclusive():
            reason = "the run that invoked it has ended without it"
            told = host.store.fact_deliver(run_id, CANCEL, host.store.now(), encode_cancel(reason, None))
        if told:
            host.store.poke()
            if (life := host.lives.get(run_id)) is not None:
                host.take_inbox(life)


def _names(functions: tuple[str, ...], name: str) -> bool:
    return any(candidate in functions for candidate in names_of(name))
