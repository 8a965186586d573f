"""Checks of the store conformance suite: which runs are due, claiming them, opening ended ones again."""

from __future__ import annotations

from stepwell.core import decode_records
from stepwell.errors import Fenced
from stepwell.journal._api import End, InboxChanged, Note, OpenStatus, Park, Release, RunFilter
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, MINUTE, StoreRig


class DueChecks(StoreRig):
    """What `Store.hot_due` offers."""

    def check_due_without_a_holder(self) -> None:
        """Pending, interrupted and rolling_back runs with no owner are due; a held run is not."""
        self.start("pending", held=False)
        self.start("held")
        statuses: tuple[OpenStatus, ...] = ("interrupted", "rolling_back")
        for status in statuses:
            self.commit(self.batch(self.start(status), self.record(), change=Release(status)))
        self.equal(sorted(self.due(self.store.now() + MINUTE)), ["interrupted", "pending", "rolling_back"], "due runs")

    def check_due_by_time(self) -> None:
        """A waiting run is due from its wake time on, by the ``now`` that is asked with and by no clock of a host."""
        wake_at = self.store.now() + HOUR
        self.park(self.start("r"), wake_at)
        self.clock.step_wall(7200)
        ahead = self.open()
        for store in (self.store, ahead):
            self.equal(self.due(wake_at - 1, store=store), [], "due a microsecond before")
            self.equal(self.due(wake_at, store=store), ["r"], "due at the time")

    def check_due_never_without_a_time(self) -> None:
        """A run that waits for something outside is never due by time."""
        self.park(self.start("r"), None)
        self.equal(self.due(self.store.now() + 10**9 * MINUTE), [], "due runs")
        self.equal(self.store.hot_next_wake(queues=None, functions=None), None, "next wake time")

    def check_due_never_when_blocked(self) -> None:
        """A blocked run needs a person: it is never due, whatever silence and time say."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=Release("blocked", "code-changed")))
        self.equal(self.due(self.store.now() + 10**6 * HOUR, silent={"w1": float("inf")}), [], "due runs")

    def check_due_after_release_until(self) -> None:
        """A run handed back until a time is due from that time on."""
        wake_at = self.store.now() + HOUR
        for status in ("interrupted", "rolling_back"):
            lease = self.start(status)
            self.commit(self.batch(lease, self.record(), change=Release(status, None, wake_at)))
        self.equal(self.due(wake_at - MINUTE), [], "due before the time")
        self.equal(sorted(self.due(wake_at)), ["interrupted", "rolling_back"], "due at the time")

    def check_due_by_silence(self) -> None:
        """A held run is due once its owner was silent for the run's own ttl, and no sooner."""
        self.start("short", "w1", ttl=10.0)
        self.start("long", "w1", ttl=60.0)
        self.start("others", "w2", ttl=1.0)
        now = self.store.now() + MINUTE
        for silence, wanted in ((9.9, []), (10.0, ["short"]), (59.9, ["short"]), (float("inf"), ["long", "short"])):
            self.equal(sorted(self.due(now, silent={"w1": silence})), wanted, f"due after {silence} seconds of silence")
        self.equal(self.due(now, silent={}), [], "due when nobody is silent")

    def check_due_by_silence_while_waiting(self) -> None:
        """A run that waits in its holder's memory is due when that holder is gone."""
        self.park(self.start("r", ttl=10.0), self.store.now() + HOUR, release=False)
        self.equal(self.due(self.store.now(), silent={"w1": 5.0}), [], "due below the ttl")
        self.equal(self.due(self.store.now(), silent={"w1": 10.0}), ["r"], "due at the ttl")

    def check_due_held_run_past_its_time(self) -> None:
        """A held run whose wake time is over is its holder's business while that holder lives."""
        self.park(self.start("r"), self.store.now() + MINUTE, release=False)
        self.equal(self.due(self.store.now() + HOUR), [], "due runs")

    def check_due_filters(self) -> None:
        """Queues and functions restrict what is offered, each and both; None restricts nothing."""
        for queue in ("a", "b"):
            for function in ("f", "g"):
                self.start(f"{queue}{function}", held=False, queue=queue, function=function)
        self.start("orphan", queue="b", function="g", ttl=1.0)
        silent = {"w1": 99.0}
        now = self.store.now() + MINUTE
        cases: tuple[tuple[list[str] | None, list[str] | None, list[str]], ...] = (
            (None, None, ["af", "ag", "bf", "bg", "orphan"]),
            (["a"], None, ["af", "ag"]),
            (None, ["g"], ["ag", "bg", "orphan"]),
            (["b", "a"], ["f", "x"], ["af", "bf"]),
            (["x"], None, []),
        )
        for queues, functions, wanted in cases:
            found = sorted(self.due(now, queues=queues, functions=functions, silent=silent))
            self.equal(found, wanted, f"due of queues {queues}, functions {functions}")

    def check_due_limit(self) -> None:
        """At most ``limit`` runs, each once, with their hot rows."""
        for i in range(5):
            self.start(f"r{i}", held=False)
        now = self.store.now() + MINUTE
        found = self.due(now, limit=3)
        self.equal((len(found), len(set(found))), (3, 3), "runs, and different ones")
        rows = self.store.hot_due(now=now, queues=None, functions=None, silent={}, limit=9)
        self.equal({row.run_id: row for row in rows}, {f"r{i}": self.hot(f"r{i}") for i in range(5)}, "hot rows")

    def check_due_order(self) -> None:
        """Overdue timers are offered in order of their time."""
        now = self.store.now()
        for minutes in (3, 1, 4, 2):
            self.park(self.start(f"r{minutes}"), now + minutes * MINUTE)
        self.equal(self.due(now + HOUR), ["r1", "r2", "r3", "r4"], "due runs")
        self.equal(self.due(now + HOUR, limit=2), ["r1", "r2"], "the first two")

    def check_next_wake(self) -> None:
        """The next wake time is the earliest of a run with no owner, of these queues and functions."""
        now = self.store.now()
        self.equal(self.store.hot_next_wake(queues=None, functions=None), None, "of an empty store")
        self.park(self.start("late", queue="a"), now + 2 * HOUR)
        self.park(self.start("later", queue="b", function="g"), now + 3 * HOUR)
        self.park(self.start("held"), now + HOUR, release=False)
        self.equal(self.store.hot_next_wake(queues=None, functions=None), now + 2 * HOUR, "of all")
        self.equal(self.store.hot_next_wake(queues=["b"], functions=["g"]), now + 3 * HOUR, "of queue b, function g")
        self.equal(self.store.hot_next_wake(queues=["x"], functions=None), None, "of a queue that nobody uses")


class ClaimChecks(StoreRig):
    """A claim is a compare-and-set with a row of its own."""

    def check_claim_takes_the_run(self) -> None:
        """A claim sets owner, epoch, status and ttl, clears wake time and reason, and inserts the row last + 1."""
        lease = self.start("r", "w1")
        self.append(lease, "a")
        self.park(lease, START + MINUTE)
        hot = self.hot("r")
        taken = self.taken(hot, "w2", status="rolling_back", ttl=60.0)
        new = self.store.run_claim(hot, "w2", taken)
        self.expect(new is not None, "nobody else wants the run, yet the claim got nothing")
        assert new is not None
        self.equal(
            (new.run_id, new.worker, new.rid, new.epoch, new.seq, new.inbox), ("r", "w2", lease.rid, 2, 4, 0), "lease"
        )
        hot = self.hot("r")
        found = (hot.status, hot.owner, hot.epoch, hot.ttl, hot.wake_at, hot.reason, hot.waiting_for)
        self.equal(found, ("rolling_back", "w2", 2, 60.0, None, None, None), "hot row")
        rows = self.texts(lease.rid, after=3)
        found_rows = [(seq, epoch, decode_records(data)) for seq, epoch, data in rows]
        self.equal(found_rows, [(4, 2, list(taken.records))], "rows after the park")
        self.append(new, "b", "c")

    def check_claim_clears_the_reason(self) -> None:
        """A blocked run may be claimed by hand; the claim clears its reason."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=Release("blocked", "code-changed")))
        self.claim("r", "w2")
        self.equal((self.hot("r").status, self.hot("r").reason), ("running", None), "status and reason")

    def check_claim_race(self) -> None:
        """Two workers that saw the same hot row: one gets the run, the other nothing, and nothing of it is written."""
        self.start("r", held=False)
        other = self.open()
        seen, seen_too = self.hot("r"), self.hot("r", other)
        first = self.store.run_claim(seen, "w2", self.taken(seen, "w2"))
        self.expect(first is not None, "the first claim got nothing")
        before = self.seen("r")
        self.equal(other.run_claim(seen_too, "w3", self.taken(seen_too, "w3")), None, "the second claim")
        self.equal(self.store.run_claim(seen, "w2", self.taken(seen, "w2")), None, "the first claim made again")
        self.equal(self.seen("r"), before, "what is on record after the claims that lost")

    def check_claim_race_for_an_orphan(self) -> None:
        """Two workers that judge the same owner gone: one gets the run."""
        self.start("r", "dead")
        seen = self.hot("r")
        self.expect(self.store.run_claim(seen, "w2", self.taken(seen, "w2")) is not None, "the first claim got nothing")
        other = self.open()
        self.equal(other.run_claim(seen, "w3", self.taken(seen, "w3")), None, "the second claim")
        self.equal(self.hot("r").owner, "w2", "owner")

    def check_claim_after_the_holder_came_back(self) -> None:
        """A claim on what was seen before the holder handed the run back and somebody took it gets nothing."""
        lease = self.start("r", "w1")
        seen = self.hot("r")
        self.commit(self.batch(lease, self.record(), change=Release("interrupted")))
        self.equal(self.store.run_claim(seen, "w3", self.taken(seen, "w3")), None, "claim of a run with another owner")
        self.claim("r", "w1")
        self.equal(self.store.run_claim(seen, "w3", self.taken(seen, "w3")), None, "claim of a run with another epoch")

    def check_claim_though_the_inbox_grew(self) -> None:
        """A fact that came since the hot row was seen does not spoil the claim, and is not lost to it."""
        self.start("r", held=False)
        seen = self.hot("r")
        self.store.fact_deliver("r", "signal", START, b"s")
        lease = self.store.run_claim(seen, "w2", self.taken(seen, "w2"))
        self.expect(lease is not None, "the claim got nothing")
        assert lease is not None
        self.equal(len(self.store.inbox_load(self.rid(lease))), 1, "facts in the inbox")
        self.equal(self.hot("r").inbox, 1, "inbox counter")
        self.expect(lease.inbox in (0, 1), f"lease.inbox {lease.inbox}")

    def check_claim_of_an_ended_run(self) -> None:
        """A run that ended since its hot row was seen is not claimed."""
        lease = self.start("r")
        seen = self.hot("r")
        self.commit(self.batch(lease, self.record(), change=End("succeeded")))
        before = self.seen("r")
        self.equal(self.store.run_claim(seen, "w2", self.taken(seen, "w2")), None, "claim")
        self.equal(self.seen("r"), before, "what is on record")

    def check_claim_fences_the_holder(self) -> None:
        """After a claim the former holder writes nothing: no step, no note, no park, no release, no end."""
        old = self.start("r", "w1")
        self.append(old, "a")
        new = self.claim("r", "w2", store=self.open())
        for seq in (3, 4):
            for change in (None, Park(None, "x", 0, release=True), Release("interrupted"), End("succeeded")):
                self.refused(Fenced, self.batch(old, self.record("zombie"), change=change, seq=seq))
        for change in (None, Park(None, "x", 0, release=True), Release("interrupted"), End("succeeded")):
            note = Note("k", "log", START, "zombie")
            self.refused(Fenced, self.batch(old, change=change, notes=[note]))
        self.append(new, "b")

    def check_claim_keeps_the_catalogue(self) -> None:
        """The catalogue shows the new holder; what was said at the start stays."""
        self.start("r", "w1", tags=("t",), queue="q")
        self.claim("r", "w2")
        row = self.row("r")
        self.equal((row.status, row.owner, row.epoch, row.tags, row.queue), ("running", "w2", 2, ("t",), "q"), "row")

    def check_held_runs(self) -> None:
        """A worker sees all that it holds and no longer what it lost, parked, handed back or ended."""
        leases = {name: self.start(name, "w1") for name in ("keeps", "loses", "parks", "hands", "ends", "waits")}
        self.start("others", "w2")
        self.claim("loses", "w2")
        self.park(leases["parks"], None)
        self.park(leases["waits"], None, release=False)
        self.commit(self.batch(leases["hands"], change=Release("interrupted")))
        self.commit(self.batch(leases["ends"], self.record(), change=End("succeeded")))
        self.store.fact_deliver("keeps", "signal", START, b"s")
        wanted = [(self.rid(leases["keeps"]), 1, 1), (self.rid(leases["waits"]), 1, 0)]
        self.equal(sorted(self.store.hot_held("w1")), sorted(wanted), "held runs")
        self.equal(self.store.hot_held("nobody"), [], "held runs of an unknown worker")


class ReopenChecks(StoreRig):
    """An ended run is opened again as it is claimed."""

    def check_reopen(self) -> None:
        """A reopened run has a hot row again (queue and function from the catalogue), a new life in the row last + 1,
        and no end in the catalogue.
        """
        lease = self.start("r", queue="q", function="f", door="flow")
        self.commit(self.batch(lease, self.record(), change=End("failed", "because")))
        taken = self.taken_as(2, "w2", ttl=60.0)
        new = self.store.run_reopen(self.rid(lease), "w2", taken)
        self.expect(new is not None, "the reopening got nothing")
        assert new is not None
        self.equal((new.run_id, new.worker, new.rid, new.epoch, new.seq), ("r", "w2", lease.rid, 2, 3), "lease")
        hot, row = self.hot("r"), self.row("r")
        found = (hot.status, hot.owner, hot.epoch, hot.queue, hot.function, hot.door, hot.ttl, hot.wake_at, hot.inbox)
        self.equal(found, ("running", "w2", 2, "q", "f", "flow", 60.0, None, new.inbox), "hot row")
        self.equal((row.status, row.reason, row.ended_at, row.owner), ("running", None, None, "w2"), "catalogue's row")
        self.equal(decode_records(self.texts(lease.rid)[-1][2]), list(taken.records), "last row")
        self.append(new)
        self.refused(Fenced, self.batch(lease, self.record()))
        self.equal(self.ids(RunFilter(statuses=("failed",))), [], "failed runs")

    def check_reopen_race(self) -> None:
        """An ended run is opened by one of two; one that is open, or unknown, by none."""
        lease = self.start("r")
        self.equal(self.store.run_reopen(self.rid(lease), "w2", self.taken_as(2, "w2")), None, "reopening an open run")
        self.commit(self.batch(lease, self.record(), change=End("failed")))
        new = self.store.run_reopen(self.rid(lease), "w2", self.taken_as(2, "w2"))
        assert new is not None, "got nothing"
        before = self.seen("r")
        self.equal(self.open().run_reopen(self.rid(lease), "w3", self.taken_as(2, "w3")), None, "the second reopening")
        self.equal(self.store.run_reopen(987_654_321, "w3", self.taken_as(2, "w3")), None, "of an unknown run")
        self.equal(self.seen("r"), before, "what is on record")
        self.commit(self.batch(new, self.record(), change=End("failed")))
        late = self.store.run_reopen(self.rid(lease), "w3", self.taken_as(2, "w3"))
        self.equal(late, None, "a reopening by somebody who did not see that the run was opened, and ended, meanwhile")

    def check_reopen_takes_facts(self) -> None:
        """A reopened run has an inbox like any other, and ends like any other."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=End("failed")))
        new = self.store.run_reopen(self.rid(lease), "w2", self.taken_as(2, "w2"))
        assert new is not None
        self.equal(self.store.fact_deliver("r", "signal", START, b"s"), True, "answer")
        self.refused(InboxChanged, self.batch(new, self.record(), change=Park(None, "x", new.inbox, release=True)))
        self.commit(self.batch(new, self.record(), change=End("succeeded")))
        row = self.row("r")
        self.equal((row.status, row.reason), ("succeeded", None), "catalogue's row")
