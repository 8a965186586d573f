"""Numbers, text, bytes, times and paths."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from base64 import b64decode, b64encode
from decimal import Decimal
from typing import TYPE_CHECKING

from stepwell.serde._reader import Reader
from stepwell.serde._tables import Node, reads, writes, writes_family
from stepwell.serde._writer import Writer, has_surrogates, tagged

if TYPE_CHECKING:
    from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

_HUGE = 12_000
"""Bits. Longer ints are written in hexadecimal: the interpreter refuses to convert more than 4,300 decimal digits."""


@writes(type(None), bool)
def _write_same(writer: Writer, value: object) -> object:
    return value


@writes(int)
def _write_int(writer: Writer, value: int) -> object:
    return value if value.bit_length() <= _HUGE else tagged("int", hex(value))


@reads("int")
def _read_int(reader: Reader, node: Node) -> int:
    return int(node["v"], 16)


@writes(float)
def _write_float(writer: Writer, value: float) -> object:
    return value if value - value == 0.0 else tagged("float", repr(value))


@reads("float")
def _read_float(reader: Reader, node: Node) -> float:
    return float(node["v"])


@writes(str)
def _write_str(writer: Writer, value: str) -> object:
    if not has_surrogates(value):
        return value
    # Lone surrogates (file names that are not UTF-8 come as such) have no form in JSON as the stores keep it.
    return tagged("str", b64encode(value.encode("utf-8", "surrogatepass")).decode())


@reads("str")
def _read_str(reader: Reader, node: Node) -> str:
    return b64decode(node["v"]).decode("utf-8", "surrogatepass")


@writes(bytes, bytearray)
def _write_bytes(writer: Writer, value: bytes | bytearray) -> object:
    return tagged(type(value).__name__, b64encode(value).decode())


@reads("bytes")
def _read_bytes(reader: Reader, node: Node) -> bytes:
    return b64decode(node["v"])


@reads("bytearray")
def _read_bytearray(reader: Reader, node: Node) -> bytearray:
    return bytearray(b64decode(node["v"]))


@writes(Decimal)
def _write_decimal(writer: Writer, value: Decimal) -> object:
    return tagged("decimal", str(value))


@reads("decimal")
def _read_decimal(reader: Reader, node: Node) -> Decimal:
    return Decimal(node["v"])


@writes(uuid.UUID)
def _write_uuid(writer: Writer, value: uuid.UUID) -> object:
    return tagged("uuid", str(value))


@reads("uuid")
def _read_uuid(reader: Reader, node: Node) -> uuid.UUID:
    return uuid.UUID(node["v"])


@writes(dt.date)
def _write_date(writer: Writer, value: dt.date) -> object:
    return tagged("date", value.isoformat())


@reads("date")
def _read_date(reader: Reader, node: Node) -> dt.date:
    return dt.date.fromisoformat(node["v"])


@writes(dt.timedelta)
def _write_timedelta(writer: Writer, value: dt.timedelta) -> object:
    return tagged("timedelta", [value.days, value.seconds, value.microseconds])


@reads("timedelta")
def _read_timedelta(reader: Reader, node: Node) -> dt.timedelta:
    days, seconds, microseconds = node["v"]
    return dt.timedelta(days, seconds, microseconds)


@writes(dt.datetime, dt.time)
def _write_clock(writer: Writer, value: dt.datetime | dt.time) -> object:
    """ISO 8601 with the offset, and beside it what that leaves out: fold, the zone's key, a fixed offset's own name."""
    more: dict[str, object] = {"fold": 1} if value.fold else {}
    zone = value.tzinfo
    zoneinfo = sys.modules.get("zoneinfo")
    if zone is None:
        pass
    elif type(zone) is dt.timezone:
        name = zone.tzname(None)
        if name != dt.timezone(zone.utcoffset(None)).tzname(None):
            more["name"] = name
    elif zoneinfo is not None and isinstance(zone, zoneinfo.ZoneInfo) and zone.key is not None:
        more["zone"] = zone.key
    elif value.utcoffset() is None:
        raise writer.refused(zone)
    offset = value.utcoffset()
    if offset is not None and offset.microseconds:
        more["offset"] = offset // dt.timedelta(microseconds=1)  # CPython reads `+00:00:00.000001` as UTC
    return tagged(type(value).__name__, value.isoformat(), **more)


@reads("datetime")
def _read_datetime(reader: Reader, node: Node) -> dt.datetime:
    there = dt.datetime.fromisoformat(node["v"])
    fold = node.get("fold", 0)
    if "zone" in node:
        zone = _zone(node["zone"])
        here = there.replace(tzinfo=zone, fold=fold)
        # The zone's rules may have changed since: then the instant stands, and not the reading of the clock.
        return here if here.utcoffset() == there.utcoffset() else there.astimezone(zone)
    return there.replace(tzinfo=_fixed(there, node), fold=fold)


@reads("time")
def _read_time(reader: Reader, node: Node) -> dt.time:
    there = dt.time.fromisoformat(node["v"])
    zone = _zone(node["zone"]) if "zone" in node else _fixed(there, node)
    return there.replace(tzinfo=zone, fold=node.get("fold", 0))


def _fixed(there: dt.datetime | dt.time, node: Node) -> dt.tzinfo | None:
    offset = dt.timedelta(microseconds=node["offset"]) if "offset" in node else there.utcoffset()
    if offset is None or not ("name" in node or "offset" in node):
        return there.tzinfo
    return dt.timezone(offset, node["name"]) if "name" in node else dt.timezone(offset)


def _zone(key: str) -> dt.tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise LookupError(f"time zone {key!r} is not known here; pip install tzdata") from error


def _path_tag(cls: type) -> str | None:
    """The tag for a class of pathlib, which is not imported for it: without it there is no path to write."""
    pathlib = sys.modules.get("pathlib")
    if pathlib is None:
        return None
    if cls in (pathlib.PosixPath, pathlib.WindowsPath):
        return "path"
    return {pathlib.PurePosixPath: "posixpath", pathlib.PureWindowsPath: "windowspath"}.get(cls)


@writes_family(50, lambda cls: _path_tag(cls) is not None)
def _write_path(writer: Writer, value: PurePath) -> object:
    return tagged(str(_path_tag(type(value))), writer.child("path", str(value)))


@reads("path")
def _read_path(reader: Reader, node: Node) -> Path:
    from pathlib import Path

    return Path(reader.value(node["v"]))


@reads("posixpath")
def _read_posixpath(reader: Reader, node: Node) -> PurePosixPath:
    from pathlib import PurePosixPath

    return PurePosixPath(reader.value(node["v"]))


@reads("windowspath")
def _read_windowspath(reader: Reader, node: Node) -> PureWindowsPath:
    from pathlib import PureWindowsPath

    return PureWindowsPath(reader.value(node["v"]))
