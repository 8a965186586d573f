"""Reading an SQLite store: each answer is fetched whole, so that no read transaction outlives a call."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stepwell.journal._api import Entry, Fact, HotRow, Note, RunFilter, RunRow

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from stepwell.journal._sqlite_file import SqliteFile

_NAP_SHORT, _NAP_LONG = 0.002, 0.05


class Reading:
    """The reading part of `SqliteStore`."""

    file: SqliteFile
    sql: Mapping[str, str]
    _changed: threading.Condition
    _version: int

    def _start_reading(self) -> None:
        self._seen_data = -1

    def hot_get(self, run_id: str) -> HotRow | None:
        """The hot row, or None if the run is not open."""
        rows = self._hot("where run.id = ?", (run_id,))
        return rows[0] if rows else None

    def _hot(self, where: str, values: tuple[Any, ...]) -> list[HotRow]:
        return [HotRow(*row) for row in self.file.read(f"{self.sql['hot_columns']} {where}", values)]  # type: ignore[arg-type]

    def hot_due(
        self,
        *,
        now: int,
        queues: Sequence[str] | None,
        functions: Sequence[str] | None,
        silent: Mapping[str, float],
        limit: int,
    ) -> list[HotRow]:
        """Open runs that somebody should take."""
        more, values = _among(queues, functions)
        due = self._hot(f"where hot.due_at <= ?{more} order by hot.due_at, hot.rid limit ?", (now, *values, limit))
        for worker, seconds in silent.items():
            if seconds > 0 and len(due) < limit:
                where = f"where hot.owner = ? and hot.status <> 'blocked' and hot.ttl <= ?{more} limit ?"
                ttl = min(seconds, 1e300)
                due += self._hot(where, (worker, ttl, *values, limit - len(due)))
        return due

    def hot_held(self, worker: str) -> list[tuple[int, int, int]]:
        """``(rid, epoch, inbox)`` of every run the worker holds."""
        return self.file.read("select rid, epoch, inbox from hot where owner = ?", (worker,))  # type: ignore[return-value]

    def hot_next_wake(self, *, queues: Sequence[str] | None, functions: Sequence[str] | None) -> int | None:
        """The earliest ``wake_at`` of a run with no owner."""
        more, values = _among(queues, functions)
        sql = f"select hot.due_at from hot where hot.due_at > 0{more} order by hot.due_at limit 1"
        rows = self.file.read(sql, values)
        return int(rows[0][0]) if rows else None  # type: ignore[call-overload]

    def inbox_load(self, rid: int) -> list[Fact]:
        """What waits, in order of arrival."""
        sql = "select n, kind, at, data from inbox where rid = ? order by n"
        return [Fact(*row) for row in self.file.read(sql, (rid,))]  # type: ignore[arg-type]

    def record_load(self, rid: int, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Rows of the run's journal in order of seq."""
        sql = "select seq, epoch, data from record where rid = ? and seq > ? order by seq limit ?"
        return [Entry(*row) for row in self.file.read(sql, (rid, after, -1 if limit is None else limit))]  # type: ignore[arg-type]

    def note_load(
        self, rid: int, *, kind: str | None, key: str | None, after: int, limit: int
    ) -> list[tuple[int, Note]]:
        """Notes in order of their number, from after ``after``."""
        sql = (
            "select n, key, kind, at, data from note where rid = ? and n > ? and (? is null or kind = ?) "
            "and (? is null or key = ?) order by n limit ?"
        )
        rows: Any = self.file.read(sql, (rid, after, kind, kind, key, key, limit))
        return [
            (n, Note(at_key, at_kind, at, data.decode("utf-8", "surrogatepass")))
            for n, at_key, at_kind, at, data in rows
        ]

    def row_get(self, door: str, kind: str, key: str) -> bytes | None:
        """A door's own row."""
        sql = "select data from door_row where door = ? and kind = ? and key = ?"
        rows: Any = self.file.read(sql, (door, kind, key))
        return rows[0][0] if rows else None

    def row_list(self, door: str, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """A door's own rows whose key begins with ``prefix``, in order of key."""
        sql = "select key, data from door_row where door = ? and kind = ? and key >= ? order by key"
        rows: Any = self.file.read(sql, (door, kind, prefix))
        return [(key, data) for key, data in rows if key.startswith(prefix)]

    def run_get(self, run_id: str) -> RunRow | None:
        """The catalogue's row."""
        rows: Any = self.file.read(f"{self.sql['run_columns']} where run.id = ?", (run_id,))
        return _run_row(rows[0]) if rows else None

    def run_list(self, where: RunFilter, *, limit: int, before: int | None = None) -> list[RunRow]:
        """Newest first."""
        condition, values = conditions(where)
        if before is not None:
            condition += " and run.rid < ?"
            values.append(before)
        sql = f"{self.sql['run_columns']} where {condition} order by run.rid desc limit ?"
        rows: Any = self.file.read(sql, (*values, limit))
        return [_run_row(row) for row in rows]

    def run_count(self, where: RunFilter) -> int:
        """How many."""
        condition, values = conditions(where)
        sql = f"select count(*) from run left join hot on hot.rid = run.rid where {condition}"
        rows: Any = self.file.read(sql, tuple(values))
        return int(rows[0][0])

    def wait(self, timeout: float) -> None:
        """Return when something may have changed, or after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        nap, seen = _NAP_SHORT, self._version
        data = self._data_version()
        while self._version == seen and self._data_version() == data:
            left = end - time.monotonic()
            if left <= 0:
                return
            with self._changed:
                if self._version == seen:
                    self._changed.wait(min(nap, left))
            nap = min(nap * 1.5, _NAP_LONG)

    def _data_version(self) -> int:
        rows: Any = self.file.read("pragma data_version")
        return int(rows[0][0])

    def poke(self) -> None:
        """Make every `wait` of this process return."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()


def _among(queues: Sequence[str] | None, functions: Sequence[str] | None) -> tuple[str, list[str]]:
    more, values = "", []
    for column, names in (("queue", queues), ("function", functions)):
        if names is not None:
            more += f" and hot.{column} in ({', '.join('?' * len(names))})"
            values += list(names)
    return more, values


def _run_row(row: tuple[Any, ...]) -> RunRow:
    tags = tuple(row[9].strip(",").split(",")) if row[9] else ()
    return RunRow(*row[:9], tags, *row[10:])  # type: ignore[call-arg]


def conditions(where: RunFilter) -> tuple[str, list[Any]]:
    """SQL for a filter."""
    parts, values = ["1 = 1"], list[Any]()
    if where.statuses:
        parts.append(f"coalesce(hot.status, run.status) in ({', '.join('?' * len(where.statuses))})")
        values += where.statuses
    exact = {"function": where.function, "door": where.door, "queue": where.queue, "parent": where.parent}
    for column, value in exact.items():
        if value is not None:
            parts.append(f"run.{column} = ?")
            values.append(value)
    if where.tag is not None:
        parts.append("instr(run.tags, ?) > 0")
        values.append(f",{where.tag},")
    if where.id_prefix is not None:
        parts.append("run.id >= ? and substr(run.id, 1, ?) = ?")
        values += [where.id_prefix, len(where.id_prefix), where.id_prefix]
    if where.text is not None:
        parts.append(
            "(instr(lower(run.id), ?) or instr(lower(run.function), ?) "
            "or instr(lower(coalesce(hot.reason, run.reason, '')), ?))"
        )
        values += [where.text.lower()] * 3
    bounds = (("created_at >= ?", where.created_from), ("created_at < ?", where.created_to))
    for text, bound in (*bounds, ("ended_at < ?", where.ended_before)):
        if bound is not None:
            parts.append(f"run.{text}")
            values.append(bound)
    return " and ".join(parts), values
