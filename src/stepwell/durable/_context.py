"""`DurableContext`: what a sync durable function writes its work down on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.core import step
from stepwell.durable._operations import Operations
from stepwell.runtime._drive import drive
from stepwell.runtime._rollback import undo_keys
from stepwell.serde import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from stepwell.core import Flow
    from stepwell.durable.concurrency.models import BatchResult
    from stepwell.durable.config import ChildConfig, MapConfig, ParallelConfig, StepConfig
    from stepwell.durable.waits import WaitForConditionConfig

T = TypeVar("T")


class DurableContext(Operations):
    """The context of a sync durable function, or of a scope in one. It belongs to its scope's thread.

    Every operation is recorded under a key made of names; in a later life of the run, operations that have finished
    give their recorded result at once and their code does not run.
    """

    def _go(self, flow: Flow[Any], crew: Any = None) -> Any:
        return drive(self._scope, flow, crew)

    def _value(self, value: Any) -> Any:
        return value

    def _crew(self, asked: Any) -> Any:
        from stepwell.runtime._crew import Crew

        return Crew(self._scope, asked)

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
    ) -> T:
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

    def wait(self, duration: Any, name: str | None = None) -> None:
        """Wait for a `Duration` (or seconds, timedelta), counted from the first call, whoever is alive meanwhile."""
        self._wait(duration, name)

    def run_in_child_context(
        self, func: Callable[..., T], name: str | None = None, config: ChildConfig[T] | None = None
    ) -> T:
        """Run ``func(child_context)`` as a scope of its own. Raises `ChildContextError` for what leaves it."""
        return self._child(func, name, config)  # type: ignore[no-any-return]

    def map(
        self,
        inputs: Iterable[Any],
        func: Callable[..., T],
        name: str | None = None,
        config: MapConfig[Any] | None = None,
    ) -> BatchResult[T]:
        """Run ``func(context, item, index, inputs)`` for each item, side by side. Errors are in the result."""
        return self._map(inputs, func, name, config)  # type: ignore[no-any-return]

    def parallel(
        self, functions: Sequence[Callable[..., T]], name: str | None = None, config: ParallelConfig | None = None
    ) -> BatchResult[T]:
        """Run each ``function(context)`` side by side. Errors are in the result."""
        return self._parallel(functions, name, config)  # type: ignore[no-any-return]

    def wait_for_condition(
        self, check: Callable[..., T], config: WaitForConditionConfig[T], name: str | None = None
    ) -> T:
        """Call ``check(state, context)`` until the strategy is content; its state survives crashes."""
        return self._wait_for_condition(check, config, name)  # type: ignore[no-any-return]

    def now(self) -> datetime:
        """The time in UTC, the same in every life."""
        return self._now()  # type: ignore[no-any-return]

    def random(self) -> float:
        """A number in [0, 1), the same in every life."""
        return self._random()  # type: ignore[no-any-return]

    def randint(self, a: int, b: int) -> int:
        """A whole number from a to b, the same in every life."""
        return self._randint(a, b)  # type: ignore[no-any-return]

    def uuid(self) -> UUID:
        """A random UUID, the same in every life."""
        return self._uuid()  # type: ignore[no-any-return]

    def once(self, key: str, fn: Callable[..., T]) -> T:
        """Run ``fn`` once per scope and key; threads and step bodies may call it, the first one runs it."""
        want = self._once_wanted(key, fn)
        with self._scope.once_slot(key, threading.Lock()):
            return self._go(step(self._scope.life.run, want, capture))  # type: ignore[no-any-return]

    def on_failure(self, undo: Callable[..., Any], *args: Any, name: str | None = None) -> None:
        """From here on, if the run fails or is cancelled, ``undo(step_context, *args)`` is run in its turn."""
        self._on_failure(undo, args, name)

    def rollback(self) -> None:
        """Undo what this scope has done and can be undone, last first, now."""
        undo_keys(self._scope, self._go(self._rollback_keys()))

    def progress(self, done: float, total: float | None = None, message: str = "") -> None:
        """Say how far this scope has come: ``done`` of ``total``, or ``done`` as a fraction."""
        self._progress(done, total, message)
