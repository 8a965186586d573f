"""The workspace: a folder that stands in for a backend. Projects, collections, data sets, tasks, models by id.

Below its root (``STEPWELL_DATA``, a path or URL; default ``.stepwell/data``)::

    storages.yaml                     {id: URL or configuration}
    collections/<id>.yaml|json        projects/<id>.yaml|json
    datasets/<id>/                    models/<name>-<8 hex>/
    tasks/<project>/<id>.json         assignments/<project>/<id>.json         ground_truth/<dataset>/<id>.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline._storage_local import LocalStorage
from stepwell.pipeline._storage_spec import resolve
from stepwell.pipeline.storage import Storage

VARIABLE = "STEPWELL_DATA"
DEFAULT = ".stepwell/data"
_SUFFIXES = (".yaml", ".yml", ".json")


class Workspace:
    """What is kept below the workspace's root.

    Args:
        storage: the root.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def current(cls, env: Mapping[str, str]) -> Workspace:
        """The one that the environment names."""
        root = env.get(VARIABLE) or DEFAULT
        return cls(resolve(root, env, "") if "://" in root else LocalStorage(root))

    def storages(self) -> dict[str, Any]:
        """Configurations of storages by id (text)."""
        if not self.storage.exists("storages.yaml"):
            return {}
        listed = _parsed(self.storage.read("storages.yaml"), "storages.yaml")
        return {str(key): value for key, value in listed.items()}

    def document(self, kind: str, given: Any) -> dict[str, Any]:
        """What an id, a path or the mapping itself says of a ``project`` or a ``collection``.

        Raises:
            BadArguments: ``Failed to get collection 7: not found in <folder>``.
        """
        if isinstance(given, Mapping):
            return dict(given)
        if is_place(given):
            return self._document_at(kind, str(given))
        found = [f"{kind}s/{given}{suffix}" for suffix in _SUFFIXES]
        for target in found:
            if is_name(given) and self.storage.exists(target):
                return {"id": given, **_parsed(self.storage.read(target), target)}
        message = f"Failed to get {kind} {given}: not found in {self.folder_url(f'{kind}s')}"
        raise BadArguments(message)

    def _document_at(self, kind: str, place: str) -> dict[str, Any]:
        folder, _, name = place.rpartition("/")
        storage = resolve((folder or ".") if "://" in place else Path(folder or "."), os.environ, "")
        if name.endswith(_SUFFIXES) and storage.exists(name):
            return _parsed(storage.read(name), place)
        message = f"Failed to get {kind} {name}: not found in {storage.url}"
        raise BadArguments(message)

    def folder(self, kind: str, given: Any) -> Storage:
        """The folder that an id or a place names, below ``kind`` (``datasets``, ``tasks``, …).

        Raises:
            BadArguments: there is no such folder, or nothing is in it.
        """
        word = kind.rstrip("s")
        if is_place(given):
            place: str = os.fspath(given)
            storage = resolve(place if "://" in place else Path(place), os.environ, "")
            if storage.list():
                return storage
            folder, _, name = place.rstrip("/").rpartition("/")
            message = f"Failed to get {word} {name}: not found in {folder or '.'}"
            raise BadArguments(message)
        if is_name(given):
            storage = self.storage.below(f"{kind}/{given}")
            if storage.list():
                return storage
        message = f"Failed to get {word} {given}: not found in {self.folder_url(kind)}"
        raise BadArguments(message)

    def folder_url(self, kind: str) -> str:
        """Address of the folder of a kind."""
        return f"{self.storage.url.rstrip('/')}/{kind}"

    def local_folder(self) -> Path:
        """A local folder for files of runs under way: the root where that is local."""
        return self.storage.root if isinstance(self.storage, LocalStorage) else Path(DEFAULT).absolute()


def is_place(given: Any) -> bool:
    """Whether it is a path or URL, not an id."""
    if isinstance(given, os.PathLike):
        return True
    if not isinstance(given, str):
        return False
    return "/" in given or os.sep in given or given.endswith(_SUFFIXES) or given in {".", ".."}


def is_name(given: Any) -> bool:
    """Whether it can be an id: a number, or a text that is one part of a path."""
    text = str(given)
    usable = isinstance(given, int | str) and not isinstance(given, bool)
    return usable and text not in {"", ".", ".."} and not set(text) & {"/", "\\", "\0"}


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    if where.endswith(".json"):
        try:
            value = json.loads(content)
        except ValueError as error:
            message = f"{where}: {error}"
            raise BadArguments(message) from error
    else:
        import yaml

        try:
            value = yaml.safe_load(content)
        except yaml.YAMLError as error:
            message = f"{where}: {error}"
            raise BadArguments(message) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        message = f"{where}: a mapping is expected, got {type(value).__name__}"
        raise BadArguments(message)
    return value
