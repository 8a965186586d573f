"""From what a caller writes in ``context.step(...)`` to what the engine wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.core import US, StepWanted
from stepwell.durable._bound import ANY_NUMBER, Binder, Bound, described, is_async_callable, positional
from stepwell.durable._capture import StepLines, install
from stepwell.durable._codec import codec_for
from stepwell.durable._duration import to_seconds
from stepwell.durable._plan import default_planner, planner
from stepwell.durable._step_context import StepContext
from stepwell.durable.config import StepConfig, StepSemantics
from stepwell.durable.logger import Logger, current_sink
from stepwell.durable.retries import Retry
from stepwell.errors import InvalidStateError, UsageError, ValidationError
from stepwell.executors import current_port
from stepwell.journal import Note
from stepwell.runtime._api import Attempt, Body, Remote, Undo
from stepwell.runtime._frames import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import Payload, Planner
    from stepwell.durable._operations import Operations

DEFAULTS = StepConfig()
UNDO_ATTEMPTS = 5


class Port:
    """The engine's side of a `StepContext`."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def heartbeat(self, details: Any) -> None:
        """The body is alive."""
        attempt = self._attempt
        self.check()
        life = attempt.scope.life
        attempt.last_heartbeat_at = life.host.clock.monotonic()
        text = life.redactor.redact_json(serde.encode(details, place="heartbeat"))
        life.ride((), (Note(attempt.key, "heartbeat", life.store.now(), text),))

    def progress(self, done: float, total: float | None, message: str) -> None:
        """How far the body has come."""
        attempt = self._attempt
        if attempt.over:
            return
        note_progress(attempt.scope.life, attempt.key, done, total, message)

    def check(self) -> None:
        """Raise if the run is cancelled or its lease is lost."""
        attempt = self._attempt
        if attempt.over:
            message = f"attempt {attempt.attempt} of step '{attempt.name or attempt.key}' is over: its time was up"
            raise InvalidStateError(message)
        attempt.scope.life.usable(attempt.scope.branch)

    def timed_out(self) -> bool:
        """Whether the attempt is over, and its body was left to itself."""
        return self._attempt.over

    def cancelled(self) -> bool:
        """Whether the body should stop."""
        attempt = self._attempt
        return attempt.over or attempt.scope.life.over is not None or attempt.scope.branch.gone


def note_progress(life: Any, key: str, done: float, total: float | None, message: str) -> None:
    """Record how far an operation has come."""
    text = life.redactor.redact_json(serde.encode([done, total, message]))
    life.ride((), (Note(key, "progress", life.store.now(), text),))


def strategy_planner(strategy: Any, run_id: str) -> Planner:
    """The retry policy of a configured strategy."""
    return planner(strategy, run_id)


def function_of(func: Any, method: str) -> tuple[Callable[..., Any], str | None, str | None, bool]:
    """What a caller passed as a step: (callable, name, label if unnamed, whether it takes the context).

    Raises:
        ValidationError: it cannot be called, or its arguments are missing.
    """
    if type(func) is Bound:
        return func, func.name, func.name, True
    if isinstance(func, Binder):
        if func.needs_arguments():
            raise ValidationError(f"{func.name} needs arguments: write context.{method}({func.name}({func.missing()}))")
        return func(), func.name, func.name, True
    if not callable(func):
        raise ValidationError(f"context.{method} needs a function, not {func!r}")
    fewest, most = positional(func)
    name = described(func)
    if fewest > 1:
        raise ValidationError(
            f"{name or 'the function'} needs arguments: write context.{method}({name or 'f'}(...)) with a durable_step"
        )
    # One whose only parameter has a default has it for a reason of its own, as in ``lambda i=i: work(i)``.
    return func, None, name, fewest > 0 or most >= ANY_NUMBER


def default_retry(context: Operations) -> Planner:
    """The policy of a step without its own: the function's, the engine's, or the default."""
    function, life = context._function, context._scope.life
    strategy = function.retry if function.retry is not None else life.host.settings.get("retry")
    run_id = life.run.id
    return default_planner(run_id) if strategy is None else strategy_planner(strategy, run_id)


def step_wanted(  # the keywords of `step`
    context: Operations,
    call: tuple[Callable[..., Any], bool, bool],
    place: tuple[str, str | None, str | None],
    config: StepConfig | None,
    keywords: dict[str, Any],
) -> StepWanted:
    """The step as the engine wants it. ``call``: function, takes the context, is async; ``place``: key, name, print."""
    func, takes_context, is_async = call
    key, name, code = place
    life = context._scope.life
    settings = merged(config, keywords) if keywords else (config or DEFAULTS)
    codec = context._codec(settings.serdes, key)
    where = settings.executor
    if where is None and not is_async and not settings.transactional:
        where = life.host.settings.get("executor")
    body = Body(
        bind_body(context, func, takes_context, settings.idempotency_key),
        codec,
        is_async=is_async,
        timeout=None if settings.timeout is None else to_seconds(settings.timeout),
        heartbeat_timeout=None if settings.heartbeat_timeout is None else to_seconds(settings.heartbeat_timeout),
        executor=where,
        transactional=settings.transactional,
    )
    if where is not None and where != "thread":
        body.remote = remote(func, takes_context, settings.idempotency_key)
    if settings.transactional and (life.is_async or is_async):
        raise UsageError("transactional steps need a sync durable function and a sync body")
    if settings.transactional is True and life.store.kind == "memory":
        message = "memory:// has no transactions: use a SQLite or PostgreSQL store for transactional=True"
        raise UsageError(message)
    strategy = settings.retry_strategy
    plan = context._retry() if strategy is None else strategy_planner(strategy, life.run.id)
    if settings.undo is not None:
        life.undos[key] = undo_of(context, settings.undo, name, codec, settings.undo_retry)
    return StepWanted(
        key,
        "step",
        name,
        settings.sub_type,
        settings.weight,
        codec,
        body,
        plan,
        settings.step_semantics is StepSemantics.AT_MOST_ONCE_PER_RETRY,
        body.remote is not None,
        settings.undo is not None,
        code,
    )


def merged(config: StepConfig | None, keywords: dict[str, Any]) -> StepConfig:
    """Keywords override the same fields of the config."""
    import msgspec

    changes = {key: value for key, value in keywords.items() if value is not None}
    if "retry" in changes:
        changes["retry_strategy"] = changes.pop("retry")
    if "at_most_once" in changes:
        once = changes.pop("at_most_once")
        changes["step_semantics"] = (
            StepSemantics.AT_MOST_ONCE_PER_RETRY if once else StepSemantics.AT_LEAST_ONCE_PER_RETRY
        )
    fields = {name: getattr(config or DEFAULTS, name) for name in msgspec.structs.asdict(config or DEFAULTS)}
    return StepConfig(**{**fields, **changes})


def bind_body(
    context: Operations, func: Callable[..., Any], takes_context: bool, template: str | None
) -> Callable[[Attempt], Any]:
    """The function as the runtime calls it, with lines of loggers kept beside the step."""

    def call(attempt: Attempt) -> Any:
        if not takes_context:
            return keep_lines(attempt, func)
        life = attempt.scope.life
        given = StepContext(
            context._step_logger(attempt),
            attempt.attempt,
            run_id=life.run.id,
            name=attempt.name,
            key=attempt.key,
            connection=attempt.connection,
            last_heartbeat=last_heartbeat(attempt),
            _template=template,
            _port=Port(attempt),
        )
        return keep_lines(attempt, func, given)

    return call


def keep_lines(attempt: Attempt, func: Callable[..., Any], *args: Any) -> Any:
    """Call the body; what loggers say meanwhile is kept beside the step."""
    install()
    lines = StepLines()
    token = current_sink.set(lines)
    try:
        value = func(*args)
    except BaseException:
        note_lines(attempt, lines)
        raise
    finally:
        current_sink.reset(token)
    if hasattr(type(value), "__await__"):
        if attempt.over and hasattr(value, "close"):
            value.close()  # the attempt's time was up: nobody awaits it, and Python would complain of that
        return _awaited(attempt, value, lines)
    note_lines(attempt, lines)
    return value


async def _awaited(attempt: Attempt, value: Any, lines: StepLines) -> Any:
    token = current_sink.set(lines)
    try:
        return await value
    finally:
        current_sink.reset(token)
        note_lines(attempt, lines)


def note_lines(attempt: Attempt, lines: StepLines) -> None:
    """Let a step's lines ride with the run's next commit."""
    if not lines.lines and not lines.dropped:
        return
    life = attempt.scope.life
    notes = [
        Note(attempt.key, "log", round(at * US), serde.encode([level, attempt.attempt, text]))
        for level, text, at in lines.lines
    ]
    if lines.dropped:
        text = f"{lines.dropped} more lines were not kept: a step keeps 1 MiB"
        notes.append(Note(attempt.key, "log", life.store.now(), serde.encode([30, attempt.attempt, text])))
    life.ride((), notes)


def last_heartbeat(attempt: Attempt) -> Any:
    """Details of the newest heartbeat of the attempts before."""
    life = attempt.scope.life
    if attempt.key not in life.run.ops or life.lease.rid is None:
        return None
    newest, after = None, 0
    while True:
        with life.own_store():
            page = life.store.note_load(life.lease.rid, kind="heartbeat", key=attempt.key, after=after, limit=500)
        if not page:
            return newest
        after, note = page[-1]
        newest = serde.decode(note.data)


def remote(func: Callable[..., Any], takes_context: bool, template: str | None) -> Callable[[Attempt], Remote]:
    """A body for an executor outside this process. The function travels by its name.

    Raises:
        UsageError: the function cannot be imported there, or an argument cannot be pickled; it is named.
    """
    import pickle  # only steps that leave the process
    from functools import partial

    target, args, kwargs = func, (), {}
    if isinstance(func, partial):
        target, args, kwargs = func.func, func.args, dict(func.keywords)
    elif isinstance(func, Bound):
        target, args, kwargs = func.func, func.args, func.kwargs
    reference = (str(getattr(target, "__module__", "")), str(getattr(target, "__qualname__", repr(target))))
    try:
        found = importable(*reference)
    except (ImportError, AttributeError, KeyError, ValueError) as error:
        raise UsageError(f"{':'.join(reference)} cannot be imported by another process: {error}") from error
    if getattr(found, "func", found) is not target and found is not target:
        raise UsageError(f"{':'.join(reference)} is another function when it is imported by another process")
    for what, part in [*enumerate(args), *kwargs.items()]:
        try:
            pickle.dumps(part)
        except Exception as error:
            raise UsageError(f"argument {what} ({part!r}) cannot be sent to another process: {error}") from error

    def of(attempt: Attempt) -> Remote:
        about = None
        if takes_context:
            run_id, given = attempt.scope.life.run.id, last_heartbeat(attempt)
            about = (attempt.attempt, run_id, attempt.name, attempt.key, given, template)
        return Remote(call_elsewhere, (reference, about, args, kwargs), {}, hearer(attempt))

    return of


def hearer(attempt: Attempt) -> Callable[[str, Any], bool]:
    """What hears a body in another process: as if it were here."""
    port = Port(attempt)

    def hear(kind: str, what: Any) -> bool:
        if kind == "lines":
            lines = StepLines()
            for level, text, at in what[0]:
                lines(level, attempt.scope.life.redactor.redact(text), at)
            lines.dropped += what[1]
            note_lines(attempt, lines)
        elif kind == "progress":
            port.progress(*what)
        elif kind == "heartbeat" and not port.cancelled():
            port.heartbeat(what)
        return port.cancelled()

    return hear


def importable(module: str, qualname: str) -> Any:
    """What stands under this name. Raises ImportError or AttributeError."""
    from importlib import import_module

    found: Any = import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found


About = tuple[int, str, str | None, str, Any, str | None]
"""Attempt, run, name, key, details of the last heartbeat, template of the idempotency key."""


def call_elsewhere(
    reference: tuple[str, str], about: About | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """In another process: call the step's function with a context of its own, which talks with the engine if the
    executor lets it.
    """
    target, port = importable(*reference), current_port.get()
    target = getattr(target, "func", target)
    if about is not None:
        attempt, run_id, name, key, given, template = about
        logger = Logger({"run_id": run_id, "key": key, "attempt": attempt})
        context = StepContext(
            logger, attempt, run_id=run_id, name=name, key=key, last_heartbeat=given, _template=template, _port=port
        )
        args = (context, *args)
    install()
    lines = StepLines()
    token = current_sink.set(lines)
    try:
        return target(*args, **kwargs)
    finally:
        current_sink.reset(token)
        if port is not None and (lines.lines or lines.dropped):
            port.lines(list(lines.lines), lines.dropped)


def undo_of(context: Operations, undo: Callable[..., Any], name: str | None, codec: Any, retry: Any) -> Undo:
    """How to undo a finished step: ``undo(step_context, result)``."""

    def body(payload: Payload) -> Body:
        def call(step_context: Any) -> Any:
            life = context._scope.life
            from stepwell.runtime._values import unpack

            return undo(step_context, unpack(life, codec, payload, name or "undo"))

        return Body(bind_body(context, call, True, None), codec_for(None, ""), is_async=is_async_callable(undo))

    run_id = context._scope.life.run.id
    return Undo(body, name, strategy_planner(retry or Retry(attempts=UNDO_ATTEMPTS), run_id))


def code_print(func: Any, name: str | None) -> str | None:
    """Fingerprint of an unnamed step's code."""
    return None if name is not None else fingerprint(getattr(func, "func", func))
