"""Sheets with metadata: ``.csv`` and ``.xlsx``, a header row, the file name in the first column."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from stepwell.errors import MissingExtra

NAME_COLUMNS = frozenset({"filename", "file_name"})


class BadSheet(Exception):
    """The sheet cannot be read, or its header is not what it should be."""


def check_sheet_reader(path: str) -> None:
    """Raise `MissingExtra` when nothing is installed that reads such a sheet."""
    readers = ("python_calamine", "openpyxl")
    if path.lower().endswith(".xlsx") and not any(importlib.util.find_spec(name) for name in readers):
        raise MissingExtra("excel", f"the sheet {PurePosixPath(path).name!r}")


def read_sheet(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Rows as (file name, column -> text). Rows without a file name are left out.

    Raises:
        BadSheet: it is unreadable, or its first column is not ``filename`` or ``file_name``.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            rows = _csv_rows(path)
        elif suffix == ".xlsx":
            rows = _xlsx_rows(path)
        else:
            message = f"{path.name}: a sheet is a .csv or an .xlsx"
            raise BadSheet(message)
    except (BadSheet, MissingExtra):
        raise
    except Exception as error:
        message = f"{path.name}: {str(error) or type(error).__name__}"
        raise BadSheet(message) from error
    if not rows:
        message = f"{path.name}: it is empty"
        raise BadSheet(message)
    header = [cell.strip() for cell in rows[0]]
    if not header or header[0].lower() not in NAME_COLUMNS:
        found = header[0] if header else ""
        message = f"{path.name}: the first column must be filename or file_name, found {found!r}"
        raise BadSheet(message)
    return [
        (row[0].strip(), {name: row[i] if i < len(row) else "" for i, name in enumerate(header) if i and name})
        for row in rows[1:]
        if row and row[0].strip()
    ]


def merge_rows(units: Sequence[dict[str, Any]], rows: Sequence[tuple[str, dict[str, str]]]) -> list[str]:
    """Put each row into the ``meta`` of the units that have a file of its name, else of its stem. Returns the names
    that no unit has.
    """
    exact: dict[str, list[dict[str, Any]]] = {}
    stems: dict[str, list[dict[str, Any]]] = {}
    for unit in units:
        for file in unit["files"].values():
            path = PurePosixPath(file["path"] if isinstance(file, dict) else file)
            _add(exact, path.name, unit)
            _add(stems, path.stem, unit)
        stems.setdefault(unit["key"], [unit])
    unmatched = []
    for name, values in rows:
        found = exact.get(name) or stems.get(name) or stems.get(PurePosixPath(name).stem)
        if not found:
            unmatched.append(name)
        for unit in found or ():
            unit["meta"].update(values)
    return unmatched


def _add(table: dict[str, list[dict[str, Any]]], name: str, unit: dict[str, Any]) -> None:
    units = table.setdefault(name, [])
    if unit not in units:
        units.append(unit)


def _csv_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [row for row in csv.reader(stream, strict=True) if row]


def _xlsx_rows(path: Path) -> list[list[str]]:
    check_sheet_reader(str(path))
    if importlib.util.find_spec("python_calamine"):
        from python_calamine import CalamineWorkbook

        book = CalamineWorkbook.from_path(str(path))
        rows: list[list[Any]] = book.get_sheet_by_index(0).to_python()
    else:
        from openpyxl import load_workbook

        book = load_workbook(path, read_only=True, data_only=True)
        rows = [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
        book.close()
    return [[_text(cell) for cell in row] for row in rows]


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
