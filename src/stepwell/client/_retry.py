"""Retry: what of an ended or blocked run is made again, and how it is opened for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stepwell import serde
from stepwell.errors import RunHeld, UsageError
from stepwell.runtime._api import LifeOver
from stepwell.runtime._hooks import of_door

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stepwell.core import AnyRecord, RunState
    from stepwell.journal import RunRow, Store
    from stepwell.runtime import Host, Life
    from stepwell.runtime._api import Program

ENDED = frozenset({"succeeded", "failed", "cancelled", "timed_out", "continued"})
SCRIPT_QUEUE = "pipeline-script"
"""Queue of runs that only their own script drives: no worker serves it."""


class Choice(NamedTuple):
    """What a retry does to what is on record: see `stepwell.core.Reopened`.

    ``decide``: what the run is to be told about steps that have not begun.
    """

    force: tuple[str, ...]
    skip: tuple[str, ...]
    values: dict[str, str]
    again: tuple[str, ...] = ()
    decide: tuple[dict[str, str], ...] = ()


def undone(run: RunState) -> bool:
    """Whether anything of it was undone."""
    return any(key.startswith("undo/") for key in run.ops)


def choice_of(
    store: Store, row: RunRow, run: RunState, force: Sequence[str], skip: Sequence[str], values: Mapping[str, Any]
) -> Choice:
    """What a retry does.

    Raises:
        UsageError: it is open, has succeeded (and nothing is forced), its steps were undone, or a name is unknown.
        BadArguments: a value does not fit.
    """
    of_its_door = of_door(row.door, "again")
    over = row.queue == SCRIPT_QUEUE and undone(run)
    named = (*force, *skip, *values)
    _check_status(row, forced=bool(force))
    if undone(run) and (named or not over):
        what = "it is done anew, and there is nothing to force, skip or set yet" if over else "start a new run"
        message = f"run {row.id}: its finished steps were undone; {what}"
        raise UsageError(message)
    if of_its_door is not None:
        choice: Choice = of_its_door(store, run, force, skip, values, over=over)
        return choice
    _check_names(run, named)
    texts = {name: serde.encode(value, place=name) for name, value in values.items()}
    return Choice(tuple(force), tuple(skip), texts)


def _check_status(row: RunRow, *, forced: bool) -> None:
    if row.status not in ENDED and row.status != "blocked":
        message = f"run {row.id} is {row.status}; only an ended or blocked run is retried"
        raise UsageError(message)
    if row.status == "succeeded" and not forced:
        message = f"run {row.id} has succeeded; name what to run again with force"
        raise UsageError(message)


def _check_names(run: RunState, names: Sequence[str]) -> None:
    known = {name for op in run.ops.values() for name in (op.key, op.name) if name}
    unknown = [name for name in names if name not in known]
    if unknown:
        message = f"run {run.id} has no operation {', '.join(unknown)}; it has {', '.join(sorted(known)[:20])}"
        raise UsageError(message)


def undecided(store: Store, row: RunRow, run: RunState, step: str, verb: str) -> str:
    """The key of a step that has not begun. Raises `UsageError`."""
    of_its_door = of_door(row.door, "undecided")
    hint = f"stepwell retry {row.id} --{verb} {step}"
    if of_its_door is None:
        message = f"run {row.id} is no pipeline; only steps of pipelines can be told to {verb} while it goes on"
        raise UsageError(message, hint=hint)
    if row.status in ENDED:
        message = f"run {row.id} has ended: {row.status}"
        raise UsageError(message, hint=hint)
    key: str = of_its_door(store, run, step)
    return key


def reopen(host: Host, row: RunRow, run: RunState, records: Sequence[AnyRecord], program: Program) -> Life:
    """Take an ended or blocked run up again: `Reopened`, and what is to be known with it. Raises `RunHeld`: somebody
    else was quicker.
    """
    if row.status == "blocked":
        hot = host.store.hot_get(row.id)
        life = None
        if hot is not None and hot.owner is None and hot.status == "blocked":  # or somebody alive has it by now
            life = host.take(hot, program, "retry")
        if life is not None:
            _record(host, life, records)
    else:
        life = host.reopen(row, run.epoch, program, records)
    if life is None:
        message = f"somebody else has just taken up run {row.id}"
        raise RunHeld(message, run_id=row.id, hint=f"stepwell wait {row.id}")
    return life


def _record(host: Host, life: Life, records: Sequence[AnyRecord]) -> None:
    try:
        life.commit(None, records)
    except LifeOver as over:
        # Nobody drives this life yet: the lease is handed back here, and the caller told what the store said.
        host.give_back(life)
        raise (over.cause or over) from None
    life.deadline = life.run.deadline
