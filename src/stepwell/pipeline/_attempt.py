"""One step at its work: its attempts, its timeout, its end on its way into the record; and its rollback."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.core import jitter_fraction
from stepwell.errors import StepTimeoutError
from stepwell.pipeline._fields import Unrecordable
from stepwell.pipeline._link import StepLink, Voice
from stepwell.pipeline._results import Ended, checked, failure, joined, part_texts, read, written
from stepwell.pipeline._sink import speaking
from stepwell.pipeline.steps.context import LINK
from stepwell.pipeline.steps.utils._wrapper import innermost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.durable._door import Door
    from stepwell.pipeline._fields import Fields
    from stepwell.pipeline._link import Notes
    from stepwell.pipeline._plan import Unit
    from stepwell.pipeline.steps.base import StepResult


class FailedAttempt(Exception):
    """An attempt returned a failed result and is to be made again."""


class Work:
    """The attempts of one step in this life of the run."""

    def __init__(self, door: Door, notes: Notes, unit: Unit, fields: Fields) -> None:
        self.door = door
        self.notes = notes
        self.unit = unit
        self.fields = fields
        self.retry = unit.step.retry
        self.timeout = unit.step.timeout
        self.is_async = is_async(unit, "execute")
        self._before = fields.snapshot() if self.retry is not None or self.timeout is not None else None
        self._attempts = 0
        self._last: tuple[Ended, Fields] | None = None
        self._refused: Ended | None = None

    def refuse(self, ended: Ended) -> None:
        """The step is not to be executed: it has failed before."""
        self._refused = ended

    def known(self, text: str) -> Ended:
        """What the last attempt came to; its changes are in the context from here on. ``text``: its record."""
        if self._last is None:  # another attempt was on record already
            ended = read(text)
            self.fields.put(ended.fields)
            return ended
        ended, mine = self._last
        if mine is not self.fields:
            self.fields.take(mine, ended.fields)
        self.fields.keep(ended.fields)
        return ended

    # -- retries

    def plan(self, key: str, error: BaseException, made: int) -> float | None:
        """Seconds until the next attempt, None for none."""
        retry = self.retry
        if retry is None or not self._again(error, made):
            return None
        delay = min(retry.max_delay, retry.delay * retry.backoff ** (made - 1))
        return delay * (0.5 + 0.5 * jitter_fraction(self.door.run_id, key, made)) if retry.jitter else delay

    def _again(self, error: BaseException, made: int) -> bool:
        retry = self.retry
        if retry is None or made >= retry.max_attempts:
            return False
        if isinstance(error, FailedAttempt):
            return retry.failed_results
        if isinstance(error, StepTimeoutError):
            error = TimeoutError()
        return isinstance(error, retry.on)

    # -- one attempt

    def attempt(self, attempt: Any, port: Any) -> Any:
        """The body of the step: the text of its record. A coroutine for async steps."""
        made = attempt.attempt - self.door.ops[attempt.key].base if attempt.key in self.door.ops else attempt.attempt
        mine = self._view()
        if self._refused is not None:
            return self._refusal(self._refused, mine)
        if self.is_async:
            return self._awaited(attempt, port, made, mine)
        with self._linked(mine, attempt.attempt, port):
            try:
                given = self.unit.step.execute(mine.context)
            except Exception as error:
                return self._raised(error, made, mine)
        if inspect.isawaitable(given):
            return self._later(given, attempt, port, made, mine)
        return self._returned(given, made, mine)

    async def _awaited(self, attempt: Any, port: Any, made: int, mine: Fields) -> str:
        with self._linked(mine, attempt.attempt, port):
            try:
                given = self.unit.step.execute(mine.context)
                given = await given if inspect.isawaitable(given) else given
            except Exception as error:
                return self._raised(error, made, mine)
        return self._returned(given, made, mine)

    async def _later(self, coming: Any, attempt: Any, port: Any, made: int, mine: Fields) -> str:
        """A body that did not look async."""
        with self._linked(mine, attempt.attempt, port):
            try:
                given = await coming
            except Exception as error:
                return self._raised(error, made, mine)
        return self._returned(given, made, mine)

    def _refusal(self, ended: Ended, mine: Fields) -> Any:
        text = self._written(ended, mine)
        return _given(text) if self.is_async else text

    def _view(self) -> Fields:
        """What the body works on: the context, as it was when the step began; with a timeout a copy of it."""
        self._attempts += 1
        if self._before is None:
            return self.fields
        if self.timeout is not None:
            return self.fields.copied(self._before)
        if self._attempts > 1:
            now = self.fields.snapshot()
            self.fields.reset({name: text for name, text in self._before.items() if now.get(name) != text})
        return self.fields

    @contextmanager
    def _linked(self, mine: Fields, attempt: int, port: Any) -> Iterator[None]:
        voice = Voice(self.notes, self.unit.name, self.unit.weight, port.timed_out)
        link = StepLink(self.door, voice, self.unit.key, attempt=attempt, in_loop=self.is_async, over=port.cancelled)
        with linked(mine.context, link, self.unit.name), speaking(voice):
            yield

    def _raised(self, error: Exception, made: int, mine: Fields) -> str:
        if self._again(error, made):
            raise error
        return self._written(Ended(failure(error), error), mine)

    def _returned(self, given: object, made: int, mine: Fields) -> str:
        try:
            result = checked(given)
        except Unrecordable as error:
            return self._written(Ended(failure(error)), mine)
        if not result.success:
            again = FailedAttempt(result.error)
            if self._again(again, made):
                raise again
        return self._written(Ended(plain(result)), mine)

    def _written(self, ended: Ended, mine: Fields) -> str:
        self.notes.flush()
        texts, bad = mine.changed()
        problems = list(bad.values())
        parts = part_texts(ended.result, problems)
        if problems:
            if ended.result.success:
                ended.result.success, ended.result.error = False, problems[0]
            for problem in problems:
                self.notes.put(self.unit.name, "event", ["left_out", {"reason": problem}, None])
        ended.fields = texts
        self._last = ended, mine
        return masked(self.door, self.notes, self.unit.name, ended, parts)


async def _given(text: str) -> str:
    return text


def plain(result: StepResult) -> StepResult:
    """The result, with a success that is a bool."""
    result.success = bool(result.success)
    return result


def masked(door: Door, notes: Notes, name: str, ended: Ended, parts: dict[str, str]) -> str:
    """The text of the record without the run's secrets; what was masked is named in a note."""
    redactor = door.redactor
    if not redactor.active:
        return written(ended, parts)
    found = [field for field, text in ended.fields.items() if redactor.redact_json(text) != text]
    found += [f"result.{part}" for part, text in parts.items() if redactor.redact_json(text) != text]
    if found:
        notes.put(name, "event", ["secret_masked", {"fields": found}, None])
    if ended.result.error is not None:
        ended.result.error = redactor.redact(str(ended.result.error))
    return redactor.redact_json(written(ended, parts))


class Undoing:
    """How one step is rolled back."""

    def __init__(self, door: Door, notes: Notes, fields: Fields, unit: Unit, result: StepResult) -> None:
        self._door = door
        self._notes = notes
        self._fields = fields
        self._unit = unit
        self._result = result
        self.is_async = is_async(unit, "rollback")

    def call(self, attempt: Any, port: Any) -> Any:
        """The body of the undo step: the text of its record."""
        if self.is_async:
            return self._later(None, port)
        with self._linked(port):
            try:
                given: Any = self._unit.step.rollback(self._fields.context, self._result)
            except Exception as error:
                return undone(self._door, self._fields, self._unit.name, error)
        return (
            self._later(given, port)
            if inspect.isawaitable(given)
            else undone(self._door, self._fields, self._unit.name)
        )

    async def _later(self, coming: Any, port: Any) -> str:
        with self._linked(port):
            try:
                given: Any = coming
                if given is None:
                    given = self._unit.step.rollback(self._fields.context, self._result)
                if inspect.isawaitable(given):
                    await given
            except Exception as error:
                return undone(self._door, self._fields, self._unit.name, error)
        return undone(self._door, self._fields, self._unit.name)

    @contextmanager
    def _linked(self, port: Any) -> Iterator[None]:
        voice = Voice(self._notes, self._unit.name)
        link = StepLink(self._door, voice, self._unit.key, in_loop=self.is_async, over=port.cancelled, undoing=True)
        with linked(self._fields.context, link, self._unit.name), speaking(voice):
            yield
        self._notes.flush()


def undone(door: Door, fields: Fields, name: str, error: object = None) -> str:
    """The record of a rollback's end; what went wrong is in the context's errors, too."""
    text = None
    if error is not None:
        shown = str(error) or type(error).__name__
        text = door.redactor.redact(f"Rollback failed for step '{name}': {shown}")
        fields.context.errors.append(text)
    texts, _ = fields.changed()
    fields.keep(texts)
    return door.redactor.redact_json(joined({"error": serde.encode(text), "fields": joined(texts)}))


@contextmanager
def linked(context: Any, link: StepLink, name: str) -> Iterator[None]:
    """While a step has the context, the context leads to the run."""
    before, outer = context.current_step, context.__dict__.get(LINK)
    context.current_step = name
    context.__dict__[LINK] = link
    try:
        yield
    finally:
        context.current_step = before
        if outer is None:
            context.__dict__.pop(LINK, None)
        else:
            context.__dict__[LINK] = outer


def is_async(unit: Unit, method: str) -> bool:
    """Whether the step inside all wrappers has an ``async def`` there."""
    return inspect.iscoroutinefunction(getattr(type(innermost(unit.step)), method))
