"""The predictor: a function of the user's, or a class of his that is made once with a model."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwell.client import load_module
from stepwell.errors import BadArguments
from stepwell.pipeline._storage_local import LocalStorage
from stepwell.pipeline._workspace import is_place
from stepwell.pipeline.actions.action import scratch_folder
from stepwell.pipeline.actions.add_task_data._context import AddTaskDataContext


def load_predictor(context: AddTaskDataContext) -> Callable[[dict[str, Any]], Any]:
    """What makes predictions; made once per process.

    Raises:
        BadArguments: it is not given, not there, or cannot be called.
    """
    if context.predictor is None:
        place = context.param("predictor")
        if not place:
            raise BadArguments("predictor is required for method 'inference'")
        module, colon, name = str(place).rpartition(":")
        if not colon or not module or not name:
            message = f"predictor {place!r}: write package.module:name or file.py:name"
            raise BadArguments(message)
        found: Any = load_module(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            message = f"predictor {place!r}: {module} has no function or class {name!r}"
            raise BadArguments(message)
        if inspect.isclass(found):
            kind: Any = found
            found = kind(model=context.model_path or None, **context.param("predictor_params"))
            if not callable(found):
                message = f"predictor {place!r}: its objects cannot be called"
                raise BadArguments(message)
        context.predictor = found
    result: Callable[[dict[str, Any]], Any] = context.predictor
    return result


def find_model(context: AddTaskDataContext) -> str:
    """The local path of the model; ``""`` if none is given. A model of a remote workspace is copied first.

    Raises:
        BadArguments: it is not there.
    """
    given = context.param("model")
    if given is None:
        return ""
    if is_place(given) and "://" not in str(given):
        path = Path(given).expanduser().absolute()
        if not path.exists():
            message = f"Failed to get model {path.name}: not found in {path.parent}"
            raise BadArguments(message)
        return str(path)
    folder = context.workspace.folder("models", given)
    if isinstance(folder, LocalStorage):
        local = folder.root
    else:
        local = scratch_folder(context) / "model"
        for target in folder.list():
            folder.download(target, local / target)
    entry = json.loads((local / "model.json").read_bytes()).get("entry") if (local / "model.json").exists() else ""
    return str(local / entry) if entry else str(local)
