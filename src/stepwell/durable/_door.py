"""What the other doors ask of a context beyond its operations: steps with keys of their own, records of what was found
out, notes, and undo functions that need no replay of the handler to be found.

Everything here works in both colours: `Door.step` and `Door.map` give a value in a sync run and an awaitable in an
async one; `value_of` awaits either, and `at_once` runs a coroutine that, in a sync run, never suspends.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.core import Commit, Decode, Now, Recorded, StepWanted, Wanted, child_key, label, step
from stepwell.durable._codec import codec_for
from stepwell.durable._steps import Port, keep_lines
from stepwell.errors import NonDeterminismError
from stepwell.journal import Note
from stepwell.runtime._api import Body, Undo
from stepwell.runtime._on_loop import OnLoop
from stepwell.runtime._values import kept, text_of
from stepwell.serde import capture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from stepwell.core import Flow, Kind, Op, Payload, Planner
    from stepwell.durable._operations import Operations
    from stepwell.runtime._api import Attempt
    from stepwell.serde import Redactor

PLAIN = codec_for(None, "")


class Texts:
    """A codec for values that are texts of the library's format already."""

    def encode(self, value: Any, place: str) -> str:
        """The text itself."""
        text: str = value
        return text

    def decode(self, text: str, key: str) -> Any:
        """The text itself."""
        return text


TEXTS = Texts()


async def value_of(given: Any) -> Any:
    """What an operation gives, in either colour."""
    return await given if hasattr(type(given), "__await__") else given


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never suspends, as those of a sync run."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    message = f"{work!r} waits in a sync run"
    raise RuntimeError(message)


class Door:
    """One life of a run, as a door sees it. Made from the handler's context."""

    def __init__(self, context: Operations) -> None:
        self.context = context
        self._life = context._scope.life
        self._slots: dict[str, Any] = {}

    # -- about the run

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._life.run.id

    @property
    def is_async(self) -> bool:
        """Whether the run is async."""
        return self._life.is_async

    @property
    def only_looks(self) -> bool:
        """Whether this call of the handler is only to find undo functions: nothing is executed in it."""
        return self._life.replay_only

    @property
    def cancelled(self) -> bool:
        """Whether the run is being cancelled, or this life of it is over."""
        return self._life.over is not None

    @property
    def ops(self) -> Mapping[str, Op]:
        """What is on record, by key, in the order in which it was first recorded."""
        return self._life.run.ops

    @property
    def undoable(self) -> list[str]:
        """Keys of what is to be undone if the run fails, in the order in which it ended."""
        return list(self._life.run.undoable)

    @property
    def redactor(self) -> Redactor:
        """What masks the run's secrets."""
        return self._life.redactor

    def monotonic(self) -> float:
        """Seconds on the clock of the run."""
        return self._life.host.clock.monotonic()

    def text(self, op: Op) -> str:
        """The recorded text of an operation that succeeded."""
        return self.text_of(op.payload, op.key)

    def text_of(self, payload: Payload, key: str) -> str:
        """A recorded text. Raises `PayloadError` where the store has lost it."""
        with self._life.own_store():
            return text_of(self._life, payload, key)

    def check(self, name: str) -> None:
        """Raise if the run may not go on here: it is being cancelled, or this life of it is over."""
        self.context._scope.check("step", name)

    # -- doing

    def step(
        self, name: str, call: Callable[[Attempt, Port], Any], *, key: str | None = None, is_async: bool = False,
        plan: Planner | None = None, timeout: float | None = None, at_most_once: bool = False, undo: bool = False,
        context: Operations | None = None,
    ) -> Any:  # fmt: skip
        """Run a step whose body gives a text of the library's format; its value is that text.

        Args:
            name: what it is called.
            call: its body, told of its attempt.
            key: where it stands; default its name in the scope of ``context``.
            is_async: whether ``call`` gives a coroutine.
            plan: its retry policy; None: one attempt.
            timeout: seconds for an attempt.
            at_most_once: an attempt that a crash interrupted fails the step.
            undo: it has an undo (`set_undo`), also where it does not succeed: its start is durable before its body.
            context: of the branch that asks; default the handler's.

        Raises:
            StepError: its last attempt raised.
        """
        asking = context if context is not None else self.context
        scope = asking._scope
        if key is None:
            key, _ = scope.begin("step", name, "step")
        else:
            scope.check("step", name)
            self.asked(key)
        asking._began(key, "step", is_step=True)

        def body(attempt: Attempt) -> Any:
            return keep_lines(attempt, call, attempt, Port(attempt))

        want = StepWanted(
            key, "step", name, None, 0.0, TEXTS, Body(body, TEXTS, is_async=is_async, timeout=timeout), plan,
            at_most_once, durable_start=undo, undo=undo, undo_failed=undo,
        )  # fmt: skip
        return asking._go(step(self._life.run, want, capture))

    def record(self, key: str, value: Any, context: Operations | None = None) -> Any:
        """Commit a value under a key of its own, unless one is on record; gives the recorded one."""
        return (context or self.context)._go(self._record(key, serde.encode(value, place=key)))

    def _record(self, key: str, text: str, kind: Kind = "once") -> Flow[Any]:
        want = Wanted(key, kind, None, None, None, PLAIN)
        self.asked(key)
        op = self.ops.get(key)
        if op is None or op.status != "succeeded":
            text = self.redactor.redact_json(text) if self.redactor.active else text
            yield Commit((Recorded((yield Now()), key, kind, kept(self._life, text)),))
        op = self.ops[key]
        return (yield Decode(want, op.payload))

    def once(self, key: str, fn: Callable[[], Any], *, in_loop: bool) -> Any:
        """Call ``fn`` and commit what it gives, unless that is on record. Any thread may ask; each key is made once.

        ``in_loop``: asked by an async body; then an awaitable. What ``fn`` raises is nobody's record.
        """
        slot = self._slots.setdefault(key, threading.Lock())
        if in_loop:
            return self._once_awaited(key, fn, slot)
        with slot:
            if self._known(key):
                return serde.decode(self.text(self.ops[key]), key=key)
            return self._made_here(key, self.settled(fn()))

    def _made_here(self, key: str, value: Any) -> Any:
        made = self.record(key, value)
        if not self.is_async:
            return made
        import asyncio

        return asyncio.run_coroutine_threadsafe(made, self._life.loop).result()  # type: ignore[arg-type]

    async def _once_awaited(self, key: str, fn: Callable[[], Any], slot: Any) -> Any:
        import asyncio

        if not self.is_async:  # the engine's loop must not wait for the disk, nor for another caller
            return await asyncio.to_thread(self.once, key, fn, in_loop=False)
        while not slot.acquire(blocking=False):  # noqa: ASYNC110  threads share the slot: it has no event
            await asyncio.sleep(0.005)
        try:
            if self._known(key):
                return serde.decode(self.text(self.ops[key]), key=key)
            return await self.record(key, await value_of(fn()))
        finally:
            slot.release()

    def recalled(self, key: str, fn: Callable[[], Any], *, in_loop: bool) -> Any:
        """What `once` has on record under this key, or what ``fn`` gives: in a rollback nothing more is recorded.

        ``in_loop``: asked by an async body; then an awaitable.
        """
        value = serde.decode(self.text(self.ops[key]), key=key) if self._known(key) else fn()
        return value_of(value) if in_loop else self.settled(value)

    def _known(self, key: str) -> bool:
        self.asked(key)
        op = self.ops.get(key)
        return op is not None and op.status == "succeeded"

    def settled(self, value: Any) -> Any:
        """A value that may be awaitable, on a thread that may wait: its result."""
        if not hasattr(type(value), "__await__"):
            return value
        loop = self._life.loop if self.is_async else None
        work = OnLoop(loop or self._life.host.loop(), value)
        try:
            return work.result()
        except BaseException:
            work.cancel()
            raise

    async def here(self, value: Any) -> Any:
        """A value that may be awaitable, in the handler: its result."""
        if self.is_async:
            return await value_of(value)
        return self.settled(value)

    # -- undoing

    def set_undo(self, key: str, name: str, call: Callable[[Attempt, Port], Any], *, is_async: bool = False) -> None:
        """How to undo what stands under ``key``. ``call`` gives a text to record; what it raises fails the undo."""

        def body(attempt: Attempt) -> Any:
            return keep_lines(attempt, call, attempt, Port(attempt))

        self._life.undos[key] = Undo(lambda _payload: Body(body, TEXTS, is_async=is_async), name, None)

    def set_undo_order(self, order: Callable[[list[str]], list[str]]) -> None:
        """In which order to undo; ``order`` is given keys, last ended first."""
        self._life.undo_order = order

    def heard(self, signal: str) -> list[Any]:
        """The values of all signals with this name that have come, in order; none of them is taken."""
        return [serde.decode(self.text_of(payload, signal)) for payload in self._life.run.signals.get(signal, ())]

    # -- saying

    def note(self, key: str, kind: Any, data: Any) -> None:
        """Let this ride with the run's next commit, secrets masked. ``data``: recordable."""
        life = self._life
        if life.ended:
            return  # said by a body that nobody waits for any more
        life.ride((), (Note(key, kind, life.store.now(), self.redactor.redact_json(serde.encode(data))),))

    def asked(self, key: str) -> None:
        """The code still has a use for this key."""
        life = self._life
        if life.asked is not None:
            life.asked.keys.add(key)
        if life.watch is not None and not life.replay_only and key in life.run.ops:
            life.watch.replayed(key)

    def diverged(self, key: str, expected: str, found: str) -> NonDeterminismError:
        """The code under the run has changed: the run is blocked, and nothing is undone."""
        message = f"'{key}' was recorded as a {expected}; the code now has a {found} there"
        return self._life.diverge(NonDeterminismError(message, key=key, expected=expected, found=found))

    def refused(self, message: str) -> NonDeterminismError:
        """This process must not go on with the run: it is blocked, and nothing is undone."""
        return self._life.diverge(NonDeterminismError(message))


def key_of(*names: str) -> str:
    """The key of something inside something, from their names."""
    key = ""
    for name in names:
        key = child_key(key, label(name), 1)
    return key


def awaited(value: Any) -> Awaitable[Any] | None:
    """The value, if it is to be awaited."""
    return value if hasattr(type(value), "__await__") else None
