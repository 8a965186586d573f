"""Keys: where in a run an operation stands. Names, never positions (durable.md §3.1)."""

from __future__ import annotations

from hashlib import blake2b

MAX_NAME = 256
"""Longest name of an operation, in characters."""

_ESCAPED = {ord(c): f"%{ord(c):02X}" for c in "%/#[]"} | {c: f"%{c:02X}" for c in (*range(0x20), 0x7F)}
_SHARDS = 4096


def label(name: str) -> str:
    """The name as it stands in a key: ``% / # [ ]`` and control characters percent-encoded."""
    return name if name.isidentifier() else name.translate(_ESCAPED)


def child_key(parent: str, text: str, ordinal: int) -> str:
    """Key of the ``ordinal``-th operation (from 1) labelled ``text`` in the scope ``parent`` ("" = the run)."""
    own = text if ordinal == 1 else f"{text}#{ordinal}"
    if parent:
        return f"{parent}/{own}"
    return "%75ndo" if own == "undo" else own  # what is below "undo/" is what was undone (durable.md §5.6)


def item_key(batch: str, index: int) -> str:
    """Key of branch ``index`` of a map or parallel."""
    return f"{batch}[{index}]"


def named_item_key(batch: str, name: str) -> str:
    """Key of the map item that the user's ``item_key`` calls ``name``."""
    return f"{batch}[key={label(name)}]"


def parent_of(key: str) -> str:
    """Key of the scope that holds ``key``; "" for the run itself."""
    if key.endswith("]"):
        return key[: key.rindex("[")]
    return key[: key.rindex("/")] if "/" in key else ""


def operation_id(key: str) -> str:
    """An operation's id: equal in every run (first 64 hex digits of BLAKE2b over ``stepwell:`` + key)."""
    return blake2b(f"stepwell:{key}".encode(), digest_size=32).hexdigest()


def idempotency_key(run_id: str, key: str) -> str:
    """A key for other people's interfaces: equal for all attempts of one step of one run."""
    return f"{run_id}:{operation_id(key)[:32]}"


def shard_of(run_id: str) -> int:
    """The shard of a run, 0 to 4095, from its id alone, so that runs can be spread over stores later."""
    return int.from_bytes(blake2b(run_id.encode(), digest_size=2).digest(), "big") % _SHARDS
