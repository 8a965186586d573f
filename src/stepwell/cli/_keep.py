"""Commands that keep a store: worker, doctor, gc."""

from __future__ import annotations

import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stepwell.cli._errors import say
from stepwell.cli._look import UNITS
from stepwell.cli._open import opened
from stepwell.cli._output import print_json
from stepwell.cli._served import live_workers, serves
from stepwell.cli._targets import register_app
from stepwell.client import Engine, list_rows
from stepwell.core import US, decode_records
from stepwell.errors import BadArguments, StepwellError
from stepwell.journal import RunFilter, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.journal import GcResult, RunRow, Store

OPEN = ("pending", "running", "waiting", "interrupted", "rolling_back")
STUCK = {"blocked": "stepwell resume {}", "interrupted": "stepwell resume {}"}
PAGE = 500


def worker(store: str | None, apps: tuple[str, ...], concurrency: int, queues: tuple[str, ...], *, drain: bool) -> int:
    """``stepwell worker``: 0 drained, 130 or 143 stopped by a signal."""
    engine = Engine(store, max_threads=concurrency, queues=queues or ("default",))
    for app in apps:
        register_app(engine, app)
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    codes: list[int] = []

    def end(number: int, _frame: object) -> None:
        codes.append(128 + number)
        stop.set()
        signal.signal(number, before[signal.Signals(number)])  # the second one does not wait

    for number in before:
        signal.signal(number, end)
    try:
        with engine:
            names = ", ".join(engine.functions.names()) or "whatever can be imported"
            say(f"serving {', '.join(engine.queues)}: {names}; stop with Ctrl-C")
            while not stop.is_set() and not (drain and _drained(engine)):
                stop.wait(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return codes[0] if codes else 0


def _drained(engine: Engine) -> bool:
    """Nothing is open that this worker could drive."""
    if engine.host.lives:
        return False
    known: dict[str, bool] = {}
    for queue in engine.queues:
        before: int | None = None
        while page := engine.store.run_list(RunFilter(statuses=OPEN, queue=queue), limit=PAGE, before=before):
            before = page[-1].rid
            for row in page:
                if row.function not in known:
                    known[row.function] = engine.function_for(row) is not None
                if known[row.function]:
                    return False
    return True


def doctor(store: str | None, *, as_json: bool) -> int:
    """``stepwell doctor``: 0 all well, 1 something is wrong or stuck, 7 unusable."""
    opened_store = open_store(store, read_only=True)
    try:
        facts = dict(opened_store.facts())
        problems = [*opened_store.check(), *run_problems(opened_store)]
        stuck = list(_stuck(opened_store))
    finally:
        opened_store.close()
    if as_json:
        print_json({"facts": facts, "problems": problems, "stuck": stuck})
        return 1 if problems or stuck else 0
    for name, value in facts.items():
        click.echo(f"{name}: {value}")
    for line in [*problems, *stuck]:
        click.echo(line)
    if problems or stuck:
        return 1
    click.echo("nothing is wrong")
    return 0


def _stuck(store: Store) -> Iterator[str]:
    """Runs that need a person, with the command that helps: blocked ones, and those that nobody drives while no live
    worker serves their queue.
    """
    silence = dict(store.worker_silence())
    alive = live_workers(store)
    for status, command in STUCK.items():
        for row in list_rows(store, RunFilter(), status, 10_000):
            if status == "interrupted" and any(serves(info, row) for info in alive):
                continue
            why = row.reason or "nobody holds it"
            if row.owner is not None and silence.get(row.owner, 0.0) == float("inf"):
                why = f"stale lease of {row.owner}, which is gone"
            yield f"run {row.id} is {row.status}: {why}; {command.format(row.id)}"


def run_problems(store: Store) -> Iterator[str]:
    """Hold each run's journal to what Stepwell promises."""
    before: int | None = None
    while page := store.run_list(RunFilter(), limit=200, before=before):
        before = page[-1].rid
        for row in page:
            found = _broken(store, row)
            fresh = store.run_get(row.id) if found else None
            if found and fresh is not None:  # it may have gone on between the reading of its row and its journal
                yield from (f"run {row.id}: {violation}" for violation in _broken(store, fresh))


def _broken(store: Store, row: RunRow) -> list[str]:
    from stepwell.testing._invariants import check_run

    status: Any = None if row.ended_at is None else row.status
    hot = store.hot_get(row.id)
    try:
        found = check_run(_Rows(store, row), open=row.ended_at is None, hot=hot, status=status)
    except (StepwellError, msgspec.MsgspecError) as error:
        return [f"its journal cannot be read: {error}"]
    return [str(violation) for violation in found]


class _Rows:
    """A journal in pages, as often as it is gone through."""

    def __init__(self, store: Store, row: RunRow) -> None:
        self._store = store
        self._row = row

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        after = 0
        while page := self._store.record_load(self._row.rid, after=after, limit=PAGE):
            after = page[-1].seq
            for entry in page:
                yield entry.seq, entry.epoch, decode_records(entry.data)


def gc(options: dict[str, Any]) -> int:
    """``stepwell gc``."""
    older_than, dry_run = options["older_than"], options["dry_run"]
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", older_than)
    if match is None:
        message = f"--older-than {older_than}: write a number and s, m, h or d, as in 30d"
        raise BadArguments(message)
    with opened(options["store"], write=not dry_run) as engine:
        ended_before = max(0, engine.store.now() - int(match[1]) * UNITS[match[2]] * US)
        where = RunFilter(statuses=options["status"], ended_before=ended_before)
        last: GcResult | None = None
        for counted in _steps(engine, where, dry_run=dry_run):
            last = counted
    counts = msgspec.to_builtins(last) if last is not None else {"runs": 0, "rows": 0, "blobs": 0, "bytes": 0}
    if options["as_json"]:
        print_json({"dry_run": dry_run, **counts})
    else:
        verb = "would take away" if dry_run else "took away"
        click.echo(f"{verb} {counts['runs']} runs, {counts['rows']} rows, {counts['blobs']} large values")
    return 0


def _steps(engine: Engine, where: RunFilter, *, dry_run: bool) -> Iterator[GcResult]:
    """Each step is a small transaction of its own, so that others get their turn between two."""
    steps = engine.store.gc(where, dry_run=dry_run)
    while True:
        with engine.host.writer.exclusive():
            counts = next(steps, None)
        if counts is None:
            return
        yield counts
