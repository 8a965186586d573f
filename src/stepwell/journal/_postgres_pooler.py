"""Finding out whether a pooler in between gives each transaction another server (ENGINE.md §7)."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from stepwell.journal._postgres_link import next_result

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from stepwell.journal._postgres_address import Address

PROBE_MILLISECONDS = 1000
"""A pool of one connection cannot serve two: then the answer does not come."""

ROUNDS = 4


def session_survives(address: Address, pgconn: PGconn) -> bool:
    """Whether this connection is always answered by the same server, and a statement prepared on it is still there.

    A second connection takes hold of a server in between: most poolers give it the one that this connection has just
    used, and this one another.
    """
    asked = b"select pg_backend_pid()"
    servers = {pgconn.exec_(asked).get_value(0, 0)}
    if pgconn.prepare(b"stepwell_probe", asked).status != pq.ExecStatus.COMMAND_OK:
        return False
    try:
        holder = address.connect(name="probe")
    except psycopg.Error:
        return False
    try:
        holder.pgconn.exec_(b"begin")
        holder.pgconn.exec_(asked)
        for _ in range(ROUNDS):
            pgconn.send_query_prepared(b"stepwell_probe", [])
            poller = select.poll()
            poller.register(pgconn.socket, select.POLLIN)
            if not poller.poll(PROBE_MILLISECONDS):
                servers.add(None)
                break
            servers.add(_answer(pgconn))
    finally:
        with suppress(psycopg.Error):
            holder.pgconn.exec_(b"rollback")
        holder.close()
    if None in servers:
        _answer(pgconn)
    return len(servers) == 1


def _answer(pgconn: PGconn) -> bytes | None:
    """The server's process number; None if there was no such statement, or no server."""
    found: bytes | None = None
    with suppress(psycopg.OperationalError):
        poller = select.poll()
        while (result := next_result(pgconn, poller)) is not None:
            if result.status == pq.ExecStatus.TUPLES_OK:
                found = result.get_value(0, 0)
    return found
