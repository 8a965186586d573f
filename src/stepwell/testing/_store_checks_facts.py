"""Checks of the store conformance suite: facts that only one may deliver, and facts that a batch brings along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import (
    MAX_ROW_BYTES,
    Claim,
    ClaimLost,
    End,
    InboxChanged,
    Outgoing,
    Park,
    Release,
    Unpark,
)
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, MINUTE, StoreRig

if TYPE_CHECKING:
    from stepwell.journal._api import HotChange, Lease


class ClaimedFactChecks(StoreRig):
    """A door's row decides who is heard: it changes hands in the transaction that delivers the fact."""

    def answer(self, run_id: str, before: bytes | None, after: bytes, *, key: str = "r/1") -> bool | None:
        """Deliver what ``after`` says; None if somebody was quicker."""
        try:
            return self.store.fact_deliver(run_id, "answer", START, after, Claim("run", "k", key, before, after))
        except ClaimLost:
            return None

    def check_claimed_fact(self) -> None:
        """Where the row is as it was read, the fact is delivered and the row is the new one: both, for a row that was
        absent and for one that was there. Rows beside it stay.
        """
        lease = self.start("r")
        self.equal(self.answer("r", None, b"1"), True, "answer where the row is absent")
        self.equal(self.answer("r", b"1", b""), True, "answer where the row is as it was read")
        self.equal(self.answer("r", b"", b"3", key="r/1"), True, "answer where the row is empty, not absent")
        self.equal(self.answer("r", None, b"4", key="r/11"), True, "answer for another row")
        facts = [(fact.kind, fact.at, fact.data) for fact in self.store.inbox_load(self.rid(lease))]
        self.equal(facts, [("answer", START, data) for data in (b"1", b"", b"3", b"4")], "facts")
        self.equal(self.hot("r").inbox, 4, "inbox counter")
        self.equal(self.store.row_list("run", "k"), [("r/1", b"3"), ("r/11", b"4")], "door's rows")

    def check_claimed_fact_that_comes_too_late(self) -> None:
        """Where the row is not as it was read the claim is lost: no fact, no wake, and the row stays as it is."""
        lease = self.start("r")
        self.answer("r", None, b"first")
        self.park(lease, None)
        before = self.seen("r")
        for read in (None, b"", b"firs", b"first "):
            self.equal(self.answer("r", read, b"second"), None, f"answer of one who read {read!r}")
        self.equal(self.answer("r", b"first", b"second", key="r/2"), None, "answer for a row that is absent")
        self.equal(self.seen("r"), before, "what is on record after claims that were lost")
        self.equal(self.store.row_list("run", "k"), [("r/1", b"first")], "door's rows")
        self.equal(self.answer("r", b"first", b"second"), True, "answer of one who read it as it is")

    def check_claimed_fact_for_no_open_run(self) -> None:
        """An unknown or ended run takes no fact, the caller is told so, and the row stays as it is."""
        lease = self.start("r")
        self.answer("r", None, b"first")
        self.commit(self.batch(lease, self.record(), change=End("succeeded")))
        for run_id in ("r", "nobody"):
            self.equal(self.answer(run_id, b"first", b"second"), False, f"answer for {run_id}")
            self.equal(self.answer(run_id, None, b"second", key="r/2"), False, f"answer for {run_id}, absent row")
        self.equal(self.store.row_list("run", "k"), [("r/1", b"first")], "door's rows")
        self.equal(len(self.store.inbox_load(self.rid(lease))), 1, "facts in the inbox")

    def check_claimed_fact_for_a_blocked_run(self) -> None:
        """A blocked run takes the fact with its claim and stays asleep."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=Release("blocked", "code-changed")))
        self.equal(self.answer("r", None, b"first"), True, "answer")
        self.equal((self.hot("r").inbox, self.hot("r").wake_at), (1, None), "inbox counter and wake time")
        self.equal(self.due(self.store.now() + HOUR), [], "due runs")
        self.equal(self.store.row_get("run", "k", "r/1"), b"first", "door's row")


class OutgoingChecks(StoreRig):
    """What a batch tells other runs is delivered with it, or not at all."""

    def told(self, lease: Lease) -> list[bytes]:
        """What waits in the run's inbox."""
        return [fact.data for fact in self.store.inbox_load(self.rid(lease))]

    def tell(self, run_id: str, text: str = "told") -> Outgoing:
        """Something for another run."""
        return Outgoing(run_id, "child", START + 7, text.encode())

    def check_outgoing_is_delivered(self) -> None:
        """Runs that are held, wait or are blocked get the fact as from outside: the counter rises, and all but the
        blocked one wake. A run that has ended, or that nobody knows, gets nothing, and the batch is written.
        """
        held, waits, blocked, ended = (self.start(name, "w2") for name in ("held", "waits", "blocked", "ended"))
        self.park(waits, None)
        self.commit(self.batch(blocked, self.record(), change=Release("blocked", "code-changed")))
        self.commit(self.batch(ended, self.record(), change=End("failed")))
        lease = self.start("r")
        now = self.store.now()
        names = ("ended", "waits", "nobody", "blocked", "held")
        self.commit(self.batch(lease, self.record(), facts=[self.tell(name) for name in names]))
        for target in (held, waits, blocked):
            facts = [(fact.kind, fact.at, fact.data) for fact in self.store.inbox_load(self.rid(target))]
            self.equal(facts, [("child", START + 7, b"told")], f"inbox of {target.run_id}")
            self.equal(self.hot(target.run_id).inbox, 1, f"inbox counter of {target.run_id}")
        self.equal(self.store.inbox_load(self.rid(ended)), [], "inbox of the ended run")
        self.equal(self.due(now + MINUTE), ["waits"], "due runs")
        self.equal(self.hot("blocked").wake_at, None, "wake time of the blocked run")
        self.expect(self.hot("held").wake_at is not None, "the held run has no wake time")
        self.equal((self.hot("held").owner, self.hot("held").status), ("w2", "running"), "holder of the held run")
        self.equal((self.hot("r").inbox, len(self.texts(lease.rid))), (0, 2), "counter and rows of the run that tells")
        self.append(held)

    def check_outgoing_with_every_change(self) -> None:
        """Whatever else the batch does, and whether it has records or not, the fact is delivered once."""
        target = self.start("target", "w2")
        changes: list[HotChange | None] = [
            None, Park(START + HOUR, "x", 0, release=False), Park(None, "x", 0, release=True), Unpark(),
            Unpark(inbox_seen=0), Release("interrupted"), Release("blocked", "why"), End("succeeded"),
        ]  # fmt: skip
        wanted: list[bytes] = []
        for i, change in enumerate(changes):
            for records in ([self.record()], []):
                name = f"{i} {len(records)}"
                lease = self.start(name)
                wanted.append(name.encode())
                self.commit(self.batch(lease, *records, change=change, facts=[self.tell("target", name)]))
                self.equal(self.told(target), wanted, f"inbox after {change} with {len(records)} records")
                self.equal(len(self.texts(lease.rid)), 1 + len(records), "rows of the run that tells")
        start = self.start_batch("new")
        start.facts = [self.tell("target", "new")]
        self.commit(start)
        self.equal(self.told(target), [*wanted, b"new"], "inbox after a start")
        self.equal(self.hot("target").inbox, len(wanted) + 1, "inbox counter")

    def check_outgoing_of_a_refused_batch(self) -> None:
        """A batch that is not written tells nobody anything, alone and in a group."""
        self.start("target", "w2")
        other, stale, late, big = (self.start(name) for name in ("other", "stale", "late", "big"))
        self.claim("stale", "w3")
        self.store.fact_deliver("late", "signal", START, b"s")
        before = self.seen("target")
        told = [self.tell("target")]
        park = Park(None, "x", 0, release=True)
        large = self.batch(big, self.record(), facts=told)
        large.data = bytes(MAX_ROW_BYTES + 1)
        refused = [
            (Fenced, self.batch(stale, self.record(), facts=told)),
            (Fenced, self.batch(stale, facts=told)),
            (Fenced, self.batch(stale, self.record(), change=End("succeeded"), seq=3, facts=told)),
            (Fenced, self.batch(other, self.record(), seq=7, facts=told)),
            (InboxChanged, self.batch(late, self.record(), change=park, facts=told)),
            (InboxChanged, self.batch(late, self.record(), change=Unpark(inbox_seen=0), facts=told)),
            (JournalError, large),
        ]
        for kind, batch in refused:
            self.refused(kind, batch)
            healthy = self.start(f"healthy {id(batch)}")
            group = [self.batch(healthy, self.record(), seq=2), batch, self.batch(healthy, self.record(), seq=3)]
            self.kinds(self.submit(*group), [None, kind, None], "results of a group")
        self.equal(self.seen("target"), before, "what is on record of the run that was to be told")

    def check_outgoing_in_a_group(self) -> None:
        """In a group all that several runs tell arrives, in the order of each run's batches, also what they tell a run
        that the group itself starts; chains before and behind stay in order.
        """
        one, two = self.start("one"), self.start("two")
        new = self.start_batch("new")
        group = [
            new,
            self.batch(one, self.record(), seq=2),
            self.batch(one, self.record(), seq=3, facts=[self.tell("two", "1"), self.tell("new", "1")]),
            self.batch(one, self.record(), seq=4),
            self.batch(two, self.record(), seq=2, facts=[self.tell("one", "2")]),
            self.batch(one, self.record(), seq=5, facts=[self.tell("two", "3")]),
            self.batch(one, facts=[self.tell("two", "4")]),
            self.batch(two, self.record(), seq=3),
            self.batch(one, self.record(), change=End("succeeded"), seq=6, facts=[self.tell("two", "5")]),
        ]
        self.commit(*group)
        self.equal(self.told(two), [b"1", b"3", b"4", b"5"], "inbox of the one")
        self.equal(self.told(one), [b"2"], "inbox of the other")
        self.equal(self.told(new.lease), [b"1"], "inbox of the run that the group starts")
        self.equal([seq for seq, _, _ in self.texts(one.rid)], [1, 2, 3, 4, 5, 6], "rows of the one")
        self.equal([seq for seq, _, _ in self.texts(two.rid)], [1, 2, 3], "rows of the other")
        self.equal((self.store.hot_get("one"), self.row("one").status), (None, "succeeded"), "end of the one")

    def check_outgoing_meets_a_park(self) -> None:
        """A park behind a fact that the same group delivers does not sleep over it."""
        teller, sleeper = self.start("teller"), self.start("sleeper")
        park = self.batch(sleeper, self.record(), change=Park(None, "x", 0, release=True))
        results = self.submit(self.batch(teller, self.record(), facts=[self.tell("sleeper")]), park)
        self.equal(results[0], None, "result of the batch that tells")
        self.equal(self.told(sleeper), [b"told"], "inbox")
        if results[1] is None:
            self.equal(self.due(self.store.now() + MINUTE), ["sleeper"], "due runs")
        else:
            self.expect(isinstance(results[1], InboxChanged), f"answer to the park: {results[1]!r}")
            self.equal(self.hot("sleeper").status, "running", "status of the run whose park was refused")
