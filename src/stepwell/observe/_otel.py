"""OpenTelemetry: a run's tree as one trace, run → operations → attempts, whatever lives it took.

A span is emitted when what it stands for ends, with the times that are on record. Trace and span ids are hashes of what
they stand for, so that a life in another process, days later, hangs its spans into the same trace and under the right
parent, which may be emitted later still.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

from stepwell.core import (
    RunCancelled,
    RunFailed,
    RunSucceeded,
    RunTimedOut,
    StepFailed,
    StepRetryPlanned,
    StepSucceeded,
)
from stepwell.durable._op_words import is_operation, status_of
from stepwell.errors import MissingExtra
from stepwell.runtime._observe import Observer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Link, Tracer, TracerProvider

    from stepwell.core import Op, RunStarted
    from stepwell.errors import ErrorRecord
    from stepwell.runtime._life import Life
    from stepwell.runtime._live import Ending
    from stepwell.runtime._observe import BodyView, Change, Committed, Outcome

_ATTEMPT_ENDS = (StepRetryPlanned, StepSucceeded, StepFailed)
_RUN_ENDS = (RunSucceeded, RunFailed, RunCancelled, RunTimedOut)
_ids: ContextVar[tuple[int, int] | None] = ContextVar("stepwell_span_ids", default=None)
"""Trace and span id of the span that is being made here."""


_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class Trace(NamedTuple):
    """The trace that a run belongs to. ``parent``: the span of the run that invoked it, where that was told."""

    number: int
    parent: int | None = None
    sampled: bool | None = None


def trace_of(run_id: str, started: RunStarted | None) -> Trace:
    """The trace of a run: of the one that invoked it, if that was observed, too; else its own."""
    told = dict(started.metadata).get("traceparent", "") if started is not None else ""
    found = _TRACEPARENT.fullmatch(told)
    if found is not None:
        return Trace(int(found[1], 16), int(found[2], 16), bool(int(found[3], 16) & 1))
    return Trace(int.from_bytes(blake2b(f"stepwell:trace:{run_id}".encode(), digest_size=16).digest(), "big") or 1)


def span_id(run_id: str, *what: object) -> int:
    """The span of a part of a run."""
    text = "\n".join(("stepwell:span", run_id, *map(str, what)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") or 1


def run_span(run_id: str, ends: int) -> int:
    """The span of a run; a run that was retried after an end has one for each end."""
    return span_id(run_id, "run", ends)


def op_span(run_id: str, key: str, op: Op | None) -> int:
    """The span of an operation; None: its start is not on record yet. Begun anew by a retry of the run, it is another
    one; a crash does not make it another one.
    """
    return span_id(run_id, key, 0 if op is None else op.reopened)


def attempt_span(run_id: str, key: str, attempt: int) -> int:
    """The span of an attempt of an operation. Attempts are counted on through retries of the run."""
    return span_id(run_id, key, "attempt", attempt)


class _Ids:  # an opentelemetry.sdk.trace.IdGenerator
    """Gives the ids that are asked for, and to other users of the tracer those of the provider."""

    def __init__(self, others: Any) -> None:
        self._others = others

    def generate_trace_id(self) -> int:
        ids = _ids.get()
        return int(self._others.generate_trace_id()) if ids is None else ids[0]

    def generate_span_id(self) -> int:
        ids = _ids.get()
        return int(self._others.generate_span_id()) if ids is None else ids[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._others, name)


class OpenTelemetry(Observer):
    """Spans of runs for OpenTelemetry. Given in ``plugins=`` of `Engine`, `durable_execution` or `stepwell.run`, or by
    ``DURABLE_EXECUTION_PLUGINS=opentelemetry``. Needs the extra ``otel``.

    While a step's body or the inside of a scope runs, its span is the current one: spans of libraries hang under it.

    Args:
        tracer_provider: of the OpenTelemetry SDK; default the global one.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import context, trace
        except ImportError as error:
            raise MissingExtra("otel", "stepwell.observe.OpenTelemetry") from error
        self._trace = trace
        self._context = context
        self._provider = tracer_provider
        self._tokens: dict[int, Any] = {}

    # -- spans

    def _tracer(self) -> Tracer | None:
        """The tracer that takes our ids; None while the process has no SDK provider."""
        provider = self._provider or self._trace.get_tracer_provider()
        tracer: Any = provider.get_tracer("stepwell")
        ids = getattr(tracer, "id_generator", None)
        if ids is None:
            return None
        if not isinstance(ids, _Ids):
            tracer.id_generator = _Ids(ids)
        return tracer  # type: ignore[no-any-return]

    def _span_context(self, tracer: Any, of: Trace, span: int) -> Any:
        """A span as its children see it. Whether a trace is sampled is the root's question, asked by its id alone."""
        trace, sampled = self._trace, of.sampled
        if sampled is None:
            sampled = tracer.sampler.should_sample(None, of.number, "run").decision.is_sampled()
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
        return trace.SpanContext(of.number, span, is_remote=False, trace_flags=flags)

    def _under(self, tracer: Any, of: Trace, span: int) -> Any:
        """An OpenTelemetry context in which this span is the current one."""
        trace = self._trace
        return trace.set_span_in_context(
            trace.NonRecordingSpan(self._span_context(tracer, of, span)), self._context.Context()
        )

    def _emit(
        self, of: Trace, span: int, parent: int | None, name: str, times: tuple[int, int], attributes: dict[str, Any],
        error: ErrorRecord | None, *, links: tuple[Link, ...] = (),
    ) -> None:  # fmt: skip
        tracer = self._tracer()
        if tracer is None:
            return
        under = self._context.Context() if parent is None else self._under(tracer, of, parent)
        token = _ids.set((of.number, span))
        try:
            made = tracer.start_span(
                name, under, attributes=attributes, links=links, start_time=times[0] * 1000, record_exception=False
            )
        finally:
            _ids.reset(token)
        if error is not None:
            told = {"exception.type": error.type, "exception.message": error.message}
            made.add_event(
                "exception", {**told, "exception.stacktrace": "".join(error.stack_trace)}, timestamp=times[1] * 1000
            )
            made.set_status(self._trace.Status(self._trace.StatusCode.ERROR, f"{error.type}: {error.message}"))
        made.end(times[1] * 1000)

    # -- what is on record

    def on_commit(self, committed: Committed) -> None:
        """Emit the spans of what has ended."""
        of = trace_of(committed.run_id, committed.started)
        for change in committed.changes:
            record, op = change.record, change.op
            if isinstance(record, _RUN_ENDS):
                self._run(of, committed, record)
            if op is None or not is_operation(op):
                continue
            if isinstance(record, _ATTEMPT_ENDS):
                self._attempt(of, committed, op, record)
            if op.ended:
                self._operation(of, committed, change, op)

    def _attempt(
        self, of: Trace, committed: Committed, op: Op, record: StepRetryPlanned | StepSucceeded | StepFailed
    ) -> None:
        attributes = {"stepwell.run_id": committed.run_id, "stepwell.key": op.key, "stepwell.attempt": op.attempt}
        self._emit(
            of, attempt_span(committed.run_id, op.key, op.attempt), op_span(committed.run_id, op.key, op),
            f"{name_of(op)} #{op.attempt}", (op.attempt_at or op.started_at, record.at), attributes,
            getattr(record, "error", None),
        )  # fmt: skip

    def _operation(self, of: Trace, committed: Committed, change: Change, op: Op) -> None:
        run_id, parent = committed.run_id, change.parent
        attributes = {
            "stepwell.run_id": run_id, "stepwell.key": op.key, "stepwell.kind": op.kind,
            "stepwell.status": status_of(op).value,
        }  # fmt: skip
        above = run_span(run_id, committed.ends) if parent is None else op_span(run_id, parent.key, parent)
        error = op.error if op.status == "failed" else None
        times = (op.started_at or op.ended_at, op.ended_at)
        self._emit(of, op_span(run_id, op.key, op), above, name_of(op), times, attributes, error)

    def _run(self, of: Trace, committed: Committed, end: RunSucceeded | RunFailed | RunCancelled | RunTimedOut) -> None:
        run_id, started = committed.run_id, committed.started
        attributes: dict[str, Any] = {
            "stepwell.run_id": run_id, "stepwell.function": committed.function,
            "stepwell.status": {"RunTimedOut": "timed_out"}.get(type(end).__name__, type(end).__name__[3:].lower()),
        }  # fmt: skip
        links: tuple[Link, ...] = ()
        if started is not None:
            attributes |= {"stepwell.door": started.door, "stepwell.tags": started.tags}
            if started.parent is not None:
                attributes["stepwell.parent"] = started.parent
                links = self._links(started.parent) if of.parent is None else ()
        times = (committed.began_at, end.at)
        span = run_span(run_id, committed.ends)
        self._emit(of, span, of.parent, committed.function, times, attributes, getattr(end, "error", None), links=links)

    def _links(self, parent: str) -> tuple[Link, ...]:
        """To the run that started this one."""
        tracer = self._tracer()
        if tracer is None:
            return ()
        return (self._trace.Link(self._span_context(tracer, trace_of(parent, None), run_span(parent, 0))),)

    # -- what runs

    def on_life_start(self, life: Life, news: tuple[Change, ...]) -> None:
        """The handler runs under the run's span."""
        self._tokens[id(life)] = self._attach(life, run_span(life.run.id, life.run.ends))

    def on_life_end(self, life: Life, ending: Ending) -> None:
        """And no longer."""
        self._detach(self._tokens.pop(id(life), None))

    def on_body_start(self, body: BodyView) -> Any:
        """A body runs under its attempt's span, the inside of a scope under the scope's."""
        run = body.life.run
        op = run.ops.get(body.key)
        if body.again:
            return None
        span = attempt_span(run.id, body.key, body.attempt) if body.attempt else op_span(run.id, body.key, op)
        return self._attach(body.life, span)

    def on_body_end(self, body: BodyView, outcome: Outcome, error: BaseException | None, token: Any) -> None:
        """And no longer."""
        self._detach(token)

    def metadata(self, life: Life, op: Op) -> Mapping[str, str]:
        """A run that this one invokes hangs its spans under the operation that invokes it."""
        tracer = self._tracer()
        if tracer is None:
            return {}
        run = life.run
        seen = self._span_context(tracer, trace_of(run.id, run.started), op_span(run.id, op.key, op))
        return {"traceparent": f"00-{seen.trace_id:032x}-{seen.span_id:016x}-{int(seen.trace_flags):02x}"}

    def _attach(self, life: Life, span: int) -> Any:
        tracer = self._tracer()
        if tracer is None:
            return None
        return self._context.attach(self._under(tracer, trace_of(life.run.id, life.run.started), span))

    def _detach(self, token: Any) -> None:
        if token is not None:
            self._context.detach(token)


def name_of(op: Op) -> str:
    """What an operation's span is called: its name, else its place."""
    return op.name or op.key.rsplit("/", 1)[-1]
