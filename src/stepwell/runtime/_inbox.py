"""Facts from outside, as they lie in a run's inbox, and the records that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stepwell.core import (
    AnyRecord,
    BlobRef,
    CallbackBeat,
    CallbackFailed,
    CallbackSucceeded,
    CancelRequested,
    InvokeFailed,
    InvokeSucceeded,
    Payload,
    SignalReceived,
)
from stepwell.errors import ErrorRecord

if TYPE_CHECKING:
    from stepwell.journal import Fact
    from stepwell.serde import Redactor


class CancelFact(msgspec.Struct, frozen=True):
    """Somebody asks for the end of a run."""

    reason: str | None = None
    by: str | None = None


class AnswerFact(msgspec.Struct, frozen=True):
    """Somebody answered the callback at ``key``: with ``error``, else with ``payload``."""

    key: str
    payload: Payload = None
    error: ErrorRecord | None = None
    by: str | None = None


class BeatFact(msgspec.Struct, frozen=True):
    """Whoever is to answer the callback at ``key`` is still at it."""

    key: str


class ChildFact(msgspec.Struct, frozen=True):
    """The run ``child``, invoked at ``key``, has ended. ``how``: succeeded, failed, timed_out, cancelled."""

    key: str
    child: str
    how: str
    payload: Payload = None
    error: ErrorRecord | None = None


class SignalFact(msgspec.Struct, frozen=True):
    """A signal."""

    name: str
    payload: Payload
    by: str | None = None


CANCEL, ANSWER, BEAT, CHILD, SIGNAL = "cancel", "answer", "beat", "child", "signal"
_TYPES: dict[str, type[msgspec.Struct]] = {
    CANCEL: CancelFact, ANSWER: AnswerFact, BEAT: BeatFact, CHILD: ChildFact, SIGNAL: SignalFact,
}  # fmt: skip
encode_fact = msgspec.msgpack.Encoder().encode
"""The data of a fact."""


def encode_cancel(reason: str | None, by: str | None) -> bytes:
    """The data of a fact of kind ``cancel``."""
    return encode_fact(CancelFact(reason, by))


def decode_fact(fact: Fact, redactor: Redactor | None = None) -> AnyRecord:
    """The record that a fact becomes when the holder takes it; secrets of the run are masked."""
    kind = _TYPES.get(fact.kind)
    if kind is None:
        message = f"fact of unknown kind {fact.kind!r}: written by a newer version"
        raise ValueError(message)
    told = msgspec.msgpack.decode(fact.data, type=kind)
    if redactor is not None and redactor.active:
        told = _masked(told, redactor)
    match told:
        case CancelFact(reason=reason, by=by):
            return CancelRequested(fact.at, reason, by)
        case AnswerFact(key=key, payload=payload, error=None, by=by):
            return CallbackSucceeded(fact.at, key, payload, by)
        case AnswerFact(key=key, error=error, by=by):
            return CallbackFailed(fact.at, key, error or ErrorRecord("", ""), by=by)
        case BeatFact(key=key):
            return CallbackBeat(fact.at, key)
        case ChildFact(key=key, payload=payload, error=None):
            return InvokeSucceeded(fact.at, key, payload)
        case ChildFact(key=key, how=how, error=error):
            return InvokeFailed(fact.at, key, error or ErrorRecord("", ""), how)
        case SignalFact(name=name, payload=payload, by=by):
            return SignalReceived(fact.at, name, payload, by)
        case _:
            raise AssertionError(told)


def _masked(told: msgspec.Struct, redactor: Redactor) -> msgspec.Struct:
    changes: dict[str, object] = {}
    payload, error = getattr(told, "payload", None), getattr(told, "error", None)
    if isinstance(payload, str):
        changes["payload"] = redactor.redact_json(payload)
    if isinstance(error, ErrorRecord):
        changes["error"] = redactor.redact_error(error)
    return msgspec.structs.replace(told, **changes) if changes else told


def blobs_of(record: AnyRecord) -> tuple[bytes, ...]:
    """Hashes of the large values that a record refers to."""
    payload = getattr(record, "payload", None)
    return (payload.hash,) if isinstance(payload, BlobRef) else ()
