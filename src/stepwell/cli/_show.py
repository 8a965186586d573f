"""``stepwell show``: a header, a bar, a line for each operation; or all of it as one JSON object."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from stepwell import core
from stepwell.cli._answer import waiting_lines
from stepwell.cli._errors import say
from stepwell.cli._output import write_array
from stepwell.cli._tables import painted, print_bar
from stepwell.client import run_object
from stepwell.client._follow import Follower
from stepwell.client._views import error_of, eta, node, percent, shown_status, unused_keys, value_of
from stepwell.core import Op, RunState, parent_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from stepwell.core import AnyRecord
    from stepwell.journal import RunRow, Store

NEXT = {
    "failed": ("retry {}", "gives what failed new attempts"),
    "timed_out": ("retry {}", "gives what did not end new attempts"),
    "interrupted": ("resume {}", "goes on with it"),
    "blocked": ("resume {}", "tries again; `stepwell retry {} --skip STEP` goes around a step"),
    "pending": ("worker", "takes it up"),
    "waiting": ("wait {}", "waits for its end"),
    "running": ("wait {}", "waits for its end"),
    "rolling_back": ("wait {}", "waits for its end"),
}


def show_run(store: Store, row: RunRow) -> None:
    """Print it. The journal is read in pages and its values are dropped as they go by."""
    run = _state(store, row)
    status = shown_status(row, dict(store.worker_silence()), store.now())
    click.echo(f"{row.id}  {row.function}  {painted(status, status)}")
    reason = row.reason or row.waiting_for
    if reason and reason != status:
        click.echo(f"  {reason}")
    print_bar(percent(run), eta(run, store.now()))
    if row.door == "pipeline":
        _print_pipeline(store, row)
    else:
        children = _children(run)
        unused = unused_keys(store, row.rid)
        for op in _top(run):
            _print_tree(op, children, unused, 1)
    for waits, command in waiting_lines(store, run):
        click.echo(f"  {waits}\n    {command}")
    error = error_of(getattr(run.end, "error", None))
    if error:
        click.echo(f"  error: {error['type']}: {error['message']}")
    if isinstance(run.end, core.RunSucceeded):
        click.echo(f"  result: {msgspec.json.encode(value_of(store, run.end.payload)).decode()[:500]}")
    if status in NEXT:
        command, why = NEXT[status]
        say(f"next: stepwell {command.format(row.id)}", why.format(row.id))


def _print_pipeline(store: Store, row: RunRow) -> None:
    """Steps, and below them what the rollback did."""
    found = run_object(store, row, tree=False)
    for step in found["steps"]:
        attempts = f"  attempts {step['attempts']}" if step["attempts"] > 1 else ""
        error = f"  {' '.join(str(step['error']).split())}" if step["error"] else ""
        click.echo(f"  {step['name']}  {painted(step['status'], step['status'])}{attempts}{error}")
    for undone in found["rollback"]:
        error = f"  {undone['error']}" if undone["error"] else ""
        click.echo(f"  rollback of {undone['step']}  {undone['status']}{error}")


def print_object(store: Store, row: RunRow) -> None:
    """The run object as JSON on stdout, its tree a line an operation."""
    head = msgspec.json.encode(run_object(store, row, tree=False)).decode()
    run = _state(store, row, keep_times=True)
    children, unused = _children(run), unused_keys(store, row.rid)
    click.echo(f'{head[:-1]},\n"tree":', nl=False)
    write_array(sys.stdout, (node(op, children, unused) for op in _top(run)))
    click.echo("}")


def _state(store: Store, row: RunRow, *, keep_times: bool = False) -> RunState:
    """The journal folded page by page, without what nobody looks at."""

    def slim(run: RunState, record: AnyRecord) -> None:
        op = run.ops.get(getattr(record, "key", ""))
        if op is not None:
            _slim(op, keep_times=keep_times)

    return Follower(store, row.id, row.rid, slim).look()


def _slim(op: Op, *, keep_times: bool) -> None:
    # Assigned, not deleted: deleting would give each operation a dictionary of its own.
    if op.payload is not None:
        op.payload = None
    if op.fingerprint is not None:
        op.fingerprint = None
    if not keep_times and op.ended:
        op.started_at = op.ended_at = 0


def _parent(op: Op, run: RunState) -> str:
    """The nearest operation around it that is on record; "" for the run itself."""
    parent = parent_of(op.key)
    while parent and parent not in run.ops:
        parent = parent_of(parent)
    return parent


def _top(run: RunState) -> Iterator[Op]:
    return (op for op in run.ops.values() if not _parent(op, run))


def _children(run: RunState) -> dict[str, list[Op]]:
    children: dict[str, list[Op]] = {}
    for op in run.ops.values():
        parent = _parent(op, run)
        if parent:
            children.setdefault(parent, []).append(op)
    return children


def _print_tree(op: Op, children: Mapping[str, Sequence[Op]], unused: AbstractSet[str], depth: int) -> None:
    name = op.name or op.key.rsplit("/", 1)[-1]
    attempts = f"  attempts {op.attempt}" if op.attempt > 1 else ""
    idle = "  unused" if op.key in unused else ""
    error = f"  {op.error.type}: {' '.join(op.error.message.split())}" if op.error else ""
    click.echo(f"{'  ' * depth}{name}  ({op.kind})  {painted(op.status, op.status)}{attempts}{idle}{error}")
    for child in children.get(op.key, ()):
        _print_tree(child, children, unused, depth + 1)
