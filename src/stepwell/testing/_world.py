"""The machine around simulated runs and processes: clock, baton, trace, the plan of disasters, what was found."""

from __future__ import annotations

import random
from collections import Counter
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stepwell.durable._function import DurableFunction
from stepwell.testing._baton import Baton, Unplugged
from stepwell.testing._clock import VirtualClock
from stepwell.testing._invariants import Violation
from stepwell.testing._ledger import Tale
from stepwell.testing._programs import Program
from stepwell.testing._programs_outside import child_program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepwell.core import AnyRecord, InvokeStarted
    from stepwell.journal import Outgoing
    from stepwell.runtime import Ending, Life
    from stepwell.testing._outsider import Outsider
    from stepwell.testing._process import Process

Colour = Literal["sync", "async"]
StoreKind = Literal["memory", "sqlite"]
Act = Literal["before", "after", "refused", "lost", "stalled", "clock", "cancel"]


class Plan(msgspec.Struct, frozen=True):
    """What happens: at which append what, and at which pause of a body the process ends."""

    acts: dict[int, Act] = {}
    bodies: frozenset[int] = frozenset()
    hold: float = 2.0
    threads: int = 64
    deadly: int = 0
    """So many times the first body that is marked so ends its process."""
    repairs: int = 0
    """So many times each run is retried or resumed once it has ended or is blocked."""
    workers: float = 0.5
    """How likely a process is a worker; else it is a caller that waits for its run."""


class World:
    """See the module."""

    def __init__(self, name: str, programs: Sequence[Program], plan: Plan, colour: Colour, kind: StoreKind) -> None:
        self.name = name
        self.plan = plan
        self.colour: Colour = colour
        self.kind: StoreKind = kind
        self.is_async = colour == "async"
        self.dice = random.Random(f"order {name}")
        self.clock = VirtualClock()
        self.baton = Baton(self.clock, self.dice)
        self.processes: list[Process] = []
        """Those that have not ended."""
        self.outsider: Outsider | None = None
        """Who answers, where there is anything to answer."""
        self.another_store: Callable[[], Any] = _no_store
        self.wants_another: Callable[[], None] = _nothing
        self.lives = 0
        self.appends = 0
        self.pauses = 0
        self.deadly = plan.deadly
        self._at_block = 0.5
        self.trace: list[str] = []
        self.cells: Counter[tuple[str, str]] = Counter()
        self.found: list[Violation] = []
        self.tales = {f"{name}-{i}": Tale(self, f"{name}-{i}", program) for i, program in enumerate(programs)}
        for tale in self.tales.values():
            tale.repairs = plan.repairs
        self._rids: dict[int, str] = {}
        self._functions: dict[float | None, DurableFunction] = {}

    def say(self, rule: str, key: str, message: str, run_id: str = "") -> None:
        """Note a violation."""
        self.found.append(Violation(rule, key, f"{run_id} life {self.lives}: {message}"))

    def hash(self) -> str:
        """One number for all that happened, in its order."""
        return blake2b("\n".join(self.trace).encode(), digest_size=8).hexdigest()

    def now(self) -> int:
        """The store's time."""
        now: int = self.another_store().now()
        return now

    def function_of(self, timeout: float | None) -> DurableFunction:
        """The durable function that plays programs with this time for the whole run."""
        if timeout not in self._functions:
            from stepwell.testing._play import play_async, play_sync

            body = play_async if self.is_async else play_sync
            name = f"stepwell.testing:{self.colour}-{timeout or 'unlimited'}"
            self._functions[timeout] = DurableFunction(body, name=name, timeout=timeout, queue=self.name)
        return self._functions[timeout]

    # -- runs that others start, and what comes from outside

    def child_of(self, parent: Tale, record: InvokeStarted) -> None:
        """A run says that it starts another one."""
        if record.child in self.tales or record.function == "nobody:knows":
            return
        event = msgspec.json.decode(str(record.payload), type=dict[str, int])
        self._add(record.child, parent, child_program(event["seed"], event["generation"]))

    def _add(self, run_id: str, parent: Tale | None, program: Program) -> Tale:
        from stepwell.testing._play import tales

        tale = tales[run_id] = self.tales[run_id] = Tale(self, run_id, program)
        tale.parent, tale.generation = parent, 0 if parent is None else parent.generation + 1
        return tale

    def tale_of(self, run_id: str) -> Tale:
        """The tale of a run, which somebody must have asked for."""
        if run_id not in self.tales:
            self.say("children", "", "a run is on record that nobody asked for", run_id)
            self._add(run_id, next(iter(self.tales.values())), Program(()))
        return self.tales[run_id]

    def deliver(self, real: Any, run_id: str, kind: str, at: int, data: bytes, claim: Any = None) -> bool:
        """A fact for a run, through this store: noted if it is accepted."""
        told: bool = real.fact_deliver(run_id, kind, at, data, claim)
        if told:
            self.tale_of(run_id).letters.delivered(kind, data, at)
        return told

    def told(self, facts: Sequence[Outgoing]) -> None:
        """These went out with a batch; a run that had ended by then takes none."""
        for fact in facts:
            if fact.run_id in self.tales:
                self.tales[fact.run_id].letters.delivered(fact.kind, fact.data, fact.at)

    def hurry(self, likely: float) -> None:
        """A moment at which somebody outside may act."""
        if self.outsider is not None:
            self.outsider.hurry(likely)

    def run_of(self, rid: int, store: Any) -> str:
        """The id of the run with this number."""
        if rid not in self._rids:
            self._rids.update({store.run_get(run_id).rid: run_id for run_id in self.tales if store.run_get(run_id)})
        return self._rids[rid]

    # -- disasters

    def act_at_block(self) -> Act | None:
        """What happens at the record that blocks a run: few runs are, so that chance would seldom meet it."""
        likely, self._at_block = self._at_block, 0.0
        return self.dice.choice(("before", "after", "refused", "lost")) if self.dice.random() < likely else None

    def unplug(self, process: Process, place: str, kinds: Sequence[str]) -> None:
        """The process is gone; with it all that ran in it."""
        self.disrupt(place, list(self.tales), kinds)
        process.die(seen=self.plan.deadly > 0 or self.dice.random() < 0.7)

    def disrupt(self, place: str, run_ids: Sequence[str], kinds: Sequence[str]) -> None:
        """Something went wrong at such records."""
        for run_id in set(run_ids):
            self.tale_of(run_id).disruptions += 1
        self.trace.append(f"{place} {' '.join(kinds)}")
        self.cells.update((place, kind) for kind in set(kinds))

    def lingers(self, process: Process, *, deadly: bool = False) -> float:
        """A body takes its time, in seconds; sometimes that is when the process ends. Raises `Unplugged`."""
        if process.dead:
            raise Unplugged
        self.pauses += 1
        if deadly and self.deadly:
            self.deadly -= 1
        elif self.pauses not in self.plan.bodies:
            return self.dice.choice((0.0, 0.0, 0.01, 3.0))
        self.unplug(process, "body", ["body"])
        raise Unplugged

    def idle(self) -> bool:
        """Everybody waits: what the processes' own threads would do now. True if that may have changed something."""
        return sum(process.idle() for process in self.processes) > 0

    # -- what is durable, what lives believe

    def wrote(self, run_id: str, records: Sequence[AnyRecord]) -> None:
        """These are on record."""
        self.tale_of(run_id).wrote(records)
        if self.outsider is not None:
            for record in records:
                self.outsider.wrote(run_id, record)

    def life_begins(self, life: Life) -> None:
        """A process drives a run from here on."""
        self.lives += 1
        vars(life)["number"] = self.lives
        self.trace.append(f"life {life.lease.epoch} of {life.run.id}")

    def life_over(self, life: Life, ending: Ending) -> None:
        """How it ended."""
        from stepwell.testing._process import is_expected

        self.trace.append(f"ending {ending.how} of {life.run.id}")
        if ending.error is not None and not is_expected(ending.error):
            self.say("engine", "", f"a life ended by {ending.error!r}", life.run.id)
        self.tales[life.run.id].life_ended(life)


def kinds_of(records: Sequence[Any]) -> list[str]:
    """What records are called."""
    return [type(record).__name__ for record in records]


def _no_store() -> Any:
    raise AssertionError("the world has no store yet")


def _nothing() -> None:
    return
