"""Somebody outside of simulated runs: answers callbacks and sends signals, at seeded moments.

They have a view of the store and an engine of their own, and act whether or not a process lives: at their time, between
two appends, while no process is there, from within a body; twice, too late, and in the moment of the deadline.
"""

from __future__ import annotations

import random
from binascii import crc32
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, cast

from stepwell.client import Engine
from stepwell.client._answers import answer, error_record, heartbeat, signal
from stepwell.core import US, CallbackCreated, Reopened, RunStarted, SignalAwaited
from stepwell.errors import BadArguments, UsageError
from stepwell.journal import Writer
from stepwell.runtime import Host
from stepwell.testing._baton import BatonThreads, Power

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import AnyRecord
    from stepwell.testing._world import World

DELAYS = (0.0, 0.0, 0.3, 4.0, 25.0, 90.0)
"""Seconds after which somebody answers."""
SURELY = (0.0, 1.0, 40.0)
"""The same where the run would wait for ever."""


def refuses(key: str) -> bool:
    """Whether the callback at this key is answered with a failure: whoever answers, and when."""
    return crc32(key.encode()) % 4 == 0


class OutsideStore:
    """A view of the store in which what is accepted is noted."""

    def __init__(self, world: World, real: Any) -> None:
        self._world = world
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes, claim: Any = None) -> bool:
        """As `stepwell.journal.Store.fact_deliver`."""
        return self._world.deliver(self._real, run_id, kind, at, data, claim)


class Outsider:
    """See the module. ``later``: calls a function after so many seconds."""

    def __init__(self, world: World, real: Any, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._world = world
        self._later = later
        self._dice = random.Random(f"outside {world.name}")
        self._count = 0
        self._plans: list[tuple[int, int, Callable[[], None]]] = []
        """What is still to be done: when (microseconds on the clock that never steps), in which order, what."""
        store = cast("Any", OutsideStore(world, real))
        threads = BatonThreads(world.baton, Power())
        host = Host(
            store, clock=world.clock, threads=cast("Any", threads), writer=Writer(store, inline=True), background=False
        )
        self._engine = Engine(store, host=host)

    # -- what is to be done

    def wrote(self, run_id: str, record: AnyRecord) -> None:
        """This is on record: somebody outside may react to it."""
        dice = self._dice
        match record:
            case RunStarted() if dice.random() < 0.5:
                for name in dice.sample("stgh", dice.randint(1, 2)):
                    self._plan_signal(run_id, name, dice.choice(DELAYS))
            case SignalAwaited(signal=name, until=until):
                if until is None:
                    self._plan_signal(run_id, name, dice.choice(SURELY))
                elif dice.random() < 0.7:
                    exact = (until - record.at) / US
                    self._plan_signal(run_id, name, dice.choice((*DELAYS, exact, exact)))
            case CallbackCreated():
                self._plan_answers(run_id, record)
            case Reopened():
                self._reopened(run_id)
            case _:
                pass

    def _reopened(self, run_id: str) -> None:
        """Who was refused while the run had ended tries again, where the run would wait for ever."""
        tale = self._world.tales[run_id]
        for op in tale.durable.ops.values():
            if op.status != "started" or op.until:
                continue
            if op.kind == "callback" and op.key in tale.letters.callbacks:
                made = tale.letters.callbacks[op.key].created
                self._plan(self._dice.choice(SURELY), lambda made=made: self.answer(run_id, made))  # type: ignore[misc]
            elif op.kind == "signal" and op.signal is not None:
                self._plan_signal(run_id, op.signal, self._dice.choice(SURELY))

    def _plan_answers(self, run_id: str, made: CallbackCreated) -> None:
        dice = self._dice
        ends = None if made.timeout_at is None else (made.timeout_at - made.at) / US
        beat = None if made.heartbeat is None else made.heartbeat / US
        if ends is None and beat is None:
            self._plan(dice.choice(SURELY), lambda: self.answer(run_id, made))
        else:
            times = [time for time in (ends, beat) if time is not None]
            for part in range(1, dice.randint(0, 3) + 1 if beat is not None else 0):
                self._plan((beat or 0) * part * dice.choice((0.5, 1.0)), lambda: self._beat(made))
            if dice.random() < 0.8:
                when = dice.choice((*DELAYS, *times, *times, min(times) + 1))
                self._plan(when, lambda: self.answer(run_id, made))
        if dice.random() < 0.3:
            self._plan(dice.choice(DELAYS), lambda: self.answer(run_id, made))

    def _plan_signal(self, run_id: str, name: str, seconds: float) -> None:
        key = f"k{self._number()}" if self._dice.random() < 0.3 else None
        for _ in range(1 if key is None else 2):
            self._plan(seconds, lambda: self._signal(run_id, name, key))

    def _plan(self, seconds: float, do: Callable[[], None]) -> None:
        at = round(self._world.clock.monotonic() * US) + round(seconds * US)
        heappush(self._plans, (at, self._number(), do))
        self._later(seconds, self._due)

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _due(self) -> None:
        now = round(self._world.clock.monotonic() * US)
        while self._plans and self._plans[0][0] <= now:
            heappop(self._plans)[2]()

    def hurry(self, likely: float) -> None:
        """A moment at which somebody may be quicker than planned."""
        if self._plans and self._dice.random() < likely:
            heappop(self._plans)[2]()

    # -- doing it

    def answer(self, run_id: str, made: CallbackCreated, engine: Engine | None = None) -> None:
        """Answer a callback."""
        text, number = f"{made.key}!{self._number()}", self._number()
        engine = engine or self._engine
        self._world.trace.append(f"{run_id} answer {made.key}")
        try:
            if refuses(made.key):
                answer(engine, made.callback_id, error=error_record(text))
            elif made.form is None:
                answer(engine, made.callback_id, text=text)
            else:
                if number % 3 == 0:
                    self._misfit(made)
                answer(engine, made.callback_id, text=f'{{"n":{number},"of":"{text}"}}')
        except UsageError:
            self._world.trace.append(f"{run_id} refused {made.key}")

    def _misfit(self, made: CallbackCreated) -> None:
        """An answer that the form refuses, where there is one."""
        if made.form is None or '"model":null,"schema":null' in made.form:
            return
        try:
            answer(self._engine, made.callback_id, text='{"n":"many"}')
        except BadArguments:
            return
        except UsageError:
            return
        self._world.say("outside", made.key, "an answer was accepted that does not fit the form")

    def _beat(self, made: CallbackCreated) -> None:
        self._world.trace.append(f"beat {made.key}")
        try:
            heartbeat(self._engine, made.callback_id)
        except UsageError:
            self._world.trace.append(f"refused {made.key}")

    def _signal(self, run_id: str, name: str, key: str | None) -> None:
        self._world.trace.append(f"{run_id} signal {name}")
        try:
            signal(self._engine, run_id, name, f"{name}!{self._number()}", key)
        except UsageError:
            self._world.trace.append(f"{run_id} refused {name}")
