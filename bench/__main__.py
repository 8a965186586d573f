"""``python -m bench [--write]``: a table of ratios to the limits measured in the same run."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import _limits, _work
from stepwell import Engine, __version__
from tests.postgres_server import PostgresServer

GOALS = {
    "W1": (0.85, 0.85), "W2": (0.4, 0.35), "W2 with id": (0.3, 0.25), "W2c 50": (4, 2), "W4 async": (8, 5),
    "W4 threads": (2, 2),
}  # fmt: skip
WORK: dict[str, Callable[[Engine], float]] = {
    "W1": _work.w1,
    "W2": lambda engine: _work.w2(engine, ids=False),
    "W2 with id": lambda engine: _work.w2(engine, ids=True),
    "W2c 50": _work.w2c,
    "W4 async": lambda engine: _work.w4(engine, _work.map_async),
    "W4 threads": lambda engine: _work.w4(engine, _work.map_threads),
}


def rows(url: Callable[[str], str], limit: Callable[[], float], column: int) -> Iterator[tuple[str, ...]]:
    """Each workload on a store of its own, beside the limit right before and after it."""
    for name, work in WORK.items():
        before = limit()
        engine = Engine(url(name.replace(" ", "_").lower()))
        rate = work(engine)
        engine.stop()
        most = (before + limit()) / 2
        goal = GOALS[name][column]
        yield name, f"{rate:,.0f}/s", f"{most:,.0f}/s", f"{rate / most:.2f}", f"{goal:g}", _mark(rate / most >= goal)


def _mark(reached: bool) -> str:
    return "yes" if reached else "no"


def replay(url: str) -> tuple[str, ...]:
    """W3."""
    engine = Engine(url)
    taken = _work.w3(engine)
    engine.stop()
    return "W3", f"{taken:.1f} µs/step", "", "", "3 µs", _mark(taken <= 3)


def table(title: str, body: list[tuple[str, ...]]) -> str:
    """Markdown."""
    names = "| workload | measured | one-row limit | ratio | goal | reached |\n"
    head = f"## {title}\n\n{names}{'| --- ' * 6}|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in body)


def bytes_per_step(folder: Path) -> tuple[str, ...]:
    """W6 on SQLite: growth of the file by 5,000 steps."""
    path = folder / "w6.db"
    engine = Engine(f"sqlite:///{path}")
    engine.run(_work.steps, {"n": 20})
    engine.stop()
    before = path.stat().st_size
    engine = Engine(f"sqlite:///{path}")
    engine.run(_work.steps, {"n": 5000})
    engine.stop()
    size = (path.stat().st_size - before) / 5000
    return "W6", f"{size:.0f} bytes/step", "", "", "150", _mark(size <= 150)


def main() -> None:
    """Measure and print; with ``--write`` also into bench/RESULTS.md."""
    parts: list[str] = []
    with tempfile.TemporaryDirectory() as place, PostgresServer() as server:
        folder = Path(place)
        found: list[Any] = list(rows(lambda n: f"sqlite:///{folder}/{n}.db", lambda: _limits.sqlite_rate(folder), 0))
        found += [replay(f"sqlite:///{folder}/w3.db"), bytes_per_step(folder)]
        parts.append(table(f"SQLite (append and fdatasync: {_limits.fsync_rate(folder):,.0f}/s)", found))
        limit = server.database("limits")
        found = list(rows(server.database, lambda: _limits.postgres_rate(limit), 1))
        parts.append(table("PostgreSQL", [*found, replay(server.database("w3"))]))
    start = _work.w5()
    parts.append(f"W5: `from stepwell import durable_execution, run, StepConfig` costs {start:.0f} ms (goal 60 ms).\n")
    versions = f"Stepwell {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    machine = f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}"
    text = f"# Results\n\n{datetime.now(UTC):%Y-%m-%d}, {machine}, {versions}.\n\n" + "\n".join(parts)
    print(text)
    if "--write" in sys.argv:
        path = Path(__file__).with_name("RESULTS.md")
        notes = path.read_text().partition("## Notes")[2] if path.exists() else ""
        path.write_text(text + (f"\n## Notes{notes}" if notes else ""))


if __name__ == "__main__":
    main()
