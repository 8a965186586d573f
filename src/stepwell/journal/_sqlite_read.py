"""Reading runs from an SQLite store: each answer is fetched whole, so that no read transaction outlives a call."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.journal._api import Entry, Fact, HotRow, Note
from stepwell.journal._sqlite_schema import MAX_SEQ, record_range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stepwell.journal._sqlite_file import SqliteFile


class Reading:
    """A part of `SqliteStore`. Thread-safe."""

    file: SqliteFile
    sql: Mapping[str, str]

    def hot_get(self, run_id: str) -> HotRow | None:
        """The hot row, or None if the run is not open."""
        rows = self.file.read(self.sql["hot_get"], {"id": run_id})
        return HotRow(*rows[0]) if rows else None

    def hot_due(
        self,
        *,
        now: int,
        queues: Sequence[str] | None,
        functions: Sequence[str] | None,
        silent: Mapping[str, float],
        limit: int,
    ) -> list[HotRow]:
        """Open runs that somebody should take, the longest due first."""
        found: list[tuple[Any, ...]] = []
        more = {"functions": _json(functions), "limit": limit}
        for queue in self._queues(queues):
            found += self.file.read(self.sql["hot_due"], {"queue": queue, "now": now, **more})
        for owner, seconds in silent.items():
            if seconds > 0:
                # A float that is no number of SQLite's (infinity) is longer than any ttl.
                values = {"owner": owner, "silent": min(seconds, sys.float_info.max), "queues": _json(queues), **more}
                found += self.file.read(self.sql["hot_orphaned"], values)
        rows = [HotRow(*row) for row in found]
        rows.sort(key=lambda row: (row.wake_at or 0, row.rid))
        return rows[:limit]

    def _queues(self, queues: Sequence[str] | None) -> Sequence[str]:
        if queues is None:
            return [row[0] for row in self.file.read(self.sql["hot_queues"])]
        return list(dict.fromkeys(queues))

    def hot_held(self, worker: str) -> list[tuple[int, int, int]]:
        """``(rid, epoch, inbox)`` of every run the worker holds."""
        return [(rid, epoch, inbox) for rid, epoch, inbox in self.file.read(self.sql["hot_held"], (worker,))]

    def hot_next_wake(self, *, queues: Sequence[str] | None, functions: Sequence[str] | None) -> int | None:
        """The earliest ``wake_at`` of a run with no owner."""
        more = {"functions": _json(functions)}
        rows = [
            row
            for queue in self._queues(queues)
            for row in self.file.read(self.sql["hot_next_wake"], {"queue": queue, **more})
        ]
        return min((row[0] for row in rows), default=None)

    def inbox_load(self, rid: int) -> list[Fact]:
        """What waits, in order of arrival."""
        return [Fact(*row) for row in self.file.read(self.sql["inbox_load"], (rid,))]

    def record_load(self, rid: int, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Rows of the run's journal in order of seq."""
        low, high = record_range(rid)
        values = (low + min(after, MAX_SEQ), high, -1 if limit is None else limit)
        return [Entry(*row) for row in self.file.read(self.sql["record_load"], values)]

    def note_load(
        self, rid: int, *, kind: str | None, key: str | None, after: int, limit: int
    ) -> list[tuple[int, Note]]:
        """Notes in order of their number, from after ``after``."""
        values = {"rid": rid, "after": after, "kind": kind, "key": key, "limit": limit}
        return [
            (n, Note(at_key, at_kind, at, data.decode("utf-8", "surrogatepass")))
            for n, at_key, at_kind, at, data in self.file.read(self.sql["note_load"], values)
        ]

    def row_get(self, door: str, kind: str, key: str) -> bytes | None:
        """A door's own row."""
        rows = self.file.read(self.sql["row_get"], (door, kind, key))
        return rows[0][0] if rows else None

    def row_list(self, door: str, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """A door's own rows whose key begins with ``prefix``, in order of key (by code point)."""
        values = {"door": door, "kind": kind, "prefix": prefix, "end": prefix_end(prefix)}
        return [(key, data) for key, data in self.file.read(self.sql["row_list"], values)]


def prefix_end(prefix: str) -> str | None:
    """The first text, by code point, behind all that begin with ``prefix``; None if there is none."""
    for length in range(len(prefix), 0, -1):
        last = ord(prefix[length - 1])
        if last < sys.maxunicode:
            following = 0xE000 if last == 0xD7FF else last + 1  # surrogates are no text
            return prefix[: length - 1] + chr(following)
    return None


def _json(names: Sequence[str] | None) -> str | None:
    return None if names is None else msgspec.json.encode(list(names)).decode()
