"""Real threads of which only one runs: the holder of the baton. Whoever waits passes it on, to a seeded choice."""

from __future__ import annotations

import math
import random
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.runtime._threads import Job
    from stepwell.testing._clock import VirtualClock

_idle: list[_Worker] = []
"""Threads that have no job, of all batons: a simulation needs many, for a short time each."""


class Unplugged(BaseException):
    """The simulated process is gone: whatever ran in it ends here."""


class BatonGate:
    """A gate at which the baton is passed on."""

    __slots__ = ("_baton", "opened")

    def __init__(self, baton: BatonThreads) -> None:
        self._baton = baton
        self.opened = False

    def open(self) -> None:
        """Let the waiter through, as soon as it gets the baton."""
        self.opened = True

    def wait(self, seconds: float | None) -> None:
        """Pass the baton on until opened, at most ``seconds``; then close it behind."""
        self._baton.wait(self, seconds)


class _Party:
    """A thread that waits for the baton."""

    __slots__ = ("deadline", "gate", "lock")

    def __init__(self, gate: BatonGate | None, deadline: int | None) -> None:
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


class BatonThreads:
    """`stepwell.runtime._threads.Threads` of a simulation.

    The thread that makes it holds the baton. At a gate, and at `pause` in a body, the holder passes it to one of those
    that could go on: ``dice`` chooses. When nobody could, time jumps to the earliest time-out; ``on_idle`` is asked
    before and says whether it changed anything. When there is none, the simulated process is `stuck`.
    """

    def __init__(self, clock: VirtualClock, dice: random.Random, *, limit: int = 64) -> None:
        self._clock = clock
        self._dice = dice
        self._limit = limit
        self._waiting: list[_Party] = []
        self._jobs: list[Job] = []
        self._running = 0
        self._aside = 0
        self._empty = BatonGate(self)
        self.on_idle: Callable[[], bool] | None = None
        self.dead = False
        """The simulated process is gone: nothing waits any more, all that waited raises `Unplugged`."""
        self.stuck = False
        """Everybody waited and nothing could end that."""
        self.errors: list[BaseException] = []
        """What came out of jobs."""

    @property
    def backlog(self) -> int:
        """Jobs that wait for a thread."""
        return max(0, len(self._jobs) - max(0, self._limit - self._running + self._aside))

    def submit(self, job: Job) -> None:
        """Run the job when the baton comes to it and a thread is free."""
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
        if self.dead and gate is not self._empty:
            raise Unplugged
        deadline = None if seconds is None else self._now() + max(0, math.ceil(seconds * 1_000_000))
        party = _Party(gate, deadline)
        self._waiting.append(party)
        if self._pass_on(party):
            party.lock.acquire()
        if gate is not None:
            gate.opened = False
        if self.dead and gate is not self._empty:
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
        while self._running or (self._jobs and not self.dead):
            self.wait(self._empty, None)
        self._jobs.clear()

    def _now(self) -> int:
        return round(self._clock.monotonic() * 1_000_000)

    def _pass_on(self, own: _Party | None) -> bool:
        """Give the baton to a seeded choice; False if that is ``own``."""
        chosen = self._choose()
        if isinstance(chosen, _Party):
            self._waiting.remove(chosen)
            if chosen is own:
                return False
            chosen.lock.release()
            return True
        self._running += 1
        worker = _idle.pop() if _idle else _new_worker()
        worker.hand(lambda: self._run(worker, chosen))
        return True

    def _run(self, worker: _Worker, job: Job) -> None:
        try:
            if job.take() and not self.dead:
                job.on_thread = True
                job.run()
        except Unplugged:
            pass
        except BaseException as error:
            self.errors.append(error)
        if not job.detached:
            self._running -= 1
        if not self._running:
            self._empty.open()
        _idle.append(worker)
        self._pass_on(None)

    def _choose(self) -> _Party | Job:
        while True:
            now = self._now()
            ready = [party for party in self._waiting if self._is_ready(party, now)]
            startable = bool(self._jobs) and self._running - self._aside < self._limit and not self.dead
            options = len(ready) + startable
            if options:
                pick = self._dice.randrange(options) if options > 1 else 0
                return ready[pick] if pick < len(ready) else self._jobs.pop(0)
            if self.on_idle is not None and not self.dead and self.on_idle():
                continue
            deadlines = [party.deadline for party in self._waiting if party.deadline is not None]
            if deadlines:
                self._clock.advance((min(deadlines) - now) / 1_000_000)
            else:
                self.stuck = self.stuck or not self.dead
                self.dead = True
                self._empty.opened = True

    def _is_ready(self, party: _Party, now: int) -> bool:
        if party.gate is self._empty and self._empty is not None:
            return self._empty.opened
        if self.dead or (party.deadline is not None and party.deadline <= now):
            return True
        return party.gate is not None and party.gate.opened


def _new_worker() -> _Worker:
    worker = _Worker()
    worker.start()
    return worker
