"""W7: a store with very many finished runs, made in bulk; how long lists, searches and retention take in it."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from stepwell.client import list_rows
from stepwell.client._slim import slim_state
from stepwell.core import (
    LifeStarted,
    RunFailed,
    RunStarted,
    RunSucceeded,
    StepStarted,
    StepSucceeded,
    encode_records,
)
from stepwell.errors import ErrorRecord
from stepwell.journal import RunFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stepwell import Engine

AT = 1_700_000_000_000_000
FAILED_EACH = 100
"""Each so-and-so-manieth run failed."""
NAMES = 10
TAGS = 1000
SLICE = 20_000

WRITER = """
import sys, time
from stepwell import Engine, durable_execution
longest, count, end = 0.0, 0, float(sys.argv[2])
@durable_execution(name="beside")
def beside(event, context):
    global longest, count
    while time.time() < end and count < 1_000_000:
        begun = time.perf_counter()
        context.step(lambda: 1, name="step")
        longest, count = max(longest, time.perf_counter() - begun), count + 1
engine = Engine(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
engine.run(beside)
engine.stop()
print(longest * 1000, count)
"""


def rows(count: int) -> Iterator[tuple[Any, ...]]:
    """The catalogue's columns of each run: id, function, door, status, reason, created, ended, queue, tags, input."""
    for i in range(count):
        failed = i % FAILED_EACH == 0
        status, reason = ("failed", f"ValueError: order {i} has no address") if failed else ("succeeded", None)
        made = AT + i * 1000
        yield (
            f"order-{i:08d}", f"shop-{i % NAMES}", "durable", status, reason, made, made + 900, "default",
            f"customer-{i % TAGS}", b"0" * 16,
        )  # fmt: skip


def journals() -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Two rows of a journal of one step: of runs that went well, and of those that failed."""
    begun: list[Any] = [
        RunStarted(AT, "shop", '{"order": 12345678, "items": [1, 2, 3]}'),
        LifeStarted(AT + 100, 1, "host-1-0123456789", "start", 1, "host"),
        StepStarted(AT + 200, "charge", 1, name="charge"),
        StepSucceeded(AT + 300, "charge", '{"paid": true, "amount": "12.50"}'),
    ]
    error = ErrorRecord(type="ValueError", message="the order has no address", classes=("builtins:ValueError",))
    head = encode_records(begun)
    return (head, encode_records([RunSucceeded(AT + 900, "true")])), (
        head,
        encode_records([RunFailed(AT + 900, error)]),
    )


def fill_sqlite(path: Path, count: int) -> None:
    """Into a store that is there, by plain SQL."""
    well, badly = journals()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma synchronous = off")
        first = connection.execute("select coalesce(max(rid), 0) + 1 from run").fetchone()[0]
        runs, records = [], []
        for rid, (*head, tag, digest) in enumerate(rows(count), first):
            runs.append((rid, *head, f'["{tag}"]', digest))
            for seq, data in enumerate(badly if head[3] == "failed" else well, 1):
                records.append((rid << 24 | seq, 1, data))
            if len(runs) == SLICE or rid == first + count - 1:
                connection.execute("begin immediate")
                connection.executemany(
                    "insert into run (rid, id, function, door, status, reason, created_at, ended_at, queue, tags,"
                    " input_hash) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", runs,
                )  # fmt: skip
                connection.executemany("insert into record (k, epoch, data) values (?, ?, ?)", records)
                connection.execute("commit")
                runs, records = [], []
        connection.execute("pragma wal_checkpoint(truncate)")


def fill_postgres(url: str, count: int) -> None:
    """Into a store that is there, by COPY."""
    import psycopg

    well, badly = journals()
    columns = "id, function, door, status, reason, created_at, ended_at, queue, tags, input_hash"
    with psycopg.connect(url, autocommit=True) as connection:
        with connection.cursor() as cursor:
            with cursor.copy(f"copy stepwell.run ({columns}) from stdin") as copy:
                for *head, tag, digest in rows(count):
                    copy.write_row((*head, [tag], digest))
            rids = cursor.execute("select rid, status from stepwell.run order by rid").fetchall()
            with cursor.copy("copy stepwell.record (rid, seq, epoch, data) from stdin") as copy:
                for rid, status in rids:
                    for seq, data in enumerate(badly if status == "failed" else well, 1):
                        copy.write_row((rid, seq, 1, data))
        connection.execute("vacuum analyze stepwell.run")
        connection.execute("vacuum analyze stepwell.record")


def milliseconds(work: Callable[[], Any], times: int = 5) -> float:
    """Median."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[times // 2] * 1000


def looks(engine: Engine, count: int) -> Iterator[tuple[str, float]]:
    """What people ask of the list, and milliseconds."""
    store = engine.store

    def listed(status: str | None = None, **where: Any) -> Callable[[], Any]:
        return lambda: list_rows(store, RunFilter(**where), status, 50)

    middle = f"order-{count // 2:08d}"
    asked: dict[str, Callable[[], Any]] = {
        "list, newest 50": listed(),
        "list, 50 from the middle": lambda: store.run_list(RunFilter(), limit=50, before=count // 2),
        "list, failed": listed("failed"),
        "list, running": listed("running"),
        "list, by name": listed(function="shop-3"),
        "list, by a name that no run has": listed(function="nobody"),
        "list, by tag": listed(tag="customer-7"),
        "list, by a tag that no run has": listed(tag="nobody"),
        "search, text in every run": listed(text="order"),
        "search, text in one run": listed(text=f"order {count // 2 // FAILED_EACH * FAILED_EACH} has"),
        "search, text in no run": listed(text="nowhere"),
        "find by prefix of the id": lambda: store.run_list(RunFilter(id_prefix=middle[:-1]), limit=4),
        "show of one": lambda: slim_state(store, engine.find(middle)),
        "count of all": lambda: store.run_count(RunFilter()),
    }
    for name, work in asked.items():
        yield name, milliseconds(work)


def collect(engine: Engine, seconds: float) -> tuple[float, float, int]:
    """Retention beside a process that commits steps: runs a minute, that one's longest step in ms, its steps."""
    end = time.time() + seconds + 2
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, engine.url, str(end)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    assert writer.stdin is not None
    writer.stdin.write("\n")
    writer.stdin.flush()
    steps = engine.store.gc(RunFilter(ended_before=engine.store.now() - 1_000_000), dry_run=False)
    gone, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        with engine.host.writer.exclusive():
            counts = next(steps, None)
        if counts is None:
            break
        gone = counts.runs
    rate = gone / (time.perf_counter() - begun) * 60
    out, _ = writer.communicate(timeout=seconds + 60)
    longest, count = out.split()
    return rate, float(longest), int(count)
