"""Keeping an SQLite store: large values, retention, checks (ENGINE.md §11)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stepwell.journal._api import GcResult
from stepwell.journal._sql import SCHEMA
from stepwell.journal._sqlite_read import conditions

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from stepwell.journal._api import RunFilter
    from stepwell.journal._sqlite_file import SqliteFile

BLOB_REST = 86_400 * 1_000_000
"""Microseconds that a blob must have been untouched before it may be taken away."""
SLICE_SECONDS = 0.05


class Keeping:
    """The keeping part of `SqliteStore`."""

    file: SqliteFile
    path: str

    def now(self) -> int:
        """The store's time."""
        raise NotImplementedError

    def blob_put(self, digest: bytes, chunks: Iterator[bytes]) -> None:
        """Store a blob in chunks, or touch the one that is there."""
        touched: list[int] = []

        def touch(write: sqlite3.Connection) -> None:
            done = write.execute("update blob set touched_at = ? where hash = ?", (self.now(), digest)).rowcount
            touched.append(done)

        self.file.writing(touch)
        if touched[0]:
            return
        parts = [bytes(chunk) for chunk in chunks]
        for i, part in enumerate(parts):
            # Each chunk in a transaction of its own, ahead of the row that makes the blob exist.
            self.file.writing(
                lambda write, i=i, part=part: write.execute(  # type: ignore[misc]
                    "insert or replace into blob_chunk values (?, ?, ?)", (digest, i, part)
                )
            )
        size = sum(map(len, parts))
        self.file.writing(
            lambda write: write.execute("insert or replace into blob values (?, ?, ?)", (digest, size, self.now()))
        )

    def blob_get(self, digest: bytes) -> bytes | None:
        """The blob, or None."""
        if not self.file.read("select 1 from blob where hash = ?", (digest,)):
            return None
        rows: Any = self.file.read("select data from blob_chunk where hash = ? order by i", (digest,))
        return b"".join(row[0] for row in rows)

    def gc(self, ended: RunFilter, *, dry_run: bool, max_rows: int = 5000) -> Iterator[GcResult]:
        """Take away ended runs that match, children with their parents, then blobs that nobody refers to."""
        total = GcResult()
        if not dry_run:
            left: Any = self.file.read("select rid from gone")
            for (rid,) in left:  # a collection was broken off in the middle of these
                yield from self._sweep(total, rid, max_rows)
        doomed = self._doomed(ended)
        for rid in doomed:
            if dry_run:
                total.runs += 1
                self._count(total, rid)
            elif self._detach(rid):
                total.runs += 1
                yield from self._sweep(total, rid, max_rows)
            yield _copy(total)
        yield from self._blobs(total, set(doomed), dry_run=dry_run, max_rows=max_rows)

    def _doomed(self, ended: RunFilter) -> list[int]:
        """Ended roots that match with all their descendants, where all of these have ended."""
        condition, values = conditions(ended)
        sql = (
            f"select run.rid, run.id from run left join hot on hot.rid = run.rid where hot.rid is null and {condition} "
            "and (run.parent is null or not exists (select 1 from run as p where p.id = run.parent)) order by run.rid"
        )
        roots: Any = self.file.read(sql, tuple(values))
        doomed: list[int] = []
        for rid, run_id in roots:
            family, names, is_open = [rid], [run_id], False
            while names:
                rows: Any = self.file.read(
                    "select run.rid, run.id, hot.rid from run left join hot on hot.rid = run.rid where run.parent = ?",
                    (names.pop(),),
                )
                family += [row[0] for row in rows]
                names += [row[1] for row in rows]
                is_open = is_open or any(row[2] is not None for row in rows)
            if not is_open:
                doomed += family
        return doomed

    def _count(self, total: GcResult, rid: int) -> None:
        for table in ("record", "note", "inbox"):
            rows: Any = self.file.read(
                f"select count(*), coalesce(sum(length(cast(data as blob))), 0) from {table} where rid = ?", (rid,)
            )
            total.rows += rows[0][0]
            total.bytes += rows[0][1]

    def _detach(self, rid: int) -> bool:
        """Out of the catalogue first, so that nobody can open again what is half away."""
        done: list[int] = []

        def work(write: sqlite3.Connection) -> None:
            sql = "delete from run where rid = ? and not exists (select 1 from hot where hot.rid = run.rid)"
            done.append(write.execute(sql, (rid,)).rowcount)
            write.execute("insert or ignore into gone values (?)", (rid,))

        self.file.writing(work)
        return done[0] == 1

    def _sweep(self, total: GcResult, rid: int, max_rows: int) -> Iterator[GcResult]:
        for table, key in (("record", "seq"), ("note", "n"), ("inbox", "n")):
            while True:
                taken: list[int] = []

                def work(
                    write: sqlite3.Connection, table: str = table, key: str = key, taken: list[int] = taken
                ) -> None:
                    end = time.monotonic() + SLICE_SECONDS
                    sql = f"select {key}, length(cast(data as blob)) from {table} where rid = ? limit ?"
                    for number, size in write.execute(sql, (rid, max_rows)).fetchall():
                        write.execute(f"delete from {table} where rid = ? and {key} = ?", (rid, number))
                        taken.append(size)
                        if time.monotonic() > end:
                            break

                self.file.writing(work)
                total.rows += len(taken)
                total.bytes += sum(taken)
                if not taken:
                    break
                yield _copy(total)

        def last(write: sqlite3.Connection) -> None:
            for table in ("signal", "published", "blob_ref", "gone"):
                write.execute(f"delete from {table} where rid = ?", (rid,))

        self.file.writing(last)

    def _blobs(self, total: GcResult, gone: set[int], *, dry_run: bool, max_rows: int) -> Iterator[GcResult]:
        oldest = self.now() - BLOB_REST
        rows: Any = self.file.read("select hash, size from blob where touched_at <= ?", (oldest,))
        for digest, size in rows:
            used: Any = self.file.read("select rid from blob_ref where hash = ?", (digest,))
            if {row[0] for row in used} - gone:
                continue
            done = [1]
            if not dry_run:

                def work(write: sqlite3.Connection, digest: bytes = digest, done: list[int] = done) -> None:
                    sql = (
                        "delete from blob where hash = ? and touched_at <= ? "
                        "and not exists (select 1 from blob_ref where blob_ref.hash = blob.hash)"
                    )
                    done[0] = write.execute(sql, (digest, oldest)).rowcount
                    if done[0]:
                        write.execute("delete from blob_chunk where hash = ?", (digest,))

                self.file.writing(work)
            if done[0]:
                total.blobs += 1
                total.bytes += size
                yield _copy(total)
        yield _copy(total)

    def check(self) -> Iterator[str]:
        """Problems of the database itself, one line each."""
        rows: Any = self.file.read("pragma quick_check(10)")
        for row in rows:
            if row[0] != "ok":
                yield f"{self.path}: {row[0]}"
        orphans: Any = self.file.read(
            "select count(*) from blob_ref where not exists (select 1 from blob where blob.hash = blob_ref.hash)"
        )
        if orphans[0][0]:
            yield f"{self.path}: {orphans[0][0]} large values that runs refer to are missing"
        dead: Any = self.file.read(
            "select count(*) from hot where not exists (select 1 from run where run.rid = hot.rid)"
        )
        if dead[0][0]:
            yield f"{self.path}: {dead[0][0]} open runs are not in the catalogue"

    def facts(self) -> Mapping[str, str]:
        """For `doctor`."""
        import sqlite3

        pages: Any = self.file.read("pragma page_count")
        size: Any = self.file.read("pragma page_size")
        mode: Any = self.file.read("pragma journal_mode")
        return {
            "store": self.path,
            "schema": str(SCHEMA),
            "sqlite": sqlite3.sqlite_version,
            "journal mode": str(mode[0][0]),
            "size": f"{pages[0][0] * size[0][0]:,} bytes",
            "waking": "data_version, polled",
        }


def _copy(total: GcResult) -> GcResult:
    return GcResult(total.runs, total.rows, total.blobs, total.bytes)
