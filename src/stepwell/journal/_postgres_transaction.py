"""A transaction of the store's own database, lent to a step's body (durable.md §5.6; ENGINE.md §3 and §7)."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
from psycopg import pq, sql

from stepwell.errors import Fenced, JournalError, UsageError
from stepwell.journal._api import MAX_ROW_BYTES
from stepwell.journal._postgres_address import reason_of
from stepwell.journal._postgres_batch import Single
from stepwell.journal._postgres_guard import forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.journal._api import Batch
    from stepwell.journal._postgres_address import Address
    from stepwell.journal._postgres_link import Link
    from stepwell.journal._postgres_schema import Sql
    from stepwell.journal._postgres_time import StoreTime
    from stepwell.journal._postgres_wire import Statement

IDLE_KEPT = 2
"""Connections that wait for the next transactional step."""


class StepCursor(psycopg.Cursor[Any]):
    """A cursor that begins and ends no transaction."""

    def execute(self, query: Any, *args: Any, **options: Any) -> StepCursor:
        """As psycopg's.

        Raises:
            UsageError: the statement would begin or end a transaction.
        """
        _check(self.connection, query)
        super().execute(query, *args, **options)
        return self

    def executemany(self, query: Any, *args: Any, **options: Any) -> None:
        """As psycopg's, under the same rule."""
        _check(self.connection, query)
        super().executemany(query, *args, **options)

    def stream(self, query: Any, *args: Any, **options: Any) -> Iterator[Any]:
        """As psycopg's, under the same rule."""
        _check(self.connection, query)
        return super().stream(query, *args, **options)


class StepConnection(psycopg.Connection[Any]):
    """A connection whose transaction is the engine's."""

    stopped = False
    """The body's time is up: it says nothing more."""

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(
            f"{what} is the engine's: the step's transaction is committed with its record when the body returns, and "
            "rolled back when it raises; connection.transaction() makes a savepoint"
        )

    def commit(self) -> None:
        """Refused."""
        self._refuse("commit()")

    def rollback(self) -> None:
        """Refused."""
        self._refuse("rollback()")

    def close(self) -> None:
        """Refused."""
        self._refuse("close()")

    def __enter__(self) -> NoReturn:
        self._refuse("`with connection:`")

    def set_autocommit(self, value: bool) -> None:
        """Refused."""
        self._refuse("autocommit")

    @property
    def autocommit(self) -> bool:
        """Off."""
        return bool(self._autocommit)

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._refuse("autocommit")

    def tpc_begin(self, xid: Any) -> None:
        """Refused."""
        self._refuse("tpc_begin()")

    def tpc_prepare(self) -> None:
        """Refused."""
        self._refuse("tpc_prepare()")

    def tpc_commit(self, xid: Any = None) -> None:
        """Refused."""
        self._refuse("tpc_commit()")

    def tpc_rollback(self, xid: Any = None) -> None:
        """Refused."""
        self._refuse("tpc_rollback()")


def _check(connection: Any, query: Any) -> None:
    if isinstance(connection, StepConnection) and connection.stopped:
        raise psycopg.errors.QueryCanceled("the step's time is up")
    if isinstance(query, sql.Composable):
        query = query.as_string(connection)
    text = query.decode("utf-8", "replace") if isinstance(query, bytes) else query
    # What is of another kind (templates) is found out at the commit at the latest.
    if isinstance(text, str) and (what := forbidden(text)) is not None:
        raise UsageError(f"{what} in a transactional step: its transaction is begun and ended by the engine")


class TransactionPool:
    """Connections for lent transactions; a few are kept."""

    def __init__(self, address: Address, link: Link, sql_texts: Sql, times: StoreTime) -> None:
        self.address = address
        self.link = link
        self.sql = sql_texts
        self.times = times
        self._lock = threading.Lock()
        self._idle: list[StepConnection] = []
        self._lent: set[StepConnection] = set()
        self._closed = False

    def begin(self) -> PostgresTransaction:
        """Begin one. A kept connection that the server has closed meanwhile is replaced.

        Raises:
            JournalError: the server cannot be reached.
        """
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            connection = kept
            try:
                connection = connection or self._connect()
                transaction = PostgresTransaction(self, connection)
            except psycopg.Error as error:
                if connection is not None:
                    discard(connection)
                if kept is None:
                    raise self.address.unusable(error) from error
            else:
                with self._lock:
                    self._lent.add(connection)
                return transaction

    def _connect(self) -> StepConnection:
        connection = self.address.connect(name="step", autocommit=False, cls=StepConnection)
        assert isinstance(connection, StepConnection)
        connection.cursor_factory = StepCursor
        return connection

    def give_back(self, connection: StepConnection, *, sound: bool) -> None:
        """Keep it for the next step, without anything that a body set in the session, if it is sound."""
        with self._lock:
            self._lent.discard(connection)
        if sound and not self.link.mode.pooled and _plainly(connection, b"discard all"):
            with self._lock:
                if len(self._idle) < IDLE_KEPT and not self._closed:
                    self._idle.append(connection)
                    return
        discard(connection)

    def close(self) -> None:
        """Close what is kept, and what is lent: nobody will commit it. Idempotent."""
        with self._lock:
            self._closed = True
            connections = [*self._idle, *self._lent]
            self._idle.clear()
            self._lent.clear()
        for connection in connections:
            discard(connection)


class PostgresTransaction:
    """`StoreTransaction`: BEGIN has been said."""

    def __init__(self, pool: TransactionPool, connection: StepConnection) -> None:
        self._pool = pool
        self._connection: StepConnection | None = connection
        self._lock = threading.Lock()
        self._stopped = False
        connection.stopped = False
        # Any statement begins the transaction; its number tells at the end whether it is still the same one.
        row = connection.execute("select txid_current(), pg_backend_pid()").fetchone()
        self._txid, self._pid = (0, 0) if row is None else (int(row[0]), int(row[1]))

    @property
    def connection(self) -> StepConnection:
        """The body's connection.

        Raises:
            UsageError: the transaction is over.
        """
        if self._connection is None:
            raise UsageError("the step's transaction is over: its connection cannot be used any more")
        return self._connection

    def commit(self, batch: Batch) -> JournalError | None:
        """Write the batch as the last statement, with its fence, and commit.

        Raises:
            UsageError: the body has ended the transaction, or left it failed; rolled back.
            psycopg.Error: a constraint that the body's rows break at the commit; rolled back.
            JournalError: it is certain that nothing was committed.
        """
        connection = self.connection
        try:
            self._check(connection)
            refused = self._write(connection, batch)
            if refused is not None:
                self.rollback()
                return refused
            return self._finish(connection, batch)
        except BaseException:
            self.rollback()
            raise

    def _check(self, connection: StepConnection) -> None:
        if self._stopped:
            raise JournalError("the step's time was up before its transaction was committed: it is rolled back")
        status = connection.info.transaction_status
        if status == pq.TransactionStatus.UNKNOWN:
            raise JournalError(
                f"the connection to PostgreSQL at {self._pool.address.place} was lost during the step: nothing of it "
                "is committed"
            )
        if status == pq.TransactionStatus.INERROR:
            raise UsageError(
                "a statement of the transactional step failed and the body went on: let the error out, or put the "
                "statement into `with connection.transaction():`"
            )
        answer = None
        if status == pq.TransactionStatus.INTRANS:
            answer = connection.pgconn.exec_(b"select txid_current()")
            if answer.status != pq.ExecStatus.TUPLES_OK:
                raise JournalError(self._lost(answer.error_message))
        if answer is None or int(answer.get_value(0, 0) or 0) != self._txid:
            raise UsageError(
                "the body of the transactional step ended its transaction: what it committed itself stays, the rest is "
                "rolled back; leave COMMIT and ROLLBACK to the engine"
            )

    def _write(self, connection: StepConnection, batch: Batch) -> JournalError | None:
        """Insert under the fence; what it says if the fence is closed."""
        lease = batch.lease
        if lease.rid is None or len(batch.data) > MAX_ROW_BYTES:
            return JournalError(
                f"records of run {lease.run_id} are too large ({len(batch.data)} bytes, more than {MAX_ROW_BYTES}): "
                "return less, or a reference to it"
            )
        before = batch.seq - 1 if batch.seq else 0
        single = Single(self._pool.sql, batch, before, self._pool.times.now())
        result = _run(connection.pgconn, single.statement, single.values)
        if result.status == pq.ExecStatus.TUPLES_OK:
            return None if result.ntuples else _fenced(batch)
        state = _state(result)
        if state == "23505":
            return _fenced(batch)
        raise JournalError(self._lost(result.error_message))

    def _finish(self, connection: StepConnection, batch: Batch) -> JournalError | None:
        if self._stopped:
            raise JournalError("the step's time was up before its transaction was committed: it is rolled back")
        pgconn = connection.pgconn
        try:
            result = pgconn.exec_(b"commit")
            state = _state(result)
        except psycopg.OperationalError:
            return self._probe(batch)
        if result.status == pq.ExecStatus.COMMAND_OK:
            if result.command_status != b"COMMIT":
                raise UsageError("the transaction of the step had failed before its end: it is rolled back")
            self._over(sound=True)
            return None
        if not state or state.startswith(("08", "57P")) or pgconn.status != pq.ConnStatus.OK:
            return self._probe(batch)
        # An answer: it is not committed. A deferred constraint is the body's own error.
        error = psycopg.errors.error_from_result(result)
        if state.startswith(("23", "P0")):
            raise error
        raise JournalError(self._lost(result.error_message)) from error

    def _probe(self, batch: Batch) -> JournalError | None:
        """COMMIT was said and nobody answered: *insert* the row on another connection, which waits for whoever is
        writing it, and take that back. A conflict with our own row: committed; none: it is certain that it is not.
        """
        self._over(sound=False)
        from stepwell.journal._postgres_probe import row_committed

        committed = row_committed(self._pool.link, self._pool.sql, batch, pid=self._pid, txid=self._txid)
        if committed is None:
            raise JournalError(
                f"PostgreSQL at {self._pool.address.place} was lost while the step's transaction was committed: "
                "nothing of it is there"
            )
        return None if committed else _fenced(batch)

    def _lost(self, message: bytes) -> str:
        reason = reason_of(message.decode("utf-8", "replace"))
        return f"PostgreSQL at {self._pool.address.place} did not commit the step's transaction: {reason}"

    def rollback(self) -> None:
        """Give everything up. Idempotent."""
        connection = self._connection
        if connection is None:
            return
        self._over(sound=_plainly(connection, b"rollback"))

    def interrupt(self) -> None:
        """From another thread: what runs on the connection fails, and the body can say nothing more there."""
        with self._lock:
            connection = self._connection
            self._stopped = True
            if connection is not None:
                connection.stopped = True
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=5)

    def _over(self, *, sound: bool) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is None:
            return
        # A cancel that is still under way must not hit the next step on this connection.
        self._pool.give_back(connection, sound=sound and not self._stopped)


def _fenced(batch: Batch) -> Fenced:
    lease = batch.lease
    return Fenced(f"run {lease.run_id} is not held by life {lease.epoch} of {lease.worker}: nothing was committed")


def _state(result: Any) -> str:
    return (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()


def _run(pgconn: Any, statement: Statement, values: Any) -> Any:
    return pgconn.exec_params(statement.sql, statement.bind(values), statement.types, statement.formats)


def _plainly(connection: StepConnection, command: bytes) -> bool:
    """Say it past the guard; whether it was done."""
    try:
        return bool(connection.pgconn.exec_(command).status == pq.ExecStatus.COMMAND_OK)
    except psycopg.Error:
        return False


def discard(connection: StepConnection) -> None:
    """Close it past the guard."""
    with suppress(Exception):
        psycopg.Connection.close(connection)
