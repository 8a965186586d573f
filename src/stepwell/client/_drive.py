"""Who takes runs up: a caller that waits for one, and the coordinator thread that serves queues and what was asked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from stepwell.client._outcome import blocked_error, outcome
from stepwell.client._retry import ENDED
from stepwell.core import US
from stepwell.durable._duration import to_seconds
from stepwell.durable._program import DurableProgram
from stepwell.errors import JournalError, NonDeterminismError, RunHeld, UnknownRun
from stepwell.runtime._live import block, release
from stepwell.runtime._nobody import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.client._engine import Engine
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import HotRow, RunRow
    from stepwell.runtime import Ending, Host, Life
    from stepwell.runtime._api import Why

LONGEST_NAP = 0.25
"""Seconds between two looks at the store where nothing tells of a change."""
CLAIMS = 64
MOST_LEFT = 5
"""Lives in a row that may leave with a SystemExit or its like before the run is blocked, as when processes die."""


class Parked(Exception):
    """The run waits and its caller does not (``--no-wait``)."""

    def __init__(self, wake_at: int | None) -> None:
        super().__init__("parked")
        self.wake_at = wake_at


class Asked:
    """One time that somebody asked for a run to be driven."""

    __slots__ = ("function",)

    def __init__(self, function: DurableFunction) -> None:
        self.function = function


class Drive:
    """See the module."""

    def __init__(self, engine: Engine, host: Host) -> None:
        self._engine = engine
        self._host = host
        self._asked: dict[str, Asked] = {}
        self._serve = False
        self._left: dict[str, tuple[int, int, BaseException]] = {}
        """Runs whose last life here left: how often in a row, how many operations had ended then, and with what."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._silent: dict[str, float] = {}
        self._silent_until = float("-inf")
        self.failures: dict[str, Ending] = {}
        """How lives in the background ended that could not go on here; their waiters are told."""

    # -- a caller that waits

    def until_end(
        self, function: DurableFunction, run_id: str, life: Life | None, timeout: Any = None, *,
        wait: bool = True, why: Why = "due",
    ) -> Any:  # fmt: skip
        """Drive or watch the run until it has ended; its value, or the error of its end.

        Raises:
            Parked: without ``wait``, where it waits.
            RunHeld: without ``wait``, where somebody else drives it.
        """
        if timeout is not None:
            self.keep(function, run_id, life)
            return self.watch(run_id, to_seconds(timeout))
        while True:
            if life is not None:
                if not wait:
                    life.hold = 0  # whatever its function says: nothing is waited for here
                ending = self._live(life)
                self._raise_for(ending, run_id)
                if ending.how == "ended":
                    return self._value(life, function)
                if ending.how == "parked" and not wait:
                    raise Parked(ending.wake_at)
            row = self._row(run_id)
            if row.status in ENDED:
                return self._engine.result(row)
            life = self._take(function, row, why)
            if life is None:
                self._check_blocked(run_id)
                if not wait:
                    self._refuse_to_wait(run_id)
                self._nap(run_id)

    def _refuse_to_wait(self, run_id: str) -> None:
        """What only waiting could bring on is not waited for; a run that has just ended or come free is looked at."""
        store = self._host.store
        hot = store.hot_get(run_id)
        if hot is None:
            return
        silent = 0.0 if hot.owner in (None, self._host.worker) else store.worker_silence().get(hot.owner, float("inf"))
        if hot.owner is not None and silent < hot.ttl:
            message = f"run {run_id} is {hot.status}: {hot.owner} holds it"
            raise RunHeld(message, run_id=run_id, holder=hot.owner, hint=f"stepwell wait {run_id}")
        if hot.owner is None and hot.status == "waiting" and (hot.wake_at is None or hot.wake_at > store.now()):
            raise Parked(hot.wake_at)

    def _live(self, life: Life) -> Ending:
        """One life: on this thread for sync functions, on the engine's loop for async ones."""
        if not life.is_async:
            return self._host.drive(life)
        done, endings = threading.Event(), []

        def then(ending: Ending) -> None:
            endings.append(ending)
            done.set()

        self._host.dispatch(life, then)
        try:
            while not done.wait(0.5):
                if life.ended and not endings and done.wait(5):
                    break
        except BaseException as error:
            from stepwell.runtime._api import LifeOver

            life.stop(LifeOver("interrupted", error))
            done.wait(10)
            raise
        return endings[0]

    def _raise_for(self, ending: Ending, run_id: str) -> None:
        if ending.how == "blocked":
            if isinstance(ending.error, NonDeterminismError):
                raise ending.error
            raise blocked_error(self._row(run_id))
        if ending.how == "failed" or (ending.how == "interrupted" and ending.error is not None):
            assert ending.error is not None
            raise ending.error
        if ending.how == "interrupted" and self._stop.is_set():
            message = "the engine was stopped"
            raise JournalError(message)

    def _value(self, life: Life, function: DurableFunction) -> Any:
        run = life.run
        row = self._row_like(run.id)
        return outcome(self._host.store, row, run, function.codec(life))

    def _row_like(self, run_id: str) -> Any:
        from types import SimpleNamespace

        return SimpleNamespace(id=run_id, status="ended")

    def _row(self, run_id: str) -> RunRow:
        row = self._host.store.run_get(run_id)
        if row is None:
            message = f"run {run_id} is gone from the store"
            raise UnknownRun(message, run_id=run_id)
        return row

    def _check_blocked(self, run_id: str) -> None:
        row = self._row(run_id)
        if row.status == "blocked":
            raise blocked_error(row)

    def _take(self, function: DurableFunction, row: RunRow, why: Why) -> Life | None:
        """Claim the run if it is due and nobody alive holds it."""
        store = self._host.store
        hot = store.hot_get(row.id)
        if hot is None or hot.run_id in self._host.lives:
            return None
        how = "dead"
        if hot.owner is not None:
            silent = store.worker_silence().get(hot.owner, float("inf"))
            if hot.owner == self._host.worker or silent < hot.ttl:
                return None
            how = "dead" if silent == float("inf") else "expired"
        elif hot.status == "blocked" or (
            hot.status == "waiting" and (hot.wake_at is None or hot.wake_at > store.now())
        ):
            return None
        return self._host.take(hot, DurableProgram(function, row.function), why, how=how)

    def leave_to_undo(self, row: RunRow) -> bool:
        """A run that was cancelled, that nobody holds and whose code is not known here: it shows as rolling back, with
        the reason, until a worker that knows it undoes what it has done. False: somebody holds it, or it has ended.
        """
        store = self._host.store
        hot = store.hot_get(row.id)
        if hot is None:
            return False
        how = "dead"
        if hot.owner is not None:
            silent = store.worker_silence().get(hot.owner, float("inf"))
            if hot.owner == self._host.worker or silent < hot.ttl:
                return False
            how = "dead" if silent == float("inf") else "expired"
        life = self._host.take(hot, NOBODY, "resume", how=how)
        if life is None:
            return False
        release(life, "rolling_back", f"waiting for a worker that knows {row.function}")
        self._host.forget(life)
        return True

    def resume_blocked(self, function: DurableFunction, row: RunRow) -> Life | None:
        """Claim a blocked run, because a person says so."""
        hot = self._host.store.hot_get(row.id)
        if hot is None or hot.owner is not None:
            return None
        return self._host.take(hot, DurableProgram(function, row.function), "resume")

    def _nap(self, run_id: str) -> None:
        self._host.store.wait(self._nap_for(run_id))

    def _nap_for(self, run_id: str) -> float:
        hot = self._host.store.hot_get(run_id)
        if hot is None or hot.wake_at is None or hot.owner is not None:
            return LONGEST_NAP
        return min(LONGEST_NAP, max(0.001, (hot.wake_at - self._host.store.now()) / US))

    def watch(self, run_id: str, timeout: float | None = None) -> Any:
        """Wait for the run without driving it on this thread.

        Raises:
            TimeoutError: the time is over; the run goes on.
        """
        row = self.wait(run_id, timeout)
        ending = self.failures.pop(run_id, None)
        if ending is not None:
            self._raise_for(ending, run_id)
        if row.status == "blocked":
            raise blocked_error(row)
        return self._engine.result(row)

    def wait(self, run_id: str, timeout: float | None = None) -> RunRow:
        """Wait until the run has ended or is blocked; its row then. Raises `TimeoutError`."""
        clock, store = self._host.clock, self._host.store
        end = None if timeout is None else clock.monotonic() + timeout
        while True:
            row = self._row(run_id)
            if row.status in ENDED or row.status == "blocked" or run_id in self.failures:
                return row
            left = LONGEST_NAP if end is None else min(LONGEST_NAP, end - clock.monotonic())
            if left <= 0:
                message = f"run {run_id} has not ended within {timeout:g} s; it goes on"
                raise TimeoutError(message)
            store.wait(left)

    async def until_end_async(
        self, function: DurableFunction, run_id: str, life: Life | None, timeout: Any = None
    ) -> Any:
        """As `until_end`, on the caller's loop."""
        import asyncio

        if timeout is not None or not function.is_async:
            self.keep(function, run_id, life)
            return await asyncio.to_thread(self.watch, run_id, None if timeout is None else to_seconds(timeout))
        while True:
            if life is not None:
                ending = await self._host.drive_async(life)
                self._raise_for(ending, run_id)
                if ending.how == "ended":
                    return self._value(life, function)
            row = self._row(run_id)
            if row.status in ENDED:
                return self._engine.result(row)
            life = self._take(function, row, "due")
            if life is None:
                self._check_blocked(run_id)
                await self._nap_async(run_id)

    async def _nap_async(self, run_id: str) -> None:
        import asyncio

        await asyncio.sleep(min(0.05, self._nap_for(run_id)))

    # -- in the background

    def keep(self, function: DurableFunction, run_id: str, life: Life | None) -> None:
        """Drive this run in the background until it has ended."""
        with self._lock:
            self._asked[run_id] = Asked(function)
        if life is not None:
            self._host.dispatch(life, self._then(life))
        self.start()

    def _then(self, life: Life) -> Callable[[Ending], None]:
        run_id = life.run.id
        asked = self._asked.get(run_id)

        def then(ending: Ending) -> None:
            self._count_left(life, ending)
            if ending.how in ("ended", "blocked", "failed"):
                # First: who is told of the failure may ask for the run again at once.
                self._forget(run_id, asked)
                if ending.how == "failed":
                    self.failures[run_id] = ending
            self._host.store.poke()

        return then

    def _count_left(self, life: Life, ending: Ending) -> None:
        """A life in the background that left with a SystemExit or its like has no caller that would get it: the run
        is taken up again, but not for ever.
        """
        error, run_id = ending.error, life.run.id
        if ending.how != "interrupted" or error is None or isinstance(error, Exception) or self._stop.is_set():
            self._left.pop(run_id, None)
            return
        times, before, _ = self._left.get(run_id, (0, -1, error))
        done = sum(op.ended for op in list(life.run.ops.values()))
        self._left[run_id] = (times + 1 if done == before else 1, done, error)

    def _forget(self, run_id: str, asked: Asked | None) -> None:
        """It is driven no further, unless somebody has asked for it anew since: a run may be retried before whoever
        drove it has heard of its end.
        """
        with self._lock:
            if self._asked.get(run_id) is asked:
                self._asked.pop(run_id, None)

    def start(self, *, serve: bool = False) -> None:
        """Start the coordinator. ``serve``: it drives every due run of the engine's queues. Idempotent."""
        with self._lock:
            self._serve = self._serve or serve
            if self._thread is None:
                self._thread = threading.Thread(target=self._coordinate, name="stepwell-coordinator", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the coordinator. Idempotent."""
        self._stop.set()
        self._host.store.poke()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _coordinate(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                nap = self._next_nap()
            except JournalError as error:
                self._host.complain(f"the store cannot be read just now: {error}")
                self._stop.wait(1.0)
                continue
            except Exception as error:
                self._host.complain(f"the coordinator met {error!r}")
                self._stop.wait(1.0)
                continue
            self._host.store.wait(nap)

    def look(self) -> int:
        """Take up what is due. Returns how many lives began."""
        begun = 0
        for run_id, asked in list(self._asked.items()):
            if run_id not in self._host.lives:
                row = self._row(run_id)
                if row.status in ENDED or row.status == "blocked":
                    self._forget(run_id, asked)
                    continue
                life = self._take(asked.function, row, "due")
                begun += self._dispatch(life, run_id)
        if self._serve:
            begun += self._serve_queues()
        return begun

    def _serve_queues(self) -> int:
        host, store = self._host, self._host.store
        room = host.max_threads * 4 - len(host.lives)
        if room <= 0:
            return 0
        silent = self._silence()
        due = store.hot_due(
            now=store.now(), queues=self._engine.queues, functions=None, silent=silent, limit=min(room, CLAIMS)
        )
        begun = 0
        for hot in due:
            begun += self._claim(hot, silent)
        return begun

    def _silence(self) -> dict[str, float]:
        """Who is silent, looked up a few times a second: a run that has just come does not wait for that."""
        now = self._host.clock.monotonic()
        if now >= self._silent_until:
            self._silent = dict(self._host.store.worker_silence())
            self._silent_until = now + LONGEST_NAP
        return self._silent

    def _claim(self, hot: HotRow, silent: dict[str, float]) -> int:
        host = self._host
        if hot.run_id in host.lives or hot.owner == host.worker:
            return 0
        function = self._engine.function_for(hot)
        if function is None:
            return 0
        how = "expired" if hot.owner is not None and silent.get(hot.owner, 0.0) != float("inf") else "dead"
        life = host.take(hot, DurableProgram(function, hot.function), "due", how=how)
        return self._dispatch(life, hot.run_id)

    def _dispatch(self, life: Life | None, run_id: str) -> int:
        if life is None:
            return 0
        times, _, error = self._left.get(run_id, (0, 0, None))
        if times >= MOST_LEFT:
            del self._left[run_id]
            said = f"{type(error).__name__}: {error}".removesuffix(": ")
            block(life, f"crashes: {said} ended {times} lives in a row")
            self._host.forget(life)
            return 0
        self._host.dispatch(life, self._then(life))
        return 1

    def _next_nap(self) -> float:
        store = self._host.store
        wake = store.hot_next_wake(queues=self._engine.queues, functions=None)
        if wake is None:
            return LONGEST_NAP
        return min(LONGEST_NAP, max(0.005, (wake - store.now()) / US))
