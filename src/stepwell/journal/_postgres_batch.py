"""A batch as parameters of statements, and the statements that a group of batches needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.journal._api import End, Park, Release, Start, Unpark
from stepwell.journal._postgres_wire import array_literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.journal._api import Batch, NewRun, Note, Outgoing
    from stepwell.journal._postgres_schema import Sql

Values = dict[str, Any]


def storable(text: str | None) -> str | None:
    """Text for people, without what PostgreSQL's text cannot hold: NUL and halves of surrogate pairs become U+FFFD."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def possible(text: str) -> bool:
    """A row could have this text: PostgreSQL's has no NUL and no half of a surrogate pair."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= part <= "\udfff" for part in text))


def has_extras(batch: Batch) -> bool:
    """It brings more than records, a change of the hot row, and facts for others."""
    return bool(batch.notes or batch.inbox_taken or batch.blobs or batch.rows)


def wakes(batch: Batch, now: int) -> bool:
    """It makes a run claimable, ends one that somebody may wait for, or tells others something (ENGINE.md §7)."""
    if batch.facts:
        return True
    match batch.change:
        case Start(run=run):
            return not run.held
        case Park(release=True, wake_at=wake_at):
            return wake_at is not None and wake_at <= now
        case Release(status=status):
            return status != "blocked"
        case End():
            return True
        case _:
            return False


class Single:
    """One batch as one statement. ``before``: the seq of the row that must be there, 0 for none."""

    def __init__(self, sql: Sql, batch: Batch, before: int, now: int) -> None:
        lease, change = batch.lease, batch.change
        extras = has_extras(batch)
        self.batch = batch
        values: Values = {
            "rid": lease.rid, "seq": batch.seq, "epoch": lease.epoch, "owner": lease.worker, "data": batch.data,
            "before": before, "notify": False, "channel": None, "token": None,
        }  # fmt: skip
        gate = "append" if batch.seq else "hold"
        match change:
            case None:
                pass
            case Start(run=run):
                gate = "start"
                values.update(_start_values(run, lease.worker))
                values["tags"] = run.tags
            case Park(wake_at=wake_at, waiting_for=waiting_for, inbox_seen=seen, release=release):
                gate = "park"
                values.update(wake_at=wake_at, waiting_for=storable(waiting_for), inbox=seen, release=release)
            case Unpark(status=status, inbox_seen=known):
                gate = "set"
                values.update(status=status, reason=None, wake_at=None, release=False, inbox=known)
            case Release(status=status, reason=reason, wake_at=wake_at):
                gate = "set"
                values.update(status=status, reason=storable(reason), wake_at=wake_at, release=True, inbox=None)
            case End(status=end, reason=reason):
                gate = "end"
                values.update(status=end, reason=storable(reason), now=now)
        if extras:
            values.update(_extras(batch))
        if batch.facts:
            values.update(_facts(batch.facts), now=now)
        self.own = None if gate in ("append", "start") else lease.rid
        """The hot row that it changes or locks."""
        self.statement = sql.batch(gate, extras=extras, facts=bool(batch.facts))
        self.values = values

    def notify(self, channel: str, token: str) -> None:
        """Tell others in the same commit."""
        self.values.update(notify=True, channel=channel, token=token)


def _start_values(run: NewRun, worker: str) -> Values:
    return {
        "id": run.id, "function": run.function, "door": run.door, "input_hash": run.input_hash,
        "created_at": run.created_at, "queue": run.queue, "target": run.target, "parent": run.parent,
        "deadline": run.deadline, "ttl": run.ttl, "status": "running" if run.held else "pending",
        "owner": worker if run.held else None,
    }  # fmt: skip


def _note_values(notes: Sequence[Note]) -> Values:
    return {
        "note_keys": [storable(note.key) for note in notes],
        "note_kinds": [note.kind for note in notes],
        "note_ats": [note.at for note in notes],
        "note_datas": [note.data.encode("utf-8", "surrogatepass") for note in notes],
    }


def _extras(batch: Batch) -> Values:
    # A row that a batch names twice is what the batch says last.
    rows = list({(row.door, row.kind, row.key): row for row in batch.rows}.values())
    return {
        **_note_values(batch.notes),
        "taken": list(batch.inbox_taken),
        "blobs": list(batch.blobs),
        "row_doors": [row.door for row in rows],
        "row_kinds": [row.kind for row in rows],
        "row_keys": [row.key for row in rows],
        "row_datas": [row.data for row in rows],
    }


def _facts(facts: Sequence[Outgoing]) -> Values:
    there = [fact for fact in facts if possible(fact.run_id)]
    return {
        "fact_ids": [fact.run_id for fact in there],
        "fact_kinds": [fact.kind for fact in there],
        "fact_ats": [fact.at for fact in there],
        "fact_datas": [fact.data for fact in there],
    }


def note_values(batch: Batch) -> Values:
    """The batch's notes as columns."""
    return _note_values(batch.notes)


# -- groups of like batches, a column each


def append_values(batches: Sequence[Batch]) -> Values:
    """Batches of records, in order. A chain is what follows each other of one lease; its first row stands for it."""
    rids, seqs, epochs, datas, owners, firsts = [], [], [], [], [], []
    last: dict[int, tuple[int, int]] = {}
    for batch in batches:
        lease, seq = batch.lease, batch.seq
        first, before = last.get(id(lease), (seq, seq - 1))
        if seq != before + 1:
            first = seq
        last[id(lease)] = (first, seq)
        rids.append(lease.rid)
        seqs.append(seq)
        epochs.append(lease.epoch)
        datas.append(batch.data)
        owners.append(lease.worker)
        firsts.append(first)
    return {"rids": rids, "seqs": seqs, "epochs": epochs, "datas": datas, "owners": owners, "firsts": firsts}


def extras_values(batches: Sequence[Batch]) -> Values:
    """Notes, taken facts and references to blobs of batches of records, each with its batch's row."""
    notes = [(batch, note) for batch in batches for note in batch.notes]
    taken = [(batch, n) for batch in batches for n in batch.inbox_taken]
    blobs = [(batch, digest) for batch in batches for digest in batch.blobs]
    values = _note_values([note for _, note in notes])
    values["taken"] = [n for _, n in taken]
    values["blobs"] = [digest for _, digest in blobs]
    for name, owners in (("note", notes), ("taken", taken), ("blob", blobs)):
        values[f"{name}_rids"] = [pair[0].lease.rid for pair in owners]
        values[f"{name}_seqs"] = [pair[0].seq for pair in owners]
        values[f"{name}_epochs"] = [pair[0].lease.epoch for pair in owners]
    return values


_START_COLUMNS = {
    "id": "ids", "function": "functions", "door": "doors", "input_hash": "input_hashes", "created_at": "created_ats",
    "queue": "queues", "target": "targets", "parent": "parents", "deadline": "deadlines", "status": "statuses",
    "owner": "owners", "ttl": "ttls",
}  # fmt: skip


def start_values(batches: Sequence[Batch], runs: Sequence[NewRun]) -> Values:
    """Starts without extras; ``numbers`` is the place of each in the group."""
    columns: Values = {plural: [] for plural in _START_COLUMNS.values()}
    for batch, run in zip(batches, runs, strict=True):
        for name, value in _start_values(run, batch.lease.worker).items():
            columns[_START_COLUMNS[name]].append(value)
    columns["numbers"] = list(range(len(batches)))
    columns["tag_lists"] = [array_literal(run.tags) for run in runs]
    columns["epochs"] = [batch.lease.epoch for batch in batches]
    columns["seqs"] = [batch.seq for batch in batches]
    columns["datas"] = [batch.data for batch in batches]
    return columns


def end_values(batches: Sequence[Batch], ends: Sequence[End], now: int) -> Values:
    """Ends without extras."""
    return {
        "rids": [batch.lease.rid for batch in batches],
        "seqs": [batch.seq for batch in batches],
        "epochs": [batch.lease.epoch for batch in batches],
        "datas": [batch.data for batch in batches],
        "owners": [batch.lease.worker for batch in batches],
        "statuses": [end.status for end in ends],
        "reasons": [storable(end.reason) for end in ends],
        "now": now,
    }
