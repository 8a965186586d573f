"""`simulate_seed`: one seed gives one program, one plan of disasters, one order of threads, one trace, one verdict."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from stepwell.client._outcome import outcome
from stepwell.core import US, decode_records
from stepwell.durable._program import DurableProgram
from stepwell.errors import JournalError, RollbackFailed, RunCancelled, Suspend
from stepwell.journal import NewRun, RunExists, Writer
from stepwell.journal._memory import MemoryStore
from stepwell.runtime import Host
from stepwell.testing._crashing import CrashingStore
from stepwell.testing._invariants import Violation, check_run
from stepwell.testing._play import play_async, play_sync, worlds
from stepwell.testing._programs import make_program
from stepwell.testing._virtual_loop import Stuck, VirtualLoop
from stepwell.testing._world import Act, Colour, Plan, World

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.runtime import Ending, Life

StoreKind = Literal["memory", "sqlite"]
MOST_LIVES = 40
ACTS: tuple[Act, ...] = ("before", "before", "after", "after", "refused", "lost", "lost", "clock", "cancel")


class Report(msgspec.Struct):
    """What became of a seed."""

    seed: int
    store: str
    colour: str
    violations: list[Violation]
    cells: Counter[tuple[str, str]]
    trace: str
    """Hash of all that happened in its order."""
    lives: int
    appends: int
    result: Any

    @property
    def replay(self) -> str:
        """The line that plays this seed again."""
        return f"python -m stepwell.testing {self.seed} --store {self.store} --colour {self.colour}"


def simulate_seed(
    seed: int, *, store: StoreKind = "memory", colour: Colour = "sync", folder: Path | None = None
) -> Report:
    """Play a seed's program through its disasters to its end, and hold what is left to the promises.

    ``folder``: where SQLite files go; many seeds may share one.
    """
    program = make_program(seed)
    quiet = World(f"seed-{seed}-quiet", program, Plan(hold=60.0), colour, random.Random(f"quiet {seed}"))
    # The same run id, so that what depends on it is the same; a store of its own.
    quiet.run_id = f"seed-{seed}"
    expected = _Simulation(quiet, "memory", None).play()
    plan = _plan(seed, quiet.appends, quiet.pauses)
    world = World(f"seed-{seed}", program, plan, colour, random.Random(f"order {seed}"))
    simulation = _Simulation(world, store, folder)
    result = simulation.play()
    if result != expected and not (world.cancelled and result[0] == "RunCancelled") and not world.found:
        world.say("result", "", f"it came to {result}, undisturbed to {expected}")
    found = [*quiet.found, *world.found]
    return Report(seed, store, colour, found, world.cells, world.hash(), world.life, world.appends, result)


def _plan(seed: int, appends: int, pauses: int) -> Plan:
    dice = random.Random(f"plan {seed}")
    acts: dict[int, Act] = {}
    bodies: set[int] = set()
    for _ in range(dice.choice([1, 2, 3, 4])):
        if dice.random() < 0.2 and pauses:
            bodies.add(dice.randint(1, pauses + 2))
        else:
            acts[dice.randint(1, appends + 3)] = dice.choice(ACTS)
    return Plan(acts, frozenset(bodies), dice.choice([0.0, 2.0, 60.0]), dice.choice([1, 2, 4, 64]))


class _Simulation:
    """Processes that come and go until the run has ended."""

    def __init__(self, world: World, kind: StoreKind, folder: Path | None) -> None:
        self.world = world
        self.function = play_async if world.is_async else play_sync
        self.kind = kind
        self._given = folder
        self._folder: Path | None = folder
        self._memory = MemoryStore("simulated", world.clock)
        self._opened: list[Any] = []
        self._loop: VirtualLoop | None = None

    def play(self) -> tuple[Any, ...]:
        """To the end; what the run came to."""
        world = self.world
        worlds[world.run_id] = world
        if self.kind == "sqlite" and self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="stepwell-"))
        if world.is_async:
            self._loop = VirtualLoop(world.clock)
            self._loop.watch(world.idle)
        else:
            world.baton.on_idle = world.idle
        try:
            return self._play()
        finally:
            del worlds[world.run_id]
            for real in self._opened:
                real.close()
            if self._loop is not None:
                self._loop.close()
            if self._folder is not None and self._given is None:
                shutil.rmtree(self._folder)

    def _play(self) -> tuple[Any, ...]:
        world = self.world
        reader = self._open()
        while world.life < MOST_LIVES:
            if world.host is None or world.baton.dead or world.dice.random() < 0.5:
                self._new_process()
            life = self._begin(reader)
            if life is not None:
                self._live(life)
            row = reader.run_get(world.run_id)
            if row is not None and reader.hot_get(world.run_id) is None:
                return self._check(reader, row)
            if row is not None and row.status == "blocked":
                world.say("P5", "", f"it is blocked: {row.reason}")
                return ("blocked",)
        world.say("P5", "", f"it has not ended after {world.life} lives")
        return ("endless",)

    def _open(self) -> Any:
        if self.kind == "memory":
            return self._memory.view(self.world.clock)
        from stepwell.journal._sqlite import SqliteStore

        assert self._folder is not None
        real = SqliteStore(self._folder / "simulated.db", self.world.clock)
        self._opened.append(real)
        return real

    def _new_process(self) -> None:
        world = self.world
        world.baton.dead = False
        store = CrashingStore(world, self._open(), self._open)
        writer = Writer(cast("Any", store), inline=True)
        world.host = Host(
            cast("Any", store), clock=world.clock, hold=world.plan.hold, threads=world.baton, writer=writer,
            background=False,
        )  # fmt: skip

    # -- lives

    def _begin(self, reader: Any) -> Life | None:
        """The next life: the run's start, or a claim when it is due. None: the process ended over it."""
        world = self.world
        host = world.host
        assert host is not None
        now = host.store.now
        program = DurableProgram(self.function)
        world.life += 1
        try:
            if reader.run_get(world.run_id) is None:
                new = NewRun(world.run_id, self.function.name, "durable", b"", now())
                return host.begin(new, program, "{}", lazy=world.dice.random() < 0.3)
            hot = reader.hot_get(world.run_id)
            while hot.owner is None and hot.wake_at is not None and hot.wake_at > now():
                world.clock.advance((hot.wake_at - now()) / US)
            if hot.owner is None and hot.wake_at is None and hot.status == "waiting":
                world.say("P5", "", "it waits for nothing")
            world.trace.append(f"life {world.life} after {hot.status}")
            return host.take(hot, program, "due")
        except RunExists:
            world.say("P2", "", "its start is not seen")
        except JournalError:
            pass
        return None

    def _live(self, life: Life) -> None:
        world = self.world
        host = world.host
        assert host is not None
        ending = self._live_async(host, life) if self._loop is not None else self._live_sync(host, life)
        world.trace.append(f"ending {ending.how if ending is not None else 'stuck'}")
        if world.baton.stuck or ending is None:
            world.baton.stuck = False
            world.say("P5", "", "everybody waits, and nothing can end that")
            world.life = MOST_LIVES
        if ending is not None and ending.error is not None and not _expected(ending.error):
            world.say("engine", "", f"a life ended by {ending.error!r}")
        for error in world.baton.errors:
            world.say("engine", "", f"a thread ended by {error!r}")
        world.baton.errors.clear()
        world.life_ended(life)

    def _live_sync(self, host: Host, life: Life) -> Ending | None:
        ending = host.drive(life)
        self.world.baton.drain()
        return ending

    def _live_async(self, host: Host, life: Life) -> Ending | None:
        assert self._loop is not None
        ending: Ending | None = None
        try:
            ending = self._loop.run_until_complete(host.drive_async(life))
        except Stuck:
            self.world.baton.dead = True
        self._loop.watch(None)
        self._loop.end_tasks()
        self._loop.watch(self.world.idle)
        return ending

    # -- the end

    def _check(self, reader: Any, row: Any) -> tuple[Any, ...]:
        world = self.world
        rows = [(e.seq, e.epoch, decode_records(e.data)) for e in reader.record_load(row.rid)]
        world.found += check_run(rows, open=False, status=row.status)
        world.ledger_ends()
        return outcome_of(reader, row)


def _expected(error: BaseException) -> bool:
    from stepwell.testing._baton import Unplugged

    return isinstance(error, JournalError | Suspend | Unplugged)


def outcome_of(reader: Any, row: Any) -> tuple[Any, ...]:
    """What a run came to, in a form that can be compared."""
    try:
        return ("value", outcome(reader, row))
    except RollbackFailed as error:
        # Which steps there were to undo depends on who was first in a batch that ends early: P6 looks at that.
        return ("RunFailed", str(error.__cause__))
    except RunCancelled:
        return ("RunCancelled",)
    except Exception as error:
        return (type(error).__name__, str(error))


def seeds_of(first: int, count: int) -> Iterator[tuple[int, StoreKind, Colour]]:
    """How many seeds are split: one in fifty on SQLite, every other one async."""
    for seed in range(first, first + count):
        store: StoreKind = "sqlite" if seed % 50 in (20, 41) else "memory"
        yield seed, store, "async" if seed % 2 else "sync"
