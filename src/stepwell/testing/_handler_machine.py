"""The machine on which a user's handler is simulated: processes with real engines, one after the other; a ledger."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, cast

from stepwell.client._drive import Drive
from stepwell.client._engine import Engine
from stepwell.client._retry import ENDED
from stepwell.client._views import OPEN
from stepwell.core import US, decode_records, step_name
from stepwell.errors import Corrupt, JournalError, NonDeterminismError, StepwellError, Suspend, UsageError
from stepwell.journal import RunFilter, Writer
from stepwell.journal._memory import MemoryStore
from stepwell.runtime import Host
from stepwell.testing._baton import Baton, BatonThreads, Power, Unplugged
from stepwell.testing._clock import VirtualClock
from stepwell.testing._handler_store import Chances, HandlerStore
from stepwell.testing._invariants import check_run
from stepwell.testing._kit_timers import RunStates
from stepwell.testing._virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import RunState, StepWanted
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import RunRow
    from stepwell.runtime import Ending, Life
    from stepwell.runtime._api import Attempt, Body

RUN = "simulated"
"""The id of the run: the same for every seed, since values of ``context.random()`` hang on it."""
NAP = 1.0
"""Virtual seconds between two looks of the coordinator while lives are led."""
MOST_PROCESSES = 2_000
MOST_NAPS = 200_000


class _Host(Host):
    """A host whose bodies take their time, which is when others run and processes end."""

    machine: Machine

    def body_of(self, want: StepWanted) -> Body:
        """The body with a pause before and after it."""
        machine, body = self.machine, want.body
        twin: Body = copy.copy(body)

        def quick(attempt: Attempt) -> Any:
            machine.begins(attempt, once=want.at_most_once)
            machine.threads.pause(machine.lingers())
            value = body.call(attempt)
            machine.threads.pause(machine.lingers())
            return value

        async def slow(attempt: Attempt) -> Any:
            machine.begins(attempt, once=want.at_most_once)
            await machine.pause_async()
            value = await body.call(attempt)
            await machine.pause_async()
            return value

        twin.call = slow if body.is_async else quick
        return twin


class _Drive(Drive):
    """A coordinator whose thread is the machine's own."""

    machine: Machine

    def start(self, *, serve: bool = False) -> None:
        """There is no thread to start."""

    def _then(self, life: Life) -> Callable[[Ending], None]:
        then = super()._then(life)

        def told(ending: Ending) -> None:
            self.machine.life_over(ending)
            then(ending)

        return told


class Machine:
    """One seed of one handler, on the memory store, in virtual time."""

    def __init__(self, function: DurableFunction, event: Any, chances: Chances, hold: float) -> None:
        self.function = function
        self.event = event
        self.chances = chances
        self.hold = hold
        self.clock = VirtualClock()
        self._limit = chances.dice.choice([1, 2, 4, 64])
        self._baton = Baton(self.clock, chances.dice)
        self._power = Power()
        self.threads = BatonThreads(self._baton, self._power, limit=self._limit)
        self.found: list[str] = []
        self.raised: list[BaseException] = []
        """What user code raised that is no error of a step: it goes to the caller."""
        self._memory = MemoryStore("simulated", self.clock)
        self._reader: Any = self._memory.view(self.clock)
        self._states = RunStates(self._reader)
        self._loop = VirtualLoop(self.clock, lambda: self._power) if function.is_async else None
        self._begun: set[tuple[str, str, int]] = set()
        self._started = False
        self._store: HandlerStore | None = None
        self._engine: Engine | None = None

    # -- bodies

    def begins(self, attempt: Attempt, *, once: bool) -> None:
        """A body is about to run: hold that against what is on record."""
        if self._power.dead:
            raise Unplugged
        run_id = attempt.scope.life.run.id
        run = self._state(run_id)
        op = run.ops.get(attempt.key)
        name = attempt.name or step_name(run, attempt.key)
        if op is not None and op.status == "succeeded":
            self.found.append(f"step '{name}' ran twice: its success was on record")
        if op is not None and op.status == "failed":
            self.found.append(f"step '{name}' ran again after its failure was on record")
        mark = (run_id, attempt.key, attempt.attempt)
        if once and mark in self._begun:
            self.found.append(f"step '{name}' ran twice in attempt {attempt.attempt}, and was to run at most once")
        self._begun.add(mark)

    def lingers(self) -> float:
        """How long a body takes, in seconds; sometimes that is when the process ends. Raises `Unplugged`."""
        if self._power.dead:
            raise Unplugged
        if self.chances.body():
            self.die()
            raise Unplugged
        return self.chances.dice.choice((0.0, 0.0, 0.01, 3.0))

    async def pause_async(self) -> None:
        """The same in an async body."""
        await asyncio.sleep(self.lingers())
        if self._power.dead:
            raise Unplugged

    # -- processes

    def die(self) -> None:
        """The process is gone, with all that ran in it."""
        self._power.dead = True
        if self._store is not None:
            self._store.dead = True

    def play(self) -> None:
        """To the end of all runs."""
        try:
            for _ in range(MOST_PROCESSES):
                if self._live():
                    return
            self.found.append(f"it has not ended after {MOST_PROCESSES} processes")
        finally:
            if self._loop is not None:
                self._loop.close()

    def _live(self) -> bool:
        """One process, to its end; whether all runs have ended."""
        self._power = Power()
        self.threads = BatonThreads(self._baton, self._power, limit=self._limit)
        self._store = store = HandlerStore(self._memory.view(self.clock), self.chances, self.die)
        host = _Host(
            cast("Any", store), clock=self.clock, hold=self.hold, threads=self.threads,
            writer=Writer(cast("Any", store), inline=True), background=False, settings={"retry": None, "serdes": None},
        )  # fmt: skip
        host.machine = self
        self._engine = engine = Engine(cast("Any", store), host=host, functions=[self.function])
        engine._drive = drive = _Drive(engine, host)
        drive.machine = self
        over = False
        try:
            over = self._run_loop(host) if self._loop is not None else self._main(host)
        except (Unplugged, JournalError):
            pass  # it ended in the middle
        self.die()
        self.threads.drain()
        if self._loop is not None:
            self._end_tasks(self._loop)
        else:
            host._stop_loop()
        for error in (*self.raised, *self.threads.errors):
            if not isinstance(error, JournalError):
                raise error
        # Nobody waits for a beat of the dead.
        self._reader.worker_leave(host.worker)
        return over

    def _end_tasks(self, loop: VirtualLoop) -> None:
        """No task of the process outlives it."""
        loop.watch(self.threads.run_here, self._stuck)
        while left := loop.end_of(self._power):
            loop.run_until_complete(asyncio.wait(left))

    def _stuck(self) -> bool:
        """Everybody waits, and no time will end that: the process ends."""
        if self._power.dead:
            return False
        self.found.append("everybody waits, and nothing can end that")
        self.die()
        if self._loop is not None:
            self._loop.end_of(self._power)
        return True

    def life_over(self, ending: Ending) -> None:
        """A life has ended. By what no disaster explains, the simulation ends, too."""
        error = ending.error
        if self._power.dead:
            return  # whatever it met, it met because its process is gone
        if isinstance(error, Corrupt):
            self.found.append(str(error))
        if ending.how == "failed":
            self.die()  # as a script ends by the error that its call of `run` raises
        if error is not None and not isinstance(error, JournalError | Unplugged | Suspend | NonDeterminismError):
            self.raised.append(error)
            self.die()

    def _begin(self) -> None:
        engine = self._engine
        assert engine is not None
        if self._reader.run_get(RUN) is None:
            if self._started:
                self.found.append("its start was answered, and is lost")
            engine.start_run(self.function, self.event, id=RUN)
            self._started = True

    def _open(self) -> list[RunRow]:
        return list(self._reader.run_list(RunFilter(statuses=OPEN), limit=10_000))

    def _main(self, host: Host) -> bool:
        self._baton.on_idle, self._baton.on_stuck = (lambda: self._idle(host)), self._stuck
        self._begin()
        for _ in range(MOST_NAPS):
            if self._over():
                return True
            self._look()
            self.threads.wait(None, self._nap(host))
        self.found.append("it goes on for ever")
        return True

    def _run_loop(self, host: Host) -> bool:
        loop = self._loop
        assert loop is not None
        host._loop = loop
        loop.watch(lambda: self.threads.run_here() or self._idle(host), self._stuck)
        try:
            return loop.run_until_complete(self._main_async(host))
        except asyncio.CancelledError:
            return True  # it was stuck

    async def _main_async(self, host: Host) -> bool:
        self._begin()
        for _ in range(MOST_NAPS):
            if self._power.dead:
                return False
            if self._over():
                return True
            self._look()
            await asyncio.sleep(self._nap(host))
        self.found.append("it goes on for ever")
        return True

    def _look(self) -> None:
        """As a worker that knows every function of this process: take up what is due."""
        engine = self._engine
        assert engine is not None
        for row in self._open():
            function = engine.function_for(row)
            if function is not None and row.status != "blocked" and row.id not in engine.host.lives:
                engine.drive.keep(function, row.id, None)
        engine.drive.look()

    def _over(self) -> bool:
        row = self._reader.run_get(RUN)
        return row is not None and all(open.status == "blocked" for open in self._open())

    def _nap(self, host: Host) -> float:
        """Seconds until something is due; while lives are led, until the next look."""
        if host.lives:
            return NAP
        rows = [row for row in self._open() if row.status != "blocked"]
        wakes = [row.wake_at for row in rows if row.wake_at is not None]
        if rows and not wakes and all(row.status == "waiting" and row.owner is None for row in rows):
            message = f"run {rows[0].id} waits for {rows[0].waiting_for}, and in a simulation nobody answers"
            raise UsageError(message)
        return max(0.000001, (min(wakes) - self._reader.now()) / US) if wakes else NAP

    def _idle(self, host: Host) -> bool:
        """Everybody waits: what the host's own threads would do now. True if that may have changed something."""
        if self._power.dead:
            return False
        before = [life.over for life in host.lives.values()], self._reader.facts()["rows"]
        try:
            host.pulse.flush(host.clock.monotonic() + 1)
            host.pulse.look()
        except JournalError:
            return True
        return ([life.over for life in host.lives.values()], self._reader.facts()["rows"]) != before

    # -- what it came to

    def _state(self, run_id: str) -> RunState:
        return self._states.get(self._reader.run_get(run_id).rid, run_id)

    def check(self) -> None:
        """Hold the journals of all runs to the promises."""
        for row in self._reader.run_list(RunFilter(), limit=10_000):
            try:
                run = self._state(row.id)
            except Corrupt as error:
                self.found.append(str(error))
                continue
            rows = [(e.seq, e.epoch, decode_records(e.data)) for e in self._reader.record_load(row.rid)]
            hot = self._reader.hot_get(row.id)
            status = row.status if row.status in ENDED else None
            for broken in check_run(rows, open=hot is not None, hot=hot, status=cast("Any", status)):
                where = f"step '{step_name(run, broken.key)}'" if broken.key else "the run"
                self.found.append(f"{broken.rule}: {where}: {broken.message}")
            if row.status == "blocked":
                self.found.append(f"it is blocked: {row.reason}")

    def engine(self) -> Engine:
        """To look at the runs with, once they have ended."""
        engine = Engine(cast("Any", self._memory.view(self.clock)))
        engine.functions.add(self.function)
        return engine

    def outcome(self) -> tuple[str, Any]:
        """What the run came to, in a form that can be compared."""
        row = self._reader.run_get(RUN)
        if row is None or row.status not in ENDED:
            return ("status", None if row is None else row.status)
        try:
            return ("value", self.engine().result(row))
        except StepwellError as error:
            return (type(error).__name__, str(error))
