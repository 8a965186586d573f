"""The export's own folder, and which file each item becomes. Names are settled before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import PurePosixPath
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.storage import Storage, checked_target

MARKER = ".stepwell-export"
"""The file in an export's folder that says which run makes it."""


def claim_folder(storage: Storage, wanted: str, owner: str) -> str:
    """Make a folder that nobody else has: ``wanted``, ``wanted(1)``, … Returns the one that is ours.

    A folder counts as taken when something is in it; a second call by the same owner finds its own again.
    """
    for folder in _numbered(wanted):
        if _owner(storage, folder) == owner or storage.claim(folder, MARKER, owner.encode()):
            return folder
    raise AssertionError("numbers do not end")


def claimed_folder(storage: Storage, wanted: str, owner: str) -> str | None:
    """The folder that `claim_folder` made for this owner; None if it made none."""
    for folder in _numbered(wanted):
        if _owner(storage, folder) == owner:
            return folder
        if not storage.list(folder):
            return None
    return None


def _numbered(wanted: str) -> Iterator[str]:
    yield wanted
    for number in count(1):
        yield f"{wanted}({number})"


def _owner(storage: Storage, folder: str) -> str | None:
    marker = f"{folder}/{MARKER}"
    return storage.read(marker).decode() if storage.exists(marker) else None


def remove_claimed(storage: Storage, folder: str, owner: str, *, made: bool) -> None:
    """Remove a folder that is the owner's, with all that is in it.

    Args:
        storage: where it is.
        folder: which.
        owner: whose.
        made: it is known that the owner made it: then it is his without a marker, too.
    """
    found = _owner(storage, folder)
    if found == owner or (made and found is None):
        storage.delete_folder(folder)


@dataclass
class Naming:
    """Which files the items become.

    ``stems`` and ``originals`` are by position of the item, None where it has none or cannot have one.
    """

    stems: list[str | None] = field(default_factory=list)
    originals: list[str | None] = field(default_factory=list)
    collisions: list[dict[str, Any]] = field(default_factory=list)
    unsafe: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Position -> (name, error)."""


def named(items: Sequence[Mapping[str, Any]]) -> Naming:
    """Settle the names, in the order of the items: the first keeps its name, others become ``<stem>__<id>``."""
    naming = Naming()
    taken: set[str] = set()
    for position, item in enumerate(items):
        original = item.get("original_file")
        name = PurePosixPath(str(original).split("?", 1)[0]).name if original else ""
        wanted = str(item.get("name") or name or item.get("id"))
        stem, error = wanted.removesuffix(PurePosixPath(wanted).suffix) if _has_extension(wanted, name) else wanted, ""
        try:
            if "/" in wanted or wanted.startswith("."):
                message = f"{wanted!r} cannot be the name of a file"
                raise BadArguments(message)
            checked_target(stem)
        except BadArguments as caught:
            error = str(caught)
        if error:
            naming.unsafe[position] = (wanted, error)
            naming.stems.append(None)
            naming.originals.append(None)
            continue
        free = stem
        for candidate in _candidates(stem, item.get("id")):
            if candidate.casefold() not in taken:
                free = candidate
                break
        if free != stem:
            naming.collisions.append({"id": item.get("id"), "name": stem, "saved_as": free})
        taken.add(free.casefold())
        naming.stems.append(free)
        naming.originals.append(f"{free}{PurePosixPath(name).suffix}" if name else None)
    return naming


def _has_extension(wanted: str, original: str) -> bool:
    """Whether the name ends like the original file: ``cat.jpg``, not ``v1.2``."""
    suffix = PurePosixPath(wanted).suffix
    return bool(suffix) and (not original or suffix == PurePosixPath(original).suffix)


def _candidates(stem: str, number: Any) -> Iterator[str]:
    yield stem
    safe = str(number).replace("/", "_").replace("\\", "_")
    yield f"{stem}__{safe}"
    count = 2
    while True:
        yield f"{stem}__{safe}__{count}"
        count += 1


def json_text(value: Any) -> bytes:
    """As it is written into files."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
