"""`BaseTrainAction`: a data set, a conversion, a training, a model in the store."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel

from stepwell.pipeline.actions.action import BaseAction, P
from stepwell.pipeline.actions.dataset import ConvertDatasetStep, ExportDatasetStep
from stepwell.pipeline.actions.dataset._action import settle_folders
from stepwell.pipeline.actions.train._context import BaseTrainParams, TrainContext
from stepwell.pipeline.actions.train._steps import TrainStep, UploadModelStep
from stepwell.pipeline.steps.registry import StepRegistry


class BaseTrainAction(BaseAction[P]):
    """Trains a model. Override `train_model`, or `setup_steps` for steps of your own.

    `execute` returns, besides the summary, ``model`` (its id in the store) and ``model_path``.
    """

    action_name: ClassVar[str] = "train"
    params_model: ClassVar[type[BaseModel]] = BaseTrainParams
    target_format: ClassVar[str | None] = None
    """The format that the training needs; None: the data set as it is."""
    source_format: ClassVar[str] = "dm_v2"
    """The format that data sets are kept in."""

    def setup_steps(self, registry: StepRegistry[TrainContext]) -> None:
        """Register ``dataset``, ``convert``, ``train``, ``model_upload``, as far as they are needed."""
        if getattr(self.params, "dataset", None) is not None:
            registry.register(ExportDatasetStep())
            if self.target_format is not None:
                registry.register(ConvertDatasetStep(self.target_format, self.source_format))
        registry.register(TrainStep())
        registry.register(UploadModelStep())

    def create_context(self) -> TrainContext:
        """Make the context of a run."""
        return TrainContext(**self.shared_fields())

    def train_model(self, context: TrainContext) -> dict[str, Any]:
        """Train. To be overridden.

        Args:
            context: ``data_path`` is the data set, ``params`` has the hyperparameters.

        Returns:
            what the step's record keeps; of use are ``model_path`` (a file or folder) and ``metrics`` (a dict).
        """
        message = f"{type(self).__name__} must override train_model()"
        raise NotImplementedError(message)

    def result(self, context: TrainContext) -> dict[str, Any]:
        """What `execute` returns besides the summary."""
        return {"model": context.model_id or None, "model_path": context.model_path or None}

    def finished(self, context: TrainContext) -> None:
        """Remove what was replaced."""
        settle_folders(context)
