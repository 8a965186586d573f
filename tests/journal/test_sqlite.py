"""The SQLite file: opening it, its settings, its troubles in one line each (ENGINE.md §6)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.errors import Corrupt, JournalBusy, JournalError, SchemaTooNew, SchemaTooOld
from stepwell.journal import _sqlite_file, _sqlite_schema
from stepwell.journal._sql import SCHEMA, migrations
from stepwell.journal._sqlite import SqliteStore, StoreWarning, open_sqlite
from stepwell.testing._clock import START, VirtualClock
from tests.journal.sqlite_rows import commit, in_child, start, step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "well.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def value(store: SqliteStore, pragma: str) -> Any:
    return store.file.write.execute(f"pragma {pragma}").fetchone()[0]


def make(path: Path, sql: str = "") -> None:
    SqliteStore(path).close()
    connection = sqlite3.connect(path)
    connection.executescript(sql)
    connection.close()


# -- opening


def test_settings_of_the_file_and_of_its_writer(store: SqliteStore) -> None:
    assert value(store, "journal_mode") == "wal"
    assert value(store, "synchronous") == 2
    assert value(store, "auto_vacuum") == 2
    assert value(store, "journal_size_limit") == 64 << 20
    assert value(store, "wal_autocheckpoint") == _sqlite_file.CHECKPOINT_PAGES
    assert store.url == f"sqlite:///{store.file.path}"
    assert store.facts()["schema"] == str(SCHEMA)


def test_missing_folders_are_made_and_odd_names_are_names(tmp_path: Path) -> None:
    for name in ("a/b/c.db", "what? #1 100%.db", ":memory:", "with ' quote.db"):
        store = SqliteStore(tmp_path / name)
        start(store)
        store.close()
        assert (tmp_path / name).is_file()


def test_a_relative_path_stays_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("well.db")
    monkeypatch.chdir("/")
    start(store)
    assert store.run_get("r") is not None  # a reader is opened now
    store.close()


def test_two_stores_of_one_process_share_a_file(path: Path, store: SqliteStore) -> None:
    other = SqliteStore(path)
    lease = start(store)
    commit(other, step(lease))
    other.close()
    commit(store, step(lease))
    assert [entry.seq for entry in store.record_load(lease.rid or 0)] == [1, 2, 3]


def test_closed_is_closed(store: SqliteStore) -> None:
    lease = start(store)
    store.close()
    store.close()
    for use in (
        lambda: store.batch_commit([step(lease)]), lambda: store.run_get("r"), lambda: store.wait(0), store.transaction,
        lambda: store.worker_beat("w"), lambda: list(store.check()), store.worker_silence, store.facts,
    ):  # fmt: skip
        with pytest.raises(JournalError, match="was closed: open it again"):
            use()
    store.poke()


def test_readers_in_use_are_closed_when_they_come_back(store: SqliteStore) -> None:
    connection = store.file.reader_take()
    store.close()
    store.file.reader_give(connection)
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("select 1")


def test_many_threads_read_with_few_connections(store: SqliteStore) -> None:
    lease = start(store)
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(store.record_load(lease.rid or 0)))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 20
    assert len(store.file._idle) <= _sqlite_file.IDLE_READERS


def test_less_than_full_durability_warns(path: Path) -> None:
    with pytest.warns(StoreWarning, match="synchronous = off: a power cut may take steps back"):
        store = SqliteStore(path, synchronous="off")
    assert value(store, "synchronous") == 0
    store.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SqliteStore(path).close()


def test_the_clock_is_held_still_where_it_steps_back(path: Path) -> None:
    clock = VirtualClock()
    store = SqliteStore(path, clock)
    assert store.now() == START
    clock.step_wall(-3600)
    assert store.now() == START
    clock.step_wall(3601)
    assert store.now() == START + 1_000_000
    store.close()


# -- what is there is no store


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.write_text("these are not the bytes you are looking for " * 100)
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(Corrupt, match=r"well\.db is no SQLite database"):
            SqliteStore(path, read_only=read_only)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["well.db"]


def test_an_empty_file_is_a_store_to_be(path: Path) -> None:
    path.touch()
    store = SqliteStore(path)
    start(store)
    store.close()


def test_a_database_of_somebody_else_can_hold_a_store(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table mine (x)")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="is no store of Stepwell"):
        SqliteStore(path, read_only=True)
    store = SqliteStore(path)
    start(store)
    assert store.file.read("select count(*) from mine") == [(0,)]
    store.close()


@pytest.mark.parametrize("table", ["meta (a, b)", "meta (key, value)"])
def test_tables_of_somebody_else_are_left_as_they_are(path: Path, table: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"create table {table}")
    connection.commit()
    connection.close()
    with pytest.raises(Corrupt, match="has a table 'meta' that is not Stepwell's"):
        SqliteStore(path)
    assert [file.name for file in path.parent.iterdir()] == ["well.db"]


def test_a_table_in_the_way_stops_the_making_and_leaves_nothing(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table record (x)")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="table record already exists"):
        SqliteStore(path)
    connection = sqlite3.connect(path)
    assert connection.execute("select name from sqlite_master where type = 'table'").fetchall() == [("record",)]
    connection.close()


def test_a_folder(path: Path) -> None:
    path.mkdir()
    with pytest.raises(JournalError, match=r"well\.db cannot be opened: it is a folder"):
        SqliteStore(path)


def test_a_folder_that_is_a_file(path: Path) -> None:
    path.touch()
    with pytest.raises(JournalError, match="cannot be opened"):
        SqliteStore(path / "deeper" / "well.db")


def test_nothing_to_read(path: Path) -> None:
    with pytest.raises(JournalError, match=r"well\.db cannot be opened: there is no such file") as caught:
        SqliteStore(path, read_only=True)
    assert list(path.parent.iterdir()) == []
    assert caught.value.exit_code == 7
    assert caught.value.hint


def test_a_damaged_file_is_corrupt(path: Path) -> None:
    store = SqliteStore(path)
    lease = start(store)
    for i in range(400):
        commit(store, step(lease, "x" * 100 + str(i)))
    store.close()
    with path.open("r+b") as file:  # nothing in this process has it open
        file.seek(3 * 4096)
        file.write(b"\xff" * (path.stat().st_size - 4 * 4096))
    store = SqliteStore(path)
    with pytest.raises(Corrupt, match=r"well\.db is damaged"):
        store.record_load(lease.rid or 0)
    assert any("well.db" in line for line in store.check())
    store.close()


# -- rights: as root every file may be written, so a user without rights looks


NOBODY = """
import os, sys
from stepwell.errors import StepwellError
from stepwell.journal._sqlite import SqliteStore
os.setgid(65534)
os.setuid(65534)
try:
    SqliteStore(sys.argv[1], read_only=len(sys.argv) > 2).close()
except StepwellError as error:
    print(error, "|", error.hint)
else:
    print("opened")
"""


def as_nobody(*args: object) -> str:
    # The sources may lie where nobody may not look.
    code = f"from stepwell.journal import _sql\n_sql.queries('sqlite'), _sql.migrations('sqlite')\n{NOBODY}"
    told = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False)
    assert told.stderr == ""
    return told.stdout.strip()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="plays two users")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that everybody may look into."""
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o755)
    return tmp_path


@needs_root
def test_a_folder_that_may_not_be_written(shared: Path) -> None:
    assert f"{shared}/well.db cannot be opened" in as_nobody(shared / "well.db")
    assert "cannot be" in as_nobody(shared / "new" / "well.db")


@needs_root
def test_a_file_that_may_not_be_written(shared: Path) -> None:
    make(shared / "well.db")
    said = as_nobody(shared / "well.db")
    assert f"{shared}/well.db cannot be" in said
    assert said.endswith("check the rights of the file and its folder")


@needs_root
def test_reading_only_needs_no_right_to_write(shared: Path) -> None:
    store = SqliteStore(shared / "well.db")  # open elsewhere, so that its WAL is there
    try:
        assert as_nobody(shared / "well.db", "read") == "opened"
    finally:
        store.close()


# -- schema


def test_a_store_of_a_newer_version(path: Path) -> None:
    make(path, f"update meta set value = '{SCHEMA + 1}' where key = 'schema'")
    for read_only in (False, True):
        with pytest.raises(SchemaTooNew, match="install a newer one") as caught:
            SqliteStore(path, read_only=read_only)
        assert (caught.value.found, caught.value.expected) == (SCHEMA + 1, SCHEMA)


def test_an_older_store_is_migrated_unless_it_is_only_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    steps = [*migrations("sqlite"), (SCHEMA + 1, "more", "alter table run add column more text;")]
    for module in (_sqlite_schema, _sqlite_file):
        monkeypatch.setattr(module, "SCHEMA", SCHEMA + 1)
    monkeypatch.setattr(_sqlite_schema, "migrations", lambda kind: steps)
    with pytest.raises(SchemaTooOld, match="migrates it") as caught:
        SqliteStore(path, read_only=True)
    assert (caught.value.found, caught.value.expected) == (SCHEMA, SCHEMA + 1)
    store = SqliteStore(path)
    assert store.file.read("select more from run") == []
    assert store.facts()["schema"] == str(SCHEMA + 1)
    store.close()


def test_a_migration_that_fails_leaves_the_store_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    steps = [*migrations("sqlite"), (SCHEMA + 1, "more", "create table more (x); select nonsense;")]
    for module in (_sqlite_schema, _sqlite_file):
        monkeypatch.setattr(module, "SCHEMA", SCHEMA + 1)
    monkeypatch.setattr(_sqlite_schema, "migrations", lambda kind: steps)
    with pytest.raises(JournalError, match="no such column: nonsense"):
        SqliteStore(path)
    monkeypatch.undo()
    store = SqliteStore(path)
    assert store.file.read("select name from sqlite_master where name = 'more'") == []
    store.close()


def test_reading_only(path: Path) -> None:
    store = SqliteStore(path)
    lease = start(store)
    reader = open_sqlite(path, read_only=True)
    assert reader.run_get("r") is not None
    assert list(reader.check()) == []
    for use in (
        lambda: reader.batch_commit([step(lease)]), lambda: reader.fact_deliver("r", "x", 1, b""), reader.transaction
    ):  # fmt: skip
        with pytest.raises(JournalError, match="was opened for reading only"):
            use()
    reader.close()
    store.close()


def test_every_table_says_what_breaks(store: SqliteStore) -> None:
    text = "".join(sql for _, _, sql in migrations("sqlite"))
    paragraphs = text.split("\n\n")
    for (name,) in store.file.read("select name from sqlite_master where type = 'table' and name not like 'sqlite%'"):
        about = [p for p in paragraphs if f"create table {name} (" in p]
        assert len(about) == 1, name
        assert about[0].lstrip().startswith("--"), name


# -- the process never opens the files (ENGINE.md §6)


def test_the_process_opens_the_files_through_sqlite_only(path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        opened = []
        sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
        from stepwell.journal._sqlite import SqliteStore
        from stepwell.journal._api import RunFilter
        from stepwell.journal._liveness import local_worker
        from tests.journal.sqlite_rows import commit, start, step
        path = sys.argv[1]
        store = SqliteStore(path)
        store.worker_register(local_worker(worker_id="w"))
        lease = start(store)
        for i in range(600):
            commit(store, step(lease, "x" * 50))
        store.blob_put(b"h", iter([b"x" * 10]))
        store.worker_beat("w"), store.worker_silence(), store.run_list(RunFilter(), limit=1), store.wait(0)
        list(store.check()), store.facts(), list(store.gc(RunFilter(), dry_run=False))
        transaction = store.transaction()
        transaction.commit(step(lease))
        store.close()
        SqliteStore(path).close()
        print([name for name in opened if os.path.realpath(name) in (path, path + "-wal", path + "-shm")])
        print(any(name.endswith("-lock") for name in opened))
        """
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (told.stdout, told.stderr) == ("[]\nTrue\n", "")


# -- the WAL


def test_the_wal_is_grown_once_and_kept(store: SqliteStore) -> None:
    lease = start(store)
    commit(store, step(lease))
    assert store.file.wal_bytes() < 1 << 20
    for _ in range(_sqlite_file.PRIME_AFTER):
        commit(store, step(lease))
    grown = store.file.wal_bytes()
    assert grown > 4 << 20
    for i in range(2 * _sqlite_file.CHECKPOINT_PAGES):
        commit(store, step(lease, str(i)))
    assert store.file.wal_bytes() == grown
    assert store.file.read("select count(*) from blob_chunk") == [(0,)]
    assert value(store, "cache_size") == -2000
    assert list(store.check()) == []


def test_growing_the_wal_can_fail(store: SqliteStore) -> None:
    lease = start(store)
    pages = value(store, "page_count")
    store.file.write.execute(f"pragma max_page_count = {pages + 4}")
    for i in range(_sqlite_file.PRIME_AFTER + 2):
        commit(store, step(lease, str(i)))
    assert not store.file.write.in_transaction


def test_a_killed_process_leaves_a_grown_wal_that_is_read_right(path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        from stepwell.journal._sqlite import SqliteStore
        from tests.journal.sqlite_rows import commit, start, step
        store = SqliteStore(sys.argv[1])
        lease = start(store)
        for i in range(60):
            commit(store, step(lease, str(i)))
            print(lease.seq, flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert told.returncode == -9
    assert path.with_name("well.db-wal").stat().st_size > 4 << 20
    copy = path.with_name("copy.db")  # as a power cut would leave it: no memory shared, nothing in the database file
    for end in ("", "-wal"):
        shutil.copy(f"{path}{end}", f"{copy}{end}")
    for file in (path, copy):
        store = SqliteStore(file)
        assert [entry.seq for entry in store.record_load(1)] == list(range(1, int(told.stdout.split()[-1]) + 1))
        assert list(store.check()) == []
        store.close()


def test_the_wal_begins_anew_when_it_is_large(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_file, "WAL_LIMIT", 1 << 20)
    monkeypatch.setattr(_sqlite_file, "LOOK_EVERY", 50)
    lease = start(store)
    reader = store.file.reader_take()
    reader.execute("begin")
    reader.execute("select * from run").fetchall()
    while store.file._blocked_until == 0.0:
        commit(store, step(lease, "x" * 2000))
    assert store.facts()["wal"] != "0 bytes"
    reader.execute("rollback")
    store.file.reader_give(reader)
    store.file._blocked_until = 0.0
    large = store.file.wal_bytes()
    for _ in range(51):
        commit(store, step(lease, "x" * 2000))
    assert store.file.wal_bytes() <= large
    checkpoint = store.file.write.execute("pragma wal_checkpoint(passive)").fetchone()
    assert checkpoint[1] < 200  # pages in it: begun anew a while ago


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("begin")
connection.execute("select * from run").fetchall()
print("reads", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/locks")
def test_a_reader_that_keeps_the_wal_is_named(path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = start(store)
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        for _ in range(30):
            commit(store, step(lease))
        assert store.facts()["reading now"] == f"pid {reader.pid}"
        monkeypatch.setattr("stepwell.journal._sqlite_check.WAL_LIMIT", 1 << 20)
        problems = list(store.check())
        reader.communicate()
    assert len(problems) == 1
    assert f"a reader keeps it from beginning anew (pid {reader.pid})" in problems[0]
    assert "reading now" not in store.facts()


# -- others at the file


def test_a_program_that_holds_the_file_is_waited_for_then_named(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = start(store)
    monkeypatch.setattr(_sqlite_file, "BUSY_SECONDS", 0.05)
    store.file.write.execute("pragma busy_timeout = 10")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    for batches in ([step(lease)], [step(lease), step(lease, ahead=2)]):
        with pytest.raises(JournalBusy, match="locked by a program that is not Stepwell") as caught:
            store.batch_commit(batches)
        assert caught.value.holder == "another program"
    other.execute("rollback")
    other.close()
    commit(store, step(lease))


def test_waiting_sees_other_processes_and_this_one(path: Path, store: SqliteStore) -> None:
    other = SqliteStore(path)
    lease = start(store)
    store.wait(0)  # from here on this thread sees changes
    commit(other, step(lease))
    store.wait(60)
    store.poke()
    store.wait(60)
    woken = threading.Event()

    def work() -> None:
        store.wait(0)
        woken.set()
        store.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    woken.wait()
    commit(other, step(lease))
    thread.join()
    other.close()


def test_what_changed_between_two_waits_is_not_slept_over(path: Path, store: SqliteStore) -> None:
    other = SqliteStore(path)
    lease = start(store)
    store.wait(0)
    for _ in range(3):
        commit(other, step(lease))
        store.wait(60)
    other.close()


# -- fork


def test_in_a_forked_child_the_store_is_dead(path: Path, store: SqliteStore) -> None:
    lease = start(store)
    store.run_get("r")
    store.wait(0)
    transaction = store.transaction()

    def work() -> list[bool]:
        said: list[bool] = []
        for use in (
            lambda: store.batch_commit([step(lease)]), lambda: store.run_get("r"), lambda: store.wait(1),
            store.transaction, lambda: store.worker_beat("w"), lambda: transaction.commit(step(lease)),
        ):  # fmt: skip
            try:
                use()
            except JournalError as error:
                said.append("opened before a fork: open it again" in str(error))
        store.poke()
        transaction.rollback()
        store.close()
        fresh = SqliteStore(path)  # what it opens itself works
        said.append(fresh.run_get("r") is not None)
        fresh.close()
        return said

    assert in_child(work) == str([True] * 7)
    assert transaction.commit(step(lease)) is None
    lease.seq += 1
    commit(store, step(lease))
    assert list(store.check()) == []


def test_a_child_that_ends_as_python_does_takes_nothing_away(path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        from stepwell.journal._sqlite import SqliteStore
        from tests.journal.sqlite_rows import commit, start, step
        store = SqliteStore(sys.argv[1])
        lease = start(store)
        store.run_get("r")
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        os.waitpid(pid, 0)
        assert os.path.exists(sys.argv[1] + "-wal")
        other = SqliteStore(sys.argv[1])
        commit(other, step(lease))
        other.close()
        commit(store, step(lease))
        store.close()
        """
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
