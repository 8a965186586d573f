"""SQL lives in commented ``.sql`` files; this module finds the named queries and the numbered migrations in them.

A file of queries holds any number of them, each as ``-- name: batch_insert``, comment lines that state the locks it
takes and the index it uses, and the SQL up to the next name. Only whole-line comments are taken out: ``--`` inside
a statement stays what it is.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
"""The schema that this version reads and writes: the number of the newest migration of every kind of store."""

_NAME = re.compile(r"^-- name: (\w+)[ \t]*$", re.MULTILINE)
_COMMENT_LINE = re.compile(r"^[ \t]*--.*\n?", re.MULTILINE)
_MIGRATION = re.compile(r"(\d{4})_(\w+)\.sql")


@cache
def queries(kind: str) -> Mapping[str, str]:
    """The named queries of ``sql/<kind>/*.sql``, without their comments and the final semicolon.

    Raises:
        ValueError: a name stands twice, or a file has SQL before its first name (a mistake in the package).
    """
    found: dict[str, str] = {}
    for file in _sql_files(_folder(kind)):
        head, *parts = _NAME.split(file.read_text("utf-8"))
        if _strip(head):
            raise ValueError(f"sql/{kind}/{file.name}: SQL before the first '-- name:' line")
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"sql/{kind}/{file.name}: query {name!r} stands twice")
            found[name] = _strip(text)
    return MappingProxyType(found)


@cache
def migrations(kind: str) -> list[tuple[int, str, str]]:
    """``(number, name, SQL)`` of ``sql/<kind>/migrations/<number>_<name>.sql``, in order, comments kept.

    Raises:
        ValueError: the numbers are not 1, 2, 3 … (a mistake in the package).
    """
    found: list[tuple[int, str, str]] = []
    for file in _sql_files(_folder(kind) / "migrations"):
        match = _MIGRATION.fullmatch(file.name)
        if match is None or int(match[1]) != len(found) + 1:
            raise ValueError(f"sql/{kind}/migrations/{file.name}: expected {len(found) + 1:04}_<name>.sql")
        found.append((int(match[1]), match[2], file.read_text("utf-8")))
    return found


def _folder(kind: str) -> Path:
    # `importlib.resources` would bring zipfile, bz2 and lzma: a tenth of a short command's time.
    return Path(__file__).with_name("sql") / kind


def _sql_files(folder: Path) -> list[Path]:
    return sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)


def _strip(text: str) -> str:
    return _COMMENT_LINE.sub("", text).strip().rstrip(";").rstrip()
