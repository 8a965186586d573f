"""Runs as people and programs see them: status words, exit codes, the one JSON object (ARCHITECTURE.md §7)."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell import core
from stepwell.client._answers import open_callbacks
from stepwell.client._outcome import Reader
from stepwell.client._slim import Tree, slim_state
from stepwell.core import US, Op, RunState, progress
from stepwell.durable._codec import shown_text
from stepwell.errors import PayloadError
from stepwell.runtime._hooks import of_door
from stepwell.runtime._values import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from stepwell.core import Payload
    from stepwell.errors import ErrorRecord
    from stepwell.journal import RunFilter, RunRow, Store

EXIT_CODES = {
    "succeeded": 0, "continued": 0, "failed": 1, "timed_out": 1, "blocked": 1, "cancelled": 6,
    "pending": 5, "running": 5, "waiting": 5, "interrupted": 5, "rolling_back": 5,
}  # fmt: skip
"""Exit code of a command that shows or waits for a run with this status."""
OPEN = ("pending", "running", "waiting", "interrupted", "blocked", "rolling_back")
PAGE = 500


def shown_status(row: RunRow, silence: Mapping[str, float], now: int) -> str:
    """The status that is true now: nothing is called running while nobody runs it (P5)."""
    status = str(row.status)
    gone = row.owner is None or silence.get(row.owner, 0.0) == float("inf")
    if status == "running" and gone:
        return "interrupted"
    overdue = row.wake_at is not None and row.wake_at < now - US
    if status == "waiting" and gone and overdue:
        return "interrupted"
    return status


def shown_rows(store: Store, where: RunFilter, status: str | None, wanted: int = PAGE) -> Iterator[RunRow]:
    """Runs that match, newest first, read in pages; ``status`` is the one shown, not only the recorded one.

    ``wanted``: about how many will be asked for.
    """
    silence, now = dict(store.worker_silence()), store.now()
    recorded = {"interrupted": ("interrupted", "running", "waiting")}.get(status or "", (status,) if status else ())
    where = msgspec.structs.replace(where, statuses=recorded)
    limit = min(max(wanted, 50), PAGE)
    before: int | None = None
    while page := store.run_list(where, limit=limit, before=before):
        before = page[-1].rid
        for row in page:
            shown = msgspec.structs.replace(row, status=shown_status(row, silence, now))
            if status is None or shown.status == status:
                yield shown
        if len(page) < limit:
            return


def list_rows(store: Store, where: RunFilter, status: str | None, limit: int) -> list[RunRow]:
    """The newest ``limit`` of `shown_rows`."""
    return list(islice(shown_rows(store, where, status, limit), limit))


def exit_code(row: RunRow) -> int:
    """Exit code of a command that waited for this run."""
    if row.status == "blocked" and (row.reason or "").startswith("code-changed"):
        return 2
    return EXIT_CODES[row.status]


def iso(at: int | None) -> str | None:
    """ISO 8601, UTC."""
    return None if not at else datetime.fromtimestamp(at / US, UTC).isoformat().replace("+00:00", "Z")


def value_of(store: Store, payload: Payload) -> Any:
    """A payload for a viewer: secrets stay masked, gone classes become placeholders."""
    if payload is None:
        return None
    reader: Any = Reader(store)
    try:
        text = shown_text(text_of(reader, payload, "value"))
    except PayloadError as error:
        return f"<{error}>"
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def error_of(error: ErrorRecord | None) -> dict[str, Any] | None:
    """An error for a viewer."""
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "traceback": "".join(error.stack_trace)}


def callback_object(op: Op) -> dict[str, Any]:
    """A callback or approval that waits."""
    until = None if op.timeout_at is None else datetime.fromtimestamp(op.timeout_at / US, UTC)
    form = None if op.form is None else msgspec.json.decode(op.form)
    return {"id": op.callback_id, "name": op.name, "timeout_at": until, "form": form}


def run_object(store: Store, row: RunRow, *, tree: bool = True) -> dict[str, Any]:
    """The one JSON object for a run."""
    run = slim_state(store, row)
    found = _head(store, row, run)
    if tree:
        operations, unused = Tree(run), unused_keys(store, row.rid)
        found["tree"] = [node(op, operations, unused) for op in operations.top()]
    return found


def run_json(store: Store, row: RunRow, *, lines: bool = True) -> Iterator[str]:
    """The same as pieces of JSON text, the tree never whole in memory; ``lines``: each top-level node on its own."""
    run = slim_state(store, row)
    operations, unused = Tree(run), unused_keys(store, row.rid)
    end = "\n" if lines else ""
    yield f'{_json(_head(store, row, run))[:-1]},{end}"tree":['
    between = end
    for op in operations.top():
        yield between
        yield from node_json(op, operations, unused)
        between = f",{end}"
    yield "]}" if between == end else f"{end}]}}"


def _head(store: Store, row: RunRow, run: RunState) -> dict[str, Any]:
    """All of a run's object but its tree."""
    status = shown_status(row, dict(store.worker_silence()), store.now())
    end = run.end
    found = {
        "id": row.id,
        "door": row.door,
        "name": row.function,
        "status": status,
        "reason": row.reason or row.waiting_for,
        "exit_code": exit_code(msgspec.structs.replace(row, status=status)),
        "progress": {"percent": percent(run), "eta_seconds": eta(run, store.now())},
        "created_at": iso(row.created_at),
        "started_at": iso(run.first_life_at),
        "ended_at": iso(row.ended_at),
        "input": value_of(store, run.input),
        "output": value_of(store, end.payload) if isinstance(end, core.RunSucceeded) else None,
        "error": error_of(getattr(end, "error", None)),
        "queue": row.queue,
        "tags": list(row.tags),
        "parent": row.parent,
        "target": row.target,
        "wake_at": iso(row.wake_at),
        "callbacks": [{**callback_object(op), "timeout_at": iso(op.timeout_at)} for op in open_callbacks(store, run)],
    }
    of_its_door = of_door(row.door, "run_object")
    return found if of_its_door is None else found | of_its_door(store, row)


def percent(run: RunState) -> float:
    """How far the run has come, 0 to 100; 100 only of one that has succeeded."""
    found = round(100 * progress(run), 1)
    return found if found < 100 or isinstance(run.end, core.RunSucceeded) else 99.9


def eta(run: RunState, now: int) -> float | None:
    """Seconds to the end at the pace so far; None where nothing can be said."""
    done = progress(run)
    begun = run.first_life_at
    if run.end is not None or begun is None or not 0 < done < 1:
        return 0.0 if run.end is not None else None
    return round((now - begun) / US * (1 - done) / done, 1)


def unused_keys(store: Store, rid: int) -> frozenset[str]:
    """Keys on record that the code which came to the run's end did not ask for."""
    keys, after = "[]", 0
    while page := store.note_load(rid, kind="unused", key=None, after=after, limit=100):
        after, keys = page[-1][0], page[-1][1].data
    return frozenset(msgspec.json.decode(keys, type=list[str]))


def node(op: Op, operations: Tree, unused: AbstractSet[str] = frozenset()) -> dict[str, Any]:
    """One operation with what is inside it."""
    return _node(op, unused, [node(child, operations, unused) for child in operations.inside(op)])


def node_json(op: Op, operations: Tree, unused: AbstractSet[str] = frozenset()) -> Iterator[str]:
    """The same as pieces of JSON text."""
    text = _json(_node(op, unused, []))
    inside = operations.inside(op)
    if not inside:
        yield text
        return
    between = text[:-2]  # without the end of its list of children, and its own
    for child in inside:
        yield between
        yield from node_json(child, operations, unused)
        between = ","
    yield "]}"


def _node(op: Op, unused: AbstractSet[str], children: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "key": op.key,
        "kind": op.kind,
        "name": op.name,
        "status": op.status,
        "attempts": op.attempt,
        "started_at": iso(op.started_at),
        "ended_at": iso(op.ended_at),
        "error": error_of(op.error),
        "unused": op.key in unused,
        "children": children,
    }


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
