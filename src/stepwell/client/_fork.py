"""Fork: a new run that begins with what another one has finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.client._functions import target_of
from stepwell.client._ids import checked_id, new_id
from stepwell.client._retry import SCRIPT_QUEUE
from stepwell.core import US, RunState, blobs_in, decode_records, fold_all, fork_records
from stepwell.errors import DuplicateRun, PayloadError, UsageError
from stepwell.journal import Lease, Line, NewRun, RunExists, Start
from stepwell.runtime._hooks import of_door
from stepwell.runtime._run_journal import run_started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.client._engine import Engine
    from stepwell.core import AnyRecord
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import RunRow

UNSUCCESSFUL = frozenset({"failed", "cancelled", "timed_out", "blocked"})
PAGE = 500
CHUNK = 1024 * 1024
TAG = "fork-of:"
"""A fork has this with the source's id among its tags."""


class Fork(msgspec.Struct, frozen=True):
    """A fork that is about to be put on record. ``at``: key of the first operation that it does not take over."""

    source: str
    new: NewRun
    at: str | None
    records: list[AnyRecord]
    finished: int
    """Operations that it takes over as finished."""


def plan(engine: Engine, row: RunRow, run: RunState, *, to: Any, at: str | None, run_id: str | None) -> Fork:
    """What a fork of this run will be; nothing is written.

    Raises:
        UsageError: only its own script drives it, its steps were undone, or it has no operation ``at``.
        BadArguments: ``run_id`` cannot be an id.
        DuplicateRun: ``run_id`` is taken.
    """
    fork_at = of_door(row.door, "fork_at")
    if row.door != "durable" and fork_at is None:
        message = f"run {row.id} is a run of door '{row.door}', whose runs cannot be forked"
        raise UsageError(message)
    if row.queue == SCRIPT_QUEUE:
        where = f"the script {row.target}" if row.target else "its script"
        message = f"run {row.id} is driven by {where} alone, and so would be a fork of it; nobody could go on with that"
        raise UsageError(message, hint="run the script with another run_id, or give the pipeline an import path")
    if run.rollback is not None:
        message = f"run {row.id}: its finished steps were undone; start a new run"
        raise UsageError(message)
    chosen = new_id() if run_id is None else checked_id(run_id)
    taken = engine.store.run_get(chosen)
    if taken is not None:
        message = f"run {chosen} is on record already, of {taken.function}; give the fork another id"
        raise DuplicateRun(message, run_id=chosen, expected=taken.function, found=row.function)
    if fork_at is not None:
        key = fork_at(engine.store, run, at)
    else:
        key = None if at is None else _key_of(row, run, at)
    function = engine.function_for(row) if to is None else engine.functions.resolve(to)
    records = fork_records(row.id, _records(engine, row), key, again=row.status in UNSUCCESSFUL)
    new = _new_run(engine, row, chosen, function)
    records.insert(0, run_started(new, run.input))
    state = RunState(chosen)
    fold_all(state, records)
    finished = sum(op.ended for op in state.ops.values())
    return Fork(row.id, new, key, records, finished)


def _key_of(row: RunRow, run: RunState, at: str) -> str:
    """The operation with this key, or the first one with this name."""
    if at in run.ops:
        return at
    for op in run.ops.values():
        if op.name == at:
            return op.key
    known = sorted({name for op in run.ops.values() for name in (op.key, op.name) if name})
    message = f"run {row.id} has no operation {at!r}; it has {', '.join(known[:20]) or 'none yet'}"
    raise UsageError(message)


def _records(engine: Engine, row: RunRow) -> Iterator[AnyRecord]:
    after = 0
    while page := engine.store.record_load(row.rid, after=after, limit=PAGE):
        after = page[-1].seq
        for entry in page:
            yield from decode_records(entry.data)


def _new_run(engine: Engine, row: RunRow, run_id: str, function: DurableFunction | None) -> NewRun:
    """The fork's row. Where this process does not know the function, a worker that does is trusted to."""
    at = engine.store.now()
    own = () if function is None else function.tags
    timeout = None if function is None else function.timeout
    moved = function is not None and function.name != row.function
    return NewRun(
        run_id,
        row.function if function is None else function.name,
        row.door,
        row.input_hash,
        at,
        function.queue if function is not None and moved else row.queue,
        tuple(dict.fromkeys((*row.tags, *own, TAG + row.id))),
        row.target if function is None else target_of(function),
        None,
        None if timeout is None else at + round(timeout * US),
        False,
        engine.host.lease,
    )


def put(engine: Engine, fork: Fork) -> None:
    """Put it on record as ``pending``: its start and all that it takes over, in one transaction.

    Raises:
        DuplicateRun: its id has just been taken; nothing was written.
        PayloadError: the store has lost a value of the source; nothing was written.
    """
    host, new = engine.host, fork.new
    blobs = blobs_in(fork.records)
    for digest in blobs:
        with host.writer.exclusive():
            host.store.blob_put(digest, _chunks(engine, digest))  # it is there: touched, so that gc leaves it alone
    line = Line(host.writer, Lease(new.id, host.worker, epoch=0), lambda _records: None)
    line.ride((), (), tuple(blobs))
    try:
        host.writer.commit(line.enqueue(fork.records, Start(new)))
    except RunExists as error:
        message = f"run {new.id} has just been put on record; give the fork another id"
        raise DuplicateRun(message, run_id=new.id, expected=new.function, found=new.function) from error
    host.store.poke()


def _chunks(engine: Engine, digest: bytes) -> Iterator[bytes]:
    packed = engine.store.blob_get(digest)
    if packed is None:
        message = f"a large value of the run ({digest.hex()[:12]}…) is not in the store any more"
        raise PayloadError(message)
    for start in range(0, len(packed), CHUNK):
        yield packed[start : start + CHUNK]
