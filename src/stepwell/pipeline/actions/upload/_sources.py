"""Finding source files and sorting them into units. Nothing here writes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".gitkeep"})
SYSTEM_FOLDERS = frozenset({".git", "__pycache__", "@eadir"})
EXTENSIONS = {
    "image": "jpg jpeg png bmp webp gif tif tiff",
    "video": "mp4 avi mov mkv webm m4v",
    "audio": "mp3 wav flac ogg m4a aac",
    "text": "txt csv md html xml json jsonl",
    "pcd": "pcd",
    "data": "json jsonl csv xml yaml yml bin npy parquet",
}
"""What a specification without extensions accepts, by its file type; any other type accepts all."""
UNITS_FOLDER = "data_units"


class Refused(Exception):
    """Files that cannot be taken; the text starts with ``File validation failed:``."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(f"File validation failed: {'; '.join(problems)}")


@dataclass
class Organized:
    """Units by key: ``{key: {"files": {spec: path}, "meta": {}}}``, and what became of the rest."""

    units: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: list[tuple[str, list[str]]] = field(default_factory=list)
    """(key, specifications that are missing)."""
    ignored: list[str] = field(default_factory=list)
    """Files that stand outside of all folders of specifications."""


def find_files(root: Path, *, recursive: bool) -> list[str]:
    """Files below the folder, relative with ``/``, sorted; system files and folders are ignored. Links to folders are
    not followed.
    """
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if recursive and name.lower() not in SYSTEM_FOLDERS)
        found += [
            (Path(folder) / name).relative_to(root).as_posix() for name in names if name.lower() not in SYSTEM_FILES
        ]
    return sorted(found)


def normal_specifications(collection: Mapping[str, Any] | None, assets: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The collection's specifications with all keys; without a collection one optional specification per asset, or
    one called ``file``.

    Raises:
        Refused: one of them is unusable.
    """
    if collection is None:
        names = list(assets) or ["file"]
        return [_specification({"name": name, "is_primary": len(names) == 1}) for name in names]
    listed = collection.get("file_specifications")
    if not isinstance(listed, list) or not listed:
        raise Refused(["the data collection has no file_specifications"])
    result: list[dict[str, Any]] = []
    problems = []
    for item in listed:
        name = item.get("name") if isinstance(item, Mapping) else None
        if not isinstance(name, str) or not name or set(name) & set("/\\\0") or name in {".", "..", UNITS_FOLDER}:
            problems.append(f"{name!r} cannot be the name of a file specification")
        elif any(other["name"] == name for other in result):
            problems.append(f"file specification {name!r} is there twice")
        else:
            result.append(_specification(item))
    if problems:
        raise Refused(problems)
    return result


def _specification(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = item.get("file_type")
    extensions = item.get("extensions")
    if extensions is None:
        extensions = EXTENSIONS.get(str(kind), "").split()
    return {
        "name": item["name"],
        "file_type": kind,
        "is_required": bool(item.get("is_required", False)),
        "is_primary": bool(item.get("is_primary", False)),
        "extensions": [str(extension).lower().lstrip(".") for extension in extensions],
    }


def organize_single(
    root: Path, files: Sequence[str], specifications: Sequence[Mapping[str, Any]], *, plain: bool
) -> Organized:
    """Sort the files of one folder into units.

    Args:
        root: the folder.
        files: relative to it.
        specifications: as `normal_specifications` gives them.
        plain: there is no collection: every file is a unit.

    Raises:
        Refused: files do not fit.
    """
    if plain:
        return _every_file(root, files, specifications[0]["name"])
    names = [spec["name"] for spec in specifications]
    by_folder: dict[str, list[tuple[str, Path]]] = {name: [] for name in names}
    ignored = []
    if any((root / name).is_dir() for name in names):
        for file in files:
            folder, _, rest = file.partition("/")
            if rest and folder in by_folder:
                by_folder[folder].append((rest, root / file))
            else:
                ignored.append(file)
        return _organized(by_folder, specifications, ignored)
    problems = []
    for file in files:
        fitting = next((spec["name"] for spec in specifications if fits(file, spec)), None)
        if fitting is None:
            allowed = sorted({extension for spec in specifications for extension in spec["extensions"]})
            problems.append(f"{file}: extension {_extension(file)!r} is not one of {', '.join(allowed)}")
        else:
            by_folder[fitting].append((file, root / file))
    if problems:
        raise Refused(problems)
    return _organized(by_folder, specifications, ignored)


def organize_assets(
    files: Mapping[str, Sequence[str]],
    roots: Mapping[str, Path],
    specifications: Sequence[Mapping[str, Any]],
) -> Organized:
    """Sort the files of several folders, one per specification, into units. Raises as `organize_single`."""
    names = [spec["name"] for spec in specifications]
    unknown = sorted(set(files) - set(names))
    if unknown:
        raise Refused([f"asset {name!r} is none of the file specifications {', '.join(names)}" for name in unknown])
    by_folder = {name: [(file, roots[name] / file) for file in files.get(name, ())] for name in names}
    return _organized(by_folder, specifications, [])


def drop_incomplete(organized: Organized, specifications: Sequence[Mapping[str, Any]]) -> Organized:
    """Leave out the units that lack a required file."""
    required = [spec["name"] for spec in specifications if spec["is_required"]]
    kept = {}
    dropped = list(organized.dropped)
    for key, unit in organized.units.items():
        missing = [name for name in required if name not in unit["files"]]
        if missing:
            dropped.append((key, missing))
        else:
            kept[key] = unit
    return Organized(kept, dropped, organized.ignored)


def fits(file: str, spec: Mapping[str, Any]) -> bool:
    """Whether the specification accepts the file's extension."""
    return not spec["extensions"] or _extension(file) in spec["extensions"]


def main_specification(specifications: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of specifications in the order in which a unit's main file is looked for: primary, required, the rest."""
    ranked = sorted(specifications, key=lambda spec: (not spec["is_primary"], not spec["is_required"]))
    return [spec["name"] for spec in ranked]


def _organized(
    by_folder: Mapping[str, Sequence[tuple[str, Path]]],
    specifications: Sequence[Mapping[str, Any]],
    ignored: list[str],
) -> Organized:
    units: dict[str, dict[str, Any]] = {}
    relative: dict[tuple[str, str], str] = {}
    problems = []
    for spec in specifications:
        name = spec["name"]
        for file, path in by_folder[name]:
            key = _key(file)
            if not fits(file, spec):
                allowed = ", ".join(spec["extensions"])
                problems.append(f"{name}/{file}: extension {_extension(file)!r} is not one of {allowed}")
            elif (key, name) in relative:
                problems.append(f"{name}: {relative[key, name]!r} and {file!r} have the same key {key!r}")
            else:
                relative[key, name] = file
                unit = units.setdefault(key, {"files": {}, "meta": {}, "relative": {}})
                unit["files"][name] = str(path)
                unit["relative"][name] = file
    if problems:
        raise Refused(problems)
    return Organized(dict(sorted(units.items())), [], ignored)


def _every_file(root: Path, files: Sequence[str], name: str) -> Organized:
    keys = [_key(file) for file in files]
    alike, names = Counter(keys), set(files)
    units = {}
    for file, key in zip(files, keys, strict=True):
        own = key if alike[key] == 1 and key not in names else file
        units[own] = {"files": {name: str(root / file)}, "meta": {}, "relative": {name: file}}
    return Organized(dict(sorted(units.items())), [], [])


def _key(file: str) -> str:
    path = PurePosixPath(file)
    return path.with_name(path.stem).as_posix() if path.stem else file


def _extension(file: str) -> str:
    return PurePosixPath(file).suffix.lower().lstrip(".")
