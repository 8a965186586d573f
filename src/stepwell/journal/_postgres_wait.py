"""Waking: NOTIFY with the commits that give others something to do, LISTEN on a connection of its own (ENGINE.md §7).

A wake-up is a hint; the poll is the truth. NOTIFY takes a lock of the whole database at commit, so a process sends at
most one in 5 ms; one that had to be left out is sent on its own a little later. Behind a pooler that gives each
transaction another server no notification arrives: then `Waiter.wait` ends by itself, at first after 5 ms, and while
nothing happens after up to 250 ms.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from stepwell.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGconn

    from stepwell.journal._postgres_address import Address

APART = 0.005
"""Seconds between two NOTIFY of one process."""
SHORTEST, LONGEST = 0.005, 0.25
"""Seconds between two polls where no notification arrives."""
PROBE = 2.0
"""Seconds within which our own NOTIFY has to arrive."""
RETRY = 1.0
"""Seconds before a lost LISTEN connection is sought anew."""


class PostgresTeller:
    """When NOTIFY goes with a commit, and the thread that sends the ones left out."""

    def __init__(self, channel: str, token: str, send: Callable[[], None]) -> None:
        self.channel = channel
        self.token = token
        self._send = send
        self._condition = threading.Condition()
        self._last = float("-inf")
        self._owed = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def may_tell(self) -> bool:
        """Now, with this commit; else it is owed and sent later."""
        with self._condition:
            now = time.monotonic()
            if now - self._last >= APART:
                self._last = now
                self._owed = False
                return True
            if not self._owed:
                self._owed = True
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._run, name="stepwell-notify", daemon=True)
                    self._thread.start()
                self._condition.notify()
            return False

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._owed and not self._closed:
                    self._condition.wait()
                # A commit that comes in time takes it along; a little more than the distance leaves room for one.
                while self._owed and not self._closed and (left := self._last + 1.2 * APART - time.monotonic()) > 0:
                    self._condition.wait(left)
                owed, self._owed = self._owed, False
                if owed:
                    self._last = time.monotonic()
            if owed:
                with suppress(JournalError):
                    self._send()
            elif self._closed:
                return

    def close(self) -> None:
        """Send what is owed and end the thread. Idempotent."""
        with self._condition:
            self._closed = True
            self._condition.notify()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()


class Waiter:
    """`Store.wait` for any number of threads: one of them listens for all."""

    def __init__(self, address: Address, token: str, *, pooled: bool, send: Callable[[str], None]) -> None:
        self._address = address
        self._token = token
        self._send = send
        """Sends a NOTIFY with this token on some connection, for the probe."""
        self._direct = address.listens_directly
        self._pooled = pooled and not self._direct
        self._condition = threading.Condition()
        self._changes = 0
        self._leading = False
        self._closed = False
        self._pid = os.getpid()
        self._seen = threading.local()
        self._pause = SHORTEST
        self._connection: psycopg.Connection[Any] | None = None
        self._retry_at = float("-inf")
        self._hears: bool | None = False if self._pooled else None
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    @property
    def mode(self) -> str:
        """How this process learns of changes, for `doctor`; finds it out if nobody has waited yet."""
        with self._condition:
            mine = self._hears is None and not self._leading
            self._leading = self._leading or mine
        if mine:
            try:
                self._listen()
            finally:
                self._hand_over()
        return {
            True: "listen",
            False: f"poll every {SHORTEST * 1000:.0f} to {LONGEST * 1000:.0f} ms",
            None: "not known yet",
        }[self._hears]

    def poke(self) -> None:
        """Wake all that wait here."""
        with self._condition:
            self._changes += 1
            self._pause = SHORTEST
            self._condition.notify_all()
            if self._leading:
                with suppress(OSError):
                    self._writer.send(b"!")

    def busy(self) -> None:
        """Something was found: look again soon."""
        self._pause = SHORTEST

    def wait(self, timeout: float) -> None:
        """Return when something may have changed since this thread waited last, or after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            with self._condition:
                if self._closed:
                    return
                if self._changes != getattr(self._seen, "changes", 0):
                    self._seen.changes = self._changes
                    return
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                if self._leading:
                    self._condition.wait(left)
                    continue
                self._leading = True
            try:
                hint = self._lead(left)
            finally:
                self._hand_over()
            if hint:
                with self._condition:
                    self._changes += 1
                    self._seen.changes = self._changes
                    self._condition.notify_all()
                return

    def _hand_over(self) -> None:
        with self._condition:
            self._leading = False
            self._condition.notify()

    def _lead(self, timeout: float) -> bool:
        """Wait on behalf of all; True if something may have changed."""
        if self._pid != os.getpid():
            return True
        if self._connection is None and self._hears is not False and time.monotonic() >= self._retry_at:
            self._listen()
            return True  # what happened before we listened nobody will tell us
        pgconn = None if self._connection is None else self._connection.pgconn
        waits = [self._reader.fileno()] + ([] if pgconn is None else [pgconn.socket])
        pause = min(timeout, self._pause) if pgconn is None else timeout
        ready, _, _ = select.select(waits, [], [], pause)
        if self._reader.fileno() in ready:
            with suppress(OSError):
                self._reader.recv(4096)
        if pgconn is None:
            if not ready:
                self._pause = min(LONGEST, self._pause * 2)
            return True
        return pgconn.socket in ready and self._heard(pgconn)

    def _heard(self, pgconn: PGconn) -> bool:
        """Read what came; our own notifications are no news, since `poke` was first."""
        news = False
        try:
            pgconn.consume_input()
            while (notice := pgconn.notifies()) is not None:
                news = news or notice.extra != self._token.encode()
        except psycopg.Error:
            self._forget()
            return True
        return news

    def _listen(self) -> None:
        """Open the connection and try whether our own NOTIFY arrives there."""
        self._retry_at = time.monotonic() + RETRY
        try:
            connection = self._address.connect(name="listen", listen=True)
        except psycopg.Error:
            return
        self._connection = connection
        pgconn = connection.pgconn
        try:
            connection.execute(f'listen "{self._address.channel}"')
            probe = f"{self._token} probe"
            self._send(probe)
            deadline = time.monotonic() + PROBE
            while (left := deadline - time.monotonic()) > 0:
                select.select([pgconn.socket], [], [], left)
                pgconn.consume_input()
                while (notice := pgconn.notifies()) is not None:
                    if notice.extra == probe.encode():
                        self._hears = True
                        return
        except (psycopg.Error, JournalError):
            self._forget()
            return
        self._forget()
        self._hears = False

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def close(self) -> None:
        """End all waits and the connection. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._condition:
            if self._closed:
                return
            self._closed = True
        self.poke()
        with self._condition:
            while self._leading:
                self._condition.wait(1)
            self._forget()
            self._reader.close()
            self._writer.close()
