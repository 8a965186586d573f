"""From what a caller writes about callbacks, other runs and signals to what the core wants."""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from stepwell.core import (
    CallbackWanted,
    Flow,
    InvokeWanted,
    Payload,
    SignalWanted,
    Wanted,
    callback,
    callback_result,
    invoke,
    record,
    try_signal,
    wait_signal,
)
from stepwell.durable._checks import is_encodable
from stepwell.durable._codec import codec_for
from stepwell.durable._duration import to_us
from stepwell.durable._form import Form
from stepwell.durable.config import CallbackConfig, InvokeConfig
from stepwell.errors import ErrorRecord, ValidationError
from stepwell.runtime._values import kept
from stepwell.serde import capture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.core import Kind
    from stepwell.durable._duration import DurationLike
    from stepwell.durable._operations import Operations

T = TypeVar("T")
APPROVAL = "Approval"
"""Sub-type of a callback that asks a person."""


class _Raw:
    """What is sent is the value."""

    __slots__ = ()

    def encode(self, value: Any, place: str) -> str:
        return str(value)

    def decode(self, text: str, key: str) -> Any:
        return text


RAW = _Raw()


class Callback(Generic[T]):
    """Somebody outside will answer. ``callback_id`` is what they need to do so; it is the same in every life."""

    __slots__ = ("_context", "_wanted", "callback_id")

    def __init__(self, context: Operations, wanted: CallbackWanted, callback_id: str) -> None:
        self._context = context
        self._wanted = wanted
        self.callback_id = callback_id

    def __repr__(self) -> str:
        return f"<Callback {self._wanted.name or self._wanted.key}>"

    def result(self) -> T:
        """The answer; waits for it. In async functions an awaitable of it. May be asked more than once.

        Raises:
            CallbackExternalError: a failure was sent; ``error_type`` and text as sent.
            CallbackTimeoutError: no answer, or no heartbeat, in time.
        """
        context = self._context
        context._scope.check("result", self._wanted.name or self._wanted.key)
        flow = callback_result(context._scope.life.run, self._wanted)
        return context._go(flow, asked=(self._wanted.key, "callback"))  # type: ignore[no-any-return]


def callback_id(run_id: str, key: str) -> str:
    """A new id that nobody can guess (128 bits of chance) and that says where the answer belongs."""
    import os

    place = base64.urlsafe_b64encode(msgspec.json.encode([run_id, key])).rstrip(b"=").decode()
    return f"{place}.{base64.urlsafe_b64encode(os.urandom(16)).rstrip(b'=').decode()}"


def callback_place(callback_id: str) -> tuple[str, str] | None:
    """Run id and key in a callback's id; None where it is none."""
    place, dot, _ = callback_id.rpartition(".")
    try:
        found = msgspec.json.decode(base64.urlsafe_b64decode(place + "=" * (-len(place) % 4)), type=tuple[str, str])
    except (ValueError, msgspec.MsgspecError):
        return None
    return found if dot else None


def create_callback(
    context: Operations,
    name: str | None,
    config: CallbackConfig | None,
    *,
    method: str = "create_callback",
    form: Form | None = None,
) -> Flow[Callback[Any]]:
    """A callback; known outside when this has run."""
    if config is not None and not isinstance(config, CallbackConfig):
        raise ValidationError(f"config of a callback is a CallbackConfig, not {config!r}")
    settings = config or CallbackConfig()
    scope = context._scope
    key, name = scope.begin(method, name, "callback")
    context._began(key, "callback")
    codec: Any = form if form is not None else RAW if settings.serdes is None else context._codec(settings.serdes, key)
    want = CallbackWanted(
        key,
        "callback",
        name,
        APPROVAL if form is not None else settings.sub_type,
        None,
        codec,
        timeout=to_us(settings.timeout) or None,
        heartbeat=to_us(settings.heartbeat_timeout) or None,
        form=None if form is None else scope.life.redactor.redact_json(form.recorded()),
    )
    run = scope.life.run

    def flow() -> Flow[Callback[Any]]:
        return Callback(context, want, (yield from callback(run, want, lambda: callback_id(run.id, key))))

    return flow()


def approve(
    context: Operations, title: Any, form: Any, who: Sequence[str], timeout: DurationLike | None, name: str | None
) -> Flow[Any]:
    """Ask a person, and wait for the answer."""
    if not isinstance(title, str) or not title:
        raise ValidationError("approve needs a title: what is asked")
    asked = Form(title, form, (who,) if isinstance(who, str) else tuple(who))
    created = create_callback(context, name, CallbackConfig(timeout or 0), method="approve", form=asked)

    def flow() -> Flow[Any]:
        opened = yield from created
        return (yield from callback_result(context._scope.life.run, opened._wanted))

    return flow()


# -- other runs


class RunRef(msgspec.Struct, frozen=True):
    """A run that was started and is not waited for: ``stepwell.Engine().get_run(ref.id)`` looks at it."""

    id: str


def invoke_wanted(
    context: Operations, function: Any, payload: Any, name: str | None, config: InvokeConfig | None, *, waits: bool
) -> Flow[Any]:
    """Another run; its value, or with ``waits`` False a `RunRef` as soon as it is on record."""
    if config is not None and not isinstance(config, InvokeConfig):
        raise ValidationError(f"config of an invoke is an InvokeConfig, not {config!r}")
    settings = config or InvokeConfig()
    method = "invoke" if waits else "start_run"
    kind: Kind = "invoke" if waits else "start"
    scope, life = context._scope, context._scope.life
    target = _function_name(context, function, method)
    key, name = scope.begin(method, name, kind)
    context._began(key, kind)
    if settings.id:
        scope.refuse_secret(settings.id, key)
    text = context._codec(settings.serdes_payload, key).encode(payload, "payload")
    want = InvokeWanted(
        key,
        kind,
        name,
        None,
        None,
        context._codec(settings.serdes_result, key),
        function=target,
        child=lambda: settings.id or child_id(life.run.id, key, life.run.reopened),
        payload=lambda: kept(life, life.redactor.redact_json(text) if life.redactor.active else text),
        tenant=settings.tenant_id,
        timeout=None if settings.timeout is None else to_us(settings.timeout),
    )
    if waits:
        return invoke(life.run, want)

    def started() -> Flow[RunRef]:
        yield from invoke(life.run, want)
        child = life.run.ops[key].child
        assert child is not None
        return RunRef(child)

    return started()


def child_id(run_id: str, key: str, reopened: int) -> str:
    """The id of a child that nobody named: the same whenever this operation asks for it, so that it starts once. A
    retried run starts anew what had failed.
    """
    again = f"#{reopened}" if reopened else ""
    return f"c-{blake2b(f'{run_id}/{key}{again}'.encode(), digest_size=20).hexdigest()}"


def _function_name(context: Operations, function: Any, method: str) -> str:
    from stepwell.durable._function import DurableFunction

    if isinstance(function, DurableFunction):
        context._scope.life.host.children.add(function)
        return function.name
    if not isinstance(function, str) or not function or not is_encodable(function):
        raise ValidationError(f"context.{method} needs a durable function or the name of one, not {function!r}")
    return function


# -- signals and published values


def signal_wanted(context: Operations, method: str, name: str, timeout: DurationLike | None) -> SignalWanted:
    """A signal that code asks for."""
    if not name:
        raise ValidationError(f"context.{method} needs the name of a signal")
    key, name_ = context._scope.begin(method, name, "signal")
    context._began(key, "signal")
    us = None if timeout is None else to_us(timeout)
    return SignalWanted(key, "signal", name_, None, None, codec_for(None, ""), signal=name, timeout=us)


def next_signal(context: Operations, name: str, timeout: DurationLike | None) -> Flow[Any]:
    """The next signal with this name; waits for it."""
    want = signal_wanted(context, "wait_signal", name, timeout)

    def error() -> ErrorRecord:
        seconds = (want.timeout or 0) / 1_000_000
        return capture(TimeoutError(f"no signal '{name}' within {seconds:g} s"))

    return wait_signal(context._scope.life.run, want, error)


def signal_now(context: Operations, name: str, default: Any) -> Flow[Any]:
    """The next signal with this name if one has come, else the default."""
    want = signal_wanted(context, "try_signal", name, None)

    def flow() -> Flow[Any]:
        found = yield from try_signal(context._scope.life.run, want)
        return default if found is None else found[1]

    return flow()


def publish(context: Operations, name: str, value: Any) -> Flow[None]:
    """Record the latest value under a name."""
    if not name:
        raise ValidationError("publish needs a name")
    key, _ = context._scope.begin("publish", name, "publish")
    context._began(key, "publish")
    life, codec = context._scope.life, codec_for(None, "")

    def made() -> tuple[Payload, None]:
        text = codec.encode(value, name)
        return kept(life, life.redactor.redact_json(text) if life.redactor.active else text), None

    def flow() -> Flow[None]:
        yield from record(life.run, Wanted(key, "publish", name, None, None, _NOTHING), made)

    return flow()


class _Nothing(_Raw):
    """What was published is not read again by the run itself."""

    __slots__ = ()

    def decode(self, text: str, key: str) -> Any:
        return None


_NOTHING = _Nothing()
