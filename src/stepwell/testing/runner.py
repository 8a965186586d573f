"""Runners with the shapes of the AWS SDK's test kit: results are serialized text, statuses are `OperationStatus`."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Self

import msgspec

from stepwell.client._outcome import Reader, state_of
from stepwell.core import RunSucceeded
from stepwell.durable._bound import Binder, Bound, is_async_callable
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus
from stepwell.durable.types import DurableExecutionArn
from stepwell.errors import ErrorObject
from stepwell.runtime._values import text_of
from stepwell.testing._kit import Kit, called
from stepwell.testing._kit_callbacks import open_callback
from stepwell.testing._kit_result import how_it_ended
from stepwell.testing._lookup import DurableFunctionsTestError, Lookup
from stepwell.testing._sdk_shapes import (
    CallbackOperation,
    ContextOperation,
    ExecutionHistory,
    HistoryEvent,
    InvokeOperation,
    RecordedOperation,
    StepOperation,
    WaitOperation,
    history_event,
    typed_operations,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.client import RunHandle

__all__ = [
    "CallbackOperation",
    "ContextOperation",
    "DurableChildContextTestRunner",
    "DurableFunctionTestResult",
    "DurableFunctionTestRunner",
    "DurableFunctionsTestError",
    "ExecutionHistory",
    "HistoryEvent",
    "InvokeOperation",
    "RecordedOperation",
    "StepOperation",
    "WaitOperation",
]


class DurableFunctionTestResult(Lookup, msgspec.Struct, frozen=True):
    """A run that has ended, or whose time was up.

    ``status`` is SUCCEEDED or FAILED; ``execution_status`` tells more: TIMED_OUT, STOPPED (cancelled). ``result`` is
    the value as serialized JSON text, None where there is none. ``operations`` are the top level, in call order.
    """

    status: InvocationStatus
    execution_status: OperationStatus
    result: str | None
    error: ErrorObject | None
    operations: list[RecordedOperation]
    execution_arn: str


class DurableFunctionTestRunner:
    """Runs one durable function in this process; see `stepwell.testing.DurableRunner` for the one with decoded values.

    Args:
        handler: the durable function, or a plain function with its signature.
        poll_interval: taken, and not needed: nothing is polled here.
        max_invocation_page_bytes: taken, and not needed: a journal is read in pages of its own.
        execution_timeout: seconds of real time that a run gets; then it is FAILED, its execution_status TIMED_OUT.
        invocation_timeout: taken, and not needed: a life has no limit of its own.
        store: URL of a store to use instead of memory.
        skip_time: False for real time.
        region: taken for its place in the printed interface; runs have no region.
    """

    def __init__(
        self, handler: Any, poll_interval: float = 1.0, max_invocation_page_bytes: int | None = None,
        execution_timeout: float = 300, invocation_timeout: float = 900, store: str | None = None,
        skip_time: bool = True, region: str = "us-west-2",
    ) -> None:  # fmt: skip
        self._handler = handler
        self._execution_timeout = execution_timeout
        self._kit = Kit(store, skip_time=skip_time)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End what still runs. Idempotent; a later `run` opens the runner again."""
        self._kit.close()

    def register_durable_function(
        self, name: str, handler: Any, execution_timeout: float | None = None, retention_period_days: int | None = None
    ) -> Self:
        """Make a durable function known that the one under test invokes. The time-outs are taken and not needed."""
        self._kit.register(name, handler, durable=True)
        return self

    def register_function(self, name: str, function: Callable[..., Any]) -> Self:
        """Make a plain function known that the one under test invokes: it runs as one step."""
        self._kit.register(name, function, durable=False)
        return self

    # -- runs

    def run(
        self, input: Any = None, execution_timeout: float | None = None, timeout: float | None = None,
        function_name: str = "test-function", execution_name: str = "execution-name",
        account_id: str = "123456789012", tenant_id: str | None = None,
    ) -> DurableFunctionTestResult:  # fmt: skip
        """Run it to its end.

        Args:
            input: the event; a text that is JSON stands for what it encodes, None for ``{}``.
            execution_timeout: seconds of real time that the run gets; default the runner's.
            timeout: seconds of real time that this call waits; the shorter of the two counts.
            function_name: the name that the run is recorded under.
            execution_name: the run's id; a number is put behind it if it is taken.
            account_id: taken for its place in the printed interface.
            tenant_id: what the run's ``lambda_context.tenant_id`` is.
        """
        handle = self._start(input, function_name, execution_name, tenant_id)
        return self._result(handle, self._limit(execution_timeout, timeout))

    def run_async(
        self, input: Any = None, execution_timeout: float | None = None, timeout: float | None = None,
        function_name: str = "test-function", execution_name: str = "execution-name",
        account_id: str = "123456789012", tenant_id: str | None = None,
    ) -> str:  # fmt: skip
        """Start a run in the background; its ARN, for `wait_for_result`. Arguments as `run`."""
        return self._arn(self._start(input, function_name, execution_name, tenant_id))

    def wait_for_result(self, execution_arn: str, timeout: float = 60) -> DurableFunctionTestResult:
        """Wait for the end of a run, at most ``timeout`` seconds of real time."""
        return self._result(self._handle(execution_arn), timeout)

    def _limit(self, execution_timeout: float | None, timeout: float | None) -> float:
        allowed = self._execution_timeout if execution_timeout is None else execution_timeout
        return allowed if timeout is None else min(allowed, timeout)

    def _start(self, input: Any, function_name: str, execution_name: str, tenant_id: str | None) -> RunHandle:
        with self._lock:
            run_id, number = execution_name, 1
            while self._kit.store.run_get(run_id) is not None:
                number += 1
                run_id = f"{execution_name}-{number}"
            function = called(self._handler, function_name)
            return self._kit.start(function, _event(input), run_id, tenant=tenant_id)

    def _handle(self, execution_arn: str) -> RunHandle:
        return self._kit.engine.get_run(execution_arn.rpartition("/")[2])

    def _arn(self, handle: RunHandle) -> str:
        return str(DurableExecutionArn.for_run(self._kit.row(handle.id).function, handle.id))

    def _result(self, handle: RunHandle, timeout: float) -> DurableFunctionTestResult:
        in_time = self._kit.wait(handle.id, timeout)
        _, error, ended = how_it_ended(self._kit, handle, in_time=in_time, timeout=timeout)
        store: Any = self._kit.store
        run = state_of(store, self._kit.row(handle.id))
        end, text = run.end, None
        if isinstance(end, RunSucceeded) and ended is OperationStatus.SUCCEEDED:
            reader: Any = Reader(store)
            text = text_of(reader, end.payload, "result")
        status = InvocationStatus.FAILED if text is None else InvocationStatus.SUCCEEDED
        operations = typed_operations(store, run)
        return DurableFunctionTestResult(status, ended, text, error, operations, self._arn(handle))

    def get_execution_history(self, execution_arn: str, include_execution_data: bool = False) -> ExecutionHistory:
        """The run's history in events (durable.md §18); with ``include_execution_data`` payloads, too."""
        told = self._handle(execution_arn).history("aws", include_data=include_execution_data)
        return ExecutionHistory([history_event(event) for event in told["Events"]])

    # -- from outside

    def wait_for_callback(self, execution_arn: str, name: str | None = None, timeout: float = 60) -> str:
        """Wait until the run waits for a callback (the newest one where no name is given), and return its id.

        Raises:
            DurableFunctionsTestError: the callback is completed already, or the run has ended without it.
            TimeoutError: there is none after ``timeout`` seconds of real time.
        """
        return open_callback(self._kit, self._handle(execution_arn).id, name, timeout)

    def send_callback_success(self, callback_id: str, result: bytes | str | None = None) -> None:
        """Answer a callback."""
        self._kit.engine.send_callback_success(callback_id, result)

    def send_callback_failure(self, callback_id: str, error: ErrorObject | str | None = None) -> None:
        """Refuse a callback."""
        self._kit.engine.send_callback_failure(callback_id, error)

    def send_callback_heartbeat(self, callback_id: str) -> None:
        """Say that whoever is to answer a callback is still at it."""
        self._kit.engine.send_callback_heartbeat(callback_id)

    def pause_execution(self, execution_arn: str) -> None:
        """Begin no further life of a run. One that is under way goes on until it waits."""
        self._kit.store.paused.add(self._handle(execution_arn).id)

    def resume_execution(self, execution_arn: str) -> None:
        """Let a paused run go on."""
        self._kit.store.paused.discard(self._handle(execution_arn).id)
        self._kit.bell.ring()


class DurableChildContextTestRunner(DurableFunctionTestRunner):
    """Runs the body of a child context in a run of its own.

    Args:
        function: what ``durable_with_child_context`` made, or a plain function whose first parameter is the context.
        *args: its arguments behind the context.
        skip_time: False for real time.
        **kwargs: its keyword arguments.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, skip_time: bool = True, **kwargs: Any) -> None:
        super().__init__(_handler_of(function, args, kwargs), skip_time=skip_time)


def _handler_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = function(*args, **kwargs) if isinstance(function, Binder) else Bound(
        function, args, kwargs, None, is_async_callable(function)
    )  # fmt: skip

    def handler(event: Any, context: Any) -> Any:
        return bound(context)

    async def async_handler(event: Any, context: Any) -> Any:
        return await bound(context)

    return async_handler if bound.is_async else handler


def _event(input: Any) -> Any:
    if input is None:
        return {}
    if not isinstance(input, str):
        return input
    try:
        return json.loads(input)
    except ValueError:
        return input
