"""One simulated process: a real engine, host, coordinator and writer in which the waiting is the simulation's."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from stepwell.client import Engine
from stepwell.client._drive import Drive
from stepwell.errors import JournalError, StepInterruptedError, StepTimeoutError
from stepwell.journal import Writer
from stepwell.journal._api import WorkerInfo
from stepwell.runtime import Host
from stepwell.runtime._threads import Job
from stepwell.testing._baton import BatonMutex, BatonThreads, Power, Unplugged, at_once
from stepwell.testing._crashing import CrashingStore
from stepwell.testing._world import kinds_of

if TYPE_CHECKING:
    import asyncio

    from stepwell.journal import Store, Ticket
    from stepwell.runtime import Ending, Life
    from stepwell.testing._virtual_loop import VirtualLoop
    from stepwell.testing._world import World

BEAT = 5.0
"""Seconds between two signs of life of a process that is not hung."""
NAP = 20.0
"""Seconds that a process may oversleep: nobody promises a poll in time."""
MOST_NAPS = 400
"""Looks of one process at its runs before they count as endless."""
far: ContextVar[tuple[Process, float | None] | None] = ContextVar("stepwell_far", default=None)
"""In the simulated process of an executor: whose it is, and the seconds that the attempt still has."""
current_process: ContextVar[Process | None] = ContextVar("stepwell_process", default=None)
"""Whose task or thread runs here."""


class Process:
    """See the module. ``hung``: it beats no more and looks at nothing, though it may still compute."""

    def __init__(self, world: World, number: int, real: Store, loop: VirtualLoop | None) -> None:
        self.world = world
        self.name = f"{world.name}-{number}"
        self.real = real
        self.loop = loop
        self.power = Power()
        self.hung = False
        self.idling = False
        self.threads = BatonThreads(world.baton, self.power, limit=world.plan.threads)
        self.store = CrashingStore(self)
        self.writer = SimulatedWriter(self)
        self.host = SimulatedHost(self)
        self.engine = Engine(cast("Any", self.store), host=self.host, queues=(world.name,))
        assert self.engine.host is self.host  # asked for, it knows who begins children
        if world.outsider is not None:
            self.engine.functions.add(world.function_of(None))  # as the application's import does: others invoke it
        self.drive = self.engine._drive = SimulatedDrive(self)
        self.main: asyncio.Task[None] | None = None
        self.over = False
        """Its main has ended."""
        self._next_beat = 0.0
        self._naps = 0

    @property
    def dead(self) -> bool:
        """It is gone."""
        return self.power.dead

    @property
    def pools(self) -> tuple[BatonThreads, ...]:
        """All of its threads."""
        bodies, beside = cast("BatonThreads", self.host.bodies), cast("BatonThreads", self.host._loop_bodies)
        return self.threads, bodies, beside, self.drive.threads

    def die(self, *, seen: bool) -> None:
        """It ends here. ``seen``: others know at once, as they do of a process of their own host."""
        if self.dead:
            return
        self.power.dead = True
        if seen:
            self.real.worker_leave(self.host.worker)
        if self.loop is not None:
            self.loop.call_soon(self._reap)

    def _reap(self) -> None:
        if self.loop is not None:
            self.loop.end_of(self)

    def idle(self) -> bool:
        """Everybody waits: what the host's own threads would do now. True if that may have changed something."""
        if self.dead or self.hung:
            return False
        # All of them, so no short cut behind the first.
        if self.loop is not None and sum(pool.run_here() for pool in self.pools[1:]):
            return True
        world, host = self.world, self.host
        before = self._seen()
        self.idling = True
        try:
            now = host.clock.monotonic()
            if now >= self._next_beat and host._registered:
                self._next_beat = now + BEAT
                self.real.worker_beat(host.worker)
            if (host.lives or host.unreleased) and not self.writer.mutex.locked:
                host.pulse.flush(now + 1)
                host.pulse.look()
        except JournalError:
            return True
        except BaseException as error:
            world.say("engine", "", f"the beat met {error!r}")
            self.die(seen=True)
        finally:
            self.idling = False
        return self._seen() != before

    def _seen(self) -> tuple[Any, ...]:
        host = self.host
        return self.world.appends, len(self.world.found), [life.over for life in host.lives.values()]

    def nap(self, seconds: float) -> float:
        """How long it sleeps when it means to sleep for so many seconds. Raises `Unplugged` if it does so for ever."""
        self._naps += 1
        if self._naps > MOST_NAPS:
            self.world.say("P5", "", "not everything has ended after many looks")
            self.die(seen=True)
            raise Unplugged
        return max(seconds, NAP)

    async def sleep(self, seconds: float) -> None:
        """As somebody who looks again later. Raises `Unplugged` if the process has ended by then."""
        import asyncio

        if self.loop is None:
            self.store.wait(seconds)
        else:
            await asyncio.sleep(self.nap(seconds))

    def ended(self) -> None:
        """Its main has ended: the rest of it ends, too."""
        self.die(seen=True)
        for pool in self.pools:
            pool.drain()
            for error in pool.errors:
                if not is_expected(error):
                    self.world.say("engine", "", f"a thread ended by {error!r}")
            pool.errors.clear()


def is_expected(error: BaseException) -> bool:
    """What lives end by when their store or process fails."""
    import asyncio

    from stepwell.errors import Suspend

    return isinstance(error, JournalError | Suspend | Unplugged | asyncio.CancelledError)


class SimulatedHost(Host):
    """A real host; it tells the world of its lives."""

    def __init__(self, process: Process) -> None:
        world = process.world
        super().__init__(
            cast("Any", process.store), clock=world.clock, hold=world.plan.hold, threads=process.threads,
            writer=process.writer, background=False,
        )  # fmt: skip
        self.process = process
        self.bodies = BatonThreads(world.baton, process.power)
        self._loop_bodies = BatonThreads(world.baton, process.power)
        self.worker = process.name
        self._loop = process.loop
        self._executors["process"] = cast("Any", SimulatedExecutor(process))

    def register(self, queues: tuple[str, ...] = (), functions: tuple[str, ...] = ()) -> None:
        """As `Host.register`, as a machine of its own."""
        if not self._registered:
            self._registered = True
            self.store.worker_register(WorkerInfo(self.worker, self.worker, "boot", "1", 1, "1", queues, functions))

    def drive(self, life: Life) -> Ending:
        """As `Host.drive`."""
        world = self.process.world
        world.life_begins(life)
        ending = super().drive(life)
        world.life_over(life, ending)
        return ending

    async def drive_async(self, life: Life) -> Ending:
        """As `Host.drive_async`."""
        world = self.process.world
        world.life_begins(life)
        ending = await super().drive_async(life)
        world.life_over(life, ending)
        return ending


class SimulatedDrive(Drive):
    """A real coordinator, whose thread is the main of the simulated process."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.engine, process.host)
        self._process = process
        self._looking = False
        self.threads = BatonThreads(process.world.baton, process.power)

    def start(self, *, serve: bool = False) -> None:
        """Where the main does not look for what is due, something else has to."""
        self._serve = self._serve or serve
        if self._serve or self._looking:
            return
        self._looking = True
        if self._process.loop is None:
            self.threads.submit(Job(lambda: at_once(self._look_on())))
        else:
            self._process.loop.create_task(self._look_on())

    async def _look_on(self) -> None:
        """Until the main does."""
        process = self._process
        try:
            while not self._serve and not process.dead:
                try:
                    self.look()
                    nap = self._next_nap()
                except JournalError:
                    nap = 1.0
                await process.sleep(nap)
        except BaseException as error:
            if not is_expected(error):
                process.world.say("engine", "", f"the coordinator ended by {error!r}")

    async def _nap_async(self, run_id: str) -> None:
        import asyncio

        await asyncio.sleep(self._process.nap(self._nap_for(run_id)))


class SimulatedWriter(Writer):
    """A real writer; between the queueing of a batch and its commit others get the baton, so that batches group."""

    def __init__(self, process: Process) -> None:
        super().__init__(cast("Any", process.store), inline=True)
        self._process = process
        self.mutex = BatonMutex(process.threads)
        self._mutex = cast("Any", self.mutex)
        self._planned = False

    def commit(self, ticket: Ticket) -> None:
        """As `Writer.commit`."""
        process = self._process
        if not ticket.done and not process.idling and process.loop is None and not process.dead:
            self.refuse_lent()
            process.threads.pause()
        super().commit(ticket)

    def future(self, ticket: Ticket) -> asyncio.Future[None] | None:
        """As `Writer.future`: the batch is committed some turns of the loop later."""
        import asyncio

        process = self._process
        if ticket.done or process.loop is None:
            return super().future(ticket)
        if ticket._future is None:
            ticket._future = process.loop.create_future()
        if not self._planned:
            self._planned = True
            if process.store.stalls_next():
                queued = kinds_of([record for ticket in self.queue for record in ticket.batch.records])
                process.loop.call_later(process.store.stall(queued), self._turn, 0)
            else:
                process.loop.call_soon(self._turn, process.world.dice.randrange(3))
        return asyncio.shield(ticket._future)

    def _turn(self, more: int) -> None:
        loop = self._process.loop
        assert loop is not None
        if more:
            loop.call_soon(self._turn, more - 1)
            return
        self._planned = False
        self._process.hung = False
        self._try_commit()


class SimulatedExecutor:
    """Calls functions as if in another process, which may be killed in the middle or die by itself."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def call(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, timeout: float | None, name: str
    ) -> Any:
        """As `stepwell.executors.Executor.call`."""
        token = far.set((self._process, timeout))
        try:
            return func(*args, **kwargs)
        except Killed:
            raise StepTimeoutError(f"step '{name}' timed out after {timeout:g} s; its process was killed") from None
        except Died:
            raise StepInterruptedError(f"the process of step '{name}' died; it may or may not have run") from None
        finally:
            far.reset(token)

    def close(self) -> None:
        """There is nothing to close."""


class Killed(BaseException):
    """The simulated process of an executor is killed: its time is up."""


class Died(BaseException):
    """The simulated process of an executor dies by itself."""
