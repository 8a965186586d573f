"""Checks of the store conformance suite: what holds when several processes write at the same moment.

Each of these threads has a store of its own and stands for a process; a race is run several times, since one round may
miss the moment.
"""

from __future__ import annotations

from threading import Barrier, Event, Thread
from typing import TYPE_CHECKING

from stepwell.core import StepStarted, StepSucceeded, decode_records
from stepwell.errors import Fenced
from stepwell.journal._api import (
    Claim,
    ClaimLost,
    DoorRow,
    End,
    InboxChanged,
    Lease,
    Outgoing,
    Park,
    RunExists,
    RunFilter,
    Unpark,
)
from stepwell.testing._clock import START
from stepwell.testing._invariants import check_run
from stepwell.testing._store_rig import HOUR, MINUTE, StoreRig

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.journal._api import Batch, Store

ROUNDS = 12


class RaceChecks(StoreRig):
    """Two at once."""

    def race(self, *acts: Callable[[], object]) -> list[object]:
        """Run all at the same moment, each on its own thread; what each returned. An error in one is raised here."""
        results: list[object] = [None] * len(acts)
        problems: list[BaseException] = []
        gate = Barrier(len(acts))

        def run(place: int, act: Callable[[], object]) -> None:
            try:
                gate.wait(30)
                results[place] = act()
            except BaseException as error:
                problems.append(error)

        threads = [Thread(target=run, args=pair) for pair in enumerate(acts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
        return results

    def sound(self, run_id: str, *, open: bool = True) -> None:
        """The run's journal keeps the invariants."""
        row = self.row(run_id)
        entries = self.store.record_load(row.rid)
        rows = [(entry.seq, entry.epoch, decode_records(entry.data)) for entry in entries]
        hot = self.store.hot_get(run_id)
        found = check_run(rows, open=open, hot=hot)
        self.equal([str(violation) for violation in found], [], f"violations in the journal of {run_id}")

    def step(self, lease: Lease, key: str, seq: int) -> Batch:
        """A whole step as one batch."""
        return self.batch(lease, StepStarted(START, key, 1), StepSucceeded(START, key, "1"), seq=seq)

    def check_race_of_starts(self) -> None:
        """Of several processes that start one id at the same moment exactly one wins; the others are `RunExists`."""
        stores = [self.open() for _ in range(3)]
        for i in range(ROUNDS):
            batches = [self.start_batch(f"r{i}", f"w{n}") for n in range(3)]
            results = self.race(*(_committing(store, [batch]) for store, batch in zip(stores, batches, strict=True)))
            firsts = [result[0] for result in results if isinstance(result, list)]
            self.equal(sum(first is None for first in firsts), 1, f"winners among {firsts}")
            lost = all(first is None or isinstance(first, RunExists) for first in firsts)
            self.expect(lost, f"answers {firsts}")
            self.equal(self.hot(f"r{i}").owner, f"w{firsts.index(None)}", "owner")
            self.sound(f"r{i}")

    def check_race_of_claims(self) -> None:
        """Of several workers that claim one run at the same moment exactly one gets it."""
        stores = [self.open() for _ in range(3)]
        for i in range(ROUNDS):
            self.start(f"r{i}", held=False)
            seen = self.hot(f"r{i}")
            claims = self.race(*(_claiming(self, store, seen.run_id, f"w{n}") for n, store in enumerate(stores)))
            winners = [n for n, lease in enumerate(claims) if lease is not None]
            self.equal(len(winners), 1, "winners")
            self.equal((self.hot(f"r{i}").owner, self.hot(f"r{i}").epoch), (f"w{winners[0]}", 2), "owner and epoch")
            self.equal(len(self.texts(seen.rid)), 2, "rows")

    def check_race_of_claim_and_append(self) -> None:
        """A claim and the holder's three queued batches at the same moment: the batches are all written before the
        claim's row or fenced, never after it, and the answers say which.
        """
        other = self.open()
        for i in range(ROUNDS):
            old = self.start(f"r{i}", "w1")
            group = [self.step(old, f"k{seq}", seq) for seq in (2, 3, 4)]
            results, lease = self.race(_committing(self.store, group), _claiming(self, other, f"r{i}", "w2"))
            assert isinstance(results, list)
            written = [result is None for result in results]
            self.expect(lease is not None, "the claim got nothing although the run's holder did not change")
            self.expect(all(result is None or isinstance(result, Fenced) for result in results), f"answers {results}")
            epochs = [epoch for _, epoch, _ in self.texts(old.rid)]
            self.equal(epochs, [1] * (1 + sum(written)) + [2], f"epochs of the rows, where the answers are {results}")
            self.expect(written == sorted(written, reverse=True), f"a batch was written behind a fenced one: {results}")
            self.sound(f"r{i}")

    def check_race_of_fact_and_park(self) -> None:
        """A fact that comes while the holder parks is never slept over: the park is refused, or the run is due."""
        other = self.open()
        for i in range(ROUNDS):
            lease = self.start(f"r{i}", queue=f"q{i}")
            park = self.batch(lease, self.record(), change=Park(self.store.now() + HOUR, "x", 0, release=True))
            results, told = self.race(_committing(self.store, [park]), _delivering(other, f"r{i}"))
            assert isinstance(results, list)
            self.equal(told, True, "answer to the fact")
            if results[0] is None:
                due = self.due(self.store.now() + MINUTE, queues=[f"q{i}"])
                self.equal(due, [f"r{i}"], "due after a park and a fact at the same moment")
            else:
                self.expect(isinstance(results[0], InboxChanged), f"answer to the park: {results[0]!r}")
                self.equal(self.hot(f"r{i}").status, "running", "status of the run whose park was refused")
            self.equal(len(self.store.inbox_load(self.rid(lease))), 1, "facts in the inbox")

    def check_race_of_fact_and_unpark(self) -> None:
        """A wait that ends for lack of an answer does not overtake one: the end is refused, or the answer came later
        and is known from the counter.
        """
        other = self.open()
        for i in range(ROUNDS):
            lease = self.start(f"r{i}")
            self.park(lease, START + HOUR, release=False)
            over = self.batch(lease, self.record("over"), change=Unpark(inbox_seen=0))
            results, told = self.race(_committing(self.store, [over]), _delivering(other, f"r{i}"))
            assert isinstance(results, list)
            self.equal((told, self.hot(f"r{i}").inbox), (True, 1), "answer to the fact, and the counter")
            written = results[0] is None
            self.expect(
                written or isinstance(results[0], InboxChanged), f"answer to the end of the wait: {results[0]!r}"
            )
            self.equal(self.hot(f"r{i}").status, "running" if written else "waiting", "status")
            self.equal(len(self.texts(lease.rid)), 2 + written, "rows")

    def check_race_of_fact_and_end(self) -> None:
        """A fact that is taken for delivered is in the inbox of a run that was open; else the sender is told."""
        other = self.open()
        for i in range(ROUNDS):
            lease = self.start(f"r{i}")
            end = self.batch(lease, self.record(), change=End("succeeded"))
            results, told = self.race(_committing(self.store, [end]), _delivering(other, f"r{i}"))
            self.equal(results, [None], "answer to the end")
            self.expect(told in (True, False), f"answer to the fact: {told!r}")
            self.equal(self.store.hot_get(f"r{i}"), None, "hot row")

    def check_race_of_facts(self) -> None:
        """Facts from several processes at the same moment are all there, and the counter has counted them."""
        stores = [self.open() for _ in range(3)]
        lease = self.start("r")
        for _ in range(ROUNDS):
            self.race(*(_delivering(store, "r") for store in stores))
        facts = self.store.inbox_load(self.rid(lease))
        self.equal((len(facts), self.hot("r").inbox), (3 * ROUNDS, 3 * ROUNDS), "facts, and what the counter says")
        self.equal(len({fact.n for fact in facts}), 3 * ROUNDS, "different numbers")

    def check_race_of_claimed_facts(self) -> None:
        """Of several that answer one question at the same moment exactly one is heard; the others are `ClaimLost`."""
        stores = [self.open() for _ in range(3)]
        lease = self.start("r")
        for i in range(ROUNDS):
            before = None if i < ROUNDS // 2 else b"asked"
            if before is not None:
                self.commit(self.batch(lease, self.record(), rows=[DoorRow("run", "k", f"r/{i}", before)]))
            answers = self.race(*(_answering(store, f"r/{i}", before, b"%d" % n) for n, store in enumerate(stores)))
            self.equal(sorted(map(str, answers)), ["ClaimLost", "ClaimLost", "True"], "answers")
            winner = b"%d" % answers.index(True)
            self.equal(self.store.row_get("run", "k", f"r/{i}"), winner, "the row, whose winner is told by the answers")
            facts = self.store.inbox_load(self.rid(lease))
            self.equal((len(facts), facts[-1].data, self.hot("r").inbox), (i + 1, winner, i + 1), "facts and counter")

    def check_race_of_runs_that_tell_each_other(self) -> None:
        """Two processes whose groups tell each other's runs something at the same moment: nobody waits for ever,
        nothing is refused, all is delivered.
        """
        stores = [self.open(), self.open()]
        sides = [[self.start(f"{name}{n}", f"w{name}") for n in range(3)] for name in "ab"]
        for i in range(ROUNDS):
            groups = [
                [
                    *(self.batch(lease, self.record(), change=Unpark(), facts=[_outgoing(other)])
                      for lease, other in zip(mine, reversed(theirs), strict=True)),
                    *(self.batch(lease, self.record(), seq=lease.seq + 2) for lease in mine),
                ]
                for mine, theirs in (sides, sides[::-1])
            ]  # fmt: skip
            results = self.race(*(_committing(store, group) for store, group in zip(stores, groups, strict=True)))
            self.equal(results, [[None] * 6] * 2, "answers")
            for lease in (*sides[0], *sides[1]):
                lease.seq += 2
                self.equal(self.hot(lease.run_id).inbox, i + 1, f"inbox counter of {lease.run_id}")
                self.equal(len(self.store.inbox_load(self.rid(lease))), i + 1, f"facts for {lease.run_id}")

    def check_race_of_outgoing_and_claim(self) -> None:
        """A claim of the run that is told something at the same moment gets it, and the new holder gets the fact or
        sees the counter rise.
        """
        other = self.open()
        lease = self.start("teller")
        for i in range(ROUNDS):
            target = self.start(f"r{i}", "w2")
            tell = self.batch(lease, self.record(), change=Unpark(), facts=[_outgoing(target)])
            results, claimed = self.race(_committing(self.store, [tell]), _claiming(self, other, f"r{i}", "w3"))
            self.equal(results, [None], "answer to the batch")
            lease.seq += 1
            self.expect(isinstance(claimed, Lease), "the claim got nothing although the run's holder did not change")
            hot = self.hot(f"r{i}")
            self.equal((hot.owner, hot.epoch, hot.inbox), ("w3", 2, 1), "owner, epoch and inbox counter")
            self.equal(len(self.store.inbox_load(self.rid(target))), 1, "facts in the inbox")

    def check_race_of_outgoing_and_end(self) -> None:
        """A batch that tells something to a run that ends at the same moment is written, whatever becomes of that."""
        other = self.open()
        for i in range(ROUNDS):
            child, parent = self.start(f"c{i}", "w1"), self.start(f"p{i}", "w2")
            ends = [
                self.batch(lease, self.record(), change=End("succeeded"), facts=[_outgoing(told)])
                for lease, told in ((child, parent), (parent, child))
            ]
            results = self.race(_committing(self.store, ends[:1]), _committing(other, ends[1:]))
            self.equal(results, [[None], [None]], "answers")
            self.equal([self.row(name).status for name in (f"c{i}", f"p{i}")], ["succeeded"] * 2, "statuses")

    def check_race_of_writers(self) -> None:
        """Several processes write runs of their own at the same time: no batch of theirs is lost or refused."""
        stores = [self.open() for _ in range(3)]
        leases = [self.start(f"r{n}", f"w{n}", store=store) for n, store in enumerate(stores)]

        def write(store: Store, lease: Lease) -> Callable[[], object]:
            groups = [[self.step(lease, f"k{seq}", seq)] for seq in range(2, 22)]
            return lambda: [store.batch_commit(group) for group in groups]

        results = self.race(*(write(*pair) for pair in zip(stores, leases, strict=True)))
        self.equal(results, [[[None]] * 20] * 3, "answers")
        for n, lease in enumerate(leases):
            self.equal(len(self.texts(lease.rid)), 21, f"rows of r{n}")
            self.sound(f"r{n}")

    def check_race_of_gc_and_reuse(self) -> None:
        """A writer that uses an old blob again while a collection runs keeps it: no record lacks its value."""
        other = self.open(self.clock)
        lease = self.start("r")
        for i in range(ROUNDS // 2):
            digest = self.blob(f"blob{i}")
            batch = self.batch(lease, self.record(f"{i}"), blobs=[digest])

            def use(digest: bytes = digest, text: str = f"blob{i}", batch: Batch = batch) -> object:
                self.store.blob_put(digest, iter([text.encode()]))
                return self.store.batch_commit([batch])

            results, _ = self.race(use, lambda: [*other.gc(RunFilter(queue="none"), dry_run=False)])
            self.equal(results, [None] if isinstance(results, list) else None, "answer to the batch")
            lease.seq = batch.seq
            self.equal(self.store.blob_get(digest), f"blob{i}".encode(), "the blob that the record refers to")

    def check_wait_ends_at_a_change(self) -> None:
        """A wait ends soon after another process made a run due; it is a hint, so the change is made several times."""
        lease = self.start("r")
        self.park(lease, None)
        watcher, other = self.open(), self.open()
        ended = Event()

        def wait() -> None:
            watcher.wait(60)
            ended.set()

        watcher.wait(0)
        thread = Thread(target=wait)
        thread.start()
        for _ in range(100):
            other.fact_deliver("r", "signal", START, b"s")
            if ended.wait(0.1):
                break
        seen = ended.is_set()
        while thread.is_alive():
            watcher.poke()
            thread.join(0.01)
        self.expect(seen, "ten seconds of facts did not end the wait")


def _committing(store: Store, batches: list[Batch]) -> Callable[[], object]:
    return lambda: store.batch_commit(batches)


def _claiming(rig: RaceChecks, store: Store, run_id: str, worker: str) -> Callable[[], object]:
    hot = rig.hot(run_id)
    return lambda: store.run_claim(hot, worker, rig.taken(hot, worker))


def _outgoing(lease: Lease) -> Outgoing:
    return Outgoing(lease.run_id, "child", START, b"done")


def _answering(store: Store, key: str, before: bytes | None, answer: bytes) -> Callable[[], object]:
    def act() -> object:
        try:
            return store.fact_deliver("r", "answer", START, answer, Claim("run", "k", key, before, answer))
        except ClaimLost:
            return "ClaimLost"

    return act


def _delivering(store: Store, run_id: str) -> Callable[[], object]:
    return lambda: store.fact_deliver(run_id, "signal", START, b"s")
