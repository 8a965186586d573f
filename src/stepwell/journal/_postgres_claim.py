"""Taking runs, and facts that come for them from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import encode_records
from stepwell.journal._api import ClaimLost, Lease
from stepwell.journal._postgres_batch import possible
from stepwell.journal._postgres_doubt import Doubt
from stepwell.journal._postgres_link import Refused, rows

if TYPE_CHECKING:
    from stepwell.journal._api import Claim, HotRow, Taken
    from stepwell.journal._postgres_link import Link
    from stepwell.journal._postgres_schema import Sql
    from stepwell.journal._postgres_time import StoreTime
    from stepwell.journal._postgres_write import Teller

ROUNDS = 5
"""How often a claim is made again that met an append of the run's former holder."""

_TAKEN = "23505"


class Claimer:
    """`Store.run_claim`, `run_reopen` and `fact_deliver` on the write connection."""

    def __init__(self, link: Link, sql: Sql, times: StoreTime, teller: Teller) -> None:
        self._link = link
        self._sql = sql
        self._times = times
        self._teller = teller
        self._doubt = Doubt(link, sql)

    # -- claims

    def claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run if its hot row is as it was seen."""
        values = self._life(hot.rid, worker, taken)
        values.update(seen_epoch=hot.epoch, seen_owner=hot.owner)
        row = self._link.patiently(lambda again: self._claim(values, again=again))
        return None if row is None else self._lease(hot.run_id, row, worker, taken)

    def _claim(self, values: dict[str, Any], *, again: bool) -> tuple[str | None, ...] | None:
        row = self._insisting(values, "run_claim")
        if row is not None:
            return row
        # Somebody had the row locked: perhaps for a claim, perhaps only to deliver a fact.
        if rows(self._link.run(self._sql.statement("claim_seen"), values)):
            row = self._insisting(values, "run_claim_waiting")
        if row is None and again:
            found = rows(self._link.run(self._sql.statement("claim_ours"), values))
            row = found[0] if found else None
        return row

    def reopen(self, rid: int, worker: str, taken: Taken) -> Lease | None:
        """Take an ended run."""
        values = self._life(rid, worker, taken)
        row = self._link.patiently(lambda again: self._reopen(values, again=again))
        return None if row is None else self._lease(row[3] or "", row, worker, taken)

    def _reopen(self, values: dict[str, Any], *, again: bool) -> tuple[str | None, ...] | None:
        row = self._insisting(values | {"rids": [values["rid"]]}, "run_lock", "run_reopen")
        if row is None and again:
            ours = rows(self._link.run(self._sql.statement("claim_ours"), values))
            name = rows(self._link.run(self._sql.statement("run_name"), values))
            if ours and name:
                return (*ours[0], *name[0])
        return row

    def _insisting(self, values: dict[str, Any], *names: str) -> tuple[str | None, ...] | None:
        """The row of the last of these statements. A seq that an append took meanwhile makes it the next seq."""
        group = [(self._sql.statement(name), values) for name in names]
        for left in reversed(range(ROUNDS)):
            try:
                found = rows(self._link.run(*group[0]) if len(group) == 1 else self._link.run_all(group)[-1])
            except Refused as refused:
                if refused.sqlstate != _TAKEN or not left:
                    raise
            else:
                return found[0] if found else None
        return None

    def _life(self, rid: int, worker: str, taken: Taken) -> dict[str, Any]:
        return {
            "rid": rid, "owner": worker, "epoch": taken.epoch, "status": taken.status, "ttl": taken.ttl,
            "data": encode_records(list(taken.records)),
        }  # fmt: skip

    def _lease(self, run_id: str, row: tuple[str | None, ...], worker: str, taken: Taken) -> Lease:
        rid, seq, inbox = (int(value or 0) for value in row[:3])
        return Lease(run_id, worker, rid=rid, epoch=taken.epoch, seq=seq, inbox=inbox)

    # -- facts

    def deliver(self, run_id: str, kind: str, at: int, data: bytes, claim: Claim | None) -> bool:
        """Put a fact into an open run's inbox, exactly once whatever becomes of the connection.

        Raises:
            ClaimLost: the claim's row is not as it was read.
        """
        if not possible(run_id):
            return False
        values = {
            "id": run_id, "kind": kind, "at": at, "data": data, "now": self._times.now(),
            "notify": self._teller.may_tell(), "channel": self._teller.channel, "token": self._teller.token,
        }  # fmt: skip
        name = "fact_deliver"
        if claim is not None:
            name = "fact_deliver_claimed"
            values.update(
                door=claim.door, claim_kind=claim.kind, key=claim.key, claim_before=claim.before,
                claim_after=claim.after,
            )  # fmt: skip
        group = [(self._sql.statement(name), values)]
        found = rows(self._link.patiently(lambda _: self._doubt.transact(group))[0])
        if found and claim is not None and found[0][0] is None:
            raise ClaimLost(f"row {claim.key} has changed: read it again")
        return bool(found)
