"""What became of a lent transaction whose COMMIT was never answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.journal._postgres_link import Refused, rows

if TYPE_CHECKING:
    from stepwell.journal._api import Batch
    from stepwell.journal._postgres_link import Link
    from stepwell.journal._postgres_schema import Sql


def row_committed(link: Link, sql: Sql, batch: Batch, *, pid: int, txid: int) -> bool | None:
    """True: the batch's row is there. False: somebody else's is. None: none is, and none will come.

    If the server has not noticed yet that its client is gone, its session is ended first, and only that session: the
    process must still be in the transaction that we began. (Behind a pooler the process may serve others by now.)
    """
    lease = batch.lease
    values = {"rid": lease.rid, "seq": batch.seq, "epoch": lease.epoch, "data": batch.data, "number": pid, "txid": txid}

    def probe(_: bool) -> bool | None:
        link.run(sql.statement("probe_end_session"), values)
        try:
            with link.transaction(keep=False):
                link.run(sql.statement("probe_row"), values)
            return None
        except Refused as refused:
            if refused.sqlstate != "23505":
                raise
        return bool(rows(link.run(sql.statement("doubt_record"), values)))

    return link.patiently(probe)
