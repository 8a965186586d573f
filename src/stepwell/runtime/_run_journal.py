"""A run's journal: its first record, and how it is read back into a state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stepwell.core import RunStarted, RunState, decode_records, fold_all
from stepwell.errors import Corrupt

if TYPE_CHECKING:
    from stepwell.core import AnyRecord, Payload
    from stepwell.journal import Entry, NewRun, Store

PAGE = 2000
"""Rows of a journal that are read at a time."""


class Place(msgspec.Struct, frozen=True):
    """Where a child stands: the operation that waits for it (None: nobody does), its tenant, how deep; and what the
    observers of the run above tell those of the child.
    """

    parent_key: str | None
    tenant: str | None
    depth: int
    metadata: tuple[tuple[str, str], ...] = ()


def run_started(new: NewRun, payload: Payload, place: Place | None = None) -> RunStarted:
    """The first record of a run."""
    started = RunStarted(
        new.created_at, new.function, payload, new.door, new.target, new.queue, new.parent, new.deadline, None, new.tags
    )
    if place is None:
        return started
    return msgspec.structs.replace(started, **msgspec.structs.asdict(place))


def load(store: Store, run_id: str, rid: int) -> RunState:
    """A run's journal, folded, read in pages so that it is never whole in memory twice.

    Raises:
        Corrupt: it is damaged; the text names the row.
        JournalError: the store cannot be read.
    """
    run, after = RunState(run_id), 0
    while page := store.record_load(rid, after=after, limit=PAGE):
        for entry in page:
            after = entry.seq
            fold_all(run, records_of(run_id, entry))
        if len(page) < PAGE:
            break
    return run


def records_of(run_id: str, entry: Entry) -> list[AnyRecord]:
    """The records of one row of a run's journal. Raises `Corrupt` that names the row."""
    try:
        return decode_records(entry.data)
    except msgspec.MsgspecError as error:
        message = f"row {entry.seq} of run {run_id} cannot be read: {error}"
        raise Corrupt(message) from error
