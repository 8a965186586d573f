"""A store whose process ends, is refused, or loses its lease at chosen appends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import LifeLost, LifeStarted
from stepwell.errors import JournalError
from stepwell.journal import Taken
from stepwell.runtime import CANCEL, encode_cancel
from stepwell.testing._world import kinds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepwell.journal import HotRow, Lease
    from stepwell.journal._api import Batch
    from stepwell.testing._world import Act, World

HARMLESS = frozenset({"close", "kind", "poke", "now", "url", "transaction_excludes_writer", "worker_leave"})
"""What a process that is gone may still call."""


class CrashingStore:
    """`stepwell.journal.Store` of one simulated process, in front of a real one."""

    def __init__(self, world: World, real: Any, another: Callable[[], Any]) -> None:
        self._world = world
        self._real = real
        self._another = another
        self.url: str = real.url
        self.kind: str = real.kind
        self.transaction_excludes_writer: bool = real.transaction_excludes_writer
        self.now: Callable[[], int] = real.now

    def __getattr__(self, name: str) -> Any:
        if self._world.baton.dead and name not in HARMLESS:
            raise JournalError("the simulated process is gone")
        return getattr(self._real, name)

    def wait(self, timeout: float) -> None:
        """Time passes."""
        self._world.clock.advance(timeout)

    def _count(self) -> Act | None:
        if self._world.baton.dead:
            raise JournalError("the simulated process is gone")
        self._world.appends += 1
        return self._world.plan.acts.get(self._world.appends)

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write, if the plan lets it."""
        world, act = self._world, self._count()
        kinds = kinds_of([record for batch in batches for record in batch.records]) or ["no record"]
        match act:
            case "before":
                world.unplug("before", kinds)
                raise JournalError("the simulated process ended before the commit")
            case "refused":
                world.disrupt("refused", kinds)
                raise JournalError("the simulated disk is full")
            case "lost":
                self._lose(kinds)
            case "clock":
                jump = world.dice.choice([-15, 40, 4000])
                world.trace.append(f"clock {jump}")
                world.clock.step_wall(jump)
            case "cancel":
                world.trace.append("cancel")
                self._cancel()
            case _:
                pass
        results: list[JournalError | None] = self._real.batch_commit(batches)
        for batch, result in zip(batches, results, strict=True):
            if result is None:
                world.wrote(batch.records)
        if act == "after":
            world.unplug("after", kinds)
            raise JournalError("the simulated process ended after the commit")
        return results

    def _cancel(self) -> None:
        world = self._world
        data = encode_cancel("simulated", "somebody")
        if self._real.fact_deliver(world.run_id, CANCEL, self._real.now(), data):
            world.cancelled = True

    def _lose(self, kinds: Sequence[str]) -> None:
        """Another worker takes the run, then ends at once."""
        world, thief = self._world, self._another()
        hot: HotRow | None = thief.hot_get(world.run_id)
        if hot is None or hot.owner is None:
            return
        world.disrupt("lost", kinds)
        at = thief.now()
        lost = () if hot.status == "waiting" else (LifeLost(at, hot.epoch, hot.owner, "expired"),)
        records = (*lost, LifeStarted(at, hot.epoch + 1, "thief", "takeover"))
        status = hot.status if hot.status == "rolling_back" else "running"
        if thief.run_claim(hot, "thief", Taken(hot.epoch + 1, records, status)) is not None:
            world.wrote(records)

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run, if the plan lets it."""
        world, act = self._world, self._count()
        kinds = kinds_of(taken.records)
        if act == "before":
            world.unplug("before", kinds)
            raise JournalError("the simulated process ended before the claim")
        if act == "refused":
            world.disrupt("refused", kinds)
            raise JournalError("the simulated disk is full")
        lease: Lease | None = self._real.run_claim(hot, worker, taken)
        if lease is not None:
            world.wrote(taken.records)
        if act == "after":
            world.unplug("after", kinds)
            raise JournalError("the simulated process ended after the claim")
        return lease
