"""``stepwell show``: a header, a bar, a line for each operation."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click
import msgspec

from stepwell import core
from stepwell.cli._answer import waiting_lines
from stepwell.cli._errors import say
from stepwell.cli._output import visible
from stepwell.cli._served import is_served
from stepwell.cli._tables import painted, print_bar
from stepwell.client._slim import Tree, slim_state
from stepwell.client._views import error_of, eta, percent, shown_status, unused_keys, value_of
from stepwell.runtime._hooks import of_door

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from stepwell.core import Op, RunState
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
    run = slim_state(store, row)
    status = shown_status(row, dict(store.worker_silence()), store.now())
    click.echo(f"{row.id}  {row.function}  {painted(status, status)}")
    reason = row.reason or row.waiting_for
    if reason and reason != status:
        click.echo(visible(f"  {' '.join(reason.split())}"))
    print_bar(percent(run), eta(run, store.now()))
    lines = of_door(row.door, "lines")
    if lines is not None:
        for line in lines(store, row, painted):
            click.echo(f"  {line}")
    else:
        operations, unused = Tree(run), unused_keys(store, row.rid)
        for op in operations.top():
            _print_tree(op, operations, unused, 1)
    for waits, command in waiting_lines(store, run):
        click.echo(visible(f"  {waits}\n    {command}"))
    error = error_of(getattr(run.end, "error", None))
    if error:
        message = "\n    ".join(error["message"].splitlines())
        click.echo(visible(f"  error: {error['type']}: {message}"))
    if isinstance(run.end, core.RunSucceeded):
        click.echo(f"  result: {msgspec.json.encode(value_of(store, run.end.payload)).decode()[:500]}")
    if status in NEXT:
        command, why = _next(store, row, run, status)
        say(f"next: stepwell {command.format(row.id)}", why.format(row.id))


def _next(store: Store, row: RunRow, run: RunState, status: str) -> tuple[str, str]:
    """The command that helps, and what it does."""
    if status == "waiting" and row.owner is None and not is_served(store, row):
        return "resume {}", "goes on with it when it can; no worker does"
    if status in ("failed", "timed_out") and row.door != "pipeline" and any(key.startswith("undo/") for key in run.ops):
        target = shlex.quote(row.target) if row.target else "FILE.py:FUNCTION"
        return f"run {target.replace('{', '{{').replace('}', '}}')}", "starts anew: what this one had done is undone"
    return NEXT[status]


def _print_tree(op: Op, operations: Tree, unused: AbstractSet[str], depth: int) -> None:
    name = op.name or op.key.rsplit("/", 1)[-1]
    attempts = f"  attempts {op.attempt}" if op.attempt > 1 else ""
    idle = "  unused" if op.key in unused else ""
    error = visible(f"  {op.error.type}: {' '.join(op.error.message.split())}") if op.error else ""
    click.echo(f"{'  ' * depth}{name}  ({op.kind})  {painted(op.status, op.status)}{attempts}{idle}{error}")
    for child in operations.inside(op):
        _print_tree(child, operations, unused, depth + 1)
