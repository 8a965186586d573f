"""Putting a pipeline's run right: what is made again by a retry, where a fork begins, and what a person decides about
steps that have not begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell import serde
from stepwell.client._outcome import Reader
from stepwell.client._retry import Choice
from stepwell.errors import BadArguments, UsageError
from stepwell.pipeline._book import CAN_SKIP, FAILED, Book
from stepwell.pipeline._results import Ended, part_texts, written
from stepwell.pipeline._shown import planned
from stepwell.pipeline.steps.base import StepResult
from stepwell.runtime._values import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stepwell.core import RunState
    from stepwell.journal import Store

DECISIONS = "stepwell:steps"
"""The signal by which a run is told of a person's decision about one of its steps."""


def again(
    store: Store, run: RunState, force: Sequence[str], skip: Sequence[str], values: Mapping[str, Any], *, over: bool
) -> Choice:
    """What failed is made again, but not what its ``once`` calls have on record.

    Args:
        store: of the run.
        run: the run.
        force: names or keys of steps that run again.
        skip: of steps that end as skipped.
        values: by name or key of a step, the data of its result.
        over: everything is to be made again.

    Raises:
        UsageError: there is no such step.
        BadArguments: a value is no object.
    """
    if over:
        return Choice((), (), {}, tuple(run.ops), ())
    book = _book(store, run)
    forced, skipped, given = (keys_of(store, run, names) for names in (force, skip, values))
    texts = {key: _result_text(name, value) for key, (name, value) in zip(given, values.items(), strict=True)}
    settled = {*skipped, *texts}
    decide = [{"step": key, "do": "skip"} for key in skipped if key not in run.ops]
    for key in forced:
        if key + CAN_SKIP in run.ops:  # the answer is on record: it is taken back
            texts[key + CAN_SKIP] = serde.encode({"skip": False, "timestamp": StepResult().timestamp})
        elif key not in run.ops:
            decide.append({"step": key, "do": "force"})
    for name in (name for name, key in zip(values, given, strict=True) if key not in run.ops):
        message = f"step {name!r} has not begun: there is nothing to set"
        raise UsageError(message)
    made_again = [
        key for entry in book.entries() for key in _failures(run, entry.key, book) if entry.key not in settled
    ]
    return Choice(
        tuple(key for key in forced if key in run.ops), tuple(key for key in skipped if key in run.ops), texts,
        tuple(made_again), tuple(decide),
    )  # fmt: skip


def _failures(run: RunState, key: str, book: Book) -> list[str]:
    """Keys of what makes the step a failed one."""
    ended = book.ended(key)
    if ended is None or ended.result.success:
        return []
    told = book.value(key + CAN_SKIP)
    found = [key, key + FAILED, *([key + CAN_SKIP] if isinstance(told, dict) and "error" in told else [])]
    return [one for one in found if one in run.ops]


def fork_at(store: Store, run: RunState, name: str | None) -> str | None:
    """The key of what is first recorded of the step at which a fork goes on by itself; None where nothing of it is.

    Args:
        store: of the run.
        run: the run.
        name: of the step, or its key; None: the first that failed.

    Raises:
        UsageError: there is no such step.
    """
    if name is not None:
        (key,) = keys_of(store, run, [name])
    else:
        failed = (entry.key for entry in _book(store, run).entries() if not entry.ended.result.success)
        key = next(failed, "")
    return next((one for one in run.ops if one == key or one.startswith(key + "/")), None) if key else None


def keys_of(store: Store, run: RunState, names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Keys of the steps that have these names or keys. Raises `UsageError` that lists those there are."""
    plan = planned(store, run)
    found = []
    for name in names:
        key = next((key for key, own, _ in plan if name in (key, own)), None)
        if key is None:
            message = f"run {run.id} has no step {name!r}; it has {', '.join(own for _, own, _ in plan) or 'none'}"
            raise UsageError(message)
        found.append(key)
    return found


def undecided(store: Store, run: RunState, name: str) -> str:
    """The key of a step about which a person may still decide.

    Raises:
        UsageError: there is no such step, it has begun, or the run is being rolled back.
    """
    (key,) = keys_of(store, run, [name])
    if run.rollback is not None or run.cancel is not None:
        message = f"run {run.id} is being rolled back: nothing is begun any more"
        raise UsageError(message)
    ended = _book(store, run).ended(key)
    if ended is not None or key in run.ops or key + CAN_SKIP in run.ops:
        how = "has begun" if ended is None else "was skipped" if ended.result.skipped else "has ended"
        message = f"step {name!r} of run {run.id} {how}: only a step that has not begun can be skipped or forced"
        raise UsageError(message)
    return key


def _book(store: Store, run: RunState) -> Book:
    reader: Any = Reader(store)
    return Book(run.ops, lambda op: text_of(reader, op.payload, op.key))


def _result_text(name: str, value: Any) -> str:
    """The record of a step that a person ends with these data."""
    if not isinstance(value, dict):
        message = f"--set {name}: the data of a step's result are an object, got {type(value).__name__}"
        raise BadArguments(message)
    result = StepResult(data=value)
    return written(Ended(result), part_texts(result, []))
