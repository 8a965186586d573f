"""Processes that come and go until every run of a world has ended, and what is checked then."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from stepwell.client import RunHandle
from stepwell.client._outcome import outcome
from stepwell.core import decode_records
from stepwell.durable._program import DurableProgram
from stepwell.errors import DuplicateRun, JournalError, RollbackFailed, RunCancelled, RunError, UsageError
from stepwell.journal import RunExists
from stepwell.journal._memory import MemoryStore
from stepwell.runtime._threads import Job
from stepwell.testing._baton import BatonThreads, Power, at_once
from stepwell.testing._bodies import ROWS
from stepwell.testing._invariants import check_run
from stepwell.testing._outsider import Outsider
from stepwell.testing._play import tales
from stepwell.testing._process import Process, current_process, is_expected
from stepwell.testing._virtual_loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from stepwell.journal import Store
    from stepwell.testing._ledger import Tale
    from stepwell.testing._world import World

MOST_PROCESSES = 40
MOST_LIVES = 300


class Direction:
    """See the module."""

    def __init__(self, world: World, folder: Path | None) -> None:
        self.world = world
        self._folder = folder
        self._memory = MemoryStore("simulated", world.clock)
        self._opened: list[Store] = []
        self._loop = VirtualLoop(world.clock, current_process.get) if world.is_async else None
        self._count = 0
        self._stage = BatonThreads(world.baton, Power())
        """The mains of processes, and whoever waits for them."""
        self._gate = self._stage.gate()
        self._event = asyncio.Event()
        self._wanted = False
        self._lonely = "stalled" not in world.plan.acts.values()
        """There is one process at a time."""
        self._reader: Any = self._open()
        if any(tale.program.outside for tale in world.tales.values()):
            later: Any = world.baton.later if self._loop is None else self._loop.call_later
            world.outsider = Outsider(world, self._open(), later)
        world.another_store = lambda: self._reader
        world.wants_another = self._want

    # -- to the end

    def play(self) -> dict[str, tuple[Any, ...]]:
        """To the end; what each run came to."""
        world = self.world
        tales.update(world.tales)
        try:
            if self._loop is None:
                world.baton.on_idle, world.baton.on_stuck = world.idle, self._stuck
                self._direct_sync()
            else:
                self._loop.watch(world.idle, self._stuck)
                self._loop.run_until_complete(self._direct_async())
            return {tale.id: self._check(tale) for tale in list(world.tales.values())}
        finally:
            for run_id in world.tales:
                del tales[run_id]
            for store in self._opened:
                store.close()
            if self._loop is not None:
                self._loop.close()

    def _open(self) -> Any:
        if self.world.kind == "memory":
            return self._memory.view(self.world.clock)
        from stepwell.journal._sqlite import SqliteStore

        assert self._folder is not None
        real = SqliteStore(self._folder / "simulated.db", self.world.clock)
        self._opened.append(real)
        return real

    def _want(self) -> None:
        """Another process is to come, whether or not one is there."""
        self._wanted = True
        self._call_director()

    def _call_director(self, _main: Any = None) -> None:
        self._gate.open()
        self._event.set()

    def _direct_sync(self) -> None:
        while self._next():
            self._gate.wait(None)
            self._bury()
        self._bury(everybody=True)

    async def _direct_async(self) -> None:
        while self._next():
            await self._event.wait()
            self._event.clear()
            await self._bury_async()
        await self._bury_async(everybody=True)

    def _next(self) -> bool:
        """Whether to go on; a process is there then, or two."""
        world = self.world
        if self.is_over():
            return False
        if self._count >= MOST_PROCESSES or world.lives >= MOST_LIVES:
            world.say("P5", "", f"not everything has ended after {world.lives} lives in {self._count} processes")
            return False
        if not world.processes:
            world.hurry(0.5)
        if not world.processes or (self._wanted and len(world.processes) < 2):
            self._begin()
        self._wanted = False
        return True

    def _begin(self) -> None:
        self._count += 1
        process = Process(self.world, self._count, self._open(), self._loop)
        self.world.processes.append(process)
        work = self._main(process)
        if self._loop is None:
            self._stage.submit(Job(lambda: self._run(work, process)))
        else:
            context = contextvars.copy_context()
            context.run(current_process.set, process)
            process.main = context.run(self._loop.create_task, work)
            process.main.add_done_callback(self._call_director)

    def _run(self, work: Coroutine[Any, Any, None], process: Process) -> None:
        try:
            at_once(work)
        finally:
            process.over = True
            self._call_director()

    def _bury(self, *, everybody: bool = False) -> None:
        for process in list(self.world.processes):
            if everybody or process.over:
                process.ended()
                self.world.processes.remove(process)
        if everybody:
            self._stage.drain()

    async def _bury_async(self, *, everybody: bool = False) -> None:
        assert self._loop is not None
        for process in list(self.world.processes):
            if everybody or (process.main is not None and process.main.done()):
                process.ended()
                while left := self._loop.end_of(process):
                    await asyncio.wait(left)
                self.world.processes.remove(process)

    def _stuck(self) -> bool:
        """Everybody waits, and no time will end that: the processes end."""
        alive = [process for process in self.world.processes if not process.dead]
        if alive:
            self.world.say("P5", "", "everybody waits, and nothing can end that")
        for process in alive:
            process.die(seen=True)
        return bool(alive)

    # -- what a process does

    async def _main(self, process: Process) -> None:
        world = self.world
        try:
            if world.dice.random() >= world.plan.workers:
                for tale in list(world.tales.values()):
                    if tale.parent is None:
                        await self._call(process, tale)
            await self._work(process)
        except BaseException as error:
            if not is_expected(error):
                world.say("engine", "", f"a process ended by {error!r}")

    async def _call(self, process: Process, tale: Tale) -> None:
        """As a script that runs a durable function: start it or attach to it, and wait for its end."""
        world, engine = self.world, process.engine
        function = world.function_of(tale.program.timeout)
        for _ in range(3):
            try:
                life = None
                if self._lonely and world.dice.random() < 0.3 and self._reader.run_get(tale.id) is None:
                    # As without an id: nobody else can know the run, and its start may ride.
                    new = engine._new(function, tale.id, "{}", (), world.name)
                    life = process.host.begin(new, DurableProgram(function), "{}", lazy=True)
                    if world.is_async:
                        await process.drive.until_end_async(function, tale.id, life)
                    else:
                        process.drive.until_end(function, tale.id, life)
                elif world.is_async:
                    await engine.run_async(function, {}, id=tale.id, queue=world.name)
                else:
                    engine.run(function, {}, id=tale.id, queue=world.name)
                return
            except (RunExists, DuplicateRun) as error:
                world.say("P2", "", f"its start is not seen: {error!r}", tale.id)
                return
            except JournalError:
                if process.dead or world.dice.random() < 0.5:
                    raise
            except RunError:
                return

    async def _work(self, process: Process) -> None:
        """As a worker: start what is not on record, drive what is due, put right what is to be."""
        world = self.world
        process.drive.start(serve=True)
        while not self.is_over():
            try:
                for tale in list(world.tales.values()):
                    self._tend(process, tale)
                process.drive.look()
            except (JournalError, RunExists):
                if process.dead:
                    raise
            await self._nap(process)

    def _tend(self, process: Process, tale: Tale) -> None:
        world, engine = self.world, process.engine
        row = self._reader.run_get(tale.id)
        if row is None:
            if tale.parent is not None:
                return
            function = world.function_of(tale.program.timeout)
            start = engine.enqueue if world.dice.random() < 0.3 else engine.start_run
            start(function, {}, id=tale.id, queue=world.name)
        elif tale.repairs and (row.status == "blocked" or self._reader.hot_get(tale.id) is None):
            tale.repairs -= 1
            try:
                self._repair(RunHandle(engine, tale.id), tale, row.status)
            except UsageError:
                tale.repairs = 0

    def _repair(self, handle: RunHandle, tale: Tale, status: str) -> None:
        """As a person: resume, or retry with some operations forced, skipped or set."""
        dice = self.world.dice
        steps = [op for op in tale.durable.ops.values() if op.kind == "step"]
        done = [op.key for op in steps if op.status == "succeeded"]
        bad = [op.key for op in steps if op.status != "succeeded"]
        self.world.trace.append(f"repair {tale.id}, {status}")
        if status == "blocked" and dice.random() < 0.5:
            handle.resume(wait=False)
            return
        force = dice.sample(done, 1) if done and (status == "succeeded" or dice.random() < 0.4) else []
        skip = dice.sample(bad, 1) if bad and dice.random() < 0.4 else []
        values = {key: "set" for key in bad if key not in skip and dice.random() < 0.2}
        handle.retry(force, skip, values, wait=False)

    async def _nap(self, process: Process) -> None:
        await process.sleep(process.drive._next_nap())

    # -- the end

    def is_over(self) -> bool:
        """Every run has ended or is blocked, and nobody will put it right."""
        return all(self._is_over(tale) for tale in self.world.tales.values())

    def _is_over(self, tale: Tale) -> bool:
        row = self._reader.run_get(tale.id)
        if row is None or tale.repairs:
            # What another run wanted to start, and it ended before it did.
            return tale.parent is not None and row is None
        return row.status == "blocked" or self._reader.hot_get(tale.id) is None

    def _check(self, tale: Tale) -> tuple[Any, ...]:
        world, reader = self.world, self._reader
        row = reader.run_get(tale.id)
        hot = reader.hot_get(tale.id)
        if row is None:
            return ("nothing",)
        rows = [(e.seq, e.epoch, decode_records(e.data)) for e in reader.record_load(row.rid)]
        tale.ends(rows)
        if hot is not None:
            world.found += check_run(rows, open=True, hot=hot)
            if not world.plan.deadly:
                tale.say("P5", "", f"it is {row.status}: {row.reason}")
            return ("open", row.status)
        world.found += check_run(rows, open=False, status=row.status)
        if world.kind == "sqlite":
            self._check_rows(tale)
        return outcome_of(reader, row)

    def _check_rows(self, tale: Tale) -> None:
        """P4: a transactional step's rows are there if and only if its success is on record, and once."""
        import sqlite3

        assert self._folder is not None
        connection = sqlite3.connect(self._folder / "simulated.db")
        try:
            rows = connection.execute(f"select key, count(*) from {ROWS} where run = ? group by key", (tale.id,))
            there = dict(rows.fetchall())
        except sqlite3.OperationalError:
            there = {}  # nobody has made the table yet
        finally:
            connection.close()
        for key, count in there.items():
            op = tale.durable.ops.get(key)
            if (op is None or op.status != "succeeded" or count != 1) and not tale.repaired:
                tale.say("P4", key, f"{count} rows, and the step is {'not there' if op is None else op.status}")


def outcome_of(reader: Any, row: Any) -> tuple[Any, ...]:
    """What a run came to, in a form that can be compared."""
    try:
        return ("value", outcome(reader, row))
    except RollbackFailed as error:
        # Which steps there were to undo depends on who was first in a batch that ends early: P6 looks at that.
        if row.status == "timed_out":
            return ("RunTimedOut",)
        return ("RunFailed", str(error.__cause__))
    except RunCancelled:
        return ("RunCancelled",)
    except Exception as error:
        return (type(error).__name__, str(error))
