"""The bodies of simulated programs: each writes in the ledger before and after, and takes its time in between."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from stepwell.runtime._scope import current_attempt
from stepwell.testing._baton import at_once
from stepwell.testing._process import Died, Killed, far

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stepwell.testing._ledger import Tale
    from stepwell.testing._process import Process
    from stepwell.testing._programs import Node

    Tales = dict[str, Tale]

LIMITS = {"time": 60.0, "beat": 40.0}
FAR_LIMIT = 10.0
TOO_LONG = 150.0
"""Seconds: longer than any limit."""
ROWS = "simulated_rows"
"""The user's table that transactional steps write to."""


class Flaky(Exception):
    """What the bodies of programs raise."""


class Bodies:
    """What one run's program hands to operations. In a sync run no ``await`` here ever suspends."""

    def __init__(self, tale: Tale) -> None:
        self.tale = tale
        self.world = tale.world

    # -- functions of the run's colour

    def plain(self, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """A function without parameters."""
        if self.world.is_async:

            async def slow() -> Any:
                return await make()

            return slow

        def quick() -> Any:
            return at_once(make())

        return quick

    def one(self, make: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """A function of one parameter."""
        if self.world.is_async:

            async def slow(context: Any) -> Any:
                return await make(context)

            return slow

        def quick(context: Any) -> Any:
            return at_once(make(context))

        return quick

    def two(self, make: Callable[[Any, Any], Coroutine[Any, Any, Any]]) -> Any:
        """A function of two parameters."""
        if self.world.is_async:

            async def slow(context: Any, other: Any) -> Any:
                return await make(context, other)

            return slow

        def quick(context: Any, other: Any) -> Any:
            return at_once(make(context, other))

        return quick

    # -- bodies

    def flaky(self, text: str) -> Flaky:
        """An error of the program's own."""
        return Flaky(text)

    def limit_of(self, node: Node) -> float:
        """Seconds that an attempt, or the time between two heartbeats, may take."""
        return FAR_LIMIT if node.far else LIMITS[node.limit or "time"]

    async def body(self, fails: int, value: Any) -> Any:
        """The plainest: it fails so many times, then it has its value."""
        ledger = _Here(self.tale)
        ledger.begins()
        await self.pause(ledger.process, self.world.lingers(ledger.process))
        return ledger.ends(fails, value)

    async def step_body(self, node: Node, context: Any) -> Any:
        """Of a step, which may be limited or deadly."""
        ledger = _Here(self.tale)
        process, limited = ledger.process, node.limit is not None
        ledger.begins(once=node.once)
        seconds = self.world.lingers(process, deadly=node.deadly)
        if node.limit == "beat":
            context.heartbeat(ledger.attempt)
        if limited and ledger.attempt <= node.slow:
            seconds = TOO_LONG
        began = self.world.clock.monotonic()
        await self.pause(process, seconds)
        late = limited and self.world.clock.monotonic() - began > self.limit_of(node)
        if node.limit == "beat" and not late:
            context.heartbeat()
        return ledger.ends(node.fails, node.name, late=late)

    async def transactional_body(self, node: Node, context: Any) -> Any:
        """Of a step that shares a transaction with the store. Others cannot write meanwhile: it does not linger."""
        ledger = _Here(self.tale)
        ledger.begins()
        self.world.lingers(ledger.process)
        context.connection.execute(f"create table if not exists {ROWS} (run text, key text)")
        context.connection.execute(f"insert into {ROWS} values (?, ?)", (self.tale.id, ledger.key))
        return ledger.ends(node.fails, node.name)

    async def pause(self, process: Process, seconds: float) -> None:
        """Others may run meanwhile. Raises `Unplugged` if the process has ended by then."""
        if not self.world.is_async:
            process.threads.pause(seconds)
            return
        import asyncio

        await asyncio.sleep(seconds)
        if process.dead:
            self.world.lingers(process)


class _Here:
    """The ledger's side of the attempt that runs here."""

    def __init__(self, tale: Tale) -> None:
        found = current_attempt.get()
        assert found is not None
        life = found.scope.life
        self.tale = tale
        self.process: Process = life.host.process  # type: ignore[attr-defined]
        self.life = life.lease.epoch
        self.number: int = vars(life)["number"]
        if life.ended and not self.process.dead:
            tale.say("after", found.key, f"attempt {found.attempt} begins after its life has ended")
        self.key = found.key
        self.attempt = found.attempt

    def begins(self, *, once: bool = False) -> None:
        """A line before the work."""
        if self.process.dead:
            self.tale.world.lingers(self.process)
        self.tale.body_begins(self.number, self.life, self.key, self.attempt, once=once)

    def ends(self, fails: int, value: Any, *, late: bool = False) -> Any:
        """A line after it; the attempt's value, or its error."""
        failed = self.attempt <= fails
        self.tale.body_ends(self.life, self.key, self.attempt, failed=failed, late=late)
        if failed and not late:
            raise Flaky(f"{value} in attempt {self.attempt}")
        return [value, self.attempt]


# -- in the process of an executor


def far_body(run_id: str, node: Node) -> Any:
    """A step's body that can travel."""
    return partial(run_far, run_id=run_id, once=node.once, name=node.name, fails=node.fails, slow=node.slow,
                   dies=node.dies)  # fmt: skip


def run_far(context: Any, *, run_id: str, once: bool, name: str, fails: int, slow: int, dies: int) -> Any:
    """The body, as its executor calls it. Its process dies before or after the work, or is killed in it."""
    from stepwell.testing._play import tales

    given = far.get()
    assert given is not None
    process, limit = given
    tale, key, attempt = tales[run_id], context.key, context.attempt
    held = process.host.lives.get(run_id)
    life, number = (0, 0) if held is None else (held.lease.epoch, vars(held)["number"])
    if held is None:
        tale.say("after", key, f"attempt {attempt} begins after its life has ended")
    tale.body_begins(number, life, key, attempt, once=once)
    seconds = tale.world.lingers(process)
    if attempt <= dies and attempt % 2:
        raise Died
    if limit is not None and attempt <= slow:
        seconds = TOO_LONG
    process.threads.pause(seconds if limit is None else min(seconds, limit))
    if limit is not None and seconds > limit:
        raise Killed
    failed = attempt <= fails
    tale.body_ends(life, key, attempt, failed=failed)
    if attempt <= dies:
        raise Died
    if failed:
        raise Flaky(f"{name} in attempt {attempt}")
    return [name, attempt]
