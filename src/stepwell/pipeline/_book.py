"""What is on record of a pipeline's run: read by the life that takes it up, and by whoever asks for its outcome."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.pipeline._results import Ended, read, split
from stepwell.pipeline.steps.base import StepResult

if TYPE_CHECKING:
    from stepwell.core import Op
    from stepwell.pipeline._plan import Plan

UNDO = "undo/"
CAN_SKIP = "/can_skip"
FAILED = "/failed"
INTERRUPTED = "interrupted: the step may or may not have run"


class Entry:
    """One step on record."""

    def __init__(self, key: str, name: str, ended: Ended, group: str | None = None) -> None:
        self.key = key
        self.name = name
        self.ended = ended
        self.group = group


class Book:
    """See the module. ``text``: gives the recorded text of an operation."""

    def __init__(self, ops: Mapping[str, Op], text: Callable[[Op], str]) -> None:
        self._ops = ops
        self._text = text

    def value(self, key: str) -> Any:
        """A recorded value; None if there is none."""
        op = self._ops.get(key)
        return None if op is None or op.status != "succeeded" else serde.decode(self._text(op), key=key)

    def skipped(self, key: str) -> StepResult | None:
        """The result of a step that was skipped."""
        told = self.value(key + CAN_SKIP)
        if not isinstance(told, dict) or not told.get("skip"):
            return None
        return StepResult(skipped=True, timestamp=told["timestamp"])

    def ended(self, key: str) -> Ended | None:
        """How the step under this key has ended, skipped or executed; None if it has not."""
        if (skipped := self.skipped(key)) is not None:
            return Ended(skipped)
        op = self._ops.get(key)
        if op is None or not op.ended or op.kind != "step":
            return None
        ended = self._read(op) if op.status == "succeeded" else given_up(op)
        self.mark(key, ended)
        return ended

    def _read(self, op: Op) -> Ended:
        text = self._text(op)
        if text == "null":  # a person has taken it as finished
            return Ended(StepResult(skipped=True, timestamp=datetime.fromtimestamp(op.ended_at / 1e6, UTC)))
        return read(text)

    def mark(self, key: str, ended: Ended) -> None:
        """The failure that came after the step itself had succeeded, if there was one (of its callback, or restore)."""
        told = self.value(key + FAILED)
        if isinstance(told, dict):
            ended.result.success, ended.result.error = False, told["error"]
            ended.cause = told["cause"] if isinstance(told["cause"], BaseException) else None

    def entries(self) -> Iterator[Entry]:
        """Steps that have ended, in the order of the records; members of a group where the group began."""
        seen: set[str] = set()
        for op in list(self._ops.values()):
            key = _owner(op)
            if key.startswith(UNDO) or key in seen:
                continue
            if op.kind == "step" and "/" in key:
                continue  # a member: told with its group
            if op.kind == "map":
                seen.add(key)
                yield from self.members(key)
            elif (op.kind == "step" or key != op.key) and "/" not in key:
                ended = self.ended(key)
                if ended is not None:
                    seen.add(key)
                    yield Entry(key, op.name or self._name(key), ended)

    def members(self, group: str) -> Iterator[Entry]:
        """Members of a group that have ended, in the order of the records."""
        seen: set[str] = set()
        for op in list(self._ops.values()):
            key = _owner(op)
            if key.startswith(group + "/") and key.count("/") == group.count("/") + 1 and key not in seen:
                ended = self.ended(key)
                if ended is not None:
                    seen.add(key)
                    yield Entry(key, self._name(key), ended, group)

    def _name(self, key: str) -> str:
        from urllib.parse import unquote

        op = self._ops.get(key)
        return op.name if op is not None and op.name else unquote(key.rpartition("/")[2])

    def group_ended(self, key: str) -> bool:
        """Whether the group has ended."""
        op = self._ops.get(key)
        return op is not None and op.ended

    def undone(self) -> Iterator[tuple[str, str, str | None, dict[str, str]]]:
        """What the rollback has undone, in order: key, name, error, texts of the changed fields."""
        for op in list(self._ops.values()):
            if op.key.startswith(UNDO) and op.status == "succeeded":
                parts = split(self._text(op))
                key = op.key.removeprefix(UNDO)
                yield key, op.name or self._name(key), serde.decode(parts["error"]), split(parts["fields"])


def _owner(op: Op) -> str:
    """The key of the step that this is about: its own, or that of the step whose answer it is."""
    return op.key.removesuffix(CAN_SKIP) if op.kind == "once" else op.key


def given_up(op: Op) -> Ended:
    """How a step ended whose body did not say so itself: its time was up, or nobody knows whether it ran."""
    assert op.error is not None
    at = datetime.fromtimestamp(op.ended_at / 1e6, UTC)
    late = re.search(r"timed out after (\S+ s)", op.error.message)
    if op.error.type == "StepTimeoutError" and late is not None:
        text = f"timed out after {late[1]}"
        return Ended(StepResult(success=False, error=text, timestamp=at), TimeoutError(text))
    if op.error.type == "StepInterruptedError":
        return Ended(StepResult(success=False, error=INTERRUPTED, timestamp=at))
    cause = serde.rebuild(op.error, None)
    return Ended(StepResult(success=False, error=op.error.message or op.error.type, timestamp=at), cause)


def merged(base: Mapping[str, str], changes: list[tuple[str, Mapping[str, str]]]) -> tuple[dict[str, str], str | None]:
    """What the members of a group changed, put together in their order; and the failure, if two disagree.

    Args:
        base: the fields as they were when the group began.
        changes: for each member its name and the texts of the fields that it changed.
    """
    found: dict[str, str] = {}
    by: dict[str, str] = {}
    errors: list[Any] = serde.decode(base.get("errors", "[]"))
    known = len(errors)
    for name, texts in changes:
        for field, text in texts.items():
            if field == "errors":
                own = serde.decode(text)
                errors += own[known:] if own[:known] == errors[:known] else own
                found[field] = serde.encode(errors)
            elif found.get(field, text) != text:
                return found, f"context field '{field}' was changed by '{by[field]}' and '{name}'"
            else:
                found[field] = text
                by[field] = name
    return found, None


def in_member_order(plan: Plan, keys: list[str]) -> list[str]:
    """Keys to undo, last ended first; members of one group in reverse order of the group instead."""
    place = {unit.key: index for index, unit in enumerate(plan.units)}
    group = {unit.key: unit.group for unit in plan.units}
    ordered: list[str] = []
    for key in keys:
        mine = group.get(key)
        if mine is None:
            ordered.append(key)
        elif key not in ordered:
            ordered += sorted((k for k in keys if group.get(k) == mine), key=lambda k: -place[k])
    return ordered
