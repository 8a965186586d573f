"""Behind a pooler that gives each transaction another server (ENGINE.md §7)."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlsplit

import pytest

from stepwell.journal._postgres import PostgresStore
from stepwell.testing._store_conformance import StoreConformance
from stepwell.testing._store_rig import StoreRig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.journal._api import Clock


class Pooler:
    """The least that a pooler in transaction mode does: it answers the client's greeting itself, with a process number
    of its own, and lends it a server's session from its first message until the server says that no transaction is
    open. Sessions go round, so that no client meets the same one twice in a row.
    """

    def __init__(self, url: str, *, sessions: int = 3) -> None:
        self._parts = urlsplit(url)
        self._free: list[socket.socket] = []
        self._greeting = b""
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._condition = threading.Condition()
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        for _ in range(sessions):
            self._free.append(self._session())
        port = self._listener.getsockname()[1]
        self.url = self._parts._replace(netloc=f"{self._parts.username}@127.0.0.1:{port}").geturl()
        self.url += "?sslmode=disable&gssencmode=disable"
        self._spawn(self._accept)

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _session(self) -> socket.socket:
        server = socket.create_connection((self._parts.hostname or "", self._parts.port or 5432))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(server)
        words = ["user", self._parts.username or "", "database", self._parts.path.strip("/"), ""]
        body = struct.pack("!i", 196608) + b"".join(word.encode() + b"\0" for word in words)
        server.sendall(struct.pack("!i", len(body) + 4) + body)
        greeting = b""
        while True:
            kind, message = _message(server)
            if kind == b"K":
                message = struct.pack("!2i", 4_000_000, 1)
            greeting += kind + struct.pack("!i", len(message) + 4) + message
            if kind == b"Z":
                break
        self._greeting = greeting
        return server

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(client)
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError):
            (length,) = struct.unpack("!i", _exactly(client, 4))
            _exactly(client, length - 4)
            client.sendall(self._greeting)
            while True:
                first = _message(client)
                if first[0] == b"X":
                    break
                self._transaction(client, first)
        client.close()

    def _transaction(self, client: socket.socket, first: tuple[bytes, bytes]) -> None:
        with self._condition:
            while not self._free:
                self._condition.wait()
            server = self._free.pop(0)
        clean = False
        try:
            message: tuple[bytes, bytes] | None = first
            while True:
                # Up to a Sync or a simple query the server is not waited for.
                while True:
                    kind, body = message or _message(client)
                    message = None
                    if kind == b"X":
                        raise EOFError  # in the middle of a transaction
                    server.sendall(kind + struct.pack("!i", len(body) + 4) + body)
                    if kind in b"SQ":
                        break
                while True:
                    kind, body = _message(server)
                    client.sendall(kind + struct.pack("!i", len(body) + 4) + body)
                    if kind == b"Z":
                        break
                if body == b"I":
                    clean = True
                    return
        finally:
            if not clean:
                server.close()
                server = self._session()
            with self._condition:
                self._free.append(server)
                self._condition.notify()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._sockets):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for sock in (self._listener, *self._sockets):
            sock.close()


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _message(sock: socket.socket) -> tuple[bytes, bytes]:
    kind = _exactly(sock, 1)
    (length,) = struct.unpack("!i", _exactly(sock, 4))
    return kind, _exactly(sock, length - 4)


@pytest.fixture
def pooler(postgres_database: str) -> Iterator[Pooler]:
    with Pooler(postgres_database) as found:
        yield found


CHECKS = [
    name
    for name in StoreConformance.checks()
    if name.startswith(
        ("check_group", "check_claim", "check_transaction", "check_blob", "check_worker_s", "check_fact_o")
    )
    and name != "check_transaction_interrupted"  # the pooler above knows no way to cancel
]


@pytest.mark.parametrize("check", CHECKS)
def test_keeps_its_promises(check: str, pooler: Pooler) -> None:
    StoreConformance(lambda clock: PostgresStore(pooler.url, clock)).run(check)


def test_knows_where_it_is(pooler: Pooler, postgres_database: str) -> None:
    store = PostgresStore(pooler.url)
    facts = store.facts()
    assert facts["waking"] == "poll every 5 to 250 ms"
    assert facts["prepared statements"].startswith("no: behind a pooler")
    store.close()
    direct = PostgresStore(postgres_database)
    facts = direct.facts()
    assert (facts["waking"], facts["prepared statements"]) == ("listen", "yes")
    direct.close()


def test_listens_at_a_direct_address(pooler: Pooler, postgres_database: str) -> None:
    """`?listen=` leads past the pooler: changes are heard, statements are still not prepared."""
    store = PostgresStore(f"{pooler.url}&listen={quote(postgres_database, safe='')}")
    facts = store.facts()
    assert facts["waking"] == "listen"
    assert facts["prepared statements"].startswith("no: ")
    store.close()


def test_notices_a_pooler_late(postgres_database: str) -> None:
    """A server that was changed behind the connection (another one stands at the old address): a prepared statement is
    not there, nothing has run, and the store goes on without them.
    """

    def open_store(clock: Clock) -> PostgresStore:
        return PostgresStore(postgres_database, clock)

    rig = StoreRig(open_store)
    lease = rig.start("r")
    others = [rig.start(f"r{i}") for i in range(3)]
    rig.append(lease)
    rig.commit(*(rig.batch(other, rig.record()) for other in others))
    store = rig.store
    assert isinstance(store, PostgresStore)
    assert store._link._pgconn is not None
    store._link._pgconn.exec_(b"deallocate all")
    rig.commit(*(rig.batch(other, rig.record()) for other in others))
    assert not store._mode.prepared
    rig.append(lease)
    assert [len(rig.texts(other.rid)) for other in (lease, *others)] == [3, 3, 3, 3]
    store.close()


def test_waits_shorter_when_something_happens(pooler: Pooler) -> None:
    rig = StoreRig(lambda clock: PostgresStore(pooler.url, clock))
    store = rig.store
    assert isinstance(store, PostgresStore)
    for _ in range(4):
        store.wait(60)
    assert store._waiter._pause == pytest.approx(0.08)
    rig.start("r", held=False)
    assert store._waiter._pause == 0.005
    for _ in range(8):
        store.wait(60)
    assert store._waiter._pause == 0.25
    assert rig.due(store.now()) == ["r"]
    assert store._waiter._pause == 0.005
    store.close()
