"""Checks of the store conformance suite: starting a run, appending to it, and what a refused batch leaves behind."""

from __future__ import annotations

from typing import Any

from stepwell.core import LifeStarted
from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import MAX_ROW_BYTES, DoorRow, End, Lease, Note, Release, RunExists, Start
from stepwell.testing._clock import START
from stepwell.testing._store_rig import StoreRig

GROUP = 50


class StartChecks(StoreRig):
    """A start that was acknowledged is on record, once."""

    def check_start_is_on_record(self) -> None:
        """A held start makes the catalogue row, the hot row and row 1, and tells the lease its rid."""
        columns: dict[str, Any] = {
            "queue": "q",
            "tags": ("a", "b"),
            "target": "app.py:h",
            "parent": "p",
            "deadline": START + 5,
        }
        batch = self.start_batch("r", **columns, ttl=7.0)
        self.commit(batch)
        rid = batch.lease.rid
        self.expect(rid is not None, "lease.rid is still None")
        hot = self.hot("r")
        self.equal(
            (hot.rid, hot.status, hot.owner, hot.epoch, hot.wake_at, hot.inbox, hot.ttl, hot.queue, hot.function),
            (rid, "running", "w1", 1, None, 0, 7.0, "q", "app:handler"),
            "hot row",
        )
        row = self.row("r")
        self.equal((row.rid, row.status, row.owner, row.ended_at), (rid, "running", "w1", None), "catalogue's row")
        self.equal(
            {name: getattr(row, name) for name in (*columns, "function", "door", "input_hash", "created_at")},
            columns | {"function": "app:handler", "door": "durable", "input_hash": b"h" * 16, "created_at": START},
            "columns of the catalogue's row",
        )
        self.equal(self.texts(rid), [(1, 1, batch.data)], "journal")

    def check_start_pending_has_no_owner(self) -> None:
        """A start that its starter does not drive is ``pending``, held by nobody; its lease cannot append."""
        lease = self.start("r", held=False)
        hot = self.hot("r")
        self.equal((hot.status, hot.owner), ("pending", None), "status and owner")
        self.refused(Fenced, self.batch(lease, self.record()))

    def check_start_id_is_any_text(self) -> None:
        """Run ids are the user's own words: colons, quotes, percent signs and other alphabets."""
        ids = ["load:2013-01-01", 'it\'s "so"', "50%_x", "größe/日本", "a b", "A B"]
        for run_id in ids:
            self.start(run_id)
        for run_id in ids:
            self.equal(self.hot(run_id).run_id, run_id, "id of the hot row")

    def check_start_id_is_taken_once(self) -> None:
        """A second start with a taken id is `RunExists`, and nothing of it is written."""
        first = self.start("r")
        loser = self.start_batch("r", "w2", queue="other")
        loser.notes = [Note("k", "log", START, "loser")]
        loser.rows = [DoorRow("d", "k", "loser", b"1")]
        self.refused(RunExists, loser)
        self.equal(self.store.row_get("d", "k", "loser"), None, "row of the start that lost")
        self.append(first)

    def check_start_id_is_taken_once_in_a_group(self) -> None:
        """Two starts with one id in one group: exactly one wins, the winner's next batch is written too, and the
        loser's next batch is refused with it.
        """
        one, two = self.start_batch("r", "w1"), self.start_batch("r", "w2")
        other = self.start_batch("other")
        more_one, more_two = self.batch(one.lease, self.record(), seq=2), self.batch(two.lease, self.record(), seq=2)
        results = self.submit(one, two, other, more_two, more_one)
        self.kinds(results, [None, RunExists, None, JournalError, None], "results")
        self.equal(self.hot("r").owner, "w1", "owner")
        self.equal(len(self.texts(one.lease.rid)), 2, "rows of the winner")

    def check_start_id_is_taken_once_among_processes(self) -> None:
        """Two processes start one id: exactly one wins."""
        other = self.open()
        self.start("r", "w1")
        self.kinds(self.submit(self.start_batch("r", "w2"), store=other), [RunExists], "result of the second")
        self.equal(self.hot("r", other).owner, "w1", "owner as the second process sees it")

    def check_start_id_stays_taken(self) -> None:
        """The id of an ended run is taken as well."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=End("succeeded")))
        self.refused(RunExists, self.start_batch("r", "w2"))

    def check_start_leaves_the_group_alone(self) -> None:
        """A start that lost does not spoil the other batches of its group."""
        lease = self.start("r")
        group = [self.batch(lease, self.record()), self.start_batch("r", "w2"), self.start_batch("new")]
        self.kinds(self.submit(*group), [None, RunExists, None], "results")
        self.equal(len(self.texts(lease.rid)), 2, "rows of the healthy run")
        self.expect(self.store.hot_get("new") is not None, "the new run of the group is not there")


class AppendChecks(StoreRig):
    """Only the holder writes, each row once, in order, all of it or nothing."""

    def check_append_is_read_back(self) -> None:
        """Rows come back in order of seq, epoch and bytes as written, from after ``after``, at most ``limit``."""
        lease = self.start("r")
        batches = [self.batch(lease, self.record(t), seq=i) for i, t in enumerate(["a", "b\0", "ü" * 9000], 2)]
        for batch in batches:
            self.commit(batch)
        rows = self.texts(lease.rid)
        self.equal(rows[1:], [(b.seq, 1, b.data) for b in batches], "rows 2 to 4")
        self.equal(self.texts(lease.rid, after=2), rows[2:], "rows after 2")
        self.equal(self.texts(lease.rid, after=1, limit=2), rows[1:3], "two rows after 1")
        self.equal(self.texts(lease.rid, after=4), [], "rows after the last")
        other = self.open()
        self.equal(len(other.record_load(self.rid(lease))), 4, "rows that another process sees")

    def check_append_of_a_group_keeps_order(self) -> None:
        """Several batches of several runs in one group: all are written, each run's in order."""
        leases = [self.start(f"r{i}") for i in range(3)]
        group = [self.batch(lease, self.record(f"{n}"), seq=n) for n in range(2, 6) for lease in leases]
        self.commit(*group)
        for lease in leases:
            self.equal([seq for seq, _, _ in self.texts(lease.rid)], [1, 2, 3, 4, 5], f"seqs of {lease.run_id}")

    def check_append_start_and_rows_in_one_group(self) -> None:
        """A run may start, go on and end within one group."""
        start = self.start_batch("r")
        go_on = self.batch(start.lease, self.record(), seq=2)
        end = self.batch(start.lease, self.record(), seq=3, change=End("succeeded"))
        self.commit(start, go_on, end)
        self.equal(self.store.hot_get("r"), None, "hot row")
        self.equal(len(self.texts(start.lease.rid)), 3, "rows")

    def check_append_with_stale_epoch(self) -> None:
        """A batch with an older epoch is `Fenced`, also by the same worker and with a seq that is free."""
        old = self.start("r", "w1")
        self.claim("r", "w1")
        old.seq = 2
        self.refused(Fenced, self.batch(old, self.record()))

    def check_append_with_epoch_of_the_future(self) -> None:
        """An epoch that was never given is `Fenced`."""
        lease = self.start("r")
        wrong = Lease("r", "w1", rid=lease.rid, epoch=2, seq=1)
        self.refused(Fenced, self.batch(wrong, self.record()))

    def check_append_by_another_worker(self) -> None:
        """The right epoch with the wrong owner is `Fenced`."""
        lease = self.start("r", "w1")
        self.refused(Fenced, self.batch(Lease("r", "w2", rid=lease.rid, epoch=1, seq=1), self.record()))

    def check_append_of_a_taken_seq(self) -> None:
        """A seq that is taken is `Fenced`, and the row that is there stays."""
        lease = self.start("r")
        self.append(lease, "first")
        self.refused(Fenced, self.batch(lease, self.record("second"), seq=2))

    def check_append_over_a_gap(self) -> None:
        """A seq whose predecessor is not there is `Fenced`."""
        lease = self.start("r")
        self.refused(Fenced, self.batch(lease, self.record(), seq=3))

    def check_append_to_an_unknown_run(self) -> None:
        """A lease of a run that is not there is `Fenced`, whatever its rid."""
        self.kinds(self.submit(self.batch(Lease("no", "w"), self.record())), [Fenced], "without a rid")
        wrong = Lease("no", "w", rid=987_654_321)
        self.kinds(self.submit(self.batch(wrong, self.record())), [Fenced], "with a rid that nobody has")

    def check_append_after_the_end(self) -> None:
        """Nothing is written to a run after its end."""
        lease = self.start("r")
        self.commit(self.batch(lease, self.record(), change=End("failed", "why")))
        self.refused(Fenced, self.batch(lease, self.record()))
        self.refused(Fenced, self.batch(lease, notes=[Note("k", "log", START, "late")]))

    def check_append_without_records(self) -> None:
        """A batch without records makes no row, and must match the epoch all the same."""
        old = self.start("r", "w1")
        self.commit(self.batch(old, notes=[Note("k", "log", START, "said")]))
        self.equal(len(self.texts(old.rid)), 1, "rows after notes alone")
        self.claim("r", "w2")
        self.refused(Fenced, self.batch(old, notes=[Note("k", "log", START, "zombie")]))
        self.refused(Fenced, self.batch(old, change=Release("interrupted")))

    def check_append_writes_all_parts(self) -> None:
        """Records, notes, rows, taken facts and the change of the hot row of one batch are written together."""
        lease = self.start("r")
        self.store.fact_deliver("r", "signal", START, b"s")
        (fact,) = self.store.inbox_load(self.rid(lease))
        note = Note("k", "progress", START, "1/2")
        rows = [DoorRow("d", "k", "x", b"1")]
        batch = self.batch(
            lease, self.record(), change=Release("interrupted", "ctrl-c"), notes=[note], inbox_taken=[fact.n], rows=rows
        )
        self.commit(batch)
        seen = self.seen("r")
        self.equal(len(self.texts(lease.rid)), 2, "rows")
        self.equal(seen["inbox"], [], "inbox")
        self.equal(
            [n for _, n in self.store.note_load(self.rid(lease), kind=None, key=None, after=0, limit=9)],
            [note],
            "notes",
        )
        self.equal(self.store.row_get("d", "k", "x"), b"1", "door's row")
        self.equal(self.hot("r").status, "interrupted", "status")

    def check_append_is_all_or_nothing(self) -> None:
        """Of a batch that is fenced nothing is written: no note, no row, no change, and its facts still wait."""
        old = self.start("r", "w1")
        self.commit(self.batch(old, self.record(), rows=[DoorRow("d", "k", "x", b"old")]))
        self.store.fact_deliver("r", "signal", START, b"s")
        self.claim("r", "w2")
        taken = [fact.n for fact in self.store.inbox_load(self.rid(old))]
        rows = [DoorRow("d", "k", "x", b"new"), DoorRow("d", "k", "y", b"new")]
        for change in (None, Release("blocked", "zombie"), End("failed", "zombie")):
            for records in ((self.record(),), ()):
                note = Note("k", "log", START, "zombie")
                batch = self.batch(old, *records, change=change, notes=[note], inbox_taken=taken, rows=rows)
                self.refused(Fenced, batch)
                self.equal(self.store.row_list("d", "k"), [("x", b"old")], "door's rows")


class GroupChecks(StoreRig):
    """A refused batch fails alone (ENGINE.md §3)."""

    def check_group_with_a_zombie(self) -> None:
        """A zombie with three queued batches in a group with fifty healthy runs: only the zombie's fail."""
        healthy = [self.start(f"h{i}") for i in range(GROUP)]
        zombie = self.start("z", "w1")
        holder = self.claim("z", "w2", store=self.open())
        group = [self.batch(lease, self.record(), seq=2) for lease in healthy]
        for place, seq in ((40, 4), (20, 3), (0, 2)):
            group.insert(place, self.batch(zombie, self.record("zombie"), seq=seq))
        results = self.submit(*group)
        wanted = [Fenced if batch.lease is zombie else None for batch in group]
        self.kinds(results, wanted, "results")
        for lease in healthy:
            self.equal(len(self.texts(lease.rid)), 2, f"rows of {lease.run_id}")
        self.equal(len(self.texts(zombie.rid)), 2, "rows of the zombie's run: its start and the claim")
        self.append(holder)

    def check_group_with_a_zombie_beyond_the_claim(self) -> None:
        """A zombie whose first seq is the claim's and whose later ones are free writes none of them."""
        zombie = self.start("z", "w1")
        self.claim("z", "w2")
        group = [self.batch(zombie, self.record(f"{seq}"), seq=seq) for seq in (2, 3, 4)]
        self.kinds(self.submit(*group), [Fenced] * 3, "results")
        self.equal([seq for seq, _, _ in self.texts(zombie.rid)], [1, 2], "seqs of the run")

    def check_group_of_zombie_and_holder(self) -> None:
        """The zombie of a run and its new holder in one group: the holder's batch is written."""
        zombie = self.start("r", "w1")
        holder = self.claim("r", "w2")
        group = [self.batch(zombie, self.record("zombie")), self.batch(holder, self.record("holder"))]
        self.kinds(self.submit(*group), [Fenced, None], "results")
        self.equal(self.texts(holder.rid)[-1], (3, 2, group[1].data), "last row")

    def check_group_refuses_what_follows(self) -> None:
        """A batch of a run that is refused refuses the later ones of its lease in the group, and no others."""
        one, two = self.start("one"), self.start("two")
        group = [
            self.batch(one, self.record("a"), seq=2),
            self.batch(one, self.record("gap"), seq=4),
            self.batch(two, self.record("b"), seq=2),
            self.batch(one, self.record("after"), seq=5),
            self.batch(two, self.record("c"), seq=3),
        ]
        self.kinds(self.submit(*group), [None, Fenced, None, JournalError, None], "results")
        self.equal(len(self.texts(one.rid)), 2, "rows of the run with the gap")
        self.equal(len(self.texts(two.rid)), 3, "rows of the other run")

    def check_group_refuses_what_follows_without_records(self) -> None:
        """That holds for a batch without records as well: a release must not overtake the step that was refused."""
        one, two = self.start("one"), self.start("two")
        for release in (Release("interrupted"), None):
            large = self.batch(one, self.record("large"))
            large.data = bytes(MAX_ROW_BYTES + 1)
            said = [Note("k", "log", START, "after")]
            group = [large, self.batch(two, self.record()), self.batch(one, change=release, notes=said)]
            before = self.seen("one")
            self.kinds(self.submit(*group), [JournalError, None, JournalError], "results")
            self.equal(self.seen("one"), before, "what is on record of the run whose step was refused")

    def check_group_with_one_too_large(self) -> None:
        """A row over `MAX_ROW_BYTES` is refused alone, with a `JournalError` that is not `Fenced`; its run goes on."""
        one, two = self.start("one"), self.start("two")
        large = self.batch(one, self.record("large"))
        large.data = bytes(MAX_ROW_BYTES + 1)
        group = [self.batch(two, self.record(), seq=2), large, self.batch(two, self.record(), seq=3)]
        results = self.submit(*group)
        self.kinds(results, [None, JournalError, None], "results")
        self.expect(not isinstance(results[1], Fenced), "the large batch is Fenced, as if the lease were lost")
        self.equal(len(self.texts(two.rid)), 3, "rows of the other run")
        self.append(one)

    def check_group_with_a_large_row(self) -> None:
        """Rows of some megabytes are written and read like others."""
        lease = self.start("r")
        batch = self.batch(lease, self.record("x" * (3 << 20)))
        self.commit(batch, self.batch(self.start("other"), self.record(), seq=2))
        self.equal(self.texts(lease.rid)[1] == (2, 1, batch.data), True, "the row is read as it was written")

    def check_group_with_odd_text(self) -> None:
        """A note whose text a database cannot keep (NUL, half a surrogate pair) costs no other batch: it is written, or
        its own batch is refused with a `JournalError`.
        """
        odd, fine = self.start("odd"), self.start("fine")
        for text in ("nul \0 here", "half a pair \udc80"):
            group = [
                self.batch(fine, self.record()),
                self.batch(odd, notes=[Note("k", "log", START, text)]),
            ]
            first, second = self.submit(*group)
            self.equal(first, None, "result of the healthy batch")
            self.expect(second is None or not isinstance(second, Fenced), f"result of the odd batch: {second!r}")

    def check_group_of_many(self) -> None:
        """A thousand batches in one call, ten refused ones among them."""
        leases = [self.start(f"r{i}") for i in range(50)]
        zombies = [self.start(f"z{i}", "w1") for i in range(10)]
        for zombie in zombies:
            self.claim(zombie.run_id, "w2")
        group = [self.batch(lease, self.record(), seq=seq) for seq in range(2, 22) for lease in leases]
        for place, zombie in enumerate(zombies):
            group.insert(place * 90, self.batch(zombie, self.record(), seq=2))
        wanted = [Fenced if batch.lease in zombies else None for batch in group]
        self.kinds(self.submit(*group), wanted, "results")
        self.equal({len(self.texts(lease.rid)) for lease in leases}, {21}, "rows of the healthy runs")

    def check_group_empty(self) -> None:
        """No batches, no results, no error."""
        self.equal(self.store.batch_commit([]), [], "results")

    def check_group_pending_start(self) -> None:
        """A run that is started pending is claimed with the epoch after its start's."""
        start = self.start_batch("r", held=False)
        self.commit(start)
        hot = self.hot("r")
        self.equal(hot.epoch, start.lease.epoch, "epoch of the hot row")
        lease = self.claim("r", "w2")
        self.equal((lease.epoch, lease.seq), (hot.epoch + 1, 2), "epoch and seq of the claim")

    def check_group_start_without_lease_life(self) -> None:
        """The rid that a start sets serves the same lease in later calls."""
        start = self.start_batch("r")
        self.commit(start)
        self.commit(self.batch(start.lease, LifeStarted(START, 1, "w1", "start")))
        self.equal(len(self.texts(start.lease.rid)), 2, "rows")
        self.equal(isinstance(start.change, Start), True, "the batch keeps its change")
