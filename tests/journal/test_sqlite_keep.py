"""Large values, retention, questions and their indexes, in an SQLite store (ENGINE.md §8, §11)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.journal import _sqlite_blob, _sqlite_gc
from stepwell.journal._api import End, Note, Park, Release, RunFilter
from stepwell.journal._sqlite import SqliteStore
from stepwell.journal._sqlite_catalogue import condition_for
from stepwell.journal._sqlite_read import prefix_end
from stepwell.testing._clock import VirtualClock
from tests.journal.sqlite_rows import AT, commit, start, step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stepwell.journal._api import Lease

DAY = 86_400
ALL = RunFilter()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(tmp_path: Path, clock: VirtualClock) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "well.db", clock)
    yield store
    store.close()


def ended(store: SqliteStore, run_id: str, *, rows: int = 1, **columns: Any) -> Lease:
    lease = start(store, run_id, **columns)
    commit(store, *(step(lease, ahead=i + 1) for i in range(rows)))
    commit(store, step(lease, change=End("succeeded")))
    return lease


def count(store: SqliteStore, table: str) -> int:
    return int(store.file.read(f"select count(*) from {table}")[0][0])


def plan(store: SqliteStore, sql: str, values: dict[str, Any]) -> str:
    return "; ".join(row[3] for row in store.file.read(f"explain query plan {sql}", values))


# -- which index


def test_polling_uses_the_partial_indexes(store: SqliteStore) -> None:
    sql = store.sql
    due = plan(store, sql["hot_due"], {"queue": "q", "now": 1, "functions": None, "limit": 1})
    assert "SEARCH hot USING INDEX hot_due (queue=? AND due_at>? AND due_at<?)" in due
    assert "TEMP B-TREE" not in due
    wake = plan(store, sql["hot_next_wake"], {"queue": "q", "functions": None})
    assert "SEARCH hot USING INDEX hot_due (queue=? AND due_at>?)" in wake
    queues = plan(store, sql["hot_queues"], {})
    assert "hot_due" in queues
    assert "SCAN hot" not in queues
    orphaned = plan(
        store, sql["hot_orphaned"], {"owner": "w", "silent": 1, "queues": None, "functions": None, "limit": 1}
    )
    assert "SEARCH hot USING INDEX hot_owner (owner=?)" in orphaned
    held = store.file.read(f"explain query plan {sql['hot_held']}", ("w",))
    assert "USING INDEX hot_owner (owner=?)" in held[0][3]


def test_a_run_that_waits_for_nobody_in_particular_is_in_no_index_of_due_runs(store: SqliteStore) -> None:
    commit(store, step(start(store, "held")))
    commit(store, step(start(store, "blocked"), change=Release("blocked", "why")))
    commit(store, step(start(store, "signal"), change=Park(None, "signal", 0, release=True)))
    commit(store, step(start(store, "timer"), change=Park(AT, "timer", 0, release=True)))
    commit(store, step(start(store, "free"), change=Release("interrupted")))
    rows = store.file.read("select run.id from hot join run using (rid) where due_at is not null order by due_at")
    assert [row[0] for row in rows] == ["free", "timer"]


@pytest.mark.parametrize(
    "where,wanted",
    [
        (RunFilter(statuses=("failed",)), "USING INDEX run_unlucky (status=?)"),
        (RunFilter(parent="p"), "USING INDEX run_parent (parent=?)"),
        (ALL, "SCAN run"),
    ],
)
def test_pages_of_the_catalogue_need_no_sorting(store: SqliteStore, where: RunFilter, wanted: str) -> None:
    condition, values = condition_for(store.sql, where)
    found = plan(store, store.sql["run_list"].replace("{where}", condition), {**values, "limit": 1})
    assert wanted in found
    assert "TEMP B-TREE" not in found


def test_a_prefix_is_found_by_the_ids(store: SqliteStore) -> None:
    found = plan(store, store.sql["run_prefixed"], {"id_prefix": "a", "id_end": "b", "limit": 9})
    assert "(id>? AND id<?)" in found


@pytest.mark.parametrize("prefix", ["r", "r%", "", "\U0010ffff", "é", "r1"])
def test_prefixes(store: SqliteStore, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ["r1", "r10", "r2", "r%x", "R1", "s", "\U0010ffff\U0010ffff", "é1", "e", "r\ud7ff", "r\ue000"]
    for run_id in ids:
        start(store, run_id)
    wanted = [run_id for run_id in reversed(ids) if run_id.startswith(prefix)]
    for few in (500, 1):
        monkeypatch.setattr("stepwell.journal._sqlite_catalogue.FEW", few)
        assert [row.id for row in store.run_list(RunFilter(id_prefix=prefix), limit=99)] == wanted
    assert store.run_count(RunFilter(id_prefix=prefix)) == len(wanted)


def test_the_end_of_a_prefix() -> None:
    assert prefix_end("ab") == "ac"
    assert prefix_end("a\U0010ffff") == "b"
    assert prefix_end("\U0010ffff") is None
    assert prefix_end("") is None
    assert prefix_end("a\ud7ff") == "a\ue000"


def test_text_is_looked_for_as_it_is(store: SqliteStore) -> None:
    start(store, "100%_done")
    start(store, "1000 done")
    lease = start(store, "ended")
    commit(store, step(lease, change=End("failed", r"path C:\x_y")))
    blocked = start(store, "stuck")
    commit(store, step(blocked, change=Release("blocked", "needs 50% MORE")))

    def found(text: str) -> list[str]:
        return [row.id for row in store.run_list(RunFilter(text=text), limit=9)]

    assert found("0%_D") == ["100%_done"]
    assert found("0 d") == ["1000 done"]
    assert found(r"c:\X_y") == ["ended"]
    assert found("50% more") == ["stuck"]
    assert found("APP:handler") == ["stuck", "ended", "1000 done", "100%_done"]


def test_tags_are_whole_words_with_any_character(store: SqliteStore) -> None:
    tags = ("a", "b,c", 'say "x"', "ü", "d\\")
    start(store, "tagged", tags=tags)
    start(store, "other", tags=("ab", "c", '"a"'))
    row = store.run_get("tagged")
    assert row is not None
    assert row.tags == tags
    for tag in tags:
        assert [row.id for row in store.run_list(RunFilter(tag=tag), limit=9)] == ["tagged"], tag
    assert store.run_count(RunFilter(tag='"a"')) == 1
    assert store.run_count(RunFilter(tag="b")) == 0


def test_open_runs_are_found_among_many_that_ended(store: SqliteStore) -> None:
    for i in range(5):
        ended(store, f"e{i}")
    start(store, "o1")
    start(store, "o2")
    assert [row.id for row in store.run_list(RunFilter(statuses=("running", "waiting")), limit=9)] == ["o2", "o1"]
    assert store.run_count(RunFilter(statuses=("running",))) == 2
    assert store.run_count(RunFilter(statuses=("running", "succeeded"))) == 7
    both = store.run_list(RunFilter(statuses=("running", "succeeded")), limit=3)
    assert [row.id for row in both] == ["o2", "o1", "e4"]


# -- size


def test_a_step_is_small_on_the_disk(store: SqliteStore) -> None:
    lease = start(store)
    before = count(store, "record")
    pages = store.file.read("pragma page_count")[0][0]
    for _ in range(10):
        commit(store, *(step(lease, "x" * 43, ahead=i + 1) for i in range(300)))
    data = store.file.read("select avg(length(data)) from record")[0][0]
    each = (store.file.read("pragma page_count")[0][0] - pages) * 4096 / (count(store, "record") - before)
    print(f"{data:.0f} bytes of data are {each:.0f} bytes on disk")
    assert 65 < data < 80
    assert each <= 110


# -- blobs


def test_a_blob_is_there_whole_or_not_at_all(store: SqliteStore) -> None:
    def chunks() -> Iterator[bytes]:
        for i in range(6):
            yield bytes([i]) * 10
        assert store.blob_get(b"h") is None
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        store.blob_put(b"h", chunks())
    assert store.blob_get(b"h") is None
    assert count(store, "blob_chunk") == _sqlite_blob.CHUNKS_AT_ONCE
    store.blob_put(b"h", iter([b"shorter"]))  # what is left of the first is not part of it
    assert store.blob_get(b"h") == b"shorter"
    assert count(store, "blob_chunk") == 1
    store.blob_put(b"h", chunks())  # there already: nothing is asked for
    assert store.blob_get(b"h") == b"shorter"


def test_an_empty_blob(store: SqliteStore) -> None:
    store.blob_put(b"h", iter([]))
    assert store.blob_get(b"h") == b""


def test_a_large_chunk_is_cut(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_blob, "CHUNK", 4)
    store.blob_put(b"h", iter([b"0123456789", b"abcdef"]))
    assert store.blob_get(b"h") == b"0123456789abcdef"
    assert count(store, "blob_chunk") == 5


def test_half_a_blob_goes_after_a_day(store: SqliteStore, clock: VirtualClock) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x"] * 9
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.blob_put(b"h", chunks())
    last = list(store.gc(ALL, dry_run=False))[-1]
    assert (last.blobs, count(store, "blob")) == (0, 1)
    clock.advance(DAY + 1)
    dry = list(store.gc(ALL, dry_run=True))[-1]
    assert list(store.gc(ALL, dry_run=False))[-1] == dry
    assert (count(store, "blob"), count(store, "blob_chunk")) == (0, 0)


def test_a_blob_touched_while_gc_looks_stays(store: SqliteStore, clock: VirtualClock) -> None:
    store.blob_put(b"h", iter([b"x"]))
    clock.advance(DAY + 1)
    detach = _sqlite_gc._Collection._detach_blob

    def touched(self: Any, values: dict[str, Any]) -> bool:
        store.blob_put(b"h", iter([]))
        return detach(self, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sqlite_gc._Collection, "_detach_blob", touched)
        list(store.gc(ALL, dry_run=False))
    assert store.blob_get(b"h") == b"x"


def test_a_blob_that_comes_to_be_used_while_gc_looks_stays(store: SqliteStore, clock: VirtualClock) -> None:
    store.blob_put(b"h", iter([b"x"]))
    lease = start(store)
    clock.advance(DAY + 1)
    detach = _sqlite_gc._Collection._detach_blob

    def used(self: Any, values: dict[str, Any]) -> bool:
        commit(store, step(lease, blobs=[b"h"]))
        return detach(self, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sqlite_gc._Collection, "_detach_blob", used)
        list(store.gc(ALL, dry_run=False))
    assert store.blob_get(b"h") == b"x"
    assert list(store.check()) == []


def test_a_large_blob_goes_in_pieces_and_may_be_broken_off(
    store: SqliteStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_gc, "CHUNKS_AT_ONCE", 2)
    store.blob_put(b"h", iter([b"x"] * 7))
    clock.advance(DAY + 1)
    steps = store.gc(ALL, dry_run=False)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert store.blob_get(b"h") is None
    assert 0 < count(store, "blob_chunk") < 7
    store.blob_put(b"new", iter([b"y"]))
    list(store.gc(ALL, dry_run=False))
    assert count(store, "blob_chunk") == 1


def test_a_blob_written_again_while_its_chunks_go_stays(
    store: SqliteStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite_gc, "CHUNKS_AT_ONCE", 2)
    store.blob_put(b"h", iter([b"x"] * 7))
    clock.advance(DAY + 1)
    steps = store.gc(ALL, dry_run=False)
    next(steps)
    store.blob_put(b"h", iter([b"y"] * 9))
    list(steps)
    assert store.blob_get(b"h") == b"y" * 9


# -- retention


def test_many_small_runs_go_in_few_transactions(store: SqliteStore) -> None:
    for i in range(100):
        ended(store, f"r{i}")
    before = store.file._commits
    last = list(store.gc(ALL, dry_run=False, max_rows=1000))[-1]
    assert (last.runs, last.rows) == (100, 300)
    assert store.file._commits - before <= 10
    assert (count(store, "record"), count(store, "gone"), count(store, "run")) == (0, 0, 0)


@pytest.mark.parametrize("max_rows", [1, 3, 7, 5000])
def test_a_transaction_is_small(store: SqliteStore, max_rows: int) -> None:
    for i in range(4):
        lease = ended(store, f"r{i}", rows=5, parent=None if i == 0 else "r0")
        assert lease.rid
    lease = start(store, "noted")
    store.fact_deliver("noted", "signal", AT, b"12345")
    commit(store, step(lease, notes=[Note("k", "log", AT, "text")] * 3, change=End("failed")))
    dry = list(store.gc(ALL, dry_run=True))[-1]
    results = list(store.gc(ALL, dry_run=False, max_rows=max_rows))
    assert results[-1] == dry
    assert (dry.runs, dry.rows) == (5, 4 * 7 + 2 + 3 + 1)
    rows = [0, *(result.rows for result in results)]
    assert all(b - a <= max_rows for a, b in pairwise(rows))
    for table in ("run", "record", "note", "inbox", "gone"):
        assert count(store, table) == 0, table


def test_a_run_opened_again_while_gc_looks_stays(store: SqliteStore) -> None:
    from tests.journal.sqlite_rows import taken

    lease = ended(store, "r")
    take = _sqlite_gc._Collection._take_roots

    def opened(self: Any, roots: list[int]) -> Any:
        assert store.run_reopen(lease.rid or 0, "w2", taken()) is not None
        return take(self, roots)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sqlite_gc._Collection, "_take_roots", opened)
        assert list(store.gc(ALL, dry_run=False))[-1].runs == 0
    assert len(store.record_load(lease.rid or 0)) == 4
    assert store.hot_get("r") is not None


def test_what_was_broken_off_is_finished_by_the_next(store: SqliteStore) -> None:
    lease = ended(store, "r", rows=30)
    steps = store.gc(ALL, dry_run=False, max_rows=5)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert store.run_get("r") is None
    assert 0 < len(store.record_load(lease.rid or 0)) < 32
    assert list(store.check()) == []
    list(store.gc(RunFilter(id_prefix="none"), dry_run=False))
    assert store.record_load(lease.rid or 0) == []


def test_a_circle_of_parents_ends(store: SqliteStore) -> None:
    ended(store, "a", parent="b")
    ended(store, "b", parent="a")
    assert list(store.gc(ALL, dry_run=False))[-1].runs == 0


# -- the doctor's questions


def test_a_sound_store_has_no_problems(store: SqliteStore) -> None:
    ended(store, "a")
    start(store, "b")
    assert list(store.check()) == []
    facts = store.facts()
    assert facts["journal mode"] == "wal"
    assert facts["waking"] == "data_version, every 5 to 50 ms"
    assert facts["write lock"] == "free"
    assert set(facts) == {"store", "schema", "sqlite", "journal mode", "size", "wal", "waking", "write lock"}


def test_problems_are_named(store: SqliteStore, clock: VirtualClock) -> None:
    lease = start(store, "a")
    start(store, "b")
    commit(store, step(lease, blobs=[b"\xab"]))
    store.blob_put(b"idle", iter([b"12345"]))
    clock.advance(2 * DAY)
    write = store.file.write
    write.execute("delete from hot where rid = 2")
    write.execute("update run set status = 'failed' where rid = 1")
    assert list(store.check()) == [
        "run a refers to blob ab, which is not there",
        f"{store.file.path}: run number 1 is open and not in the catalogue, or ended there",
        "run b is open in the catalogue, and nobody can take it up: its hot row is missing",
        "1 large values that no run refers to hold 5 bytes: `stepwell gc` takes them away",
    ]
