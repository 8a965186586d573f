"""The host: what one process needs to drive runs of one store.

It owns the store, the writer, the threads, one loop for async runs, and the lease of its worker. It knows no door:
programs come in from above. `stepwell.client.Engine` is its public face.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
import weakref
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Literal

from stepwell.core import LifeLost, LifeStarted, RunState
from stepwell.errors import Corrupt, JournalError, NonDeterminismError, Suspend, UsageError
from stepwell.journal import Lease, Line, NewRun, Release, Start, SystemClock, Taken, Writer
from stepwell.runtime._api import Leaving, LifeOver
from stepwell.runtime._life import Life
from stepwell.runtime._live import Ending, live
from stepwell.runtime._nobody import NOBODY, NoChildren
from stepwell.runtime._pulse import Pulse
from stepwell.runtime._run_journal import load, run_started
from stepwell.runtime._signals import Shield
from stepwell.runtime._threads import Job, Pool
from stepwell.runtime._values import keep
from stepwell.serde import Redactor

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from stepwell.core import AnyRecord, StepWanted
    from stepwell.executors import Executor
    from stepwell.journal import Clock, HotRow, OpenStatus, Outgoing, RunRow, Store, Ticket
    from stepwell.runtime._api import Body, Children, Program, Why
    from stepwell.runtime._observe import Observer
    from stepwell.runtime._run_journal import Place
    from stepwell.runtime._threads import Threads

LONGEST_TTL = 3600.0
shield = Shield()
_hosts: weakref.WeakSet[Host] = weakref.WeakSet()


class Host:
    """See the module. Thread-safe."""

    def __init__(  # the seams that a simulation replaces, and the engine's settings
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        lease: float = 30.0,
        start_flush: float = 0.1,
        hold: float | None = None,
        max_threads: int = 64,
        large_child_results: Literal["store", "replay"] = "store",
        threads: Threads | None = None,
        writer: Writer | None = None,
        background: bool = True,
        settings: Mapping[str, Any] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.store = store
        self.clock: Clock = clock or SystemClock()
        self.writer = writer or Writer(store, events=shield)
        self.lease = lease
        self.start_flush = start_flush
        self.hold = hold
        self.max_threads = max_threads
        self.large_child_results = large_child_results
        self.threads: Threads = threads or Pool(max_threads, "stepwell")
        self.bodies: Threads = threads or Pool(max_threads, "stepwell-body")
        self._loop_bodies: Threads = threads or Pool(max_threads, "stepwell-sync")
        self.observers = tuple(observers)
        self.settings: Mapping[str, Any] = settings or {}
        """What doors keep engine-wide (default retries, serializer); it means nothing here."""
        self.children: Children = NoChildren()
        """Who starts the runs that runs of this process invoke."""
        self.abandoned = 0
        self.host_name = socket.gethostname()
        self.worker = f"{self.host_name[:40]}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.lives: dict[str, Life] = {}
        self.unreleased: list[tuple[Life, Literal["interrupted", "rolling_back"], str | None]] = []
        """Lives that ended, and whose lease could not be handed back yet: the beat tries again."""
        self.pulse = Pulse(self)
        self._background = background
        self._lock = threading.Lock()
        self._registered = False
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._loops_over = False
        self._executors: dict[str, Executor] = {}
        self.forked = False
        """This process is a child of the one that opened the host: whatever comes is not the host's to deal with."""
        _hosts.add(self)

    # -- life of the host

    def register(self, queues: tuple[str, ...] = (), functions: tuple[str, ...] = ()) -> None:
        """Make this process known as a worker, and begin to beat. Idempotent."""
        from stepwell.journal._liveness import local_worker

        with self._lock:
            if self._stopped:
                message = "the engine is stopped; start it again"
                raise UsageError(message)
            if self._registered:
                return
            self._registered = True
        self.store.worker_register(local_worker(worker_id=self.worker, queues=queues, functions=functions))
        if self._background:
            self.pulse.start()

    def stop(self, grace: float) -> None:
        """Give back every run that is held, then end every thread. Idempotent; takes some ``grace`` seconds at most.

        Bodies that are under way have that long to end, and what ends is recorded; nothing new begins.
        """
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        for life in list(self.lives.values()):
            life.stop(Leaving("the engine stops"))
        end = self.clock.monotonic() + grace
        while self.lives and self.clock.monotonic() < end:
            self.store.wait(0.02)
        for life in list(self.lives.values()):
            self.give_back(life)
        self.pulse.stop()
        if self._registered:
            try:
                self.store.worker_leave(self.worker)
            except JournalError as error:
                self.complain(f"the worker could not say good-bye: {error}")
        self._stop_loop()
        for pool in (self.threads, self.bodies, self._loop_bodies):
            pool.stop()
        for executor in self._executors.values():
            executor.close()
        self.writer.stop()
        self.store.close()

    def complain(self, text: str) -> None:
        """Something that nobody waits for went wrong."""
        import logging

        logging.getLogger("stepwell").warning("%s", text)

    # -- the loop for async runs

    def loop(self) -> asyncio.AbstractEventLoop:
        """The engine's own loop, on a thread of its own; made at first use.

        Raises:
            LifeOver: the engine has stopped. Only who was given up still asks.
        """
        import asyncio

        with self._lock:
            if self._loops_over:
                raise LifeOver("the engine has stopped")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop_thread = threading.Thread(
                    target=_run_loop, args=(self._loop, self._is_over), name="stepwell-loop", daemon=True
                )
                self._loop_thread.start()
            return self._loop

    def _is_over(self) -> bool:
        return self._loops_over

    def _stop_loop(self) -> None:
        with self._lock:
            self._loops_over = True
        if self._loop is not None and self._loop_thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop_thread.join(5)

    def submit_for_loop(self, work: Callable[[], None]) -> None:
        """Run a sync body of an async run on a thread."""
        self._loop_bodies.submit(Job(work))

    def executor(self, named: str | Executor) -> Executor:
        """The executor of this name; its processes live until the host stops.

        Raises:
            UsageError: there is none.
        """
        if not isinstance(named, str):
            return named
        from stepwell.executors import open_executor

        with self._lock:
            if named not in self._executors:
                self._executors[named] = open_executor(named)
            return self._executors[named]

    # -- lives

    def new_redactor(self) -> Redactor:
        """What masks the secrets of one life."""
        return Redactor()

    def hold_of(self, program: Program) -> float:
        """How long the frames of a waiting run are kept, in seconds (durable.md §3.4)."""
        for given in (program.hold, self.hold):
            if given is not None:
                return given
        if env := os.environ.get("STEPWELL_HOLD"):
            return float(env)
        return 60.0 if program.is_async else 2.0

    def observers_of(self, program: Program, run_id: str) -> tuple[Observer, ...]:
        """Who is told of the lives of a run. Raises `PluginLoadError`."""
        return (*self.observers, *program.observers(self, run_id))

    def body_of(self, want: StepWanted) -> Body:
        """What is called for one attempt of a step. A simulation puts its own around it."""
        return want.body  # type: ignore[no-any-return]

    def begin(
        self, new: NewRun, program: Program, text: str, *, lazy: bool = False, place: Place | None = None
    ) -> Life:
        """Start a run and hold it. ``text``: the encoded input. ``lazy``: its start rides with the first commit.
        ``place``: of a run that another one invoked.

        Raises:
            RunExists: the id is taken.
            JournalError: nothing was written.
        """
        observers = self.observers_of(program, new.id)
        self.register()
        lease = Lease(new.id, self.worker)
        life = Life(self, RunState(new.id), lease, program, hold=self.hold_of(program), observers=observers)
        life.input = keep(life, text)
        life.deadline = new.deadline
        records = (run_started(new, life.input, place), self._life_started(1, "start"))
        if lazy and not life.eager:
            life.line.ride(records)
            life.line.start = Start(new)
            self.flush_soon(life)
        else:
            self.writer.commit(life.line.enqueue(records, Start(new)))
        self.lives[new.id] = life
        return life

    def begin_pending(self, new: NewRun, text: str, *, place: Place | None = None) -> None:
        """Put a run on record for whoever drives it.

        Raises:
            RunExists: the id is taken.
        """
        lease = Lease(new.id, self.worker, epoch=0)
        life = Life(self, RunState(new.id), lease, NOBODY, hold=0)
        payload = keep(life, text)
        self.writer.commit(life.line.enqueue((run_started(new, payload, place),), Start(new)))

    def _life_started(self, epoch: int, why: Why) -> LifeStarted:
        return LifeStarted(self.store.now(), epoch, self.worker, why, os.getpid(), self.host_name)

    def take(self, hot: HotRow, program: Program, why: Why, *, how: str = "dead") -> Life | None:
        """Claim a run and load it. None: somebody else was quicker, or it has just ended.

        ``how``: what became of the holder, if the row names one: dead or expired.

        Raises:
            JournalError: the store cannot be used, or the run's journal is damaged.
        """
        observers = self.observers_of(program, hot.run_id)
        self.register()
        ttl = self.lease
        records: list[AnyRecord] = []
        if hot.owner is not None:
            records.append(LifeLost(self.store.now(), hot.epoch, hot.owner, how))
            why = "takeover" if why == "due" else why
            ttl = min(hot.ttl * 2, LONGEST_TTL) if how == "expired" else ttl
        records.append(self._life_started(hot.epoch + 1, why))
        status = hot.status if hot.status == "rolling_back" else "running"
        taken = Taken(hot.epoch + 1, tuple(records), status, ttl)
        with self.writer.exclusive():
            lease = self.store.run_claim(hot, self.worker, taken)
        return None if lease is None else self._life(lease, program, records, observers)

    def reopen(self, row: RunRow, epoch: int, program: Program, reopened: Sequence[AnyRecord]) -> Life | None:
        """Take an ended run up again, with `Reopened` and what is to be known with it."""
        observers = self.observers_of(program, row.id)
        self.register()
        first, *more = reopened
        records = (first, self._life_started(epoch + 1, "retry"), *more)
        taken = Taken(epoch + 1, records, "running", self.lease)
        with self.writer.exclusive():
            lease = self.store.run_reopen(row.rid, self.worker, taken)
        if lease is None:
            return None
        # What came for the run before it was reopened was meant for what it was then: a cancel ends no retry.
        return self._life(lease, program, records, observers, stale=True)

    def _life(
        self, lease: Lease, program: Program, taken: Sequence[AnyRecord], observers: Sequence[Observer], *,
        stale: bool = False,
    ) -> Life:  # fmt: skip
        try:
            run = load(self.store, lease.run_id, lease.rid or 0)
        except JournalError as error:
            self._let_go(lease, error)
            raise
        life = Life(self, run, lease, program, hold=self.hold_of(program), observers=observers)
        if life.watch is not None:
            life.watch.put(taken)
        self.lives[lease.run_id] = life
        if lease.inbox:
            life.outside.cancel_seen = life.outside.cancel_seen or stale
            self.take_inbox(life)
            life.outside.cancel_seen = run.cancel is not None
        return life

    def _let_go(self, lease: Lease, error: JournalError) -> None:
        """A run that was claimed cannot be read: nobody may call it running (P5). A damaged one needs a person."""
        status: OpenStatus = "blocked" if isinstance(error, Corrupt) else "interrupted"
        line = Line(self.writer, lease, lambda _records: None)
        try:
            self.writer.commit(line.enqueue((), Release(status, str(error)[:500])))
        except JournalError as second:
            self.complain(f"run {lease.run_id} could not be handed back: {second}")

    def drive(self, life: Life) -> Ending:
        """Run a sync life on this thread, to its ending."""
        life.driver = threading.current_thread()
        shield.install()
        try:
            # In a copy: the next life of the run must not meet what this one has set.
            ending = copy_context().run(live, life)
            if life.watch is not None:
                life.watch.end(ending)
            return ending
        finally:
            shield.remove()
            self.forget(life)

    async def drive_async(self, life: Life) -> Ending:
        """Run an async life on the running loop, to its ending."""
        import asyncio

        from stepwell.runtime._live_async import live_async

        life.driver = asyncio.current_task()
        life.loop = asyncio.get_running_loop()
        try:
            ending = await live_async(life)
            if life.watch is not None:
                life.watch.end(ending)
            return ending
        finally:
            self.forget(life)

    def dispatch(self, life: Life, then: Callable[[Ending], None]) -> None:
        """Run a life in the background: sync on a thread of the pool, async on the engine's loop."""
        if not life.is_async:
            self.threads.submit(Job(lambda: then(self.drive(life))))
            return
        import asyncio

        async def work() -> None:
            then(await self.drive_async(life))

        asyncio.run_coroutine_threadsafe(work(), self.loop())

    def forget(self, life: Life) -> None:
        """The life has ended."""
        with life.lock:
            life.ended = True
        life.outside.do_later()
        if self.lives.get(life.run.id) is life:
            del self.lives[life.run.id]
        if not self.forked:
            self.store.poke()

    def flush_soon(self, life: Life) -> None:
        """Something rides that must not ride for long."""
        if not self.pulse.ticking and self._background and not self.forked:
            self.pulse.arm()

    def give_back(self, life: Life) -> None:
        """The life's driver is gone, or does not end: hand its lease back."""
        from stepwell.runtime._live import release

        life.stop(LifeOver("the driver of the run is gone"))
        release(life, "rolling_back" if life.rolling_back else "interrupted", "the driver of the run was gone")
        self.forget(life)

    def release_again(self) -> None:
        """Hand back the leases that could not be handed back when their lives ended."""
        from stepwell.runtime._live import release

        waiting, self.unreleased = self.unreleased, []
        for life, status, reason in waiting:
            release(life, status, reason)

    def take_inbox(self, life: Life) -> None:
        """Move what came from outside into the run's records, and let the life react."""
        try:
            ticket: Ticket | None = life.outside.inbox_ticket()
            if ticket is not None:
                life.settle(ticket)
        except (Suspend, NonDeterminismError):
            # The life is parking, or over: what lies in the inbox is taken by the park itself, or by the next life.
            # Nothing of the sort may get to the beat, which keeps the leases of all other runs.
            return
        life.outside.react(ticket)

    def nudge(self, facts: Sequence[Outgoing]) -> None:
        """These were delivered with a batch: runs of this process need not look for them."""
        for fact in facts:
            life = self.lives.get(fact.run_id)
            if life is not None:
                self.take_inbox(life)


def _run_loop(loop: asyncio.AbstractEventLoop, is_over: Callable[[], bool]) -> None:
    import asyncio

    asyncio.set_event_loop(loop)
    try:
        while True:
            try:
                loop.run_forever()
            except (KeyboardInterrupt, SystemExit):
                # A task left with it, and has it for whoever awaits the task; asyncio lets it out of the loop as well.
                # The loop is everybody's: one run that leaves ends no other.
                if not is_over():
                    continue
            break
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=2))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _after_fork() -> None:
    # In the child no host beats, writes or waits for anybody; its lives are the parent's, and end where they stand.
    for host in list(_hosts):
        host.forked = True
        gone = JournalError(f"{host.store.url} was opened before this process was forked: open it again")
        for life in list(host.lives.values()):
            life.lock = threading.Lock()
            life.over = LifeOver("forked", gone)


os.register_at_fork(after_in_child=_after_fork)
