"""A transaction of the store's own database in the hands of a step's body."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from stepwell.errors import Fenced, JournalError, UsageError
from stepwell.journal._postgres import PostgresStore
from stepwell.journal._postgres_guard import forbidden
from stepwell.testing._store_rig import StoreRig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.journal._api import Lease
    from stepwell.journal._postgres_transaction import PostgresTransaction


class Rig(StoreRig):
    def __init__(self, url: str) -> None:
        super().__init__(lambda clock: PostgresStore(url, clock))
        self.url = url
        with psycopg.connect(url) as connection:
            connection.execute("create table mine (x integer primary key)")
        self.lease = self.start("r")

    def begin(self) -> PostgresTransaction:
        assert isinstance(self.store, PostgresStore)
        return self.store._transactions.begin()

    def mine(self) -> list[int]:
        with psycopg.connect(self.url) as connection:
            return [x for (x,) in connection.execute("select x from mine order by x")]

    def rows(self, lease: Lease | None = None) -> int:
        return len(self.texts((lease or self.lease).rid))


@pytest.fixture
def rig(postgres_database: str) -> Iterator[Rig]:
    found = Rig(postgres_database)
    try:
        yield found
    finally:
        for store in found._stores:
            store.close()


@pytest.mark.parametrize(
    "text, found",
    [
        ("select 1", None),
        ("", None),
        (";;", None),
        ("commit", "COMMIT"),
        ("  \n\tCoMmIt ;", "COMMIT"),
        ("end", "END"),
        ("end transaction", "END"),
        ("abort", "ABORT"),
        ("begin", "BEGIN"),
        ("begin isolation level serializable", "BEGIN"),
        ("start transaction", "START"),
        ("rollback", "ROLLBACK"),
        ("rollback work", "ROLLBACK"),
        ("rollback and chain", "ROLLBACK"),
        ("rollback prepared 'x'", "ROLLBACK"),
        ("commit prepared 'x'", "COMMIT"),
        ("rollback to a", None),
        ("rollback to savepoint a", None),
        ("rollback work to savepoint a", None),
        ("rollback transaction to a", None),
        ("savepoint a", None),
        ("release savepoint a", None),
        ("prepare transaction 'x'", "PREPARE TRANSACTION"),
        ("prepare q as select 1", None),
        ("/* c */ commit", "COMMIT"),
        ("/* a /* nested; */ commit */ select 1", None),
        ("/* a /* nested */ b */ commit", "COMMIT"),
        ("-- select\ncommit", "COMMIT"),
        ("-- commit", None),
        ("/* never closed commit", None),
        ("select 1; commit", "COMMIT"),
        ("select ';commit'", None),
        ("select ''';commit'; select 1", None),
        ("select ''; commit; select ''", "COMMIT"),
        ("select E'\\';commit;'", None),
        ("select e'\\\\'; commit", "COMMIT"),
        ("select '\\'; commit", "COMMIT"),
        ('select ";commit;" from t', None),
        ("do $$ begin perform 1; end $$", None),
        ("do $x$ begin; commit; $$ end $x$", None),
        ("do $x$ $x$; commit", "COMMIT"),
        ("select $1; commit", "COMMIT"),
        ("create function f() returns int language sql begin atomic select 1; end", None),
        ("create or replace procedure p() begin atomic insert into t values (1); end", None),
        ("create table atomic (x int); commit", "COMMIT"),
        ("select case when true then 1 end", None),
        ("insert into ending values (1)", None),
        ("with begin as (select 1) select * from begin", None),
    ],
)
def test_which_statements_are_the_engines(text: str, found: str | None) -> None:
    assert forbidden(text) == found


def refusals() -> list[Callable[[Any], object]]:
    return [
        lambda c: c.commit(),
        lambda c: c.rollback(),
        lambda c: c.close(),
        lambda c: c.set_autocommit(True),
        lambda c: setattr(c, "autocommit", True),
        lambda c: c.__enter__(),
        lambda c: c.tpc_begin("x"),
        lambda c: c.tpc_prepare(),
        lambda c: c.tpc_commit(),
        lambda c: c.tpc_rollback(),
        lambda c: c.execute("commit"),
        lambda c: c.execute(b"commit"),
        lambda c: c.execute(sql.SQL("commit")),
        lambda c: c.cursor().execute("insert into mine values (2); commit"),
        lambda c: c.cursor().executemany("rollback", []),
        lambda c: list(c.cursor().stream("commit")),
    ]


@pytest.mark.parametrize("number", range(len(refusals())))
def test_what_a_body_may_not_do(rig: Rig, number: int) -> None:
    """It is told so at once, nothing of it is done, and the step may still be committed."""
    transaction = rig.begin()
    transaction.connection.execute("insert into mine values (1)")
    with pytest.raises(UsageError):
        refusals()[number](transaction.connection)
    assert rig.mine() == []
    assert transaction.commit(rig.batch(rig.lease, rig.record())) is None
    assert (rig.mine(), rig.rows()) == ([1], 2)


def test_what_a_body_may_do(rig: Rig) -> None:
    transaction = rig.begin()
    connection = transaction.connection
    assert connection.autocommit is False
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany("insert into mine values (%s)", [(1,), (2,)])
    with pytest.raises(ZeroDivisionError), connection.transaction():
        connection.execute("insert into mine values (3)")
        raise ZeroDivisionError
    with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
        connection.execute("insert into mine values (1)")
    with connection.cursor() as cursor, cursor.copy("copy mine from stdin") as copy:
        copy.write("4\n5\n")
    connection.execute("savepoint a")
    connection.execute("insert into mine values (6)")
    connection.execute("rollback to savepoint a")
    assert [x for (x,) in connection.cursor().stream("select x from mine order by x")] == [1, 2, 4, 5]
    assert transaction.commit(rig.batch(rig.lease, rig.record())) is None
    assert (rig.mine(), rig.rows()) == ([1, 2, 4, 5], 2)


@pytest.mark.parametrize("again", [True, False])
def test_what_slips_past_the_guard_is_found_at_the_end(rig: Rig, again: bool) -> None:
    """A body that goes around the guard has committed part of its work; the step does not succeed on top of it."""
    transaction = rig.begin()
    transaction.connection.execute("insert into mine values (1)")
    transaction.connection.pgconn.exec_(b"commit")
    if again:
        transaction.connection.pgconn.exec_(b"begin")
        transaction.connection.pgconn.exec_(b"insert into mine values (2)")
    with pytest.raises(UsageError, match="ended its transaction"):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    assert (rig.mine(), rig.rows()) == ([1], 1)
    rig.append(rig.lease)


def test_a_statement_that_failed(rig: Rig) -> None:
    transaction = rig.begin()
    with pytest.raises(psycopg.errors.DivisionByZero):
        transaction.connection.execute("select 1 / 0")
    with pytest.raises(UsageError, match="failed and the body went on"):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    assert rig.rows() == 1


def test_a_constraint_that_is_checked_at_the_commit(rig: Rig) -> None:
    """The body's own error, not the store's: the step fails by it."""
    with psycopg.connect(rig.url) as connection:
        connection.execute("create table child (x integer references mine deferrable initially deferred)")
    transaction = rig.begin()
    transaction.connection.execute("insert into child values (7)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    assert rig.rows() == 1
    rig.append(rig.lease)


def test_the_connection_is_lost_in_the_body(rig: Rig) -> None:
    transaction = rig.begin()
    transaction.connection.execute("insert into mine values (1)")
    with psycopg.connect(rig.url) as connection:
        connection.execute("select pg_terminate_backend(%s)", (transaction._pid,))
    with pytest.raises(psycopg.OperationalError):
        transaction.connection.execute("select 1")
    with pytest.raises(JournalError, match="lost during the step"):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    transaction.rollback()
    assert (rig.mine(), rig.rows()) == ([], 1)


def test_the_connection_is_lost_before_the_commit(rig: Rig) -> None:
    transaction = rig.begin()
    transaction.connection.execute("insert into mine values (1)")
    with psycopg.connect(rig.url) as connection:
        connection.execute("select pg_terminate_backend(%s)", (transaction._pid,))
    with pytest.raises(JournalError):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    assert (rig.mine(), rig.rows()) == ([], 1)


def test_nothing_of_a_session_reaches_the_next_step(rig: Rig) -> None:
    first = rig.begin()
    pid = first._pid
    first.connection.execute("set search_path = nowhere; set role pg_monitor; create temp table t (x int)")
    first.connection.execute("reset role")
    assert first.commit(rig.batch(rig.lease, rig.record())) is None
    rig.lease.seq = 2
    second = rig.begin()
    assert second._pid == pid, "the session was not kept"
    assert second.connection.execute("show search_path").fetchone() == ('"$user", public',)
    assert second.connection.execute("select to_regclass('t')").fetchone() == (None,)
    second.rollback()
    with pytest.raises(UsageError, match="is over"):
        second.connection.execute("select 1")


def test_the_time_is_up(rig: Rig) -> None:
    """What runs fails, nothing more can be said, COMMIT is refused, and the session is not lent again."""
    transaction = rig.begin()
    pid = transaction._pid
    transaction.connection.execute("insert into mine values (1)")
    threading.Thread(target=transaction.interrupt).start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        transaction.connection.execute("select pg_sleep(60)")
    with pytest.raises(psycopg.errors.QueryCanceled, match="time is up"):
        transaction.connection.execute("select 1")
    with pytest.raises(JournalError, match="time was up"):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    transaction.interrupt()
    transaction.rollback()
    assert (rig.mine(), rig.rows()) == ([], 1)
    following = rig.begin()
    assert following._pid != pid
    assert following.connection.execute("select 1").fetchone() == (1,)
    following.rollback()


def test_a_role_that_may_not_write(rig: Rig) -> None:
    transaction = rig.begin()
    transaction.connection.execute("set role pg_monitor")
    with pytest.raises(JournalError, match="permission denied"):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    assert rig.rows() == 1
    rig.append(rig.lease)


def test_steps_side_by_side(rig: Rig) -> None:
    """Transactions of several runs, and the writer's commits meanwhile, do not wait for each other."""
    leases = [rig.start(f"r{i}") for i in range(4)]
    transactions = [rig.begin() for _ in leases]
    for i, transaction in enumerate(transactions):
        transaction.connection.execute("insert into mine values (%s)", (i,))
    rig.append(rig.lease)
    outcomes = [
        transaction.commit(rig.batch(lease, rig.record()))
        for transaction, lease in zip(transactions, leases, strict=True)
    ]
    assert outcomes == [None] * 4
    assert rig.mine() == [0, 1, 2, 3]


def test_a_takeover_while_the_body_runs(rig: Rig) -> None:
    transaction = rig.begin()
    transaction.connection.execute("insert into mine values (1)")
    rig.claim("r", "w2", store=rig.open())
    assert isinstance(transaction.commit(rig.batch(rig.lease, rig.record())), Fenced)
    assert (rig.mine(), rig.rows()) == ([], 2)


def test_what_is_lent_ends_with_the_store(rig: Rig) -> None:
    transaction = rig.begin()
    transaction.connection.execute("insert into mine values (1)")
    rig.store.close()
    with pytest.raises(JournalError):
        transaction.commit(rig.batch(rig.lease, rig.record()))
    assert rig.mine() == []
