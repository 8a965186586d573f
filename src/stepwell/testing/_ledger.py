"""One simulated run: its program, the ledger of its bodies, and what these contradict in its durable records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import msgspec

from stepwell.core import (
    Parked,
    Reopened,
    RunStarted,
    RunState,
    RunTimedOut,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    fold_all,
)
from stepwell.testing._invariants_keys import UNDO, KeyWatch
from stepwell.testing._letters import Letters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.core import AnyRecord
    from stepwell.runtime import Life
    from stepwell.testing._programs import Program
    from stepwell.testing._world import World


class Line(msgspec.Struct, frozen=True):
    """One line of the ledger. ``life`` is the epoch of the life in which the body ran."""

    life: int
    key: str
    attempt: int
    what: Literal["begin", "end", "fail", "late"]


class Tale:
    """See the module. ``deadline`` and all times: microseconds of the store."""

    def __init__(self, world: World, run_id: str, program: Program) -> None:
        self.world = world
        self.id = run_id
        self.program = program
        self.repairs = 0
        """How often somebody will retry or resume the run once it has ended or is blocked."""
        self.repaired = False
        self.cancelled = False
        self.parent: Tale | None = None
        """The run that started this one."""
        self.generation = 0
        """How many runs stand above this one."""
        self.started = False
        """It is on record."""
        self.letters = Letters(self)
        self.disruptions = 0
        self.ledger: list[Line] = []
        self.records: list[AnyRecord] = []
        """What the store said it has written."""
        self.durable = RunState(run_id)
        """The run as these tell it."""
        self.deadline: int | None = None
        """When the run times out, if ever."""
        self._begun: set[tuple[int, str, int]] = set()
        self._ever: set[tuple[str, int]] = set()
        self._ends: Counter[tuple[str, int]] = Counter()
        self._late: set[tuple[str, int]] = set()
        self._started: set[tuple[str, int]] = set()
        self._succeeded: set[str] = set()
        self._failed: set[str] = set()
        self._planned: dict[str, tuple[int, int]] = {}

    def say(self, rule: str, key: str, message: str) -> None:
        """Note a violation."""
        self.world.say(rule, key, message, self.id)

    # -- bodies

    def body_begins(self, number: int, life: int, key: str, attempt: int, *, once: bool) -> None:
        """A line before the work, held against what is durable. ``number``: of the life, among all of the world."""
        self.world.trace.append(f"{self.id} begin {key} {attempt}")
        self.ledger.append(Line(life, key, attempt, "begin"))
        if once and (key, attempt) not in self._started:
            self.say("at-most-once", key, f"attempt {attempt} begins before its start is durable")
        if once and (key, attempt) in self._ever:
            self.say("at-most-once", key, f"attempt {attempt} begins again")
        if (number, key, attempt) in self._begun:
            self.say("P1", key, f"attempt {attempt} begins twice in one life")
        self._begun.add((number, key, attempt))
        self._ever.add((key, attempt))
        # A life that has lost its lease may compute what it likes; it cannot write.
        if life >= self.durable.epoch:
            self._held_against(key, attempt)

    def _held_against(self, key: str, attempt: int) -> None:
        if key in self._succeeded:
            self.say("P1", key, f"attempt {attempt} begins after its success is on record")
        if key in self._failed:
            self.say("attempts", key, f"attempt {attempt} begins after its failure is on record")
        last, until = self._planned.get(key, (0, 0))
        if attempt != last + 1:
            self.say("attempts", key, f"attempt {attempt} begins, {last} are over")
        now = self.world.now()
        if until > now:
            self.say("waits", key, f"attempt {attempt} begins {until - now} µs too early")
        began = self.durable.life
        if self.deadline is not None and not key.startswith(UNDO) and began is not None and began.at >= self.deadline:
            self.say("deadline", key, f"attempt {attempt} begins in a life that began after the deadline")

    def body_ends(self, life: int, key: str, attempt: int, *, failed: bool = False, late: bool = False) -> None:
        """A line after it. ``late``: its time was up before."""
        what: Literal["end", "fail", "late"] = "late" if late else "fail" if failed else "end"
        self.world.trace.append(f"{self.id} {what} {key} {attempt}")
        self.ledger.append(Line(life, key, attempt, what))
        self._ends[key, attempt] += 1
        if late:
            self._late.add((key, attempt))

    # -- what is durable

    def wrote(self, records: Sequence[AnyRecord]) -> None:
        """These are on record."""
        self.records += records
        try:
            fold_all(self.durable, records)
        except Exception as error:
            self.say("order", "", f"the journal cannot be read: {error}")
        for record in records:
            self.world.trace.append(f"{self.id} wrote {type(record).__name__} {getattr(record, 'key', '')}")
            self.letters.wrote(record)
            match record:
                case RunStarted(deadline=deadline):
                    self.deadline = deadline
                case StepStarted(key=key, attempt=attempt):
                    self._started.add((key, attempt))
                case StepSucceeded(key=key):
                    self._success(key)
                case StepFailed(key=key):
                    self._failed.add(key)
                case StepRetryPlanned(key=key, attempt=attempt, until=until):
                    self._planned[key] = (attempt, until)
                case Parked(until=until) if self.durable.rollback is None and self.durable.cancel is None:
                    if self.deadline is not None and (until is None or until > self.deadline):
                        self.say("deadline", "", f"it is parked until {until}, its deadline is {self.deadline}")
                case RunTimedOut(at=at):
                    if self.deadline is None or at < self.deadline:
                        self.say("deadline", "", f"it timed out at {at}, its deadline is {self.deadline}")
                case Reopened(at=at):
                    self._reopened(at)
                case _:
                    pass

    def _success(self, key: str) -> None:
        attempts = [attempt for attempt in range(1, 20) if self._ends[key, attempt]]
        op = self.durable.ops.get(key)
        if not attempts:
            self.say("ledger", key, "its success is on record before its body has ended")
        elif op is not None and (key, op.attempt) in self._late:
            self.say("late", key, f"attempt {op.attempt} ended after its time was up, and its success is on record")
        self._succeeded.add(key)

    def _reopened(self, at: int) -> None:
        """The run has its time anew. What may begin again the invariants' own reading tells, not the engine's."""
        self.repaired = True
        started = self.records[0]
        if isinstance(started, RunStarted) and started.deadline is not None:
            self.deadline = started.deadline + at - started.at
        watch = KeyWatch(lambda *_: None)
        for record in self.records:
            watch.see(record)
        self._succeeded = {key for key in self._succeeded if watch.ops[key].ended}
        self._failed = {key for key in self._failed if watch.ops[key].ended}
        for key, op in watch.ops.items():
            if op.status == "succeeded" and op.kind in ("step", "wait_for_condition", "once"):
                self._succeeded.add(key)
                self._failed.discard(key)
            if op.status == "reopened" and op.attempt:
                self._planned[key] = (op.attempt, 0)

    def life_ended(self, life: Life) -> None:
        """What a life believed was true: nothing of it is ahead of the journal."""
        if life.run.reopened != self.durable.reopened:
            return
        for key, op in life.run.ops.items():
            there = self.durable.ops.get(key)
            if op.ended and (there is None or there.status != op.status):
                said = "nothing" if there is None else there.status
                self.say("ahead", key, f"the life took it for {op.status}, on record is {said}")

    def ends(self, rows: Sequence[tuple[int, int, Sequence[AnyRecord]]]) -> None:
        """Bodies that ended, against successes and disruptions; what was acknowledged, against what is there."""
        for (key, attempt), ends in self._ends.items():
            # A batch that ends early leaves bodies behind, which a reopened run begins anew.
            if ends > 1 + self.disruptions + self.durable.reopened:
                self.say("ledger", key, f"attempt {attempt} ended {ends} times with {self.disruptions} disruptions")
        there = [record for _, _, records in rows for record in records]
        if there != self.records:
            self.say("P2", "", f"{len(self.records)} records were acknowledged, {len(there)} are on record")
