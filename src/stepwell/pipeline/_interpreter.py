"""The handler of a pipeline's run: it takes the steps in order, and knows what is on record of them already.

Written once as coroutines; in a sync run no ``await`` here ever suspends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.durable._door import Door, at_once, value_of
from stepwell.durable.config import CompletionConfig, MapConfig, NestingType
from stepwell.errors import StepError
from stepwell.pipeline._again import DECISIONS
from stepwell.pipeline._attempt import Undoing, Work, linked, undone
from stepwell.pipeline._book import CAN_SKIP, FAILED, Book, in_member_order, merged
from stepwell.pipeline._fields import Fields, secrets, strangers
from stepwell.pipeline._link import Notes, StepLink, Voice
from stepwell.pipeline._plan import Group, Progress
from stepwell.pipeline._results import NO_MESSAGE, Ended, cause_text, failure, split
from stepwell.pipeline._sink import bound, speaking
from stepwell.pipeline.steps.base import StepResult
from stepwell.pipeline.steps.context import LINK
from stepwell.pipeline.steps.failed import StepFailed

if TYPE_CHECKING:
    from stepwell.durable._operations import Operations
    from stepwell.pipeline._book import Entry
    from stepwell.pipeline._plan import Plan, Unit
    from stepwell.pipeline.steps.context import BaseStepContext


LISTENERS: list[Callable[[str, str, int], None]] = []
"""Told of each step's end in this process: its name, how it ended, the percentage so far. For command lines."""


def tell(name: str, how: str, percent: int) -> None:
    """Tell whoever listens."""
    for listener in LISTENERS:
        listener(name, how, percent)


class Memory:
    """What one `Orchestrator.execute` knows of its run, over all lives that it drives."""

    def __init__(self, *, fresh: bool) -> None:
        self.fresh = fresh
        """The run was started here, and no life of it was driven yet."""
        self.alive: set[str] = set()
        """Keys of steps that were executed or restored in this process."""
        self.told = False
        """Whether the callback has been told how far the run was."""
        self.causes: dict[str, BaseException] = {}
        """The exceptions of steps that failed here, as they were raised."""


class Interpreter:
    """See the module. One life of the run."""

    def __init__(
        self, plan: Plan, context: BaseStepContext, callback: Callable[[int, int], Any] | None, memory: Memory,
        handler: Operations, more: Callable[[Any], dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        self.plan = plan
        self.context = context
        self.callback = callback
        self.memory = memory
        self.more = more
        """What the summary has besides, from the context at the end."""
        self.door = Door(handler)
        self.book = Book(self.door.ops, self.door.text)
        self.progress = Progress([unit.weight for unit in plan.units])
        self.notes = Notes(self.door, self.progress)
        self.voice = Voice(self.notes)
        self.fields = Fields(context)
        self.results: dict[str, StepResult] = {}
        self.executed = 0
        self.rolls_back = True
        self._lock = threading.Lock()
        self._strangers = False

    async def run(self, event: str) -> str:
        """Take the steps; the text of the summary.

        Raises:
            StepFailed: a step failed; the rollback is the runtime's.
        """
        door = self.door
        for secret in secrets(self.context):
            door.redactor.feed(secret)
        door.set_undo_order(lambda keys: in_member_order(self.plan, keys))
        self.context.__dict__[LINK] = StepLink(door, self.voice, "")
        with bound(self.context.runtime_ctx, self.voice), speaking(self.voice):
            try:
                await self._steps(event)
            finally:
                self.notes.flush(whole=True)
            more = {} if self.more is None or door.only_looks else self.more(self.context)
        summary = {"success": True, "steps_executed": self.executed, "steps_total": len(self.plan.units)}
        return serde.encode(summary | more)

    async def _steps(self, event: str) -> None:
        self.rolls_back = split(event).get("rollback") != "false"
        restored = self._load(event)
        self._undo_restored()
        failed = next((entry for entry in restored if not entry.ended.result.success), None)
        await self._restore(restored, failed)
        if self.door.only_looks:
            return
        if failed is not None:
            raise self._failed(failed.name, failed.key, failed.ended)
        if restored and not self.memory.told and self.progress.total > 0:
            await self._told(restored[-1])
        self.memory.told = True
        known = {entry.key for entry in restored}
        for part in self.plan.parts:
            if isinstance(part, Group):
                if not self.book.group_ended(part.key):
                    await self._group(part)
            elif part.key not in known:
                await self._unit(part)
        self.context.current_step = None

    # -- what is on record

    def _load(self, event: str) -> list[Entry]:
        """Bring the context to where the records leave it."""
        memory, context, fields = self.memory, self.context, self.fields
        initial = split(split(event)["fields"])
        context.step_results.clear()
        if memory.fresh and not self.door.ops:
            fields.keep({name: text for name, text in fields.snapshot().items() if name in initial})
            memory.fresh = False
            return []
        target = dict(initial)
        entries = self._entries(target)
        for _, _, _, texts in self.book.undone():
            target.update(texts)
        self._put(initial, target)
        memory.fresh = False
        return entries

    def _entries(self, target: dict[str, str]) -> list[Entry]:
        """Steps that have ended, with what they changed put into ``target``; results go into the context."""
        units = {unit.key: unit for unit in self.plan.units}
        groups = {part.key: part for part in self.plan.parts if isinstance(part, Group)}
        if not self.door.only_looks:
            for key, op in self.door.ops.items():
                if (key in groups and op.kind == "step") or (key in units and op.kind == "map"):
                    found = ("step", "group") if key in groups else ("group", "step")
                    raise self.door.diverged(key, *found)
        entries: list[Entry] = []
        by_group: dict[str, list[Entry]] = {}
        for entry in self.book.entries():
            self.door.asked(entry.key)
            if entry.group is not None:
                by_group.setdefault(entry.group, []).append(entry)
                self.results[entry.key] = entry.ended.result
                continue
            target.update(entry.ended.fields)
            self._count(entry)
            entries.append(entry)
        for key, members in by_group.items():
            if self.book.group_ended(key):
                entries += self._merge(key, members, target, groups.get(key))
        for entry in entries:
            self.context.step_results.append(entry.ended.result)
            unit = units.get(entry.key)
            if unit is not None and entry.ended.result.success:
                self.progress.step_done(unit.weight)
        return entries

    def _count(self, entry: Entry) -> None:
        self.results[entry.key] = entry.ended.result
        self.executed += not entry.ended.result.skipped
        if entry.key in self.memory.causes:
            entry.ended.cause = self.memory.causes[entry.key]

    def _merge(self, key: str, members: list[Entry], target: dict[str, str], group: Group | None) -> list[Entry]:
        place = {unit.key: index for index, unit in enumerate(group.members if group is not None else ())}
        members.sort(key=lambda entry: place.get(entry.key, len(place)))
        for entry in members:
            self._count(entry)
        found, problem = merged(target, [(entry.name, entry.ended.fields) for entry in members])
        target.update(found)
        if problem is not None and all(entry.ended.result.success for entry in members):
            from stepwell.pipeline._book import Entry as Made

            name = group.name if group is not None else key
            return [*members, Made(key, name, Ended(StepResult(success=False, error=problem)))]
        return members

    def _put(self, initial: dict[str, str], target: dict[str, str]) -> None:
        """Recorded values win over what this process passed to the constructor."""
        fields = self.fields
        now = fields.snapshot()
        if self.memory.fresh or not self.memory.told:
            differs = [name for name, text in initial.items() if name in now and now[name] != text]
            if differs:
                self.notes.put("", "event", ["context_differs", {"fields": differs}, None])
        fields.put({name: text for name, text in target.items() if now.get(name) != text})
        fields.keep({name: text for name, text in target.items() if name in fields.names})

    def _undo_restored(self) -> None:
        """Say how to undo what was finished before this life."""
        units = {unit.key: unit for unit in self.plan.units}
        for key in self.door.undoable:
            unit, result = units.get(key), self.results.get(key)
            if unit is not None and result is not None:
                self._set_undo(unit, result)
            else:
                self._set_gone(key)

    def _set_undo(self, unit: Unit, result: StepResult) -> None:
        undoing = Undoing(self.door, self.notes, self.fields, unit, result)
        self.door.set_undo(unit.key, unit.name, undoing.call, is_async=undoing.is_async)

    def _set_gone(self, key: str) -> None:
        op = self.door.ops.get(key)
        name = op.name if op is not None and op.name else key
        text = "the step is no longer registered"
        self.door.set_undo(key, name, lambda _attempt, _port: undone(self.door, self.fields, name, text))

    async def _restore(self, restored: list[Entry], failed: Entry | None) -> None:
        units = {unit.key: unit for unit in self.plan.units}
        for entry in restored:
            unit = units.get(entry.key)
            if unit is None or entry.ended.result.skipped or entry.key in self.memory.alive:
                continue
            self.memory.alive.add(entry.key)
            if not unit.overrides("restore") or not entry.ended.result.success:
                continue
            self.context.current_step = unit.name
            try:
                await self.door.here(unit.step.restore(self.context, entry.ended.result))
            except Exception as error:
                if failed is None and not self.door.only_looks:
                    raise await self._fail(unit.name, unit.key, entry.ended, error) from error
                self.notes.put(unit.name, "event", ["restore_failed", {"error": str(error)}, None])

    async def _told(self, last: Entry) -> None:
        if self.callback is None:
            return
        percent = self.progress.percent
        try:
            await self.door.here(self.callback(percent, 100))
        except Exception as error:
            raise await self._fail(last.name, last.key, last.ended, error) from error

    # -- one step

    async def _unit(self, unit: Unit) -> None:
        self.context.current_step = unit.name
        self.voice.step, self.voice.weight = unit.name, unit.weight
        ended = await self._ended(unit, self.fields, self.door.context)
        self.context.step_results.append(ended.result)
        if not ended.result.success:
            raise self._failed(unit.name, unit.key, ended)
        await self._advance(unit, ended)
        self.voice.step, self.voice.weight = "", 0.0

    async def _ended(self, unit: Unit, fields: Fields, branch: Operations) -> Ended:
        """Skip it, or execute it to its recorded end."""
        self.memory.alive.add(unit.key)
        refused = await self._skip(unit, fields, branch)
        if refused is not None and refused.result.skipped:
            self.results[unit.key] = refused.result
            return refused
        for secret in secrets(fields.context):
            self.door.redactor.feed(secret)
        reversible = self.rolls_back and unit.overrides("rollback")
        work = Work(self.door, self.notes, unit, fields)
        if refused is not None:
            work.refuse(refused)
        if reversible:
            self._set_undo(unit, StepResult(success=False))
        key = unit.key if unit.group is not None else None
        try:
            text = await value_of(
                self.door.step(
                    unit.name, work.attempt, key=key, is_async=work.is_async, plan=work.plan, timeout=work.timeout,
                    at_most_once=unit.step.at_most_once, undo=reversible, context=branch,
                )
            )  # fmt: skip
            ended = work.known(text)
        except StepError:
            found = self.book.ended(unit.key)
            assert found is not None
            ended = found
        self.results[unit.key] = ended.result
        if ended.cause is not None:
            self.memory.causes[unit.key] = ended.cause
        if reversible:
            self._set_undo(unit, ended.result)
        with self._lock:
            self.executed += 1
        self._look_for_strangers(fields.context)
        return ended

    async def _skip(self, unit: Unit, fields: Fields, branch: Operations) -> Ended | None:
        """The end of a step that is skipped, or whose ``can_skip`` raised; None where it is to be executed."""
        key = unit.key + CAN_SKIP
        told = self.book.value(key)
        if told is None:
            decided = self._decided(unit)
            if decided is None and not unit.overrides("can_skip"):
                return None
            branch._scope.check("step", unit.name)
            told = decided or await self._ask(unit, fields)
            told = await value_of(self.door.record(key, told, branch))
        self.door.asked(key)
        if "error" in told:
            result = StepResult(success=False, error=told["error"], timestamp=told["timestamp"])
            return Ended(result, self.memory.causes.get(unit.key, told.get("cause")))
        return Ended(StepResult(skipped=True, timestamp=told["timestamp"])) if told["skip"] else None

    def _decided(self, unit: Unit) -> dict[str, Any] | None:
        """What a person has decided about a step that has not begun, the last time."""
        told = [told for told in self.door.heard(DECISIONS) if told["step"] == unit.key]
        if not told or unit.key in self.door.ops:
            return None
        return {"skip": told[-1]["do"] == "skip", "timestamp": StepResult().timestamp}

    async def _ask(self, unit: Unit, fields: Fields) -> dict[str, Any]:
        told: dict[str, Any] = {"skip": False, "timestamp": StepResult().timestamp}
        try:
            link = StepLink(self.door, Voice(self.notes, unit.name), "")
            with linked(fields.context, link, unit.name):
                told["skip"] = bool(await self.door.here(unit.step.can_skip(fields.context)))
        except Exception as error:
            self.memory.causes[unit.key] = error
            told |= {"error": failure(error).error, "cause": serde.decode(cause_text(error))}
        return told

    async def _advance(self, unit: Unit, ended: Ended) -> None:
        """A step has ended well: tell the callback."""
        with self._lock:
            percent = self.progress.step_done(unit.weight)
        self.notes.step_done()
        tell(unit.name, "skipped" if ended.result.skipped else "succeeded", self.progress.percent)
        if self.callback is None or percent is None:
            return
        try:
            await self.door.here(self.callback(percent, 100))
        except Exception as error:
            raise await self._fail(unit.name, unit.key, ended, error) from error

    def _look_for_strangers(self, context: BaseStepContext) -> None:
        if not self._strangers and (found := strangers(context)):
            self._strangers = True
            self.notes.put("", "event", ["context_attribute_not_recorded", {"attribute": found[0]}, None])

    # -- failing

    async def _fail(self, name: str, key: str, ended: Ended, error: Exception) -> StepFailed:
        """A step that had ended well has failed after all: put that on record."""
        result = ended.result
        result.success, result.error = False, self.door.redactor.redact(failure(error).error or "")
        ended.cause = self.memory.causes[key] = error
        value = {"error": result.error, "cause": serde.decode(cause_text(error))}
        await value_of(self.door.record(key + FAILED, value))
        return self._failed(name, key, ended)

    def _failed(self, name: str, key: str, ended: Ended) -> StepFailed:
        error = self.door.redactor.redact(str(ended.result.error) if ended.result.error is not None else NO_MESSAGE)
        tell(name, "failed", self.progress.percent)
        failed = StepFailed(f"Step '{name}' failed: {error}", step=name, key=key, run_id=self.door.run_id)
        failed.__cause__ = ended.cause
        return failed

    # -- groups

    async def _group(self, group: Group) -> None:
        self.context.current_step = group.name
        base = self.fields.snapshot()
        ended: dict[str, Ended] = {}
        raised: dict[str, StepFailed] = {}
        changes: dict[str, dict[str, str]] = {}

        on_record = [self.book.ended(unit.key) for unit in group.members]
        failed_before = any(found is not None and not found.result.success for found in on_record)

        async def member(branch: Operations, unit: Unit) -> None:
            found = self.book.ended(unit.key)
            if found is None and (failed_before or any(not one.result.success for one in list(ended.values()))):
                return  # a member has failed: none is started, nor begun again
            fields = self.fields.copied(base)
            if found is None:
                found = await self._ended(unit, fields, branch)
            else:
                with self._lock:
                    self.executed += not found.result.skipped
            changes[unit.key] = dict(found.fields)
            ended[unit.key] = found
            if found.result.success:
                try:
                    await self._advance(unit, found)
                except StepFailed as error:
                    raised[unit.key] = error

        run: Any = member if self.door.is_async else lambda branch, unit: at_once(member(branch, unit))
        config: Any = MapConfig(
            max_concurrency=group.max_workers,
            completion_config=CompletionConfig.all_completed(),
            nesting_type=NestingType.FLAT,
            item_namer=lambda unit, _index: unit.name,
        )
        handler: Any = self.door.context
        await value_of(handler.map(list(group.members), run, group.name, config))
        there = [unit for unit in group.members if unit.key in ended]
        texts, problem = merged(base, [(unit.name, changes[unit.key]) for unit in there])
        self.fields.put(texts)
        self.context.step_results.extend(ended[unit.key].result for unit in there)
        for unit in there:
            if not ended[unit.key].result.success:
                raise raised.get(unit.key) or self._failed(unit.name, unit.key, ended[unit.key])
        if problem is not None:
            result = StepResult(success=False, error=problem)
            self.context.step_results.append(result)
            raise self._failed(group.name, group.key, Ended(result))
