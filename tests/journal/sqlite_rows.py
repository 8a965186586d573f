"""Runs and batches for the tests of the SQLite store, numbered and encoded as the writer does it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from stepwell.core import LifeStarted, RunStarted, StepSucceeded, encode_records
from stepwell.journal._api import Batch, Lease, NewRun, Start, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepwell.core import AnyRecord
    from stepwell.journal._api import DoorRow, HotChange, HotRow
    from stepwell.journal._sqlite import SqliteStore

AT = 1_700_000_000_000_000


def encoded(batch: Batch, *, ahead: int = 1) -> Batch:
    """As the writer hands it over: the row that many after the lease's last."""
    batch.seq = batch.lease.seq + ahead if batch.records else 0
    batch.data = encode_records(list(batch.records))
    return batch


def step(lease: Lease, text: str = "1", change: HotChange | None = None, *, ahead: int = 1, **more: Any) -> Batch:
    """A batch with one record."""
    return encoded(Batch(lease, [StepSucceeded(AT, f"step{ahead}", text)], change, **more), ahead=ahead)


def commit(store: SqliteStore, *batches: Batch) -> None:
    """Commit, and go on."""
    assert store.batch_commit(batches) == [None] * len(batches)
    for batch in batches:
        batch.lease.seq = max(batch.lease.seq, batch.seq)


def start(
    store: SqliteStore, run_id: str = "r", worker: str = "w", *, rows: Sequence[DoorRow] = (), **columns: Any
) -> Lease:
    """A run that is held."""
    lease = Lease(run_id, worker)
    records: list[AnyRecord] = [RunStarted(AT, "app:handler", None), LifeStarted(AT, 1, worker, "start")]
    given: dict[str, Any] = {"function": "app:handler", "door": "durable", "input_hash": b"h", "created_at": AT}
    given.update(columns)
    new = NewRun(run_id, **given)
    commit(store, encoded(Batch(lease, records, Start(new), rows=rows)))
    return lease


def taken(epoch: int = 2, worker: str = "w2") -> Taken:
    """A claim's row."""
    return Taken(epoch, (LifeStarted(AT, epoch, worker, "takeover"),))


def claim(store: SqliteStore, run_id: str = "r", worker: str = "w2") -> Lease:
    """Take the run from whoever holds it."""
    hot: HotRow | None = store.hot_get(run_id)
    assert hot is not None
    lease = store.run_claim(hot, worker, taken(hot.epoch + 1, worker))
    assert lease is not None
    return lease


def in_child(work: Callable[[], object]) -> str:
    """What ``work`` comes to in a forked child: the text of its value, or ``Class: message`` of its error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            try:
                answer = str(work())
            except BaseException as error:
                answer = f"{type(error).__name__}: {error}"
            os.write(writer, answer.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(pid, 0)
    return answer
