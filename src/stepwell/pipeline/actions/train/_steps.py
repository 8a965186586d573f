"""The steps of a training that come after its data set: train, and keep the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepwell.pipeline.actions._transfer import Patience, patiently
from stepwell.pipeline.actions.action import run_token
from stepwell.pipeline.actions.train._context import TrainContext
from stepwell.pipeline.steps.base import BaseStep, StepResult
from stepwell.pipeline.storage import Storage, file_checksum

PATIENCE = Patience(attempts=3, delay=0.2)
MODEL = "model.json"


class TrainStep(BaseStep[TrainContext]):
    """Calls the action's ``train_model(context)``."""

    name = "train"
    progress_weight = 0.5

    def execute(self, context: TrainContext) -> StepResult:
        """What the method returns is the step's data; ``model_path`` and ``metrics`` in it go into the context."""
        value: Any = context.action.train_model(context)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            message = f"train_model() must return a dict, got {type(value).__name__}"
            raise TypeError(message)
        if value.get("model_path"):
            context.model_path = str(value["model_path"])
        if isinstance(value.get("metrics"), dict):
            context.metrics = {**context.metrics, **value["metrics"]}
        if context.metrics:
            context.set_metrics(context.metrics)
        return StepResult(data=dict(value))


class UploadModelStep(BaseStep[TrainContext]):
    """Copies the model into the workspace's model store, ``models/<name>-<8 hex>``."""

    name = "model_upload"
    progress_weight = 0.1

    def can_skip(self, context: TrainContext) -> bool:
        """Without a ``model_path``."""
        return not context.model_path

    def execute(self, context: TrainContext) -> StepResult:
        """``model.json`` comes last: with it the model is complete."""
        source = Path(context.model_path).absolute()
        if not source.exists():
            message = f"model not found: {context.model_path}"
            raise FileNotFoundError(message)
        storage = _store(context)
        context.model_id = f"{source.stem}-{run_token(context)[:8]}"
        files = _files(source)
        targets = {f"models/{context.model_id}/{name}": path for name, path in files.items()}
        made: dict[str, Any] = context.once(
            "made", lambda: {"model": context.model_id, "folders": [*storage.absent_folders([*targets, "models/x"])]}
        )
        result = StepResult(rollback_data=made)
        total = len(targets)
        try:
            facts = {}
            for number, (target, path) in enumerate(targets.items(), 1):
                patiently(lambda path=path, target=target: storage.upload(path, target), PATIENCE)  # type: ignore[misc]
                facts[target.split("/", 2)[2]] = {"size": path.stat().st_size, "checksum": file_checksum(path)}
                context.set_progress(number, total)
            document = {"id": context.model_id, "name": source.stem, "run_id": context.run_id, "files": facts}
            document |= {"metrics": context.metrics, "entry": source.name if source.is_file() else ""}
            context.model_url = storage.write(
                f"models/{context.model_id}/{MODEL}", (json.dumps(document, indent=2, default=str) + "\n").encode()
            ).removesuffix(f"/{MODEL}")
        except Exception as error:
            result.success, result.error = False, str(error) or type(error).__name__
        result.data = {"model": context.model_id, "url": context.model_url}
        return result

    def rollback(self, context: TrainContext, result: StepResult) -> None:
        """Delete the model from the store."""
        made = result.rollback_data or context.once("made", dict)
        if made:
            storage = _store(context)
            storage.delete_folder(f"models/{made['model']}")
            storage.remove_folders(made["folders"])
        context.model_url = context.model_id = ""


def _store(context: TrainContext) -> Storage:
    return context.workspace.storage


def _files(source: Path) -> dict[str, Path]:
    if source.is_file():
        return {source.name: source}
    found = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if name != MODEL}
