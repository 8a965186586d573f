"""What a simulated run leaves beside its journal: the ledger of its bodies, the trace, what they contradict."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stepwell.core import RunState, StepFailed, StepRetryPlanned, StepStarted, StepSucceeded, fold_all
from stepwell.errors import JournalError
from stepwell.testing._baton import BatonThreads, Unplugged
from stepwell.testing._clock import VirtualClock
from stepwell.testing._invariants import Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.core import AnyRecord
    from stepwell.runtime import Host, Life
    from stepwell.testing._programs import Program

Colour = Literal["sync", "async"]
Act = Literal["before", "after", "refused", "lost", "clock", "cancel"]


class Plan(msgspec.Struct, frozen=True):
    """What happens to a run: at which append what, and at which pause of a body the process ends."""

    acts: dict[int, Act] = {}
    bodies: frozenset[int] = frozenset()
    hold: float = 2.0
    threads: int = 64


class Line(msgspec.Struct, frozen=True):
    """One line of the ledger."""

    life: int
    key: str
    attempt: int
    what: Literal["begin", "end", "fail"]


class World:
    """One simulated run: the machine around the processes that drive it."""

    def __init__(self, run_id: str, program: Program, plan: Plan, colour: Colour, dice: random.Random) -> None:
        self.run_id = run_id
        self.program = program
        self.plan = plan
        self.colour: Colour = colour
        self.is_async = colour == "async"
        self.dice = dice
        self.clock = VirtualClock()
        self.baton = BatonThreads(self.clock, dice, limit=plan.threads)
        self.host: Host | None = None
        self.life = 0
        """Lives begun so far."""
        self.appends = 0
        self.pauses = 0
        self.disruptions = 0
        self.cancelled = False
        self.ledger: list[Line] = []
        self.trace: list[str] = []
        self.cells: Counter[tuple[str, str]] = Counter()
        self.found: list[Violation] = []
        self._begun: set[tuple[int, str, int]] = set()
        self._ends: Counter[tuple[str, int]] = Counter()
        self._started: set[tuple[str, int]] = set()
        self._succeeded: set[str] = set()
        self._failed: set[str] = set()
        self._planned: dict[str, tuple[int, int]] = {}
        self.durable = RunState(run_id)
        """The run as its durable records tell it."""

    def say(self, rule: str, key: str, message: str) -> None:
        """Note a violation."""
        self.found.append(Violation(rule, key, f"life {self.life}: {message}"))

    def hash(self) -> str:
        """One number for all that happened, in its order."""
        return blake2b("\n".join(self.trace).encode(), digest_size=8).hexdigest()

    # -- the process

    def unplug(self, place: str, kinds: Sequence[str]) -> None:
        """The process is gone."""
        self.baton.dead = True
        self.disrupt(place, kinds)

    def disrupt(self, place: str, kinds: Sequence[str]) -> None:
        """Something went wrong at such records."""
        self.disruptions += 1
        self.trace.append(f"{place} {' '.join(kinds)}")
        self.cells.update((place, kind) for kind in set(kinds))

    # -- bodies

    def body_begins(self, key: str, attempt: int, *, once: bool) -> None:
        """A line before the work, held against what is durable."""
        if self.baton.dead:
            raise Unplugged
        self.trace.append(f"begin {key} {attempt}")
        self.ledger.append(Line(self.life, key, attempt, "begin"))
        if key in self._succeeded:
            self.say("P1", key, f"attempt {attempt} begins after its success is on record")
        if key in self._failed:
            self.say("attempts", key, f"attempt {attempt} begins after its failure is on record")
        last, until = self._planned.get(key, (0, 0))
        if attempt != last + 1:
            self.say("attempts", key, f"attempt {attempt} begins, {last} are over")
        if until > self.clock_now():
            self.say("waits", key, f"attempt {attempt} begins {until - self.clock_now()} µs too early")
        if once and (key, attempt) not in self._started:
            self.say("at-most-once", key, f"attempt {attempt} begins before its start is durable")
        if once and self._ever(key, attempt):
            self.say("at-most-once", key, f"attempt {attempt} begins again")
        if (self.life, key, attempt) in self._begun:
            self.say("P1", key, f"attempt {attempt} begins twice in one life")
        self._begun.add((self.life, key, attempt))

    def _ever(self, key: str, attempt: int) -> bool:
        return any((life, key, attempt) in self._begun for life in range(1, self.life + 1))

    def clock_now(self) -> int:
        """The store's time, as far as it has been seen."""
        assert self.host is not None
        return self.host.store.now()

    def body_ends(self, key: str, attempt: int, what: Literal["end", "fail"]) -> None:
        """A line after it."""
        self.trace.append(f"{what} {key} {attempt}")
        self.ledger.append(Line(self.life, key, attempt, what))
        self._ends[key, attempt] += 1

    async def pause(self) -> None:
        """A body takes its time; sometimes that is when the process ends. In sync runs this never suspends."""
        self.pauses += 1
        if self.pauses in self.plan.bodies:
            self.unplug("body", ["body"])
            raise Unplugged
        seconds = self.dice.choice((0.0, 0.0, 0.01, 3.0))
        if self.is_async:
            import asyncio

            await asyncio.sleep(seconds)
            if self.baton.dead:
                raise Unplugged
        else:
            self.baton.pause(seconds)

    def idle(self) -> bool:
        """Everybody waits: what the host's own threads would do now. True if that may have changed something."""
        host = self.host
        if host is None or self.baton.dead:
            return False
        if self.is_async and self.baton.run_here():
            return True
        before = self.appends, len(self.found), [life.over for life in host.lives.values()]
        try:
            host.pulse.flush(host.clock.monotonic() + 1)
            host.pulse.look()
        except JournalError:
            return True  # the process has just ended
        except BaseException as error:
            self.say("engine", "", f"the beat met {error!r}")
            self.baton.dead = True
        return (self.appends, len(self.found), [life.over for life in host.lives.values()]) != before

    # -- what is durable

    def wrote(self, records: Sequence[AnyRecord]) -> None:
        """These are on record."""
        try:
            fold_all(self.durable, records)
        except Exception as error:
            self.say("order", "", f"the journal cannot be read: {error}")
        for record in records:
            self.trace.append(f"wrote {type(record).__name__} {getattr(record, 'key', '')}")
            match record:
                case StepStarted(key=key, attempt=attempt):
                    self._started.add((key, attempt))
                case StepSucceeded(key=key):
                    if not any(self._ends[key, attempt] for attempt in range(1, 12)):
                        self.say("ledger", key, "its success is on record before its body has ended")
                    self._succeeded.add(key)
                case StepFailed(key=key):
                    self._failed.add(key)
                case StepRetryPlanned(key=key, attempt=attempt, until=until):
                    self._planned[key] = (attempt, until)
                case _:
                    pass

    def life_ended(self, life: Life) -> None:
        """What a life believed was true: nothing of it is ahead of the journal."""
        for key, op in life.run.ops.items():
            there = self.durable.ops.get(key)
            if op.ended and (there is None or there.status != op.status):
                said = "nothing" if there is None else there.status
                self.say("ahead", key, f"the life took it for {op.status}, on record is {said}")

    def ledger_ends(self) -> None:
        """Bodies that ended, against successes and disruptions."""
        for (key, attempt), ends in self._ends.items():
            if ends > 1 + self.disruptions:
                self.say("ledger", key, f"attempt {attempt} ended {ends} times with {self.disruptions} disruptions")


def kinds_of(records: Sequence[Any]) -> list[str]:
    """What records are called."""
    return [type(record).__name__ for record in records]
