"""Parameters of a training, and what its steps share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from stepwell.pipeline.actions.action import TRANSIENT
from stepwell.pipeline.actions.dataset import DatasetContext


class BaseTrainParams(BaseModel):
    """Parameters of `BaseTrainAction`; more keys are allowed."""

    model_config = ConfigDict(extra="allow")

    dataset: Any = Field(None, description="the data set: id, path or URL")
    splits: list[str] | None = Field(None, description="only these splits; default all")
    checkpoint: Any = Field(None, description="where to go on from: whatever `train_model` understands")
    hyperparameters: dict[str, Any] = Field(default_factory=dict, description="whatever `train_model` understands")


@dataclass
class TrainContext(DatasetContext):
    """Shared state of a training, besides the data set's fields.

    Args:
        model_path: the file or folder that the training made.
        metrics: its figures.
        model_url: where the model is in the model store.
        model_id: its name there.
        model: the model itself; never recorded.
    """

    params_model: ClassVar[type[BaseModel]] = BaseTrainParams

    model_path: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    model_url: str = ""
    model_id: str = ""
    model: Any = field(default=None, repr=False, metadata=TRANSIENT)
