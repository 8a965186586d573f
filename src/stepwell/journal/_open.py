"""From a URL to a store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.errors import JournalError, UsageError
from stepwell.journal._api import SystemClock

if TYPE_CHECKING:
    from stepwell.journal._api import Clock, Store

DEFAULT_STORE = "sqlite:///.stepwell/stepwell.db"


class NoStoreYet(JournalError):
    """There is no store at this place, and who only reads makes none."""


def store_url(given: str | None = None) -> str:
    """The store's URL in one spelling: what is given, else ``STEPWELL_STORE``, else the default.

    ``sqlite:///rel`` is from the working directory, ``sqlite:////abs`` absolute; both become absolute, so that one file
    has one URL.

    Raises:
        UsageError: no store has such a URL.
    """
    url = given or os.environ.get("STEPWELL_STORE") or DEFAULT_STORE
    scheme = url.split("://", 1)[0] if "://" in url else ""
    if scheme == "sqlite":
        path = url.removeprefix("sqlite://")
        if not path.startswith("/") or path == "/":
            message = f"store {url}: write sqlite:///relative/path.db or sqlite:////absolute/path.db"
            raise UsageError(message)
        return f"sqlite:///{Path(path[1:]).expanduser().absolute()}"
    if scheme in ("postgresql", "postgres"):
        return "postgresql" + url[len(scheme) :]
    if scheme == "memory":
        return url
    message = f"store {url}: no such kind of store; use sqlite:///path.db, postgresql://user@host/db or memory://"
    raise UsageError(message)


def open_store(url: str | None = None, clock: Clock | None = None, *, read_only: bool = False) -> Store:
    """Open the store behind a URL, making it if need be.

    ``read_only``: nothing is made, migrated or written.

    Raises:
        NoStoreYet: PostgreSQL holds none there, and ``read_only`` makes none.
        UsageError: no store has such a URL.
        MissingExtra: its driver is not installed.
        JournalError: it cannot be used; the text says why and what to do.
    """
    url = store_url(url)
    clock = clock or SystemClock()
    if url.startswith("sqlite:"):
        from stepwell.journal._sqlite import open_sqlite

        return open_sqlite(url.removeprefix("sqlite:///"), clock, url=url, read_only=read_only)
    if url.startswith("postgresql:"):
        from stepwell.journal._postgres import PostgresStore

        return PostgresStore(url, clock, read_only=read_only)
    from stepwell.journal._memory import MemoryStore

    return MemoryStore(url.removeprefix("memory://") or "default", clock)
