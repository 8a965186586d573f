"""A finished run, replayed once more from its journal: nothing may run, and it must come to the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from stepwell import core, serde
from stepwell.client._outcome import Reader
from stepwell.core import Done, Failed, RunState, decode_records, fold_all
from stepwell.durable._program import DurableProgram
from stepwell.errors import JournalError, NonDeterminismError, Suspend
from stepwell.journal import Lease, Line
from stepwell.runtime._api import LifeOver
from stepwell.runtime._life import Life
from stepwell.runtime._live import current_life
from stepwell.runtime._live_async import call_program, settle_tasks
from stepwell.runtime._values import text_of
from stepwell.serde import current_redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.core import AnyRecord, Payload
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import Note, RunRow, Store, Ticket
    from stepwell.runtime import Host

_ENDS = (core.RunSucceeded, core.RunFailed)
_ASIDE = (*_ENDS, core.RollbackStarted, core.Parked)


class _Strayed(LifeOver):
    """The replay asks for something that is not on record."""

    def __init__(self, records: Sequence[AnyRecord]) -> None:
        super().__init__("replay")
        first = next((record for record in records if hasattr(record, "key")), None)
        self.what = type(first).__name__ if first is not None else ""
        self.key: str = getattr(first, "key", "")
        self.name: str = getattr(first, "name", None) or self.key


class _NoLine(Line):
    """A line into no journal: what would be written ends the life before anything has run."""

    life: Life

    def ride(self, records: Sequence[AnyRecord] = (), notes: Sequence[Note] = (), blobs: Sequence[bytes] = ()) -> None:
        """Notes are dropped."""
        if records:
            self._stray(records)

    def enqueue(self, records: Sequence[AnyRecord] = (), *_: Any, **__: Any) -> Ticket:
        """Nothing is queued, and nothing waits in a run that has ended."""
        self._stray(records)

    def _stray(self, records: Sequence[AnyRecord]) -> NoReturn:
        """End the life, for good. Without `Life.stop`: some callers hold the lock that it takes."""
        life = self.life
        if not isinstance(life.over, _Strayed | NonDeterminismError):
            life.over = _Strayed(records)
        life._wake_all()
        raise life.over


def _life(host: Host, run: RunState, program: DurableProgram) -> Life:
    life = Life(host, run, Lease(run.id, "replay"), program, hold=0)
    life.line = line = _NoLine(host.writer, life.lease, life.line.fold)
    line.life = life
    return life


def replay_problem(host: Host, store: Store, row: RunRow, function: DurableFunction) -> str | None:
    """What is wrong with the code of a run that has succeeded or failed; None if its replay is as the run was."""
    end, run = _before_the_end(store, row)
    if not isinstance(end, _ENDS):
        return None
    life = _life(host, run, DurableProgram(function, row.function))
    try:
        outcome = asyncio.run_coroutine_threadsafe(_again_async(life), host.loop()).result() if life.is_async else (
            _again(life)
        )  # fmt: skip
    except (Suspend, JournalError) as error:
        return _strayed(life, error)
    except NonDeterminismError as error:
        return str(error)
    if life.over is not None:
        return _strayed(life, life.over)
    return _difference(store, end, outcome)


def _before_the_end(store: Store, row: RunRow) -> tuple[AnyRecord | None, RunState]:
    run, end = RunState(row.id), None
    for entry in store.record_load(row.rid):
        records = decode_records(entry.data)
        end = next((record for record in records if isinstance(record, _ENDS)), end)
        fold_all(run, [record for record in records if not isinstance(record, _ASIDE)])
    return end, run


def _again(life: Life) -> Any:
    tokens = (current_redactor.set(life.redactor), current_life.set(life))
    try:
        return life.program.call(life)
    finally:
        current_redactor.reset(tokens[0])
        current_life.reset(tokens[1])


async def _again_async(life: Life) -> Any:
    life.loop = asyncio.get_running_loop()
    current_redactor.set(life.redactor)
    current_life.set(life)
    try:
        return await call_program(life)
    finally:
        await settle_tasks(life)


def _strayed(life: Life, error: BaseException) -> str:
    over = life.over if life.over is not None else error
    if isinstance(over, NonDeterminismError):
        return str(over)
    if isinstance(over, _Strayed) and over.key:
        kind = "step" if over.what == "StepStarted" else "operation"
        return f"{kind} '{over.name}' at {over.key} is not on record and would run"
    return f"it could not be replayed: {over}"


def _difference(store: Store, end: AnyRecord, outcome: Any) -> str | None:
    if isinstance(outcome, Done) and isinstance(end, core.RunSucceeded):
        return None if outcome.payload == end.payload else _values(store, end.payload, outcome.payload)
    if isinstance(outcome, Failed) and isinstance(end, core.RunFailed):
        # A rollback that left something behind wraps the error of the run.
        was = end.error.cause if "stepwell.errors:RollbackFailed" in end.error.classes else end.error
        if was is None or (was.type, was.message) == (outcome.error.type, outcome.error.message):
            return None
        return f"it failed with {was.type}: {was.message}, replayed with {_error(outcome)}"
    if isinstance(outcome, Failed):
        return f"it succeeded, and failed when replayed: {_error(outcome)}"
    assert isinstance(end, core.RunFailed)
    return f"it failed with {end.error.type}: {end.error.message}, and succeeded when replayed"


def _error(outcome: Failed) -> str:
    return f"{outcome.error.type}: {outcome.error.message}"


def _values(store: Store, first: Payload, second: Payload) -> str:
    def shown(payload: Payload) -> str:
        text = repr(serde.decode_lenient(text_of(Reader(store), payload, "result")))  # type: ignore[arg-type]
        return text if len(text) <= 200 else text[:200] + "…"

    return f"its result was {shown(first)}, replayed it is {shown(second)}"
