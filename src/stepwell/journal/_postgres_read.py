"""Reading: a few connections of their own, so that no reader waits for the writer or for a long list."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg

from stepwell.errors import Corrupt, JournalError
from stepwell.journal._api import Entry, Fact, HotRow, Note, RunRow
from stepwell.journal._postgres_batch import possible
from stepwell.journal._postgres_link import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.journal._api import RunFilter
    from stepwell.journal._postgres_address import Address
    from stepwell.journal._postgres_link import Mode
    from stepwell.journal._postgres_schema import Sql

CONNECTIONS = 4
"""Most readers at a time; the others wait for one of them."""
_OPEN = frozenset({"pending", "running", "waiting", "interrupted", "blocked", "rolling_back"})


class ReadPool:
    """Connections for single statements that write nothing. Thread-safe."""

    def __init__(self, address: Address, mode: Mode) -> None:
        self._address = address
        self._mode = mode
        self._free = threading.Semaphore(CONNECTIONS)
        self._lock = threading.Lock()
        self._idle: list[psycopg.Connection[Any]] = []
        self._closed = False
        self._pid = os.getpid()

    def query(self, text: str, values: Mapping[str, Any], *, prepare: bool = True) -> list[Any]:
        """The rows. A connection that is lost is made anew for a while: a read can be done again.

        Raises:
            JournalError: the server cannot be reached or refuses.
        """
        deadline: float | None = None
        pause = 0.02
        while True:
            try:
                with self._connection() as connection:
                    cursor = connection.cursor(binary=True)
                    wanted = prepare and self._mode.prepared
                    # What runs often is prepared at its second use or so; other plans are made for their values.
                    cursor.execute(text, values, prepare=None if wanted else False)
                    return cursor.fetchall()
            except psycopg.OperationalError as error:
                if error.sqlstate is not None and not error.sqlstate.startswith(("57P", "08")):
                    raise self._refusal(error) from error
                deadline = deadline or time.monotonic() + PATIENCE
                if time.monotonic() + pause > deadline:
                    raise self._address.unusable(error) from error
            except psycopg.errors.InvalidSqlStatementName:
                self._mode.prepared = False  # behind a pooler that we did not notice
                continue
            except psycopg.Error as error:
                raise self._refusal(error) from error
            time.sleep(pause)
            pause = min(1.0, pause * 2)

    def _refusal(self, error: psycopg.Error) -> JournalError:
        from stepwell.journal._postgres_address import reason_of

        return JournalError(
            f"PostgreSQL at {self._address.place} refused to read: {reason_of(error)} ({error.sqlstate or 'no code'}): "
            f"check the tables in schema {self._address.schema} and this role's rights to them"
        )

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        if self._pid != os.getpid():
            raise JournalError(
                f"PostgreSQL at {self._address.place} was opened before this process was forked: open it again"
            )
        with self._free:
            with self._lock:
                if self._closed:
                    raise JournalError(f"the store at {self._address.place} is closed: open it again to go on")
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._address.connect(name="read")
                if self._mode.prepared:
                    connection.prepare_threshold = 2
            sound = False
            try:
                yield connection
                sound = True
            finally:
                self._give_back(connection, sound=sound)

    def _give_back(self, connection: psycopg.Connection[Any], *, sound: bool) -> None:
        with self._lock:
            if sound and not self._closed and not connection.closed and self._mode.prepared == _prepares(connection):
                self._idle.append(connection)
                return
        with suppress(Exception):
            connection.close()

    def close(self) -> None:
        """Close what is idle, and the others when they come back. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(Exception):
                connection.close()


def _prepares(connection: psycopg.Connection[Any]) -> bool:
    return connection.prepare_threshold is not None


class Reader:
    """The reading half of `Store`."""

    def __init__(self, pool: ReadPool, sql: Sql) -> None:
        self._pool = pool
        self._texts: dict[tuple[str, ...], str] = {}
        self._sql = sql

    def _query(self, names: tuple[str, ...], values: Mapping[str, Any], *, prepare: bool = True) -> list[Any]:
        text = self._texts.get(names)
        if text is None:
            text = self._texts[names] = self._sql.text(*names)
        return self._pool.query(text, values, prepare=prepare)

    # -- hot rows

    def hot_get(self, run_id: str) -> HotRow | None:
        """The hot row, or None if the run is not open."""
        if not possible(run_id):
            return None
        found = self._query(("hot_columns", "hot_get"), {"id": run_id})
        return HotRow(*found[0]) if found else None

    def hot_due(
        self, *, now: int, queues: Sequence[str] | None, functions: Sequence[str] | None,
        silent: Mapping[str, float], limit: int,
    ) -> list[HotRow]:  # fmt: skip
        """Open runs that somebody should take, the longest due first."""
        values: dict[str, Any] = {
            "now": now, "queues": _texts(queues), "functions": _texts(functions), "limit": limit,
        }  # fmt: skip
        due = [HotRow(*row) for row in self._query(("hot_columns", "hot_due"), values)]
        quiet = {worker: seconds for worker, seconds in silent.items() if seconds > 0}
        if quiet:
            values.update(workers=list(quiet), seconds=list(quiet.values()))
            due += [HotRow(*row) for row in self._query(("hot_columns", "hot_orphaned"), values)]
            due.sort(key=lambda hot: (hot.wake_at or 0, hot.rid))
            del due[limit:]
        return due

    def hot_held(self, worker: str) -> list[tuple[int, int, int]]:
        """``(rid, epoch, inbox)`` of every run the worker holds."""
        return self._query(("hot_held",), {"worker": worker})

    def hot_next_wake(self, *, queues: Sequence[str] | None, functions: Sequence[str] | None) -> int | None:
        """The earliest wake time of a run with no owner."""
        found = self._query(("hot_next_wake",), {"queues": _texts(queues), "functions": _texts(functions)})
        return found[0][0] if found else None

    # -- a run's rows

    def inbox_load(self, rid: int) -> list[Fact]:
        """What waits, in order of arrival."""
        return [Fact(*row) for row in self._query(("inbox_load",), {"rid": rid})]

    def record_load(self, rid: int, after: int, limit: int | None) -> list[Entry]:
        """Rows of the run's journal in order of seq."""
        return [Entry(*row) for row in self._query(("record_load",), {"rid": rid, "after": after, "limit": limit})]

    def note_load(
        self, rid: int, *, kind: str | None, key: str | None, after: int, limit: int
    ) -> list[tuple[int, Note]]:
        """Notes in order of their number."""
        values = {"rid": rid, "kind": kind, "key": key, "after": after, "limit": limit}
        return [
            (n, Note(key, kind, at, data.decode("utf-8", "surrogatepass")))
            for n, key, kind, at, data in self._query(("note_load",), values, prepare=False)
        ]

    def blob_get(self, digest: bytes) -> bytes | None:
        """The blob, or None."""
        found = self._query(("blob_get",), {"hash": digest})
        if not found:
            return None
        data = b"".join(chunk for _, chunk in found if chunk is not None)
        if len(data) != found[0][0]:
            raise Corrupt(
                f"blob {digest.hex()} has {len(data)} bytes in its chunks and should have {found[0][0]}: restore the "
                "database from a backup"
            )
        return data

    def row_get(self, door: str, kind: str, key: str) -> bytes | None:
        """A door's own row."""
        if not possible(door + kind + key):
            return None
        found = self._query(("row_get",), {"door": door, "kind": kind, "key": key})
        return found[0][0] if found else None

    def row_list(self, door: str, kind: str, prefix: str) -> list[tuple[str, bytes]]:
        """A door's own rows whose key begins with ``prefix``."""
        if not possible(door + kind + prefix):
            return []
        values = {"door": door, "kind": kind, "prefix": _pattern(prefix) + "%"}
        return self._query(("row_list",), values, prepare=False)

    # -- the catalogue

    def run_get(self, run_id: str) -> RunRow | None:
        """The catalogue's row."""
        if not possible(run_id):
            return None
        found = self._query(("run_columns", "run_from", "run_get"), {"id": run_id})
        return _run_row(found[0]) if found else None

    def run_list(self, where: RunFilter, limit: int, before: int | None) -> list[RunRow]:
        """Newest first."""
        values = filter_values(where)
        if values is None:
            return []
        names = ("run_columns", _from(where), "run_where", "run_before")
        return [_run_row(row) for row in self._query(names, values | {"before": before, "limit": limit}, prepare=False)]

    def run_count(self, where: RunFilter) -> int:
        """How many."""
        values = filter_values(where)
        if values is None:
            return 0
        found: int = self._query(("run_counted", _from(where), "run_where"), values, prepare=False)[0][0]
        return found


def filter_values(where: RunFilter) -> dict[str, Any] | None:
    """A filter as parameters of ``run_where``; None if it asks for something that no row can have."""
    texts = (where.function, where.door, where.queue, where.tag, where.parent, where.id_prefix, where.text)
    if not possible("".join(text or "" for text in texts) + "".join(where.statuses)):
        return None
    return {
        "statuses": list(where.statuses) or None, "function": where.function, "door": where.door,
        "queue": where.queue, "tag": where.tag, "parent": where.parent,
        "id_prefix": None if where.id_prefix is None else _pattern(where.id_prefix) + "%",
        "text": None if where.text is None else f"%{_pattern(where.text)}%",
        "created_from": where.created_from, "created_to": where.created_to, "ended_before": where.ended_before,
    }  # fmt: skip


def _from(where: RunFilter) -> str:
    return "run_from_open" if where.statuses and _OPEN.issuperset(where.statuses) else "run_from"


def _run_row(row: Sequence[Any]) -> RunRow:
    columns = list(row)
    columns[9] = tuple(columns[9])
    return RunRow(*columns)


def _pattern(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _texts(values: Sequence[str] | None) -> list[str] | None:
    return None if values is None else list(values)
