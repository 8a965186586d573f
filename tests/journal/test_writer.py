"""The writer: what a line brings along is written with its batch, or not at all (ENGINE.md §3 and §5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell.core import LifeStarted, RunStarted, StepSucceeded
from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import (
    DoorRow,
    End,
    InboxChanged,
    Lease,
    NewRun,
    Outgoing,
    Park,
    Release,
    Start,
    Taken,
    Unpark,
)
from stepwell.journal._memory import MemoryStore
from stepwell.journal._sqlite import SqliteStore
from stepwell.journal._writer import Line, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stepwell.core import AnyRecord
    from stepwell.journal._api import HotRow, Store

AT = 1_700_000_000_000_000


class Rig:
    """A store, its writer, and lines of runs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.writer = Writer(store, inline=True)
        self.folded: list[AnyRecord] = []

    def line(self, run_id: str, *, rides: bool = False) -> Line:
        """A run of ours; with ``rides`` its start waits for the first commit."""
        line = Line(self.writer, Lease(run_id, "w"), self.folded.extend)
        line.start = Start(NewRun(run_id, "f", "durable", b"", AT))
        line.ride([RunStarted(AT, "f", None), LifeStarted(AT, 1, "w", "start")])
        if not rides:
            self.writer.commit(line.enqueue())
        return line

    def hot(self, run_id: str) -> HotRow:
        hot = self.store.hot_get(run_id)
        assert hot is not None
        return hot

    def told(self, run_id: str) -> list[bytes]:
        """What waits in the run's inbox; the counter says the same."""
        hot = self.hot(run_id)
        facts = [fact.data for fact in self.store.inbox_load(hot.rid)]
        assert hot.inbox == len(facts)
        return facts

    def stolen(self, run_id: str) -> None:
        """Another worker has taken the run."""
        hot = self.hot(run_id)
        assert self.store.run_claim(hot, "thief", Taken(hot.epoch + 1, (LifeStarted(AT, 2, "thief", "due"),)))


@pytest.fixture(params=["memory", "sqlite"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    store: Any = MemoryStore("writer") if request.param == "memory" else SqliteStore(tmp_path / "well.db")
    yield Rig(store)
    store.close()


def done(text: str = "1") -> StepSucceeded:
    return StepSucceeded(AT, f"step {text}", text)


def tell(run_id: str, text: str) -> Outgoing:
    return Outgoing(run_id, "child", AT, text.encode())


def test_facts_go_with_their_batch_in_the_order_of_calls(rig: Rig) -> None:
    one, two = rig.line("one"), rig.line("two")
    tickets = [
        one.enqueue([done("1")], facts=[tell("two", "a")]),
        two.enqueue([done("1")], facts=[tell("one", "b")]),
        one.enqueue(facts=[tell("two", "c"), tell("nobody", "c")]),
        one.enqueue([done("2")], End("succeeded"), facts=[tell("two", "d")]),
    ]
    assert rig.told("two") == []
    rig.writer.commit(tickets[-1])
    assert [ticket.error for ticket in tickets] == [None] * 4
    assert rig.told("two") == [b"a", b"c", b"d"]
    assert rig.store.hot_get("one") is None
    assert two.lease.seq == 2


def test_what_rides_goes_with_the_batch_that_tells(rig: Rig) -> None:
    rig.line("target")
    line = rig.line("r")
    line.ride([done("riding")])
    before = len(rig.folded)
    rig.writer.commit(line.enqueue([done("last")], facts=[tell("target", "a")]))
    assert [record.key for record in rig.folded[before:] if isinstance(record, StepSucceeded)] == [
        "step riding", "step last",
    ]  # fmt: skip
    assert rig.told("target") == [b"a"]


@pytest.mark.parametrize("change", [None, End("succeeded"), Park(None, "x", 0, release=True)])
def test_a_run_that_tells_something_before_its_first_commit(rig: Rig, change: Any) -> None:
    """Where it changes, too, that is two batches: the fact is told once, by the one that ends it."""
    rig.line("parent")
    line = rig.line("child", rides=True)
    assert rig.store.run_get("child") is None
    rig.writer.commit(line.enqueue([done()], change, facts=[tell("parent", "a")]))
    assert rig.told("parent") == [b"a"]
    row = rig.store.run_get("child")
    assert row is not None
    assert row.status == {None: "running", End: "succeeded", Park: "waiting"}[change and type(change)]


@pytest.mark.parametrize("change", [None, End("succeeded"), Park(None, "x", 0, release=True)])
def test_a_lease_that_was_lost_tells_nobody(rig: Rig, change: Any) -> None:
    rig.line("target")
    line = rig.line("r")
    rig.stolen("r")
    for facts in ([tell("target", "first")], [tell("target", "behind it")]):
        with pytest.raises(Fenced):
            rig.writer.commit(line.enqueue([done()], change, facts=facts))
    assert rig.told("target") == []


@pytest.mark.parametrize("change", [Park(None, "x", 0, release=True), Unpark(inbox_seen=0)])
def test_what_has_to_be_decided_again_tells_nobody_yet(rig: Rig, change: Any) -> None:
    rig.line("target")
    line = rig.line("r")
    assert rig.store.fact_deliver("r", "answer", AT, b"1")
    with pytest.raises(InboxChanged):
        rig.writer.commit(line.enqueue([done()], change, facts=[tell("target", "late")]))
    assert rig.told("target") == []
    rig.writer.commit(line.enqueue([done()], facts=[tell("target", "decided")]))
    assert rig.told("target") == [b"decided"]


def test_a_run_handed_back_behind_a_batch_that_was_not_written(rig: Rig) -> None:
    """Its records would stand behind a hole and are left out; so is all that only makes sense with them."""
    target, line = rig.line("target"), rig.line("r")
    assert rig.store.fact_deliver("r", "answer", AT, b"1")
    (fact,) = rig.store.inbox_load(line.lease.rid or 0)
    large = line.enqueue([done("x" * (65 << 20))], facts=[tell("target", "large")])
    with pytest.raises(JournalError, match="too large"):
        rig.writer.commit(large)
    released = line.enqueue(
        [done()], Release("interrupted"), inbox_taken=[fact.n], rows=[DoorRow("d", "k", "x", b"1")],
        facts=[tell("target", "behind it")],
    )  # fmt: skip
    rig.writer.commit(released)
    assert (rig.hot("r").owner, rig.hot("r").status) == (None, "interrupted")
    assert rig.told("target") == []
    assert rig.told("r") == [b"1"]
    assert rig.store.row_get("d", "k", "x") is None
    assert target.lease.seq == 1


@pytest.mark.parametrize("change", [Park(None, "x", 0, release=False), Unpark(inbox_seen=0)])
def test_what_has_to_be_decided_again_takes_no_other_batch_with_it(rig: Rig, change: Any) -> None:
    line, other = rig.line("r"), rig.line("other")
    assert rig.store.fact_deliver("r", "answer", AT, b"1")
    again = line.enqueue([done("1")], change)
    tickets = [other.enqueue([done("1")]), line.enqueue([done("2")]), other.enqueue([done("2")])]
    with pytest.raises(InboxChanged):
        rig.writer.commit(again)
    for ticket in tickets:
        rig.writer.commit(ticket)
    rig.writer.commit(line.enqueue([done("1")]))
    kept = [record.key for record in rig.folded if isinstance(record, StepSucceeded)]
    assert kept == ["step 1", "step 2", "step 2", "step 1"]
    assert (line.lease.seq, other.lease.seq) == (3, 3)
