"""One body for both colours: written async, and run as it is or, on a sync context, at one go.

`colours` gives both durable functions of it. On a sync context every operation has ended when it is called, so the
``await`` in front of it finds its value there: what both do is the same, line by line.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import time
from typing import TYPE_CHECKING, Any

from stepwell import Engine, durable_execution
from stepwell.core import RunStarted, decode_records
from stepwell.durable import DurableContext, Pending
from stepwell.durable.context import Callback
from stepwell.journal import RunFilter
from stepwell.testing import DurableRunner
from stepwell.testing._invariants import check_run
from stepwell.testing._kit_crash import Crashes, When
from tests.durable.kit import records

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

    from stepwell import RunHandle
    from stepwell.core import AnyRecord, RunState
    from stepwell.durable._function import DurableFunction

COLOURS = ("def", "async def")


class There:
    """An awaitable whose value is there."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._value


class _PlainPending:
    """A pending of a sync context, as one of an async context is used."""

    def __init__(self, pending: Pending[Any]) -> None:
        self.pending = pending
        self.done = pending.done

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    def result(self) -> There:
        return There(self.pending.result())

    def cancel(self) -> There:
        return There(self.pending.cancel())


class _PlainCallback:
    def __init__(self, callback: Callback[Any]) -> None:
        self._callback = callback
        self.callback_id = callback.callback_id

    def result(self) -> There:
        return There(self._callback.result())


class Plain:
    """A sync context, as an async one is used."""

    def __init__(self, context: DurableContext) -> None:
        self.context = context

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.context, name)
        if not inspect.ismethod(found) or name in ("is_replaying", "progress", "set_logger"):
            return found

        def call(*args: Any, **keywords: Any) -> Any:
            given = [_given(value) for value in args]
            return _got(found(*given, **{key: _given(value) for key, value in keywords.items()}))

        return call


def _got(value: Any) -> Any:
    if isinstance(value, Pending):
        return _PlainPending(value)
    return There(_PlainCallback(value) if isinstance(value, Callback) else value)


def _given(value: Any) -> Any:
    if isinstance(value, _PlainPending):
        return value.pending
    if isinstance(value, list):
        return [_given(one) for one in value]
    return at_one_go(value) if inspect.iscoroutinefunction(value) else value


def at_one_go(body: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """The sync function that does what ``body`` does, on sync contexts."""

    @functools.wraps(body)
    def plain(*args: Any) -> Any:
        coroutine = body(*(Plain(arg) if isinstance(arg, DurableContext) else arg for arg in args))
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        finally:
            coroutine.close()
        message = f"{body} awaited something that is no operation"
        raise AssertionError(message)

    made: Any = plain
    del made.__wrapped__  # it would be taken for async
    made.__signature__ = inspect.signature(body)
    return plain


def coloured(body: Callable[..., Coroutine[Any, Any, Any]], colour: str, **settings: Any) -> DurableFunction:
    """The durable function of a body ``async def body(event, context)`` in one colour."""
    settings.setdefault("name", body.__name__)
    return durable_execution(body if colour == "async def" else at_one_go(body), **settings)


# -- four ways to run it: both colours, with frames kept and dropped

WAYS = [(colour, hold) for colour in COLOURS for hold in (0, 60)]
BELONGS_TO_ONE_RUN = frozenset({"callback_id", "by", "child", "timeout_at"})


class Way:
    """An engine on a memory store that runs bodies in one colour and keeps frames, or does not."""

    def __init__(self, colour: str, hold: float, name: str) -> None:
        self.colour = colour
        self.hold = hold
        self.engine = Engine(f"memory://{name}", hold=hold)

    def function(self, body: Callable[..., Coroutine[Any, Any, Any]], **settings: Any) -> DurableFunction:
        return coloured(body, self.colour, **settings)

    def run(self, body: Callable[..., Coroutine[Any, Any, Any]], event: Any = None, id: str = "r") -> Any:
        return self.engine.run(self.function(body), {} if event is None else event, id=id)

    def start(self, body: Callable[..., Coroutine[Any, Any, Any]], event: Any = None, id: str = "r") -> RunHandle:
        """Start it, and wait until it waits for something, or has ended."""
        handle = self.engine.start_run(self.function(body), {} if event is None else event, id=id)
        self.until(lambda: handle.status not in ("running", "pending"))
        return handle

    def until(self, there: Callable[[], Any], seconds: float = 20) -> Any:
        return until(self.engine, there, seconds)

    def callback(self, handle: RunHandle, name: str | None = None) -> str:
        """Id of an open callback."""
        found = self.until(lambda: [c["id"] for c in handle.callbacks() if name in (None, c["name"])])
        return str(found[0])


def until(engine: Engine, there: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait until ``there()`` gives something true, and return that."""
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, "it did not come about"
        engine.store.wait(0.02)
    return found


def journal(engine: Engine, run_id: str, *, lives: bool = False) -> list[dict[str, Any]]:
    """The records of a run, without what differs between two runs of the same code."""
    found = records(engine, run_id, lives=lives)
    for record in found:
        if record.get("error"):
            record["error"] = record["error"][:2]
    return [{k: v for k, v in record.items() if k not in BELONGS_TO_ONE_RUN} for record in found]


def violations(engine: Engine, run_id: str) -> list[str]:
    """What a run's journal breaks of what we promise."""
    row = engine.find(run_id)
    rows = [(entry.seq, entry.epoch, decode_records(entry.data)) for entry in engine.store.record_load(row.rid)]
    return [str(one) for one in check_run(rows, open=row.ended_at is None, hot=engine.store.hot_get(run_id))]


# -- the plug pulled at every append


class CrashNth(Crashes):
    """Drops the life that makes the nth append, before or after it."""

    def __init__(self, nth: int, when: When) -> None:
        super().__init__()
        self.nth = nth
        self.when: When = when
        self.count = 0

    def due(self, records: Sequence[AnyRecord], run: RunState | None) -> When | None:
        if not records or type(records[0]) is RunStarted:
            return None
        self.count += 1
        return self.when if self.count == self.nth else None


def at_every_append(
    function: DurableFunction,
    act: Callable[[DurableRunner, RunHandle], Any] = lambda runner, handle: None,
    *,
    same_journal: bool = True,
    **functions: Any,
) -> Any:
    """Run it undisturbed, then again and again with one crash at another append: it comes to the same, by the same
    records. ``act`` is what the outside does meanwhile. Returns the result.
    """
    expected: tuple[Any, Any] | None = None
    for turn in itertools.count(1):
        nth, when = divmod(turn, 2)
        runner = DurableRunner(function)
        for name, other in functions.items():
            runner.register(name, other)
        crashes = runner._kit.crashes = CrashNth(nth, "after" if when else "before")
        with runner:
            handle = runner.start(id="r")
            act(runner, handle)
            result = runner.result(handle)
            engine = runner._kit.engine
            where = f"crash {crashes.when} append {nth} of {crashes.count}"
            for row in engine.store.run_list(RunFilter(), limit=1000):
                assert violations(engine, row.id) == [], where
            found = (result.result, str(result.error)), journal(engine, "r") if same_journal else None
        if expected is None:
            expected = found
        assert found == expected, where
        if crashes.count < nth:
            return expected[0][0]
    raise AssertionError
