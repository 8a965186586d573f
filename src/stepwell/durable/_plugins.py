"""How plugins are told: the observer of one life that calls their hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.core import (
    CallbackCreated,
    InvokeStarted,
    OperationCancelled,
    Recorded,
    RunSucceeded,
    ScopeStarted,
    SignalAwaited,
    SignalTaken,
    StepStarted,
    WaitStarted,
    operation_id,
)
from stepwell.durable._codec import shown_text
from stepwell.durable._op_words import TYPES, is_operation, parent_key, status_of, time_of
from stepwell.durable._plugin_list import HOOKS
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus, OperationType
from stepwell.durable.plugin import (
    InvocationEndInfo,
    InvocationInfo,
    InvocationStartInfo,
    OperationInfo,
    UserFunctionEndInfo,
    UserFunctionOutcome,
    UserFunctionStartInfo,
)
from stepwell.durable.types import DurableExecutionArn
from stepwell.errors import ErrorObject, PayloadError
from stepwell.runtime._observe import Observer, complain_once, copied
from stepwell.runtime._values import text_of
from stepwell.serde import capture, to_error_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stepwell.core import Op, Payload
    from stepwell.durable._plugin_list import Plugins
    from stepwell.runtime._life import Life
    from stepwell.runtime._live import Ending
    from stepwell.runtime._observe import BodyView, Change, Committed, Outcome

_STARTS = (StepStarted, WaitStarted, ScopeStarted, CallbackCreated, InvokeStarted, SignalAwaited)
_AT_ONCE = (Recorded, SignalTaken, OperationCancelled)
"""Records that may begin and end an operation in one."""


class _Operations(Sequence[OperationInfo]):
    """What is on record, in infos that are made when somebody looks: most plugins do not, and runs may be long."""

    def __init__(self, ops: Sequence[Op], make: Callable[[Op], OperationInfo]) -> None:
        self._ops = [op for op in ops if is_operation(op)]
        self._make = make
        self._made: tuple[OperationInfo, ...] | None = None

    def _all(self) -> tuple[OperationInfo, ...]:
        if self._made is None:
            self._made = tuple(map(self._make, self._ops))
        return self._made

    def __len__(self) -> int:
        return len(self._ops)

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._all())


class PluginObserver(Observer):
    """Calls the hooks of the plugins of one life."""

    eager = True

    def __init__(self, given: Sequence[Any], plugins: Plugins | None) -> None:
        self._given = given
        self._all = plugins
        self._plugins: list[Any] = []
        self._life: Any = None
        self._open: set[str] = set()
        """Operations whose start has been told, or was told in an earlier life."""

    # -- lives

    def on_life_start(self, life: Life, news: tuple[Change, ...]) -> None:
        """Make the plugins, and tell them."""
        self._life = life
        ops = [op for op in life.run.ops.values() if is_operation(op)]
        self._open = {op.key for op in ops if op.status in ("started", "planned")}
        told = {change.op.key: change.op for change in news if change.op is not None and is_operation(change.op)}
        self._open |= set(told)
        now = life.store.now()
        due = {op.key: op for op in ops if op.status in ("started", "planned") and 0 < op.until <= now}
        about = self._about()
        updated = tuple(self._due(op) for op in {**due, **told}.values())
        info = InvocationStartInfo(**about, updated_operations=updated)
        for given in self._given:
            plugin = self._made(given, info)
            if plugin is not None:
                self._plugins.append(plugin)
        self._call("on_invocation_start", info)

    def _made(self, given: Any, info: InvocationInfo) -> Any:
        """The plugin of this life."""
        try:
            if hasattr(given, "create_plugin"):
                return given.create_plugin(info)
            if isinstance(given, type):
                return given()
            if callable(given) and not any(hasattr(given, hook) for hook in HOOKS):
                return given(info)
        except Exception as error:
            complain_once(given, "create_plugin", error)
            return None
        return given

    def _due(self, op: Op) -> OperationInfo:
        info = self._info(op)
        if op.status == "planned":
            return msgspec.structs.replace(info, status=OperationStatus.READY)
        return info

    def _about(self) -> dict[str, Any]:
        life = self._life
        run, started = life.run, life.run.started
        return {
            "request_id": f"{run.id}-{life.lease.epoch}",
            "execution_arn": str(DurableExecutionArn.for_run(life.program.name, run.id)),
            "is_first_invocation": life.lease.epoch == 1,
            "execution_start_time": time_of(started.at) if started is not None else None,
            "execution_input": self._text(run.input, "input"),
            "metadata": dict(started.metadata) if started is not None else {},
            "operations": _Operations([op if op.ended else copied(op) for op in list(run.ops.values())], self._info),
        }

    def on_life_end(self, life: Life, ending: Ending) -> None:
        """Tell how it ended."""
        status, error, result = InvocationStatus.RETRY, None, None
        if ending.how == "parked":
            status = InvocationStatus.PENDING
        elif ending.how == "blocked":
            status, error = InvocationStatus.FAILED, ErrorObject(f"blocked: {life.run.blocked}", "RunBlocked")
        elif ending.how == "ended":
            status, error, result = self._end(life)
            if self._all is not None:
                self._all.of_run.pop(life.run.id, None)
        self._call(
            "on_invocation_end", InvocationEndInfo(**self._about(), status=status, error=error, execution_result=result)
        )

    def _end(self, life: Life) -> tuple[InvocationStatus, ErrorObject | None, str | None]:
        end = life.run.end
        if isinstance(end, RunSucceeded):
            return InvocationStatus.SUCCEEDED, None, self._text(end.payload, "result")
        if end is not None and end.error is not None:
            return InvocationStatus.FAILED, to_error_object(end.error), None
        kind = type(end).__name__
        reason = getattr(end, "reason", None) or {"RunTimedOut": "the run's time was up"}.get(kind, "cancelled")
        return InvocationStatus.FAILED, ErrorObject(reason, kind), None

    # -- operations

    def on_commit(self, committed: Committed) -> None:
        """Each record about an operation is a start, a change, or an end."""
        for change in committed.changes:
            op = change.op
            if op is None or not is_operation(op):
                continue
            for hook in self._hooks_of(change, op):
                info = self._info(op)
                if hook == "on_operation_start" and op.ended:  # it ends in the same record: its end is told next
                    begun = {"status": OperationStatus.STARTED, "end_time": None, "result": None, "error": None}
                    info = msgspec.structs.replace(info, **begun)
                self._call(hook, info)

    def _hooks_of(self, change: Change, op: Op) -> Iterator[str]:
        known = op.key in self._open
        if isinstance(change.record, _STARTS):
            self._open.add(op.key)
            yield "on_operation_change" if known else "on_operation_start"
        elif op.ended:
            if not known and isinstance(change.record, _AT_ONCE):
                yield "on_operation_start"
            self._open.discard(op.key)
            yield "on_operation_end"
        else:
            yield "on_operation_change"

    def on_replay(self, life: Life, op: Op) -> None:
        """It was begun by an earlier life and is still open."""
        if is_operation(op):
            self._call("on_operation_start", self._info(op, is_replayed=True))

    def metadata(self, life: Life, op: Op) -> Mapping[str, str]:
        """What the plugins provide for the run that an operation is about to start; of two, the later one wins."""
        found: dict[str, str] = {}
        for plugin in self._plugins:
            hook = getattr(plugin, "provide_propagation_metadata", None)
            if hook is None:
                continue
            try:
                found |= {str(name): str(text) for name, text in (hook(self._info(op)) or {}).items()}
            except Exception as error:
                complain_once(plugin, "provide_propagation_metadata", error)
        return found

    # -- bodies

    def on_body_start(self, body: BodyView) -> None:
        """On the body's thread."""
        about = self._body(body)
        if about is not None:
            self._call("on_user_function_start", UserFunctionStartInfo(**about))

    def on_body_end(self, body: BodyView, outcome: Outcome, error: BaseException | None, token: Any) -> None:
        """On the body's thread."""
        about = self._body(body)
        if about is None:
            return
        about["error"] = None
        if isinstance(error, Exception):
            about["error"] = to_error_object(body.life.redactor.redact_error(capture(error)))
        self._call("on_user_function_end", UserFunctionEndInfo(**about, outcome=UserFunctionOutcome[outcome.upper()]))

    def _body(self, body: BodyView) -> dict[str, Any] | None:
        op = body.life.run.ops.get(body.key)
        if op is None or not is_operation(op):
            return None
        return {**msgspec.structs.asdict(self._info(op)), "is_replay_children": body.again}

    # -- telling

    def _info(self, op: Op, *, is_replayed: bool = False) -> OperationInfo:
        kind, sub_type = TYPES[op.kind]
        parent = parent_key(self._life.run, op.key)
        return OperationInfo(
            operation_id=operation_id(op.key),
            operation_type=kind,
            sub_type=op.sub_type or sub_type,
            name=op.name,
            parent_id=None if parent is None else operation_id(parent),
            start_time=time_of(op.started_at),
            is_replayed=is_replayed,
            status=status_of(op),
            end_time=time_of(op.ended_at) if op.ended else None,
            result=self._text(op.payload, op.key) if op.status == "succeeded" else None,
            error=None if op.error is None else to_error_object(op.error),
            attempt=op.attempt if kind is OperationType.STEP else 0,
        )

    def _text(self, payload: Payload, key: str) -> str | None:
        if payload is None:
            return None
        try:
            return shown_text(text_of(self._life, payload, key))
        except PayloadError:
            return None

    def _call(self, hook: str, info: Any) -> None:
        for plugin in self._plugins:
            called = getattr(plugin, hook, None)
            if called is None:
                continue
            try:
                called(info)
            except Exception as error:
                complain_once(plugin, hook, error)
