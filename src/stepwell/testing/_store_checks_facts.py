"""Checks of the store conformance suite: facts that only one may deliver."""

from __future__ import annotations

from stepwell.journal._api import Claim, ClaimLost, End, Release
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, StoreRig


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
