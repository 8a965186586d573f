"""Real processes on one SQLite file: nobody is starved, nobody meets a lock, nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stepwell.journal._sqlite import SqliteStore
from tests.journal.sqlite_rows import commit, start, step

if TYPE_CHECKING:
    from pathlib import Path

PROCESSES = 16

WRITER = """
import sys, time
from stepwell.journal._sqlite import SqliteStore
from tests.journal.sqlite_rows import commit, start, step
path, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
store = SqliteStore(path)
print("ready", flush=True)
sys.stdin.readline()
lease = start(store, name)
done, end = 0, time.monotonic() + seconds
while time.monotonic() < end:
    commit(store, step(lease))
    done += 1
    if done % 20 == 0:
        store.run_get(name)
store.close()
print(done)
"""

OPENER = """
import sys
from stepwell.journal._sqlite import SqliteStore
from tests.journal.sqlite_rows import commit, start, step
for i in range(int(sys.argv[3])):
    store = SqliteStore(sys.argv[1])
    lease = start(store, f"{sys.argv[2]}-{i}")
    commit(store, step(lease))
    assert store.run_get(f"{sys.argv[2]}-{i}") is not None
    store.close()
print("done")
"""

LIMITED = """
import resource, sys
from stepwell.errors import JournalError
from stepwell.journal._liveness import local_worker
from stepwell.journal._sqlite import SqliteStore
from tests.journal.sqlite_rows import commit, start, step
store = SqliteStore(sys.argv[1])
store.worker_register(local_worker(worker_id="w"))
lease = start(store)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
said = set()
while True:
    try:
        commit(store, step(lease, "x" * 3000))
    except JournalError as error:
        said.add(f"{type(error).__name__}: {error}")
        break
for _ in range(3):
    try:
        commit(store, step(lease, "x" * 30000))
    except JournalError as error:
        said.add(f"{type(error).__name__}: {error}")
store.worker_beat("w")
full = lease.seq
assert [entry.seq for entry in store.record_load(lease.rid)] == list(range(1, full + 1))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
commit(store, step(lease, "there is room again"))
assert len(store.record_load(lease.rid)) == full + 1
assert list(store.check()) == []
store.close()
print(sorted(said))
"""


def run(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def outcome(process: subprocess.Popen[str]) -> str:
    told, errors = process.communicate()
    assert errors == ""
    return told.split("\n")[-2]


def test_sixteen_processes_write_one_file_and_none_is_starved(tmp_path: Path) -> None:
    path = tmp_path / "well.db"
    writers = [run(WRITER, path, f"r{i}", 3) for i in range(PROCESSES)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    counts = [int(outcome(writer)) for writer in writers]
    mean = sum(counts) / PROCESSES
    print(f"commits of {PROCESSES} processes in 3 s: {sum(counts)}, slowest / mean {min(counts) / mean:.2f}")
    assert min(counts) >= mean / 4
    store = SqliteStore(path)
    for i, done in enumerate(counts):
        row = store.run_get(f"r{i}")
        assert row is not None
        assert len(store.record_load(row.rid)) == done + 1
    assert list(store.check()) == []
    store.close()


def test_processes_that_come_and_go_meet_no_lock(tmp_path: Path) -> None:
    # The last to leave deletes the WAL while the next one opens the file.
    path = tmp_path / "well.db"
    openers = [run(OPENER, path, f"p{i}", 12) for i in range(6)]
    assert [outcome(opener) for opener in openers] == ["done"] * 6
    store = SqliteStore(path)
    assert store.file.read("select count(*) from record") == [(6 * 12 * 2,)]
    assert list(store.check()) == []
    store.close()


def test_a_file_that_may_not_grow_refuses_and_goes_on(tmp_path: Path) -> None:
    said = outcome(run(LIMITED, tmp_path / "well.db"))
    assert "JournalError: " in said
    assert f"{tmp_path}/well.db cannot be" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_refuses_and_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode:
        pytest.skip("may not mount")
    try:
        store = SqliteStore(folder / "well.db")
        lease = start(store)
        from stepwell.errors import JournalError

        with pytest.raises(JournalError, match="the disk is full") as caught:
            for _ in range(1000):
                commit(store, step(lease, "x" * 3000))
        assert caught.value.hint == "make room, then resume the run"
        rows = lease.seq
        subprocess.run(["mount", "-o", "remount,size=8m", folder], check=True)
        commit(store, step(lease))
        assert len(store.record_load(lease.rid or 0)) == rows + 1
        assert list(store.check()) == []
        store.close()
    finally:
        subprocess.run(["umount", folder], check=True)
