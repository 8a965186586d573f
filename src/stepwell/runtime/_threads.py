"""Threads for sync branches and bodies, and gates to wait at: one seam, so that a simulation owns who runs when."""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Gate(Protocol):
    """Where one thread waits until another opens it. An opened gate stays open until it has been waited at."""

    def open(self) -> None:
        """Let the waiter (or the next one) through."""
        ...

    def wait(self, seconds: float | None) -> None:
        """Wait until opened, at most ``seconds``; then close it behind."""
        ...


class Threads(Protocol):
    """Who runs jobs."""

    @property
    def backlog(self) -> int:
        """Jobs that wait for a thread."""
        ...

    def submit(self, job: Job) -> None:
        """Run the job on a thread of its own as soon as one is free."""
        ...

    def detach(self, job: Job) -> None:
        """The job was given up (it hangs): its thread counts no longer."""
        ...

    def aside(self) -> AbstractContextManager[None]:
        """Around a wait of a thread that cannot give its work back: it does not count meanwhile, so that what it waits
        for finds a thread.
        """
        ...

    def gate(self) -> Gate:
        """A new, closed gate."""
        ...

    def stop(self) -> None:
        """Let idle threads end. Idempotent."""
        ...


class Job:
    """Something to run once: by a thread of the pool, or by whoever takes it first."""

    __slots__ = ("_context", "_run", "_taken", "detached", "on_thread")

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._context = contextvars.copy_context()
        self._taken = threading.Lock()
        self.on_thread = False
        self.detached = False

    def take(self) -> bool:
        """Whether the caller is the one to run it."""
        return self._taken.acquire(blocking=False)

    def run(self) -> None:
        """Run it, in the context in which it was made. Only after `take` said so."""
        self._context.run(self._run)

    def run_inline(self, run: Callable[[], None]) -> None:
        """Run this in its place, on the thread that took it."""
        self._context.run(run)


class LockGate:
    """A gate of real threads: a lock that is held while it is closed. Each run makes two, and each branch one: an event
    would cost ten times as much.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let the waiter through."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # it is open

    def wait(self, seconds: float | None) -> None:
        """Wait until opened, at most ``seconds``; then close it behind."""
        # A very long wait overflows the platform's timer: wait in pieces, callers look at their clock anyway.
        self._lock.acquire(timeout=-1 if seconds is None else min(max(seconds, 0.0), 3600.0))


class Pool:
    """At most ``limit`` threads that run jobs; further jobs wait in order. Idle threads end after a while."""

    IDLE_SECONDS = 5.0

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._condition = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._threads = 0
        self._idle = 0
        self._aside = 0
        """Threads that wait and do not count."""
        self._here = threading.local()
        self._starting = 0
        """Threads that were made for a job and have not taken one yet."""
        self._stopped = False
        self._count = 0
        _pools.add(self)

    @property
    def backlog(self) -> int:
        """Jobs that wait for a thread."""
        return max(0, len(self._jobs) - self._idle - self._starting)

    def submit(self, job: Job) -> None:
        """Run the job on a thread as soon as one is free."""
        with self._condition:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._condition.notify()
            else:
                self._more()

    def _more(self) -> None:
        """One more thread, if there may be one. Under the condition."""
        if self._threads - self._aside < self._limit:
            self._threads += 1
            self._starting += 1
            self._count += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._count}", daemon=True).start()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See `Threads`. Nothing on a thread that is not of this pool."""
        if not getattr(self._here, "works", False):
            yield
            return
        with self._condition:
            self._aside += 1
            if len(self._jobs) > self._idle + self._starting:
                self._more()
        try:
            yield
        finally:
            with self._condition:
                self._aside -= 1

    def detach(self, job: Job) -> None:
        """The job hangs: its thread leaves the pool and its limit."""
        with self._condition:
            if not job.detached:
                job.detached = True
                self._threads -= 1

    def gate(self) -> Gate:
        """A new, closed gate."""
        return LockGate()

    def stop(self) -> None:
        """Let idle threads end. Idempotent."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _work(self) -> None:
        self._here.works = True
        with self._condition:
            self._starting -= 1
            first = self._jobs.popleft() if self._jobs else None
        if first is not None and self._took(first):
            return
        while (job := self._next()) is not None:
            if self._took(job):
                return

    def _took(self, job: Job) -> bool:
        """Run a job, if nobody else has; True if it was given up meanwhile and this thread counts no more."""
        if job.take():
            job.on_thread = True
            job.run()
        return job.detached

    def _next(self) -> Job | None:
        with self._condition:
            if self._threads - self._aside > self._limit:
                self._threads -= 1  # one that had stood aside has come back
                return None
            if not self._jobs and not self._stopped:
                self._idle += 1
                self._condition.wait_for(lambda: self._jobs or self._stopped, self.IDLE_SECONDS)
                self._idle -= 1
            if self._jobs:
                return self._jobs.popleft()
            self._threads -= 1
            return None


def _after_fork() -> None:
    # The child has none of the threads; one that forked inside a job ends when the job does.
    for pool in list(_pools):
        pool._condition = threading.Condition()
        pool._jobs = deque()
        pool._stopped = True


os.register_at_fork(after_in_child=_after_fork)
