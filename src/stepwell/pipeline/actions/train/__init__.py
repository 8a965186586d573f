"""Training: fetch a data set, convert it, train, keep the model."""

from __future__ import annotations

from stepwell.pipeline.actions.train._action import BaseTrainAction
from stepwell.pipeline.actions.train._context import BaseTrainParams, TrainContext
from stepwell.pipeline.actions.train._steps import TrainStep, UploadModelStep

__all__ = ["BaseTrainAction", "BaseTrainParams", "TrainContext", "TrainStep", "UploadModelStep"]
