"""`DurableContext`: what a sync durable function writes its work down on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.core import step
from stepwell.durable._operations import Operations
from stepwell.durable._outside import (
    Callback,
    RunRef,
    approve,
    create_callback,
    invoke_wanted,
    next_signal,
    publish,
    signal_now,
)
from stepwell.durable._pending import ALL, RACE, Pending, SyncPending, split, values, winner
from stepwell.durable.config import InvokeConfig
from stepwell.errors import ValidationError
from stepwell.runtime._drive import drive
from stepwell.runtime._rollback import undo_keys
from stepwell.serde import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from uuid import UUID

    from stepwell.core import Flow, Kind
    from stepwell.durable.concurrency.models import BatchResult
    from stepwell.durable.config import (
        CallbackConfig,
        ChildConfig,
        MapConfig,
        ParallelConfig,
        StepConfig,
        WaitForCallbackConfig,
    )
    from stepwell.durable.waits import WaitForConditionConfig
    from stepwell.runtime._scope import Scope

T = TypeVar("T")


class DurableContext(Operations):
    """The context of a sync durable function, or of a scope in one. It belongs to its scope's thread.

    Every operation is recorded under a key made of names; in a later life of the run, operations that have finished
    give their recorded result at once and their code does not run.
    """

    def _go(self, flow: Flow[Any], crew: Any = None, asked: tuple[str, Kind] | None = None) -> Any:
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
        return self._wait(duration, name)  # type: ignore[no-any-return]

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

    def create_callback(self, name: str | None = None, config: CallbackConfig | None = None) -> Callback[Any]:
        """Something that somebody outside will answer: hand its ``callback_id`` out, then ask its ``result()``.

        Raises:
            ValidationError: bad arguments; nothing was written.
        """
        return self._go(create_callback(self, name, config))  # type: ignore[no-any-return]

    def wait_for_callback(
        self, submitter: Callable[..., Any], name: str | None = None, config: WaitForCallbackConfig | None = None
    ) -> Any:
        """Run ``submitter(callback_id, context)`` as a step, then wait for the answer.

        Raises:
            CallbackSubmitterError: the submitter failed for good.
            CallbackExternalError: a failure was sent.
            CallbackTimeoutError: no answer, or no heartbeat, in time.
        """
        return self._wait_for_callback(submitter, name, config)

    def approve(
        self,
        title: str,
        *,
        form: Any = None,
        who: Sequence[str] = (),
        timeout: Any = None,
        name: str | None = None,
    ) -> Any:
        """Ask a person, and wait for the answer.

        Args:
            title: what is asked.
            form: pydantic model, dataclass or ``{name: type}``; answers that do not fit are refused where they are
                given. None: any answer.
            who: who is asked; shown, not checked.
            timeout: `Duration` or seconds.
            name: of the operation.

        Returns:
            The model's instance, or a dict; without a form the answer's JSON, True where there was none.

        Raises:
            ApprovalRejected: somebody said no.
            CallbackTimeoutError: nobody answered in time.
        """
        return self._go(approve(self, title, form, who, timeout, name))

    def invoke(
        self, function_name: Any, payload: Any, name: str | None = None, config: InvokeConfig | None = None
    ) -> Any:
        """Run another durable function as a run of its own, started once, and wait for its value.

        Args:
            function_name: a `DurableFunction`, or the name of one (or of a function given to ``register_function``).
            payload: its event.
            name: of the operation.
            config: serdes, tenant, timeout, id.

        Raises:
            InvokeError: it failed, was cancelled, timed out, or is not known anywhere.
        """
        return self._go(invoke_wanted(self, function_name, payload, name, config, waits=True))

    def start_run(self, fn: Any, payload: Any, *, id: str | None = None, name: str | None = None) -> RunRef:
        """As `invoke`, without waiting for its end: gives a `RunRef` once the run is on record."""
        config = InvokeConfig(id=id)
        return self._go(invoke_wanted(self, fn, payload, name, config, waits=False))  # type: ignore[no-any-return]

    def wait_signal(self, name: str, timeout: Any = None) -> Any:
        """The next signal with this name; waits for it. Each is given once, in order of arrival.

        Raises:
            TimeoutError: none came within ``timeout`` (`Duration` or seconds).
        """
        return self._go(next_signal(self, name, timeout))

    def try_signal(self, name: str, default: Any = None) -> Any:
        """The next signal with this name if one has come, else ``default``; the same in every life."""
        return self._go(signal_now(self, name, default))

    def publish(self, name: str, value: Any) -> None:
        """Let others read this under ``name``: ``handle.published(name)``. The latest value counts."""
        self._go(publish(self, name, value))

    def step_async(
        self, func: Callable[..., T], name: str | None = None, config: StepConfig | None = None, **keywords: Any
    ) -> Pending[T]:
        """Begin a step and go on: a `Pending`. Arguments as of `step`."""
        return self._later("step", func, name, config, **keywords)

    def child_async(
        self, func: Callable[..., T], name: str | None = None, config: ChildConfig[T] | None = None
    ) -> Pending[T]:
        """Begin a child context and go on. Arguments as of `run_in_child_context`."""
        return self._later("run_in_child_context", func, name, config)

    def invoke_async(
        self, function_name: Any, payload: Any, name: str | None = None, config: InvokeConfig | None = None
    ) -> Pending[Any]:
        """Begin an invoke and go on. Arguments as of `invoke`."""
        return self._later("invoke", function_name, payload, name, config)

    def wait_async(self, duration: Any, name: str | None = None) -> Pending[None]:
        """Set a timer and go on. Arguments as of `wait`."""
        return self._later("wait", duration, name)

    def callback_async(
        self, submitter: Callable[..., Any], name: str | None = None, config: WaitForCallbackConfig | None = None
    ) -> Pending[Any]:
        """Begin to wait for a callback and go on. Arguments as of `wait_for_callback`."""
        return self._later("wait_for_callback", submitter, name, config)

    def gather(self, *args: Any, return_errors: bool = False) -> list[Any]:
        """Pendings, and functions ``f(context)`` run side by side, each in a branch of its own: their values in order.

        Args:
            *args: what to wait for.
            return_errors: put errors into the list instead of raising the first one (by position).
        """
        functions, pendings = split(args, "gather")
        places = [place for place, _ in functions]
        result = self._race_or_gather("gather", [f for _, f in functions], places, ALL)[1] if functions else None
        settled: dict[int, Any] = {}
        for place, pending in pendings:
            try:
                settled[place] = pending.result(), None
            except Exception as error:
                settled[place] = None, error
        return values(args, result, places, settled, return_errors)

    def race(self, *args: Any) -> Any:
        """As `gather`, but the value of the first to succeed; the others are cancelled.

        Raises:
            ChildContextError: all failed; the last one's error.
        """
        _, pendings = split(args, "race")
        joined = {place: _joining(pending) for place, pending in pendings}
        every = [joined.get(place) or args[place] for place in range(len(args))]
        if not every:
            raise ValidationError("race needs a pending or a function")
        key, result = self._race_or_gather("race", every, None, RACE)
        for _, pending in pendings:
            pending.cancel()
        return winner(self, key, result)

    def _later(self, method: str, *args: Any, **keywords: Any) -> Pending[Any]:
        later = Later(self._scope, self._function, self)
        later._replays = self._replays
        flow = getattr(later, method)(*args, **keywords)
        self._replays = later._replays
        return SyncPending(self, flow, *(later._asked or (later._scope.key, "child")))

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


class Later(DurableContext):
    """A context whose operations get their key now and are run by somebody else: they give their flow."""

    def _go(self, flow: Flow[Any], crew: Any = None, asked: tuple[str, Kind] | None = None) -> Any:
        return flow

    def _value(self, value: Any) -> Any:
        return _known(value)

    def _inner(self, scope: Scope) -> Operations:
        return DurableContext(scope, self._function, self)


def _known(value: T) -> Flow[T]:
    """A flow that has its value already."""
    yield from ()
    return value


def _joining(pending: Pending[T]) -> Callable[[DurableContext], T]:
    """A branch that waits for a pending."""
    return lambda context: pending.joined(context._scope)
