"""`Engine`: drives runs of one store in this process, and answers for all that are on record there."""

from __future__ import annotations

import os
import threading
import weakref
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal, Self

from stepwell.client import _answers
from stepwell.client._children import Children
from stepwell.client._drive import Drive
from stepwell.client._functions import Functions, load_target
from stepwell.client._handle import RunHandle
from stepwell.client._ids import checked_id, new_id
from stepwell.client._none import NONE
from stepwell.client._outcome import blocked_error, outcome
from stepwell.client._retry import SCRIPT_QUEUE
from stepwell.client._settings import check_listing, check_start, host_options, seconds, step_settings
from stepwell.core import US
from stepwell.durable._checks import check_texts, is_encodable
from stepwell.durable._plugin_list import Plugins, checked
from stepwell.durable._program import DurableProgram
from stepwell.errors import BadArguments, DuplicateRun, StepwellError, UnknownRun, UsageError
from stepwell.journal import NewRun, RunExists, RunFilter, SystemClock, open_store, store_url
from stepwell.runtime import Host, current_life
from stepwell.runtime._nobody import NoChildren

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.durable._duration import DurationLike
    from stepwell.durable._function import DurableFunction
    from stepwell.errors import ErrorObject
    from stepwell.journal import Clock, HotRow, RunRow, Store
    from stepwell.runtime import Life
    from stepwell.runtime._observe import Observer

_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """See the module. ``with engine:`` or ``start()`` makes it a worker that drives every due run it knows.

    Args:
        store: URL; default ``STEPWELL_STORE``, else ``sqlite:///.stepwell/stepwell.db``.
        functions: durable functions that it may drive.
        retry: default strategy of steps.
        hold: how long the frames of a waiting run are kept. Spans of time are Duration, timedelta or seconds.
        max_threads: threads for sync runs and branches; default 64.
        lease: time without a beat after which others may take over; default 30 s.
        start_flush: time after which a step's start is on record at the latest; default 0.1 s.
        large_child_results: ``store``, or ``replay`` (durable.md §9).
        serdes: how values are recorded; default tagged JSON.
        plugins: told of the lives of all its runs (`stepwell.durable.plugin`); runs that have any keep no frames
            while they wait.
        queues: what a worker serves.
        clock: for tests.
        executor: where the sync bodies of steps run that name none (`StepConfig`); default on the run's thread.
        observers: private until 1.0: what reads each commit (`stepwell.runtime._observe.Observer`).

    Raises:
        UsageError: the store's URL is none, or two functions have one name.
        ValidationError: another setting is of another kind or outside its limits.
    """

    def __init__(  # each is a setting of its own
        self,
        store: str | Store | None = None,
        *,
        functions: Sequence[Any] = (),
        retry: Any = None,
        hold: DurationLike | None = None,
        max_threads: int | None = None,
        lease: DurationLike = 30.0,
        start_flush: DurationLike = 0.1,
        large_child_results: Literal["store", "replay"] = "store",
        serdes: Any = None,
        plugins: Sequence[Any] = (),
        queues: Sequence[str] = ("default",),
        clock: Clock | None = None,
        executor: Any = None,
        host: Host | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.url = store_url(store) if store is None or isinstance(store, str) else store.url
        self._store = store if store is not None and not isinstance(store, str) else None
        self._clock = clock or SystemClock()
        self._plugins = Plugins(plugins)
        self._settings: dict[str, Any] = step_settings(retry=retry, serdes=serdes, executor=executor)
        self._settings["plugins"] = self._plugins
        self._options: dict[str, Any] = host_options(
            hold=hold, max_threads=max_threads, lease=lease, start_flush=start_flush, mode=large_child_results
        )
        self._options["observers"] = tuple(observers)
        check_texts("queues", queues)
        self.queues = tuple(queues)
        self.functions = Functions()
        for fn in functions:
            self.functions.add(fn)
        self._host = host
        self._lock = threading.Lock()
        self._drive: Drive | None = None
        _engines.add(self)

    def __repr__(self) -> str:
        return f"<Engine {self.store.url if self._store else self.url.rsplit('@', 1)[-1]}>"

    # -- life

    @property
    def host(self) -> Host:
        """What drives runs here; opened at first use."""
        with self._lock:
            if self._host is None:
                store = self._store or open_store(self.url, self._clock)
                self._host = Host(store, clock=self._clock, settings=self._settings, **self._options)
            if isinstance(self._host.children, NoChildren):
                self._host.children = Children(self)
            return self._host

    @property
    def store(self) -> Store:
        """The store."""
        return self.host.store

    @property
    def drive(self) -> Drive:
        """What takes runs up again after they parked."""
        host = self.host
        with self._lock:
            if self._drive is None:
                self._drive = Drive(self, host)
            return self._drive

    def start(self) -> Self:
        """Become a worker: drive every due or orphaned run whose function is known. Idempotent.

        Raises:
            PluginLoadError: a plugin that the environment names cannot be loaded.
        """
        self._plugins.all()
        self.host.register(self.queues, self.functions.names())
        self.drive.start(serve=True)
        return self

    def stop(self, grace: float = 10) -> None:
        """Hand back every run that is held and end. Idempotent; returns within some ``grace`` seconds."""
        with self._lock:
            drive, host = self._drive, self._host
            self._drive = self._host = None
        if drive is not None:
            drive.stop()
        if host is not None:
            host.stop(grace)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *exc: object) -> None:
        import asyncio

        await asyncio.to_thread(self.stop)

    def register(self, fn: Any, name: str | None = None) -> DurableFunction:
        """Make a durable function known. Raises `UsageError` if another one has the name."""
        return self.functions.add(fn, name)

    def register_function(self, name: str, plain_callable: Any) -> DurableFunction:
        """Make a function known that is not durable, for `invoke`: a run of it is one step.

        Raises:
            UsageError: it cannot be called, or another function has the name.
        """
        return self.functions.add_plain(name, plain_callable)

    # -- answering; none of these needs ``start()``

    def send_callback_success(self, callback_id: str, result: bytes | str | None = None) -> None:
        """Answer a callback. ``result``: at most 64 MiB of text; it goes to the callback's serdes as it is.

        Raises:
            UnknownRun: there is no such callback.
            UsageError: it has been answered or timed out, or its run has ended; nothing changes.
            BadArguments: the result is no text, too large, or does not fit the form of an approval.
        """
        _answers.answer(self, callback_id, text=_answers.text_of_result(result))

    def send_callback_failure(self, callback_id: str, error: ErrorObject | str | None = None) -> None:
        """Answer a callback with a failure. Raises as `send_callback_success`."""
        _answers.answer(self, callback_id, error=_answers.error_record(error))

    def send_callback_heartbeat(self, callback_id: str) -> None:
        """Say that the answer is still being worked on. Raises as `send_callback_success`."""
        _answers.heartbeat(self, callback_id)

    # -- starting

    def run(
        self, fn: Any, input: Any = NONE, *, id: str | None = None, timeout: Any = None,
        tags: Sequence[str] = (), queue: str | None = None, plugins: Sequence[Any] = (),
    ) -> Any:  # fmt: skip
        """Start a run or attach to it, block, and return its result (durable.md §2.2).

        Raises:
            RunFailed, RunCancelled, RunTimedOut, RunBlocked, RollbackFailed: as it ended.
            DuplicateRun: the id belongs to another function or input.
            TimeoutError: ``timeout`` seconds are over; the run goes on.
            JournalError: the store cannot be used.
            PluginLoadError: a plugin that the environment names cannot be loaded.
        """
        _refuse_loop()
        timeout = seconds(timeout)
        # Who watches a run looks for it in the store: its start rides with nothing.
        function, run_id, life = self._begin(fn, input, id, tags, queue, lazy=timeout is None, plugins=plugins)
        return self.drive.until_end(function, run_id, life, timeout)

    async def run_async(
        self, fn: Any, input: Any = NONE, *, id: str | None = None, timeout: Any = None,
        tags: Sequence[str] = (), queue: str | None = None, plugins: Sequence[Any] = (),
    ) -> Any:  # fmt: skip
        """As `run`, for async callers; an async function is driven on their loop."""
        timeout = seconds(timeout)
        function = self.functions.resolve(fn)
        lazy = timeout is None and function.is_async
        function, run_id, life = self._begin(function, input, id, tags, queue, lazy=lazy, plugins=plugins)
        return await self.drive.until_end_async(function, run_id, life, timeout)

    def start_run(
        self, fn: Any, input: Any = NONE, *, id: str | None = None,
        tags: Sequence[str] = (), queue: str | None = None, plugins: Sequence[Any] = (),
    ) -> RunHandle:  # fmt: skip
        """Start a run or attach to it; returns once its start is durable. It is driven in the background."""
        function, run_id, life = self._begin(fn, input, id, tags, queue, lazy=False, plugins=plugins)
        self.drive.keep(function, run_id, life)
        return RunHandle(self, run_id)

    def enqueue(
        self, fn: Any, input: Any = NONE, *, id: str | None = None,
        tags: Sequence[str] = (), queue: str | None = None,
    ) -> RunHandle:  # fmt: skip
        """Put a run on record as ``pending`` for a worker; returns once that is durable."""
        function = self.functions.resolve(fn)
        check_start(tags, queue)
        run_id = checked_id(id) if id is not None else new_id()
        text = self._encode(function, {} if input is NONE else input)
        if (queue or function.queue_of(text)) == SCRIPT_QUEUE:
            message = f"no worker could take up a run of {function.name} with this input: its secrets are not recorded"
            raise BadArguments(message, hint="give them as ${env:NAME}")
        try:
            self.host.begin_pending(self._new(function, run_id, text, tags, queue, held=False), text)
        except RunExists:
            self._known(function, self._row(run_id), None if input is NONE else text)
        return RunHandle(self, run_id)

    def _begin(
        self, fn: Any, given: Any, run_id: str | None, tags: Sequence[str], queue: str | None, *, lazy: bool = True,
        plugins: Sequence[Any] = (),
    ) -> tuple[DurableFunction, str, Life | None]:  # fmt: skip
        """A life that this call started or took up; None where somebody else holds the run or it has ended."""
        function = self.functions.resolve(fn)
        check_start(tags, queue)
        if run_id is not None:
            checked_id(run_id)
        text = self._encode(function, {} if given is NONE else given)
        if run_id is None:
            run_id = new_id()
            self._give(run_id, plugins)
            new = self._new(function, run_id, text, tags, queue)
            return function, run_id, self.host.begin(new, DurableProgram(function), text, lazy=lazy)
        self._give(run_id, plugins)
        row = self.store.run_get(run_id)
        if row is None:
            try:
                new = self._new(function, run_id, text, tags, queue)
                return function, run_id, self.host.begin(new, DurableProgram(function), text)
            except RunExists:
                row = self._row(run_id)
        self._known(function, row, None if given is NONE else text)
        if row.status == "blocked":
            raise blocked_error(row)
        return function, run_id, None

    def _give(self, run_id: str, plugins: Sequence[Any]) -> None:
        """Plugins of one run, for its lives in this process."""
        if plugins:
            self._plugins.of_run[run_id] = checked(plugins, "run")

    def _encode(self, function: DurableFunction, value: Any) -> str:
        from stepwell.durable._codec import codec_for

        event = function.event_of(value)
        return codec_for(function.serdes or self._settings.get("serdes"), "").encode(event, "input")

    def _new(
        self, function: DurableFunction, run_id: str, text: str, tags: Sequence[str], queue: str | None, *,
        held: bool = True,
    ) -> NewRun:  # fmt: skip
        from stepwell.client._functions import target_of

        at = self.store.now()
        parent = current_life.get()
        return NewRun(
            run_id,
            function.name,
            function.door,
            blake2b(text.encode(), digest_size=16).digest(),
            at,
            queue or function.queue_of(text),
            (*function.tags, *tags),
            target_of(function),
            parent.run.id if parent is not None else None,
            None if function.timeout is None else at + round(function.timeout * US),
            held,
            self._options["lease"],
        )

    def _known(self, function: DurableFunction, row: RunRow, text: str | None) -> None:
        if row.function != function.name:
            message = f"run {row.id} is a run of {row.function}, not of {function.name}; use another id"
            raise DuplicateRun(message, run_id=row.id, expected=row.function, found=function.name)
        if text is not None and blake2b(text.encode(), digest_size=16).digest() != row.input_hash:
            message = f"run {row.id} of {row.function} was started with another input; use another id"
            raise DuplicateRun(message, run_id=row.id, expected=row.function, found=function.name)

    # -- asking

    def _row(self, run_id: str) -> RunRow:
        row = self.store.run_get(run_id)
        if row is None:
            message = f"no run {run_id} in {self.url.rsplit('@', 1)[-1]}; `stepwell ls` shows what there is"
            raise UnknownRun(message, run_id=run_id)
        return row

    def find(self, run_id: Any) -> RunRow:
        """The run with this id, or the only one whose id begins so.

        Raises:
            UnknownRun: there is none, or more than one (they are listed).
        """
        if not isinstance(run_id, str) or not is_encodable(run_id):
            message = f"no run {run_id!r}; a run's id is a text"
            raise UnknownRun(message)
        row = self.store.run_get(run_id)
        if row is not None:
            return row
        found = self.store.run_list(RunFilter(id_prefix=run_id), limit=4) if run_id else []
        if len(found) > 1:
            message = f"{run_id} could be {', '.join(r.id for r in found)}; write more of it"
            raise UnknownRun(message, run_id=run_id)
        return found[0] if found else self._row(run_id)

    def get_run(self, run_id: str) -> RunHandle:
        """A handle of a run; its id may be shortened. Raises `UnknownRun`."""
        return RunHandle(self, self.find(run_id).id)

    def list_runs(self, status: str | None = None, name: str | None = None, limit: int = 100) -> list[RunHandle]:
        """Runs, newest first. Raises ValidationError for what is no status or no number."""
        check_listing(status, limit)
        from stepwell.client._views import list_rows

        return [RunHandle(self, row.id) for row in list_rows(self.store, RunFilter(function=name), status, limit)]

    def function_for(self, row: RunRow | HotRow) -> DurableFunction | None:
        """The function of a run, where this process knows it or its recorded target can be imported."""
        known = self.functions.get(row.function)
        if known is not None:
            return known
        full = row if hasattr(row, "target") else self.store.run_get(row.run_id)
        target = getattr(full, "target", None)
        if target is None:
            return None
        try:
            return load_target(target)
        except StepwellError:
            return None

    def result(self, row: RunRow) -> Any:
        """The value of an ended run; raises as it ended."""
        function = self.functions.get(row.function)
        if function is not None:
            return outcome(self.store, row, codec=function.codec_of(self._settings, ""))
        serdes = self._settings.get("serdes") if row.door == "durable" else None
        if serdes is None:
            return outcome(self.store, row)
        from stepwell.durable._codec import codec_for

        return outcome(self.store, row, codec=codec_for(serdes, ""))


def _refuse_loop() -> None:
    import sys

    if "asyncio" not in sys.modules:
        return
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    message = "stepwell.run would block the running event loop; use await stepwell.run_async(...)"
    raise UsageError(message)


def _after_fork() -> None:
    # In a forked child an engine has neither threads nor connections that are its own: a use opens them anew.
    for engine in list(_engines):
        engine._lock = threading.Lock()
        engine._host = engine._drive = None


os.register_at_fork(after_in_child=_after_fork)
