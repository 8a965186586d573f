"""Commands that keep a store: worker, doctor, gc."""

from __future__ import annotations

import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stepwell.client import Engine, list_rows, load_module
from stepwell.core import US, decode_records
from stepwell.durable._function import DurableFunction
from stepwell.errors import BadArguments
from stepwell.journal import RunFilter, open_store
from stepwell.testing._invariants import check_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.journal import Store

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
OPEN = ("pending", "running", "waiting", "interrupted", "rolling_back")


def register_app(engine: Engine, app: str) -> int:
    """Make every durable function of a file or module known. Returns how many there are."""
    module = load_module(app.partition(":")[0])
    found = [value for value in vars(module).values() if isinstance(value, DurableFunction)]
    for function in found:
        engine.register(function)
    return len(found)


def worker(store: str | None, apps: tuple[str, ...], concurrency: int, queues: tuple[str, ...], *, drain: bool) -> int:
    """``stepwell worker``."""
    engine = Engine(store, max_threads=concurrency, queues=queues or ("default",))
    for app in apps:
        if register_app(engine, app) == 0:
            message = f"{app} has no durable function"
            raise BadArguments(message)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _signum, _frame: stop.set())
    with engine:
        names = ", ".join(engine.functions.names()) or "whatever can be imported"
        click.echo(f"serving {', '.join(engine.queues)}: {names}; stop with Ctrl-C", err=True)
        while not stop.is_set():
            if drain and not engine.host.lives and not engine.store.run_list(_open(), limit=1):
                break
            stop.wait(0.1)
    return 0


def _open() -> RunFilter:
    return RunFilter(statuses=OPEN)


def doctor(store: str | None, *, as_json: bool) -> int:
    """``stepwell doctor``: 0 all well, 1 something is wrong, 7 unusable."""
    opened = open_store(store, read_only=True)
    try:
        problems = [*opened.check(), *run_problems(opened)]
        facts = dict(opened.facts())
        stuck = [f"run {row.id} is {row.status}: {_help(row)}" for row in _stuck(opened)]
    finally:
        opened.close()
    if as_json:
        click.echo(msgspec.json.encode({"facts": facts, "problems": problems, "stuck": stuck}).decode())
    else:
        for name, value in facts.items():
            click.echo(f"{name}: {value}")
        for line in [*problems, *stuck]:
            click.echo(line)
        if not problems:
            click.echo("nothing is wrong")
    return 1 if problems else 0


def _stuck(store: Store) -> Iterator[Any]:
    for status in ("blocked", "interrupted"):
        yield from list_rows(store, RunFilter(), status, 100)


def _help(row: Any) -> str:
    return f"{row.reason or 'nobody holds it'}; stepwell resume {row.id}"


def run_problems(store: Store) -> Iterator[str]:
    """Hold each run's journal to P1 to P6."""
    before: int | None = None
    while page := store.run_list(RunFilter(), limit=200, before=before):
        before = page[-1].rid
        for row in page:
            rows = [(e.seq, e.epoch, decode_records(e.data)) for e in store.record_load(row.rid)]
            is_open = row.ended_at is None
            for violation in check_run(rows, open=is_open, hot=store.hot_get(row.id)):
                yield f"run {row.id}: {violation}"


def gc(engine: Engine, older_than: str, status: tuple[str, ...], *, as_json: bool, dry_run: bool) -> int:
    """``stepwell gc``."""
    match = re.fullmatch(r"(\d+)([smhd])", older_than)
    if match is None:
        message = f"--older-than {older_than}: write a number and s, m, h or d, as in 30d"
        raise BadArguments(message)
    store = engine.store
    before = store.now() - int(match[1]) * UNITS[match[2]] * US
    steps = store.gc(RunFilter(statuses=status, ended_before=before), dry_run=dry_run)
    last: Any = None
    while True:
        with engine.host.writer.exclusive():
            found = next(steps, None)
        if found is None:
            break
        last = found
    counts = msgspec.to_builtins(last) if last is not None else {"runs": 0, "rows": 0, "blobs": 0, "bytes": 0}
    if as_json:
        click.echo(msgspec.json.encode(counts).decode())
    else:
        verb = "would take away" if dry_run else "took away"
        click.echo(f"{verb} {counts['runs']} runs, {counts['rows']} rows, {counts['blobs']} large values")
    engine.stop()
    return 0
