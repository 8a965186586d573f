"""Commands that look: ls, show, trace, logs, wait, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stepwell.cli._tables import bar, print_table, short_time
from stepwell.client import exit_code, list_rows, run_object
from stepwell.client._views import iso
from stepwell.journal import RunFilter

if TYPE_CHECKING:
    from stepwell.client import Engine

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def dump(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def ls(engine: Engine, options: dict[str, Any]) -> int:
    """``stepwell ls``."""
    rows = list_rows(engine.store, RunFilter(function=options["name"]), options["status"], options["limit"])
    if options["as_json"]:
        dump([run_object(engine.store, row, tree=False) for row in rows])
    else:
        head = ("RUN", "FUNCTION", "STATUS", "CREATED", "ENDED", "REASON")
        body = [
            (r.id, r.function, r.status, short_time(r.created_at), short_time(r.ended_at), (r.reason or "")[:60])
            for r in rows
        ]
        print_table(head, body)
        if not rows:
            click.echo("no runs; start one with: stepwell run app.py:handler", err=True)
    engine.stop()
    return 0


def show(engine: Engine, run_id: str, *, as_json: bool) -> int:
    """``stepwell show``."""
    found = run_object(engine.store, engine.find(run_id))
    if as_json:
        dump(found)
    else:
        _show(found)
    engine.stop()
    return 0


def _show(found: dict[str, Any]) -> None:
    click.echo(f"{found['id']}  {found['name']}  {found['status']}")
    if found["reason"]:
        click.echo(f"  {found['reason']}")
    progress = found["progress"]
    eta = f"  about {progress['eta_seconds']:g} s left" if progress["eta_seconds"] else ""
    click.echo(f"  {bar(progress['percent'])} {progress['percent']:g} %{eta}")
    for node in found["tree"]:
        _node(node, 1)
    if found["error"]:
        click.echo(f"  error: {found['error']['type']}: {found['error']['message']}")
    if found["output"] is not None:
        click.echo(f"  result: {msgspec.json.encode(found['output']).decode()[:500]}")
    nexts = {
        "failed": f"stepwell retry {found['id']}",
        "interrupted": f"stepwell resume {found['id']}",
        "blocked": f"stepwell resume {found['id']}",
        "waiting": f"stepwell wait {found['id']}",
    }
    if found["status"] in nexts:
        click.echo(f"next: {nexts[found['status']]}", err=True)


def _node(node: dict[str, Any], depth: int) -> None:
    name = node["name"] or node["key"].rsplit("/", 1)[-1]
    attempts = f"  attempts {node['attempts']}" if node["attempts"] > 1 else ""
    error = f"  {node['error']['type']}: {node['error']['message']}" if node["error"] else ""
    click.echo(f"{'  ' * depth}{name}  ({node['kind']})  {node['status']}{attempts}{error}")
    for child in node["children"]:
        _node(child, depth + 1)


def trace(engine: Engine, run_id: str, *, as_json: bool) -> int:
    """``stepwell trace``."""
    history = engine.get_run(run_id).history()
    if as_json:
        dump(history)
    else:
        first = history[0]["at"] if history else 0
        rows = []
        for record in history:
            keep = {k: v for k, v in record.items() if k not in ("at", "seq", "epoch", "record", "key") and v}
            about = " ".join(f"{k}={str(v)[:40]}" for k, v in keep.items())[:80]
            offset = f"+{(record['at'] - first) / 1e6:.3f}"
            rows.append(
                (str(record["seq"]), str(record["epoch"]), offset, record["record"], record.get("key", ""), about)
            )
        print_table(("SEQ", "LIFE", "TIME", "RECORD", "KEY", "ABOUT"), rows)
    engine.stop()
    return 0


def logs(engine: Engine, run_id: str, step: str | None, *, as_json: bool) -> int:
    """``stepwell logs``."""
    lines = engine.get_run(run_id).logs(step)
    if as_json:
        dump(lines)
    else:
        for line in lines:
            level = LEVELS.get(line["level"], str(line["level"]))
            click.echo(f"{iso(line['at'])} {level} {line['key']}: {line['text']}")
    engine.stop()
    return 0


def wait(engine: Engine, run_id: str, timeout: float | None, *, as_json: bool) -> int:
    """``stepwell wait``."""
    row = engine.find(run_id)
    try:
        engine.get_run(row.id).wait(timeout)
    except TimeoutError as error:
        click.echo(f"error: {error}", err=True)
        engine.stop()
        return 5
    row = engine.find(row.id)
    if as_json:
        dump(run_object(engine.store, row))
    else:
        click.echo(row.status)
    engine.stop()
    return exit_code(row)


def export(engine: Engine, run_id: str, form: str, file: str | None) -> int:
    """``stepwell export``."""
    row = engine.find(run_id)
    handle = engine.get_run(row.id)
    document = {
        "format": form,
        "run": run_object(engine.store, row, tree=False),
        "records": handle.history(),
        "logs": handle.logs(),
    }
    data = msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"
    if file is None:
        sys.stdout.write(data)
    else:
        Path(file).write_text(data, "utf-8")
        click.echo(f"wrote {file}", err=True)
    engine.stop()
    return 0
