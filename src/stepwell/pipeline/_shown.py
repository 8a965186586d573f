"""A pipeline's run for people and programs: its steps, its rollback, its metrics, and what it said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell import serde
from stepwell.client._follow import Follower
from stepwell.client._outcome import Reader, state_of
from stepwell.client._views import iso
from stepwell.durable._door import key_of
from stepwell.pipeline._book import UNDO, Book
from stepwell.pipeline._results import split
from stepwell.runtime._values import text_of

if TYPE_CHECKING:
    from stepwell.core import RunState
    from stepwell.journal import Note, RunRow, Store
    from stepwell.pipeline._bars import Sight

PAGE = 500


def _book(store: Store, run: RunState) -> Book:
    reader: Any = Reader(store)
    return Book(run.ops, lambda op: text_of(reader, op.payload, op.key))


def refusal(store: Store, row: RunRow) -> tuple[str, str | None]:
    """Why only the one who started this run goes on with it, and how."""
    from stepwell.pipeline._target import unrecorded

    places = unrecorded(_event(store, state_of(store, row)))
    if places:
        text = f"run {row.id} was given secrets that are not recorded ({', '.join(places)}); give them again"
        return text, f"stepwell run {row.target} --id {row.id} --input …; as ${{env:NAME}} they need not be given again"
    where = f"the script {row.target}" if row.target else "its script"
    return f"run {row.id} goes on when {where} is run again with the same run_id; nobody else continues it", None


def _event(store: Store, run: RunState) -> str:
    reader: Any = Reader(store)
    text: str = text_of(reader, run.input, "input")
    return text


def sight(store: Store, row: RunRow, since: int) -> Sight:
    """What looks at it while it goes on. ``since``: see `Sight`."""
    from stepwell.pipeline._bars import Sight

    return Sight(store, row, since)


def planned(store: Store, run: RunState) -> list[tuple[str, str, float]]:
    """Key, name and weight of each step as the run was planned, members of groups in their place."""
    parts = split(_event(store, run))
    found: list[tuple[str, str, float]] = []
    for name, weight, *members in serde.decode_lenient(parts["plan"]):
        if members:
            found += [(key_of(name, own), own, each) for own, each in members[0]]
        else:
            found.append((key_of(name), name, weight))
    return found


def run_object(store: Store, row: RunRow) -> dict[str, Any]:
    """What a pipeline adds to the one JSON object of its run."""
    run = Follower(store, row.id, row.rid).look()
    book, plan = _book(store, run), planned(store, run)
    shown = msgspec.json.decode(split(_event(store, run))["input"])
    return {
        "input": shown,
        "steps": [step_object(book, run, *step) for step in plan],
        "rollback": list(rollback(book, run)),
        "metrics": metrics(store, row),
    }


def lines(store: Store, row: RunRow, painted: Callable[[str, str], str]) -> Iterator[str]:
    """Steps, and below them what the rollback did. ``painted(text, status)`` colours a text."""
    found = run_object(store, row)
    for step in found["steps"]:
        attempts = f"  attempts {step['attempts']}" if step["attempts"] > 1 else ""
        error = f"  {' '.join(str(step['error']).split())}" if step["error"] else ""
        yield f"{step['name']}  {painted(step['status'], step['status'])}{attempts}{error}"
    for undone in found["rollback"]:
        error = f"  {undone['error']}" if undone["error"] else ""
        yield f"rollback of {undone['step']}  {undone['status']}{error}"


def step_object(book: Book, run: RunState, key: str, name: str, weight: float) -> dict[str, Any]:
    """One step."""
    op, ended = run.ops.get(key), book.ended(key)
    attempts = op.attempt if op is not None else 0
    if ended is None:
        open_ = op is not None and op.status in ("started", "planned") and run.end is None
        status = "running" if open_ else "pending"
        return {"name": name, "status": status, "weight": weight, "attempts": attempts, "data": None, "error": None}
    result = ended.result
    status = "skipped" if result.skipped else "succeeded" if result.success else "failed"
    data = msgspec.json.decode(serde.encode(result.data))
    error = None if result.success else result.error
    return {"name": name, "status": status, "weight": weight, "attempts": attempts, "data": data, "error": error}


def rollback(book: Book, run: RunState) -> Iterator[dict[str, Any]]:
    """What was undone, and what is still to be, once the rollback has begun."""
    done = {key: (name, error) for key, name, error, _ in book.undone()}
    for name, error in done.values():
        yield {"step": name, "status": "failed" if error else "done", "error": error}
    if run.rollback is None or run.end is not None:
        return
    for key in reversed(run.undoable):
        op = run.ops[key]
        if key not in done and not key.startswith(UNDO):
            yield {"step": op.name, "status": "pending", "error": None}


def metrics(store: Store, row: RunRow) -> dict[str, Any]:
    """By category, the latest value of each name."""
    found: dict[str, Any] = {}
    for note in notes(store, row, "metrics"):
        category, values = serde.decode_lenient(note.data)
        found.setdefault(category or "", {}).update(values)
    return found


def notes(store: Store, row: RunRow, kind: str) -> Iterator[Note]:
    """What a run said of itself."""
    after = 0
    while page := store.note_load(row.rid, kind=kind, key=None, after=after, limit=PAGE):
        after = page[-1][0]
        for _, note in page:
            yield note


def log_objects(store: Store, row: RunRow, step: str | None = None) -> Iterator[dict[str, Any]]:
    """Events and logged lines in the order of their time: ``time step event data file``."""
    found: list[tuple[int, dict[str, Any]]] = []
    for note in notes(store, row, "event"):
        event, data, file = serde.decode_lenient(note.data)
        found.append((note.at, {"step": note.key or None, "event": event, "data": data, "file": file}))
    for note in notes(store, row, "log"):
        level, _, text = serde.decode_lenient(note.data)
        data = {"level": level, "text": text}
        found.append((note.at, {"step": note.key, "event": "log", "data": data, "file": None}))
    for at, entry in sorted(found, key=lambda one: one[0]):
        if step is None or entry["step"] == step:
            yield {"time": iso(at), **entry}
