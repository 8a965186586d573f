"""Writing batches: one statement for one batch, one transaction and one trip for a group (ENGINE.md §3 and §7).

What a group needs is planned as *waves*. In one wave a lease has either a chain of batches that only bring records, or
one other batch: so no statement of a transaction ever depends on what another one of it decided, and no transaction
wants the lock of a hot row after it has inserted a row that a claim may wait for. A batch that tells other runs
something is a wave of its own: it begins with the locks of all the hot rows that it will change, in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import MAX_ROW_BYTES, End, InboxChanged, Park, RunExists, Start, Unpark
from stepwell.journal._postgres_batch import (
    Single,
    append_values,
    end_values,
    extras_values,
    has_extras,
    start_values,
    wakes,
)
from stepwell.journal._postgres_doubt import Doubt
from stepwell.journal._postgres_link import Refused, rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg.pq.abc import PGresult

    from stepwell.journal._api import Batch
    from stepwell.journal._postgres_link import Link
    from stepwell.journal._postgres_schema import Sql
    from stepwell.journal._postgres_time import StoreTime
    from stepwell.journal._postgres_wire import Statement

Result = JournalError | None

WAVE_BYTES = 8 << 20
"""Bytes of records in one transaction, beyond its first batch."""
TRIES = 5
"""How often a group is submitted whose outcome is unknown again and again: it may be what makes the server crash."""


_TAKEN = "23505"
"""unique_violation."""


class Teller(Protocol):
    """Who decides whether this commit tells other processes."""

    channel: str
    token: str

    def may_tell(self) -> bool:
        """Now, with the commit; else it is seen to later."""
        ...


class Part:
    """One statement of a wave, and the batches that it writes."""

    def __init__(self, statement: Statement, values: Mapping[str, Any], batches: Sequence[Batch]) -> None:
        self.statement = statement
        self.values = values
        self.batches = batches

    def accepted(self, result: PGresult) -> set[int]:
        """`id` of each batch that is written."""
        return set()


class Chains(Part):
    def accepted(self, result: PGresult) -> set[int]:
        if result.ntuples == len(self.batches):
            return {id(batch) for batch in self.batches}
        there = {(int(rid or 0), int(seq or 0)) for rid, seq in rows(result)}
        return {id(b) for b in self.batches if (b.lease.rid, b.seq) in there}


class Starts(Part):
    def accepted(self, result: PGresult) -> set[int]:
        written = set()
        for number, rid in rows(result):
            batch = self.batches[int(number or 0)]
            batch.lease.rid = int(rid or 0)
            written.add(id(batch))
        return written


class Ends(Part):
    def accepted(self, result: PGresult) -> set[int]:
        there = {int(rid or 0) for (rid,) in rows(result)}
        return {id(batch) for batch in self.batches if batch.lease.rid in there}


class One(Part):
    def accepted(self, result: PGresult) -> set[int]:
        (batch,) = self.batches
        if not result.ntuples:
            return set()
        if isinstance(batch.change, Start):
            batch.lease.rid = int(result.get_value(0, 0) or 0)
        return {id(batch)}


class _Again:
    """The outcome of an attempt is unknown."""


_AGAIN = _Again()


class BatchWriter:
    """`Store.batch_commit` on the write connection."""

    def __init__(self, link: Link, sql: Sql, times: StoreTime, teller: Teller) -> None:
        self._link = link
        self._sql = sql
        self._times = times
        self._teller = teller
        self._doubt = Doubt(link, sql)
        self._append = sql.statement("batch_append")

    def commit(self, batches: Sequence[Batch]) -> list[Result]:
        """Write all that may be written."""
        if len(batches) == 1:
            return [self._commit_one(batches[0])]
        results: dict[int, Result] = {}
        refused: dict[int, JournalError] = {}
        left = list(batches)
        while left:
            wave, left = _wave(left)
            ready: list[Batch] = []
            for batch in wave:
                error = refused.get(id(batch.lease)) or _unfit(batch)
                if error is None:
                    ready.append(batch)
                else:
                    results[id(batch)] = refused[id(batch.lease)] = error
            results |= self._send(ready)
            for batch in ready:
                error = results[id(batch)]
                if error is not None:
                    refused.setdefault(id(batch.lease), error)
        return [results[id(batch)] for batch in batches]

    def _commit_one(self, batch: Batch) -> Result:
        """The short way for the common case: what a wave of one batch would do."""
        error = _unfit(batch)
        if error is not None:
            return error
        if batch.facts:
            return self._send([batch])[id(batch)]
        values: Mapping[str, Any]
        if batch.plain and batch.seq:
            lease = batch.lease
            statement = self._append
            values = {
                "rid": lease.rid, "seq": batch.seq, "epoch": lease.epoch, "data": batch.data, "owner": lease.worker,
            }  # fmt: skip
        else:
            now = self._times.now()
            single = Single(self._sql, batch, batch.seq - 1 if batch.seq else 0, now)
            if wakes(batch, now) and self._teller.may_tell():
                single.notify(self._teller.channel, self._teller.token)
            statement, values = single.statement, single.values

        def attempt(again: bool) -> Result:
            if again and self._would_double(batch):
                return None
            try:
                result = self._link.run(statement, values)
            except Refused as refused:
                if not _is_own(refused):
                    raise
                return self._own_result(batch, refused, doubtful=again)
            # An insert says how many rows it inserted, the others select the run's number if the gate was open.
            if not result.command_tuples:
                return self._why(batch, doubtful=again)
            if isinstance(batch.change, Start):
                batch.lease.rid = int(result.get_value(0, 0) or 0)
            return None

        return self._link.patiently(attempt)

    def _would_double(self, batch: Batch) -> bool:
        """A batch that has no row to collide with is on record already."""
        return not batch.seq and not isinstance(batch.change, Start) and self._doubt.stored(batch)

    # -- one wave

    def _send(self, batches: Sequence[Batch], tries: int = 0) -> dict[int, Result]:
        """Write a wave; the result of each batch by its `id`."""
        if not batches:
            return {}
        parts = self._parts(batches)
        if batches[0].facts and not batches[0].seq:
            return {id(batches[0]): self._tell(batches[0], parts)}
        outcome = self._link.patiently(lambda again: _AGAIN if again else self._attempt(parts))
        if isinstance(outcome, _Again):
            return self._send_again(batches, tries + 1)
        if isinstance(outcome, Refused):
            return self._send_without(batches, parts, outcome, tries)
        written: set[int] = set()
        for part, result in zip(parts, outcome, strict=True):
            written |= part.accepted(result)
        return {id(batch): None if id(batch) in written else self._why(batch, doubtful=tries > 0) for batch in batches}

    def _attempt(self, parts: Sequence[Part]) -> list[PGresult] | Refused:
        try:
            if len(parts) == 1:
                return [self._link.run(parts[0].statement, parts[0].values)]
            return self._link.run_all([(part.statement, part.values) for part in parts])
        except Refused as refused:
            if _is_own(refused) and refused.index < len(parts):
                return refused
            raise

    def _tell(self, batch: Batch, parts: Sequence[Part]) -> Result:
        """A batch without a row of its own that tells other runs something: they may take it before we are back from a
        lost connection, so that nothing could be looked for.
        """
        group = [(part.statement, part.values) for part in parts]
        group.append((self._sql.statement("transaction_number"), {}))

        def attempt(_: bool) -> list[PGresult] | Refused:
            try:
                return self._doubt.transact(group)
            except Refused as refused:
                if not _is_own(refused):
                    raise
                return refused

        outcome = self._link.patiently(attempt)
        if isinstance(outcome, Refused):
            return _own_error(batch, outcome)
        written = any(part.accepted(result) for part, result in zip(parts, outcome[:-1], strict=True))
        return None if written else self._why(batch, doubtful=False)

    def _send_again(self, batches: Sequence[Batch], tries: int) -> dict[int, Result]:
        """The connection was lost: the same again, except for what waits for nobody and would be there twice."""
        if tries > TRIES:
            raise JournalError(
                f"PostgreSQL at {self._link.address.place} lost the connection {tries} times while writing the same "
                "rows: see the server's log"
            )
        done = {id(batch) for batch in batches if self._would_double(batch)}
        rest = [batch for batch in batches if id(batch) not in done]
        return dict.fromkeys(done) | self._send(rest, tries)

    def _send_without(
        self, batches: Sequence[Batch], parts: Sequence[Part], refused: Refused, tries: int
    ) -> dict[int, Result]:
        """One statement was refused and took the whole wave with it: find out whose fault it is, write the others."""
        if tries:
            # Whoever was writing these rows has ended: they are there, or not.
            there = self._doubt.stored_rows(batches)
            if there:
                rest = [batch for batch in batches if id(batch) not in there]
                return dict.fromkeys(there) | self._send(rest, tries)
        guilty = parts[refused.index].batches
        if len(guilty) == 1:
            result = self._own_result(guilty[0], refused, doubtful=tries > 0)
            rest = [batch for batch in batches if batch is not guilty[0]]
            return {id(guilty[0]): result} | self._send(rest, tries)
        leases = {id(batch.lease): None for batch in guilty}
        if len(leases) == 1:
            return self._send_singly(batches, guilty, tries)
        half = set(list(leases)[: len(leases) // 2])
        one = [batch for batch in batches if id(batch.lease) in half]
        two = [batch for batch in batches if id(batch.lease) not in half]
        return self._send(one, tries) | self._send(two, tries)

    def _send_singly(self, batches: Sequence[Batch], chain: Sequence[Batch], tries: int) -> dict[int, Result]:
        ids = {id(batch) for batch in chain}
        results = self._send([batch for batch in batches if id(batch) not in ids], tries)
        error: JournalError | None = None
        for batch in chain:
            if error is None:
                results |= self._send([batch], tries)
                error = results[id(batch)]
            else:
                results[id(batch)] = error
        return results

    def _parts(self, batches: Sequence[Batch]) -> list[Part]:
        """The statements that write these batches. Hot rows are locked in order of rid."""
        chains: list[Batch] = []
        starts: list[Batch] = []
        ends: list[Batch] = []
        singles: list[Batch] = []
        for batch in batches:
            if _chains(batch):
                chains.append(batch)
            elif has_extras(batch) or batch.facts:
                singles.append(batch)
            elif isinstance(batch.change, Start):
                starts.append(batch)
            elif isinstance(batch.change, End):
                ends.append(batch)
            else:
                singles.append(batch)
        # A group of one costs more than the batch alone.
        singles += [
            alike.pop()
            for alike in (starts, ends, chains)
            if len(alike) == 1 and (alike is not chains or has_extras(alike[0]))
        ]
        now = self._times.now()
        parts: list[Part] = []
        if starts:
            runs = [batch.change.run for batch in starts if isinstance(batch.change, Start)]
            parts.append(Starts(self._sql.statement("batch_start_many"), start_values(starts, runs), starts))
        if chains:
            parts.append(Chains(self._sql.statement("batch_append_many"), append_values(chains), chains))
            if any(has_extras(batch) for batch in chains):
                parts.append(Part(self._sql.statement("batch_extras_many"), extras_values(chains), chains))
        ones = [
            Single(self._sql, batch, batch.seq - 1 if batch.seq else 0, now)
            for batch in sorted(singles, key=lambda batch: batch.lease.rid or 0)
        ]
        parts.extend(One(one.statement, one.values, [one.batch]) for one in ones)
        if ends:
            ends.sort(key=lambda batch: batch.lease.rid or 0)
            reasons = [batch.change for batch in ends if isinstance(batch.change, End)]
            parts.append(Ends(self._sql.statement("batch_end_many"), end_values(ends, reasons, now), ends))
        if any(wakes(batch, now) for batch in batches) and self._teller.may_tell():
            channel, token = self._teller.channel, self._teller.token
            if len(parts) == 1 and ones:
                ones[0].notify(channel, token)
            else:
                values = {"channel": channel, "token": token}
                parts.append(Part(self._sql.statement("batch_notify"), values, ()))
        if batches[0].facts:
            wanted = {"rid": ones[0].own, "ids": ones[0].values["fact_ids"]}
            parts.insert(0, Part(self._sql.statement("batch_lock"), wanted, batches))
        return parts

    def _own_result(self, batch: Batch, refused: Refused, *, doubtful: bool) -> Result:
        """The batch's own fault, unless what it collides with is itself, from an earlier try."""
        if (doubtful or refused.sqlstate == _TAKEN) and self._doubt.stored(batch):
            return None
        return _own_error(batch, refused)

    def _why(self, batch: Batch, *, doubtful: bool) -> Result:
        """The statement found no open gate."""
        if doubtful and self._doubt.stored(batch):
            return None
        change = batch.change
        if isinstance(change, Start):
            return RunExists(f"run {change.run.id} is on record already: choose another id")
        seen = change.inbox_seen if isinstance(change, Park | Unpark) else None
        if seen is not None and self._doubt.inbox_grew(batch, seen):
            return InboxChanged(f"the inbox of run {batch.lease.run_id} holds something new: read it and decide again")
        return _fenced(batch)


def _chains(batch: Batch) -> bool:
    """It only brings records and what hangs on them, so that it can follow another of its kind in one statement."""
    return batch.change is None and batch.seq > 0 and not (batch.rows or batch.facts)


def _wave(batches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """The batches that can go in one transaction, and those that come after it."""
    if batches[0].facts:
        return [batches[0]], list(batches[1:])
    wave: list[Batch] = []
    left: list[Batch] = []
    open_chains: dict[int, bool] = {}
    ids: set[str] = set()
    size = 0
    for batch in batches:
        lease = id(batch.lease)
        chains = _chains(batch)
        started = batch.change.run.id if isinstance(batch.change, Start) else None
        fits = (
            not batch.facts and open_chains.get(lease, True) and (chains or lease not in open_chains)
            and started not in ids and (not wave or size + len(batch.data) <= WAVE_BYTES)
        )  # fmt: skip
        if fits:
            wave.append(batch)
            size += len(batch.data)
            open_chains[lease] = chains
            if started is not None:
                ids.add(started)
        else:
            left.append(batch)
            open_chains[lease] = False
    return wave, left


def _unfit(batch: Batch) -> JournalError | None:
    """What can be said of the batch without asking the server."""
    lease = batch.lease
    if len(batch.data) > MAX_ROW_BYTES:
        size = f"{len(batch.data)} bytes, more than {MAX_ROW_BYTES}"
        return JournalError(f"records of run {lease.run_id} are too large ({size}): return less, or a reference to it")
    if lease.rid is None and not isinstance(batch.change, Start):
        return _fenced(batch)
    return None


def _fenced(batch: Batch) -> Fenced:
    lease = batch.lease
    return Fenced(f"run {lease.run_id} is not held by life {lease.epoch} of {lease.worker}: nothing was written")


def _is_own(refused: Refused) -> bool:
    """The refusal is a batch's own fault: a taken row, a value that the database cannot hold, a blob that is gone."""
    state = refused.sqlstate
    return state.startswith(("22", "23", "21", "54"))


def _own_error(batch: Batch, refused: Refused) -> JournalError:
    if refused.sqlstate == _TAKEN:
        return _fenced(batch)
    if refused.sqlstate == "23503":
        return JournalError(f"a large value of run {batch.lease.run_id} is gone: put it again before its record")
    return JournalError(
        f"PostgreSQL cannot hold what run {batch.lease.run_id} writes: {refused.reason} ({refused.sqlstate})"
    )
