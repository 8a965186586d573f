"""Retention in an SQLite store: many runs in one small transaction, or one long run in many (ENGINE.md §11)."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from stepwell.journal._api import RUN_DOOR, GcResult
from stepwell.journal._sqlite_catalogue import condition_for
from stepwell.journal._sqlite_schema import record_range

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from stepwell.journal._api import RunFilter
    from stepwell.journal._sqlite_file import SqliteFile

BLOB_REST = 86_400 * 1_000_000
"""Microseconds for which a blob must have been untouched before it may be taken away."""
SLICE_SECONDS = 0.05
"""Longest time in a transaction, as far as single statements allow."""
PAGE = 200
"""Runs that are looked at, and blobs, in one query."""
CHUNKS_AT_ONCE = 16


class Collecting:
    """A part of `SqliteStore`. Each step of `gc` is called under the writer's mutex."""

    file: SqliteFile
    sql: Mapping[str, str]

    def now(self) -> int:
        """The store's time."""
        raise NotImplementedError

    def gc(self, ended: RunFilter, *, dry_run: bool, max_rows: int = 5000) -> Iterator[GcResult]:
        """Take away ended runs that match, children with their parents, then blobs that nobody refers to."""
        collection = _Collection(self.file, self.sql, max_rows)
        oldest = self.now() - BLOB_REST
        if dry_run:
            yield from collection.count(ended, oldest)
        else:
            yield from collection.sweep()  # what an earlier one left when it was broken off
            yield from collection.take(ended)
            yield from collection.take_blobs(oldest)
        yield collection.so_far()


class _Budget:
    """What is left of one transaction."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._end = time.monotonic() + SLICE_SECONDS

    @property
    def spent(self) -> bool:
        return self.rows <= 0 or time.monotonic() > self._end


class _Collection:
    """One going over the store."""

    def __init__(self, file: SqliteFile, sql: Mapping[str, str], max_rows: int) -> None:
        self.file = file
        self.sql = sql
        self.max_rows = max_rows
        self.total = GcResult()

    def so_far(self) -> GcResult:
        """The counts, as they will stay."""
        total = self.total
        return GcResult(total.runs, total.rows, total.blobs, total.bytes)

    def _families(self, ended: RunFilter) -> Iterator[list[int]]:
        """Rids of a root that matches and of its descendants, where all of them have ended."""
        condition, values = condition_for(self.sql, ended)
        sql = self.sql["gc_roots"].replace("{where}", condition)
        after = 0
        while roots := self.file.read(sql, {**values, "after": after, "limit": PAGE}):
            after = roots[-1][0]
            for rid, _ in roots:
                family = self.file.read(self.sql["gc_family"], {"rid": rid})
                if family and not any(is_open for _, is_open in family):
                    yield [member for member, _ in family]

    # -- runs

    def take(self, ended: RunFilter) -> Iterator[GcResult]:
        """Runs: those that fit are detached and emptied in one transaction."""
        waiting: list[int] = []
        for family in self._families(ended):
            waiting.append(family[0])
            if len(waiting) == PAGE:
                yield from self._take_roots(waiting)
        yield from self._take_roots(waiting)

    def _take_roots(self, roots: list[int]) -> Iterator[GcResult]:
        roots.reverse()
        while roots:
            runs, rows, size, done, used = self.file.writing(lambda write, again: self._slice(write, roots))
            del roots[len(roots) - used :]
            self.total.runs += runs
            self.total.rows += rows
            self.total.bytes += size
            yield self.so_far()
            if not done:
                yield from self.sweep()

    def _slice(self, write: sqlite3.Connection, roots: list[int]) -> tuple[int, int, int, bool, int]:
        """One transaction: counts of runs, rows and bytes, whether nothing is left over, and how many roots it did."""
        budget, runs, rows, size, used, done = _Budget(self.max_rows), 0, 0, 0, 0, True
        for root in reversed(roots):
            if budget.spent:
                break
            used += 1
            family = write.execute(self.sql["gc_family"], {"rid": root}).fetchall()
            if any(is_open for _, is_open in family):
                continue  # opened again since it was chosen
            for rid, _ in family:
                write.execute(self.sql["gc_remember"], (rid,))
                runs += 1
            for rid, _ in family:
                sizes, emptied = self._empty(write, rid, budget)
                rows, size, done = rows + len(sizes), size + sum(sizes), done and emptied
        return runs, rows, size, done, used

    def sweep(self) -> Iterator[GcResult]:
        """Rows of runs that nobody can open again already."""
        while self.file.read(self.sql["gc_left"], (1,)):
            sizes = self.file.writing(lambda write, again: self._sweep_slice(write))
            self.total.rows += len(sizes)
            self.total.bytes += sum(sizes)
            yield self.so_far()

    def _sweep_slice(self, write: sqlite3.Connection) -> list[int]:
        budget, found = _Budget(self.max_rows), list[int]()
        for (rid,) in write.execute(self.sql["gc_left"], (PAGE,)).fetchall():
            if budget.spent:
                break
            found += self._empty(write, rid, budget)[0]
        return found

    def _empty(self, write: sqlite3.Connection, rid: int, budget: _Budget) -> tuple[list[int], bool]:
        """Delete rows of a run within the budget: their sizes, and whether none is left."""
        if not self._detach(write, rid, budget):
            return [], False
        low, high = record_range(rid)
        values: dict[str, Any] = {"rid": rid, "low": low, "high": high}
        sizes: list[int] = []
        for name in ("gc_records", "gc_notes", "gc_facts"):
            if budget.rows <= 0:
                return sizes, False
            values["limit"] = limit = budget.rows
            found = [row[0] for row in write.execute(self.sql[name], values).fetchall()]
            budget.rows -= len(found)
            sizes += found
            if len(found) == limit:
                return sizes, False  # there may be more
        for name in ("gc_signals", "gc_published", "gc_blob_refs", "gc_forget"):
            write.execute(self.sql[name], (rid,))
        return sizes, True

    def _detach(self, write: sqlite3.Connection, rid: int, budget: _Budget) -> bool:
        """Take a run out of the catalogue, once nothing of the doors is known by its id any more; whether it is out.

        These rows go first: behind a run of the same id that starts later they would be taken for that one's.
        """
        found = write.execute(self.sql["gc_catalogued"], (rid,)).fetchone()
        if found is None:
            return True
        limit = budget.rows
        if limit <= 0:
            return False
        values = {"door": RUN_DOOR, "low": f"{found[0]}/", "high": f"{found[0]}0", "limit": limit}  # 0 comes after /
        gone = write.execute(self.sql["gc_door_rows"], values).rowcount
        budget.rows -= gone
        if gone == limit:
            return False  # there may be more
        write.execute(self.sql["gc_detach"], (rid,))
        return True

    # -- blobs

    def take_blobs(self, oldest: int) -> Iterator[GcResult]:
        """Blobs that rest and that nobody refers to."""
        for digest, size in self._resting(oldest):
            if self.file.read(self.sql["gc_blob_users"], (digest,)):
                continue
            if self._detach_blob({"hash": digest, "oldest": oldest}):
                self.total.blobs += size >= 0
                self.total.bytes += max(size, 0)
                yield from self._cut(digest)
        while left := self.file.read(self.sql["gc_chunks_left"], {"limit": PAGE}):
            for (digest,) in left:
                yield from self._cut(digest)

    def _detach_blob(self, values: dict[str, Any]) -> bool:
        return self.file.writing(lambda write, again: write.execute(self.sql["gc_blob"], values).rowcount == 1)

    def _resting(self, oldest: int) -> Iterator[tuple[bytes, int]]:
        after = b""
        while page := self.file.read(self.sql["gc_blobs"], {"after": after, "oldest": oldest, "limit": PAGE}):
            after = page[-1][0]
            yield from page

    def _cut(self, digest: bytes) -> Iterator[GcResult]:
        """Delete the chunks of a blob whose row is gone."""
        values = {"hash": digest, "limit": CHUNKS_AT_ONCE}
        while self.file.writing(lambda write, again: write.execute(self.sql["gc_chunks"], values).rowcount):
            yield self.so_far()

    # -- counting only

    def count(self, ended: RunFilter, oldest: int) -> Iterator[GcResult]:
        """What would be taken."""
        doomed = array("q")
        for family in self._families(ended):
            for rid in family:
                low, high = record_range(rid)
                rows = self.file.read(self.sql["gc_count"], {"rid": rid, "low": low, "high": high})
                self.total.rows += rows[0][0]
                self.total.bytes += rows[0][1]
            doomed.extend(family)
            self.total.runs += len(family)
            yield self.so_far()
        doomed = array("q", sorted(doomed))
        for digest, size in self._resting(oldest):
            users = self.file.read(self.sql["gc_blob_users"], (digest,))
            if size >= 0 and all(_is_in(doomed, rid) for (rid,) in users):
                self.total.blobs += 1
                self.total.bytes += size


def _is_in(numbers: array[int], number: int) -> bool:
    place = bisect_left(numbers, number)
    return place < len(numbers) and numbers[place] == number
