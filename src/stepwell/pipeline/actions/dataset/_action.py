"""`DatasetAction`: fetch a data set, convert it, or both."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel

from stepwell.pipeline.actions._folders import Filling
from stepwell.pipeline.actions.action import BaseAction, P
from stepwell.pipeline.actions.dataset._context import DatasetContext, DatasetOperation, DatasetParams
from stepwell.pipeline.actions.dataset._steps import ConvertDatasetStep, ExportDatasetStep
from stepwell.pipeline.steps.registry import StepRegistry


class DatasetAction(BaseAction[P]):
    """Fetches a data set (``operation='download'``), or converts one (``'convert'``): the one that is fetched first
    when ``dataset`` is given, else the one at ``path``. A failure leaves the folders as they were.

    `execute` returns, besides the summary, ``path``, ``format``, ``config_path``, ``source_path``, ``count`` (images),
    ``is_categorized`` and ``losses``.
    """

    action_name: ClassVar[str] = "dataset"
    params_model: ClassVar[type[BaseModel]] = DatasetParams

    def setup_steps(self, registry: StepRegistry[DatasetContext]) -> None:
        """Register what the operation needs."""
        params: Any = self.params
        if params.operation == DatasetOperation.DOWNLOAD or params.dataset is not None:
            registry.register(ExportDatasetStep())
        if params.operation == DatasetOperation.CONVERT:
            registry.register(
                ConvertDatasetStep(target_format=params.target_format, source_format=params.source_format)
            )

    def create_context(self) -> DatasetContext:
        """Make the context of a run."""
        return DatasetContext(**self.shared_fields())

    def result(self, context: DatasetContext) -> dict[str, Any]:
        """What `execute` returns besides the summary."""
        return {
            "path": context.data_path,
            "format": context.format,
            "config_path": context.config_path,
            "source_path": context.source_path,
            "count": context.count,
            "is_categorized": context.is_categorized,
            "losses": list(context.losses),
        }

    def finished(self, context: DatasetContext) -> None:
        """Remove what was replaced."""
        settle_folders(context)


def settle_folders(context: DatasetContext) -> None:
    """Remove what the run replaced."""
    for fact in context.folders.values():
        Filling(**fact).settle()
