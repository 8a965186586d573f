"""One connection that the store writes on: it comes back when it is lost, and says what is not known then."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import pq

from stepwell.errors import JournalError
from stepwell.journal._postgres_address import reason_of
from stepwell.journal._postgres_wire import Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from stepwell.journal._postgres_address import Address
    from stepwell.journal._postgres_time import StoreTime

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds for which a lost connection is sought anew before the store gives up."""

OLDEST = 130000
"""The first version of PostgreSQL that the store is written for."""

TUPLES = int(pq.ExecStatus.TUPLES_OK)
COMMAND = int(pq.ExecStatus.COMMAND_OK)
_IDLE = int(pq.TransactionStatus.IDLE)
_SYNC = int(pq.ExecStatus.PIPELINE_SYNC)
_ABORTED = int(pq.ExecStatus.PIPELINE_ABORTED)

_GOING_AWAY = frozenset({"57P01", "57P02", "57P03", "57P05", "25006"})
"""Shutting down, starting up, idle too long; and read-only: a standby that is becoming, or was, the primary."""
_NOT_PREPARED = frozenset({"26000", "42P05"})
"""A prepared statement that is not there, or is there already: the server behind the connection was exchanged."""
_AGAIN = frozenset({"40001", "40P01"})

_HELLO = Statement(
    "hello",
    "select pg_backend_pid(), (extract(epoch from clock_timestamp()) * 1000000)::bigint, "
    "current_setting('default_transaction_isolation')",
)
# The compare-and-set updates need READ COMMITTED, whatever the role's default is. Plans are made once and go by index
# also while tables are small or unanalysed. A statement waits for another's lock, but not for ever.
_SESSION = (
    "set default_transaction_isolation = 'read committed'; set statement_timeout = 0; set lock_timeout = '30s'; "
    "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; set jit = off; "
    "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3"
)

# Not behind a pooler, where it would be said to a session of somebody else's.
_READ_ONLY = "set default_transaction_read_only = on"


class Refused(Exception):
    """The server refused a statement: nothing of its transaction is written. ``index``: which one of a group."""

    def __init__(self, sqlstate: str, reason: str, index: int = 0) -> None:
        super().__init__(reason)
        self.sqlstate = sqlstate
        self.reason = reason
        self.index = index


class Lost(Exception):
    """The connection is gone. What was under way on it may be written, or not."""

    committing = False
    """Of a transaction: COMMIT was sent. If not, nothing is written."""


class Mode:
    """What stands between us and the server, as it was found when the store was opened (ENGINE.md §7)."""

    def __init__(self, *, read_only: bool = False) -> None:
        self.read_only = read_only
        """The server refuses to write for us, too."""
        self.pooled = False
        """A pooler gives each transaction another server: nothing of a session survives, LISTEN included."""
        self.prepared = True
        self.reached = False
        """The server has answered once: from then on its absence is a time to wait, not a wrong URL."""


class Link:
    """A connection of one purpose, in autocommit. Thread-safe: one caller at a time."""

    def __init__(self, address: Address, times: StoreTime, mode: Mode, name: str) -> None:
        self.address = address
        self.mode = mode
        self.name = name
        self.opened = 0
        """How often it was connected."""
        self._times = times
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Any] | None = None
        self._pgconn: PGconn | None = None
        self._ready: set[bytes] = set()
        self._pid = os.getpid()
        self._closed = False
        self._inside = False

    # -- the connection

    def open(self) -> None:
        """Connect if it is not connected.

        Raises:
            JournalError: the store is closed, or was opened before this process was forked.
            psycopg.Error: there is no connection to be had.
        """
        self._check()
        if self._pgconn is not None:
            return
        connection = self.address.connect(name=self.name)
        try:
            self._connection, self._pgconn, self._ready = connection, connection.pgconn, set()
            asked = self._times.monotonic()
            pid, server, isolation = rows(self._execute(_HELLO, {}, prepared=False))[0]
            self._times.sample(int(server or 0), asked, self._times.monotonic())
            if not self.mode.reached:
                self._meet(connection.pgconn, int(pid or 0))
            if not self.mode.pooled:
                self.script(_SESSION)
                if self.mode.read_only:
                    self.address.session = _READ_ONLY  # said on each connection from here on
                    self.script(_READ_ONLY)
            elif isolation != "read committed":
                raise JournalError(
                    f"PostgreSQL at {self.address.place} has default_transaction_isolation = {isolation}: behind a "
                    f"pooler the store needs 'read committed': alter role … set default_transaction_isolation"
                )
        except BaseException:
            self.drop()
            raise
        self.opened += 1

    def _meet(self, pgconn: PGconn, pid: int) -> None:
        from stepwell.journal._postgres_pooler import session_survives

        if pgconn.server_version < OLDEST:
            raise JournalError(
                f"PostgreSQL at {self.address.place} is version {pgconn.server_version // 10000}: the store needs "
                f"{OLDEST // 10000} or newer"
            )
        # Who hands out another process number than the server's own answers in its place.
        if pid != pgconn.backend_pid and not session_survives(self.address, pgconn):
            self.mode.pooled = True
            self.mode.prepared = False
        self.mode.reached = True

    def drop(self) -> None:
        """Give the connection up; the next use makes another."""
        connection, self._connection, self._pgconn = self._connection, None, None
        if connection is not None and self._pid == os.getpid():
            with suppress(Exception):
                connection.close()

    def close(self) -> None:
        """Close for good. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            self.drop()

    @property
    def descriptor(self) -> int | None:
        """The socket, while connected."""
        return None if self._pgconn is None else self._pgconn.socket

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise JournalError(
                f"PostgreSQL at {self.address.place} was opened before this process was forked: open it again"
            )
        if self._closed:
            raise JournalError(f"the store at {self.address.place} is closed: open it again to go on")

    # -- with patience

    def patiently(self, work: Callable[[bool], T]) -> T:
        """``work(again)``, as often as the connection is lost meanwhile, for `PATIENCE` seconds. ``again``: it was
        tried before, and it is not known whether that is written.

        Raises:
            JournalError: the server cannot be reached, or refused the statement.
        """
        self._check()
        again = False
        deadline: float | None = None
        deadlocks = 0
        with self._lock:
            if self._pgconn is not None and not self._inside and self._pgconn.transaction_status != _IDLE:
                self.drop()  # an exception came between BEGIN and COMMIT: what follows would never be committed
            while True:
                try:
                    if self._pgconn is None:
                        self._reopen(deadline or time.monotonic() + PATIENCE)
                    return work(again)
                except Lost as lost:
                    self.drop()
                    again = True
                    deadline = deadline or time.monotonic() + PATIENCE
                    if time.monotonic() > deadline:
                        raise self.address.unusable(lost) from lost
                except Refused as refused:
                    if refused.sqlstate not in _AGAIN or deadlocks == 5:
                        raise self.failure(refused) from refused
                    deadlocks += 1

    def _reopen(self, deadline: float) -> None:
        pause = 0.02
        while True:
            try:
                return self.open()
            except (psycopg.Error, Lost, Refused) as error:
                if time.monotonic() + pause > deadline or not (self.mode.reached or _coming_up(error)):
                    raise self.address.unusable(error) from error
            time.sleep(pause)
            pause = min(1.0, pause * 2)

    def failure(self, refused: Refused) -> JournalError:
        """What a refusal that is nobody's own fault is to the caller."""
        place, state = self.address.place, refused.sqlstate
        advice = "see the server's log"
        if state == "42501":
            advice = f"grant this role the use of schema {self.address.schema} and its tables"
        elif state == "25006":
            advice = "the store was opened to read only"
        elif state in ("42P01", "3F000"):
            advice = f"the tables in schema {self.address.schema} are gone: open the store again to make them"
        elif state.startswith("53"):
            advice = "make room on the server, then resume"
        elif state == "55P03":
            advice = "somebody has held a lock for half a minute: see pg_locks and pg_stat_activity"
        return JournalError(f"PostgreSQL at {place} refused to write: {refused.reason} ({state}): {advice}")

    # -- statements; only within `patiently`

    def run(self, statement: Statement, values: Mapping[str, Any]) -> PGresult:
        """Run one statement in a transaction of its own.

        Raises:
            Refused: by the server.
            Lost: the connection is gone.
        """
        return self._execute(statement, values, prepared=self.mode.prepared)

    def _execute(self, statement: Statement, values: Mapping[str, Any], *, prepared: bool) -> PGresult:
        pgconn = self._pgconn
        if pgconn is None:
            raise Lost("not connected")
        bound = statement.bind(values)
        try:
            if not prepared:
                result = pgconn.exec_params(statement.sql, bound, statement.types, statement.formats)
            else:
                if statement.key not in self._ready:
                    self._prepare(pgconn, statement)
                # NULL is a None here as well, though psycopg's types do not say so.
                result = pgconn.exec_prepared(statement.key, bound, statement.formats)  # type: ignore[arg-type]
        except psycopg.OperationalError as error:
            raise Lost(reason_of(error)) from error
        if result.status in (TUPLES, COMMAND):
            return result
        refused = self._refusal(pgconn, result)
        if prepared and refused.sqlstate in _NOT_PREPARED:
            # Behind a pooler that we did not notice. Nothing has run.
            self.mode.prepared = False
            return self._execute(statement, values, prepared=False)
        raise refused

    def run_all(self, group: Sequence[tuple[Statement, Mapping[str, Any]]]) -> list[PGresult]:
        """Run statements in one transaction, with one trip: all of them, or none.

        Raises:
            Refused: by the server; ``index`` says which.
            Lost: the connection is gone.
        """
        pgconn = self._pgconn
        if pgconn is None:
            raise Lost("not connected")
        prepared = self.mode.prepared
        try:
            if prepared:
                for statement, _ in group:
                    if statement.key not in self._ready:
                        self._prepare(pgconn, statement)
            return self._pipeline(pgconn, group, prepared=prepared)
        except psycopg.OperationalError as error:
            raise Lost(reason_of(error)) from error
        except Refused as refused:
            if prepared and refused.sqlstate in _NOT_PREPARED:
                self.mode.prepared = False
                return self.run_all(group)
            raise

    def _pipeline(
        self, pgconn: PGconn, group: Sequence[tuple[Statement, Mapping[str, Any]]], *, prepared: bool
    ) -> list[PGresult]:
        # All statements up to the sync are one transaction, by the protocol: no BEGIN, no COMMIT, no trip for them.
        bound = [(statement, statement.bind(values)) for statement, values in group]
        results: list[PGresult] = []
        failed: Refused | None = None
        whole = False
        try:
            pgconn.enter_pipeline_mode()
            for statement, parameters in bound:
                if prepared:
                    pgconn.send_query_prepared(statement.key, parameters, statement.formats)
                else:
                    pgconn.send_query_params(statement.sql, parameters, statement.types, statement.formats)
            pgconn.pipeline_sync()
            poller = select.poll()
            while True:
                result = next_result(pgconn, poller)
                if result is None:
                    continue
                if result.status == _SYNC:
                    break
                if result.status in (TUPLES, COMMAND):
                    results.append(result)
                elif result.status != _ABORTED and failed is None:
                    failed = self._refusal(pgconn, result, len(results))
            pgconn.exit_pipeline_mode()
            whole = True
        finally:
            if not whole:
                self.drop()  # in the middle of a conversation that nobody will end
        if failed is not None:
            raise failed
        return results

    @contextmanager
    def transaction(self, *, keep: bool = True) -> Iterator[None]:
        """BEGIN … COMMIT around several statements that need each other's answers; ``keep`` False: ROLLBACK.

        Raises:
            Refused: by the server; rolled back.
            Lost: the connection is gone; `Lost.committing` says whether COMMIT was under way.
        """
        self.script("begin")
        self._inside = True
        committing = False
        try:
            yield
            committing = keep
            self.script("commit" if keep else "rollback")
        except Refused:
            self.script("rollback")
            raise
        except Lost as lost:
            lost.committing = committing
            self.drop()
            raise
        except BaseException:
            self.drop()
            raise
        finally:
            self._inside = False

    def script(self, sql: str) -> None:
        """Run several statements without parameters.

        Raises:
            Refused: by the server.
            Lost: the connection is gone.
        """
        pgconn = self._pgconn
        if pgconn is None:
            raise Lost("not connected")
        try:
            result = pgconn.exec_(sql.encode())
        except psycopg.OperationalError as error:
            raise Lost(reason_of(error)) from error
        if result.status not in (TUPLES, COMMAND):
            raise self._refusal(pgconn, result)

    def _prepare(self, pgconn: PGconn, statement: Statement) -> None:
        result = pgconn.prepare(statement.key, statement.sql, statement.types)
        if result.status != COMMAND:
            raise self._refusal(pgconn, result)
        self._ready.add(statement.key)

    def _refusal(self, pgconn: PGconn, result: PGresult, index: int = 0) -> Refused:
        state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
        primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
        reason = reason_of((primary or result.error_message).decode("utf-8", "replace"))
        going = state in _GOING_AWAY and not (state == "25006" and self.mode.read_only)
        gone = not state or going or state.startswith("08") or pgconn.status != pq.ConnStatus.OK
        if gone:
            raise Lost(reason)
        return Refused(state, reason, index)


def rows(result: PGresult) -> list[tuple[str | None, ...]]:
    """All rows, as text."""
    columns = range(result.nfields)
    return [
        tuple(None if (value := result.get_value(row, column)) is None else value.decode() for column in columns)
        for row in range(result.ntuples)
    ]


def next_result(pgconn: PGconn, poller: select.poll) -> PGresult | None:
    """The next answer; None at the end of a statement's.

    psycopg's `get_result` waits with the interpreter's lock held: here a poll lets other threads run meanwhile.
    """
    while pgconn.is_busy():
        events = select.POLLIN | (select.POLLOUT if pgconn.flush() else 0)
        poller.register(pgconn.socket, events)
        poller.poll()
        pgconn.consume_input()
    return pgconn.get_result()


def _coming_up(error: BaseException) -> bool:
    text = str(error)
    return any(words in text for words in ("starting up", "shutting down", "in recovery", "not yet accepting"))
