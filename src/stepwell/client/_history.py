"""A run's journal as an AWS-shaped history, read in pages: no more of it in memory than one page and what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from stepwell.client._outcome import Reader
from stepwell.client._projection import Projection
from stepwell.core import decode_records
from stepwell.durable._codec import shown_text
from stepwell.errors import Corrupt, PayloadError
from stepwell.runtime._values import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.core import Payload
    from stepwell.journal import RunRow, Store

PAGE = 500
"""Rows of the journal that are read at a time."""


def aws_events(store: Store, row: RunRow, *, include_data: bool = True) -> Iterator[dict[str, Any]]:
    """The events of a run in order of commit, numbered from 1 without gaps (durable.md §18).

    Times are aware datetimes. Payloads are the recorded texts, secrets masked; one that the store has lost shows as
    ``Truncated``.

    Args:
        store: where the run is on record.
        row: the run.
        include_data: False leaves every ``Payload`` out.

    Raises:
        Corrupt: the journal is damaged; the text names the row.
    """
    reader = cast("Any", Reader(store))

    def read(payload: Payload) -> str | None:
        if payload is None:
            return None
        try:
            return shown_text(text_of(reader, payload, "value"))
        except PayloadError as error:
            raise LookupError from error

    projection, after = Projection(row.id, read, include_data=include_data), 0
    while page := store.record_load(row.rid, after=after, limit=PAGE):
        for entry in page:
            after = entry.seq
            try:
                for record in decode_records(entry.data):
                    yield from projection.events(record)
            except (msgspec.MsgspecError, KeyError) as error:
                message = f"row {after} of run {row.id} cannot be read: {error}"
                raise Corrupt(message) from error
