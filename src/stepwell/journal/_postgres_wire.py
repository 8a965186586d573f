"""Statements as the server takes them: numbered parameters, each with a type, in PostgreSQL's binary format.

The store speaks libpq's own prepared statements (`psycopg.pq`) where it writes: a step costs one such statement, and
psycopg's cursors would take a tenth of its time. In the ``.sql`` files a parameter is ``%(name)s``; its type belongs to
its *name*, one for all queries, in the table `_TYPES`.
"""

from __future__ import annotations

import re
import struct
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Encoder = "Callable[[Any], bytes]"

_INT4 = struct.Struct("!i").pack
_INT8 = struct.Struct("!q").pack
_FLOAT8 = struct.Struct("!d").pack
_NULL = _INT4(-1)


def _text(value: str) -> bytes:
    # Half a surrogate pair goes through as it is, and the server refuses it: the statement fails, not the process.
    return value.encode("utf-8", "surrogatepass")


def _bool(value: bool) -> bytes:
    return b"\1" if value else b"\0"


def _bytes(value: bytes) -> bytes:
    return value


def _items(oid: int, encode: Callable[[Any], bytes]) -> Callable[[Sequence[Any]], bytes]:
    """An array of one dimension; None is NULL."""

    def items(values: Sequence[Any]) -> bytes:
        if not values:
            return struct.pack("!3i", 0, 0, oid)
        parts = [struct.pack("!5i", 1, None in values, oid, len(values), 1)]
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                data = encode(value)
                parts.append(_INT4(len(data)))
                parts.append(data)
        return b"".join(parts)

    return items


def _numbers(oid: int, code: str, size: int) -> Callable[[Sequence[Any]], bytes]:
    """An array of numbers of ``size`` bytes, in one call where no NULL is: most of a group's columns are such."""
    one = struct.Struct(f"!{code}").pack
    slow = _items(oid, one)

    def numbers(values: Sequence[Any]) -> bytes:
        n = len(values)
        if not n or None in values:
            return slow(values)
        pairs = chain.from_iterable((size, value) for value in values)
        return struct.pack("!5i" + f"i{code}" * n, 1, 0, oid, n, 1, *pairs)

    return numbers


class _Type:
    def __init__(self, oid: int, encode: Callable[[Any], bytes]) -> None:
        self.oid = oid
        self.encode = encode


_bool_ = _Type(16, _bool)
_bytea = _Type(17, _bytes)
_int8 = _Type(20, _INT8)
_int4 = _Type(23, _INT4)
_text_ = _Type(25, _text)
_float8 = _Type(701, _FLOAT8)
_byteas = _Type(1001, _items(17, _bytes))
_int4s = _Type(1007, _numbers(23, "i", 4))
_texts = _Type(1009, _items(25, _text))
_int8s = _Type(1016, _numbers(20, "q", 8))
_float8s = _Type(1022, _numbers(701, "d", 8))

_NAMES: dict[_Type, str] = {
    _bool_: "notify release",
    _bytea: "claim_after claim_before data hash input_hash",
    _int8: "after at created_at deadline limit now number rid size txid wake_at",
    _int4: "before epoch i inbox seen_epoch seq",
    _text_: "channel claim_kind door function id info kind key owner parent queue reason seen_owner status target text "
    "token waiting_for worker",
    _float8: "ttl",
    _byteas: "blobs datas fact_datas input_hashes note_datas row_datas",
    _int4s: "blob_epochs blob_seqs epochs firsts note_epochs note_seqs numbers seqs taken_epochs taken_seqs",
    _int8s: "blob_rids created_ats deadlines fact_ats note_ats note_rids rids taken taken_rids",
    _texts: "doors fact_ids fact_kinds functions ids note_keys note_kinds owners parents queues reasons row_doors "
    "row_keys row_kinds statuses tag_lists tags targets workers",
    _float8s: "ttls",
}
_TYPES = {name: kind for kind, names in _NAMES.items() for name in names.split()}

_PARAMETER = re.compile(r"%\((\w+)\)s")


class Statement:
    """One SQL statement: its text with numbered parameters, and how to encode them."""

    __slots__ = ("_encoders", "_parameters", "formats", "key", "name", "sql", "types")

    def __init__(self, name: str, sql: str) -> None:
        self.name = name
        self.key = name.encode()
        numbers: dict[str, int] = {}
        text = _PARAMETER.sub(lambda match: f"${numbers.setdefault(match[1], len(numbers) + 1)}", sql)
        self.sql = text.encode()
        self._parameters = tuple(numbers)
        kinds = [_TYPES[parameter] for parameter in numbers]
        self._encoders = tuple((parameter, kind.encode) for parameter, kind in zip(numbers, kinds, strict=True))
        self.types = [kind.oid for kind in kinds]
        self.formats = [1] * len(kinds)

    def __repr__(self) -> str:
        return f"<Statement {self.name}>"

    def bind(self, values: Mapping[str, Any]) -> list[bytes | None]:
        """The parameters in order, encoded; more values than the statement needs may be given."""
        bound: list[bytes | None] = []
        for parameter, encode in self._encoders:
            value = values[parameter]
            bound.append(None if value is None else encode(value))
        return bound


def array_literal(values: Sequence[str]) -> str:
    """A text array as one text, for an array of arrays of unlike lengths, which PostgreSQL does not have."""
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return "{" + ",".join(quoted) + "}"
