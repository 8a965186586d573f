"""ENGINE.md §2 on an SQLite store: beats are files, a free byte of the lock file is a dead worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from stepwell.errors import JournalError
from stepwell.journal._api import RunFilter
from stepwell.journal._liveness import local_worker
from stepwell.journal._sqlite import SqliteStore
from stepwell.testing._clock import VirtualClock
from tests.journal.sqlite_rows import claim, commit, start, step

if TYPE_CHECKING:
    from collections.abc import Iterator

INF = float("inf")

WORKER = """
import sys
from stepwell.journal._liveness import local_worker
from stepwell.journal._sqlite import SqliteStore
from tests.journal.sqlite_rows import start
store = SqliteStore(sys.argv[1])
store.worker_register(local_worker(worker_id="them"))
start(store, "theirs", "them")
print("ready", flush=True)
for line in sys.stdin:
    getattr(store, line.strip())("them")
    print("done", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "well.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(path: Path, clock: VirtualClock) -> Iterator[SqliteStore]:
    store = SqliteStore(path, clock)
    yield store
    store.close()


@pytest.fixture
def other(path: Path, store: SqliteStore) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    process.stdout.readline()


def files(store: SqliteStore) -> list[str]:
    return sorted(file.name for file in Path(f"{store.file.path}-workers").iterdir())


def test_a_killed_worker_is_dead_at_once(store: SqliteStore, other: subprocess.Popen[str]) -> None:
    assert store.worker_silence() == {"them": 0.0}
    other.kill()
    other.wait()
    assert store.worker_silence() == {"them": INF}
    due = store.hot_due(now=store.now(), queues=None, functions=None, silent=store.worker_silence(), limit=9)
    assert [row.run_id for row in due] == ["theirs"]


def test_a_stopped_worker_is_not_dead_but_silent(
    store: SqliteStore, clock: VirtualClock, other: subprocess.Popen[str]
) -> None:
    store.worker_register(local_worker(worker_id="me"))
    assert store.worker_silence() == {"them": 0.0}
    clock.advance(100)
    assert store.worker_silence() == {"them": 10.0}  # it is there: perhaps a C call holds the GIL
    other.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, other.pid, os.WSTOPPED | os.WNOWAIT)
    assert store.worker_silence() == {"them": 100.0}
    other.send_signal(signal.SIGCONT)
    tell(other, "worker_beat")
    assert store.worker_silence() == {"them": 0.0}


def test_a_beat_needs_no_database(store: SqliteStore, clock: VirtualClock, other: subprocess.Popen[str]) -> None:
    store.worker_silence()
    with store.file.hold():
        store.file.write.execute("begin immediate")
        tell(other, "worker_beat")
        clock.advance(5)
        assert store.worker_silence() == {"them": 0.0}
        store.file.write.execute("rollback")


def test_a_worker_that_left_holds_nothing(store: SqliteStore, other: subprocess.Popen[str]) -> None:
    tell(other, "worker_leave")
    assert store.worker_list() == []
    assert store.worker_silence() == {"them": INF}  # its run is still its own on record
    claim(store, "theirs", "w")
    assert store.worker_silence() == {"w": INF}


def test_a_closed_store_lets_its_workers_die(path: Path, store: SqliteStore) -> None:
    mine = SqliteStore(path)
    mine.worker_register(local_worker(worker_id="a"))
    assert store.worker_silence() == {"a": 0.0}
    mine.close()
    assert store.worker_silence() == {"a": INF}


def test_files_of_the_dead_go_when_they_hold_nothing_any_more(store: SqliteStore, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    store.worker_register(local_worker(worker_id="a"))
    assert files(store) == ["a", "them"]
    claim(store, "theirs", "a")
    store.worker_register(local_worker(worker_id="b"))
    assert files(store) == ["a", "b"]


def test_a_lock_file_that_was_made_anew_says_nothing_of_old_workers(
    path: Path, store: SqliteStore, other: subprocess.Popen[str]
) -> None:
    store.close()
    Path(f"{path}-lock").unlink()  # somebody took it for a stale lock
    fresh = SqliteStore(path)
    assert fresh.worker_silence() == {"them": 0.0}
    fresh.close()


def test_a_worker_whose_file_was_deleted_writes_it_again(path: Path, store: SqliteStore) -> None:
    mine = SqliteStore(path)
    mine.worker_register(local_worker(worker_id="a"))
    (path.parent / "well.db-workers" / "a").unlink()
    (path.parent / "well.db-workers").rmdir()
    assert store.worker_list() == []
    mine.worker_beat("a")
    assert [info.id for info in store.worker_list()] == ["a"]
    mine.worker_beat("nobody")
    mine.close()


def test_odd_names_are_names(store: SqliteStore) -> None:
    names = ["host:1/2", "..", ".hidden", "ünïcode", "x" * 300, "", "a b"]
    for name in names:
        store.worker_register(local_worker(worker_id=name))
    assert sorted(info.id for info in store.worker_list()) == sorted(names)
    for name in names:
        store.worker_beat(name)
        store.worker_leave(name)
    assert files(store) == []


def test_a_half_written_file_is_passed_over(store: SqliteStore) -> None:
    store.worker_register(local_worker(worker_id="a"))
    folder = Path(f"{store.file.path}-workers")
    (folder / "b").write_bytes(b"")
    (folder / "c").write_bytes(b"0" * 20 + b'\n{"info":')
    assert [info.id for info in store.worker_list()] == ["a"]


def test_a_folder_that_cannot_be_used(path: Path, store: SqliteStore) -> None:
    Path(f"{path}-workers").write_text("in the way")
    with pytest.raises(JournalError, match=r"well\.db-workers cannot be used") as caught:
        store.worker_register(local_worker(worker_id="a"))
    assert caught.value.hint


def test_a_restarted_worker_with_the_same_name_is_a_new_one(
    path: Path, store: SqliteStore, clock: VirtualClock
) -> None:
    info = replace(local_worker(worker_id="a"), host="elsewhere")
    first = SqliteStore(path)
    first.worker_register(info)
    assert store.worker_silence() == {"a": 0.0}
    clock.advance(40)
    first.close()
    second = SqliteStore(path)
    second.worker_register(replace(info, pid=info.pid + 1))
    assert store.worker_silence() == {"a": 0.0}
    second.close()


def test_a_link_to_the_store_leads_to_the_same_workers(path: Path, store: SqliteStore) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    linked = SqliteStore(link)
    linked.worker_register(local_worker(worker_id="a"))
    assert [info.id for info in store.worker_list()] == ["a"]
    linked.close()


def test_owners_are_found_without_a_walk_over_what_they_hold(store: SqliteStore) -> None:
    for i in range(20):
        start(store, f"r{i}", f"w{i % 3}")
    assert [row[0] for row in store.file.read(store.sql["hot_owners"])] == ["w0", "w1", "w2"]
    plan = store.file.read(f"explain query plan {store.sql['hot_owners']}")
    assert not any("SCAN hot" in row[3] for row in plan)
    lease = start(store, "ended", "w9")
    commit(store, step(lease))
    assert store.run_count(RunFilter()) == 21
