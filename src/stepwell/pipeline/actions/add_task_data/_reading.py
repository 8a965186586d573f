"""Annotations from a file: JSON, JSON lines, CSV. Ids are compared as texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any


class BadAnnotations(ValueError):
    """The file cannot be used; the text names the place."""


def read_annotations(path: Path) -> dict[str, Any]:
    """Data by task id.

    ``.json``: a list of ``{"task_id", "data"}``, or an object id -> data. ``.jsonl``: one ``{"task_id", "data"}`` a
    line. ``.csv``: a column ``task_id``; the other columns are the data, as texts.

    Raises:
        BadAnnotations: it is none of these, or an id is there twice.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            pairs = _from_json(path)
        elif suffix == ".jsonl":
            pairs = _from_lines(path)
        elif suffix == ".csv":
            pairs = _from_csv(path)
        else:
            message = f"{path.name}: annotations are a .json, .jsonl or .csv"
            raise BadAnnotations(message)
    except BadAnnotations:
        raise
    except (ValueError, csv.Error) as error:
        message = f"{path.name}: {error}"
        raise BadAnnotations(message) from error
    found: dict[str, Any] = {}
    for place, number, data in pairs:
        if number in found:
            message = f"{path.name}: {place}: task_id {number!r} is there twice"
            raise BadAnnotations(message)
        found[number] = data
    return found


def _from_json(path: Path) -> list[tuple[str, str, Any]]:
    value = json.loads(path.read_bytes())
    if isinstance(value, dict):
        return [(f"key {key}", str(key), data) for key, data in value.items()]
    if isinstance(value, list):
        return [_entry(path, f"entry {number}", item) for number, item in enumerate(value)]
    message = f"{path.name}: a list or an object is expected, got {type(value).__name__}"
    raise BadAnnotations(message)


def _from_lines(path: Path) -> list[tuple[str, str, Any]]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.strip():
            try:
                found.append(_entry(path, f"line {number}", json.loads(line)))
            except json.JSONDecodeError as error:
                message = f"{path.name}: line {number}: {error}"
                raise BadAnnotations(message) from error
    return found


def _from_csv(path: Path) -> list[tuple[str, str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, strict=True)
        if "task_id" not in (reader.fieldnames or ()):
            message = f"{path.name}: there is no column task_id"
            raise BadAnnotations(message)
        return [
            (f"line {reader.line_num}", row["task_id"].strip(), {k: v for k, v in row.items() if k and k != "task_id"})
            for row in reader
        ]


def _entry(path: Path, place: str, item: Any) -> tuple[str, str, Any]:
    if not isinstance(item, dict) or "task_id" not in item or "data" not in item:
        message = f"{path.name}: {place}: an object with task_id and data is expected"
        raise BadAnnotations(message)
    return place, str(item["task_id"]), item["data"]
