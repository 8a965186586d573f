"""Large values, and what retention takes away (ENGINE.md §11)."""

from __future__ import annotations

import time
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from stepwell.errors import JournalError
from stepwell.journal._api import RUN_DOOR, GcResult
from stepwell.journal._postgres_link import rows
from stepwell.journal._postgres_read import filter_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.journal._api import RunFilter
    from stepwell.journal._postgres_link import Link
    from stepwell.journal._postgres_read import ReadPool
    from stepwell.journal._postgres_schema import Sql

CHUNK = 1 << 20
KEPT = 64 << 20
"""Bytes of a blob that are kept until it is committed, so that a lost connection does not lose the source."""
SLICE = 0.05
"""Seconds that one transaction of a collection may take."""
ROOTS = 200
BLOBS = 50


class BlobWriter:
    """`Store.blob_put` on the write connection."""

    def __init__(self, link: Link, sql: Sql) -> None:
        self._link = link
        self._sql = sql

    def put(self, digest: bytes, chunks: Iterator[bytes]) -> None:
        """Store the blob whole, in one transaction, or touch the one that is there. A second writer of the same blob
        waits for the first: chunks of two writers, compressed by two versions of a library, never mix.
        """
        source = _Source(chunks)
        self._link.patiently(lambda _: self._put(digest, source))

    def _put(self, digest: bytes, source: _Source) -> None:
        link = self._link
        with link.transaction():
            begun = rows(link.run(self._sql.statement("blob_begin"), {"hash": digest}))
            if begun[0][0] != "t":
                return
            size = 0
            statement = self._sql.statement("blob_chunk")
            for i, chunk in enumerate(source.chunks(link.address.place)):
                link.run(statement, {"hash": digest, "i": i, "data": chunk})
                size += len(chunk)
            link.run(self._sql.statement("blob_finish"), {"hash": digest, "size": size})


class _Source:
    """An iterator of chunks that can be begun again while it is small."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._kept: list[bytes] = []
        self._size = 0

    def chunks(self, place: str) -> Iterator[bytes]:
        """Pieces of at most `CHUNK` bytes, from the beginning."""
        if self._size > KEPT:
            raise JournalError(f"PostgreSQL at {place} was lost while a large value was being written: write it again")
        for chunk in chain(self._kept[:], self._fresh()):
            for start in range(0, len(chunk), CHUNK):
                yield bytes(chunk[start : start + CHUNK])

    def _fresh(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._size += len(chunk)
            if self._size <= KEPT:
                self._kept.append(chunk)
            else:
                self._kept.clear()
            yield chunk


class Collector:
    """`Store.gc` on the write connection."""

    def __init__(self, link: Link, pool: ReadPool, sql: Sql) -> None:
        self._link = link
        self._pool = pool
        self._sql = sql
        self._total = GcResult()

    def _run(self, name: str, values: Mapping[str, Any]) -> list[tuple[str | None, ...]]:
        statement = self._sql.statement(name)
        return self._link.patiently(lambda _: rows(self._link.run(statement, values)))

    def _counts(self) -> GcResult:
        total = self._total
        return GcResult(total.runs, total.rows, total.blobs, total.bytes)

    def collect(self, ended: RunFilter, max_rows: int) -> Iterator[GcResult]:
        """Take away what may go; each step is one small transaction."""
        # What an earlier collection has begun comes first.
        yield from self._rows_of_gone(max_rows)
        for families in self._families(ended):
            for few in _together(families, max_rows):
                yield from self._detach(few, max_rows)
        yield from self._blobs()
        self._run("worker_sweep", {})
        yield self._counts()

    def _detach(self, families: list[list[int]], max_rows: int) -> Iterator[GcResult]:
        """Families that go at once, or one that is large and goes in pieces."""
        # Descendants first: a family that is broken off in the middle still has its root, by which it is found.
        rids = [rid for family in families for rid in reversed(family)]
        for start in range(0, len(rids), max_rows):
            detached = self._take(rids[start : start + max_rows], max_rows)
            if not detached:  # one of them was opened again: the others go without it
                if len(families) > 1:
                    for family in families:
                        yield from self._detach([family], max_rows)
                return
            self._total.runs += len(detached)
            yield self._counts()
            yield from self._rows_of_gone(max_rows)

    def count(self, ended: RunFilter) -> Iterator[GcResult]:
        """What `collect` would take."""
        gone: list[int] = []
        for family in chain.from_iterable(self._families(ended)):
            for rid in family:
                found, size = self._run("gc_sizes", {"rid": rid})[0]
                self._total.rows += int(found or 0)
                self._total.bytes += int(size or 0)
            self._total.runs += len(family)
            gone += family
            yield self._counts()
        found, size = self._run("blob_gone_count", {"rids": gone})[0]
        self._total.blobs += int(found or 0)
        self._total.bytes += int(size or 0)
        yield self._counts()

    def _families(self, ended: RunFilter) -> Iterator[list[list[int]]]:
        """Pages of runs that match and whose parent is not on record, each with all that descends from it, if all of
        that has ended.
        """
        values = filter_values(ended)
        if values is None:
            return
        text = self._sql.text("gc_root_columns", "run_from", "run_where", "gc_roots")
        after = 0
        while True:
            page = self._pool.query(text, values | {"after": after, "limit": ROOTS}, prepare=False)
            families: dict[str | None, list[int]] = {}
            still_open = set()
            for root, rid, is_open in self._run("gc_family", {"rids": [root for (root,) in page]}) if page else ():
                families.setdefault(root, []).append(int(rid or 0))
                if is_open != "f":
                    still_open.add(root)
            yield [family for root, family in families.items() if root not in still_open]
            if len(page) < ROOTS:
                return
            after = page[-1][0]

    def _take(self, rids: Sequence[int], max_rows: int) -> list[tuple[str | None, ...]]:
        """Take ended runs away so that nobody can open them again; none of them if one is open. A run with more rows of
        doors than ``max_rows`` stays in the catalogue until this was said often enough.
        """
        values = {"rids": list(rids), "door": RUN_DOOR, "limit": max_rows}
        group = [(self._sql.statement(name), values) for name in ("run_lock", "gc_detach")]
        return self._link.patiently(lambda _: rows(self._link.run_all(group)[1]))

    def _rows_of_gone(self, max_rows: int) -> Iterator[GcResult]:
        after = 0
        while found := self._run("gc_gone", {"after": after, "limit": min(ROOTS, max_rows)}):
            rids = [int(rid or 0) for rid, listed in found if listed != "t"]
            if not rids:  # those that are left are in the catalogue still: they have more rows of doors than one bite
                first = int(found[0][0] or 0)
                if not self._take([first], max_rows):
                    after = first  # another collection was quicker
                yield self._counts()
                continue
            for name in ("gc_records", "gc_notes", "gc_inbox"):
                limit = max_rows
                while True:
                    began = time.monotonic()
                    count, size = (int(value or 0) for value in self._run(name, {"rids": rids, "limit": limit})[0])
                    took = time.monotonic() - began
                    if count:
                        self._total.rows += count
                        self._total.bytes += size
                        yield self._counts()
                    if count < limit:
                        break
                    # Slow disks get smaller bites.
                    limit = max(min(max_rows, 100), limit // 2) if took > SLICE else min(max_rows, limit * 2)
            self._run("gc_rest", {"rids": rids})

    def _blobs(self) -> Iterator[GcResult]:
        after = b""
        while True:
            page = partial(self._blob_page, after)
            candidates, taken = self._link.patiently(page)
            if not candidates:
                return
            after = candidates[-1]
            self._total.blobs += len(taken)
            self._total.bytes += sum(taken)
            yield self._counts()

    def _blob_page(self, after: bytes, _again: bool) -> tuple[Sequence[bytes], Sequence[int]]:
        link = self._link
        with link.transaction():
            locked = link.run(self._sql.statement("blob_gone_lock"), {"hash": after, "limit": BLOBS})
            candidates = [_bytea(value) for (value,) in rows(locked)]
            if not candidates:
                return [], []
            gone = rows(link.run(self._sql.statement("blob_gone"), {"blobs": candidates}))
        return candidates, [int(size or 0) for (size,) in gone]


def _together(families: list[list[int]], most: int) -> Iterator[list[list[int]]]:
    """Families that come to at most so many runs; one that is larger goes alone."""
    few: list[list[int]] = []
    size = 0
    for family in families:
        if few and size + len(family) > most:
            yield few
            few, size = [], 0
        few.append(family)
        size += len(family)
    if few:
        yield few


def _bytea(text: str | None) -> bytes:
    return bytes.fromhex((text or "").removeprefix("\\x"))
