"""`RunHandle`: one run, to wait for, look at, and put right."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any, Literal

from stepwell import serde
from stepwell.client._operations import operations_of
from stepwell.client._outcome import state_of
from stepwell.client._views import shown_status
from stepwell.core import Reopened, decode_records
from stepwell.durable._program import DurableProgram
from stepwell.errors import UsageError
from stepwell.journal import RunFilter
from stepwell.runtime import CANCEL, encode_cancel
from stepwell.runtime._api import LifeOver
from stepwell.serde import to_error_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.client._engine import Engine
    from stepwell.core import RunState
    from stepwell.durable.lambda_service import Operation
    from stepwell.errors import ErrorObject
    from stepwell.journal import RunRow
    from stepwell.runtime import Life

ENDED = frozenset({"succeeded", "failed", "cancelled", "timed_out", "continued"})


class RunHandle:
    """One run on record. ``id`` is its id; everything else is asked of the store when it is called."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        self._engine = engine
        self.id = run_id

    def __repr__(self) -> str:
        return f"<RunHandle {self.id}>"

    @property
    def _row(self) -> RunRow:
        return self._engine.find(self.id)

    @property
    def _run(self) -> RunState:
        return state_of(self._engine.store, self._row)

    @property
    def status(self) -> str:
        """The status that is true now, in the words of ARCHITECTURE.md §7."""
        store = self._engine.store
        return shown_status(self._row, store.worker_silence(), store.now())

    def wait(self, timeout: float | None = None) -> None:
        """Block until the run has ended or is blocked. Raises `TimeoutError` after ``timeout`` seconds."""
        self._engine.drive.wait(self.id, timeout)

    def result(self, timeout: float | None = None) -> Any:
        """The run's value. Raises as `stepwell.run` does, `TimeoutError` after ``timeout`` seconds."""
        return self._engine.drive.watch(self.id, timeout)

    async def wait_async(self, timeout: float | None = None) -> None:
        """As `wait`, for async callers."""
        import asyncio

        await asyncio.to_thread(self.wait, timeout)

    async def result_async(self, timeout: float | None = None) -> Any:
        """As `result`, for async callers."""
        import asyncio

        return await asyncio.to_thread(self.result, timeout)

    @property
    def error(self) -> ErrorObject | None:
        """The error on record of a run that did not succeed."""
        error = getattr(self._run.end, "error", None)
        return None if error is None else to_error_object(error)

    @property
    def operations(self) -> list[Operation]:
        """Top-level operations in call order, results decoded."""
        return operations_of(self._engine.store, self._run)

    def get_step(self, name: str) -> Operation:
        """The first step with this name, anywhere in the run. Raises `LookupError` that lists the names there are."""
        return self._get(name, {"STEP"})

    def get_wait(self, name: str) -> Operation:
        """The first wait with this name. Raises `LookupError`."""
        return self._get(name, {"WAIT"})

    def get_context(self, name: str) -> Operation:
        """The first child context, map, parallel or branch with this name. Raises `LookupError`."""
        return self._get(name, {"CONTEXT"})

    def _get(self, name: str, types: set[str]) -> Operation:
        found = [op for op in _flat(self.operations) if op.operation_type.name in types]
        for op in found:
            if op.name == name:
                return op
        names = ", ".join(sorted({op.name for op in found if op.name})) or "none"
        message = f"run {self.id} has no {'/'.join(types).lower()} called {name!r}; it has: {names}"
        raise LookupError(message)

    def history(self, format: Literal["stepwell"] = "stepwell") -> list[dict[str, Any]]:
        """The run's records in order: ``{seq, epoch, record, ...fields}``."""
        if str(format) != "stepwell":
            message = f"history format {format!r}: there is 'stepwell'"
            raise UsageError(message)
        return list(self._records())

    def _records(self) -> Iterator[dict[str, Any]]:
        import msgspec

        store, row, after = self._engine.store, self._row, 0
        while page := store.record_load(row.rid, after=after, limit=500):
            for entry in page:
                after = entry.seq
                for record in decode_records(entry.data):
                    fields = {f: getattr(record, f) for f in record.__struct_fields__}
                    yield {
                        "seq": entry.seq,
                        "epoch": entry.epoch,
                        "record": type(record).__name__,
                        **msgspec.to_builtins(fields),
                    }

    def logs(self, step: str | None = None) -> list[dict[str, Any]]:
        """Lines that loggers said beside the steps: ``{at, key, level, attempt, text}`` (at: microseconds)."""
        store, row, after, lines = self._engine.store, self._row, 0, []
        while page := store.note_load(row.rid, kind="log", key=None, after=after, limit=500):
            for n, note in page:
                after = n
                if step is None or note.key == step or note.key.endswith("/" + step):
                    level, attempt, text = serde.decode_lenient(note.data)
                    lines.append({"at": note.at, "key": note.key, "level": level, "attempt": attempt, "text": text})
        return lines

    # -- putting right

    def cancel(self, reason: str | None = None) -> None:
        """Ask for the end of the run: its finished steps are undone, then it is ``cancelled``.

        Returns once the request is durable; a live holder sees it within a second. With no holder this process runs
        the undos if it knows the function.

        Raises:
            UsageError: the run has ended.
        """
        row, host = self._row, self._engine.host
        store = host.store
        if row.status in ENDED:
            message = f"run {self.id} has ended: {row.status}"
            raise UsageError(message)
        if reason is not None:
            reason = reason[:500]
        with host.writer.exclusive():
            told = store.fact_deliver(self.id, CANCEL, store.now(), encode_cancel(reason, _user()))
        if not told:
            message = f"run {self.id} has just ended"
            raise UsageError(message)
        store.poke()
        life = host.lives.get(self.id)
        if life is not None:
            host.take_inbox(life)

    def resume(self, *, wait: bool = True, no_wait_parked: bool = False) -> Any:
        """Take the run up here and drive it to its end; also a blocked one. Returns its value."""
        row = self._row
        function = self._engine.function_for(row)
        if function is None:
            message = f"run {self.id} is a run of {row.function}, which this process does not know; give its file"
            raise UsageError(message)
        drive = self._engine.drive
        life = drive.resume_blocked(function, row) if row.status == "blocked" else None
        if not wait:
            drive.keep(function, self.id, life)
            return None
        return drive.until_end(function, self.id, life, wait=not no_wait_parked)

    def retry(
        self, force: Sequence[str] = (), skip: Sequence[str] = (), set: Mapping[str, Any] | None = None,
        *, wait: bool = True,
    ) -> Any:  # fmt: skip
        """Take a failed, cancelled, timed out or blocked run up again: failed operations get new attempts.

        Args:
            force: names or keys of finished operations that run again.
            skip: names or keys taken as finished with None.
            set: names or keys taken as finished with these values.
            wait: drive it to its end here and return its value.

        Raises:
            UsageError: it is open, has succeeded (and nothing is forced), its steps were undone, or a name is unknown.
        """
        row, run = self._row, self._run
        values = {name: serde.encode(value, place=name) for name, value in (set or {}).items()}
        self._check_retry(row, run, (*force, *skip, *values), forced=bool(force))
        function = self._engine.function_for(row)
        if function is None:
            message = f"run {self.id} is a run of {row.function}, which this process does not know; give its file"
            raise UsageError(message)
        record = Reopened(self._engine.store.now(), _user(), tuple(force), tuple(skip), tuple(values.items()))
        life = self._reopen(row, run, record, DurableProgram(function, row.function))
        if not wait:
            self._engine.drive.keep(function, self.id, life)
            return None
        return self._engine.drive.until_end(function, self.id, life)

    def _reopen(self, row: RunRow, run: RunState, record: Reopened, program: DurableProgram) -> Life:
        host = self._engine.host
        if row.status == "blocked":
            hot = host.store.hot_get(self.id)
            life = None if hot is None else host.take(hot, program, "retry")
            if life is not None:
                self._record(life, record)
        else:
            life = host.reopen(row.rid, run.epoch, program, record)
        if life is None:
            message = f"somebody else has just taken up run {self.id}"
            raise UsageError(message)
        return life

    def _record(self, life: Life, record: Reopened) -> None:
        try:
            life.commit(None, (record,))
        except LifeOver as over:
            # Nobody drives this life yet: the lease is handed back here, and the caller told what the store said.
            self._engine.host.give_back(life)
            raise (over.cause or over) from None
        life.deadline = life.run.deadline

    def _check_retry(self, row: RunRow, run: RunState, names: Sequence[str], *, forced: bool) -> None:
        if row.status not in ENDED and row.status != "blocked":
            message = f"run {self.id} is {row.status}; only an ended or blocked run is retried"
            raise UsageError(message)
        if row.status == "succeeded" and not forced:
            message = f"run {self.id} has succeeded; name what to run again with force"
            raise UsageError(message)
        if any(key.startswith("undo/") for key in run.ops):
            message = "its finished steps were undone; start a new run"
            raise UsageError(message)
        known = {name for op in run.ops.values() for name in (op.key, op.name) if name}
        unknown = [name for name in names if name not in known]
        if unknown:
            message = f"run {self.id} has no operation {', '.join(unknown)}; it has {', '.join(sorted(known)[:20])}"
            raise UsageError(message)

    def children(self) -> list[RunHandle]:
        """Runs that this run's steps started."""
        rows = self._engine.store.run_list(RunFilter(parent=self.id), limit=1000)
        return [RunHandle(self._engine, row.id) for row in rows]


def _flat(operations: list[Operation]) -> Iterator[Operation]:
    for op in operations:
        yield op
        yield from _flat(list(op.child_operations))


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None
