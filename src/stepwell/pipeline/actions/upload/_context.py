"""What the steps of an upload share, and how a step makes what an earlier one would have left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from stepwell.errors import BadArguments
from stepwell.pipeline.actions.action import TRANSIENT, ActionContext, run_token
from stepwell.pipeline.actions.upload._params import UploadParams
from stepwell.pipeline.actions.upload._sources import (
    Organized,
    Refused,
    drop_incomplete,
    find_files,
    normal_specifications,
    organize_assets,
    organize_single,
)
from stepwell.pipeline.storage import Storage, open_storage

MEGABYTE = 1 << 20


@dataclass
class UploadContext(ActionContext):
    """Shared state of an upload.

    Args:
        project: the project, if one is given.
        data_collection: the collection, if one is given.
        source_roots: folder of the files: by asset, ``""`` in single-path mode.
        source_files: files below it, relative; the same keys.
        file_specifications: what a unit consists of.
        organized_files: ``{key: {'files': {specification: path}, 'meta': {…}}}``.
        data_units: ``[{id, key, files, meta}]``; after the upload each file is ``{path, target, size, checksum}``.
        uploaded_files: the files that are in the storage now, ``{key, specification, path, target, size, checksum}``.
        failed_files: ``{key, specification, path, error}``.
        skipped_duplicates: units left out because their main file equals an earlier one's.
        temp_folder: a local folder of the run's own.
        output_path: URL of the upload's folder.
        data_units_path: URL of the file with the units.
        metadata: ``{rows, unmatched}`` of the sheet.
    """

    params_model: ClassVar[type[BaseModel]] = UploadParams

    project: dict[str, Any] = field(default_factory=dict)
    data_collection: dict[str, Any] = field(default_factory=dict)
    source_roots: dict[str, str] = field(default_factory=dict)
    source_files: dict[str, list[str]] = field(default_factory=dict)
    file_specifications: list[dict[str, Any]] = field(default_factory=list)
    organized_files: dict[str, dict[str, Any]] = field(default_factory=dict)
    data_units: list[dict[str, Any]] = field(default_factory=list)
    uploaded_files: list[dict[str, Any]] = field(default_factory=list)
    failed_files: list[dict[str, Any]] = field(default_factory=list)
    skipped_duplicates: int = 0
    temp_folder: str = ""
    output_path: str = ""
    data_units_path: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    storage: Storage | None = field(default=None, repr=False, metadata=TRANSIENT)


def opened_storage(context: UploadContext) -> Storage:
    """Where the files go; opened once per process.

    Raises:
        ValueError: none is given.
    """
    if context.storage is None:
        spec = context.param("storage")
        if spec is None or spec == "":
            raise ValueError("Storage parameter is required")
        context.storage = open_storage(spec, env=context.env, token=run_token(context))
    return context.storage


def check_paths(context: UploadContext) -> None:
    """Raise `ValueError` unless the mode's folders are given."""
    if context.param("use_single_path"):
        if not context.param("path"):
            raise ValueError("Path parameter is required in single-path mode")
    elif not context.param("assets"):
        raise ValueError("Assets parameter is required in multi-path mode")


def load_collection(context: UploadContext) -> None:
    """Look up the project and the collection that the parameters name."""
    for kind, name in (("project", "project"), ("collection", "data_collection")):
        given = context.param(name)
        if given is not None and not getattr(context, name):
            try:
                found = context.workspace.document(kind, given)
            except BadArguments:
                raise
            except OSError as error:
                message = f"Failed to get {kind} {given}: {error}"
                raise BadArguments(message) from error
            setattr(context, name, found)


def validate_sources(context: UploadContext) -> int:
    """Find the source files and check each. Returns how many there are.

    Raises:
        Refused: with all problems.
    """
    problems: list[str] = []
    total = 0
    for asset, (given, recursive) in _folders(context).items():
        root = Path(given).expanduser().absolute()
        if not root.is_dir():
            problems.append(f"{given}: not a directory" if root.exists() else f"{given}: not found")
            continue
        files = find_files(root, recursive=recursive)
        context.source_roots[asset] = str(root)
        context.source_files[asset] = files
        total += len(files)
        for file in files:
            problem = _problem(root / file, context.param("max_file_size_mb"))
            if problem:
                problems.append(f"{file}: {problem}")
    if not problems and not total:
        problems.append("no files found")
    if problems:
        raise Refused(problems)
    return total


def _folders(context: UploadContext) -> dict[str, tuple[str, bool]]:
    check_paths(context)
    if context.param("use_single_path"):
        return {"": (context.param("path"), context.param("is_recursive"))}
    return {name: (asset["path"], asset.get("is_recursive", True)) for name, asset in context.param("assets").items()}


def _problem(path: Path, limit: float | None) -> str | None:
    try:
        with path.open("rb") as stream:
            stream.read(1)
        size = path.stat().st_size
    except OSError as error:
        return error.strerror or str(error)
    if limit is not None and size > limit * MEGABYTE:
        return f"{size / MEGABYTE:.2f} MB is more than {limit:g} MB"
    return None


def specifications(context: UploadContext) -> list[dict[str, Any]]:
    """What a unit consists of; looked up if that has not been done."""
    if not context.file_specifications:
        load_collection(context)
        assets = [] if context.param("use_single_path") else list(context.param("assets"))
        collection = context.data_collection if context.param("data_collection") is not None else None
        context.file_specifications = normal_specifications(collection or None, assets)
    return context.file_specifications


def organize(context: UploadContext) -> Organized:
    """Sort the source files into units; does what is missing before. Raises `Refused`."""
    if not context.source_files:
        validate_sources(context)
    specs = specifications(context)
    roots = {name: Path(root) for name, root in context.source_roots.items()}
    if context.param("use_single_path"):
        plain = context.param("data_collection") is None
        organized = organize_single(roots[""], context.source_files[""], specs, plain=plain)
    else:
        organized = organize_assets(context.source_files, roots, specs)
    return drop_incomplete(organized, specs)
