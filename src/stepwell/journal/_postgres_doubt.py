"""What became of a commit whose answer never came (ENGINE.md §3).

A look alone proves nothing: the server may still be committing behind the connection that was lost. So the same batch
is submitted again first; it waits for whoever is writing the same rows. Only a batch that is *refused* then is looked
for, and only what is found exactly as we would have written it counts as ours.

What leaves nothing to be found (a fact may be taken out of the inbox by the time that we are back) is written in a
transaction whose number is known, and the server is asked what became of that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from stepwell.errors import JournalError
from stepwell.journal._api import End, Park, Release, Start, Unpark
from stepwell.journal._postgres_batch import note_values
from stepwell.journal._postgres_link import PATIENCE, Lost, rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.pq.abc import PGresult

    from stepwell.journal._api import Batch
    from stepwell.journal._postgres_link import Link
    from stepwell.journal._postgres_schema import Sql
    from stepwell.journal._postgres_wire import Statement


class Doubt:
    """Questions about what may be on record, asked on the write connection."""

    def __init__(self, link: Link, sql: Sql) -> None:
        self._link = link
        self._sql = sql

    def _ask(self, name: str, values: Mapping[str, Any]) -> list[tuple[str | None, ...]]:
        statement = self._sql.statement(name)
        return self._link.patiently(lambda _: rows(self._link.run(statement, values)))

    def transact(self, group: Sequence[tuple[Statement, Mapping[str, Any]]]) -> list[PGresult]:
        """Run statements in one transaction that leaves nothing to look for afterwards. Within `Link.patiently`.

        They and their COMMIT are trips of their own: so either COMMIT was never sent, or the transaction's number is
        known (the second column of the last answer; no row: nothing was written), and the server can be asked what
        became of it.

        Raises:
            Refused: by the server.
            Lost: the connection is gone, and it is certain that nothing is written.
        """
        link = self._link
        results: list[PGresult] = []
        txid = 0
        try:
            with link.transaction():
                results = [link.run(statement, values) for statement, values in group]
                if results[-1].ntuples:
                    txid = int(results[-1].get_value(0, 1) or 0)
        except Lost as lost:
            if not (lost.committing and txid and link.patiently(lambda _: self._committed(txid))):
                raise
        return results

    def _committed(self, txid: int) -> bool:
        """What became of the transaction, once its old connection is done with it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            state = rows(self._link.run(self._sql.statement("transaction_outcome"), {"txid": txid}))[0][0]
            if state in ("committed", "aborted"):
                return state == "committed"
            if time.monotonic() > deadline:
                raise JournalError(
                    f"PostgreSQL at {self._link.address.place} is still busy with a transaction whose connection was "
                    f"lost ({state or 'unknown'}): whether a fact was delivered is not known"
                )
            time.sleep(0.02)

    def stored(self, batch: Batch) -> bool:
        """The batch is on record. A start's lease gets its rid."""
        lease = batch.lease
        if isinstance(batch.change, Start):
            return self._start_stored(batch)
        if batch.seq:
            values = {"rid": lease.rid, "seq": batch.seq, "epoch": lease.epoch, "data": batch.data}
            return bool(self._ask("doubt_record", values))
        return self._change_stored(batch)

    def stored_rows(self, batches: Sequence[Batch]) -> set[int]:
        """`id` of each batch with a row on record, starts excepted."""
        there = [batch for batch in batches if batch.seq and not isinstance(batch.change, Start)]
        values = {
            "rids": [batch.lease.rid for batch in there],
            "seqs": [batch.seq for batch in there],
            "epochs": [batch.lease.epoch for batch in there],
            "datas": [batch.data for batch in there],
        }
        found = {(int(rid or 0), int(seq or 0)) for rid, seq in self._ask("doubt_records", values)} if there else set()
        return {id(batch) for batch in there if (batch.lease.rid, batch.seq) in found}

    def _start_stored(self, batch: Batch) -> bool:
        assert isinstance(batch.change, Start)
        run, lease = batch.change.run, batch.lease
        values = {
            "id": run.id, "created_at": run.created_at, "input_hash": run.input_hash, "seq": batch.seq,
            "epoch": lease.epoch, "owner": lease.worker if run.held else None, "data": batch.data,
        }  # fmt: skip
        found = self._ask("doubt_start", values)
        if found:
            lease.rid = int(found[0][0] or 0)
        return bool(found)

    def _change_stored(self, batch: Batch) -> bool:
        """A batch without a row has nothing of its own but what it changed."""
        lease, change = batch.lease, batch.change
        hot = self._ask("doubt_hot", {"rid": lease.rid})
        if isinstance(change, End):
            return not hot and self._ask("doubt_end", {"rid": lease.rid}) == [(change.status,)]
        if not hot or hot[0][0] != str(lease.epoch):
            return False
        _, owner, status, inbox = hot[0]
        match change:
            case Release(status=wanted):
                return (owner, status) == (None, wanted)
            case Park(release=True):
                return (owner, status) == (None, "waiting")
            case Park():
                return (owner, status) == (lease.worker, "waiting")
            case Unpark(status=wanted, inbox_seen=seen):
                # With something new in the inbox it cannot be told from one that was refused: decide again.
                return (owner, status) == (lease.worker, wanted) and (seen is None or inbox == str(seen))
            case _:
                return self._notes_stored(batch)

    def _notes_stored(self, batch: Batch) -> bool:
        # Its other parts may be written twice without harm; log lines would be read twice.
        if not batch.notes:
            return False
        (found,) = self._ask("doubt_notes", {"rid": batch.lease.rid, **note_values(batch)})
        return int(found[0] or 0) >= len(batch.notes)

    def inbox_grew(self, batch: Batch, seen: int) -> bool:
        """The lease holds and the inbox is not as it was seen: that is why it could not be changed."""
        lease = batch.lease
        hot = self._ask("doubt_hot", {"rid": lease.rid})
        if not hot:
            return False
        epoch, owner, _, inbox = hot[0]
        return (epoch, owner) == (str(lease.epoch), lease.worker) and inbox != str(seen)
