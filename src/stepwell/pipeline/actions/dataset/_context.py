"""What the steps of a data set action share; the training action shares it, too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from stepwell.pipeline._workspace import is_place
from stepwell.pipeline.actions._params import ActionParams
from stepwell.pipeline.actions.action import ActionContext


class DatasetOperation(StrEnum):
    """What a data set action does."""

    DOWNLOAD = "download"
    CONVERT = "convert"


class DatasetParams(ActionParams):
    """Parameters of `DatasetAction`."""

    operation: DatasetOperation = Field(DatasetOperation.DOWNLOAD, description="`download` or `convert`")
    dataset: Any = Field(None, description="the data set: id, path or URL")
    path: str | None = Field(None, description="a local data set to convert, instead of `dataset`")
    source_format: str = Field("dm_v2", description="the format it is in")
    target_format: str = Field("yolo", description="the format it is converted to")
    splits: list[str] | None = Field(None, description="only these splits; default all")
    output_dir: str | None = Field(
        None, description="where `dm/` and `<format>/` go; default `<workspace>/exports/dataset-<id>`"
    )
    overwrite: bool = Field(False, description="replace what is in the target")


@dataclass
class DatasetContext(ActionContext):
    """Shared state of a data set action.

    Args:
        dataset: ``{id, source}`` of the data set that was fetched.
        data_path: the folder that the next step works with.
        source_path: what it was made from.
        format: of what is at ``data_path``.
        config_path: the file that a trainer is pointed at, if the format has one.
        count: number of images.
        is_categorized: whether it has splits.
        losses: what the conversion could not keep: ``[{kind, count, reason, examples}]``.
        folders: the folders that were made, by step.
    """

    params_model: ClassVar[type[BaseModel]] = DatasetParams

    dataset: dict[str, Any] = field(default_factory=dict)
    data_path: str = ""
    source_path: str = ""
    format: str = ""
    config_path: str | None = None
    count: int = 0
    is_categorized: bool = False
    losses: list[dict[str, Any]] = field(default_factory=list)
    folders: dict[str, dict[str, Any]] = field(default_factory=dict)


def output_folder(context: DatasetContext) -> Path:
    """Where the folders of the formats go; absolute."""
    given = context.param("output_dir")
    if given:
        return Path(given).expanduser().absolute()
    name = dataset_name(context.param("dataset") or context.param("path"))
    return (context.workspace.local_folder() / "exports" / f"dataset-{name}").absolute()


def dataset_name(given: Any) -> str:
    """The id, or the last part of the place."""
    if isinstance(given, Mapping):
        given = given.get("id", given.get("path", "unnamed"))
    text = os.fspath(given) if isinstance(given, os.PathLike) else str(given)
    return text.rstrip("/").rpartition("/")[2] if is_place(given) else text
