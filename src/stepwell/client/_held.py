"""Taking a run up by its id, for doors whose callers drive their own: start it, go on with it, or say who has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.client._ids import checked_id, new_id
from stepwell.client._retry import ENDED
from stepwell.durable._program import DurableProgram
from stepwell.errors import DuplicateRun
from stepwell.journal import RunExists
from stepwell.journal._liveness import local_worker, same_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.client._engine import Engine
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import HotRow
    from stepwell.runtime import Life

LONGEST_LOOK = 0.25


def take_up(
    engine: Engine, function: DurableFunction, text: str, run_id: str | None, *, tags: Sequence[str] = ()
) -> tuple[str, Life | None, bool]:
    """Start the run, or go on with the one that is on record under this id.

    Args:
        engine: of the store.
        function: what the run is of.
        text: the input of a new run; a recorded one wins.
        run_id: None makes one.
        tags: of a new run.

    Returns:
        Its id, its life here (None where it has ended, or its time has not come), and whether it was started here.

    Raises:
        DuplicateRun: somebody alive holds it, or it is a run of something else.
        BadArguments: the id cannot be one.
    """
    known = new_id() if run_id is None else checked_id(run_id)
    row = None if run_id is None else engine.store.run_get(known)
    if row is None:
        try:
            new = engine._new(function, known, text, tags, None)
            return known, engine.host.begin(new, DurableProgram(function), text, lazy=run_id is None), True
        except RunExists:
            row = engine._row(known)
    if row.function != function.name or row.door != function.door:
        message = f"run {row.id} is a run of {row.function}, not of {function.name}; use another id"
        raise DuplicateRun(message, run_id=row.id, expected=row.function, found=function.name)
    engine.host.register()  # who does not say where it is cannot be told from a stranger
    while row.status not in ENDED:
        hot = engine.store.hot_get(known)
        if hot is None:
            row = engine._row(known)
            continue
        if hot.owner is not None and not _lapsed(engine, hot):
            raise _held(hot)
        life = engine.drive.resume_blocked(function, row) if hot.status == "blocked" else None
        return known, life or engine.drive._take(function, row, "resume"), False
    return known, None, False


def _held(hot: HotRow) -> DuplicateRun:
    message = f"run {hot.run_id} is {hot.status}: {hot.owner} holds it; wait for it with: stepwell wait {hot.run_id}"
    return DuplicateRun(message, run_id=hot.run_id, hint=f"stepwell wait {hot.run_id}")


def _lapsed(engine: Engine, hot: HotRow) -> bool:
    """Whether the holder is gone. One elsewhere, that cannot be looked at, is watched for the term of its lease."""
    host, store = engine.host, engine.store
    if hot.owner == host.worker:
        return hot.run_id not in host.lives
    silent = store.worker_silence().get(hot.owner or "", float("inf"))
    if silent == float("inf") or silent >= hot.ttl:
        return True
    here = local_worker(worker_id=host.worker)
    holder = next((info for info in store.worker_list() if info.id == hot.owner), None)
    if holder is not None and same_place(here, holder):
        return False
    before = silent
    while True:
        store.wait(LONGEST_LOOK)
        silent = store.worker_silence().get(hot.owner or "", float("inf"))
        now = store.hot_get(hot.run_id)
        if now is None or now.owner != hot.owner or silent >= hot.ttl:
            return True
        if silent < before:
            return False  # it has beaten since
        before = silent
