"""`run_plugin`: find an action by the names of its plugin and its own, and execute it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stepwell.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stepwell.client import Engine
    from stepwell.pipeline.actions.action import BaseAction

GROUP = "stepwell.plugins"
"""The group of entry points that plugins are found in."""
BUILT_IN = {
    "add_task_data": "add_task_data:AddTaskDataAction",
    "dataset": "dataset:DatasetAction",
    "export": "export:DefaultExportAction",
    "train": "train:BaseTrainAction",
    "upload": "upload:DefaultUploadAction",
}
BUILT_IN_NAMES = frozenset({"builtin", "plugin"})


def run_plugin(
    plugin: str,
    action: str,
    params: Mapping[str, Any] | BaseModel | None = None,
    *,
    run_id: str | None = None,
    engine: Engine | None = None,
    action_cls: type[BaseAction[Any]] | None = None,
    runtime_ctx: Any = None,
) -> dict[str, Any]:
    """Execute an action of a plugin.

    Args:
        plugin: a folder with a ``config.yaml`` (``actions: {name: {entrypoint: "pkg.mod:Class"}}``), a ``.py`` file, a
            module, or an entry point of the group ``stepwell.plugins``. ``builtin`` and ``plugin`` are the built-in
            actions, unless something else has that name.
        action: its name there; in a module, the class whose ``action_name`` it is.
        params: of the action.
        run_id: names the run, which is resumed if it exists.
        engine: what the run is kept with.
        action_cls: the class, if it need not be looked up.
        runtime_ctx: logger, environment, clients.

    Returns:
        what the action's ``execute`` returns.

    Raises:
        UsageError: there is no such plugin or action.
        BadArguments: the parameters are not usable.
        StepFailed: a step failed.
    """
    kind = action_cls or find_action(plugin, action)
    return kind(params, runtime_ctx, run_id=run_id, engine=engine).execute()


def find_action(plugin: str, action: str) -> type[BaseAction[Any]]:
    """The class. Raises `UsageError` when there is none."""
    found = _actions_of(plugin)
    if action not in found:
        message = f"Action '{action}' not found; plugin '{plugin}' has {', '.join(sorted(found)) or 'none'}"
        raise UsageError(message)
    place, folder = found[action]
    if not isinstance(place, str):
        return _checked(place, repr(place))
    module, _, name = place.partition(":")
    with _first_on_path(folder):
        _forget_namesake(module, folder)
        kind: Any = getattr(_imported(module), name, None)
    return _checked(kind, place)


def _actions_of(plugin: str) -> dict[str, tuple[Any, Path | None]]:
    """By name: the class, or the place where it is and the folder to look for it first."""
    path = Path(plugin)
    if (path / "config.yaml").is_file():
        return {name: (place, path) for name, place in _configured(path / "config.yaml").items()}
    if path.suffix == ".py" and path.is_file():
        from stepwell.client import load_module

        return _in_module(load_module(str(path)))
    module = _module(plugin)
    if module is not None:
        return _in_module(module)
    for point in entry_points(group=GROUP, name=plugin):
        return _in_entry(point.load())
    if plugin in BUILT_IN_NAMES:
        return {name: (f"stepwell.pipeline.actions.{place}", None) for name, place in BUILT_IN.items()}
    known = sorted({"builtin", *(point.name for point in entry_points(group=GROUP))})
    message = f"Plugin '{plugin}' not found; there are {', '.join(known)}, and any folder, .py file or module"
    raise UsageError(message)


def _configured(file: Path) -> dict[str, str]:
    import yaml

    try:
        listed = yaml.safe_load(file.read_bytes()) or {}
        return {str(name): str(entry["entrypoint"]) for name, entry in (listed.get("actions") or {}).items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        message = f'{file}: expected actions: {{name: {{entrypoint: "pkg.mod:Class"}}}} ({error})'
        raise UsageError(message) from error


def _module(name: str) -> ModuleType | None:
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    with _first_on_path(Path.cwd()):
        try:
            if importlib.util.find_spec(name) is None:
                return None
        except ModuleNotFoundError:
            return None
        return importlib.import_module(name)


def _in_entry(value: Any) -> dict[str, tuple[Any, Path | None]]:
    if isinstance(value, ModuleType):
        return _in_module(value)
    return {value.action_name: (_checked(value, repr(value)), None)}


def _in_module(module: ModuleType) -> dict[str, tuple[Any, Path | None]]:
    """Actions by their names. A class that the module itself defines comes before one that it imports."""
    from stepwell.pipeline.actions.action import BaseAction

    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, BaseAction)]
    kinds.sort(key=lambda kind: kind.__module__ == module.__name__)
    return {kind.action_name: (kind, None) for kind in kinds if kind.action_name}


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        message = f"module {module!r} not found: {error}"
        raise UsageError(message) from error


def _forget_namesake(module: str, folder: Path | None) -> None:
    """Two plugins may each have a ``main.py``: what is known under the name must not be the other's."""
    known = sys.modules.get(module)
    if folder is None or known is None:
        return
    own = folder.resolve().joinpath(*module.split("."))
    files = {own.with_suffix(".py"), own / "__init__.py"}
    if any(file.is_file() for file in files) and Path(known.__file__ or "").resolve() not in files:
        del sys.modules[module]


def _checked(kind: Any, place: str) -> type[BaseAction[Any]]:
    from stepwell.pipeline.actions.action import BaseAction

    if not isinstance(kind, type) or not issubclass(kind, BaseAction):
        message = f"{place} is no action: expected a subclass of BaseAction"
        raise UsageError(message)
    return kind


@contextmanager
def _first_on_path(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
