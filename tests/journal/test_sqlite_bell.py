"""Bells wake who waits in another process; a store object on the same file stands for one here."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from stepwell.journal import _sqlite_wait
from stepwell.journal._api import End
from stepwell.journal._sqlite import SqliteStore
from stepwell.journal._sqlite_bell import Bell
from tests.journal.sqlite_rows import commit, start, step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a store in which nobody finds a change by looking."""
    monkeypatch.setattr(_sqlite_wait, "NAP_SHORT", 600.0)
    monkeypatch.setattr(_sqlite_wait, "NAP_LONG", 600.0)
    return tmp_path / "well.db"


@pytest.fixture
def pair(path: Path) -> Iterator[tuple[SqliteStore, SqliteStore]]:
    a, b = SqliteStore(path), SqliteStore(path)
    yield a, b
    a.close()
    b.close()


def waiter(store: SqliteStore) -> threading.Thread:
    """A thread that waits for a change from here on."""
    seen = threading.Event()

    def wait() -> None:
        store.wait(0)  # from here on it knows what there is
        seen.set()
        store.wait(500)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert seen.wait(30)
    return thread


def test_a_pending_run_wakes_the_other(pair: tuple[SqliteStore, SqliteStore]) -> None:
    a, b = pair
    thread = waiter(b)
    start(a, held=False)
    thread.join(30)
    assert not thread.is_alive()


def test_the_end_of_a_run_wakes_the_other(pair: tuple[SqliteStore, SqliteStore]) -> None:
    a, b = pair
    lease = start(a)
    thread = waiter(b)
    commit(a, step(lease, change=End("succeeded")))
    thread.join(30)
    assert not thread.is_alive()


def test_a_fact_wakes_the_other(pair: tuple[SqliteStore, SqliteStore]) -> None:
    a, b = pair
    start(a)
    thread = waiter(b)
    assert a.fact_deliver("r", "cancel", 1, b"")
    thread.join(30)
    assert not thread.is_alive()


def test_a_step_wakes_nobody(pair: tuple[SqliteStore, SqliteStore], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair
    lease = start(a)
    b._bell.listen()
    rung: list[str] = []
    monkeypatch.setattr(a._bell, "_ring", rung.append)
    commit(a, step(lease))
    assert rung == []
    commit(a, step(lease, change=End("succeeded")))
    assert len(rung) == 1


def test_nothing_is_left_behind(path: Path) -> None:
    a, b = SqliteStore(path), SqliteStore(path)
    a.wait(0)
    b.wait(0)
    folder = path.with_name("well.db-bells")
    assert len(list(folder.iterdir())) == 2
    a.close()
    assert len(list(folder.iterdir())) == 1
    b.close()
    b.close()
    assert not folder.exists()


def test_who_only_reads_makes_nothing(path: Path) -> None:
    SqliteStore(path).close()
    store = SqliteStore(path, read_only=True)
    store.wait(0)
    assert not path.with_name("well.db-bells").exists()
    store.close()


def test_a_store_that_nobody_waits_for_makes_nothing(path: Path) -> None:
    store = SqliteStore(path)
    commit(store, step(start(store), change=End("succeeded")))
    assert not path.with_name("well.db-bells").exists()
    store.close()


def test_the_bell_of_a_killed_process_is_taken_away(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1-dead")
    Bell(tmp_path, lambda: None).ring()
    assert list(tmp_path.iterdir()) == []


def test_a_bell_that_is_being_made_is_let_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".1-new")
    Bell(tmp_path, lambda: None).ring()
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_waits_for_one_who_does_not_listen(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1-hangs")
    handle = os.open(tmp_path / "1-hangs", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            while True:
                os.write(handle, b"!" * 4096)
        Bell(tmp_path, lambda: None).ring()
    finally:
        os.close(handle)


def test_where_no_bell_can_be_made_looking_does(tmp_path: Path) -> None:
    (tmp_path / "well.db-bells").write_text("in the way")
    a, b = SqliteStore(tmp_path / "well.db"), SqliteStore(tmp_path / "well.db")
    thread = waiter(b)
    start(a, held=False)
    thread.join(30)
    assert not thread.is_alive()
    a.close()
    b.close()
