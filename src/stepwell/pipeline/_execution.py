"""One call of `Orchestrator.execute`: start the run or take it up, drive it, and give its outcome."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.client import engine_for
from stepwell.client._held import take_up
from stepwell.client._outcome import Reader, state_of
from stepwell.errors import BadArguments, RunFailed
from stepwell.pipeline._book import Book, merged
from stepwell.pipeline._fields import Fields, secrets
from stepwell.pipeline._function import PipelineFunction
from stepwell.pipeline._interpreter import Interpreter, Memory
from stepwell.pipeline._plan import Group, Plan
from stepwell.pipeline._results import joined, split
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps.base import StepResult
from stepwell.pipeline.steps.context import LINK
from stepwell.pipeline.steps.failed import StepFailed
from stepwell.runtime._values import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.client import Engine
    from stepwell.core import Op, RunState
    from stepwell.pipeline.steps.orchestrator import Orchestrator


class Execution:
    """See the module. Making it starts the run, or takes it up."""

    def __init__(self, orchestrator: Orchestrator[Any], *, is_async: bool) -> None:
        self.engine: Engine = orchestrator._engine or engine_for()
        self.context = orchestrator.context
        self._callback = orchestrator.progress_callback
        if self.context.runtime_ctx is None:
            self.context.runtime_ctx = RuntimeContext()
        self.plan = Plan(orchestrator.registry.get_steps())
        event = event_of(self.context, self.plan)
        self.memory = Memory(fresh=False)
        self.function = PipelineFunction(self._begin, orchestrator.name, is_async=is_async, target=script())
        self.run_id, self._life, started = take_up(self.engine, self.function, event, orchestrator._given_id)
        self.memory.fresh = started
        self._drove = False
        """Whether the handler was called, and the context is where it left it."""

    def _begin(self, _event: str, handler: Any) -> Interpreter:
        self._drove = True
        return Interpreter(self.plan, self.context, self._callback, self.memory, handler)

    def go(self) -> dict[str, Any]:
        """Drive it to its end."""
        try:
            return self._summary(self.engine.drive.until_end(self.function, self.run_id, self._life))
        except RunFailed as error:
            failed, cause = self._failed(error)
        finally:
            self._leave()
        raise failed from cause

    async def go_async(self) -> dict[str, Any]:
        """As `go`."""
        try:
            return self._summary(await self.engine.drive.until_end_async(self.function, self.run_id, self._life))
        except RunFailed as error:
            failed, cause = self._failed(error)
        finally:
            self._leave()
        raise failed from cause

    def _leave(self) -> None:
        self.context.current_step = None
        self.context.__dict__.pop(LINK, None)

    def _summary(self, value: Any) -> dict[str, Any]:
        summary: dict[str, Any] = value
        if not self._drove:
            fill(self.context, self.plan, self._state(), self._text)
            self._tell_end()
        return summary

    def _tell_end(self) -> None:
        """A finished run that is executed again: one call."""
        if self._callback is not None and any(unit.weight for unit in self.plan.units):
            self._callback(100, 100)

    def _state(self) -> RunState:
        return state_of(self.engine.store, self.engine._row(self.run_id))

    def _text(self, op: Op) -> str:
        reader: Any = Reader(self.engine.store)
        return text_of(reader, op.payload, op.key)

    def _failed(self, error: RunFailed) -> tuple[RunFailed, BaseException | None]:
        """What `execute` raises for a failed run: from its record, with the exception itself where it is known."""
        if not isinstance(error, StepFailed):
            return error, error.__cause__
        run = self._state()
        if not self._drove:
            fill(self.context, self.plan, run, self._text)
        book = Book(run.ops, self._text)
        key = next((e.key for e in book.entries() if not e.ended.result.success), None)
        ended = None if key is None else book.ended(key)
        failed = StepFailed(
            str(error),
            step=error.step,
            result=next((result for result in self.context.step_results if not result.success), None),
            rollback_errors=tuple(text for _, _, text, _ in book.undone() if text is not None),
            run_id=self.run_id,
            key=key,
            error=error.error,
        )
        live = self.memory.causes.get(key or "")
        return failed, live if live is not None or ended is None else ended.cause


def event_of(context: Any, plan: Plan, given: Any = None) -> str:
    """The event of a new run: initial fields, and the plan.

    Raises:
        BadArguments: a field cannot be recorded.
    """
    fields = Fields(context)
    texts, bad = fields.changed()
    if bad:
        raise BadArguments(next(iter(bad.values())))
    whole = joined({"input": serde.encode(given), "fields": joined(texts), "plan": serde.encode(plan.shown())})
    redactor = serde.Redactor()
    for secret in secrets(context):
        redactor.feed(secret)
    return redactor.redact_json(whole)


def fill(context: Any, plan: Plan, run: RunState, text: Any) -> None:
    """Bring a context to where the records of an ended run leave it."""
    book, fields = Book(run.ops, text), Fields(context)
    reader_text = text
    target: dict[str, str] = {}
    context.step_results.clear()
    event = _event_text(run, reader_text)
    target.update(split(split(event)["fields"]))
    groups = {part.key: part for part in plan.parts if isinstance(part, Group)}
    seen: set[str] = set()
    for entry in book.entries():
        if entry.group is None:
            target.update(entry.ended.fields)
            context.step_results.append(entry.ended.result)
        elif entry.group not in seen:
            seen.add(entry.group)
            group = groups.get(entry.group)
            place = {unit.key: at for at, unit in enumerate(group.members if group is not None else ())}
            members = sorted(book.members(entry.group), key=lambda one: place.get(one.key, len(place)))
            found, problem = merged(target, [(one.name, one.ended.fields) for one in members])
            target.update(found)
            context.step_results.extend(one.ended.result for one in members)
            if problem is not None and all(one.ended.result.success for one in members):
                context.step_results.append(StepResult(success=False, error=problem))
    for _, _, _, texts in book.undone():
        target.update(texts)
    fields.put(target)


def _event_text(run: RunState, text: Any) -> str:
    class Event:
        payload = run.input
        key = "input"

    found: str = text(Event)
    return found


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM interrupts the run and hands its lease back, where nobody else has a use for the signal."""

    def stop(_signum: int, _frame: object) -> None:
        raise SystemExit(143)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def script() -> str | None:
    """The script of this process, for the texts that tell how a run is continued."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return str(Path(file).resolve()) if file and os.path.exists(file) else None  # noqa: PTH110
