"""Commits whose answer never comes (ENGINE.md §3): a proxy cuts the connection before, while or after the server
commits; the store submits the identical batch again and everything is there exactly once.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import psycopg
import pytest

from stepwell.errors import Fenced, JournalError
from stepwell.journal import _postgres_link
from stepwell.journal._api import (
    Claim,
    ClaimLost,
    DoorRow,
    End,
    InboxChanged,
    Note,
    Outgoing,
    Park,
    Release,
    RunExists,
    Unpark,
)
from stepwell.journal._postgres import PostgresStore
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, StoreRig
from tests.postgres_server import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.journal._api import Batch, Clock

When = Literal["before", "during", "after"]
each_moment = pytest.mark.parametrize("when", ["before", "during", "after"])


class CuttingProxy:
    """TCP between a store and its server. `cut` says at which message of the client the connection is lost: before the
    server has it, right after it was passed on, or when the server has answered and the answer is thrown away.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()
        self.url += "?sslmode=disable&gssencmode=disable"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._armed: list[tuple[bytes, When]] = []
        self.cuts = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self, needle: bytes, when: When, times: int = 1) -> None:
        self._armed += [(needle, when)] * times

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.05):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._accept()
                elif sock in self._peers:
                    self._pass(sock)
        for sock in list(self._peers):
            self._drop(sock)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, 5)
        except OSError:
            client.close()
            return
        self._clients.add(client)
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass(self, sock: socket.socket) -> None:
        peer = self._peers[sock]
        try:
            data = sock.recv(1 << 20)
            if data and sock in self._clients and self._armed and self._armed[0][0] in data:
                _, when = self._armed.pop(0)
                if when != "before":
                    peer.sendall(data)
                if when == "after":
                    peer.settimeout(10)
                    peer.recv(1 << 20)
                self.cuts += 1
                data = b""
            if data:
                peer.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        peer = self._peers.pop(sock, None)
        if peer is None:
            return
        del self._peers[peer]
        for end in (sock, peer):
            self._selector.unregister(end)
            self._clients.discard(end)
            end.close()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


class Rig(StoreRig):
    """The first store speaks through the proxy; those that look and compete do not."""

    def __init__(self, url: str, proxy: CuttingProxy) -> None:
        self._urls = iter([proxy.url])
        self._url = url
        super().__init__(self._open_next)
        self.proxy = proxy

    def _open_next(self, clock: Clock) -> PostgresStore:
        return PostgresStore(next(self._urls, self._url), clock)

    def losing(self, needle: bytes, when: When, *batches: Batch) -> list[JournalError | None]:
        """Submit and lose the connection once; the message must have been met."""
        before = self.proxy.cuts
        self.proxy.cut(needle, when)
        results = self.submit(*batches)
        assert self.proxy.cuts == before + 1, "the connection was not cut"
        return results


@pytest.fixture
def proxy(postgres_database: str) -> Iterator[CuttingProxy]:
    found = CuttingProxy(postgres_database)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def rig(postgres_database: str, proxy: CuttingProxy) -> Iterator[Rig]:
    found = Rig(postgres_database, proxy)
    try:
        yield found
    finally:
        for store in found._stores:
            store.close()


def warm_up(rig: Rig) -> None:
    """Have every statement prepared, so that its name stands in the message that uses it and no other."""
    for _ in range(2):
        one, two = rig.start_batch(f"warm {time.monotonic_ns()}"), rig.start_batch(f"warm {time.monotonic_ns()}")
        note = [Note("k", "log", START, "x")]
        rig.commit(one, two)
        rig.append(one.lease)
        rig.commit(rig.batch(one.lease, rig.record(), notes=note), rig.batch(two.lease, rig.record(), notes=note))
        rig.commit(rig.batch(one.lease, rig.record(), notes=note))
        rig.commit(rig.batch(one.lease, notes=note))
        rig.commit(rig.batch(one.lease, change=Park(None, "x", 0, release=False)))
        rig.commit(rig.batch(one.lease, change=Unpark()))
        rig.store.fact_deliver(one.lease.run_id, "signal", START, b"w")
        key = one.lease.run_id
        for change in (None, Unpark()):
            facts = [Outgoing(key, "child", START, b"w")]
            rig.commit(rig.batch(two.lease, rig.record(), change=change, facts=facts))
            rig.commit(rig.batch(two.lease, change=change, facts=facts))
        rig.store.fact_deliver(key, "signal", START, b"w", Claim("run", "warm", key, None, b"1"))
        rig.commit(rig.batch(one.lease, rig.record(), change=End("succeeded")))
        rig.commit(rig.batch(two.lease, change=Release("interrupted")))
        claimed = rig.claim(two.lease.run_id, "w9")
        three = rig.start(f"warm {time.monotonic_ns()}", "w9")
        rig.commit(*(rig.batch(lease, rig.record(), change=End("failed")) for lease in (claimed, three)))
        rig.store.run_reopen(rig.rid(three), "w9", rig.taken_as(2, "w9"))


@each_moment
def test_a_step_is_written_once(rig: Rig, when: When) -> None:
    lease = rig.start("r")
    rig.append(lease, "prepared")
    batch = rig.batch(lease, rig.record("lost"))
    assert rig.losing(b"batch_append", when, batch) == [None]
    assert rig.texts(lease.rid)[2:] == [(3, 1, batch.data)]
    rig.append(lease, "next")


@each_moment
def test_a_group_is_written_once(rig: Rig, when: When) -> None:
    warm_up(rig)
    leases = [rig.start(f"r{i}") for i in range(5)]
    chain = [
        rig.batch(leases[0], rig.record(str(n)), seq=n, notes=[Note("k", "log", START, f"{n}")]) for n in (2, 3, 4)
    ]
    starts = [rig.start_batch(f"new{i}") for i in range(3)]
    ends = [rig.batch(lease, rig.record(), change=End("succeeded")) for lease in leases[1:3]]
    rest = [
        rig.batch(leases[3], rig.record(), change=Park(START, "nap", 0, release=True)),
        rig.batch(leases[4], notes=[Note("k", "log", START, "alone")]),
    ]
    assert rig.losing(b"batch_append_many", when, *starts, *chain, *ends, *rest) == [None] * 10
    for start in starts:
        assert rig.texts(start.lease.rid) == [(1, 1, start.data)]
        rig.append(start.lease)
    assert [seq for seq, _, _ in rig.texts(leases[0].rid)] == [1, 2, 3, 4]
    assert [note.data for _, note in notes(rig, leases[0].rid)] == ["2", "3", "4"]
    assert [note.data for _, note in notes(rig, leases[4].rid)] == ["alone"]
    assert [rig.row(f"r{i}").status for i in range(5)] == ["running", "succeeded", "succeeded", "waiting", "running"]
    rig.append(leases[0])


def notes(rig: Rig, rid: int | None) -> list[tuple[int, Note]]:
    return rig.store.note_load(rid or 0, kind=None, key=None, after=0, limit=99)


@each_moment
@pytest.mark.parametrize("fenced", [False, True])
def test_a_group_with_a_zombie(rig: Rig, when: When, fenced: bool) -> None:
    """What is refused for good reason stays refused in the second try, and what is written is not refused with it."""
    warm_up(rig)
    zombie = rig.start("zombie", "w1")
    healthy = [rig.start(f"r{i}") for i in range(4)]
    if fenced:
        rig.claim("zombie", "w2", store=rig.open())
    group = [rig.batch(lease, rig.record(), seq=2) for lease in (*healthy[:2], zombie, *healthy[2:])]
    results = rig.losing(b"batch_append_many", when, *group)
    rig.kinds(results, [None, None, Fenced if fenced else None, None, None], "results")
    assert {len(rig.texts(lease.rid)) for lease in healthy} == {2}
    assert len(rig.texts(zombie.rid)) == 2


@each_moment
def test_a_start_is_made_once(rig: Rig, when: When) -> None:
    warm_up(rig)
    batch = rig.start_batch("r")
    assert rig.losing(b"batch_one_start", when, batch) == [None]
    rig.append(batch.lease)
    assert len(rig.texts(batch.lease.rid)) == 2
    rig.refused(RunExists, rig.start_batch("r"))


@each_moment
def test_a_start_that_another_process_made(rig: Rig, when: When) -> None:
    """In the second try as in the first: the other's run is not taken for ours."""
    warm_up(rig)
    rig.start("r", "w2", store=rig.open())
    rig.kinds(rig.losing(b"batch_one_start", when, rig.start_batch("r")), [RunExists], "result")


@each_moment
@pytest.mark.parametrize("records", [True, False])
def test_an_end_is_written_once(rig: Rig, when: When, records: bool) -> None:
    warm_up(rig)
    lease = rig.start("r")
    batch = rig.batch(lease, *([rig.record()] if records else []), change=End("failed", "why"))
    assert rig.losing(b"batch_one_end", when, batch) == [None]
    assert (rig.row("r").status, rig.row("r").reason, rig.store.hot_get("r")) == ("failed", "why", None)
    assert len(rig.texts(lease.rid)) == 1 + records


@each_moment
@pytest.mark.parametrize(
    "change, gate, wanted",
    [
        (Release("blocked", "why"), b"batch_one_set", ("blocked", None)),
        (Park(START + HOUR, "nap", 0, release=True), b"batch_one_park", ("waiting", None)),
        (Park(None, "nap", 0, release=False), b"batch_one_park", ("waiting", "w1")),
        (Unpark("rolling_back"), b"batch_one_set", ("rolling_back", "w1")),
        (Unpark("rolling_back", inbox_seen=0), b"batch_one_set", ("rolling_back", "w1")),
    ],
)
@pytest.mark.parametrize("records", [True, False])
def test_a_change_is_made_once(
    rig: Rig, when: When, *, change: Any, gate: bytes, wanted: tuple[str, str | None], records: bool
) -> None:
    warm_up(rig)
    lease = rig.start("r")
    batch = rig.batch(lease, *([rig.record()] if records else []), change=change, rows=[DoorRow("d", "k", "x", b"1")])
    rig.commit(rig.batch(rig.start("other"), change=change, rows=[DoorRow("d", "k", "o", b"1")]))  # prepared, with rows
    assert rig.losing(gate, when, batch) == [None]
    assert (rig.hot("r").status, rig.hot("r").owner) == wanted
    assert len(rig.texts(lease.rid)) == 1 + records
    assert rig.store.row_get("d", "k", "x") == b"1"


@each_moment
@pytest.mark.parametrize("records", [True, False])
def test_an_unpark_that_overtakes_a_fact_is_refused(rig: Rig, when: When, records: bool) -> None:
    """Also where the run is as the unpark would leave it."""
    warm_up(rig)
    lease = rig.start("r")
    rig.store.fact_deliver("r", "answer", START, b"s")
    batch = rig.batch(lease, *([rig.record()] if records else []), change=Unpark(inbox_seen=0))
    rig.kinds(rig.losing(b"batch_one_set", when, batch), [InboxChanged], "result")
    assert len(rig.texts(lease.rid)) == 1


@each_moment
def test_notes_alone_are_written_once(rig: Rig, when: When) -> None:
    warm_up(rig)
    lease = rig.start("r")
    said = [Note("k", "log", START, "one"), Note("k", "log", START, "two\0")]
    assert rig.losing(b"batch_one_hold", when, rig.batch(lease, notes=said)) == [None]
    assert [note for _, note in notes(rig, lease.rid)] == said


@each_moment
def test_a_claim_is_made_once(rig: Rig, when: When) -> None:
    warm_up(rig)
    rig.start("r", held=False)
    hot = rig.hot("r")
    rig.proxy.cut(b"run_claim", when)
    lease = rig.store.run_claim(hot, "w2", rig.taken(hot, "w2"))
    assert rig.proxy.cuts == 1
    assert lease is not None
    assert (lease.seq, lease.epoch, rig.hot("r").owner, len(rig.texts(lease.rid))) == (2, 2, "w2", 2)
    rig.append(lease)


@each_moment
def test_a_reopening_is_made_once(rig: Rig, when: When) -> None:
    warm_up(rig)
    old = rig.start("r")
    rig.commit(rig.batch(old, rig.record(), change=End("failed")))
    rig.proxy.cut(b"run_reopen", when)
    lease = rig.store.run_reopen(rig.rid(old), "w2", rig.taken_as(2, "w2"))
    assert rig.proxy.cuts == 1
    assert lease is not None
    assert (lease.run_id, lease.seq, rig.hot("r").owner, len(rig.texts(lease.rid))) == ("r", 3, "w2", 3)
    rig.append(lease)


@each_moment
@pytest.mark.parametrize("message", [b"begin\0", b"fact_deliver", b"commit\0"])
def test_a_fact_is_delivered_once(rig: Rig, when: When, message: bytes) -> None:
    warm_up(rig)
    lease = rig.start("r")
    rig.proxy.cut(message, when)
    assert rig.store.fact_deliver("r", "signal", START, b"s")
    assert rig.proxy.cuts == 1
    assert [fact.data for fact in rig.store.inbox_load(rig.rid(lease))] == [b"s"]
    assert rig.hot("r").inbox == 1


@each_moment
@pytest.mark.parametrize("message", [b"begin\0", b"fact_deliver_claimed", b"commit\0"])
@pytest.mark.parametrize("before", [None, b"asked"])
def test_a_claimed_fact_is_delivered_once(rig: Rig, when: When, message: bytes, before: bytes | None) -> None:
    warm_up(rig)
    lease = rig.start("r")
    rig.commit(rig.batch(lease, rig.record(), rows=[DoorRow("run", "k", "r/1", before)]))
    rig.proxy.cut(message, when)
    assert rig.store.fact_deliver("r", "answer", START, b"s", Claim("run", "k", "r/1", before, b"answered"))
    assert rig.proxy.cuts == 1
    assert [fact.data for fact in rig.store.inbox_load(rig.rid(lease))] == [b"s"]
    assert rig.hot("r").inbox == 1
    assert rig.store.row_get("run", "k", "r/1") == b"answered"


@each_moment
@pytest.mark.parametrize("message", [b"fact_deliver_claimed", b"commit\0"])
def test_a_claim_that_was_lost_stays_lost(rig: Rig, when: When, message: bytes) -> None:
    """Somebody else gave the very same answer: what is found after the connection was lost is not ours."""
    warm_up(rig)
    lease = rig.start("r")
    rig.commit(rig.batch(lease, rig.record(), rows=[DoorRow("run", "k", "r/1", b"answered")]))
    rig.proxy.cut(message, when)
    with pytest.raises(ClaimLost):
        rig.store.fact_deliver("r", "answer", START, b"s", Claim("run", "k", "r/1", None, b"answered"))
    assert rig.proxy.cuts == 1
    assert rig.store.inbox_load(rig.rid(lease)) == []
    assert rig.hot("r").inbox == 0


@each_moment
def test_a_fact_that_was_taken_meanwhile_is_not_delivered_again(rig: Rig, when: When) -> None:
    """By the time the sender is back, the holder has made a record of the fact: the inbox is empty, and it is there."""
    warm_up(rig)
    lease = rig.start("r")
    holder = rig.open()
    taken = threading.Event()

    def take() -> None:
        while not taken.is_set():
            facts = holder.inbox_load(rig.rid(lease))
            if facts:
                rig.commit(rig.batch(lease, rig.record("taken"), inbox_taken=[facts[0].n]), store=holder)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        rig.proxy.cut(b"commit\0", when)
        assert rig.store.fact_deliver("r", "signal", START, b"s")
        until(lambda: len(rig.texts(lease.rid)) == 2)
    finally:
        taken.set()
        thread.join()
    assert rig.store.inbox_load(rig.rid(lease)) == []
    assert (rig.hot("r").inbox, len(rig.texts(lease.rid))) == (1, 2)


@each_moment
@pytest.mark.parametrize(
    "message, records, change",
    [
        (b"batch_one_append_facts", True, None),
        (b"batch_lock", True, Unpark()),
        (b"batch_one_end_facts", True, End("succeeded")),
        *((message, False, None) for message in (b"begin\0", b"batch_lock", b"batch_one_hold_facts", b"commit\0")),
        (b"transaction_number", False, Unpark()),
        (b"commit\0", False, End("succeeded")),
    ],
)
def test_what_a_batch_tells_is_told_once(rig: Rig, when: When, *, message: bytes, records: bool, change: Any) -> None:
    """Also where it was taken by the time that the sender is back."""
    warm_up(rig)
    lease, target = rig.start("r"), rig.start("t", "w2")
    facts = [Outgoing("t", "child", START, b"s"), Outgoing("nobody", "child", START, b"s")]
    rig.commit(rig.batch(rig.start("p"), *([rig.record()] * records), change=change, facts=facts[1:]))  # prepared
    holder = rig.open()
    done = threading.Event()

    def take() -> None:
        while not done.is_set():
            for fact in holder.inbox_load(rig.rid(target)):
                rig.commit(rig.batch(target, rig.record("taken"), inbox_taken=[fact.n]), store=holder)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        batch = rig.batch(lease, *([rig.record()] * records), change=change, facts=facts)
        others = [] if change is None else [rig.batch(rig.start("o"), rig.record())]
        assert rig.losing(message, when, batch, *others) == [None] * (1 + len(others))
        until(lambda: len(rig.texts(target.rid)) >= 2)
    finally:
        done.set()
        thread.join()
    assert (rig.hot("t").inbox, len(rig.texts(target.rid)), len(rig.texts(lease.rid))) == (1, 2, 1 + records)
    assert rig.row("r").status == ("succeeded" if isinstance(change, End) else "running")


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Ask again and again; each question is a query, so nothing sleeps."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"


@each_moment
@pytest.mark.parametrize("message", [b"begin\0", b"blob_chunk", b"commit\0"])
def test_a_blob_is_stored_once(rig: Rig, when: When, message: bytes) -> None:
    rig.store.blob_put(b"warm", iter([b"up"]))
    rig.proxy.cut(message, when)
    rig.store.blob_put(b"digest", iter([b"a" * 1000, b"b"]))
    assert rig.proxy.cuts == 1
    assert rig.store.blob_get(b"digest") == b"a" * 1000 + b"b"


@each_moment
def test_a_lent_transaction_is_found_out(rig: Rig, when: When) -> None:
    """COMMIT that nobody answers: either both are there, and the store says so, or neither, and it raises."""
    warm_up(rig)
    lease = rig.start("r")
    first = rig.store.transaction()
    first.connection.execute("create table public.mine (x integer)")
    assert first.commit(rig.batch(lease, rig.record())) is None
    lease.seq = 2
    transaction = rig.store.transaction()
    transaction.connection.execute("insert into public.mine values (1)")
    batch = rig.batch(lease, rig.record("both"))
    rig.proxy.cut(b"commit\0", when)
    answer: JournalError | str | None
    try:
        answer = transaction.commit(batch)
    except JournalError as error:
        answer = str(error)
    committed = answer is None
    assert committed or "nothing of it is there" in str(answer)
    assert rig.proxy.cuts == 1
    transaction.rollback()
    with psycopg.connect(rig._url) as connection:
        mine = connection.execute("select count(*) from public.mine").fetchone()
    assert mine == (int(committed),)
    assert rig.texts(lease.rid)[2:] == ([(3, 1, batch.data)] if committed else [])
    if when != "during":
        assert committed == (when == "after")
    lease.seq = 2 + committed
    rig.append(lease)


def test_a_lent_transaction_behind_a_takeover(rig: Rig) -> None:
    """The answer is lost, and somebody else's row stands at the seq: `Fenced`, not ours."""
    warm_up(rig)
    lease = rig.start("r")
    transaction = rig.store.transaction()
    transaction.connection.execute("select 1")
    rig.claim("r", "w2", store=rig.open())
    assert isinstance(transaction.commit(rig.batch(lease, rig.record())), Fenced)


def test_reads_are_made_again(rig: Rig) -> None:
    lease = rig.start("r")
    for _ in range(4):
        assert len(rig.texts(lease.rid)) == 1
    rig.proxy.cut(b"select", "before", times=2)
    assert rig.store.hot_get("r") is not None
    assert len(rig.texts(lease.rid)) == 1
    assert rig.proxy.cuts >= 1


def test_beats_go_on(rig: Rig) -> None:
    rig.store.worker_register(rig.worker("a"))
    other = rig.open()
    other.worker_silence()
    rig.store.worker_beat("a")
    rig.proxy.cut(b"worker_beat", "before")
    rig.store.worker_beat("a")
    assert rig.proxy.cuts == 1
    assert other.worker_silence() == {"a": 0.0}


# -- the server's side


@contextmanager
def admin(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


END_ALL = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity "
    "where application_name like 'stepwell%' and datname = current_database()"
)


def test_sessions_ended_between(postgres_database: str) -> None:
    """Every session of the store is ended by an administrator: the next use of each makes a new one."""
    rig = StoreRig(lambda clock: PostgresStore(postgres_database, clock))
    lease = rig.start("r")
    rig.store.worker_register(rig.worker("a"))
    rig.store.transaction().rollback()
    rig.store.wait(0.001)
    with admin(postgres_database) as connection:
        (ended,) = connection.execute(END_ALL).fetchone() or (0,)
        assert ended >= 4
    rig.append(lease)
    rig.store.worker_beat("a")
    assert len(rig.texts(lease.rid)) == 2
    rig.store.wait(0.001)
    transaction = rig.store.transaction()
    transaction.connection.execute("select 1")
    assert transaction.commit(rig.batch(lease, rig.record())) is None
    rig.store.close()


def test_sessions_ended_during(postgres_database: str) -> None:
    """While sessions are ended as fast as it goes, steps, groups and facts are each written once, in order."""
    rig = StoreRig(lambda clock: PostgresStore(postgres_database, clock))
    lease = rig.start("r")
    more = [rig.start(f"m{i}") for i in range(5)]
    ended = i = 0
    done = threading.Event()

    def end() -> None:
        nonlocal ended
        at, times = -1, 0
        with admin(postgres_database) as connection:
            while not done.is_set():
                # Not for ever at one place: a machine that is slower than this would be given up on, and rightly.
                at, times = (at, times) if at == i else (i, 0)
                if times < 3:
                    (found,) = connection.execute(END_ALL).fetchone() or (0,)
                    ended, times = ended + found, times + bool(found)
                done.wait(0.02)

    thread = threading.Thread(target=end)
    thread.start()
    try:
        while i < 60 or (ended < 8 and i < 2000):
            rig.append(lease, str(i))
            rig.commit(*(rig.batch(one, rig.record(str(i)), notes=[Note("k", "log", i, "x")]) for one in more))
            assert rig.store.fact_deliver("r", "signal", i, str(i).encode())
            i += 1
    finally:
        done.set()
        thread.join()
    assert ended >= 8
    assert [seq for seq, _, _ in rig.texts(lease.rid)] == list(range(1, i + 2))
    assert [fact.data for fact in rig.store.inbox_load(rig.rid(lease))] == [str(n).encode() for n in range(i)]
    for one in more:
        assert [seq for seq, _, _ in rig.texts(one.rid)] == list(range(1, i + 2))
        found = rig.store.note_load(rig.rid(one), kind=None, key=None, after=0, limit=i + 1)
        assert [note.at for _, note in found] == list(range(i))
    rig.store.close()


def test_the_old_session_is_still_writing(postgres_database: str, proxy: CuttingProxy, rig: Rig) -> None:
    """The connection is lost while the server still works on the insert. The second try waits for the first instead of
    looking whether it is there, and whichever of them wins, the row is there once.
    """
    lease = rig.start("r")
    rig.append(lease, "prepared")
    with admin(postgres_database) as connection:
        connection.execute(
            "create function hold() returns trigger language plpgsql as "
            "$$ begin perform pg_advisory_xact_lock(42); return new; end $$"
        )
        connection.execute(
            "create trigger hold before insert on stepwell.record for each row when (new.seq = 3) execute function hold()"
        )
        connection.execute("select pg_advisory_lock(42)")
        proxy.cut(b"batch_append", "during")
        batch = rig.batch(lease, rig.record("held"))
        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.extend(rig.store.batch_commit([batch])))
        thread.start()
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        until(lambda: connection.execute(waiting).fetchone() == (2,))
        connection.execute("select pg_advisory_unlock(42)")
        thread.join()
    assert results == [None]
    assert rig.texts(lease.rid)[2:] == [(3, 1, batch.data)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_the_server_is_restarted(mode: Literal["fast", "immediate"]) -> None:
    with PostgresServer() as server:
        url = server.database()
        rig = StoreRig(lambda clock: PostgresStore(url, clock))
        lease = rig.start("r")
        errors: list[BaseException] = []
        done = threading.Event()
        reached = threading.Semaphore(0)

        def write() -> None:
            try:
                while not done.is_set():
                    rig.append(lease, "x")
                    reached.release()
            except BaseException as error:
                errors.append(error)
                reached.release()

        thread = threading.Thread(target=write)
        thread.start()
        for _ in range(2):
            for _ in range(50):
                assert reached.acquire(timeout=60)
            server.restart(mode)
        for _ in range(50):
            assert reached.acquire(timeout=60)
        done.set()
        thread.join()
        assert errors == []
        assert [seq for seq, _, _ in rig.texts(lease.rid)] == list(range(1, lease.seq + 1))
        rig.store.close()


def test_nobody_answers_any_more(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store gives up after a while, with one line that names the place; when the server is back, so is the store."""
    monkeypatch.setattr(_postgres_link, "PATIENCE", 0.3)
    monkeypatch.setattr("stepwell.journal._postgres_read.PATIENCE", 0.3)
    proxy = CuttingProxy(postgres_database)
    rig = StoreRig(lambda clock: PostgresStore(proxy.url, clock))
    lease = rig.start("r")
    rig.store.worker_register(rig.worker("a"))
    port = urlsplit(proxy.url).port
    proxy.close()
    calls: list[Callable[[], Any]] = [
        lambda: rig.store.batch_commit([rig.batch(lease, rig.record())]),
        lambda: rig.store.hot_get("r"),
        lambda: rig.store.worker_beat("a"),
        lambda: rig.store.fact_deliver("r", "signal", START, b""),
        rig.store.transaction,
    ]
    for call in calls:
        with pytest.raises(
            JournalError, match=rf"^cannot use PostgreSQL at 127\.0\.0\.1:{port}/\w+: .*: .*$"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
    rig.store.wait(0.01)
    with suppress(JournalError):
        rig.store.close()


def test_a_group_that_kills_its_server_again_and_again(rig: Rig) -> None:
    """It is not submitted for ever: it may be the cause."""
    warm_up(rig)
    leases = [rig.start("a"), rig.start("b")]
    rig.proxy.cut(b"batch_append_many", "before", times=50)
    with pytest.raises(JournalError, match="lost the connection 6 times"):
        rig.submit(*(rig.batch(lease, rig.record()) for lease in leases))
    rig.proxy._armed.clear()
    rig.commit(*(rig.batch(lease, rig.record()) for lease in leases))
