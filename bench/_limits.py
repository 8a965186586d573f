"""What the machine can do at best, measured in the same run as each workload."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from pathlib import Path

ROW = "insert into s values ('wf-1', ?, 'noop', ?, ?)"
TABLE = "create table s (wf text, n int, name text, out blob, ts real, primary key (wf, n)) without rowid"


def fsync_rate(folder: Path, seconds: float = 0.3) -> float:
    """Appends of 200 bytes with fdatasync, a second."""
    descriptor = os.open(folder / "append", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        os.write(descriptor, b"x" * 200)
        os.fdatasync(descriptor)
        count += 1
    os.close(descriptor)
    return count / seconds


def sqlite_rate(folder: Path, rows: int = 1000) -> float:
    """One-row transactions of plain sqlite3 (WAL, synchronous FULL), a second."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        connection = sqlite3.connect(f"{place}/x.db", isolation_level=None)
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute(TABLE)
        begun = time.perf_counter()
        for n in range(rows):
            connection.execute(ROW, (n, b'{"ok":true,"i":1}', 1.0))
        taken = time.perf_counter() - begun
        connection.close()
    return rows / taken


def postgres_rate(url: str, rows: int = 1000) -> float:
    """One-row autocommit inserts of psycopg, prepared, a second."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table if not exists lim (wf text, n int, name text, out bytea, ts float8)")
        sql = "insert into lim values ('wf-1', %s, 'noop', %s, %s)"
        for n in range(20):
            connection.execute(sql, (n, b"{}", 1.0), prepare=True)
        begun = time.perf_counter()
        for n in range(rows):
            connection.execute(sql, (n, b'{"ok":true,"i":1}', 1.0), prepare=True)
        return rows / (time.perf_counter() - begun)
