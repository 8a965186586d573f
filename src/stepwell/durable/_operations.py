"""What both contexts do, written once: each operation hands out its key, makes the core's flow and lets it go.

`DurableContext` runs the flow on the calling thread, `AsyncDurableContext` gives a coroutine of it.
"""

from __future__ import annotations

import random
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from stepwell import serde
from stepwell.core import (
    US,
    Flow,
    ScopeWanted,
    StepWanted,
    Wanted,
    batch,
    child_key,
    jitter_fraction,
    label,
    operation_id,
    record,
    replay,
    scope,
    step,
    wait,
)
from stepwell.durable._batches import (
    Batch,
    ScopeBody,
    batch_wanted,
    branch_name,
    item_key_text,
    item_run,
    listed,
)
from stepwell.durable._bound import Binder, Bound, check_function, described, is_async_callable, item_function
from stepwell.durable._checks import check_config, check_progress
from stepwell.durable._codec import codec_for
from stepwell.durable._duration import to_us
from stepwell.durable._pending import fan
from stepwell.durable._plan import poll_planner
from stepwell.durable._steps import (
    code_print,
    default_retry,
    function_of,
    keep_lines,
    note_progress,
    step_wanted,
    undo_of,
)
from stepwell.durable._submitter import Submitter
from stepwell.durable.config import (
    CallbackConfig,
    ChildConfig,
    MapConfig,
    ParallelBranch,
    ParallelConfig,
    StepConfig,
    WaitForCallbackConfig,
)
from stepwell.durable.logger import Logger
from stepwell.durable.types import DurableExecutionArn, LambdaContext, WaitForConditionCheckContext
from stepwell.durable.waits import WaitForConditionConfig
from stepwell.errors import NonDeterminismError, ReplayWarning, ValidationError
from stepwell.runtime._api import Attempt, Body, Undo
from stepwell.runtime._rollback import to_undo
from stepwell.runtime._scope import checked_name
from stepwell.runtime._values import unpack
from stepwell.serde import capture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepwell.core import Kind, Op, Payload, Planner
    from stepwell.durable._function import DurableFunction
    from stepwell.runtime._scope import Scope

LONGEST_WAIT = 100 * 366 * 86_400 * US


class ExecutionContext:
    """What identifies a run to the outside: ``durable_execution_arn``."""

    __slots__ = ("durable_execution_arn",)

    def __init__(self, arn: str) -> None:
        self.durable_execution_arn = arn


class Operations:
    """See the module. Attributes: those of `DurableContext`."""

    def __init__(self, scope: Scope, function: DurableFunction, parent: Operations | None = None) -> None:
        self._scope = scope
        self._function = function
        self._parent = parent
        self._replays = scope.life.replaying and (parent is None or scope.key in scope.life.run.ops)
        self._backend: Any = None if parent is None else parent._backend
        self._planner: Planner | None = None
        self._asked: tuple[str, Kind] | None = None
        """Key and kind of the newest operation; None where it has no records of its own."""

    def __reduce__(self) -> Any:
        message = "contexts cannot be pickled: pass values to other processes"
        raise TypeError(message)

    # -- about the run

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._scope.life.run.id

    @property
    def key(self) -> str:
        """Key of this context's scope; "" for the handler's."""
        return self._scope.key

    @property
    def attempt_of_run(self) -> int:
        """1 + how often the run was retried."""
        return 1 + self._scope.life.run.reopened

    @property
    def is_virtual(self) -> bool:
        """Whether this context has no records of its own."""
        return self._scope.virtual

    @property
    def cancelled(self) -> bool:
        """Whether the run is being cancelled, or this branch was let go of."""
        return self._scope.life.over is not None or self._scope.branch.gone

    @property
    def execution_context(self) -> ExecutionContext:
        """The run's ARN-shaped id."""
        return ExecutionContext(self._arn)

    @property
    def lambda_context(self) -> LambdaContext:
        """About this life of the run, in the words of AWS Lambda."""
        life = self._scope.life

        def remaining() -> float | None:
            return None if life.deadline is None else (life.deadline - life.store.now()) / US

        tenant = None if life.run.started is None else life.run.started.tenant
        request = f"{life.run.id}-{life.lease.epoch}"
        return LambdaContext(request, life.program.name, tenant_id=tenant, remaining=remaining)

    @property
    def _arn(self) -> str:
        life = self._scope.life
        return str(DurableExecutionArn.for_run(life.program.name, life.run.id))

    def is_replaying(self) -> bool:
        """Whether this context has not yet come to its first operation without a record."""
        return self._replays

    @property
    def logger(self) -> Logger:
        """Logs for this context; silent while it replays."""
        redactor = self._scope.life.redactor
        return Logger(self._extra, backend=self._backend, is_replaying=self.is_replaying, redactor=redactor)

    def set_logger(self, logger: Any) -> None:
        """Log through this object instead of ``logging.getLogger("stepwell.run")``."""
        self._backend = logger

    def _extra(self) -> dict[str, object]:
        extra: dict[str, object] = {"executionArn": self._arn, "run_id": self.run_id, "key": self.key}
        if (parent := self._scope.parent_id()) is not None:
            extra["parentId"] = parent
        return extra

    def _step_logger(self, attempt: Attempt) -> Logger:
        def extra() -> dict[str, object]:
            found = {**self._extra(), "key": attempt.key, "attempt": attempt.attempt}
            found["operationId"] = operation_id(attempt.key)
            if attempt.name is not None:
                found["operationName"] = attempt.name
            return found

        return Logger(extra, backend=self._backend, redactor=self._scope.life.redactor)

    # -- colour: the only differences between the two contexts

    def _go(self, flow: Flow[Any], crew: Any = None, asked: tuple[str, Kind] | None = None) -> Any:
        raise NotImplementedError

    def _value(self, value: Any) -> Any:
        raise NotImplementedError

    def _inner(self, scope: Scope) -> Operations:
        return type(self)(scope, self._function, self)

    def _crew(self, asked: Any) -> Any:
        raise NotImplementedError

    # -- inside

    def _codec(self, serdes: Any, key: str) -> Any:
        chosen = serdes if serdes is not None else self._scope.life.host.settings.get("serdes")
        return codec_for(chosen, self._arn if chosen is not None else "", key)

    def _retry(self) -> Planner:
        if self._planner is None:
            self._planner = default_retry(self) if self._parent is None else self._parent._retry()
        return self._planner

    def _began(self, key: str, kind: Kind, *, is_step: bool = False) -> Op | None:
        """An operation is asked for: whether this context still replays shows by its record."""
        self._asked = key, kind
        life = self._scope.life
        op = life.run.ops.get(key)
        if life.watch is not None and op is not None and not life.replay_only:
            life.watch.replayed(key)
        if self._replays and (op is None or not op.ended):
            self._replays = False if op is None or is_step else self._replays
            if op is not None and not is_step:
                self._replays = False
        return op

    def _step(self, func: Any, name: str | None, config: StepConfig | None, keywords: dict[str, Any]) -> Any:
        call, auto, unnamed, takes_context = function_of(func, "step")
        if config is not None and not isinstance(config, StepConfig):
            raise ValidationError(f"config of a step is a StepConfig, not {config!r}")
        key, name = self._scope.begin("step", name or auto, unnamed or "step")
        life = self._scope.life
        op = self._began(key, "step", is_step=True)
        code = code_print(func, name)
        if op is not None and code is not None and op.fingerprint is not None:
            self._compare(op, code)
        if op is not None and not life.replay_only:
            done = replay(life.run, key, "step")
            if done is not None and not op.undo:
                serdes = keywords.get("serdes") or (config.serdes if config is not None else None)
                return self._value(unpack(life, self._codec(serdes, key), done.payload, key))
        given = {k: v for k, v in keywords.items() if v is not None}
        want = step_wanted(self, (call, takes_context, _is_async(call)), (key, name, code), config, given)
        return self._go(step(life.run, want, capture))

    def _compare(self, op: Op, code: str) -> None:
        """An unnamed step whose code is another than the recorded one (durable.md §3.2)."""
        life = self._scope.life
        version, _, _ = code.partition(":")
        if op.fingerprint == code or not (op.fingerprint or "").startswith(version + ":"):
            return
        message = (
            f"the unnamed step at {op.key} was recorded with other code; give it a name to keep or to drop its record"
        )
        if self._function.strict:
            raise life.diverge(NonDeterminismError(message, key=op.key, expected=op.fingerprint, found=code))
        if op.key not in life.warned:
            life.warned.add(op.key)
            warnings.warn(message, ReplayWarning, stacklevel=4)

    def _wait(self, duration: Any, name: str | None) -> Any:
        us = to_us(duration)
        if us > LONGEST_WAIT:
            raise ValidationError("wait: at most 100 years")
        key, name = self._scope.begin("wait", name, "wait")
        self._began(key, "wait")
        return self._go(wait(self._scope.life.run, Wanted(key, "wait", name), us))

    def _child(self, func: Any, name: str | None, config: ChildConfig[Any] | None) -> Any:
        call, auto, unnamed = scope_function(func, "run_in_child_context")
        self._refuse_async("run_in_child_context", call)
        check_config("run_in_child_context", config, ChildConfig)
        settings = config or ChildConfig()
        key, name = self._scope.begin("run_in_child_context", name or auto, unnamed or "child")
        self._began(key, "child")
        if settings.is_virtual:
            self._asked = None
        codec = self._codec(settings.serdes, key)
        body = ScopeBody(self, call, codec, settings.summary_generator)
        asked = ScopeWanted(Wanted(key, "child", name, settings.sub_type, None, codec), body, settings.is_virtual)
        return self._go(_look_inside(self, asked) if self._must_look(key) else scope(self._scope.life.run, asked))

    def _refuse_async(self, method: str, func: Any) -> None:
        """A scope of a sync function has a context that blocks: no coroutine may use it on the loop."""
        if not self._scope.life.is_async and _is_async(func):
            what = described(func) or "it"
            raise ValidationError(
                f"context.{method} of a sync durable function takes a plain function; {what} is async def: "
                "make the durable function async def"
            )

    def _must_look(self, key: str) -> bool:
        """Replay without executing enters finished scopes, too: their steps may have an undo."""
        life = self._scope.life
        op = life.run.ops.get(key)
        return life.replay_only and life.look_inside and op is not None and op.ended

    def _map(self, inputs: Any, func: Any, name: str | None, config: MapConfig[Any] | None) -> Any:
        call, auto, takes = item_function(func)
        self._refuse_async("map", call)
        check_config("map", config, MapConfig)
        settings: MapConfig[Any] = config or MapConfig()
        items = listed(inputs)
        key, name = self._scope.begin("map", name or auto, "map")
        self._began(key, "map")
        namer, by_key = settings.item_namer, None
        given = [namer(item, index) if namer else None for index, item in enumerate(items)]
        names = [branch_name(name, f"map-item-{index}") for index, name in enumerate(given)]
        if settings.item_key is not None:
            by_key = [item_key_text(settings.item_key(item, index)) for index, item in enumerate(items)]
        runs = [item_run(call, takes, items, index) for index in range(len(items))]
        return self._batch(batch_wanted(self, (key, name), "map", settings, runs, names, by_key))

    def _parallel(self, functions: Sequence[Any], name: str | None, config: ParallelConfig | None) -> Any:
        check_config("parallel", config, ParallelConfig)
        settings = config or ParallelConfig()
        runs, names = [], []
        for index, given in enumerate(listed(functions)):
            own = given.name if isinstance(given, ParallelBranch | Bound | Binder) else None
            call, _, _ = scope_function(given.func if isinstance(given, ParallelBranch) else given, "parallel")
            self._refuse_async("parallel", call)
            runs.append(call)
            names.append(branch_name(own, f"parallel-branch-{index}"))
        key, name = self._scope.begin("parallel", name, "parallel")
        self._began(key, "parallel")
        return self._batch(batch_wanted(self, (key, name), "parallel", settings, runs, names))

    def _batch(self, asked: Any) -> Any:
        life, run = self._scope.life, self._scope.life.run
        op = run.ops.get(asked.want.key)
        if life.asked is not None:
            life.asked.batch(op, asked)
        if life.replay_only and op is not None and (life.look_inside or not op.ended):
            return self._go(_look_inside_batch(self, asked), self._crew(asked))
        return self._go(batch(run, asked), self._crew(asked))

    def _wait_for_callback(self, submitter: Any, name: str | None, config: WaitForCallbackConfig | None) -> Any:
        submit = Submitter.of(submitter)
        if config is not None and not isinstance(config, CallbackConfig):
            raise ValidationError(f"config of wait_for_callback is a WaitForCallbackConfig, not {config!r}")
        settings = config or WaitForCallbackConfig()
        key, name = self._scope.begin("wait_for_callback", name or submit.name, submit.label or "wait_for_callback")
        self._began(key, "wait_for_callback")
        codec = self._codec(
            None, key
        )  # what was sent is read once: the settings' serdes is the callback's and the step's
        inside = submit.inside_async if self._scope.life.is_async else submit.inside
        body = ScopeBody(self, lambda context: inside(context, name, settings), codec)
        want = Wanted(key, "wait_for_callback", name, settings.sub_type, None, codec)
        asked = ScopeWanted(want, body)
        return self._go(_look_inside(self, asked) if self._must_look(key) else scope(self._scope.life.run, asked))

    def _wait_for_condition(self, check: Any, config: WaitForConditionConfig[Any] | None, name: str | None) -> Any:
        if not callable(check) or not isinstance(config, WaitForConditionConfig):
            raise ValidationError("wait_for_condition needs a check function and a WaitForConditionConfig")
        check, unnamed = check_function(check)
        key, name = self._scope.begin("wait_for_condition", name, unnamed or "wait_for_condition")
        self._began(key, "wait_for_condition", is_step=True)
        life, codec = self._scope.life, self._codec(config.serdes, key)
        plan = poll_planner(config.wait_strategy, life.run.id)

        def call(attempt: Attempt) -> Any:
            state = config.initial_state if attempt.state is None else unpack(life, codec, attempt.state, key)
            context = WaitForConditionCheckContext(self._step_logger(attempt), attempt.attempt)
            return keep_lines(attempt, check, state, context)

        def finish(state: Any, attempt: Attempt) -> tuple[bool, float]:
            return plan(key, state, attempt.attempt)

        body = Body(call, codec, is_async=_is_async(check), finish=finish)
        return self._go(step(life.run, StepWanted(key, "wait_for_condition", name, None, None, codec, body), capture))

    # -- the recorded world

    def _recorded(self, method: str, kind: Any, name: str | None, make: Callable[[str], Any]) -> Any:
        key, name = self._scope.begin(method, name, kind)
        self._began(key, kind)
        codec = codec_for(None, "")

        def made() -> tuple[Payload, Any]:
            text = codec.encode(make(key), method)
            return text, codec.decode(text, key)

        return self._go(record(self._scope.life.run, Wanted(key, kind, name, None, None, codec), made))

    def _now(self) -> Any:
        return self._recorded(
            "now", "now", None, lambda _: datetime.fromtimestamp(self._scope.life.store.now() / US, UTC)
        )

    def _random(self) -> Any:
        return self._recorded("random", "random", None, lambda key: self._dice(key).random())

    def _randint(self, a: Any, b: Any) -> Any:
        if not isinstance(a, int) or not isinstance(b, int):
            raise ValidationError(f"randint({a!r}, {b!r}) needs two ints")
        if a > b:
            raise ValidationError(f"randint({a}, {b}): the first must not be greater")
        return self._recorded("randint", "random", None, lambda key: self._dice(key).randint(a, b))

    def _dice(self, key: str) -> random.Random:
        return random.Random(jitter_fraction(self.run_id, key, 0))

    def _uuid(self) -> Any:
        import os

        return self._recorded("uuid", "uuid", None, lambda _: UUID(bytes=os.urandom(16), version=4))

    def _once_wanted(self, key: str, func: Any) -> StepWanted:
        call, _, _, takes_context = function_of(func, "once")
        if not key:
            raise ValidationError("once needs a key")
        place = child_key(self._scope.key, label(checked_name(key)), 1)
        self._scope.refuse_secret(key, place)
        life = self._scope.life
        if life.watch is not None and not life.replay_only:
            life.watch.replayed(place)
        if (asked := life.asked) is not None:
            asked.keys.add(place)
        codec = codec_for(None, "")

        def body(attempt: Attempt) -> Any:
            return keep_lines(attempt, call, *((self,) if takes_context else ()))

        return StepWanted(place, "once", key, None, None, codec, Body(body, codec, is_async=_is_async(call)), None)

    # -- beside the caller, and several at a time

    def _race_or_gather(self, kind: Kind, functions: Any, places: Any, rule: Any) -> tuple[str, Any]:
        """The batch of a gather or race: its key, and what its running gives."""
        key, asked = fan(self, kind, functions, places, rule)
        return key, self._batch(asked)

    # -- undo, progress

    def _on_failure(self, undo: Any, args: tuple[Any, ...], name: str | None) -> Any:
        if not callable(undo):
            raise ValidationError(f"on_failure needs a function, not {undo!r}")
        key, name = self._scope.begin("on_failure", name, described(undo) or "on_failure")
        self._began(key, "on_failure")
        life, codec = self._scope.life, codec_for(None, "")
        inner = undo_of(self, lambda context, _: undo(context, *args), name or described(undo), codec, None)
        life.undos[key] = Undo(inner.body, inner.name, inner.plan)
        want = Wanted(key, "on_failure", name, None, None, codec)
        return self._go(record(life.run, want, lambda: ("null", None), undo=True))

    def _rollback_keys(self) -> Flow[list[str]]:
        """What to undo now, as it was at first sight."""
        key, name = self._scope.begin("rollback", None, "rollback")
        self._began(key, "rollback")
        life, codec = self._scope.life, codec_for(None, "")
        keys = to_undo(life.run, self._scope.key)
        text = serde.encode(keys)
        return record(life.run, Wanted(key, "rollback", name, None, None, codec), lambda: (text, keys))

    def _progress(self, done: float, total: float | None, message: str) -> None:
        check_progress(done, total, message)
        note_progress(self._scope.life, self._scope.key, done, total, message)


def _is_async(func: Any) -> bool:
    return func.is_async if isinstance(func, Bound | Binder) else is_async_callable(func)


def scope_function(func: Any, method: str) -> tuple[Any, str | None, str | None]:
    """What a caller passed as a scope's body: (callable taking a context, name, label if unnamed)."""
    call, auto, unnamed, takes_context = function_of(func, method)
    if takes_context:
        return call, auto, unnamed
    return (lambda _context: call()), auto, unnamed


def _look_inside(context: Operations, asked: ScopeWanted) -> Flow[Any]:
    """Enter a finished scope for the undo functions inside, then give what is on record."""
    from stepwell.core import Enter

    yield Enter(asked)
    return (yield from scope(context._scope.life.run, asked))


def _look_inside_batch(context: Operations, asked: Any) -> Flow[Any]:
    from stepwell.core import Enter

    life, run = context._scope.life, context._scope.life.run
    if life.follower is not None:
        life.follower(asked)
    for index, branch in enumerate(asked.branches):
        op = run.ops.get(branch.key)
        if asked.virtual or (op is not None and (life.look_inside or not op.ended)):
            inside: Batch = asked.body
            yield Enter(ScopeWanted(branch, inside.branch(index), asked.virtual))
    return (yield from batch(run, asked))
