"""Commands that look: ls, show, trace, logs, wait, export."""

from __future__ import annotations

import contextlib
import re
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stepwell.cli._errors import PARKED, say
from stepwell.cli._live_bar import live_bar
from stepwell.cli._open import opened
from stepwell.cli._output import print_pieces, visible, write_array
from stepwell.cli._tables import print_table, short_time
from stepwell.client import aws_events, exit_code, run_json, run_object, shown_rows
from stepwell.client._views import iso
from stepwell.core import US
from stepwell.errors import BadArguments
from stepwell.journal import RunFilter
from stepwell.runtime._hooks import of_door

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from stepwell.client import Engine
    from stepwell.journal import Note, RunRow, Store

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
PAGE = 500


def ls(options: dict[str, Any]) -> int:
    """``stepwell ls``."""
    with opened(options["store"], write=False) as engine:
        limit: int = options["limit"]
        where = _filter(options, engine.store.now())
        rows = islice(shown_rows(engine.store, where, options["status"], limit), limit)
        if options["as_json"]:
            write_array(sys.stdout, (run_object(engine.store, row, tree=False) for row in rows))
            click.echo()
            return 0
        head = ("RUN", "FUNCTION", "STATUS", "CREATED", "ENDED", "REASON")
        count = print_table(head, map(_ls_row, rows))
        if not count and (options["status"] or where != RunFilter()):
            say("no run matches")
        elif not count:
            say("no runs; start one with: stepwell run app.py:handler")
        elif count == limit:
            say(f"the newest {count}; more with --limit")
    return 0


def _filter(options: dict[str, Any], now: int) -> RunFilter:
    """The filters of ``stepwell ls``, without the status, which is shown otherwise than it is recorded."""
    return RunFilter(
        function=options["name"],
        door=options["door"],
        tag=options["tag"],
        text=options["text"],
        created_from=None if options["since"] is None else moment("--since", options["since"], now),
        created_to=None if options["until"] is None else moment("--until", options["until"], now),
    )


def moment(option: str, text: str, now: int) -> int:
    """A time as people write it: so long ago (s, m, h, d), or ISO 8601, UTC where it names no zone. Microseconds.

    Raises:
        BadArguments: it is neither.
    """
    ago = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if ago is not None:
        return max(0, now - int(ago[1]) * UNITS[ago[2]] * US)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"{option} {text}: write how long ago, as in 2h or 3d, or a time, as in 2013-01-01T12:00"
        raise BadArguments(message) from error
    since = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)


def _ls_row(row: RunRow) -> tuple[str, ...]:
    created, ended = short_time(row.created_at), short_time(row.ended_at)
    return row.id, row.function, row.status, created, ended, _cut(row.reason or "", 60)


def _cut(text: str, longest: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def show(run_id: str, *, as_json: bool, store: str | None) -> int:
    """``stepwell show``."""
    from stepwell.cli._show import show_run

    with opened(store, write=False) as engine:
        row = engine.find(run_id)
        if as_json:
            print_pieces(run_json(engine.store, row))
        else:
            show_run(engine.store, row)
    return 0


def trace(run_id: str, *, as_json: bool, store: str | None) -> int:
    """``stepwell trace``."""
    with opened(store, write=False) as engine:
        records = engine.get_run(run_id)._records()
        if as_json:
            write_array(sys.stdout, records)
            click.echo()
        else:
            print_table(("SEQ", "LIFE", "TIME", "RECORD", "KEY", "ABOUT"), _trace_rows(records))
    return 0


def _trace_rows(records: Iterator[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    first: int | None = None
    for record in records:
        first = record["at"] if first is None else first
        keep = {k: v for k, v in record.items() if k not in ("at", "seq", "epoch", "record", "key") and v}
        about = _cut(" ".join(f"{k}={_cut(str(v), 40)}" for k, v in keep.items()), 80)
        offset = f"+{(record['at'] - first) / 1e6:.3f}"
        yield str(record["seq"]), str(record["epoch"]), offset, record["record"], record.get("key", ""), about


def logs(run_id: str, step: str | None, *, as_json: bool, store: str | None) -> int:
    """``stepwell logs``."""
    with opened(store, write=False) as engine:
        row = engine.find(run_id)
        events = of_door(row.door, "log_objects")
        if events is not None:
            _print_events(events(engine.store, row, step), as_json=as_json)
            return 0
        lines = _log_lines(engine.store, row, step)
        if as_json:
            write_array(sys.stdout, lines)
            click.echo()
            return 0
        for line in lines:
            level = LEVELS.get(line["level"], str(line["level"]))
            click.echo(visible(f"{iso(line['at'])} {level} {line['key']}: {line['text']}"))
    return 0


def _print_events(events: Iterator[dict[str, Any]], *, as_json: bool) -> None:
    """Events and lines of a door whose steps tell more than lines; for programs one object a line."""
    for entry in events:
        if as_json:
            click.echo(msgspec.json.encode(entry).decode())
        else:
            file = f" ({entry['file']})" if entry["file"] else ""
            data = msgspec.json.encode(entry["data"]).decode()
            click.echo(visible(f"{entry['time']} {entry['step'] or '-'}: {entry['event']} {data}{file}"))


def _log_lines(store: Store, row: RunRow, step: str | None) -> Iterator[dict[str, Any]]:
    from stepwell import serde

    for note in _notes(store, row, "log"):
        if step is None or note.key == step or note.key.endswith("/" + step):
            level, attempt, text = serde.decode_lenient(note.data)
            yield {"at": note.at, "key": note.key, "level": level, "attempt": attempt, "text": text}


def _notes(store: Store, row: RunRow, kind: str | None = None) -> Iterator[Note]:
    after = 0
    while page := store.note_load(row.rid, kind=kind, key=None, after=after, limit=PAGE):
        after = page[-1][0]
        for _, note in page:
            yield note


def wait(run_id: str, timeout: float | None, *, as_json: bool, store: str | None) -> int:
    """``stepwell wait``."""
    with opened(store, write=False) as engine:
        row = engine.find(run_id)
        try:
            with live_bar(engine, row.id, wanted=not as_json):
                engine.get_run(row.id).wait(timeout)
        except TimeoutError as error:
            say(f"error: {error}", f"stepwell show {row.id}")
            return PARKED
        except KeyboardInterrupt:
            say(f"run {row.id} is left as it is; wait again with: stepwell wait {row.id}")
            return 130
        row = engine.find(row.id)
        if as_json:
            print_pieces(run_json(engine.store, row))
        else:
            click.echo(row.status)
        return exit_code(row)


def export(run_id: str, form: str, file: str | None, store: str | None) -> int:
    """``stepwell export``."""
    with opened(store, write=False) as engine:
        row = engine.find(run_id)
        if file is None or file == "-":
            _write_export(sys.stdout, engine, row, form)
            return 0
        # Beside its place first: a file that is there is whole.
        part = Path(f"{file}.part")
        try:
            with part.open("w", encoding="utf-8") as out:
                _write_export(out, engine, row, form)
            part.replace(file)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            message = f"-o {file}: {error.strerror or error}"
            raise BadArguments(message) from error
        say(f"wrote {file}")
    return 0


def _write_export(out: TextIO, engine: Engine, row: RunRow, form: str) -> None:
    """Run, records and notes, or the events; each on a line of its own as it is read."""
    if form == "aws":
        out.write('{"Events": ')
        write_array(out, aws_events(engine.store, row))
        out.write("}\n")
        return
    run = msgspec.json.encode(run_object(engine.store, row, tree=False)).decode()
    out.write(f'{{"format": "{form}", "version": 1,\n"run": {run},\n"row": {msgspec.json.encode(row).decode()},\n')
    out.write('"records": ')
    write_array(out, engine.get_run(row.id)._records())
    out.write(',\n"notes": ')
    write_array(out, _notes(engine.store, row))
    out.write("}\n")
