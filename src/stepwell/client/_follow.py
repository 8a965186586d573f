"""Reading a run while it goes on: each look takes only what is new since the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell import serde
from stepwell.core import RunState, fold, tell
from stepwell.runtime._run_journal import records_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import AnyRecord
    from stepwell.journal import Store

PAGE = 500
"""Rows of a journal that are read at a time: no read transaction is open while one is looked at (ENGINE.md §6)."""


class Follower:
    """A run's journal, folded as far as it was when last looked at; what steps say of their progress in its place.

    ``fold``: what adds a record to the state, for readers that drop what they do not show.
    """

    def __init__(self, store: Store, run_id: str, rid: int, fold: Callable[[RunState, AnyRecord], None] = fold) -> None:
        self.run = RunState(run_id)
        self._store = store
        self._rid = rid
        self._fold = fold
        self._seq = 0
        self._note = 0

    def look(self) -> RunState:
        """Read on to the end, and give the state.

        Raises:
            Corrupt: the journal is damaged.
            JournalError: the store cannot be read.
        """
        run = self.run
        # Notes first: what is told of a step is in the store no later than the records behind it.
        told = self._told()
        at = 0
        while page := self._store.record_load(self._rid, after=self._seq, limit=PAGE):
            for entry in page:
                self._seq = entry.seq
                for record in records_of(run.id, entry):
                    while at < len(told) and told[at][0] <= record.at:
                        tell(run, told[at][1], told[at][2])
                        at += 1
                    self._fold(run, record)
        for _, key, fraction in told[at:]:
            tell(run, key, fraction)
        return run

    def _told(self) -> list[tuple[int, str, float]]:
        told: list[tuple[int, str, float]] = []
        best: dict[str, float] = {}
        while page := self._store.note_load(self._rid, kind="progress", key=None, after=self._note, limit=PAGE):
            for n, note in page:
                self._note = n
                done, total, _ = serde.decode_lenient(note.data)
                fraction = done / total if total else float(done)
                # A step that tells of each of its million rows is heard a thousand times.
                if fraction >= best.get(note.key, 0.0) + 0.001 or fraction >= 1.0 > best.get(note.key, 0.0):
                    best[note.key] = fraction
                    told.append((note.at, note.key, fraction))
        return told
