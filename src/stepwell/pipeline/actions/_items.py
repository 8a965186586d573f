"""Items of the workspace: tasks, assignments, ground truth. Read by id, filtered, ordered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.storage import Storage

FILTERS = ("id", "ids", "status", "project", "dataset", "name", "tags", "split")


def check_filters(filters: Mapping[str, Any]) -> None:
    """Raise `BadArguments` for a key that is no filter."""
    for key in filters:
        if key not in FILTERS:
            message = f"unknown filter {key!r}; there are {', '.join(FILTERS)}"
            raise BadArguments(message)


def read_items(folder: Storage, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The items of a folder that pass the filters, ordered by id (numbers by value, before texts).

    Raises:
        BadArguments: a filter is not known, or a file is no JSON object; it is named.
    """
    check_filters(filters)
    items = []
    for target in folder.list():
        path = PurePosixPath(target)
        if path.suffix != ".json" or len(path.parts) != 1:
            continue
        try:
            item = json.loads(folder.read(target))
        except ValueError as error:
            message = f"{folder.url}/{target}: {error}"
            raise BadArguments(message) from error
        if not isinstance(item, dict):
            message = f"{folder.url}/{target}: an object is expected, got {type(item).__name__}"
            raise BadArguments(message)
        item.setdefault("id", path.stem)
        if passes(item, filters):
            items.append(item)
    return sorted(items, key=lambda item: order(item["id"]))


def passes(item: Mapping[str, Any], filters: Mapping[str, Any]) -> bool:
    """Whether the item has what each filter asks for. Values are compared as texts; a list asks for one of its values,
    ``tags`` for all of them.
    """
    for key, wanted in filters.items():
        if key in {"id", "ids"}:
            if str(item.get("id")) not in texts(wanted):
                return False
        elif key == "tags":
            if not set(texts(wanted)) <= set(texts(item.get("tags") or [])):
                return False
        elif str(item.get(key)) not in texts(wanted):
            return False
    return True


def texts(value: Any) -> list[str]:
    """The values as texts; one value is a list of one."""
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [str(item) for item in value]
    return [str(value)]


def order(value: Any) -> tuple[int, int, str]:
    """Numbers by value, then texts."""
    text = str(value)
    return (0, int(text), text) if text.isascii() and text.isdigit() else (1, 0, text)
