"""Opening a PostgreSQL store, its time, its workers, and what it says when it cannot be used."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from stepwell.core import Recorded, encode_records
from stepwell.errors import JournalError, MissingExtra, SchemaTooNew, SchemaTooOld, UsageError
from stepwell.journal import _postgres_schema
from stepwell.journal._api import End, HotRow, Outgoing, Park, RunFilter, Unpark
from stepwell.journal._postgres import PostgresStore
from stepwell.journal._postgres_address import Address
from stepwell.journal._postgres_time import StoreTime
from stepwell.journal._postgres_wire import Statement, array_literal
from stepwell.journal._sql import SCHEMA, migrations, queries
from stepwell.testing._clock import START, VirtualClock
from stepwell.testing._store_rig import StoreRig
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Rig(StoreRig):
    def __init__(self, url: str) -> None:
        super().__init__(lambda clock: PostgresStore(url, clock))
        self.url = url


@pytest.fixture
def rig(postgres_database: str) -> Iterator[Rig]:
    found = Rig(postgres_database)
    try:
        yield found
    finally:
        for store in found._stores:
            store.close()


def execute(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


# -- the URL


@pytest.mark.parametrize(
    "url, place, shown",
    [
        ("postgresql://u:pw@h:1/d", "h:1/d", "postgresql://u@h:1/d"),
        ("postgresql://u:p%40w@h/d?sslmode=require", "h:5432/d", "postgresql://u@h/d?sslmode=require"),
        ("postgresql://h/d?password=pw&user=u", "h:5432/d", "postgresql://h/d?user=u"),
        ("postgresql://u@[::1]:7/d?schema=s", "::1:7/d", "postgresql://u@[::1]:7/d?schema=s"),
        ("postgresql://u:pw@a:1,b:2/d", "a,b:1,2/d", "postgresql://u@a:1,b:2/d"),
        (
            "postgresql://u:pw@h/d?listen=postgresql%3A//u%3Apw%40direct/d",
            "h:5432/d",
            "postgresql://u@h/d?listen=postgresql%3A%2F%2Fu%40direct%2Fd",
        ),
    ],
)
def test_url(url: str, place: str, shown: str) -> None:
    """A message names the place and nothing shows the password."""
    address = Address(url)
    assert (address.place, address.url) == (place, shown)
    assert "pw" not in repr(vars(address.unusable("x")))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u@h/d",
        "postgresql://u@h:port/d",
        "postgresql://u:secret%zz@h/d",
        "postgresql://u@h/d?nonsense=1",
        "postgresql://u@h/d?schema=",
        'postgresql://u@h/d?schema=a"b',
        "postgresql://u@h/d?schema=" + "s" * 51,
        "postgresql://u@h/d?listen=h",
    ],
)
def test_url_without_sense(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        PostgresStore(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_driver_is_missing(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no')")
    source = str(Path(_postgres_schema.__file__).parents[2])
    program = (
        "from stepwell.errors import MissingExtra\n"
        "try: import stepwell.journal._postgres\n"
        "except MissingExtra as error: print(error.extra)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), source])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "postgres"
    assert issubclass(MissingExtra, UsageError)


# -- servers that cannot be used


def one_line(url: str, *words: str) -> None:
    began = time.monotonic()
    with pytest.raises(JournalError) as caught:
        PostgresStore(url)
    text = str(caught.value)
    for word in (*words, Address(url).place):
        assert word in text, text
    assert "\n" not in text
    assert "sesame" not in text
    assert time.monotonic() - began < 10


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        one_line(f"postgresql://u:sesame@127.0.0.1:{free.getsockname()[1]}/d", "refused", "check that the server runs")


def test_somebody_listens_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.journal._postgres_address.CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        one_line(
            f"postgresql://u:sesame@127.0.0.1:{silent.getsockname()[1]}/d", "timeout", "check that the server runs"
        )


def test_no_such_database(postgres_database: str) -> None:
    url = urlsplit(postgres_database)._replace(path="/nowhere").geturl()
    one_line(url, 'database "nowhere" does not exist', "createdb nowhere")


def test_no_such_role(postgres_database: str) -> None:
    parts = urlsplit(postgres_database)
    url = parts._replace(netloc=f"nobody_knows:sesame@{parts.hostname}:{parts.port}").geturl()
    one_line(url, 'role "nobody_knows" does not exist', "check user and password")


def test_wrong_password() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o755)
        rules = folder / "rules.conf"
        rules.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        rules.chmod(0o644)
        with PostgresServer(settings=f"hba_file = '{rules}'\nfsync = off\nsynchronous_commit = off") as server:
            execute(server.url, "create role ann login password 'right'")
            place = f"127.0.0.1:{server.port}/postgres"
            one_line(f"postgresql://ann:sesame@{place}", "password authentication failed", "check user and password")
            one_line(f"postgresql://ann:right@{place}", "permission denied", "let a role that may create tables")
            unsafe_settings_are_named_once(server.database())
    finally:
        shutil.rmtree(folder)


def unsafe_settings_are_named_once(url: str) -> None:
    lines: list[str] = []
    problems: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("stepwell.journal")
    logger.addHandler(handler)
    try:
        for _ in range(2):
            store = PostgresStore(url)
            problems = list(store.check())
            assert store.facts()["fsync"] == "off"
            store.close()
    finally:
        logger.removeHandler(handler)
    (line,) = lines
    assert "fsync = off, synchronous_commit = off" in line
    assert Address(url).place in line
    assert [problem.split(" = off")[0].rpartition(" ")[2] for problem in problems] == ["fsync", "synchronous_commit"]


def test_no_right_to_make_tables(postgres_database: str) -> None:
    role = f"reader_{os.getpid()}_{time.monotonic_ns()}"
    execute(postgres_database, f"create role {role} login")
    parts = urlsplit(postgres_database)
    url = parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl()
    try:
        one_line(url, "permission denied", "let a role that may create tables")
        PostgresStore(postgres_database).close()
        one_line(url, "permission denied")
        execute(postgres_database, f"grant usage on schema stepwell to {role}")
        execute(postgres_database, f"grant select on all tables in schema stepwell to {role}")
        rig = StoreRig(lambda clock: PostgresStore(url, clock))
        assert rig.store.run_count(RunFilter()) == 0
        with pytest.raises(JournalError, match=r"permission denied .* grant this role"):
            rig.submit(rig.start_batch("r"))
        rig.store.close()
    finally:
        execute(postgres_database, f"drop owned by {role}")
        execute(postgres_database, f"drop role {role}")


# -- the schema


def test_tables_of_a_newer_version(postgres_database: str) -> None:
    PostgresStore(postgres_database).close()
    execute(postgres_database, "update stepwell.meta set value = '99' where key = 'schema'")
    with pytest.raises(SchemaTooNew, match="upgrade stepwell") as caught:
        PostgresStore(postgres_database)
    assert (caught.value.found, caught.value.expected) == (99, SCHEMA)
    assert execute(postgres_database, "select value from stepwell.meta") == [("99",)]


def test_tables_of_an_older_version(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are brought up to date, by the missing migrations only; who may not do that is told."""
    PostgresStore(postgres_database).close()
    steps = [*migrations("postgres"), (SCHEMA + 1, "new", "create table stepwell.new (x int)")]
    monkeypatch.setattr(_postgres_schema, "SCHEMA", SCHEMA + 1)
    monkeypatch.setattr(_postgres_schema, "migrations", lambda kind: steps)
    role = f"writer_{os.getpid()}_{time.monotonic_ns()}"
    execute(postgres_database, f"create role {role} login")
    parts = urlsplit(postgres_database)
    try:
        execute(postgres_database, f"grant usage on schema stepwell to {role}")
        execute(postgres_database, f"grant select, insert, update on all tables in schema stepwell to {role}")
        with pytest.raises(SchemaTooOld) as caught:
            PostgresStore(parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl())
        assert (caught.value.found, caught.value.expected) == (SCHEMA, SCHEMA + 1)
    finally:
        execute(postgres_database, f"drop owned by {role}")
        execute(postgres_database, f"drop role {role}")
    PostgresStore(postgres_database).close()
    assert execute(postgres_database, "select value from stepwell.meta") == [(str(SCHEMA + 1),)]
    assert execute(postgres_database, "select count(*) from stepwell.new") == [(0,)]


def test_a_schema_of_ones_own(postgres_database: str) -> None:
    """Two stores in one database know nothing of each other."""
    one = StoreRig(lambda clock: PostgresStore(postgres_database, clock))
    two = StoreRig(lambda clock: PostgresStore(f"{postgres_database}?schema=The-Other", clock))
    one.start("r")
    assert two.store.run_get("r") is None
    two.append(two.start("r"))
    assert (len(one.texts(one.row("r").rid)), len(two.texts(two.row("r").rid))) == (1, 2)
    assert list(two.store.check()) == []
    one.store.close()
    two.store.close()


def _open(url: str, gate: Any, answers: Any) -> None:
    gate.wait()
    try:
        PostgresStore(url).close()
        answers.put("")
    except BaseException as error:
        answers.put(repr(error))


def test_processes_that_open_a_new_database_at_once(postgres_database: str) -> None:
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(4), context.Queue()
    processes = [context.Process(target=_open, args=(postgres_database, gate, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=60) for _ in processes] == [""] * 4
    for process in processes:
        process.join()
        process.close()
    answers.close()
    answers.join_thread()


def test_the_roles_own_settings(postgres_database: str) -> None:
    """A role's defaults that would break the fences are overruled."""
    name = urlsplit(postgres_database).path.strip("/")
    execute(postgres_database, f"alter database {name} set default_transaction_isolation = 'serializable'")
    execute(postgres_database, f"alter database {name} set statement_timeout = '1ms'")
    rig = StoreRig(lambda clock: PostgresStore(postgres_database, clock))
    assert isinstance(rig.store, PostgresStore)
    rig.append(rig.start("r"))
    pgconn = rig.store._link._pgconn
    assert pgconn is not None
    assert pgconn.exec_(b"show default_transaction_isolation").get_value(0, 0) == b"read committed"
    assert pgconn.exec_(b"show transaction_isolation").get_value(0, 0) == b"read committed"
    rig.store.close()


# -- fork and close


def test_a_forked_child(rig: Rig) -> None:
    """In the child the store is dead, and nothing that the child does ends the parent's sessions."""
    lease = rig.start("r")
    rig.store.transaction().rollback()
    rig.store.worker_register(rig.worker("a"))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        answers = []
        try:
            for use in (
                lambda: rig.append(lease), lambda: rig.store.hot_get("r"), lambda: rig.store.worker_beat("a"),
                rig.store.transaction, lambda: rig.store.wait(0), rig.store.poke,
                lambda: rig.store.fact_deliver("r", "signal", 1, b""), lambda: list(rig.store.check()),
            ):  # fmt: skip
                try:
                    use()
                    answers.append("no error")
                except JournalError as error:
                    answers.append(
                        "ok" if "before this process was forked: open it again" in str(error) else str(error)
                    )
            rig.store.close()
            rig._stores.clear()
            rig._first = None
        finally:
            os.write(writer, " ".join(answers).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == " ".join(["ok"] * 8)
    os.waitpid(pid, 0)
    rig.append(lease)
    rig.store.worker_beat("a")
    assert len(rig.texts(lease.rid)) == 2


def test_a_closed_store(rig: Rig) -> None:
    lease = rig.start("r")
    rig.store.close()
    for use in (
        lambda: rig.append(lease), lambda: rig.store.hot_get("r"), rig.store.worker_list,
        rig.store.transaction, lambda: rig.store.wait(60), rig.store.facts,
    ):  # fmt: skip
        with pytest.raises(JournalError, match="is closed"):
            use()
    left = (
        "select count(*) from pg_stat_activity where application_name like 'stepwell%' and datname = current_database()"
    )
    deadline = time.monotonic() + 10
    while execute(rig.url, left) != [(0,)]:
        assert time.monotonic() < deadline


def test_an_exception_between_begin_and_commit(rig: Rig) -> None:
    """What comes after it is not swallowed by a transaction that nobody commits."""
    lease = rig.start("r")
    assert isinstance(rig.store, PostgresStore)
    pgconn = rig.store._link._pgconn
    assert pgconn is not None
    pgconn.exec_(b"begin")
    rig.append(lease)
    assert len(rig.texts(lease.rid)) == 2


# -- time


def test_time_is_the_servers(rig: Rig) -> None:
    """Whatever the host's clock says, within the time that a trip takes; carried on by the monotonic clock."""
    clock = VirtualClock()
    clock.step_wall(-86_400 * 365)
    store = rig.open(clock)
    ((server,),) = execute(rig.url, "select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
    assert abs(store.now() - server) < 60_000_000
    before = store.now()
    clock.advance(7)
    assert store.now() == before + 7_000_000


def test_time_of_a_clock_that_is_set_back() -> None:
    clock = VirtualClock()
    times = StoreTime(clock)
    times.sample(1000_000_000, clock.monotonic(), clock.monotonic() + 2)
    clock.advance(1)
    assert times.now() == 1000_000_000  # looked at in the middle
    times.sample(500_000_000, clock.monotonic(), clock.monotonic())
    assert times.now() == 1000_000_000
    clock.advance(499)
    assert times.now() == 1000_000_000
    clock.advance(2)
    assert times.now() == 1001_000_000
    times.sample(2000_000_000, clock.monotonic(), clock.monotonic())
    assert times.now() == 2000_000_000


def test_a_beat_tells_the_time(rig: Rig) -> None:
    clock = VirtualClock()
    store = rig.open(clock)
    assert isinstance(store, PostgresStore)
    store.worker_register(rig.worker("a"))
    store._times.sample(0, clock.monotonic(), clock.monotonic())
    store.worker_beat("a")
    ((server,),) = execute(rig.url, "select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
    assert abs(store._times._sampled - server) < 60_000_000


# -- workers


def test_beats_do_not_wait_for_the_writer(rig: Rig) -> None:
    """A long write, or a lock that the writer waits for, makes no lease lapse."""
    rig.store.worker_register(rig.worker("a"))
    with psycopg.connect(rig.url) as connection:
        connection.execute("lock table stepwell.record, stepwell.hot, stepwell.run in access exclusive mode")
        assert isinstance(rig.store, PostgresStore)
        with rig.store._link._lock:
            rig.store.worker_beat("a")
    assert execute(rig.url, "select beat from stepwell.worker") == [(2,)]


def test_while_the_server_was_away_nobody_was_silent(rig: Rig) -> None:
    """What could not be watched is no silence: after the connection came back it is counted anew."""
    clock = VirtualClock()
    observer = rig.open(clock)
    rig.store.worker_register(rig.worker("a"))
    observer.worker_silence()
    clock.advance(20)
    assert observer.worker_silence() == {"a": 20.0}
    execute(
        rig.url,
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
        "where application_name = 'stepwell beat' and datname = current_database()",
    )
    clock.advance(20)
    assert observer.worker_silence() == {"a": 0.0}


def test_an_owner_that_never_registered(rig: Rig) -> None:
    """Its runs are not held for ever: it is judged like a worker that never beats."""
    clock = VirtualClock()
    observer = rig.open(clock)
    rig.start("r", "unknown", ttl=30.0)
    assert observer.worker_silence() == {"unknown": 0.0}
    clock.advance(31)
    silent = observer.worker_silence()
    assert silent == {"unknown": 31.0}
    assert rig.due(observer.now(), store=observer, silent=silent) == ["r"]


def test_a_worker_that_left_its_runs(rig: Rig) -> None:
    other = rig.open()
    rig.store.worker_register(rig.worker("a"))
    rig.start("r", "a")
    rig.store.worker_leave("a")
    assert other.worker_list() == []
    assert other.worker_silence() == {"a": float("inf")}
    rig.claim("r", "b", store=other)
    rig.store.worker_register(rig.worker("a"))
    assert other.worker_silence().get("a") == 0.0


# -- sizes and statements


def test_bytes_of_a_step(rig: Rig) -> None:
    """At most 200 bytes a step with 75 bytes of records, index included."""
    lease = rig.start("r")
    record = Recorded(START, "key", "now", "x" * 51)
    assert len(encode_records([record])) == 75
    size = "select pg_total_relation_size('stepwell.record')"
    ((before,),) = execute(rig.url, size)
    for _ in range(10):
        rig.commit(*(rig.batch(lease, record, seq=lease.seq + 1 + i) for i in range(1000)))
    ((after,),) = execute(rig.url, size)
    assert (after - before) / 10_000 < 200


def test_parking_in_place_changes_no_index(rig: Rig) -> None:
    lease = rig.start("r")
    for i in range(10):
        rig.commit(rig.batch(lease, change=Park(START, "x", i, release=False)))
        rig.store.fact_deliver("r", "signal", START, b"s")
        rig.commit(rig.batch(lease, change=Unpark()))
    deadline = time.monotonic() + 20
    query = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'hot'"
    execute(rig.url, "select 1")
    assert isinstance(rig.store, PostgresStore)
    rig.store._link._pgconn.exec_(b"select pg_stat_force_next_flush()")  # type: ignore[union-attr]
    while execute(rig.url, query) != [(30, 30)]:
        assert time.monotonic() < deadline, execute(rig.url, query)


def test_every_query_is_understood(rig: Rig) -> None:
    """The server takes every statement as it stands in the files, with the types that its parameters have."""
    assert isinstance(rig.store, PostgresStore)
    sql = rig.store._sql
    fragments = (
        "batch_gate", "batch_row", "batch_extras", "batch_facts", "batch_answer", "hot_", "run_", "gc_root", "row_", "record_load",
        "note_load", "inbox_load", "blob_get",
    )  # fmt: skip
    statements = [sql.statement(name) for name in queries("postgres") if not name.startswith(fragments)]
    statements += [
        sql.statement(name)
        for name in ("batch_extras_many", "run_claim", "run_claim_waiting", "run_lock", "run_reopen")
    ]
    statements += [
        sql.batch(gate, extras=extras, facts=facts)
        for gate in ("start", "append", "hold", "park", "set", "end")
        for extras in (True, False)
        for facts in (True, False)
    ]
    with psycopg.connect(rig.url) as connection:
        for number, statement in enumerate(statements):
            result = connection.pgconn.prepare(f"s{number}".encode(), statement.sql, statement.types)
            assert result.error_message == b"", (statement, result.error_message)


def test_arrays() -> None:
    statement = Statement("s", "select %(ids)s, %(rids)s, %(datas)s, %(ttls)s, %(ids)s")
    assert statement.sql == b"select $1, $2, $3, $4, $1"
    bound = statement.bind({"ids": [], "rids": [1, None], "datas": [b"", None], "ttls": [0.5], "unused": 1})
    assert bound[0] == b"\0" * 8 + b"\0\0\0\x19"
    assert bound[1] is not None
    assert bound[1].endswith(b"\0\0\0\x08" + b"\0" * 7 + b"\x01" + b"\xff\xff\xff\xff")
    assert array_literal(['a"b', "c\\d", "", "e,{}"]) == '{"a\\"b","c\\\\d","","e,{}"}'


@pytest.mark.parametrize("tags", [(), ("",), ('a"b', "c\\d", "NULL", "e,{f}", " ", "größe")])
@pytest.mark.parametrize("group", [True, False])
def test_tags_of_every_kind(rig: Rig, tags: tuple[str, ...], group: bool) -> None:
    batches = [rig.start_batch("r", tags=tags)] + [rig.start_batch(f"o{i}", tags=("t",)) for i in range(2 * group)]
    rig.commit(*batches)
    assert rig.row("r").tags == tags


@pytest.mark.parametrize("group", [True, False])
def test_ids_that_no_database_holds(rig: Rig, group: bool) -> None:
    """They cost no other batch, and asking for one finds nothing."""
    for text in ("nul\0", "half \udc80"):
        batches = [rig.start_batch(text)] + [rig.start_batch(f"{i} of {text!r}") for i in range(2 * group)]
        results = rig.submit(*batches)
        assert isinstance(results[0], JournalError)
        assert results[1:] == [None] * (2 * group)
        assert rig.store.run_get(text) is None
        assert rig.store.hot_get(text) is None
        assert rig.store.fact_deliver(text, "signal", 1, b"") is False
        rig.commit(rig.batch(rig.start(f"teller of {text!r}"), facts=[Outgoing(text, "signal", 1, b"")]))
        assert rig.store.run_list(RunFilter(text=text), limit=9) == []
        assert rig.store.row_get("d", "k", text) is None
        assert rig.store.row_list("d", "k", text) == []


def test_a_reason_of_odd_text(rig: Rig) -> None:
    rig.commit(rig.batch(rig.start("r"), change=End("failed", "nul \0 half \udc80 größe")))
    assert rig.row("r").reason == "nul \ufffd half ? größe"


def test_damage_is_named(rig: Rig) -> None:
    lease = rig.start("r")
    rig.append(lease, "a", "b", "c")
    rig.start("s")
    execute(rig.url, f"delete from stepwell.record where rid = {lease.rid} and seq = 2")
    execute(rig.url, "delete from stepwell.hot where rid = (select rid from stepwell.run where id = 's')")
    execute(rig.url, "insert into stepwell.record values (99, 1, 1, '')")
    assert sorted(rig.store.check()) == [
        "rows of run number 1 are not 1, 2, 3 …: part of its journal is gone",
        "rows of run number 99 belong to no run",
        "run s is open in the catalogue but has no hot row: nobody will drive it",
    ]


def test_hot_rows_are_whole(rig: Rig) -> None:
    """The columns come in the order in which `HotRow` has them."""
    rig.start("r", queue="q", function="f", door="flow", ttl=7.5)
    hot = rig.hot("r")
    assert hot == HotRow(hot.rid, "r", "f", "flow", "q", "running", None, "w1", 1, None, None, 0, 7.5)
