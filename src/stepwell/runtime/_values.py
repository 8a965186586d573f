"""Values on their way into the journal and back: serializer, redaction, and large texts kept apart."""

from __future__ import annotations

import warnings
import zlib
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from stepwell.core import BlobRef, Failed
from stepwell.errors import (
    ApprovalRejected,
    CallbackExternalError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    ChildContextError,
    DurableOperationError,
    InvokeError,
    NestedStepError,
    PayloadError,
    RetryableSerDesError,
    SerDesError,
    StepError,
    WaitForConditionError,
)
from stepwell.serde import capture, rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.core import Kind, Payload, Wanted
    from stepwell.errors import ErrorRecord
    from stepwell.journal import Store, Writer
    from stepwell.runtime._api import Codec
    from stepwell.runtime._life import Life

BLOB_FROM = 64 * 1024
"""Texts of more bytes than this are kept apart, once, by content."""
CHUNK = 1024 * 1024
LARGEST = 1 << 30

OPERATION_ERRORS: dict[Kind, type[DurableOperationError]] = {
    "wait_for_condition": WaitForConditionError,
    "child": ChildContextError,
    "map": ChildContextError,
    "parallel": ChildContextError,
    "map_item": ChildContextError,
    "parallel_branch": ChildContextError,
    "invoke": InvokeError,
    "start": InvokeError,
    "signal": DurableOperationError,
}
"""What a failed operation raises; every other kind a `StepError`."""


def pack(life: Life, codec: Codec, value: Any, key: str, place: str) -> tuple[Payload, Any]:
    """A value to its payload, and to what its caller gets: the payload read back.

    Raises:
        SerDesError: it cannot be recorded.
        PayloadError: it is larger than 1 GiB.
    """
    text = codec.encode(value, place)
    if life.redactor.active and (masked := life.redactor.redact_json(text)) != text:
        text = masked
        if key not in life.warned:
            life.warned.add(key)
            warnings.warn(f"a secret in the value of '{key}' was masked", RuntimeWarning, stacklevel=2)
    return kept(life, text), codec.decode(text, key)


def kept(life: Life, text: str) -> Payload:
    """As `keep`, for a run that is under way: a store that fails ends the life."""
    with life.own_store():
        return keep(life, text)


def keep(life: Life, text: str) -> Payload:
    """A text as a record holds it: itself, or where it lies."""
    if life.replay_only:
        return text  # a replay without executing records nothing
    payload, digest = keep_text(life.store, life.writer, text)
    if digest is not None:
        life.line.ride((), (), (digest,))
    return payload


def keep_text(store: Store, writer: Writer, text: str) -> tuple[Payload, bytes | None]:
    """A text as a record holds it, and the hash of what the record must refer to.

    Raises:
        PayloadError: it is larger than 1 GiB.
    """
    if len(text) <= BLOB_FROM // 4:
        return text, None
    data = text.encode()
    if len(data) <= BLOB_FROM:
        return text, None
    if len(data) > LARGEST:
        message = (
            f"a value of {len(data):,} bytes cannot be recorded (1 GiB at most); store it and return where it lies"
        )
        raise PayloadError(message)
    digest = blake2b(data, digest_size=32).digest()
    with writer.exclusive():
        store.blob_put(digest, _chunks(zlib.compress(data, 1)))
    return BlobRef(digest, len(data)), digest


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def text_of(life: Life, payload: Payload, key: str) -> str:
    """The text of a payload.

    Raises:
        PayloadError: the store has lost it.
    """
    if type(payload) is str:
        return payload
    if payload is None:
        return "null"
    assert isinstance(payload, BlobRef)
    packed = life.store.blob_get(payload.hash)
    if packed is None:
        message = f"the value of '{key}' ({payload.size:,} bytes) is not in the store any more"
        raise PayloadError(message)
    return zlib.decompress(packed).decode()


def unpack(life: Life, codec: Codec, payload: Payload, key: str) -> Any:
    """A recorded payload back to its value. Raises `PayloadError` if that cannot be."""
    if type(payload) is str:
        return codec.decode(payload, key)
    with life.own_store():
        text = text_of(life, payload, key)
    return codec.decode(text, key)


def failed(life: Life, error: BaseException) -> Failed:
    """An exception in its form for the record, secrets masked."""
    record = capture(error)
    if life.redactor.active:
        record = life.redactor.redact_error(record)
    # A value that cannot be recorded, or code that cannot be right, is not tried again (durable.md §5.2, §5.5).
    final = isinstance(error, NestedStepError) or (
        isinstance(error, SerDesError) and not isinstance(error, RetryableSerDesError)
    )
    return Failed(record, life.store.now(), error, final)


_CALLBACK_ERRORS = {
    f"stepwell.errors:{cls.__name__}": cls
    for cls in (ApprovalRejected, CallbackExternalError, CallbackTimeoutError, CallbackSubmitterError)
}


def _operation_error(life: Life, want: Wanted, error: ErrorRecord) -> type[DurableOperationError]:
    if want.kind == "wait_for_callback":
        # What its callback and its submitter raise comes out as it is.
        return _CALLBACK_ERRORS.get(error.classes[0] if error.classes else "", ChildContextError)
    if want.kind != "callback":
        return OPERATION_ERRORS.get(want.kind, StepError)
    op = life.run.ops.get(want.key)
    if op is not None and op.how == "timed_out":
        return CallbackTimeoutError
    return ApprovalRejected if want.sub_type == "Approval" else CallbackExternalError


def raised(life: Life, want: Wanted, error: ErrorRecord, attempts: int) -> BaseException:
    """The exception that a failed operation gives to its caller (durable.md §14)."""
    operation = _operation_error(life, want, error)
    return rebuild(error, operation, key=want.key, attempts=attempts, run_id=life.run.id)
