"""``python -m bench``: ratios to the limits measured in the same run, memory, start, and where the time goes."""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from bench import _datasets, _limits, _many, _memory, _peer, _pipelines, _profile, _queue, _work
from bench._rows import Row, at_most, mark, rated, report, rows_table, sections, table
from stepwell import Engine, __version__
from tests.postgres_server import PostgresServer

T = TypeVar("T", bound=tuple[Any, ...])
STORES = ("SQLite", "PostgreSQL")
GOALS: dict[str, tuple[float | None, float | None]] = {
    "W1": (0.85, 0.85), "W2": (0.4, 0.35), "W2 with id": (0.3, 0.25), "W2c 50": (4, 2), "W2c 1,000": (None, None),
    "W4 async": (8, 5), "W4 threads": (2, 2), "W8 pipeline": (0.7, 0.7),
}  # fmt: skip
WORK: dict[str, Callable[[Engine], float]] = {
    "W1": _work.w1,
    "W2": lambda engine: _work.w2(engine, ids=False),
    "W2 with id": lambda engine: _work.w2(engine, ids=True),
    "W2c 50": lambda engine: _work.w2c(engine, 50),
    "W2c 1,000": lambda engine: _work.w2c(engine, 1000),
    "W4 async": lambda engine: _work.w4(engine, _work.map_async),
    "W4 threads": lambda engine: _work.w4(engine, _work.map_threads),
    "W8 pipeline": _pipelines.empty_steps,
}
ROUNDS = 3
FULL, SHORT = 1_000_000, 100_000
RESULTS = Path(__file__).with_name("RESULTS.md")


class Store:
    """Where one kind of store puts the databases of this bench, and what its disk can do."""

    def __init__(self, name: str, url: Callable[[str], str], limit: Callable[[], float]) -> None:
        self.name = name
        self.url = url
        self.limit = limit
        self.limits: list[float] = []

    def rows(self) -> Iterator[Row]:
        """Each workload on databases of its own, beside the limit right before and after it; the median of three."""
        column = STORES.index(self.name)
        for name, work in WORK.items():
            goal = GOALS[name][column]
            found = []
            for turn in range(ROUNDS):
                before = self.limit()
                engine = Engine(self.url(f"{name.replace(' ', '_').replace(',', '').lower()}_{turn}"))
                rate = work(engine)
                engine.stop()
                most = (before + self.limit()) / 2
                self.limits.append(most)
                found.append(rated(name, rate, most, goal))
            yield sorted(found, key=lambda row: row.ratio or 0)[ROUNDS // 2]
        yield from self._queued()
        engine = Engine(self.url("w3"))
        yield at_most("W3", _work.w3(engine), "µs/step", 3, 1)
        engine.stop()

    def _queued(self) -> Iterator[Row]:
        before = self.limit()
        engine = Engine(self.url("w2q"))
        queued = _queue.w2q(engine)
        engine.stop()
        yield rated("W2q", queued.rate, (before + self.limit()) / 2, None)
        yield at_most("W2q single, p50", queued.p50, "ms", 5, 1)
        yield at_most("W2q single, p99", queued.p99, "ms", None, 1)


def start(folder: Path) -> list[Row]:
    """W5."""
    imported, first, shell = _work.w5(folder)
    return [
        at_most(f"W5 `{_work.IMPORT}`, over a bare interpreter", imported, "ms", 60),
        at_most("W5 the same and a first run of one step", first, "ms", None),
        at_most("W5 `stepwell run` of one step, cold and whole", shell, "ms", 150),
    ]


def fields() -> Iterator[Row]:
    """W8: what a large field of a pipeline's context costs each step that leaves it alone."""
    engine = Engine("memory://fields")
    for kind, taken in _pipelines.large_fields(engine):
        # Whether a list has changed is only known by looking at all of it: there is no goal that it could reach.
        goal = None if "list" in kind else 1
        yield at_most(f"W8 a step beside 10 MB that do not change: {kind}", taken, "ms", goal, 2)
    engine.stop()


def many(url: str, count: int, fill: Callable[[], None]) -> Iterator[tuple[str, str, str, str]]:
    """W7 on one store: what, measured, goal, reached."""
    engine = Engine(url)
    assert engine.store.kind  # which makes the tables
    fill()
    for name, taken in _many.looks(engine, count):
        yield name, f"{taken:,.1f} ms", "≤ 200 ms", mark(taken <= 200)
    rate, longest, steps = _many.collect(engine, 30)
    yield "retention, runs a minute", f"{rate:,.0f}", "≥ 50,000", mark(rate >= 50_000)
    yield f"longest of {steps:,} steps committed beside it", f"{longest:,.0f} ms", "≤ 250 ms", mark(longest <= 250)
    engine.stop()


def not_reached(found: dict[str, list[Row]], costs: dict[str, tuple[str, float]]) -> str:
    """Each goal that is not reached, and why as far as it was measured."""
    lines = [
        f"- {store + ', ' if store else ''}{row.workload}: {row.measured}{_why(row, costs)}."
        for store, rows in found.items()
        for row in rows
        if row.reached is False
    ]
    return "\n".join(lines) or "None."


def _why(row: Row, costs: dict[str, tuple[str, float]]) -> str:
    if row.ratio is None:
        return f", where {row.goal} was the goal"
    text = f", {row.ratio:.2f} of the limit, where {row.goal} was the goal"
    what, taken = costs.get(row.workload.replace(" with id", ""), ("", 0.0))
    if not taken:
        return text
    most = float(row.limit.removesuffix("/s").replace(",", ""))
    return (
        f"{text}. Of {1e6 / (row.ratio * most):.0f} µs {what}, {taken:.0f} are the engine's own (below): "
        f"were commits free, the ratio would be {1e6 / taken / most:.1f}"
    )


def main() -> None:
    """Measure and print; with ``--write`` also into bench/RESULTS.md."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write RESULTS.md, too; what was not measured stays there")
    parser.add_argument("--full", action="store_true", help=f"W7 with {FULL:,} finished runs (some minutes)")
    parser.add_argument("--runs", type=int, metavar="N", help=f"W7 with so many; {SHORT:,} are enough to try it")
    parser.add_argument(
        "--steps", type=int, default=100_000, metavar="N", help="steps of the run whose memory is taken"
    )
    parser.add_argument("--peer", action="store_true", help="dbos beside it; installs it into a temporary environment")
    given = parser.parse_args()
    runs = given.runs or (FULL if given.full else 0)
    parts: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(PostgresServer())
        rate = server.database("limits")
        stores = (
            Store("SQLite", lambda n: f"sqlite:///{folder}/{n}.db", lambda: _limits.sqlite_rate(folder)),
            Store("PostgreSQL", server.database, lambda: _limits.postgres_rate(rate)),
        )
        found = measure(folder, server, stores, given.steps)
        engine = Engine("memory://bench")
        costs = _profile.costs(engine)
        hot = _profile.hottest(engine)
        engine.stop()
        for name, rows in found.items():
            parts[name or "Start and memory"] = rows_table(rows)
        parts["SQLite"] += f"\nAppend and fdatasync: {_limits.fsync_rate(folder):,.0f}/s.\n"
        if runs:
            parts["W7: very many finished runs"] = w7(folder, server, runs)
        if given.peer:
            parts["The nearest peer"] = peer(folder, stores, found)
    parts["Goals that are not reached"] = not_reached(found, costs)
    limits = {store.name: sorted(store.limits)[len(store.limits) // 2] for store in stores}
    parts["Where the time goes"] = _profile.costs_table(costs, limits) + "".join(
        f"\n{name}, by the time in the function itself:\n\n```\n{text}\n```\n" for name, text in hot.items()
    )
    finish(parts, write=given.write)


def measure(folder: Path, server: PostgresServer, stores: tuple[Store, ...], steps: int) -> dict[str, list[Row]]:
    """All rows that have a place in every report."""
    sqlite, postgres = stores
    return {
        sqlite.name: [*told(sqlite.rows()), _memory.bytes_sqlite(folder)],
        postgres.name: [*told(postgres.rows()), _memory.bytes_postgres(server.database("w6"))],
        "": [*told(start(folder)), *told(_memory.peaks(folder, steps)), *told(fields())],
        "Datasets": list(told(_datasets.rows(folder / "datasets"))),
    }


def told(rows: Iterable[T]) -> Iterator[T]:
    """The same, said on stderr as they come: it takes minutes."""
    for row in rows:
        print(*(row.cells if isinstance(row, Row) else row), file=sys.stderr, flush=True)
        yield row


def w7(folder: Path, server: PostgresServer, runs: int) -> str:
    """The section on very many runs."""
    path, url = folder / "w7.db", server.database("w7")
    parts = []
    for name, place, fill in (
        ("SQLite", f"sqlite:///{path}", lambda: _many.fill_sqlite(path, runs)),
        ("PostgreSQL", url, lambda: _many.fill_postgres(url, runs)),
    ):
        head = (f"{name}, {runs:,} finished runs", "measured", "goal", "reached")
        parts.append(table(head, told(many(place, runs, fill))))
    return dated("\n".join(parts))


def peer(folder: Path, stores: tuple[Store, ...], found: dict[str, list[Row]]) -> str:
    """The section on the nearest peer."""
    other = _peer.Peer(folder)
    body: list[tuple[str, ...]] = []
    for store in stores:
        ours = {row.workload: row for row in found[store.name]}
        body += told(other.rows(store.name, store.url, store.limit, ours))
    return dated(_peer.peer_table(other.version, body))


def dated(text: str) -> str:
    """A section that a later report may keep."""
    return f"Measured {datetime.now(UTC):%Y-%m-%d}.\n\n{text}"


def finish(parts: dict[str, str], *, write: bool) -> None:
    """Print the report; ``write`` it, with the sections of the last one that were not measured anew."""
    versions = f"Stepwell {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    machine = f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"
    head = f"# Results\n\n{datetime.now(UTC):%Y-%m-%d}, {machine}, {versions}. Written by `python -m bench --write`.\n"
    if not write:
        print(report(head, parts))
        return
    kept = sections(RESULTS.read_text()) if RESULTS.exists() else {}
    order = ("SQLite", "PostgreSQL", "Start and memory", "Datasets", "W7: very many finished runs", "The nearest peer")
    last = ("Goals that are not reached", "Where the time goes")
    whole = {name: text for name in (*order, *last) if (text := parts.get(name) or kept.get(name))}
    print(report(head, whole))
    RESULTS.write_text(report(head, whole))


if __name__ == "__main__":
    main()
