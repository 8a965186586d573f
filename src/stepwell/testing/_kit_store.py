"""The store as the kit's engine sees it: with time that jumps, and with lives that are dropped as by a kill.

Both go through the store because that is where the engine gets them from (ENGINE.md §1, §3): its ``now`` is the
store's, and a life that may write no more finds out at its next append. All else is the real engine on the real store.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from stepwell.errors import Fenced, JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stepwell.core import RunState
    from stepwell.journal import HotRow, Lease, Store, StoreTransaction, Taken
    from stepwell.journal._api import Batch
    from stepwell.runtime import Host, Life
    from stepwell.testing._kit_crash import Crashes

CRASHED = "crashed"
"""The worker that held a run whose life was dropped, as the next life sees it: known dead."""
YEARS = 100 * 366 * 86_400 * 1_000_000


class Bell:
    """Wakes everybody who waits for a change. A ring that comes between two waits of a thread is not lost on it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0
        self._heard = threading.local()

    def ring(self) -> None:
        """Something has changed."""
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Until something changes, or ``seconds`` are over."""
        with self._changed:
            heard = getattr(self._heard, "rings", -1)
            self._changed.wait_for(lambda: self._rings != heard, seconds)
            self._heard.rings = self._rings


class Sleeper(Protocol):
    """Who is asked before anybody waits."""

    def jump(self) -> bool:
        """Let time jump, if nothing runs; True if it did."""
        ...


class KitStore:
    """`stepwell.journal.Store` in front of a real one."""

    def __init__(self, real: Store, bell: Bell, crashes: Crashes) -> None:
        self._real = real
        self._bell = bell
        self._crashes = crashes
        self.offset = 0
        """Microseconds by which time is ahead of the real store's."""
        self.host: Host | None = None
        self.sleeper: Sleeper | None = None
        self._dying: dict[str, Life] = {}
        """Dropped lives whose threads may still run, by run."""
        self.paused: set[str] = set()
        """Runs of which no life begins."""
        self.url = real.url
        self.kind = real.kind
        self.transaction_excludes_writer = real.transaction_excludes_writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def now(self) -> int:
        """The real store's time and what was jumped over."""
        return self._real.now() + self.offset

    # -- lives that are dropped

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write what lives that are not gone want written."""
        results: list[JournalError | None] = [None] * len(batches)
        written, dying = [], []
        for position, batch in enumerate(batches):
            if (batch.lease.rid, batch.lease.epoch) in self._crashes.dropped:
                results[position] = _gone()
                continue
            when = self._crashes.due(batch.records, self._run(batch.lease))
            if when is not None:
                self._drop(batch.lease)
                results[position] = _gone()
            if when == "after":
                dying.append(position)
            if when != "before":
                written.append(position)
        if written:
            told = self._real.batch_commit([batches[position] for position in written])
            for position, result in zip(written, told, strict=True):
                if position not in dying:
                    results[position] = result
        if any(batch.change is not None for batch in batches):
            self._bell.ring()
        return results

    def _run(self, lease: Lease) -> RunState | None:
        life = None if self.host is None else self.host.lives.get(lease.run_id)
        return None if life is None else life.run

    def _drop(self, lease: Lease) -> None:
        assert lease.rid is not None
        self._crashes.dropped.add((lease.rid, lease.epoch))
        if self.host is not None and lease.run_id in self.host.lives:
            self._dying[lease.run_id] = self.host.lives[lease.run_id]

    def transaction(self) -> StoreTransaction:
        """A transaction of the real store, whose commit a crash may come before or after."""
        return _KitTransaction(self, self._real.transaction())

    def hot_get(self, run_id: str) -> HotRow | None:
        """The hot row; a dropped life's names a holder that is known dead, a paused run's is far from due."""
        hot = self._real.hot_get(run_id)
        if hot is None:
            return None
        if (hot.rid, hot.epoch) in self._crashes.dropped and hot.owner is not None and self._is_quiet(run_id):
            hot = msgspec.structs.replace(hot, owner=CRASHED)
        if run_id in self.paused and hot.owner in (None, CRASHED):
            hot = msgspec.structs.replace(hot, owner=None, status="waiting", wake_at=self.now() + YEARS)
        return hot

    def _is_quiet(self, run_id: str) -> bool:
        """No thread of the dropped life runs any more: a process that is killed runs nothing beside its successor."""
        life = self._dying.get(run_id)
        if life is not None and life.ended and not any(b.counted for b in life.branches if b is not life.root):
            del self._dying[run_id]
        return run_id not in self._dying

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """As the real store's, to which the holder of a dropped life has its own name still."""
        if hot.owner == CRASHED:
            there = self._real.hot_get(hot.run_id)
            if there is None or (there.rid, there.epoch) not in self._crashes.dropped:
                return None
            hot = msgspec.structs.replace(hot, owner=there.owner)
        return self._real.run_claim(hot, worker, taken)

    def worker_silence(self) -> Mapping[str, float]:
        """As the real store's; who was crashed is known dead."""
        return {**self._real.worker_silence(), CRASHED: float("inf")}

    # -- waiting

    def fact_deliver(self, *args: Any, **kwargs: Any) -> bool:
        """As the real store's; whoever waits looks again."""
        told: bool = self._real.fact_deliver(*args, **kwargs)
        self._bell.ring()
        return told

    def wait(self, timeout: float) -> None:
        """Until something changes, at most ``timeout`` seconds of real time; time jumps if nothing runs."""
        if self.sleeper is None or not self.sleeper.jump():
            self._bell.wait(timeout)

    def poke(self) -> None:
        """Make every `wait` return."""
        self._bell.ring()


class _KitTransaction:
    """`StoreTransaction` in front of a real one."""

    def __init__(self, store: KitStore, real: StoreTransaction) -> None:
        self._store = store
        self._real = real
        self.rollback: Callable[[], None] = real.rollback
        self.interrupt: Callable[[], None] = real.interrupt

    @property
    def connection(self) -> Any:
        """As the real one's."""
        return self._real.connection

    def commit(self, batch: Batch) -> JournalError | None:
        """Commit, unless the life is gone."""
        store = self._store
        if (batch.lease.rid, batch.lease.epoch) in store._crashes.dropped:
            return _gone()
        when = store._crashes.due(batch.records, store._run(batch.lease))
        if when is not None:
            store._drop(batch.lease)
        error = None if when == "before" else self._real.commit(batch)
        return _gone() if when is not None else error


def _gone() -> JournalError:
    return Fenced("the life was dropped: crash_at")
