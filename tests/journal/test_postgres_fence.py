"""What two connections do to each other while one of them has not committed yet (ENGINE.md §3, §4, §8)."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stepwell.core import encode_records
from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import DoorRow, End, InboxChanged, Lease, Note, Outgoing, Park, Release, RunExists, Unpark
from stepwell.journal._postgres import PostgresStore
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, StoreRig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.journal._api import Batch, HotChange


class Rig(StoreRig):
    def __init__(self, url: str) -> None:
        super().__init__(lambda clock: PostgresStore(url, clock))
        self.url = url

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection[Any]]:
        """Somebody else, in a transaction that the test ends."""
        assert self.store.kind == "postgres"  # which makes the tables
        with psycopg.connect(self.url) as connection:
            yield connection

    def sql(self, name: str) -> str:
        assert isinstance(self.store, PostgresStore)
        return self.store._sql.text(name)

    def take(self, session: psycopg.Connection[Any], lease: Lease, worker: str = "w2") -> None:
        """Take the run over in a transaction that is not committed."""
        values = {
            "rid": lease.rid, "seen_epoch": lease.epoch, "seen_owner": lease.worker, "owner": worker,
            "epoch": lease.epoch + 1, "status": "running", "ttl": 30.0,
            "data": encode_records(list(self.taken_as(lease.epoch + 1, worker).records)),
        }  # fmt: skip
        assert session.execute(self.sql("run_claim"), values).fetchone() is not None

    def deliver(self, session: psycopg.Connection[Any], run_id: str) -> None:
        """Deliver a fact in a transaction that is not committed."""
        values = {
            "id": run_id, "kind": "signal", "at": START, "data": b"s", "now": self.store.now(), "notify": False,
            "channel": "c", "token": "t",
        }  # fmt: skip
        assert session.execute(self.sql("fact_deliver"), values).fetchone() is not None

    def while_waiting(self, call: Callable[[], Any], then: Callable[[], object], waiters: int = 1) -> Any:
        """Call in a thread; when its session waits for a lock, do ``then``; the call's answer."""
        answers: list[Any] = []

        def run() -> None:
            try:
                answers.append(call())
            except BaseException as error:
                answers.append(error)

        thread = threading.Thread(target=run)
        with psycopg.connect(self.url, autocommit=True) as watcher:
            thread.start()
            try:
                self.until_waiting(watcher, waiters)
            finally:
                then()
                thread.join()
        return answers[0]

    def until_waiting(self, watcher: psycopg.Connection[Any], waiters: int = 1) -> None:
        deadline = time.monotonic() + 20
        query = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() "
            "and application_name like 'stepwell%'"
        )
        while watcher.execute(query).fetchone() != (waiters,):
            assert time.monotonic() < deadline, "nobody came to wait"


@pytest.fixture
def rig(postgres_database: str) -> Iterator[Rig]:
    found = Rig(postgres_database)
    try:
        yield found
    finally:
        for store in found._stores:
            store.close()


changes: list[HotChange | None] = [
    None, Park(START, "x", 0, release=True), Park(None, "x", 0, release=False), Unpark(),
    Unpark(inbox_seen=0), Release("interrupted"), End("succeeded"),
]  # fmt: skip
each_change = pytest.mark.parametrize("change", changes)


@each_change
@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("commits", [True, False])
def test_behind_a_takeover(rig: Rig, change: HotChange | None, records: bool, commits: bool) -> None:
    """While the takeover is not committed the old epoch is still seen. The zombie waits all the same, and is fenced if
    the takeover commits; if it is given up, the holder has lost nothing.
    """
    lease = rig.start("r", "w1")
    rig.append(lease, "a")
    batch = rig.batch(
        lease, *([rig.record("late")] if records else []), change=change, notes=[Note("k", "log", START, "late")],
        rows=[DoorRow("d", "k", "x", b"late")],
    )  # fmt: skip
    with rig.session() as session:
        rig.take(session, lease)
        result = rig.while_waiting(lambda: rig.submit(batch), session.commit if commits else session.rollback)
    rig.kinds(result, [Fenced if commits else None], "result")
    assert rig.store.row_get("d", "k", "x") == (None if commits else b"late")
    if commits:
        assert [(seq, epoch) for seq, epoch, _ in rig.texts(lease.rid)] == [(1, 1), (2, 1), (3, 2)]
        assert (rig.hot("r").owner, rig.hot("r").status) == ("w2", "running")


def test_a_step_behind_a_takeover(rig: Rig) -> None:
    """The fast path: one statement, fenced by the primary key alone."""
    lease = rig.start("r", "w1")
    with rig.session() as session:
        rig.take(session, lease)
        result = rig.while_waiting(lambda: rig.submit(rig.batch(lease, rig.record())), session.commit)
    rig.kinds(result, [Fenced], "result")
    assert [(seq, epoch) for seq, epoch, _ in rig.texts(lease.rid)] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_zombie_with_a_chain_among_fifty(rig: Rig, commits: bool) -> None:
    """Three queued batches of a zombie wait on the claim's commit, in a group with fifty healthy runs: none of the three
    is in, all of the others are.
    """
    healthy = [rig.start(f"h{i}") for i in range(50)]
    zombie = rig.start("z", "w1")
    group = [rig.batch(lease, rig.record(), seq=2, notes=[Note("k", "log", START, "x")]) for lease in healthy]
    for place, seq in ((40, 4), (20, 3), (0, 2)):
        group.insert(place, rig.batch(zombie, rig.record(f"zombie {seq}"), seq=seq))
    with rig.session() as session:
        rig.take(session, zombie)
        results = rig.while_waiting(lambda: rig.submit(*group), session.commit if commits else session.rollback)
    fate = Fenced if commits else None
    rig.kinds(results, [fate if batch.lease is zombie else None for batch in group], "results")
    assert {len(rig.texts(lease.rid)) for lease in healthy} == {2}
    notes = [rig.store.note_load(rig.rid(lease), kind=None, key=None, after=0, limit=9) for lease in healthy]
    assert {len(found) for found in notes} == {1}
    epochs = [epoch for _, epoch, _ in rig.texts(zombie.rid)]
    assert epochs == ([1, 2] if commits else [1, 1, 1, 1])


def test_a_mixed_group_with_zombies(rig: Rig) -> None:
    """Starts, ends, parks and steps of healthy runs are written although two zombies of the group are fenced, one by a
    step and one by its end.
    """
    runs = {name: rig.start(name, "w1") for name in ("step", "end1", "end2", "park", "z1", "z2")}
    group = [
        rig.start_batch("new1"),
        rig.batch(runs["step"], rig.record(), seq=2),
        rig.batch(runs["z1"], rig.record()),
        rig.batch(runs["end1"], rig.record(), change=End("succeeded")),
        rig.start_batch("new2", held=False),
        rig.batch(runs["z2"], rig.record(), change=End("failed")),
        rig.batch(runs["park"], rig.record(), change=Park(START + HOUR, "nap", 0, release=True)),
        rig.batch(runs["step"], rig.record(), seq=3),
        rig.batch(runs["end2"], rig.record(), change=End("failed", "why")),
    ]
    with rig.session() as session:
        rig.take(session, runs["z1"])
        rig.take(session, runs["z2"])
        results = rig.while_waiting(lambda: rig.submit(*group), session.commit)
    rig.kinds(results, [None, None, Fenced, None, None, Fenced, None, None, None], "results")
    statuses = [rig.row(name).status for name in ("step", "end1", "end2", "park", "z1", "z2", "new1", "new2")]
    assert statuses == ["running", "succeeded", "failed", "waiting", "running", "running", "running", "pending"]
    assert list(rig.store.check()) == []


@each_change
@pytest.mark.parametrize("wrong", ["owner", "epoch", "seq"])
@pytest.mark.parametrize("group", [True, False])
def test_a_lease_that_is_wrong(rig: Rig, change: HotChange | None, *, wrong: str, group: bool) -> None:
    """Worker, epoch and seq have to fit, in every statement that writes: alone, and among others of its kind."""
    lease = rig.start("r", "w1")
    others = [rig.start(f"other {i}") for i in range(3)] if group else []
    stale = Lease("r", "w2" if wrong == "owner" else "w1", rid=lease.rid, epoch=1 + (wrong == "epoch"), seq=1)
    before = rig.seen("r")
    batches = [rig.batch(one, rig.record(), change=change) for one in (*others[0:1], stale, *others[1:])]
    if wrong == "seq":
        batches[len(batches) // 3].seq = 3
    results = rig.submit(*batches)
    rig.kinds(results, [Fenced if batch.lease is stale else None for batch in batches], "results")
    assert rig.seen("r") == before


def test_a_claim_behind_an_append(rig: Rig) -> None:
    """The holder's row is inserted and not committed: the claim waits, and gets the seq after it."""
    lease = rig.start("r", "w1")
    hot = rig.hot("r")
    data = encode_records([rig.record("last")])
    with rig.session() as session:
        session.execute("insert into stepwell.record values (%s, 2, 1, %s)", (lease.rid, data))
        claimed = rig.while_waiting(lambda: rig.store.run_claim(hot, "w2", rig.taken(hot, "w2")), session.commit)
    assert (claimed.seq, claimed.epoch) == (3, 2)
    assert [(seq, epoch) for seq, epoch, _ in rig.texts(lease.rid)] == [(1, 1), (2, 1), (3, 2)]


@pytest.mark.parametrize("commits", [True, False])
def test_a_claim_behind_a_claim(rig: Rig, commits: bool) -> None:
    lease = rig.start("r", "w1")
    hot = rig.hot("r")
    with rig.session() as session:
        rig.take(session, lease)
        claimed = rig.while_waiting(
            lambda: rig.store.run_claim(hot, "w3", rig.taken(hot, "w3")),
            session.commit if commits else session.rollback,
        )
    assert (claimed is None) == commits
    assert rig.hot("r").owner == ("w2" if commits else "w3")


def test_a_claim_behind_a_delivery(rig: Rig) -> None:
    """The inbox may grow: a row that is only locked for a fact is not lost to the claim."""
    rig.start("r", held=False)
    hot = rig.hot("r")
    with rig.session() as session:
        rig.deliver(session, "r")
        claimed = rig.while_waiting(lambda: rig.store.run_claim(hot, "w2", rig.taken(hot, "w2")), session.commit)
    assert (claimed.inbox, rig.hot("r").owner, rig.hot("r").inbox) == (1, "w2", 1)


@pytest.mark.parametrize("records", [True, False])
def test_an_unpark_behind_a_delivery(rig: Rig, records: bool) -> None:
    """The delivery is not committed when the wait is to end for lack of it: the end waits, then is refused."""
    lease = rig.start("r")
    rig.park(lease, None, release=False)
    over = rig.batch(lease, *([rig.record()] if records else []), change=Unpark(inbox_seen=0))
    with rig.session() as session:
        rig.deliver(session, "r")
        result = rig.while_waiting(lambda: rig.submit(over), session.commit)
    rig.kinds(result, [InboxChanged], "result")
    assert (rig.hot("r").status, rig.hot("r").inbox, len(rig.texts(lease.rid))) == ("waiting", 1, 2)


@pytest.mark.parametrize("release", [True, False])
def test_a_park_behind_a_delivery(rig: Rig, release: bool) -> None:
    """A signal that commits while the holder parks is not overwritten: the holder has to read it."""
    lease = rig.start("r", "w1")
    batch = rig.batch(lease, rig.record(), change=Park(START + HOUR, "nap", 0, release=release))
    with rig.session() as session:
        rig.deliver(session, "r")
        result = rig.while_waiting(lambda: rig.submit(batch), session.commit)
    rig.kinds(result, [InboxChanged], "result")
    assert (rig.hot("r").status, rig.hot("r").owner, len(rig.texts(lease.rid))) == ("running", "w1", 1)


def test_a_delivery_behind_a_park(rig: Rig) -> None:
    lease = rig.start("r", "w1")
    with rig.session() as session:
        session.execute(
            "update stepwell.hot set status = 'waiting', owner = null, wake_at = null where rid = %s", (lease.rid,)
        )
        delivered = rig.while_waiting(lambda: rig.store.fact_deliver("r", "signal", START, b"s"), session.commit)
    assert delivered is True
    assert (rig.hot("r").inbox, rig.hot("r").status) == (1, "waiting")
    assert rig.hot("r").wake_at is not None


def test_a_delivery_behind_an_end(rig: Rig) -> None:
    lease = rig.start("r", "w1")
    with rig.session() as session:
        session.execute("delete from stepwell.hot where rid = %s", (lease.rid,))
        delivered = rig.while_waiting(lambda: rig.store.fact_deliver("r", "signal", START, b"s"), session.commit)
    assert delivered is False
    assert rig.store.inbox_load(rig.rid(lease)) == []


def test_a_fact_of_a_batch_behind_a_claim(rig: Rig) -> None:
    """The run that is told something is being taken: the fact waits, then is there for the new holder."""
    lease, target = rig.start("r", "w1"), rig.start("t", "w1")
    batch = rig.batch(lease, rig.record(), facts=[Outgoing("t", "child", START, b"s")])
    with rig.session() as session:
        rig.take(session, target)
        result = rig.while_waiting(lambda: rig.submit(batch), session.commit)
    rig.kinds(result, [None], "result")
    assert (rig.hot("t").owner, rig.hot("t").inbox) == ("w2", 1)
    assert [fact.data for fact in rig.store.inbox_load(rig.rid(target))] == [b"s"]


@pytest.mark.parametrize("records", [True, False])
def test_two_runs_that_tell_each_other_something(rig: Rig, records: bool) -> None:
    """Both begin with the lock of the run that was started first: no circle. Whoever waits for it has no other."""
    leases = [rig.start("a", "w1"), rig.start("b", "w2")]
    batches = [
        rig.batch(lease, *([rig.record()] * records), change=End("succeeded"), facts=[Outgoing(to, "x", START, b"s")])
        for lease, to in zip(leases, "ba", strict=True)
    ]
    stores = [rig.store, rig.open()]
    with rig.session() as session, rig.session() as another:
        lock = "select 1 from stepwell.hot where rid = %s for update nowait"
        session.execute(lock, (leases[0].rid,))
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda pair=pair: results.append(rig.submit(pair[1], store=pair[0])))
            for pair in zip(stores, batches, strict=True)
        ]
        for thread in threads:
            thread.start()
        with psycopg.connect(rig.url, autocommit=True) as watcher:
            rig.until_waiting(watcher, 2)
        another.execute(lock, (leases[1].rid,))
        another.rollback()
        session.rollback()
        for thread in threads:
            thread.join()
    assert results == [[None], [None]]
    assert [rig.row(name).status for name in "ab"] == ["succeeded"] * 2


def test_a_start_behind_a_start(rig: Rig) -> None:
    insert = (
        "insert into stepwell.run (id, function, door, created_at, queue, tags, input_hash) "
        "values (%s, 'f', 'd', 1, 'q', '{}', '')"
    )
    for ending, wanted in (("commit", RunExists), ("rollback", None)):
        group = [rig.start_batch(f"{ending}"), rig.start_batch(f"other {ending}")]
        with rig.session() as session:
            session.execute(insert, (ending,))
            results = rig.while_waiting(lambda: rig.submit(*group), getattr(session, ending))  # noqa: B023
        rig.kinds(results, [wanted, None], f"results after {ending}")


def test_two_groups_that_want_each_others_runs(rig: Rig) -> None:
    """Two processes that both believe to hold the same runs, in opposite order: whatever deadlock there is, is solved,
    and each row is written by one of them.
    """
    other = rig.open()
    leases = [rig.start(f"r{i}", "w1") for i in range(20)]
    mine = [rig.batch(lease, rig.record("mine"), seq=2) for lease in leases]
    theirs = [rig.batch(lease, rig.record("theirs"), seq=2) for lease in reversed(leases)]
    answers: dict[str, list[JournalError | None]] = {}
    start = threading.Barrier(2)

    def write(name: str, store: Any, group: list[Batch]) -> None:
        start.wait()
        answers[name] = store.batch_commit(group)

    threads = [
        threading.Thread(target=write, args=("mine", rig.store, mine)),
        threading.Thread(target=write, args=("theirs", other, theirs)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = {
        id(b.lease): b.data for b, r in zip(mine + theirs, answers["mine"] + answers["theirs"], strict=True) if not r
    }
    assert len(won) == 20
    assert sum(result is None for result in answers["mine"] + answers["theirs"]) == 20
    for lease in leases:
        assert rig.texts(lease.rid)[1:] == [(2, 1, won[id(lease)])]


def test_a_fence_is_looked_up_by_run(rig: Rig) -> None:
    """However many runs the worker has held, no plan looks for one among them."""
    assert isinstance(rig.store, PostgresStore)
    sql = rig.store._sql
    leases = [rig.start(f"r{i}") for i in range(300)]
    with psycopg.connect(rig.url, autocommit=True) as connection:
        connection.execute("set enable_seqscan = off; set plan_cache_mode = force_generic_plan")
        for analysed in (False, True):
            if analysed:
                connection.execute("analyze")
            for statement in (
                sql.statement("batch_append"), sql.batch("end", extras=True), sql.batch("park", extras=False),
                sql.batch("set", extras=False), sql.batch("hold", extras=True), sql.statement("batch_append_many"),
                sql.statement("batch_end_many"), sql.statement("run_claim"),
            ):  # fmt: skip
                name = f"{statement.name}_{int(analysed)}"
                connection.pgconn.prepare(name.encode(), statement.sql, statement.types)
                nulls = ", ".join(["null"] * len(statement.types))
                rows = connection.execute(f"explain execute {name}({nulls})").fetchall()
                plan = "\n".join(row[0] for row in rows)
                assert "hot_owner" not in plan, plan
                assert "hot_pkey" in plan, plan
                assert "Seq Scan on hot" not in plan, plan
                assert "Seq Scan on record" not in plan, plan
    assert len(leases) == 300
