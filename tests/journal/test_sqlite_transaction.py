"""P4 on an SQLite store: what a step's body may do with the transaction that it is lent."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.errors import Fenced, JournalBusy, JournalError, UsageError
from stepwell.journal import _lock
from stepwell.journal._sqlite import SqliteStore
from stepwell.journal._sqlite_transaction import TABLES
from tests.journal.sqlite_rows import claim, commit, start, step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stepwell.journal._api import Batch, Lease


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "well.db")
    store.file.write.execute("create table mine (x integer primary key, y)")
    yield store
    store.close()


@pytest.fixture
def lease(store: SqliteStore) -> Lease:
    return start(store)


def mine(store: SqliteStore) -> list[int]:
    return [row[0] for row in store.file.read("select x from mine order by x")]


def test_the_guarded_tables_are_all_tables(store: SqliteStore) -> None:
    found = store.file.read("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
    assert {name for (name,) in found} == TABLES | {"mine"}


def test_both_or_neither(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    assert mine(store) == []
    assert transaction.commit(step(lease)) is None
    assert mine(store) == [1]
    assert len(store.record_load(lease.rid or 0)) == 2
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (2)")
    transaction.rollback()
    transaction.rollback()
    assert mine(store) == [1]
    with pytest.raises(JournalError, match="rolled back before it could be committed"):
        transaction.commit(step(lease))


def test_a_stale_lease_commits_nothing(store: SqliteStore, lease: Lease) -> None:
    claim(store)
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    assert isinstance(transaction.commit(step(lease)), Fenced)
    assert mine(store) == []
    with store.file.hold():
        pass  # the lock is free again


REFUSED: list[Callable[[Any], object]] = [
    lambda c: c.commit(),
    lambda c: c.rollback(),
    lambda c: c.close(),
    lambda c: c.executescript("select 1"),
    lambda c: c.cursor().executescript("select 1"),
    lambda c: c.__enter__(),
    lambda c: c.cursor(sqlite3.Cursor),
    lambda c: c.cursor().connection.commit(),
    lambda c: c.set_authorizer(None),
    lambda c: setattr(c, "isolation_level", None),
    lambda c: setattr(c, "autocommit", True),
    lambda c: c.execute("COMMIT"),
    lambda c: c.execute("/* x */ end -- y"),
    lambda c: c.execute("rollback"),
    lambda c: c.execute("begin immediate"),
    lambda c: c.cursor().execute("commit"),
    lambda c: c.execute("attach ':memory:' as other"),
    lambda c: c.execute("pragma synchronous = off"),
    lambda c: c.execute("pragma writable_schema(1)"),
    lambda c: c.execute("delete from record"),
    lambda c: c.execute("UPDATE Hot SET epoch = 9"),
    lambda c: c.executemany("insert into inbox (rid, kind, at, data) values (?, 'x', 1, x'')", [(1,)]),
    lambda c: c.execute("update blob set size = 1"),
    lambda c: c.execute("delete from main.run"),
    lambda c: c.execute("drop table meta"),
    lambda c: c.execute("alter table run add column z"),
    lambda c: c.execute("create index other on record (epoch)"),
    lambda c: c.execute("create trigger t after insert on record begin delete from mine; end"),
    lambda c: c.execute("create temp trigger t after insert on record begin delete from mine; end"),
    lambda c: c.execute("drop index hot_due"),
    lambda c: c.blobopen("record", "data", 1),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_a_body_may_not_do(store: SqliteStore, lease: Lease, number: int) -> None:
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    with pytest.raises(UsageError):
        REFUSED[number](transaction.connection)
    transaction.rollback()
    assert mine(store) == []
    commit(store, step(lease))
    assert list(store.check()) == []


ALLOWED = [
    "savepoint a",
    "release a",
    "select count(*) from record",
    "create table other (x)",
    "create index other_x on other (x)",
    "create temp table scratch as select * from run",
    "drop table other",
    "pragma table_info(mine)",
    "pragma foreign_key_check",
    "pragma user_version",
    "with a as (select 1 as b) insert into mine (x) select b from a",
]


def test_what_a_body_may_do(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    connection = transaction.connection
    assert isinstance(connection, sqlite3.Connection)
    for sql in ALLOWED:
        connection.execute(sql).fetchall()
    connection.executemany("insert into mine (x) values (?)", [(2,), (3,)])
    connection.execute("savepoint a")
    connection.execute("delete from mine")
    connection.execute("rollback to a")
    assert transaction.commit(step(lease)) is None
    assert mine(store) == [1, 2, 3]


def test_an_ordinary_error_is_the_bodys_own(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    with pytest.raises(sqlite3.IntegrityError):
        transaction.connection.execute("insert into mine (x) values (1)")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        transaction.connection.execute("select * from nowhere")
    assert transaction.commit(step(lease)) is None
    assert mine(store) == [1]


def test_nothing_is_written_after_the_database_rolled_back(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    with pytest.raises(sqlite3.IntegrityError):
        transaction.connection.execute("insert or rollback into mine (x) values (1)")
    with pytest.raises(UsageError, match="the transaction of this step is over"):
        transaction.connection.execute("insert into mine (x) values (2)")
    with pytest.raises(JournalError, match="rolled back before"):
        transaction.commit(step(lease))
    assert mine(store) == []
    commit(store, step(lease))


def test_an_open_cursor_does_not_outlive_the_step(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    transaction.connection.executemany("insert into mine (x) values (?)", [(i,) for i in range(500)])
    cursor = transaction.connection.execute("select x from mine")
    next(cursor)
    assert transaction.commit(step(lease)) is None
    assert len(mine(store)) == 500
    with pytest.raises(sqlite3.ProgrammingError):
        next(cursor)
    lease.seq += 1
    commit(store, step(lease))


def test_nothing_on_the_connection_outlives_the_step(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    transaction.connection.row_factory = sqlite3.Row
    transaction.connection.create_function("coalesce", 2, lambda a, b: 7)
    transaction.connection.execute("create temp table run (x)")
    transaction.rollback()
    transaction = store.transaction()
    assert transaction.connection.execute("select coalesce(null, 1)").fetchall() == [(1,)]
    transaction.rollback()
    assert store.run_get("r") is not None


def test_an_interrupt_from_another_thread(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    endless = "with recursive n (i) as (select 1 union all select i + 1 from n) select count(*) from n"
    begun = threading.Event()

    def interrupt() -> None:
        begun.wait()
        while not over:
            transaction.interrupt()

    over: list[int] = []
    transaction.connection.set_progress_handler(begun.set, 1000)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        transaction.connection.execute(endless)
    over.append(1)
    thread.join()
    transaction.rollback()
    transaction.interrupt()  # too late, and harmless
    assert mine(store) == []
    commit(store, step(lease))


def test_a_cursor_that_outlives_the_transaction_holds_nothing(store: SqliteStore, lease: Lease) -> None:
    """The traceback of the body's error keeps its cursors alive while the failure is written."""
    transaction = store.transaction()
    kept = transaction.connection.execute("insert into mine (x) values (1)")
    reading = transaction.connection.execute("select x from mine union select 2")
    assert reading.fetchone() == (1,)
    transaction.rollback()
    other = sqlite3.connect(store.file.path, isolation_level=None, timeout=0)
    other.execute("begin immediate")
    other.execute("rollback")
    other.close()
    commit(store, step(lease))
    assert mine(store) == []
    del kept, reading


def test_others_that_wait_for_long_learn_who_holds_it(
    store: SqliteStore, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    transaction = store.transaction("in step 'load' of run r")
    monkeypatch.setattr(_lock, "PATIENCE", 0.01)
    caught: list[JournalError] = []

    def work() -> None:
        try:
            store.batch_commit([step(lease)])
        except JournalError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    transaction.rollback()
    assert isinstance(caught[0], JournalBusy)
    assert "in step 'load' of run r" in str(caught[0])


def test_a_write_of_the_bodys_thread_is_refused_at_once(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    for write in (
        lambda: store.batch_commit([step(lease)]),
        store.transaction,
        lambda: store.fact_deliver("r", "x", 1, b""),
    ):
        with pytest.raises(UsageError, match="inside a transactional step use its connection"):
            write()
    assert transaction.commit(step(lease)) is None


def test_a_store_can_be_opened_and_read_meanwhile(store: SqliteStore, lease: Lease) -> None:
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    other = SqliteStore(store.file.path)
    assert other.run_get("r") is not None
    other.close()
    assert transaction.commit(step(lease)) is None


@pytest.mark.parametrize("durable", [True, False])
def test_a_commit_in_doubt_is_found_out(store: SqliteStore, lease: Lease, durable: bool) -> None:
    write = store.write_whole

    def broken(cursor: sqlite3.Cursor, batch: Batch) -> JournalError | None:
        assert write(cursor, batch) is None
        if durable:
            cursor.execute("commit")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    store.write_whole = broken  # type: ignore[method-assign]
    transaction = store.transaction()
    transaction.connection.execute("insert into mine (x) values (1)")
    if durable:
        assert transaction.commit(step(lease)) is None
        assert mine(store) == [1]
    else:
        with pytest.raises(JournalError, match="cannot be read or written"):
            transaction.commit(step(lease))
        assert mine(store) == []
    transaction.rollback()
    with store.file.hold():
        pass  # the lock is free again
