"""Checks of the store conformance suite: notes, doors' rows, blobs and the catalogue."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import DoorRow, End, Note, Release, RunFilter
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, SECOND, StoreRig

if TYPE_CHECKING:
    from collections.abc import Iterator

MEBI = 1 << 20


class NoteChecks(StoreRig):
    """What was said along the way."""

    def notes(
        self, rid: int, *, kind: str | None = None, key: str | None = None, after: int = 0, limit: int = 99
    ) -> list[str]:
        """The texts of the notes that `Store.note_load` gives."""
        return [note.data for _, note in self.store.note_load(rid, kind=kind, key=key, after=after, limit=limit)]

    def check_notes_in_order(self) -> None:
        """Notes come back whole, in order of being written, with rising numbers, each run its own."""
        lease, other = self.start("r"), self.start("other")
        kinds: tuple[Literal["log", "progress", "heartbeat"], ...] = ("log", "progress", "heartbeat")
        wanted = [Note(f"k{i}", kind, START - i, f"größe {i}") for i, kind in enumerate(kinds)]
        self.commit(
            self.batch(lease, notes=wanted[:2]),
            self.batch(other, notes=[Note("k", "log", START, "x")]),
            self.batch(lease, self.record(), notes=wanted[2:]),
        )
        found = self.store.note_load(self.rid(lease), kind=None, key=None, after=0, limit=99)
        self.equal([note for _, note in found], wanted, "notes")
        numbers = [n for n, _ in found]
        self.equal(numbers, sorted(set(numbers)), "numbers")

    def check_notes_by_page(self) -> None:
        """``after`` is the number of the last note of the page before; ``limit`` is a page's size."""
        lease = self.start("r")
        for i in range(7):
            self.commit(self.batch(lease, notes=[Note("k", "log", START, f"{i}")]))
        pages: list[list[str]] = []
        after = 0
        while page := self.store.note_load(self.rid(lease), kind=None, key=None, after=after, limit=3):
            pages.append([note.data for _, note in page])
            after = page[-1][0]
        self.equal(pages, [["0", "1", "2"], ["3", "4", "5"], ["6"]], "pages")

    def check_notes_by_kind_and_key(self) -> None:
        """Kind and key restrict, each and both, before the limit counts."""
        lease = self.start("r")
        said = (("a", "log"), ("b", "log"), ("a", "progress"), ("a", "log"), ("b", "progress"))
        self.commit(self.batch(lease, notes=[Note(key, kind, START, f"{i}") for i, (key, kind) in enumerate(said)]))  # type: ignore[arg-type]
        rid = self.rid(lease)
        self.equal(self.notes(rid, kind="log"), ["0", "1", "3"], "logs")
        self.equal(self.notes(rid, key="a"), ["0", "2", "3"], "notes of a")
        self.equal(self.notes(rid, kind="log", key="a"), ["0", "3"], "logs of a")
        self.equal(self.notes(rid, kind="progress", limit=1), ["2"], "first progress")
        self.equal(self.notes(rid, kind="heartbeat"), [], "heartbeats")
        self.equal(self.notes(987_654_321), [], "notes of an unknown run")


class DoorRowChecks(StoreRig):
    """Doors' own rows."""

    def check_rows_put_get_delete(self) -> None:
        """A row is put, changed and deleted by batches, in their order; door, kind and key together name it."""
        lease = self.start("r")
        self.commit(self.batch(lease, rows=[DoorRow("d", "k", "x", b"1"), DoorRow("d", "l", "x", b"2")]))
        self.commit(self.batch(lease, rows=[DoorRow("e", "k", "x", b"3"), DoorRow("d", "k", "empty", b"")]))
        found = [self.store.row_get(*name) for name in (("d", "k", "x"), ("d", "l", "x"), ("e", "k", "x"))]
        self.equal(found, [b"1", b"2", b"3"], "rows")
        self.equal(self.store.row_get("d", "k", "empty"), b"", "an empty row")
        self.equal(self.store.row_get("d", "k", "y"), None, "a row that is not there")
        again = [DoorRow("d", "k", "x", b"4"), DoorRow("d", "k", "empty", None), DoorRow("d", "k", "never", None)]
        self.commit(self.batch(lease, rows=again))
        self.equal(self.store.row_list("d", "k"), [("x", b"4")], "rows after a change and two deletions")
        self.commit(self.batch(lease, rows=[DoorRow("d", "k", "x", None), DoorRow("d", "k", "x", b"5")]))
        self.equal(self.store.row_get("d", "k", "x"), b"5", "a row that one batch deletes and puts")

    def check_rows_by_prefix(self) -> None:
        """A list is in order of key by code point and restricted by prefix, in which % and _ mean themselves."""
        lease = self.start("r")
        keys = ["b", "a", "B", "ab", "a_c", "a%c", "azc", "é", "a\U0001f600", "a\uffee"]
        self.commit(self.batch(lease, rows=[DoorRow("d", "k", key, key.encode()) for key in keys]))
        self.equal(self.store.row_list("d", "k"), [(key, key.encode()) for key in sorted(keys)], "all rows")
        for prefix in ("a", "a_", "a%", "B", "x", "a\U0001f600"):
            wanted = [key for key in sorted(keys) if key.startswith(prefix)]
            self.equal([key for key, _ in self.store.row_list("d", "k", prefix)], wanted, f"keys from {prefix!r}")

    def check_rows_go_with_their_batch(self) -> None:
        """Rows of a fenced batch are not written, and those of a start are written with it."""
        start = self.start_batch("r")
        start.rows = [DoorRow("d", "k", "x", b"1")]
        self.commit(start)
        self.equal(self.store.row_get("d", "k", "x"), b"1", "row of the start")
        self.claim("r", "w2")
        for records in ((self.record(),), ()):
            batch = self.batch(start.lease, *records, rows=[DoorRow("d", "k", "x", None), DoorRow("d", "k", "y", b"")])
            self.refused(Fenced, batch)
        self.equal(self.store.row_list("d", "k"), [("x", b"1")], "rows")


class BlobChecks(StoreRig):
    """Large values by content."""

    def check_blob_round_trip(self) -> None:
        """A blob of several chunks comes back in one piece, in every process; an empty one is not a missing one."""
        parts = [bytes([i]) * MEBI for i in range(3)] + [b"end"]
        digest = _digest(*parts)
        self.equal(self.store.blob_get(digest), None, "before it is put")
        self.store.blob_put(digest, iter(parts))
        for store in (self.store, self.open()):
            self.expect(store.blob_get(digest) == b"".join(parts), "the blob is not what was put")
        self.store.blob_put(_digest(), iter(()))
        self.equal(self.store.blob_get(_digest()), b"", "the empty blob")

    def check_blob_in_a_large_chunk(self) -> None:
        """Chunks that the caller cut too large are stored all the same."""
        data = b"\x00\xff" * (MEBI + 1)
        self.store.blob_put(_digest(data), iter([data]))
        self.expect(self.store.blob_get(_digest(data)) == data, "the blob is not what was put")

    def check_blob_put_again(self) -> None:
        """Putting what is there changes nothing that can be read."""
        digest = _digest(b"ab")
        self.store.blob_put(digest, iter([b"a", b"b"]))
        self.open().blob_put(digest, iter([b"a", b"b"]))
        self.equal(self.store.blob_get(digest), b"ab", "blob")

    def check_blob_half_written(self) -> None:
        """A blob whose writer fails half-way is not there, and can be put afterwards."""
        digest = _digest(b"ab")

        def broken() -> Iterator[bytes]:
            yield b"a" * MEBI
            raise _BrokenSourceError

        try:
            self.store.blob_put(digest, broken())
        except _BrokenSourceError:
            pass
        else:
            self.expect(False, "the source's error did not come out")
        for store in (self.store, self.open()):
            self.equal(store.blob_get(digest), None, "the blob that was broken off")
        self.store.blob_put(digest, iter([b"a", b"b"]))
        self.equal(self.store.blob_get(digest), b"ab", "the blob put afterwards")


class _BrokenSourceError(Exception):
    pass


def _digest(*parts: bytes) -> bytes:
    return blake2b(b"".join(parts), digest_size=32).digest()


class CatalogueChecks(StoreRig):
    """`run_get`, `run_list`, `run_count`."""

    def some_runs(self) -> None:
        """Six runs that differ in what can be asked for."""
        made: dict[str, dict[str, Any]] = {
            "load:1": {"function": "app:load", "door": "durable", "queue": "a", "tags": ("x", "y")},
            "load:2": {"function": "app:load", "door": "flow", "queue": "b", "tags": ("y",), "parent": "load:1"},
            "load_3": {"function": "app:load", "door": "durable", "queue": "a", "held": False},
            "clean": {"function": "app:clean", "door": "durable", "queue": "b", "tags": ("xy",), "parent": "load:1"},
            "50%": {"function": "app:clean", "door": "flow", "queue": "c"},
            "Größe": {"function": "app:size", "door": "durable", "queue": "a"},
        }
        leases = {
            run_id: self.start(run_id, created_at=START + i * HOUR, **columns)
            for i, (run_id, columns) in enumerate(made.items())
        }
        self.commit(self.batch(leases["load:2"], self.record(), change=End("failed", "the disk is full")))
        self.commit(self.batch(leases["clean"], self.record(), change=Release("blocked", "code-changed")))
        self.park(leases["50%"], START + HOUR)

    def check_catalogue_filters(self) -> None:
        """Each filter finds its runs, the newest first, and counts them; all that is given must hold."""
        self.some_runs()
        cases: tuple[tuple[RunFilter, list[str]], ...] = (
            (RunFilter(), ["Größe", "50%", "clean", "load_3", "load:2", "load:1"]),
            (RunFilter(function="app:load"), ["load_3", "load:2", "load:1"]),
            (RunFilter(door="flow"), ["50%", "load:2"]),
            (RunFilter(queue="a"), ["Größe", "load_3", "load:1"]),
            (RunFilter(tag="y"), ["load:2", "load:1"]),
            (RunFilter(tag="x"), ["load:1"]),
            (RunFilter(parent="load:1"), ["clean", "load:2"]),
            (RunFilter(function="app:load", queue="a", tag="x"), ["load:1"]),
            (RunFilter(function="nothing"), []),
        )
        for where, wanted in cases:
            self.equal((self.ids(where), self.store.run_count(where)), (wanted, len(wanted)), f"runs of {where}")

    def check_catalogue_statuses(self) -> None:
        """Open and ended statuses can be asked for, one or several."""
        self.some_runs()
        cases: tuple[tuple[tuple[str, ...], list[str]], ...] = (
            (("failed",), ["load:2"]),
            (("blocked",), ["clean"]),
            (("waiting",), ["50%"]),
            (("pending",), ["load_3"]),
            (("running",), ["Größe", "load:1"]),
            (("succeeded",), []),
            (("failed", "pending", "waiting"), ["50%", "load_3", "load:2"]),
        )
        for statuses, wanted in cases:
            where = RunFilter(statuses=statuses)
            self.equal(
                (self.ids(where), self.store.run_count(where)), (wanted, len(wanted)), f"runs that are {statuses}"
            )

    def check_catalogue_prefix_and_text(self) -> None:
        """A prefix is one of the id; a text may stand in id, function or reason of open and ended runs; % and _ mean
        themselves.
        """
        self.some_runs()
        cases: tuple[tuple[RunFilter, list[str]], ...] = (
            (RunFilter(id_prefix="load"), ["load_3", "load:2", "load:1"]),
            (RunFilter(id_prefix="load_"), ["load_3"]),
            (RunFilter(id_prefix="50%"), ["50%"]),
            (RunFilter(id_prefix="Grö"), ["Größe"]),
            (RunFilter(id_prefix="ad"), []),
            (RunFilter(text="clean"), ["50%", "clean"]),
            (RunFilter(text="disk is"), ["load:2"]),
            (RunFilter(text="code-ch"), ["clean"]),
            (RunFilter(text="%"), ["50%"]),
            (RunFilter(text="d_3"), ["load_3"]),
            (RunFilter(text="nowhere"), []),
        )
        for where, wanted in cases:
            self.equal((self.ids(where), self.store.run_count(where)), (wanted, len(wanted)), f"runs of {where}")

    def check_catalogue_times(self) -> None:
        """Runs by the time of their start, and ended ones by that of their end; an open run has no end."""
        self.some_runs()
        later = self.store.now() + HOUR
        cases: tuple[tuple[RunFilter, list[str]], ...] = (
            (RunFilter(created_from=START + 4 * HOUR - SECOND), ["Größe", "50%"]),
            (RunFilter(created_to=START + SECOND), ["load:1"]),
            (RunFilter(created_from=START + SECOND, created_to=START + 2 * HOUR + SECOND), ["load_3", "load:2"]),
            (RunFilter(ended_before=later), ["load:2"]),
            (RunFilter(ended_before=later - 2 * HOUR), []),
        )
        for where, wanted in cases:
            self.equal((self.ids(where), self.store.run_count(where)), (wanted, len(wanted)), f"runs of {where}")

    def check_catalogue_pages(self) -> None:
        """Pages go from the newest run to the oldest; new runs between two pages shift nothing."""
        for i in range(7):
            self.start(f"r{i}", queue="ab"[i % 2])
        first = self.store.run_list(RunFilter(), limit=3)
        self.start("newer")
        second = self.store.run_list(RunFilter(), limit=3, before=first[-1].rid)
        third = self.store.run_list(RunFilter(), limit=3, before=second[-1].rid)
        found = [[row.id for row in page] for page in (first, second, third)]
        self.equal(found, [["r6", "r5", "r4"], ["r3", "r2", "r1"], ["r0"]], "pages")
        page = self.store.run_list(RunFilter(queue="a"), limit=2, before=first[-1].rid)
        self.equal([row.id for row in page], ["r2", "r0"], "page of a queue")

    def check_catalogue_row_is_one(self) -> None:
        """`run_get` and `run_list` tell the same of a run, open or ended."""
        self.some_runs()
        for row in self.store.run_list(RunFilter(), limit=99):
            self.equal(self.store.run_get(row.id), row, f"row of {row.id}")
        self.equal(self.store.run_get("load"), None, "row of an id that is only a prefix")

    def check_reading_unknown_runs(self) -> None:
        """What is asked of a run that is not there is empty, not an error."""
        rid = 987_654_321
        self.equal(self.store.hot_get("nobody"), None, "hot row")
        self.equal((self.store.record_load(rid), self.store.inbox_load(rid)), ([], []), "rows and inbox")

    def check_reading_while_writing(self) -> None:
        """Threads may read while another writes: each sees whole rows, in order, without a gap."""
        from threading import Event, Thread

        lease = self.start("r")
        done, problems = Event(), list[str]()

        def read() -> None:
            last = 0
            while not done.is_set():
                try:
                    seqs = [entry.seq for entry in self.store.record_load(self.rid(lease))]
                except JournalError as error:
                    problems.append(repr(error))
                    return
                if seqs != list(range(1, len(seqs) + 1)) or len(seqs) < last:
                    problems.append(f"seqs {seqs} after {last}")
                    return
                last = len(seqs)

        threads = [Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            self.append(lease, *map(str, range(60)))
        finally:
            done.set()
            for thread in threads:
                thread.join()
        self.equal(problems, [], "what readers saw")
