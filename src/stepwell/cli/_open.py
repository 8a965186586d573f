"""Engines for commands: one that writes, and one that cannot."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from stepwell.client import Engine
from stepwell.journal import NoStoreYet, open_store, store_url

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def opened(
    store: str | None, *, write: bool, makes: bool = False, hold: float | None = None
) -> Iterator[Engine]:  # fmt: skip
    """An engine that is stopped at the end.

    Without ``write`` the store is opened read-only. A file that is not there yet is made only where ``makes`` says so:
    a command about a run on record, typed in another folder, leaves nothing behind.
    """
    engine = Engine(store, hold=hold) if write and (makes or _is_there(store)) else _reader(store)
    try:
        yield engine
    finally:
        engine.stop()


def _is_there(store: str | None) -> bool:
    url = store_url(store)
    return not url.startswith("sqlite:") or Path(url.removeprefix("sqlite:///")).exists()


def _reader(store: str | None) -> Engine:
    url = store_url(store)
    if not _is_there(url):
        return _empty(url)
    try:
        return Engine(open_store(url, read_only=True))
    except NoStoreYet:
        return _empty(url)


def _empty(url: str) -> Engine:
    """What is not there yet is empty."""
    engine = Engine(open_store(f"memory://{uuid4().hex}"))
    engine.url = url
    return engine
