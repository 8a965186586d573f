"""Claims and facts from outside, in an SQLite store: short transactions under the fair lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.core import encode_records
from stepwell.journal._api import Lease
from stepwell.journal._sqlite_schema import RID_SHIFT, record_range
from stepwell.journal._sqlite_write import Writing

if TYPE_CHECKING:
    import sqlite3

    from stepwell.journal._api import HotRow, Taken


class Claiming(Writing):
    """A part of `SqliteStore`. Called under the writer's mutex."""

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run if its hot row is still as seen; the claim and its row in one transaction."""

        def work(write: sqlite3.Connection, again: bool) -> Lease | None:
            now = write.execute(self.sql["hot_fence"], (hot.rid,)).fetchone()
            if again and now is not None and now[:2] == (taken.epoch, worker):
                return self._life_there(write, hot.rid, hot.run_id, worker, taken, now[2])
            if now is None or now[:2] != (hot.epoch, hot.owner):
                return None
            values = {
                "rid": hot.rid, "worker": worker, "epoch": taken.epoch, "status": taken.status, "ttl": taken.ttl,
            }  # fmt: skip
            write.execute(self.sql["hot_claim"], values)
            return self._life_begin(write, hot.rid, hot.run_id, worker, taken, now[2])

        return self.file.writing(work)

    def run_reopen(self, rid: int, worker: str, taken: Taken) -> Lease | None:
        """As `run_claim`, of an ended run. Facts that nobody took before its end still wait in its inbox."""

        def work(write: sqlite3.Connection, again: bool) -> Lease | None:
            row = write.execute(self.sql["run_closed"], (rid,)).fetchone()
            if row is None:
                now = write.execute(self.sql["hot_fence"], (rid,)).fetchone() if again else None
                if now is None or now[:2] != (taken.epoch, worker):
                    return None
                run_id = write.execute("select id from run where rid = ?", (rid,)).fetchone()[0]
                return self._life_there(write, rid, run_id, worker, taken, now[2])
            run_id, queue, function, waits = row
            _, newest = self._last(write, rid)
            if taken.epoch <= newest:
                return None  # another life was opened, and ended, since the caller looked
            cursor = write.cursor()
            self.hot_insert(cursor, rid, queue, function, taken.status, worker, taken.epoch, taken.ttl, waits)
            write.execute(self.sql["run_open_again"], (rid,))
            return self._life_begin(write, rid, run_id, worker, taken, waits)

        return self.file.writing(work)

    def _last(self, write: sqlite3.Connection, rid: int) -> tuple[int, int]:
        """Seq and epoch of the run's newest row; zeros if it has none."""
        low, high = record_range(rid)
        row = write.execute(self.sql["record_last"], {"low": low, "high": high}).fetchone()
        return (0, 0) if row is None else (row[0] - low, row[1])

    def _life_begin(
        self, write: sqlite3.Connection, rid: int, run_id: str, worker: str, taken: Taken, inbox: int
    ) -> Lease:
        seq = self._last(write, rid)[0] + 1
        data = encode_records(list(taken.records))
        write.execute(self.sql["record_insert"], (rid << RID_SHIFT | seq, taken.epoch, data))
        return Lease(run_id, worker, rid=rid, epoch=taken.epoch, seq=seq, inbox=inbox)

    def _life_there(
        self, write: sqlite3.Connection, rid: int, run_id: str, worker: str, taken: Taken, inbox: int
    ) -> Lease:
        """After a commit in doubt: it was durable."""
        seq, _ = self._last(write, rid)
        return Lease(run_id, worker, rid=rid, epoch=taken.epoch, seq=seq, inbox=inbox)

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes) -> bool:
        """Put a fact into the run's inbox and wake it. False if the run is not open."""

        def work(write: sqlite3.Connection, again: bool) -> bool:
            fact = {"id": run_id, "kind": kind, "at": at, "data": data}
            if again and write.execute(self.sql["fact_there"], fact).fetchone() is not None:
                return True
            woken = write.execute(self.sql["fact_wake"], {"id": run_id, "now": self.now()}).fetchall()
            if not woken:
                return False
            write.execute(self.sql["fact_insert"], {"rid": woken[0][0], "kind": kind, "at": at, "data": data})
            return True

        told = self.file.writing(work)
        if told:
            self.tell()
        return told
