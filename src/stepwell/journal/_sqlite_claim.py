"""Claims and facts from outside, in an SQLite store: short transactions under the fair lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.core import encode_records
from stepwell.journal._api import ClaimLost, Lease, Outgoing
from stepwell.journal._sqlite_schema import RID_SHIFT, record_range
from stepwell.journal._sqlite_write import Writing

if TYPE_CHECKING:
    import sqlite3

    from stepwell.journal._api import Claim, HotRow, Taken


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

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes, claim: Claim | None = None) -> bool:
        """Put a fact into the run's inbox and wake it. False if the run is not open. See `Store.fact_deliver`."""
        fact = Outgoing(run_id, kind, at, data)

        def work(write: sqlite3.Connection, again: bool) -> bool:
            # The fair lock was held ever since the commit in doubt: nobody can have taken the fact meanwhile.
            if again and self.fact_there(write, fact) and (claim is None or self._is_claimed(write, claim)):
                return True
            if not self.fact_put(write, fact):
                return False
            if claim is not None and not self._claim(write, claim):
                raise ClaimLost(f"row {claim.key} has changed: read it again")  # which takes the fact back
            return True

        told = self.file.writing(work)
        if told:
            self.tell()
        return told

    def _claim(self, write: sqlite3.Connection, claim: Claim) -> bool:
        """The claim's row changes hands, if it is as the caller read it."""
        values = {"door": claim.door, "kind": claim.kind, "key": claim.key, "after": claim.after}
        if claim.before is None:
            return write.execute(self.sql["claim_first"], values).rowcount == 1
        return write.execute(self.sql["claim_take"], {**values, "before": claim.before}).rowcount == 1

    def _is_claimed(self, write: sqlite3.Connection, claim: Claim) -> bool:
        row = write.execute(self.sql["row_get"], (claim.door, claim.kind, claim.key)).fetchone()
        return row is not None and bytes(row[0]) == claim.after
