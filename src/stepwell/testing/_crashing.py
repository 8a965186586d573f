"""A store whose process ends, stalls, is refused, or loses its lease at chosen appends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import LifeLost, LifeStarted
from stepwell.errors import JournalError
from stepwell.journal import Taken
from stepwell.journal._api import WorkerInfo
from stepwell.runtime import CANCEL, encode_cancel
from stepwell.testing._world import kinds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepwell.journal import HotRow, Lease
    from stepwell.journal._api import Batch
    from stepwell.testing._process import Process
    from stepwell.testing._world import Act

HARMLESS = frozenset({"close", "kind", "poke", "now", "url", "transaction_excludes_writer", "worker_leave"})
"""What a process that is gone may still call."""
GONE = "the simulated process is gone"
FULL = "the simulated disk is full"
STALL = 100.0
"""Seconds for which a commit hangs: more than a lease lasts without a beat."""


class CrashingStore:
    """`stepwell.journal.Store` of one simulated process, in front of a real one."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._real: Any = process.real
        self.url: str = self._real.url
        self.kind: str = self._real.kind
        self.transaction_excludes_writer: bool = self._real.transaction_excludes_writer
        self.now: Callable[[], int] = self._real.now

    def __getattr__(self, name: str) -> Any:
        if self._process.dead and name not in HARMLESS:
            raise JournalError(GONE)
        return getattr(self._real, name)

    def wait(self, timeout: float) -> None:
        """Time passes, sometimes more than was asked for."""
        self._process.threads.pause(self._process.nap(timeout))

    # -- disasters

    def _next(self) -> Act | None:
        return self._world.plan.acts.get(self._world.appends + 1)

    def _count(self) -> Act | None:
        if self._process.dead:
            raise JournalError(GONE)
        act = self._next()
        self._world.appends += 1
        return act

    def _before(self, act: Act | None, run_ids: Sequence[str], kinds: Sequence[str], what: str) -> None:
        """What an append meets that changes nothing. Raises what it raises."""
        if act == "before":
            self._world.unplug(self._process, "before", kinds)
            raise JournalError(f"the simulated process ended before {what}")
        if act == "refused":
            self._world.disrupt("refused", run_ids, kinds)
            raise JournalError(FULL)

    def _after(self, act: Act | None, kinds: Sequence[str], what: str) -> None:
        if act == "after":
            self._world.unplug(self._process, "after", kinds)
            raise JournalError(f"the simulated process ended after {what}")

    def stalls_next(self) -> bool:
        """The next append is planned to hang. Asked where it can: in an async process before its commit."""
        return self._next() == "stalled" and not self._process.dead

    def stall(self, kinds: Sequence[str]) -> float:
        """The process hangs: it neither beats nor looks, and another one comes. For how many seconds."""
        world = self._world
        world.plan.acts.pop(world.appends + 1, None)
        world.disrupt("stalled", list(world.tales), kinds)
        self._process.hung = True
        world.wants_another()
        return STALL

    # -- writing

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write, if the plan lets it."""
        world, act = self._world, self._count()
        run_ids = [batch.lease.run_id for batch in batches]
        kinds = kinds_of([record for batch in batches for record in batch.records]) or ["no record"]
        if act is None and "RunBlocked" in kinds:
            act = world.act_at_block()
        victim = batches[world.dice.randrange(len(batches))] if len(batches) > 1 else batches[0]
        alone = len({id(batch.lease) for batch in batches}) > 1 and world.dice.random() < 0.7
        if len(batches) > 1:
            world.trace.append(f"group of {len(batches)}")
        if not (act == "refused" and alone):
            self._before(act, run_ids, kinds, "the commit")
        refused: Batch | None = None
        match act:
            case "refused":
                world.disrupt("neighbour", [victim.lease.run_id], kinds_of(victim.records))
                refused = victim
            case "lost":
                self._lose(victim.lease.run_id, kinds_of(victim.records))
            case "stalled" if self._process.loop is None and not self._process.idling:
                self._process.threads.pause(self.stall(kinds))
                self._process.hung = False
            case "clock":
                jump = world.dice.choice([-15, 40, 4000])
                world.trace.append(f"clock {jump}")
                world.clock.step_wall(jump)
            case "cancel":
                self._cancel(victim.lease.run_id)
            case _:
                pass
        world.hurry(0.1)
        results = self._write(batches, refused)
        for batch, result in zip(batches, results, strict=True):
            if result is None:
                world.wrote(batch.lease.run_id, batch.records)
                world.told(batch.facts)
        world.hurry(0.1)
        self._after(act, kinds, "the commit")
        return results

    def _write(self, batches: Sequence[Batch], refused: Batch | None) -> list[JournalError | None]:
        """All but the rest of a lease of which one batch is refused, as too large a one is."""
        if refused is None:
            results: list[JournalError | None] = self._real.batch_commit(batches)
            return results
        first = next(i for i, batch in enumerate(batches) if batch is refused)
        out = [i >= first and batch.lease is refused.lease for i, batch in enumerate(batches)]
        written = iter(self._real.batch_commit([batch for batch, no in zip(batches, out, strict=True) if not no]))
        return [JournalError(FULL) if no else next(written) for no in out]

    def _cancel(self, run_id: str) -> None:
        world = self._world
        data = encode_cancel("simulated", "somebody")
        if world.deliver(self._real, run_id, CANCEL, self._real.now(), data):
            world.trace.append(f"cancel {run_id}")
            world.tales[run_id].cancelled = True

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes, claim: Any = None) -> bool:
        """As `stepwell.journal.Store.fact_deliver`."""
        if self._process.dead:
            raise JournalError(GONE)
        return self._world.deliver(self._real, run_id, kind, at, data, claim)

    def _lose(self, run_id: str, kinds: Sequence[str]) -> None:
        """Another worker takes the run, then ends at once."""
        world = self._world
        thief = world.another_store()
        hot: HotRow | None = thief.hot_get(run_id)
        if hot is None or hot.owner is None:
            return
        world.disrupt("lost", [run_id], kinds or ["no record"])
        at = thief.now()
        records = (LifeLost(at, hot.epoch, hot.owner, "expired"), LifeStarted(at, hot.epoch + 1, "thief", "takeover"))
        status = hot.status if hot.status == "rolling_back" else "running"
        thief.worker_register(WorkerInfo("thief", "elsewhere", "boot", "1", 1, "1"))
        if thief.run_claim(hot, "thief", Taken(hot.epoch + 1, records, status)) is not None:
            world.wrote(run_id, records)
        thief.worker_leave("thief")

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run, if the plan lets it."""
        return self._claim(hot.run_id, taken, lambda: self._real.run_claim(hot, worker, taken))

    def run_reopen(self, rid: int, worker: str, taken: Taken) -> Lease | None:
        """Open the run again, if the plan lets it."""
        run_id = self._world.run_of(rid, self._real)
        return self._claim(run_id, taken, lambda: self._real.run_reopen(rid, worker, taken))

    def _claim(self, run_id: str, taken: Taken, write: Callable[[], Lease | None]) -> Lease | None:
        act, kinds = self._count(), kinds_of(taken.records)
        self._before(act, [run_id], kinds, "the claim")
        lease = write()
        if lease is not None:
            self._world.wrote(run_id, taken.records)
        self._after(act, kinds, "the claim")
        return lease

    def transaction(self) -> Any:
        """Lend a transaction, whose commit is an append."""
        if self._process.dead:
            raise JournalError(GONE)
        return CrashingTransaction(self, self._real.transaction())


class CrashingTransaction:
    """`stepwell.journal.StoreTransaction` of one simulated process."""

    def __init__(self, store: CrashingStore, real: Any) -> None:
        self._store = store
        self._real = real
        self.connection = real.connection
        self.rollback: Callable[[], None] = real.rollback
        self.interrupt: Callable[[], None] = real.interrupt

    def commit(self, batch: Batch) -> JournalError | None:
        """Commit, if the plan lets it."""
        store = self._store
        run_id, records = batch.lease.run_id, batch.records
        act, kinds = store._count(), kinds_of(records)
        store._before(act, [run_id], kinds, "a step's own commit")
        result: JournalError | None = self._real.commit(batch)
        if result is None:
            store._world.wrote(run_id, records)
        store._after(act, kinds, "a step's own commit")
        return result
