"""The memory store: the contract of `Store` in its plainest form, for ``memory://``, tests and the simulator.

Everything lies under one lock, and each writing method checks all before it changes anything, so a batch is all or
nothing without an undo log. A store is a *view* on data that outlives it: `MemoryStore.view` opens another one, which
stands for another process — it has its own clock, workers and observations of who is silent. The store's time is that
of the clock with which the data was made, as a database server's would be.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Literal

from stepwell.errors import JournalError, UsageError
from stepwell.journal._api import GcResult, Outgoing, SystemClock
from stepwell.journal._memory_data import (
    BLOB_REST,
    Data,
    batch_write,
    claim_take,
    fact_put,
    gc_choose,
    gc_detach,
    is_due,
    life_begin,
    matches,
    open_runs,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.journal._api import (
        Batch,
        Claim,
        Clock,
        Entry,
        Fact,
        HotRow,
        Lease,
        Note,
        RunFilter,
        RunRow,
        StoreTransaction,
        Taken,
        WorkerInfo,
    )
    from stepwell.journal._liveness import Silence


class MemoryStore:
    """One process's view of a journal that lives in memory."""

    kind: Literal["memory", "sqlite", "postgres"] = "memory"
    transaction_excludes_writer = False

    def __init__(self, name: str = "", clock: Clock | None = None, *, _data: Data | None = None) -> None:
        self.url = f"memory://{name}"
        self._name = name
        clock = clock or SystemClock()
        self._shared = _data or Data(clock)
        self._clock = clock
        self._silence: Silence | None = None
        self._own: dict[str, WorkerInfo] = {}
        self._seen = threading.local()
        """What each thread knew when it last waited: one that is woken must not take the news from another."""
        self._pokes = 0
        self._closed = False

    def view(self, clock: Clock | None = None) -> MemoryStore:
        """Another process's view of the same data, with a clock, workers and observations of its own."""
        return MemoryStore(self._name, clock or self._clock, _data=self._shared)

    @property
    def _data(self) -> Data:
        if self._closed:
            raise JournalError(f"the store {self.url} is closed: open it again to go on")
        return self._shared

    def now(self) -> int:
        """The time of the clock that the data was made with; never goes back."""
        data = self._data
        with data.changed:
            return data.now()

    def close(self) -> None:
        """End this view; the data lives on in the others."""
        self._closed = True
        with self._shared.changed:
            self._shared.changed.notify_all()

    # -- writing

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write all batches; see `Store.batch_commit`."""
        data = self._data
        refused: dict[int, JournalError] = {}
        results: list[JournalError | None] = []
        with data.changed:
            for batch in batches:
                # Refused is the lease, not the run: a zombie and the run's new holder may sit in one process.
                error = refused.get(id(batch.lease)) or batch_write(data, batch)
                if error is not None:
                    refused[id(batch.lease)] = error
                results.append(error)
        return results

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run if nobody else did since ``hot`` was read."""
        data = self._data
        with data.changed:
            run = data.runs.get(hot.rid)
            if run is None or run.hot is None or (run.hot.epoch, run.hot.owner) != (hot.epoch, hot.owner):
                return None
            return life_begin(run, run.hot.inbox, worker, taken)

    def run_reopen(self, rid: int, worker: str, taken: Taken) -> Lease | None:
        """Open an ended run again. Facts that nobody took before its end still wait in its inbox."""
        data = self._data
        with data.changed:
            run = data.runs.get(rid)
            if run is None or run.hot is not None:
                return None
            if run.entries and taken.epoch <= run.entries[-1].epoch:
                return None  # another life was opened, and ended, since the caller looked
            run.end = run.ended_at = run.reason = None
            data.open[rid] = run
            return life_begin(run, len(run.inbox), worker, taken)

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes, claim: Claim | None = None) -> bool:
        """Put a fact into the run's inbox and wake it."""
        shared = self._data
        with shared.changed:
            run = shared.ids.get(run_id)
            if run is None or run.hot is None:
                return False
            if claim is not None:
                claim_take(shared, claim)
            return fact_put(shared, Outgoing(run_id, kind, at, bytes(data)))

    def blob_put(self, digest: bytes, chunks: Iterator[bytes]) -> None:
        """Store a blob, or touch the one that is there."""
        data = self._data
        with data.changed:
            there = data.blobs.get(digest)
            if there is not None:
                data.blobs[digest] = (there[0], data.now())
                return
        # The chunks are read without the lock: making them is the caller's work, compression included.
        parts = tuple(bytes(chunk) for chunk in chunks)
        with data.changed:
            data.blobs[digest] = (parts, data.now())

    def gc(self, ended: RunFilter, *, dry_run: bool, max_rows: int = 5000) -> Iterator[GcResult]:
        """Take away ended runs, then blobs that nobody refers to."""
        data = self._data
        total = GcResult()
        with data.changed:
            doomed = gc_choose(data, ended)
        for run in doomed:
            with data.changed:
                if not dry_run and not gc_detach(data, run):
                    continue
                total.runs += 1
                contents: list[Entry | Note | Fact] = [
                    *run.entries,
                    *(note for _, note in run.notes),
                    *run.inbox.values(),
                ]
            for start in range(0, max(len(contents), 1), max_rows):
                part = contents[start : start + max_rows]
                total.rows += len(part)
                total.bytes += sum(len(row.data) for row in part)
                yield GcResult(total.runs, total.rows, total.blobs, total.bytes)
        gone = {run.rid for run in doomed}
        with data.changed:
            oldest = data.now() - BLOB_REST
            used = {digest for run in data.runs.values() if run.rid not in gone for digest in run.blobs}
            idle = [digest for digest, (_, touched) in data.blobs.items() if touched <= oldest and digest not in used]
            for digest in idle:
                total.blobs += 1
                total.bytes += sum(map(len, data.blobs[digest][0]))
                if not dry_run:
                    del data.blobs[digest]
        yield GcResult(total.runs, total.rows, total.blobs, total.bytes)

    def transaction(self) -> StoreTransaction:
        """There is none here.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"{self.url} has no transactions for steps: use transactional=True with sqlite:/// or postgresql://"
        )

    # -- leases of workers

    def worker_register(self, info: WorkerInfo) -> None:
        """The worker lives, in the process that this view stands for."""
        data = self._data
        with data.changed:
            data.workers[info.id] = (info, 1)
            data.left.discard(info.id)
            self._own[info.id] = info

    def worker_beat(self, worker: str) -> None:
        """One more sign of life."""
        data = self._data
        with data.changed:
            if worker in data.workers:
                info, beat = data.workers[worker]
                data.workers[worker] = (info, beat + 1)

    def worker_leave(self, worker: str) -> None:
        """The worker is no more; what it still holds is anybody's."""
        data = self._data
        with data.changed:
            self._own.pop(worker, None)
            if data.workers.pop(worker, None) and any(r.hot and r.hot.owner == worker for r in data.open.values()):
                data.left.add(worker)
            data.wake()

    def worker_list(self) -> list[WorkerInfo]:
        """All workers that registered and did not leave."""
        data = self._data
        with data.changed:
            return [info for info, _ in data.workers.values()]

    def worker_silence(self) -> Mapping[str, float]:
        """Seconds of silence of each worker that is not of this view."""
        from stepwell.journal._liveness import Silence, local_worker

        data = self._data
        with data.changed:
            if self._silence is None:
                self._silence = Silence(self._clock)
            observer = next(iter(self._own.values()), None) or local_worker(worker_id="")
            others = [pair for pair in data.workers.values() if pair[0].id not in self._own]
            silent = dict.fromkeys(data.left, float("inf"))
            self._silence.retain(data.workers)
            for info, beat in others:
                silent[info.id] = self._silence.observe(observer, info, beat)
        return silent

    # -- reading

    def hot_get(self, run_id: str) -> HotRow | None:
        """The hot row, or None if the run is not open."""
        data = self._data
        with data.changed:
            run = data.ids.get(run_id)
            return None if run is None or run.hot is None else run.hot_row(run.hot)

    def hot_due(
        self, *, now: int, queues: Sequence[str] | None, functions: Sequence[str] | None,
        silent: Mapping[str, float], limit: int,
    ) -> list[HotRow]:  # fmt: skip
        """Open runs that somebody should take, the longest due first."""
        data = self._data
        with data.changed:
            due = [(run, hot) for run, hot in open_runs(data, queues, functions) if is_due(hot, now, silent)]
            due.sort(key=lambda pair: (pair[1].wake_at or 0, pair[0].rid))
            return [run.hot_row(hot) for run, hot in due[:limit]]

    def hot_held(self, worker: str) -> list[tuple[int, int, int]]:
        """``(rid, epoch, inbox)`` of every run the worker holds."""
        data = self._data
        with data.changed:
            return [(r.rid, r.hot.epoch, r.hot.inbox) for r in data.open.values() if r.hot and r.hot.owner == worker]

    def hot_next_wake(self, *, queues: Sequence[str] | None, functions: Sequence[str] | None) -> int | None:
        """The earliest ``wake_at`` of a run with no owner."""
        data = self._data
        with data.changed:
            hots = [
                hot for _, hot in open_runs(data, queues, functions) if hot.owner is None and hot.status != "blocked"
            ]
            return min((hot.wake_at for hot in hots if hot.wake_at is not None), default=None)

    def inbox_load(self, rid: int) -> list[Fact]:
        """What waits, in order of arrival."""
        data = self._data
        with data.changed:
            run = data.runs.get(rid)
            return [] if run is None else list(run.inbox.values())

    def record_load(self, rid: int, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Rows of the run's journal in order of seq."""
        data = self._data
        with data.changed:
            run = data.runs.get(rid)
            return [] if run is None else run.entries[after : None if limit is None else after + limit]

    def note_load(
        self, rid: int, *, kind: str | None, key: str | None, after: int, limit: int
    ) -> list[tuple[int, Note]]:
        """Notes in order of their number."""
        data = self._data
        with data.changed:
            run = data.runs.get(rid)
            if run is None:
                return []
            later = islice(run.notes, bisect_right(run.notes, after, key=lambda pair: pair[0]), None)
            fit = (p for p in later if kind in (None, p[1].kind) and key in (None, p[1].key))
            return list(islice(fit, limit))

    def blob_get(self, digest: bytes) -> bytes | None:
        """The blob, or None."""
        data = self._data
        with data.changed:
            there = data.blobs.get(digest)
        return None if there is None else b"".join(there[0])

    def row_get(self, door: str, kind: str, key: str) -> bytes | None:
        """A door's own row."""
        data = self._data
        with data.changed:
            return data.rows.get((door, kind), {}).get(key)

    def row_list(self, door: str, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """A door's own rows whose key begins with ``prefix``, in order of key (by code point)."""
        data = self._data
        with data.changed:
            rows = data.rows.get((door, kind), {})
            return sorted((key, value) for key, value in rows.items() if key.startswith(prefix))

    def run_get(self, run_id: str) -> RunRow | None:
        """The catalogue's row."""
        data = self._data
        with data.changed:
            run = data.ids.get(run_id)
            return None if run is None else run.run_row()

    def run_list(self, where: RunFilter, *, limit: int, before: int | None = None) -> list[RunRow]:
        """Newest first."""
        data = self._data
        with data.changed:
            rows = (run.run_row() for run in reversed(data.runs.values()) if before is None or run.rid < before)
            return list(islice((row for row in rows if matches(row, where)), limit))

    def run_count(self, where: RunFilter) -> int:
        """How many."""
        data = self._data
        with data.changed:
            return sum(matches(run.run_row(), where) for run in data.runs.values())

    def wait(self, timeout: float) -> None:
        """Return when a run was woken or ended since this thread last waited, at a poke, or after ``timeout`` s."""
        data, seen = self._data, getattr(self._seen, "state", (0, 0))
        with data.changed:
            data.changed.wait_for(lambda: self._closed or (self._pokes, data.version) != seen, timeout)
            self._seen.state = self._pokes, data.version

    def poke(self) -> None:
        """Make every `wait` on this view return. Harmless on a closed one, where nobody waits."""
        with self._shared.changed:
            self._pokes += 1
            self._shared.changed.notify_all()

    def check(self) -> Iterator[str]:
        """Blobs that records refer to and that are gone."""
        data = self._data
        with data.changed:
            missing = [(run.new.id, digest) for run in data.runs.values() for digest in run.blobs - data.blobs.keys()]
        for run_id, digest in missing:
            yield f"run {run_id} refers to blob {digest.hex()}, which is not there"

    def facts(self) -> Mapping[str, str]:
        """Sizes."""
        data = self._data
        with data.changed:
            records = sum(len(run.entries) for run in data.runs.values())
            counts = {"runs": len(data.runs), "rows": records, "blobs": len(data.blobs), "workers": len(data.workers)}
        return {"kind": self.kind, "waking": "condition"} | {name: str(count) for name, count in counts.items()}
