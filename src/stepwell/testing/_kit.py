"""What both runners stand on: a real engine in this process whose time jumps when nothing runs."""

from __future__ import annotations

import copy
import threading
import time
from typing import TYPE_CHECKING, Any, cast

from stepwell.client._drive import Drive
from stepwell.client._engine import Engine
from stepwell.client._ids import new_id
from stepwell.client._none import NONE
from stepwell.client._outcome import state_of
from stepwell.client._retry import ENDED
from stepwell.client._views import OPEN
from stepwell.core import US
from stepwell.durable._function import DurableFunction
from stepwell.durable._program import DurableProgram
from stepwell.errors import JournalError, UsageError
from stepwell.journal import RunFilter, SystemClock, open_store
from stepwell.journal._memory import MemoryStore
from stepwell.runtime import Host
from stepwell.runtime._run_journal import Place
from stepwell.testing._kit_crash import Crashes
from stepwell.testing._kit_store import CRASHED, Bell, KitStore
from stepwell.testing._kit_timers import RunStates, own_timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.client import RunHandle
    from stepwell.core import RunState
    from stepwell.journal import RunRow, Store
    from stepwell.runtime import Ending, Life, Program

GRACE = 1.0
"""Seconds that bodies which still run get at the end, before they are left behind."""


class KitHost(Host):
    """A host that keeps no frames: each wait of a run under test is a real replay."""

    def hold_of(self, program: Program) -> float:
        """None at all, whatever the function says."""
        return 0.0


class KitDrive(Drive):
    """A drive that tells what ended a life from inside: `pytest.fail`, Ctrl-C and their like go to the test."""

    def _then(self, life: Life) -> Callable[[Ending], None]:
        run_id = life.run.id
        then, asked = super()._then(life), self._asked.get(run_id)

        def told(ending: Ending) -> None:
            if ending.how == "interrupted" and ending.error is not None:
                self.failures[run_id] = ending
                self._forget(run_id, asked)
            then(ending)

        return told


class Kit:
    """See the module. Opens what it needs at first use, and again after `close`; runs in memory outlive that."""

    def __init__(self, store: str | None = None, *, skip_time: bool = True) -> None:
        self.skip_time = skip_time
        self.url = store
        self.crashes = Crashes()
        self.bell = Bell()
        self._memory: MemoryStore | None = None if store else MemoryStore(f"kit-{new_id()}")
        self._offset = 0
        self._lock = threading.RLock()
        self._engine: Engine | None = None
        self._store: KitStore | None = None
        self._states: RunStates | None = None
        self._given: dict[str, tuple[Any, bool]] = {}
        """What was registered: name to function, and whether it is a durable one."""

    # -- life

    @property
    def engine(self) -> Engine:
        """The engine; opened at first use."""
        with self._lock:
            if self._engine is None:
                self._open()
            assert self._engine is not None
            return self._engine

    @property
    def store(self) -> KitStore:
        """The store as the engine sees it."""
        _ = self.engine
        assert self._store is not None
        return self._store

    def _open(self) -> None:
        real: Store
        if self._memory is not None:
            real = cast("Store", self._memory.view())
        else:
            real = open_store(self.url)
        store = self._store = KitStore(real, self.bell, self.crashes)
        store.offset = self._offset
        settings = {"retry": None, "serdes": None}
        store.host = host = KitHost(cast("Store", store), clock=SystemClock(), settings=settings)
        self._engine = Engine(cast("Store", store), host=host)
        self._engine._drive = KitDrive(self._engine, host)
        self._states = RunStates(real)
        store.sleeper = self if self.skip_time else None
        for name, (function, durable) in self._given.items():
            self._register(name, function, durable=durable)

    def close(self) -> None:
        """End everything that runs, within some `GRACE` seconds. Idempotent."""
        with self._lock:
            engine, self._engine = self._engine, None
            if self._store is not None:
                self._offset = self._store.offset
                self._store.sleeper = None
        if engine is not None:
            engine.stop(grace=GRACE)

    # -- functions

    def register(self, name: str, function: Any, *, durable: bool) -> None:
        """Make a function known under this name, as long as the kit lives."""
        self._given[name] = (function, durable)
        if self._engine is not None:
            self._register(name, function, durable=durable)

    def _register(self, name: str, function: Any, *, durable: bool) -> None:
        assert self._engine is not None
        if durable:
            self._engine.register(called(function, name), name)
        else:
            self._engine.register_function(name, function)

    # -- runs

    def start(
        self, function: DurableFunction, event: Any, run_id: str | None = None, *, tenant: str | None = None
    ) -> RunHandle:
        """Start a run, or attach to the one with this id. It is driven in the background."""
        engine = self.engine
        if tenant is None:
            return engine.start_run(function, event, id=run_id)
        run_id = run_id or new_id()
        text = engine._encode(function, {} if event is NONE else event)
        place = Place(None, tenant, 0)
        life = engine.host.begin(
            engine._new(function, run_id, text, (), None), DurableProgram(function), text, place=place
        )
        engine.drive.keep(function, run_id, life)
        return engine.get_run(run_id)

    def wait(self, run_id: str, timeout: float) -> bool:
        """Wait for the end of a run, at most ``timeout`` real seconds; whether it has ended or is blocked.

        Raises:
            BaseException: what ended its life from inside, such as a failing assertion of the test framework.
        """
        drive = self.engine.drive
        try:
            drive.wait(run_id, timeout)
        except TimeoutError:
            return False
        ending = drive.failures.pop(run_id, None)
        if ending is not None:
            assert ending.error is not None
            raise ending.error
        return True

    def shown(self, run_id: str) -> RunState:
        """The run as it stands, with what rides: a step that hangs is on record as started."""
        host = self.engine.host
        life = host.lives.get(run_id)
        if life is not None and life.over is None:
            try:
                host.writer.commit(life.line.enqueue())
            except JournalError:
                pass  # it has just ended
        return state_of(self.engine.store, self.row(run_id))

    def row(self, run_id: str) -> RunRow:
        """The run's row in the catalogue."""
        return self.engine.find(run_id)

    # -- time

    def jump(self) -> bool:
        """Let time jump to the next timer of a run's own, if no code of any run runs; True if it did."""
        with self._lock:
            store, states = self._store, self._states
            if self._engine is None or store is None or states is None:
                return False
            times = self._timers(store, states)
            if not times:
                return False
            store.offset += max(0, min(times) - store.now())
        self.bell.ring()
        return True

    def _timers(self, store: KitStore, states: RunStates) -> list[int]:
        """Own timers of all runs; none while one of them runs or is about to."""
        times: list[int] = []
        for row in store._real.run_list(RunFilter(statuses=OPEN), limit=100_000):
            if self._runs(row, store):
                return []
            if row.status != "blocked" and row.id not in store.paused:
                times += [at for at in own_timers(states.get(row.rid, row.id)) if at > store.now()]
        return times

    def _runs(self, row: RunRow, store: KitStore) -> bool:
        """Whether code of this run runs, or is about to."""
        if row.owner is not None:
            return True
        if row.status == "blocked" or row.id in store.paused:
            return False
        due = row.status != "waiting" or (row.wake_at is not None and row.wake_at <= store.now())
        assert self._engine is not None
        return due and self._engine.function_for(row) is not None

    def is_settled(self) -> bool:
        """Nothing runs, and nothing will before something comes from outside or time passes."""
        store = self.store
        assert self._states is not None
        rows = store._real.run_list(RunFilter(statuses=OPEN), limit=100_000)
        if any(self._runs(row, store) for row in rows) or (store.host is not None and store.host.lives):
            return False
        return not (self.skip_time and self._timers(store, self._states))

    def settle(self, timeout: float = 60.0) -> None:
        """Wait until nothing runs any more.

        Raises:
            TimeoutError: something still runs after ``timeout`` real seconds.
        """
        self.until(self.is_settled, timeout, "something still runs")

    def until(self, there: Callable[[], Any], timeout: float, otherwise: str) -> Any:
        """Wait until ``there()`` gives something true, and return that.

        Raises:
            TimeoutError: it did not within ``timeout`` real seconds.
        """
        end = time.monotonic() + timeout
        while not (found := there()):
            left = end - time.monotonic()
            if left <= 0:
                message = f"after {timeout:g} s {otherwise}"
                raise TimeoutError(message)
            self.store.wait(min(left, 0.25))
        return found

    def advance(self, seconds: float) -> None:
        """Let time pass for the outside: past deadlines of callbacks, heartbeats, signals and runs.

        Raises:
            UsageError: time is real here, or ``seconds`` is negative.
        """
        if not self.skip_time:
            message = "advance() moves virtual time; with skip_time=False time is real"
            raise UsageError(message)
        if seconds < 0:
            message = f"time does not pass backwards: advance({seconds!r})"
            raise UsageError(message)
        self.settle()
        self.store.offset += round(seconds * US)
        self.bell.ring()
        self.settle()


def called(function: Any, name: str | None) -> DurableFunction:
    """The durable function under another name. The table of the process still has it under its own."""
    durable = function if isinstance(function, DurableFunction) else DurableFunction(function)
    if name is None or name == durable.name:
        return durable
    twin = copy.copy(durable)
    twin.name = name
    return twin


__all__ = ["CRASHED", "ENDED", "Kit", "called"]
