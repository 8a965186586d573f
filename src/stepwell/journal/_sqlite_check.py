"""What `stepwell doctor` is told of an SQLite store."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.errors import Corrupt
from stepwell.journal._sqlite_file import WAL_LIMIT
from stepwell.journal._sqlite_gc import BLOB_REST
from stepwell.journal._sqlite_schema import schema_found
from stepwell.journal._sqlite_wait import NAP_LONG, NAP_SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stepwell.journal._sqlite_file import SqliteFile

_READ_MARKS = range(123, 128)
"""The bytes of ``-shm`` that readers lock (sqlite.org/walformat.html, "WAL Locks": WAL_READ_LOCK(0) to (4))."""


class Checking:
    """A part of `SqliteStore`. Thread-safe."""

    file: SqliteFile
    sql: Mapping[str, str]

    def now(self) -> int:
        """The store's time."""
        raise NotImplementedError

    def check(self) -> Iterator[str]:
        """Problems of the database itself, one line each."""
        file, sql = self.file, self.sql
        try:
            found = file.read(sql["check_integrity"])
        except Corrupt as error:
            yield f"{error}: {error.hint}"
            return
        for (line,) in found:
            if line != "ok":
                yield f"{file.path}: {line}"
        mode = file.read("pragma journal_mode")[0][0]
        if mode != "wal":
            yield f"{file.path}: its journal mode is {mode}, not wal: open it once for writing"
        for run_id, digest in file.read(sql["check_blobs_missing"]):
            yield f"run {run_id} refers to blob {digest.lower()}, which is not there"
        for (rid,) in file.read(sql["check_hot_without_run"]):
            yield f"{file.path}: run number {rid} is open and not in the catalogue, or ended there"
        for (run_id,) in file.read(sql["check_open_without_hot"]):
            yield f"run {run_id} is open in the catalogue, and nobody can take it up: its hot row is missing"
        idle, size = file.read(sql["check_blobs_idle"], {"oldest": self.now() - BLOB_REST})[0]
        if idle:
            yield f"{idle} large values that no run refers to hold {size:,} bytes: `stepwell gc` takes them away"
        if file.wal_bytes() > WAL_LIMIT:
            who = ", ".join(map(str, readers(file.path))) or "unknown here"
            yield f"{file.path}-wal has {file.wal_bytes():,} bytes: a reader keeps it from beginning anew (pid {who})"

    def facts(self) -> Mapping[str, str]:
        """Sizes, versions, and who stands in the way of whom."""
        file = self.file
        pages, page, free = (
            file.read(f"pragma {name}")[0][0] for name in ("page_count", "page_size", "freelist_count")
        )
        connection = file.reader_take()
        try:
            schema = schema_found(connection)
        finally:
            file.reader_give(connection)
        holder = None if file.lock is None else file.lock.holder()
        facts = {
            "store": file.path,
            "schema": str(schema),
            "sqlite": sqlite3.sqlite_version,
            "journal mode": str(file.read("pragma journal_mode")[0][0]),
            "size": f"{pages * page:,} bytes, {free * page:,} of them free",
            "wal": f"{file.wal_bytes():,} bytes",
            "waking": f"data_version, every {NAP_SHORT * 1000:g} to {NAP_LONG * 1000:g} ms",
            "write lock": holder or "free",
        }
        if who := readers(file.path):
            facts["reading now"] = ", ".join(f"pid {pid}" for pid in who)
        return facts


def readers(path: str) -> list[int]:
    """Pids of other processes that read the database in this moment, where the system tells it (Linux)."""
    try:
        inode = os.stat(f"{path}-shm").st_ino  # noqa: PTH116 - nothing is opened
        lines = Path("/proc/locks").read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []
    found = set()
    for line in lines:
        # 3: POSIX  ADVISORY  READ 4711 fe:00:1234 124 124
        fields = line.split()
        if len(fields) != 8 or fields[1] != "POSIX" or not fields[5].endswith(f":{inode}") or fields[7] == "EOF":
            continue
        if any(int(fields[6]) <= mark <= int(fields[7]) for mark in _READ_MARKS):
            found.add(int(fields[4]))
    return sorted(found - {os.getpid()})
