"""Exactly once in another database: a row in its ``stepwell_once`` says that the step is done (ENGINE.md §10).

The row goes in *first*: a second attempt, or a zombie of a lost life, blocks on it or loses. Its key is (run, op) and
not the attempt, or an abandoned first attempt could commit after the second. Changing the table breaks the promise for
every step that is under way.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.runtime._api import Attempt, Body

_TABLE = (
    "CREATE TABLE IF NOT EXISTS stepwell_once "
    "(run TEXT NOT NULL, op TEXT NOT NULL, attempt INTEGER NOT NULL, result TEXT, PRIMARY KEY (run, op))"
)
_ENDING = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"})
BUSY_MS = 60_000


def call_in_other_database(attempt: Attempt, body: Body, run: Callable[[], Any]) -> Any:
    """Run the body in a transaction of the user's database; the value of the attempt that committed there."""
    run_id, op = attempt.scope.life.run.id, attempt.key
    with _opened(body.transactional) as database:
        known = database.result(run_id, op)
        if known is not None:
            return body.codec.decode(known, op)
        database.begin()
        try:
            known = database.insert(run_id, op, attempt.attempt)
            if known is not None:
                return body.codec.decode(known, op)
            attempt.connection = Guarded(database.connection)
            text = body.codec.encode(run(), attempt.name or "result")
            attempt.scope.life.usable(attempt.scope.branch)  # no commit for a life that has lost its lease
            database.fill(run_id, op, text)
            database.connection.commit()
        except BaseException:
            database.connection.rollback()
            raise
    return body.codec.decode(text, op)


class Guarded:
    """A DB-API connection whose transaction is the step's: it cannot be ended from inside."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name in ("commit", "rollback", "close", "autocommit", "isolation_level", "transaction", "executescript"):
            message = f"a transactional step's connection has no {name}: the step commits or rolls back as a whole"
            raise UsageError(message)
        found = getattr(self._inner, name)
        if name in ("execute", "executemany"):
            return lambda sql, *args, **kwargs: found(allowed(sql), *args, **kwargs)
        if name == "cursor":
            return lambda *args, **kwargs: Guarded(found(*args, **kwargs))
        return found

    def __iter__(self) -> Any:
        return iter(self._inner)


def allowed(sql: Any) -> Any:
    """The statement, if it leaves the transaction alone. Raises `UsageError`."""
    for part in str(sql).split(";"):
        lines = [line for line in part.splitlines() if line.strip() and not line.strip().startswith("--")]
        words = " ".join(lines).split(None, 1)
        if words and words[0].upper() in _ENDING:
            message = f"{words[0].upper()} inside a transactional step: the step commits or rolls back as a whole"
            raise UsageError(message)
    return sql


class _Database:
    """One connection for one attempt."""

    mark = "%s"

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        if type(connection).__module__.startswith("sqlite3"):
            self.mark = "?"

    def _execute(self, sql: str, *values: Any) -> Any:
        cursor = self.connection.cursor()
        cursor.execute(sql.replace("?", self.mark), values)
        return cursor

    def begin(self) -> None:
        """Begin the step's transaction."""
        if self.mark == "?" and not self.connection.in_transaction:
            self._execute("BEGIN IMMEDIATE")

    def result(self, run: str, op: str) -> str | None:
        """The result on record, or None. Makes the table if need be."""
        self._execute(_TABLE)
        self.connection.commit()
        row = self._execute("SELECT result FROM stepwell_once WHERE run = ? AND op = ?", run, op).fetchone()
        self.connection.rollback()
        return None if row is None else str(row[0])

    def insert(self, run: str, op: str, attempt: int) -> str | None:
        """Put in the row; the result of whoever was first, if somebody was (it waits for one under way)."""
        cursor = self._execute(
            "INSERT INTO stepwell_once (run, op, attempt) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", run, op, attempt
        )
        if cursor.rowcount == 1:
            return None
        row = self._execute("SELECT result FROM stepwell_once WHERE run = ? AND op = ?", run, op).fetchone()
        return str(row[0])

    def fill(self, run: str, op: str, text: str) -> None:
        """Put the result into the row."""
        self._execute("UPDATE stepwell_once SET result = ? WHERE run = ? AND op = ?", text, run, op)


@contextmanager
def _opened(target: Any) -> Iterator[_Database]:
    if callable(target):
        connection = target()
        try:
            yield _Database(connection)
        finally:
            connection.close()
    elif str(target).startswith("sqlite:///"):
        from stepwell.journal._lock import FairLock

        path = Path(str(target).removeprefix("sqlite:///")).expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000)
        try:
            # Twelve loads side by side would starve one another on SQLite's own lock.
            with FairLock.for_path(path):
                yield _Database(connection)
        finally:
            connection.close()
    elif str(target).startswith(("postgresql://", "postgres://")):
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtra("postgres") from error
        with psycopg.connect(str(target)) as server:
            yield _Database(server)
    else:
        message = f"transactional={target!r}: True, sqlite:///…, postgresql://… or a function that connects"
        raise UsageError(message)
