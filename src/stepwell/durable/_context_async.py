"""`AsyncDurableContext`: as `DurableContext`, for ``async def``. The two have the same names and signatures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.core import step
from stepwell.durable._awaited import Awaited
from stepwell.durable._operations import Operations
from stepwell.runtime._drive_async import drive_async
from stepwell.runtime._live_async import undo_keys_async
from stepwell.serde import capture

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from stepwell.core import Flow
    from stepwell.durable.concurrency.models import BatchResult
    from stepwell.durable.config import ChildConfig, MapConfig, ParallelConfig, StepConfig
    from stepwell.durable.waits import WaitForConditionConfig

T = TypeVar("T")


async def _given(value: T) -> T:
    return value


class AsyncDurableContext(Operations):
    """The context of an ``async def`` durable function, or of a scope in one. It belongs to its scope's task.

    The key of an operation is handed out when the method is called; the awaitable that it gives does the work.
    """

    def _go(self, flow: Flow[Any], crew: Any = None) -> Any:
        life, branch = self._scope.life, self._scope.branch
        life.op_begin(branch)
        return Awaited(self._run(flow, crew), flow, life, branch)

    async def _run(self, flow: Flow[Any], crew: Any) -> Any:
        life, branch = self._scope.life, self._scope.branch
        task = asyncio.current_task()
        if task is not None and task is not branch.task:
            life.tasks.add(task)
            task.add_done_callback(life.tasks.discard)
        try:
            return await drive_async(self._scope, flow, crew)
        finally:
            life.op_end(branch)

    def _value(self, value: Any) -> Any:
        return _given(value)

    def _crew(self, asked: Any) -> Any:
        from stepwell.runtime._crew_async import AsyncCrew

        return AsyncCrew(self._scope, asked)

    def step(
        self,
        func: Callable[..., T],
        name: str | None = None,
        config: StepConfig | None = None,
        *,
        retry: Any = None,
        timeout: Any = None,
        heartbeat_timeout: Any = None,
        at_most_once: bool | None = None,
        transactional: Any = None,
        executor: Any = None,
        idempotency_key: str | None = None,
        undo: Callable[..., Any] | None = None,
        weight: float | None = None,
        serdes: Any = None,
    ) -> Awaitable[T]:
        """Run a function once and record what it returns.

        Args:
            func: called with a `StepContext` (a function without parameters is called with nothing).
            name: what the step is called; a ``durable_step`` brings its own.
            config: settings; the keywords override its fields of the same name.
            retry: strategy or `Retry`.
            timeout: for one attempt, `Duration` or seconds.
            heartbeat_timeout: longest time between two heartbeats.
            at_most_once: an attempt that a crash interrupted is not run again.
            transactional: share a transaction with a database (durable.md §5.6).
            executor: where the body runs.
            idempotency_key: template of the key for other services.
            undo: ``undo(step_context, result)``, run if the run fails or is cancelled.
            weight: share of the progress; default 1.
            serdes: how the result is recorded.

        Raises:
            StepError: the last attempt failed; it is also an instance of the class that was raised.
            SerDesError: the result cannot be recorded.
            ValidationError: bad arguments; nothing was written.
        """
        keywords = {
            "retry": retry, "timeout": timeout, "heartbeat_timeout": heartbeat_timeout, "at_most_once": at_most_once,
            "transactional": transactional, "executor": executor, "idempotency_key": idempotency_key, "undo": undo,
            "weight": weight, "serdes": serdes,
        }  # fmt: skip
        return self._step(func, name, config, keywords)  # type: ignore[no-any-return]

    def wait(self, duration: Any, name: str | None = None) -> Awaitable[None]:
        """Wait for a `Duration` (or seconds, timedelta), counted from the first call, whoever is alive meanwhile."""
        return self._wait(duration, name)  # type: ignore[no-any-return]

    def run_in_child_context(
        self, func: Callable[..., T], name: str | None = None, config: ChildConfig[T] | None = None
    ) -> Awaitable[T]:
        """Run ``func(child_context)`` as a scope of its own. Raises `ChildContextError` for what leaves it."""
        return self._child(func, name, config)  # type: ignore[no-any-return]

    def map(
        self,
        inputs: Iterable[Any],
        func: Callable[..., T],
        name: str | None = None,
        config: MapConfig[Any] | None = None,
    ) -> Awaitable[BatchResult[T]]:
        """Run ``func(context, item, index, inputs)`` for each item, side by side. Errors are in the result."""
        return self._map(inputs, func, name, config)  # type: ignore[no-any-return]

    def parallel(
        self, functions: Sequence[Callable[..., T]], name: str | None = None, config: ParallelConfig | None = None
    ) -> Awaitable[BatchResult[T]]:
        """Run each ``function(context)`` side by side. Errors are in the result."""
        return self._parallel(functions, name, config)  # type: ignore[no-any-return]

    def wait_for_condition(
        self, check: Callable[..., T], config: WaitForConditionConfig[T], name: str | None = None
    ) -> Awaitable[T]:
        """Call ``check(state, context)`` until the strategy is content; its state survives crashes."""
        return self._wait_for_condition(check, config, name)  # type: ignore[no-any-return]

    def now(self) -> Awaitable[datetime]:
        """The time in UTC, the same in every life."""
        return self._now()  # type: ignore[no-any-return]

    def random(self) -> Awaitable[float]:
        """A number in [0, 1), the same in every life."""
        return self._random()  # type: ignore[no-any-return]

    def randint(self, a: int, b: int) -> Awaitable[int]:
        """A whole number from a to b, the same in every life."""
        return self._randint(a, b)  # type: ignore[no-any-return]

    def uuid(self) -> Awaitable[UUID]:
        """A random UUID, the same in every life."""
        return self._uuid()  # type: ignore[no-any-return]

    async def once(self, key: str, fn: Callable[..., Any]) -> Any:
        """Run ``fn`` once per scope and key; tasks and step bodies may call it, the first one runs it."""
        want = self._once_wanted(key, fn)
        async with self._scope.once_slot(key, asyncio.Lock()):
            return await self._go(step(self._scope.life.run, want, capture))

    def on_failure(self, undo: Callable[..., Any], *args: Any, name: str | None = None) -> Awaitable[None]:
        """From here on, if the run fails or is cancelled, ``undo(step_context, *args)`` is run in its turn."""
        return self._on_failure(undo, args, name)  # type: ignore[no-any-return]

    async def rollback(self) -> None:
        """Undo what this scope has done and can be undone, last first, now."""
        keys = await self._go(self._rollback_keys())
        self._scope.life.op_begin(self._scope.branch)
        # An undo that has begun is not cut short: were the run cancelled meanwhile, it would begin again.
        undoing = asyncio.ensure_future(undo_keys_async(self._scope, keys))
        cancelled: asyncio.CancelledError | None = None
        try:
            while not undoing.done():
                try:
                    await asyncio.wait({undoing})
                except asyncio.CancelledError as error:
                    cancelled = error
            undoing.result()
        finally:
            self._scope.life.op_end(self._scope.branch)
        if cancelled is not None:
            raise cancelled

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far this scope has come: ``done`` of ``total``, or ``done`` as a fraction."""
        self._progress(done, total, message)
