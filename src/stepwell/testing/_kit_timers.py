"""Which of the times that an open run waits for are its own, and which are set for the outside (durable.md §17.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.core import RunState, decode_records, fold_all, parent_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.core import Op
    from stepwell.journal import Store


def own_timers(run: RunState) -> Iterator[int]:
    """Times in microseconds at which a wait, a retry or a poll of the run goes on by itself.

    Once a run is rolled back its handler never goes on: only its undo steps have times.
    """
    for op in run.ops.values():
        timed = op.status == "planned" or (op.kind == "wait" and op.status == "started")
        if timed and op.key.startswith("undo/") == (run.rollback is not None) and _is_open(run, op):
            yield op.until


def _is_open(run: RunState, op: Op) -> bool:
    """Nothing around the operation has ended: what a batch let go of waits on record for ever."""
    key = parent_of(op.key)
    while key:
        scope = run.ops.get(key)
        if scope is not None and scope.ended:
            return False
        key = parent_of(key)
    return True


class RunStates:
    """The folded states of runs, read on from where they were."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[int, tuple[RunState, int]] = {}

    def get(self, rid: int, run_id: str) -> RunState:
        """The run as its journal tells it now."""
        run, after = self._known.get(rid) or (RunState(run_id), 0)
        while page := self._store.record_load(rid, after=after, limit=2000):
            for entry in page:
                after = entry.seq
                fold_all(run, decode_records(entry.data))
        self._known[rid] = (run, after)
        return run
