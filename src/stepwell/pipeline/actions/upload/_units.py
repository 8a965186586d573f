"""Data units: what belongs together, under which id, and where its files go."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from stepwell.errors import BadArguments
from stepwell.pipeline.actions.upload._sources import UNITS_FOLDER
from stepwell.pipeline.storage import checked_target, file_checksum


def unit_id(run_id: str | None, key: str) -> str:
    """The same for the same run and key: the first 16 hex digits of SHA-256 of both, with a line end between them."""
    return hashlib.sha256(f"{run_id or ''}\n{key}".encode()).hexdigest()[:16]


def make_units(organized: Mapping[str, Mapping[str, Any]], name: str, run_id: str | None) -> list[dict[str, Any]]:
    """Units with the targets of their files: ``<name>/<specification>/<relative path>``.

    Raises:
        BadArguments: a target would leave the storage, or two files have one.
    """
    units = []
    taken: dict[str, str] = {}
    for key, group in organized.items():
        files = {}
        for spec, path in group["files"].items():
            relative = group.get("relative", {}).get(spec, PurePosixPath(path).name)
            target = checked_target(f"{name}/{spec}/{relative}")
            checked_target(relative)
            if target in taken:
                message = f"{taken[target]} and {path} have the same target {target}"
                raise BadArguments(message)
            taken[target] = path
            files[spec] = {"path": path, "target": target}
        units.append({"id": unit_id(run_id, key), "key": key, "files": files, "meta": dict(group.get("meta", {}))})
    return units


def without_duplicates(
    units: Sequence[dict[str, Any]], order: Sequence[str], checksum: Callable[[str], str] = file_checksum
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Leave out units whose main file equals that of an earlier one.

    Args:
        units: in order.
        order: names of specifications; the first that a unit has is its main file.
        checksum: of a local file; read only of files that have the size of another.

    Returns:
        the units that stay, and ``(path, same as)`` of those that do not.
    """
    main = [
        next(unit["files"][name]["path"] for name in [*order, *unit["files"]] if name in unit["files"])
        for unit in units
    ]
    sizes = [Path(path).stat().st_size for path in main]
    alike = Counter(sizes)
    kept = []
    skipped = []
    seen: dict[tuple[int, str], str] = {}
    for unit, path, size in zip(units, main, sizes, strict=True):
        if alike[size] > 1:
            fact = (size, checksum(path))
            if fact in seen:
                skipped.append((path, seen[fact]))
                continue
            seen[fact] = path
        kept.append(unit)
    return kept, skipped


def units_target(name: str, run_id: str | None) -> str:
    """Where the file with a run's units is."""
    return f"{name}/{UNITS_FOLDER}/{quote(run_id or 'run', safe='')}.jsonl"


def units_text(units: Sequence[Mapping[str, Any]]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(unit, ensure_ascii=False, sort_keys=True) + "\n" for unit in units).encode()
