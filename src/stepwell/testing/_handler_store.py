"""The store of a simulated process that runs a user's handler: its appends are where disasters happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from stepwell.core import LifeLost, LifeStarted
from stepwell.errors import JournalError
from stepwell.journal import Taken
from stepwell.testing._kit_crash import ENDS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from stepwell.journal import HotRow, Lease
    from stepwell.journal._api import Batch

Act = Literal["before", "after", "refused", "lost"]
ACTS: tuple[Act, ...] = ("before", "before", "after", "after", "refused", "lost")
MOST_IN_A_ROW = 3
"""Disasters without anything finished between them. With five a run is blocked, as it must be."""
GONE = "the simulated process is gone"
HARMLESS = frozenset({"close", "poke", "worker_leave"})


class Chances:
    """What goes wrong when, by dice. Never so often in a row that the engine has to take it for the step's fault."""

    def __init__(self, dice: random.Random, crash: float) -> None:
        self.dice = dice
        self._crash = crash
        self._in_a_row = 0
        self.disasters = 0

    def _strikes(self, share: float) -> bool:
        if self.dice.random() >= self._crash * share or self._in_a_row >= MOST_IN_A_ROW:
            return False
        self._in_a_row += 1
        self.disasters += 1
        return True

    def append(self) -> Act | None:
        """What happens to the next append."""
        return self.dice.choice(ACTS) if self._strikes(1.0) else None

    def body(self) -> bool:
        """Whether the process ends here, in the middle of a body."""
        return self._strikes(0.5)

    def twice(self) -> bool:
        """Whether what was delivered is delivered again."""
        return self.dice.random() < self._crash

    def finished(self) -> None:
        """Something has got ahead."""
        self._in_a_row = 0


class HandlerStore:
    """`stepwell.journal.Store` of one simulated process, in front of a view on the memory that all share."""

    def __init__(self, real: Any, chances: Chances, die: Callable[[], None]) -> None:
        self._real = real
        self._chances = chances
        self._die = die
        self.dead = False
        self.url: str = real.url
        self.kind: str = real.kind
        self.transaction_excludes_writer: bool = real.transaction_excludes_writer
        self.now: Callable[[], int] = real.now

    def __getattr__(self, name: str) -> Any:
        if self.dead and name not in HARMLESS:
            raise JournalError(GONE)
        return getattr(self._real, name)

    def wait(self, timeout: float) -> None:
        """Nobody waits here: the main of the process waits for the baton."""

    def _act(self) -> Act | None:
        if self.dead:
            raise JournalError(GONE)
        act = self._chances.append()
        if act == "before":
            self._die()
            raise JournalError(GONE)
        if act == "refused":
            raise JournalError("the simulated disk is full")
        return act

    def _after(self, act: Act | None) -> None:
        if act == "after":
            self._die()
            raise JournalError(GONE)

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write, if the dice let it."""
        act = self._act()
        if act == "lost":
            self._lose(batches[0].lease)
        results: list[JournalError | None] = self._real.batch_commit(batches)
        for batch, result in zip(batches, results, strict=True):
            if result is not None:
                continue
            if any(isinstance(record, ENDS) for record in batch.records):
                self._chances.finished()
            for fact in batch.facts:
                if fact.kind == "child" and self._chances.twice():
                    self._real.fact_deliver(fact.run_id, fact.kind, fact.at, fact.data)
        self._after(act)
        return results

    def _lose(self, lease: Lease) -> None:
        """Another worker takes the run, then ends at once."""
        hot: HotRow | None = self._real.hot_get(lease.run_id)
        if hot is None or hot.owner != lease.worker:
            return
        at = self._real.now()
        lost = () if hot.status == "waiting" else (LifeLost(at, hot.epoch, hot.owner, "expired"),)
        records = (*lost, LifeStarted(at, hot.epoch + 1, "thief", "takeover"))
        status = hot.status if hot.status == "rolling_back" else "running"
        self._real.run_claim(hot, "thief", Taken(hot.epoch + 1, records, status))

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run, if the dice let it."""
        act = self._act()
        lease: Lease | None = self._real.run_claim(hot, worker, taken)
        self._after(act)
        return lease
