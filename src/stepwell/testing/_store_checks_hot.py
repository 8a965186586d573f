"""Checks of the store conformance suite: what a batch does to the hot row, and facts from outside (ENGINE.md §4)."""

from __future__ import annotations

from itertools import pairwise

from stepwell.errors import Fenced
from stepwell.journal._api import DoorRow, End, InboxChanged, Note, OpenStatus, Park, Release, Unpark
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, MINUTE, StoreRig


class HotChecks(StoreRig):
    """Park, unpark, release, end."""

    def check_step_leaves_the_hot_row(self) -> None:
        """A batch of records alone changes neither the hot row nor the catalogue."""
        lease = self.start("r")
        before = (self.store.hot_get("r"), self.store.run_get("r"))
        self.append(lease, "a", "b")
        self.equal((self.store.hot_get("r"), self.store.run_get("r")), before, "hot row and catalogue's row")

    def check_park_and_release(self) -> None:
        """A park with release: ``waiting`` until then for that, and nobody holds the run."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=Park(START + HOUR, "nap", 0, release=True)))
        hot = self.hot("r")
        found = (hot.status, hot.owner, hot.epoch, hot.wake_at, hot.waiting_for, hot.reason)
        self.equal(found, ("waiting", None, 1, START + HOUR, "nap", None), "hot row")
        row = self.row("r")
        found_row = (row.status, row.owner, row.epoch, row.wake_at, row.waiting_for, row.ended_at)
        self.equal(found_row, ("waiting", None, 1, START + HOUR, "nap", None), "catalogue's row")
        self.refused(Fenced, self.batch(lease, self.record()))

    def check_park_and_keep(self) -> None:
        """A park without release: ``waiting``, and the holder holds it and goes on writing."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=Park(None, "approval", 0, release=False)))
        hot = self.hot("r")
        self.equal(
            (hot.status, hot.owner, hot.wake_at, hot.waiting_for), ("waiting", "w1", None, "approval"), "hot row"
        )
        self.append(lease)
        self.equal(self.hot("r").status, "waiting", "status after a step of another branch")

    def check_park_is_a_compare_and_set(self) -> None:
        """A park that has not seen the newest fact is `InboxChanged`, and nothing of its batch is written; with the
        fact seen it parks.
        """
        lease = self.start("r")
        self.expect(self.store.fact_deliver("r", "signal", START, b"s"), "an open run takes the fact")
        for release in (True, False):
            batch = self.batch(
                lease, self.record(), change=Park(START + HOUR, "nap", 0, release=release),
                notes=[Note("k", "log", START, "x")], rows=[DoorRow("d", "k", "x", b"1")],
            )  # fmt: skip
            self.refused(InboxChanged, batch)
            self.equal(self.store.row_list("d", "k"), [], "door's rows")
        taken = [fact.n for fact in self.store.inbox_load(self.rid(lease))]
        park = Park(START + HOUR, "nap", 1, release=True)
        self.commit(self.batch(lease, self.record(), change=park, inbox_taken=taken))
        self.equal((self.hot("r").status, self.hot("r").wake_at), ("waiting", START + HOUR), "status and wake time")

    def check_park_refused_leaves_the_group_alone(self) -> None:
        """`InboxChanged` is the answer to its own batch only."""
        one, two = self.start("one"), self.start("two")
        self.store.fact_deliver("one", "signal", START, b"s")
        group = [
            self.batch(two, self.record(), seq=2),
            self.batch(one, self.record(), change=Park(None, "x", 0, release=True)),
            self.batch(two, self.record(), change=Park(None, "y", 0, release=True), seq=3),
        ]
        self.kinds(self.submit(*group), [None, InboxChanged, None], "results")
        self.equal((self.hot("one").status, self.hot("two").status), ("running", "waiting"), "statuses")

    def check_park_by_a_stale_holder(self) -> None:
        """A stale holder that parks is `Fenced`, not `InboxChanged`: it has nothing to decide again."""
        old = self.start("r", "w1")
        self.store.fact_deliver("r", "signal", START, b"s")
        self.claim("r", "w2")
        self.refused(Fenced, self.batch(old, self.record(), change=Park(None, "x", 0, release=True)))

    def check_unpark(self) -> None:
        """The holder goes on in place: ``running`` or ``rolling_back``, no wake time, nothing waited for."""
        lease = self.start("r")
        statuses: tuple[OpenStatus, ...] = ("running", "rolling_back")
        for status in statuses:
            self.park(lease, START + HOUR, release=False)
            self.commit(self.batch(lease, self.record(), change=Unpark(status)))
            hot = self.hot("r")
            found = (hot.status, hot.owner, hot.wake_at, hot.waiting_for)
            self.equal(found, (status, "w1", None, None), "hot row")

    def check_unpark_is_a_compare_and_set(self) -> None:
        """An unpark that has not seen the newest fact is `InboxChanged`, and nothing of its batch is written; with the
        fact seen, or where it does not ask, the run goes on.
        """
        lease = self.start("r")
        self.park(lease, START + HOUR, release=False)
        self.store.fact_deliver("r", "answer", START, b"a")
        for records in ([self.record()], []):
            batch = self.batch(
                lease, *records, change=Unpark(inbox_seen=0),
                notes=[Note("k", "log", START, "x")], rows=[DoorRow("d", "k", "x", b"1")],
            )  # fmt: skip
            self.refused(InboxChanged, batch)
            self.equal(self.store.row_list("d", "k"), [], "door's rows")
        taken = [fact.n for fact in self.store.inbox_load(self.rid(lease))]
        seen = self.batch(lease, self.record(), change=Unpark("rolling_back", inbox_seen=1), inbox_taken=taken)
        self.commit(seen)
        hot = self.hot("r")
        self.equal((hot.status, hot.owner, hot.wake_at), ("rolling_back", "w1", None), "hot row")
        self.store.fact_deliver("r", "answer", START, b"b")
        self.commit(self.batch(lease, self.record(), change=Unpark()))
        self.equal((self.hot("r").status, self.hot("r").inbox), ("running", 2), "hot row of one that does not ask")

    def check_unpark_by_a_stale_holder(self) -> None:
        """A stale holder that goes on is `Fenced`, not `InboxChanged`."""
        old = self.start("r", "w1")
        self.store.fact_deliver("r", "signal", START, b"s")
        self.claim("r", "w2")
        self.refused(Fenced, self.batch(old, self.record(), change=Unpark(inbox_seen=0)))

    def check_release(self) -> None:
        """After a release nobody holds the run; it shows the status and the reason, and the lease is no more."""
        cases: tuple[tuple[OpenStatus, str | None, int | None], ...] = (
            ("interrupted", None, None),
            ("blocked", "code-changed", None),
            ("rolling_back", "waiting for a worker that knows app:handler", None),
            ("interrupted", "later", START + HOUR),
        )
        for i, (status, reason, wake_at) in enumerate(cases):
            lease = self.start(f"r{i}")
            self.commit(self.batch(lease, self.record(), change=Release(status, reason, wake_at)))
            hot, row = self.hot(f"r{i}"), self.row(f"r{i}")
            self.equal((hot.status, hot.reason, hot.owner, hot.wake_at), (status, reason, None, wake_at), "hot row")
            self.equal((row.status, row.reason, row.owner), (status, reason, None), "catalogue's row")
            self.refused(Fenced, self.batch(lease, self.record()))

    def check_release_of_a_waiting_run(self) -> None:
        """A held run that waits and is handed back waits for nothing any more."""
        lease = self.start("r")
        self.park(lease, START + HOUR, release=False)
        self.commit(self.batch(lease, change=Release("interrupted")))
        hot = self.hot("r")
        self.equal((hot.status, hot.wake_at, hot.waiting_for), ("interrupted", None, None), "hot row")

    def check_end(self) -> None:
        """An end takes the hot row away and puts status, reason and the store's time into the catalogue."""
        for status in ("succeeded", "failed", "cancelled", "timed_out", "continued"):
            lease = self.start(status)
            before = self.store.now()
            self.commit(self.batch(lease, self.record(), change=End(status, f"because {status}")))
            row = self.row(status)
            self.equal(self.store.hot_get(status), None, "hot row")
            found = (row.status, row.reason, row.owner, row.wake_at, row.waiting_for)
            self.equal(found, (status, f"because {status}", None, None, None), "catalogue's row")
            ended = row.ended_at or 0
            self.expect(before - MINUTE <= ended <= before + MINUTE, f"ended_at {ended}, store's time was {before}")
            self.equal(len(self.texts(lease.rid)), 2, "rows, which stay")


class InboxChecks(StoreRig):
    """Facts from outside never touch a run's sequence."""

    def check_fact_waits_in_the_inbox(self) -> None:
        """A fact for a held run raises the inbox counter and takes no seq: the holder's next append is in order."""
        lease = self.start("r")
        other = self.open()
        self.equal(other.fact_deliver("r", "cancel", START + 3, b"\x00because"), True, "answer")
        self.equal(self.hot("r").inbox, 1, "inbox counter")
        self.equal((self.hot("r").status, self.hot("r").owner), ("running", "w1"), "status and owner")
        (fact,) = self.store.inbox_load(self.rid(lease))
        self.equal((fact.kind, fact.at, fact.data), ("cancel", START + 3, b"\x00because"), "fact")
        self.append(lease)

    def check_fact_wakes_a_waiting_run(self) -> None:
        """A fact for a parked run makes it due at once, also one without a wake time."""
        for i, wake_at in enumerate((None, self.store.now() + 1000 * HOUR)):
            lease = self.start(f"r{i}")
            self.park(lease, wake_at)
            now = self.store.now()
            self.equal(self.due(now + MINUTE), [], "due before the fact")
            self.expect(self.store.fact_deliver(f"r{i}", "signal", START, b"s"), "an open run takes the fact")
            wakes = self.hot(f"r{i}").wake_at or 0
            self.expect(now - MINUTE <= wakes <= now + MINUTE, f"wake_at {wakes}, store's time was {now}")
            self.equal(self.due(now + MINUTE), [f"r{i}"], "due after the fact")
            self.claim(f"r{i}", "w2")

    def check_fact_for_a_blocked_run(self) -> None:
        """A blocked run keeps the fact and stays asleep: only a person wakes it."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=Release("blocked", "code-changed")))
        self.equal(self.store.fact_deliver("r", "signal", START, b"s"), True, "answer")
        hot = self.hot("r")
        self.equal((hot.status, hot.inbox, hot.wake_at, hot.reason), ("blocked", 1, None, "code-changed"), "hot row")
        self.equal(len(self.store.inbox_load(self.rid(lease))), 1, "facts in the inbox")
        self.equal(self.due(self.store.now() + HOUR), [], "due runs")

    def check_fact_for_no_open_run(self) -> None:
        """An unknown or ended run takes no fact, and the caller is told."""
        self.equal(self.store.fact_deliver("nobody", "signal", START, b"s"), False, "answer for an unknown run")
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=End("succeeded")))
        self.equal(self.store.fact_deliver("r", "signal", START, b"s"), False, "answer for an ended run")
        self.equal(self.store.inbox_load(self.rid(lease)), [], "inbox")

    def check_fact_order_and_removal(self) -> None:
        """Facts are read in order of arrival, whoever sent them; only those that became records go."""
        lease = self.start("r")
        stores = [self.store, self.open(), self.open()]
        for i in range(9):
            stores[i % 3].fact_deliver("r", "signal", START - i, b"%d" % i)
        facts = self.store.inbox_load(self.rid(lease))
        self.equal([fact.data for fact in facts], [b"%d" % i for i in range(9)], "facts")
        self.expect(all(a.n < b.n for a, b in pairwise(facts)), "numbers do not rise")
        gone = [facts[i].n for i in (0, 3, 8)]
        self.commit(self.batch(lease, self.record(), inbox_taken=gone))
        left = [fact.data for fact in self.store.inbox_load(self.rid(lease))]
        self.equal(left, [b"1", b"2", b"4", b"5", b"6", b"7"], "facts that still wait")

    def check_fact_of_another_run(self) -> None:
        """Each run has its own inbox."""
        one, two = self.start("one"), self.start("two")
        self.store.fact_deliver("one", "signal", START, b"1")
        self.store.fact_deliver("two", "signal", START, b"2")
        (fact,) = self.store.inbox_load(self.rid(one))
        self.commit(self.batch(one, self.record(), inbox_taken=[fact.n]))
        self.equal(self.store.inbox_load(self.rid(one)), [], "inbox of the one")
        self.equal([f.data for f in self.store.inbox_load(self.rid(two))], [b"2"], "inbox of the other")

    def check_inbox_counter_never_falls(self) -> None:
        """The counter counts arrivals. Were it lowered when facts are taken, a park that has not seen a new fact would
        find the number that it knows, and sleep for ever.
        """
        lease = self.start("r")
        self.store.fact_deliver("r", "signal", START, b"1")
        taken = [fact.n for fact in self.store.inbox_load(self.rid(lease))]
        self.commit(self.batch(lease, self.record(), inbox_taken=taken))
        self.store.fact_deliver("r", "signal", START, b"2")
        self.equal(self.hot("r").inbox, 2, "inbox counter")
        self.refused(InboxChanged, self.batch(lease, self.record(), change=Park(None, "x", 1, release=True)))

    def check_fact_for_a_held_waiting_run(self) -> None:
        """A fact for a run that waits in its holder's memory changes counter and wake time, not the owner."""
        lease = self.start("r")
        self.park(lease, None, release=False)
        self.store.fact_deliver("r", "signal", START, b"s")
        hot = self.hot("r")
        self.equal((hot.owner, hot.inbox), ("w1", 1), "owner and inbox counter")
        self.expect(hot.wake_at is not None, "no wake time")
        self.equal(self.store.hot_held("w1"), [(lease.rid, 1, 1)], "held runs, as the holder polls them")
