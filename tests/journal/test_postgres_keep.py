"""Large values and retention where writers and collections meet (ENGINE.md §11)."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stepwell.errors import Corrupt, Fenced, JournalError
from stepwell.journal import _postgres_keep
from stepwell.journal._api import End, GcResult, Note, RunFilter
from stepwell.journal._postgres import PostgresStore
from stepwell.testing._clock import START
from stepwell.testing._store_rig import DAY, StoreRig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OLD = b"old"
NOTHING = RunFilter(queue="nothing")


class Rig(StoreRig):
    def __init__(self, url: str) -> None:
        super().__init__(lambda clock: PostgresStore(url, clock))
        self.url = url

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        assert self.store.kind == "postgres"  # which makes the tables
        with psycopg.connect(self.url) as connection:
            yield connection

    def old_blob(self, digest: bytes = OLD) -> None:
        self.store.blob_put(digest, iter([b"value"]))
        with self.session() as session:
            session.execute("update stepwell.blob set touched_at = touched_at - %s where hash = %s", (2 * DAY, digest))

    def gc(self, where: RunFilter = NOTHING, **options: Any) -> GcResult:
        *_, last = self.store.gc(where, dry_run=False, **options)
        return last

    def while_waiting(self, call: Callable[[], Any], then: Callable[[], object]) -> Any:
        """Call in a thread; when it waits for a lock, do ``then``; its answer."""
        answers: list[Any] = []

        def run() -> None:
            try:
                answers.append(call())
            except BaseException as error:
                answers.append(error)

        query = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() "
            "and application_name like 'stepwell%'"
        )
        thread = threading.Thread(target=run)
        with psycopg.connect(self.url, autocommit=True) as watcher:
            thread.start()
            try:
                deadline = time.monotonic() + 20
                while watcher.execute(query).fetchone() != (1,):
                    assert time.monotonic() < deadline, "nobody came to wait"
            finally:
                then()
                thread.join()
        return answers[0]


@pytest.fixture
def rig(postgres_database: str) -> Iterator[Rig]:
    found = Rig(postgres_database)
    try:
        yield found
    finally:
        for store in found._stores:
            store.close()


def test_a_collection_leaves_what_a_writer_touches(rig: Rig) -> None:
    """A writer found the blob and touches it; the collection that comes meanwhile leaves it."""
    rig.old_blob()
    with rig.session() as session:
        session.execute("update stepwell.blob set touched_at = touched_at + %s where hash = %s", (2 * DAY, OLD))
        assert rig.gc().blobs == 0
        session.commit()
    assert rig.gc().blobs == 0
    assert rig.store.blob_get(OLD) == b"value"


def test_a_collection_leaves_what_a_writer_refers_to(rig: Rig) -> None:
    """The writer's reference is not committed, and its blob was last touched days ago."""
    rig.old_blob()
    lease = rig.start("r")
    with rig.session() as session:
        session.execute("insert into stepwell.blob_ref values (%s, %s)", (lease.rid, OLD))
        assert rig.gc().blobs == 0
        session.commit()
    assert rig.gc().blobs == 0
    assert rig.store.blob_get(OLD) == b"value"


def delete(rig: Rig, session: psycopg.Connection[Any]) -> None:
    """A collection by its own statements, up to its COMMIT."""
    assert isinstance(rig.store, PostgresStore)
    sql = rig.store._sql
    found = session.execute(sql.text("blob_gone_lock"), {"hash": b"", "limit": 50}).fetchall()
    assert found == [(OLD,)]
    session.execute(sql.text("blob_gone"), {"blobs": [OLD]})


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("group", [True, False])
def test_a_writer_that_comes_too_late_is_told(rig: Rig, commits: bool, group: bool) -> None:
    """The collection has deleted the blob and not committed: the record that refers to it waits, and is refused, alone
    and not as `Fenced`, rather than left without its value.
    """
    rig.old_blob()
    lease, other = rig.start("r"), rig.start("other")
    batch = rig.batch(lease, rig.record(), blobs=[OLD])
    batches = [batch, rig.batch(other, rig.record(), notes=[Note("k", "log", START, "x")])] if group else [batch]
    with rig.session() as session:
        delete(rig, session)
        results = rig.while_waiting(lambda: rig.submit(*batches), session.commit if commits else session.rollback)
    assert results[1:] == [None] * group
    if not commits:
        assert results[0] is None
        assert rig.store.blob_get(OLD) == b"value"
        return
    assert isinstance(results[0], JournalError)
    assert not isinstance(results[0], Fenced)
    assert "put it again" in str(results[0])
    assert len(rig.texts(lease.rid)) == 1
    rig.store.blob_put(OLD, iter([b"value"]))
    rig.commit(batch)


@pytest.mark.parametrize("commits", [True, False])
def test_a_writer_that_puts_again_what_is_being_deleted(rig: Rig, commits: bool) -> None:
    rig.old_blob()
    with rig.session() as session:
        delete(rig, session)
        result = rig.while_waiting(
            lambda: rig.store.blob_put(OLD, iter([b"value"])), session.commit if commits else session.rollback
        )
    assert result is None
    assert rig.store.blob_get(OLD) == b"value"
    assert rig.gc().blobs == 0


def test_two_writers_of_one_blob(rig: Rig) -> None:
    """The second waits for the first and keeps what that one wrote: chunks of the two never mix."""
    with rig.session() as session:
        session.execute("insert into stepwell.blob values ('x', 2, 0)")
        session.execute("insert into stepwell.blob_chunk values ('x', 0, 'a'), ('x', 1, 'b')")
        result = rig.while_waiting(lambda: rig.store.blob_put(b"x", iter([b"cc", b"d", b"e"])), session.commit)
    assert result is None
    assert rig.store.blob_get(b"x") == b"ab"


def test_a_blob_that_lost_a_chunk(rig: Rig) -> None:
    rig.store.blob_put(b"x", iter([b"a" * (1 << 20), b"b"]))
    with rig.session() as session:
        session.execute("delete from stepwell.blob_chunk where i = 1")
    with pytest.raises(Corrupt):
        rig.store.blob_get(b"x")
    assert list(rig.store.check()) == [f"the chunks of blob {b'x'.hex()} do not make up its size"]


def test_a_large_blob_is_not_kept_twice(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a small one can be written again after its connection is lost; a large one says so."""
    monkeypatch.setattr(_postgres_keep, "KEPT", 10)
    assert isinstance(rig.store, PostgresStore)
    pids = []

    def chunks() -> Iterator[bytes]:
        yield b"123456"
        yield b"123456"
        assert isinstance(rig.store, PostgresStore)
        pgconn = rig.store._link._pgconn
        assert pgconn is not None
        pids.append(pgconn.backend_pid)
        with rig.session() as session:
            session.execute("select pg_terminate_backend(%s, 5000)", (pids[-1],))
        yield b"123456"

    with pytest.raises(JournalError, match="write it again"):
        rig.store.blob_put(b"x", chunks())
    monkeypatch.setattr(_postgres_keep, "KEPT", 100)
    rig.store.blob_put(b"x", chunks())
    assert rig.store.blob_get(b"x") == b"123456" * 3


def ended(rig: Rig, run_id: str, **columns: Any) -> None:
    lease = rig.start(run_id, **columns)
    rig.append(lease, *"abc")
    rig.commit(rig.batch(lease, rig.record(), change=End("succeeded")))


def test_a_run_that_is_opened_again_is_left(rig: Rig) -> None:
    """The collection waits for the reopening, and finds the run open."""
    ended(rig, "r")
    with rig.session() as session:
        session.execute("update stepwell.run set status = null, ended_at = null")
        session.execute(
            "insert into stepwell.hot (rid, queue, function, status, epoch, ttl) select rid, '', '', 'pending', 2, 9 from stepwell.run"
        )
        counts = rig.while_waiting(lambda: rig.gc(RunFilter()), session.commit)
    assert counts.runs == 0
    assert len(rig.texts(rig.row("r").rid)) == 5


def test_the_others_go_without_a_run_that_is_opened_again(rig: Rig) -> None:
    """Runs are taken in groups: one that is opened while its group is taken keeps no other."""
    for run_id in ("a", "r", "z"):
        ended(rig, run_id)
    with rig.session() as session:
        session.execute("update stepwell.run set status = null, ended_at = null where id = 'r'")
        session.execute(
            "insert into stepwell.hot (rid, queue, function, status, epoch, ttl)"
            " select rid, '', '', 'pending', 2, 9 from stepwell.run where id = 'r'"
        )
        counts = rig.while_waiting(lambda: rig.gc(RunFilter()), session.commit)
    assert counts.runs == 2
    assert [row.id for row in rig.store.run_list(RunFilter(), limit=9)] == ["r"]
    assert len(rig.texts(rig.row("r").rid)) == 5
    assert list(rig.store.check()) == []


def test_an_opening_behind_a_collection(rig: Rig) -> None:
    ended(rig, "r")
    rid = rig.row("r").rid
    with rig.session() as session:
        session.execute("delete from stepwell.run")
        opened = rig.while_waiting(lambda: rig.store.run_reopen(rid, "w2", rig.taken_as(2, "w2")), session.commit)
    assert opened is None
    assert rig.store.hot_get("r") is None


@pytest.mark.parametrize("commits", [True, False])
def test_an_opening_behind_the_beginning_of_a_collection(rig: Rig, commits: bool) -> None:
    """The run has more rows of doors than one transaction takes: it is in the catalogue still, and nobody opens it."""
    ended(rig, "r")
    rid = rig.row("r").rid
    with rig.session() as session:
        session.execute("select 1 from stepwell.run for update")
        session.execute("insert into stepwell.gone (rid) values (%s)", (rid,))
        end = session.commit if commits else session.rollback
        opened = rig.while_waiting(lambda: rig.store.run_reopen(rid, "w2", rig.taken_as(2, "w2")), end)
    assert (opened is None) == (rig.store.hot_get("r") is None) == commits
    assert rig.row("r").status == ("succeeded" if commits else "running")
    rig.gc()
    assert (rig.store.run_get("r") is None) == commits


def test_many_children(rig: Rig) -> None:
    """A family larger than a transaction may be goes in several; broken off, it goes on with the next collection."""
    ended(rig, "parent")
    starts = [rig.start_batch(f"child {i}", parent="parent") for i in range(40)]
    rig.commit(*starts)
    rig.commit(*(rig.batch(start.lease, rig.record(), change=End("failed")) for start in starts))
    steps = rig.store.gc(RunFilter(id_prefix="parent"), dry_run=False, max_rows=7)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert 0 < rig.store.run_count(RunFilter()) < 41
    assert rig.row("parent").status == "succeeded"
    rig.gc(RunFilter(id_prefix="parent"), max_rows=7)
    assert rig.store.run_count(RunFilter()) == 0
    with rig.session() as session:
        for table in ("record", "hot", "gone", "note"):
            assert session.execute(f"select count(*) from stepwell.{table}").fetchone() == (0,)
    assert list(rig.store.check()) == []


def test_workers_that_nobody_has_heard_of_for_a_day(rig: Rig) -> None:
    """Their rows go with a collection, by the server's clock alone, unless runs are still theirs."""
    for name in ("lives", "dead", "holds"):
        rig.store.worker_register(rig.worker(name))
    rig.start("r", "holds")
    with rig.session() as session:
        session.execute("update stepwell.worker set beat_at = beat_at - %s where id <> 'lives'", (2 * DAY,))
    rig.gc()
    assert [info.id for info in rig.store.worker_list()] == ["holds", "lives"]
    rig.store.worker_beat("dead")  # it only slept
    assert [info.id for info in rig.store.worker_list()] == ["dead", "holds", "lives"]
