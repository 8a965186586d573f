"""Real threads of which only one runs: the holder of the baton. Whoever waits passes it on, to a seeded choice."""

from __future__ import annotations

import math
import random
import threading
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from stepwell.runtime._threads import Job
    from stepwell.testing._clock import VirtualClock

_idle: list[_Worker] = []
"""Threads that have no job, of all batons: a simulation needs many, for a short time each."""


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError(f"{work!r} waits in a sync run")


class Unplugged(BaseException):
    """The simulated process is gone: whatever ran in it ends here."""


class Power:
    """Whether a simulated process is there. What waits in one that is ``dead`` raises `Unplugged`."""

    __slots__ = ("dead",)

    def __init__(self) -> None:
        self.dead = False


class BatonGate:
    """A gate at which the baton is passed on."""

    __slots__ = ("_threads", "opened")

    def __init__(self, threads: BatonThreads) -> None:
        self._threads = threads
        self.opened = False

    def open(self) -> None:
        """Let the waiter through, as soon as it gets the baton."""
        self.opened = True

    def wait(self, seconds: float | None) -> None:
        """Pass the baton on until opened, at most ``seconds``; then close it behind."""
        self._threads.wait(self, seconds)


class BatonMutex:
    """A mutex whose waiters pass the baton on: a real one would be waited for by the only thread that runs."""

    def __init__(self, threads: BatonThreads) -> None:
        self._threads = threads
        self._gates: list[BatonGate] = []
        self.locked = False

    def acquire(self, blocking: bool = True) -> bool:
        """As `threading.Lock.acquire`."""
        while self.locked:
            if not blocking:
                return False
            gate = self._threads.gate()
            self._gates.append(gate)
            gate.wait(None)
        self.locked = True
        return True

    def release(self) -> None:
        """As `threading.Lock.release`."""
        self.locked = False
        for gate in self._gates:
            gate.open()
        self._gates.clear()


class _Party:
    """A thread that waits for the baton."""

    __slots__ = ("deadline", "gate", "lock", "power")

    def __init__(self, power: Power | None, gate: BatonGate | None, deadline: int | None) -> None:
        self.power = power
        """None: it waits for the end of threads, which comes also in a dead process."""
        self.gate = gate
        self.deadline = deadline
        self.lock = threading.Lock()
        self.lock.acquire()


class _Worker(threading.Thread):
    """A thread that runs one job after another, each when it is handed one."""

    def __init__(self) -> None:
        super().__init__(name="stepwell-baton", daemon=True)
        self._handed = threading.Lock()
        self._handed.acquire()
        self._work: Callable[[], None] = _nothing

    def hand(self, work: Callable[[], None]) -> None:
        """Run this: the baton goes with it."""
        self._work = work
        self._handed.release()

    def run(self) -> None:
        """For ever."""
        while True:
            self._handed.acquire()
            work, self._work = self._work, _nothing
            work()
            del work  # it leads to the whole simulated run


def _nothing() -> None:
    return


class Baton:
    """The thread that makes it holds the baton.

    At a gate, and at `BatonThreads.pause` in a body, the holder passes it to one of those that could go on: ``dice``
    chooses. When nobody could, ``on_idle`` is asked, and says whether it changed anything; else time jumps to the
    earliest time-out. Where there is none, ``on_stuck`` must end something.
    """

    def __init__(self, clock: VirtualClock, dice: random.Random) -> None:
        self._clock = clock
        self._dice = dice
        self._waiting: list[_Party] = []
        self.pools: list[BatonThreads] = []
        """Pools that have jobs which wait for a thread, or had."""
        self._alarms: list[tuple[int, int, Callable[[], None]]] = []
        self.on_idle: Callable[[], bool] = _never
        self.on_stuck: Callable[[], bool] = _never

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Call this once so much time has passed, on whichever thread passes the baton then. It must not wait."""
        heappush(self._alarms, (self.now() + math.ceil(seconds * 1_000_000), len(self._alarms), do))

    def now(self) -> int:
        """Microseconds on the clock that never steps."""
        return round(self._clock.monotonic() * 1_000_000)

    def wait(self, power: Power | None, gate: BatonGate | None, seconds: float | None) -> None:
        """Pass the baton on until the gate is open or the time is over."""
        deadline = None if seconds is None else self.now() + max(0, math.ceil(seconds * 1_000_000))
        party = _Party(power, gate, deadline)
        self._waiting.append(party)
        if self.pass_on(party):
            party.lock.acquire()
        if gate is not None:
            gate.opened = False

    def pass_on(self, own: _Party | None) -> bool:
        """Give the baton to a seeded choice; False if that is ``own``."""
        chosen = self._choose()
        if isinstance(chosen, _Party):
            self._waiting.remove(chosen)
            if chosen is own:
                return False
            chosen.lock.release()
            return True
        job = chosen.begin()
        worker = _idle.pop() if _idle else _new_worker()
        worker.hand(lambda: self._run(worker, chosen, job))
        return True

    def _run(self, worker: _Worker, pool: BatonThreads, job: Job) -> None:
        pool.run(job)
        _idle.append(worker)
        self.pass_on(None)

    def _choose(self) -> _Party | BatonThreads:
        while True:
            now = self.now()
            ready: list[_Party | BatonThreads] = [party for party in self._waiting if _is_ready(party, now)]
            ready += [pool for pool in self.pools if pool.startable]
            if self._alarms and self._alarms[0][0] <= now and self._dice.randrange(len(ready) + 1) == 0:
                heappop(self._alarms)[2]()
                continue
            if ready:
                return ready[self._dice.randrange(len(ready)) if len(ready) > 1 else 0]
            if self.on_idle():
                continue
            deadlines = [party.deadline for party in self._waiting if party.deadline is not None]
            if self._alarms and deadlines:
                deadlines.append(self._alarms[0][0])
            if deadlines:
                self._clock.advance((min(deadlines) - now) / 1_000_000)
            elif not self.on_stuck():
                raise AssertionError("every thread of the simulation waits, and nothing can end that")


class BatonThreads:
    """`stepwell.runtime._threads.Threads` of a simulated process."""

    def __init__(self, baton: Baton, power: Power, *, limit: int = 64) -> None:
        self._baton = baton
        self._limit = limit
        self.power = power
        self._jobs: list[Job] = []
        self._running = 0
        self._alive = 0
        """Those that run, and those that were given up and hang."""
        self._aside = 0
        self._empty = BatonGate(self)
        self.errors: list[BaseException] = []
        """What came out of jobs."""

    @property
    def backlog(self) -> int:
        """Jobs that wait for a thread."""
        return max(0, len(self._jobs) - max(0, self._limit - self._running + self._aside))

    @property
    def startable(self) -> bool:
        """A job could begin."""
        return bool(self._jobs) and self._running - self._aside < self._limit and not self.power.dead

    def submit(self, job: Job) -> None:
        """Run the job when the baton comes to it and a thread is free."""
        if self not in self._baton.pools:
            self._baton.pools.append(self)
        self._jobs.append(job)

    def detach(self, job: Job) -> None:
        """The job hangs: its thread leaves the limit."""
        if not job.detached:
            job.detached = True
            self._running -= 1

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A thread that waits and cannot give its work back does not count meanwhile."""
        counts = isinstance(threading.current_thread(), _Worker)
        self._aside += counts
        try:
            yield
        finally:
            self._aside -= counts

    def gate(self) -> BatonGate:
        """A new, closed gate."""
        return BatonGate(self)

    def stop(self) -> None:
        """There is nothing to stop."""

    def pause(self, seconds: float = 0.0) -> None:
        """A body takes its time: others may run meanwhile. Raises `Unplugged`."""
        self.wait(None, seconds)

    def wait(self, gate: BatonGate | None, seconds: float | None) -> None:
        """Pass the baton on until the gate is open or the time is over. Raises `Unplugged`."""
        if self.power.dead:
            raise Unplugged
        self._baton.wait(self.power, gate, seconds)
        if self.power.dead:
            raise Unplugged

    def run_here(self) -> bool:
        """For a loop that holds the baton and has nothing to do: run what is queued on this thread."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            if job.take():
                job.run()
        return bool(jobs)

    def drain(self) -> None:
        """Let every job end that was begun; queued ones are dropped if the process is gone."""
        while self._alive or (self._jobs and not self.power.dead):
            self._baton.wait(None, self._empty, None)
        self._jobs.clear()
        if self in self._baton.pools:
            self._baton.pools.remove(self)

    def begin(self) -> Job:
        """The next job leaves the queue."""
        self._running += 1
        self._alive += 1
        return self._jobs.pop(0)

    def run(self, job: Job) -> None:
        """Run it on this thread."""
        try:
            if job.take() and not self.power.dead:
                job.on_thread = True
                job.run()
        except Unplugged:
            pass
        except BaseException as error:
            self.errors.append(error)
        if not job.detached:
            self._running -= 1
        self._alive -= 1
        if not self._alive:
            self._empty.open()


def _is_ready(party: _Party, now: int) -> bool:
    if party.power is not None and party.power.dead:
        return True
    if party.deadline is not None and party.deadline <= now:
        return True
    return party.gate is not None and party.gate.opened


def _never() -> bool:
    return False


def _new_worker() -> _Worker:
    worker = _Worker()
    worker.start()
    return worker
