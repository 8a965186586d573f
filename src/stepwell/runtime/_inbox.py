"""Facts from outside, as they lie in a run's inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stepwell.core import AnyRecord, CancelRequested

if TYPE_CHECKING:
    from stepwell.journal import Fact


class CancelFact(msgspec.Struct, frozen=True):
    """Somebody asks for the end of a run."""

    reason: str | None = None
    by: str | None = None


CANCEL = "cancel"


def encode_cancel(reason: str | None, by: str | None) -> bytes:
    """The data of a fact of kind ``cancel``."""
    return msgspec.msgpack.encode(CancelFact(reason, by))


def decode_fact(fact: Fact) -> AnyRecord:
    """The record that a fact becomes when the holder takes it."""
    if fact.kind == CANCEL:
        cancel = msgspec.msgpack.decode(fact.data, type=CancelFact)
        return CancelRequested(fact.at, cancel.reason, cancel.by)
    message = f"fact of unknown kind {fact.kind!r}: written by a newer version"
    raise ValueError(message)
