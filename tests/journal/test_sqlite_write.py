"""Writing into an SQLite store: the fence, groups, and commits whose outcome is not known (ENGINE.md §3)."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.errors import Fenced, JournalError
from stepwell.journal import _sqlite_write
from stepwell.journal._api import (
    MAX_ROW_BYTES,
    Batch,
    Claim,
    ClaimLost,
    DoorRow,
    End,
    Lease,
    NewRun,
    Note,
    Outgoing,
    Park,
    Release,
    RunExists,
    Start,
)
from stepwell.journal._sqlite import SqliteStore
from tests.journal.sqlite_rows import AT, claim, commit, encoded, start, step, taken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stepwell.journal._api import HotChange


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "well.db")
    yield store
    store.close()


def seqs(store: SqliteStore, lease: Lease) -> list[int]:
    assert lease.rid is not None
    return [entry.seq for entry in store.record_load(lease.rid)]


class Said:
    """What a connection is told, in order, and what it answers instead."""

    def __init__(self, store: SqliteStore, answer: Callable[[Said, str, tuple[Any, ...]], Any]) -> None:
        self.statements: list[str] = []
        self._real: dict[str, Any] = {"write": store.file.write, "cursor": store.file.cursor}
        self._answer = answer
        store.file.cursor = Talk(self, "cursor")  # type: ignore[assignment]
        store.file.write = Talk(self, "write")  # type: ignore[assignment]

    def run(self, name: str, sql: str, *args: Any) -> Any:
        self.statements.append(sql.split(maxsplit=1)[0])
        return self._answer(self, sql, (self._real[name], *args))

    @staticmethod
    def through(sql: str, args: tuple[Any, ...]) -> Any:
        return args[0].execute(sql, *args[1:])


class Talk:
    def __init__(self, said: Said, name: str) -> None:
        self._said = said
        self._name = name

    def execute(self, sql: str, *args: Any) -> Any:
        return self._said.run(self._name, sql, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._said._real[self._name], name)


def failure(code: int, text: str = "disk I/O error") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def after(word: str, code: int, *, times: int = 1) -> Callable[[Said, str, tuple[Any, ...]], Any]:
    """Do it, then say that it failed: the commit was durable and nobody heard of it."""
    left = [times]

    def answer(said: Said, sql: str, args: tuple[Any, ...]) -> Any:
        done = Said.through(sql, args)
        if sql.startswith(word) and left[0]:
            left[0] -= 1
            raise failure(code)
        return done

    return answer


def instead(word: str, code: int) -> Callable[[Said, str, tuple[Any, ...]], Any]:
    """Do not do it, and say that it failed."""
    left = [1]

    def answer(said: Said, sql: str, args: tuple[Any, ...]) -> Any:
        if sql.startswith(word) and left[0]:
            left[0] -= 1
            raise failure(code)
        return Said.through(sql, args)

    return answer


# -- the fast path


def test_a_step_is_one_statement(store: SqliteStore) -> None:
    lease = start(store)
    said = Said(store, lambda said, sql, args: Said.through(sql, args))
    commit(store, step(lease))
    assert said.statements == ["insert"]


def test_a_group_is_one_statement_a_step_and_one_commit(store: SqliteStore) -> None:
    leases = [start(store, f"r{i}") for i in range(5)]
    said = Said(store, lambda said, sql, args: Said.through(sql, args))
    commit(store, *(step(lease) for lease in leases))
    assert said.statements == ["begin", *["insert"] * 5, "commit"]


def test_a_step_finds_its_places_by_key(store: SqliteStore) -> None:
    sql = f"explain query plan {store.sql['batch_append']}"
    plan = [row[3] for row in store.file.write.execute(sql, (1, b"", 1, 1, "w", 0)).fetchall()]
    assert [line for line in plan if "SEARCH" in line or "SCAN" in line] == [
        "SEARCH hot USING INTEGER PRIMARY KEY (rowid=?)",
        "SEARCH record USING INTEGER PRIMARY KEY (rowid=?)",
    ]


@pytest.mark.parametrize("seq", [1, 2, 4, 100])
def test_a_seq_out_of_order_is_fenced(store: SqliteStore, seq: int) -> None:
    lease = start(store)
    commit(store, step(lease))
    batch = step(lease)
    batch.seq = seq
    assert isinstance(store.batch_commit([batch])[0], Fenced)
    assert seqs(store, lease) == [1, 2]


def test_a_run_that_is_not_on_record_is_fenced(store: SqliteStore) -> None:
    lease = Lease("r", "w")
    lease.seq = 1
    assert isinstance(store.batch_commit([step(lease)])[0], Fenced)


def test_rows_of_other_runs_are_no_rows_before(store: SqliteStore) -> None:
    one, two = start(store, "one"), start(store, "two")
    assert one.rid is not None
    two.seq = 0  # a first row stands where the last possible one of the run before would
    batch = step(two)
    batch.seq = 0
    assert isinstance(store.batch_commit([batch])[0], Fenced)
    assert seqs(store, one) == seqs(store, two) == [1]


def test_a_run_has_room_for_so_many_rows(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_write, "MAX_SEQ", 3)
    lease = start(store)
    commit(store, step(lease), step(lease, ahead=2))
    for batch in (step(lease), step(lease, rows=[DoorRow("d", "k", "x", b"")])):
        result = store.batch_commit([batch])[0]
        assert isinstance(result, JournalError)
        assert "has 3 rows, the most that a run can have" in str(result)
        assert "continue in a new one" in str(result.hint)


def test_what_is_too_large_fails_alone(store: SqliteStore) -> None:
    lease, other = start(store, "large"), start(store, "small")
    batch = step(lease)
    batch.data = b"x" * (MAX_ROW_BYTES + 1)
    results = store.batch_commit([batch, step(other)])
    assert "records of run large are too large" in str(results[0])
    assert results[1] is None


# -- groups


def test_a_zombie_among_fifty_fails_alone(store: SqliteStore) -> None:
    leases = [start(store, f"r{i}") for i in range(50)]
    claim(store, "r7")
    chain = [step(leases[7], ahead=ahead) for ahead in (1, 2, 3)]
    group = [*(step(lease) for lease in leases[:7]), *chain, *(step(lease) for lease in leases[8:])]
    results = store.batch_commit(group)
    assert [isinstance(result, Fenced) for result in results] == [False] * 7 + [True] * 3 + [False] * 42
    assert seqs(store, leases[7]) == [1, 2]
    assert all(seqs(store, lease) == [1, 2] for lease in leases[:7] + leases[8:])


def test_a_zombie_and_the_new_holder_in_one_group(store: SqliteStore) -> None:
    old = start(store)
    new = claim(store)
    results = store.batch_commit([step(old, change=End("failed")), step(new), step(old)])
    assert [type(result) for result in results] == [Fenced, type(None), Fenced]
    assert store.hot_get("r") is not None


def test_a_value_that_no_row_can_hold_fails_alone(store: SqliteStore) -> None:
    lease, other = start(store, "odd"), start(store, "even")
    odd: Any = object()
    results = store.batch_commit([step(lease, rows=[DoorRow("d", "k", odd, b"")]), step(other)])
    assert isinstance(results[0], JournalError)
    assert results[1] is None
    assert seqs(store, lease) == [1]


def test_what_cannot_be_bound_in_a_step_leaves_no_transaction_open(store: SqliteStore) -> None:
    lease, other = start(store, "odd"), start(store, "even")
    batch = step(lease)
    batch.data = [1]  # type: ignore[assignment]
    for group in ([batch], [step(other), batch]):
        with pytest.raises(JournalError):
            store.batch_commit(group)
        assert not store.file.write.in_transaction
    assert seqs(store, other) == [1]
    commit(store, step(other))


def test_an_interrupt_leaves_nothing_of_a_group(store: SqliteStore) -> None:
    lease, other = start(store, "r"), start(store, "s")

    def answer(said: Said, sql: str, args: tuple[Any, ...]) -> Any:
        if len(said.statements) == 3:
            raise KeyboardInterrupt
        return Said.through(sql, args)

    Said(store, answer)
    with pytest.raises(KeyboardInterrupt):
        store.batch_commit([step(lease), step(other)])
    assert seqs(store, lease) == seqs(store, other) == [1]
    assert not store.file.write.in_transaction


def test_a_refused_start_has_no_number(store: SqliteStore) -> None:
    start(store)
    again = Lease("r", "w")
    batch = encoded(step(again, change=Start(NewRun("r", "f", "durable", b"", AT))))
    assert isinstance(store.batch_commit([batch])[0], RunExists)
    assert again.rid is None
    fine = Lease("s", "w")
    good = step(fine, change=Start(NewRun("s", "f", "durable", b"", AT)))
    results = store.batch_commit([batch, good])
    assert isinstance(results[0], RunExists)
    assert results[1] is None
    assert fine.rid is not None


def test_a_number_is_never_given_twice(store: SqliteStore) -> None:
    lease = start(store)
    commit(store, step(lease, change=End("succeeded")))
    from stepwell.journal._api import RunFilter

    list(store.gc(RunFilter(), dry_run=False))
    again = start(store)
    assert again.rid != lease.rid


# -- outcome unknown


CODES = [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR | 4 << 8, sqlite3.SQLITE_FULL]


@pytest.mark.parametrize("code", CODES)
def test_a_step_that_was_durable_all_the_same_is_not_written_twice(store: SqliteStore, code: int) -> None:
    lease = start(store)
    Said(store, after("insert", code))
    commit(store, step(lease, "a"))
    commit(store, step(lease, "b"))
    assert seqs(store, lease) == [1, 2, 3]


@pytest.mark.parametrize("code", CODES)
def test_a_step_that_was_not_durable_is_written_again(store: SqliteStore, code: int) -> None:
    lease = start(store)
    Said(store, instead("insert", code))
    commit(store, step(lease))
    assert seqs(store, lease) == [1, 2]


@pytest.mark.parametrize("broken", [after, instead])
def test_a_group_in_doubt_comes_out_whole(store: SqliteStore, broken: Any) -> None:
    lease, zombie = start(store, "r"), start(store, "z")
    claim(store, "z")
    new = Lease("n", "w")
    ended = start(store, "e")
    group = [
        step(lease), step(lease, ahead=2, notes=[Note("k", "log", AT, "once")]), step(zombie),
        step(new, change=Start(NewRun("n", "f", "durable", b"", AT))), step(ended, change=End("succeeded")),
    ]  # fmt: skip
    Said(store, broken("commit", sqlite3.SQLITE_IOERR))
    results = store.batch_commit(group)
    assert [type(result) for result in results] == [type(None), type(None), Fenced, type(None), type(None)]
    assert seqs(store, lease) == [1, 2, 3]
    assert seqs(store, zombie) == seqs(store, ended) == [1, 2]
    row = store.run_get("n")
    assert row is not None
    assert new.rid == row.rid
    notes = store.note_load(lease.rid or 0, kind=None, key=None, after=0, limit=9)
    assert [note.data for _, note in notes] == ["once"]


@pytest.mark.parametrize("broken", [after, instead])
@pytest.mark.parametrize("change", [End("failed"), Release("interrupted"), Park(None, "x", 0, release=True)])
def test_a_run_let_go_without_a_record_in_doubt(store: SqliteStore, broken: Any, change: HotChange) -> None:
    """Such a batch has no row to be known by: what it did to the run tells. A start may be in the same group, as where
    a run ends before its first commit.
    """
    lease, new = start(store), Lease("n", "w")
    first = step(new, change=Start(NewRun("n", "f", "durable", b"", AT)))
    Said(store, broken("commit", sqlite3.SQLITE_IOERR))
    commit(store, encoded(Batch(lease, [], change)), first, encoded(Batch(new, [], change)))
    for run_id in ("r", "n"):
        row = store.run_get(run_id)
        assert row is not None
        assert (row.owner, row.status) == (None, getattr(change, "status", "waiting"))


@pytest.mark.parametrize("change", [End("failed"), Release("interrupted"), Park(None, "x", 0, release=True)])
def test_a_run_that_another_let_go_is_not_ours(store: SqliteStore, change: HotChange) -> None:
    old, other = start(store), start(store, "o")
    commit(store, step(claim(store), change=Release("blocked", "why")))
    Said(store, instead("commit", sqlite3.SQLITE_IOERR))
    results = store.batch_commit([encoded(Batch(old, [], change)), step(other)])
    assert [type(result) for result in results] == [Fenced, type(None)]


def test_another_ones_row_in_the_place_is_not_ours(store: SqliteStore) -> None:
    lease = start(store)
    ours = step(lease, "ours")
    theirs = step(lease, "theirs")

    def answer(said: Said, sql: str, args: tuple[Any, ...]) -> Any:
        if len(said.statements) == 1:
            values = list(args[1])
            values[1] = theirs.data
            args[0].execute(sql, values)
            raise failure(sqlite3.SQLITE_IOERR)
        return Said.through(sql, args)

    Said(store, answer)
    assert isinstance(store.batch_commit([ours])[0], Fenced)
    assert store.record_load(lease.rid or 0)[1].data == theirs.data


def test_the_same_row_of_another_life_is_not_ours(store: SqliteStore) -> None:
    old = start(store)
    batch = step(old)

    def answer(said: Said, sql: str, args: tuple[Any, ...]) -> Any:
        if len(said.statements) == 1:
            args[0].execute("insert into record (k, epoch, data) values (?, 2, ?)", (args[1][0], batch.data))
            raise failure(sqlite3.SQLITE_IOERR)
        return Said.through(sql, args)

    Said(store, answer)
    assert isinstance(store.batch_commit([batch])[0], Fenced)


def test_twice_in_doubt_is_an_error_with_a_way_out(store: SqliteStore) -> None:
    lease = start(store)

    def answer(said: Said, sql: str, args: tuple[Any, ...]) -> Any:
        raise failure(sqlite3.SQLITE_FULL, "database or disk is full")

    Said(store, answer)
    connect = store.file.connect
    store.file.connect = lambda *args: (_ for _ in ()).throw(failure(sqlite3.SQLITE_FULL))  # type: ignore[method-assign]
    with pytest.raises(JournalError, match="cannot be written: the disk is full") as caught:
        store.batch_commit([step(lease)])
    assert caught.value.hint == "make room, then resume the run"
    store.file.connect = connect  # type: ignore[method-assign]
    store.file._replace()
    commit(store, step(lease))


def test_a_full_database_refuses_and_goes_on_when_there_is_room(store: SqliteStore) -> None:
    lease = start(store)
    pages = store.file.write.execute("pragma page_count").fetchone()[0]
    big = step(lease, "x" * 50_000)
    connect = store.file.connect

    def tight(*args: Any) -> sqlite3.Connection:
        connection = connect(*args)
        connection.execute(f"pragma max_page_count = {pages}")
        return connection

    store.file.connect = tight  # type: ignore[assignment, method-assign]
    store.file.write.execute(f"pragma max_page_count = {pages}")
    for group in ([big], [big, step(lease, ahead=2)]):
        with pytest.raises(JournalError, match="the disk is full"):
            store.batch_commit(group)
    with pytest.raises(JournalError, match="the disk is full"):
        store.fact_deliver("r", "signal", AT, b"x" * 50_000)
    assert seqs(store, lease) == [1]
    store.file.connect = connect  # type: ignore[method-assign]
    store.file._replace()
    commit(store, big)
    assert list(store.check()) == []


@pytest.mark.parametrize("broken", [after, instead])
def test_claims_and_facts_in_doubt_are_done_once(store: SqliteStore, broken: Any) -> None:
    start(store)
    hot = store.hot_get("r")
    assert hot is not None
    Said(store, broken("commit", sqlite3.SQLITE_IOERR))
    lease = store.run_claim(hot, "w2", taken())
    assert lease is not None
    assert (lease.seq, lease.epoch, lease.inbox) == (2, 2, 0)
    assert seqs(store, lease) == [1, 2]
    store.file._replace()
    Said(store, broken("commit", sqlite3.SQLITE_IOERR))
    assert store.fact_deliver("r", "signal", AT, b"1")
    assert [fact.data for fact in store.inbox_load(lease.rid or 0)] == [b"1"]
    hot = store.hot_get("r")
    assert hot is not None
    assert hot.inbox == 1
    store.file._replace()
    commit(store, step(lease, change=End("failed")))
    Said(store, broken("commit", sqlite3.SQLITE_IOERR))
    again = store.run_reopen(lease.rid or 0, "w3", taken(3, "w3"))
    assert again is not None
    assert (again.seq, again.epoch, again.inbox, again.run_id) == (4, 3, 1, "r")
    store.file._replace()
    assert store.run_reopen(lease.rid or 0, "w4", taken(4, "w4")) is None


@pytest.mark.parametrize("broken", [after, instead])
@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_what_a_batch_tells_is_told_once_in_doubt(store: SqliteStore, broken: Any, records: bool, alone: bool) -> None:
    lease, target, other = start(store, "r"), start(store, "t", "w2"), start(store, "o")
    fact = Outgoing("t", "child", AT, b"1")
    batch = step(lease, facts=[fact]) if records else encoded(Batch(lease, [], facts=[fact]))
    Said(store, broken("commit", sqlite3.SQLITE_IOERR))
    commit(store, batch, *([] if alone else [step(other)]))
    assert [found.data for found in store.inbox_load(target.rid or 0)] == [b"1"]
    hot = store.hot_get("t")
    assert hot is not None
    assert hot.inbox == 1


@pytest.mark.parametrize("broken", [after, instead])
@pytest.mark.parametrize("before", [None, b"asked"])
def test_a_claimed_fact_in_doubt_is_delivered_once(store: SqliteStore, broken: Any, before: bytes | None) -> None:
    lease = start(store, rows=[DoorRow("run", "k", "r/1", before)])
    Said(store, broken("commit", sqlite3.SQLITE_IOERR))
    assert store.fact_deliver("r", "answer", AT, b"1", Claim("run", "k", "r/1", before, b"answered"))
    assert [fact.data for fact in store.inbox_load(lease.rid or 0)] == [b"1"]
    assert store.row_get("run", "k", "r/1") == b"answered"
    hot = store.hot_get("r")
    assert hot is not None
    assert hot.inbox == 1


def test_the_same_answer_of_another_is_not_ours(store: SqliteStore) -> None:
    """The row is what ours would be, but our fact is not there: somebody else was heard."""
    lease = start(store, rows=[DoorRow("run", "k", "r/1", b"answered")])
    Said(store, instead("begin", sqlite3.SQLITE_IOERR))
    with pytest.raises(ClaimLost):
        store.fact_deliver("r", "answer", AT, b"1", Claim("run", "k", "r/1", None, b"answered"))
    assert store.inbox_load(lease.rid or 0) == []
    commit(store, step(lease))


# -- waking


def test_only_what_others_may_act_on_wakes_them(store: SqliteStore) -> None:
    pokes: list[int] = []
    store.poke = lambda: pokes.append(1)  # type: ignore[method-assign]

    def woke(batch: Batch) -> bool:
        before = len(pokes)
        commit(store, batch)
        return len(pokes) > before

    lease = Lease("r", "w")
    assert not woke(step(lease, change=Start(NewRun("r", "f", "durable", b"", AT))))
    assert not woke(step(lease))
    assert not woke(step(lease, change=Park(None, "x", 0, release=False)))
    assert woke(step(lease, change=Park(AT, "x", 0, release=True)))
    assert woke(step(claim(store), change=Release("interrupted")))
    assert woke(step(claim(store), change=End("succeeded")))
    assert woke(step(start(store, "teller"), facts=[Outgoing("nobody", "child", AT, b"1")]))
    assert woke(step(Lease("q", "w"), change=Start(NewRun("q", "f", "durable", b"", AT, held=False))))
