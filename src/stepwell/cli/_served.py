"""Whether somebody will go on with a run by himself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.journal import RunRow, Store, WorkerInfo


def live_workers(store: Store) -> list[WorkerInfo]:
    """Workers that serve queues and are not known to be gone."""
    silence = dict(store.worker_silence())
    return [info for info in store.worker_list() if info.queues and silence.get(info.id, 0.0) != float("inf")]


def serves(info: WorkerInfo, row: RunRow) -> bool:
    """Whether this worker takes the run up by itself. One without functions takes what it can import."""
    return row.queue in info.queues and (not info.functions or row.function in info.functions)


def is_served(store: Store, row: RunRow) -> bool:
    """Whether a live worker takes the run up by itself."""
    return any(serves(info, row) for info in live_workers(store))
