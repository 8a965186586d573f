"""Checks of the store conformance suite: retention (ENGINE.md §11)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from stepwell.errors import Fenced
from stepwell.journal._api import RUN_DOOR, DoorRow, End, GcResult, Note, Release, RunFilter
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, StoreRig

if TYPE_CHECKING:
    from stepwell.journal._api import Lease


class RetentionChecks(StoreRig):
    """What `Store.gc` takes and what it leaves (ENGINE.md §11)."""

    def gc(self, where: RunFilter, *, dry_run: bool = False, max_rows: int = 5000) -> GcResult:
        """The last counts of a whole collection."""
        last = GcResult()
        for counts in self.store.gc(where, dry_run=dry_run, max_rows=max_rows):
            last = GcResult(counts.runs, counts.rows, counts.blobs, counts.bytes)
        return last

    def ended(self, run_id: str, *, records: int = 1, blobs: tuple[bytes, ...] = (), **columns: Any) -> Lease:
        """A run with rows, a note and a blob or more, that succeeded."""
        lease = self.start(run_id, **columns)
        self.append(lease, *map(str, range(records)))
        end = self.batch(
            lease, self.record(), change=End("succeeded"), notes=[Note("k", "log", START, "x")], blobs=blobs
        )
        self.commit(end)
        return lease

    def check_gc_takes_ended_runs(self) -> None:
        """Ended runs that match go with all that is theirs; open ones and those that do not match stay whole."""
        goes, stays = self.ended("goes"), self.ended("stays", function="other")
        self.start("open")
        blocked = self.start("blocked")
        self.commit(self.batch(blocked, self.record(), change=Release("blocked", "why")))
        before = [self.seen(run_id) for run_id in ("stays", "open", "blocked")]
        counts = self.gc(RunFilter(function="app:handler"))
        self.equal(counts.runs, 1, "runs taken")
        self.equal([self.seen(run_id) for run_id in ("stays", "open", "blocked")], before, "what stays")
        self.equal(self.store.run_get("goes"), None, "catalogue's row of what went")
        self.equal(self.texts(goes.rid), [], "rows of what went")
        notes = self.store.note_load(self.rid(goes), kind=None, key=None, after=0, limit=9)
        self.equal(notes, [], "notes of what went")
        self.equal(len(self.texts(stays.rid)), 3, "rows of what stays")

    def check_gc_by_time(self) -> None:
        """Retention asks for runs that ended before a time."""
        self.ended("r")
        now = self.store.now()
        self.equal(self.gc(RunFilter(ended_before=now - HOUR)).runs, 0, "runs taken that ended an hour ago")
        self.equal(self.gc(RunFilter(ended_before=now + HOUR)).runs, 1, "runs taken that ended by now")

    def check_gc_frees_the_id(self) -> None:
        """The id of a run that was taken away may be used again, for a new run."""
        old = self.ended("r")
        self.gc(RunFilter())
        new = self.start("r")
        self.expect(old.rid != new.rid, "the new run has the old one's rid: a zombie of the old could write it")
        self.equal(len(self.texts(new.rid)), 1, "rows of the new run")

    def check_gc_dry_run(self) -> None:
        """A dry run takes nothing and counts what the real one then takes."""
        blob = self.blob("blob")
        for i in range(5):
            self.ended(f"r{i}", records=i + 1, blobs=(blob,))
        where = RunFilter(id_prefix="r")
        seen = [self.seen(f"r{i}") for i in range(5)]
        dry = self.gc(where, dry_run=True, max_rows=4)
        self.equal([self.seen(f"r{i}") for i in range(5)], seen, "what is on record after the dry run")
        self.expect(self.store.blob_get(blob) is not None, "the dry run took the blob")
        real = self.gc(where, max_rows=4)
        self.equal(dry, real, "counts of the dry run, beside the real one's")
        self.equal((real.runs, real.blobs), (5, 1), "runs and blobs")
        self.expect(real.rows >= 25 and real.bytes > 0, f"rows and bytes: {real}")

    def check_gc_in_small_steps(self) -> None:
        """Each step is a transaction of at most ``max_rows`` rows, a long run is split; counts only grow."""
        self.ended("long", records=40)
        self.ended("short", records=2)
        counts = [
            GcResult(c.runs, c.rows, c.blobs, c.bytes) for c in self.store.gc(RunFilter(), dry_run=False, max_rows=10)
        ]
        rows = [0] + [c.rows for c in counts]
        steps = [after - before for before, after in pairwise(rows)]
        self.expect(len(steps) >= 4 and all(0 <= step <= 10 for step in steps), f"rows of each step: {steps}")
        self.equal(self.ids(RunFilter()), [], "runs that are left")

    def check_gc_broken_off(self) -> None:
        """A collection that is broken off leaves no half run to be opened again; the next one takes the rest."""
        lease = self.ended("long", records=40)
        rows = self.texts(lease.rid)
        steps = self.store.gc(RunFilter(), dry_run=False, max_rows=10)
        next(steps)
        steps.close()  # type: ignore[attr-defined]
        opened = self.store.run_reopen(self.rid(lease), "w2", self.taken_as(2, "w2"))
        if opened is not None:
            self.equal(self.texts(lease.rid)[: len(rows)], rows, "rows of the run that was opened again")
            return
        self.gc(RunFilter())
        self.equal(self.texts(lease.rid), [], "rows after the next collection")
        self.equal(self.store.run_get("long"), None, "catalogue's row after the next collection")

    def check_gc_children_go_with_parents(self) -> None:
        """A child goes with its parent, whatever the filter says of it, and never without it; an open child stays."""
        self.ended("parent", function="f")
        self.ended("child", function="g", parent="parent")
        self.ended("grandchild", function="h", parent="child")
        self.start("busy", function="f")
        self.ended("child-of-busy", function="f", parent="busy")
        self.ended("old", function="f")
        self.start("open-child", function="g", parent="old")
        self.gc(RunFilter(function="f"))
        left = set(self.ids(RunFilter()))
        self.equal(left - {"old"}, {"busy", "child-of-busy", "open-child"}, "runs that are left")

    def check_gc_takes_the_rows_of_a_run(self) -> None:
        """Rows of door `RUN_DOOR` whose key begins with the run's id and ``/`` go with it, of whatever kind; those of
        other runs and of other doors stay.
        """
        mine = [
            (kind, key) for kind in ("a", "b", "c") for key in ("goes/", "goes/1", "goes/größe/2", "goes/\U0010ffff")
        ]
        others = [("b", key) for key in ("goes", "goe", "goes.", "goes0", "goes-", "goes1/1", "agoes/1", "stays/1", "")]
        for name, parent in (("goes", None), ("child", "goes")):
            lease = self.start(name, parent=parent)
            rows = [DoorRow(RUN_DOOR, kind, key.replace("goes", name), b"x") for kind, key in mine]
            self.commit(self.batch(lease, self.record(), change=End("succeeded"), rows=rows))
        rows = [DoorRow(RUN_DOOR, kind, key, b"x") for kind, key in others]
        rows += [DoorRow("other", kind, key, b"x") for kind, key in mine]
        self.commit(self.batch(self.start("open"), self.record(), rows=rows))
        self.equal(self.gc(RunFilter(id_prefix="goes")).runs, 2, "runs taken")
        left = [(kind, key) for kind in ("a", "b", "c") for key, _ in self.store.row_list(RUN_DOOR, kind)]
        self.equal(left, sorted(others), "rows of the door that are left")
        left = [(kind, key) for kind in ("a", "b", "c") for key, _ in self.store.row_list("other", kind)]
        self.equal(left, mine, "rows of another door")

    def check_gc_of_many_rows_of_a_run(self) -> None:
        """Rows of a door are taken in small steps, too. Meanwhile nobody opens the run again, and a run that gets its
        id keeps what it writes.
        """
        lease = self.start("r")
        rows = [DoorRow(RUN_DOOR, f"k{i % 3}", f"r/{i}", b"x") for i in range(40)]
        self.commit(self.batch(lease, self.record(), change=End("succeeded"), rows=rows))
        steps = self.store.gc(RunFilter(), dry_run=False, max_rows=10)
        next(steps)
        steps.close()  # type: ignore[attr-defined]
        self.equal(self.store.run_reopen(self.rid(lease), "w2", self.taken_as(2, "w2")), None, "the run, opened again")
        (started,) = self.submit(again := self.start_batch("r"))
        if started is None:
            self.commit(self.batch(again.lease, self.record(), rows=[DoorRow(RUN_DOOR, "k0", "r/new", b"y")]))
        self.gc(RunFilter(), max_rows=10)
        self.equal(self.texts(lease.rid), [], "rows of the run that went")
        left = [row for kind in ("k0", "k1", "k2") for row in self.store.row_list(RUN_DOOR, kind)]
        self.equal(left, [("r/new", b"y")] if started is None else [], "rows of the door")
        if started is not None:
            self.start("r")

    def check_gc_child_of_nobody(self) -> None:
        """A child whose parent is gone, or was never here, goes by itself."""
        self.ended("child", parent="elsewhere")
        self.equal(self.gc(RunFilter()).runs, 1, "runs taken")

    def check_gc_blobs(self) -> None:
        """A blob goes if no run refers to it and it was untouched for a day; a young or referenced one stays."""
        used, free, gone = self.blob("used"), self.blob("free"), self.blob("gone")
        lease = self.start("open")
        self.commit(self.batch(lease, self.record(), blobs=[used]))
        self.ended("ended", blobs=(used, gone), queue="q")
        young = self.blob("young", old=False)
        counts = self.gc(RunFilter(queue="q"))
        self.equal((counts.runs, counts.blobs), (1, 2), "runs and blobs taken")
        there = [self.store.blob_get(digest) is not None for digest in (used, free, gone, young)]
        self.equal(there, [True, False, False, True], "used, free, gone and young are there")

    def check_gc_blob_touched(self) -> None:
        """A writer that finds its blob there touches it, so that a collection before its record leaves it."""
        digest = self.blob("again")
        self.open(self.clock).blob_put(digest, iter([b"again"]))
        self.equal(self.gc(RunFilter(queue="none")).blobs, 0, "blobs taken")
        self.expect(self.store.blob_get(digest) is not None, "the blob is gone")

    def check_gc_fenced_reference(self) -> None:
        """A fenced batch leaves no reference behind that would keep its blob for ever."""
        digest = self.blob("zombie's")
        old = self.start("r", "w1")
        self.claim("r", "w2")
        self.refused(Fenced, self.batch(old, self.record(), blobs=[digest]))
        self.refused(Fenced, self.batch(old, blobs=[digest]))
        self.equal(self.gc(RunFilter(queue="none")).blobs, 1, "blobs taken")
