"""Parameters of an upload."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from stepwell.pipeline.actions._params import ActionParams
from stepwell.pipeline.storage import checked_target


class UploadAsset(ActionParams):
    """Where the files of one specification are.

    Args:
        path: the folder.
        is_recursive: whether files in folders below it count.
    """

    path: str = Field(description="the folder")
    is_recursive: bool = Field(True, description="whether files in folders below it count")


class UploadParams(ActionParams):
    """Parameters of `BaseUploadAction`."""

    name: str = Field(description="of the upload; the folder of that name in the storage receives the files")
    description: str | None = Field(None, description="free text")
    path: str | None = Field(None, description="the folder with the files, in single-path mode")
    use_single_path: bool = Field(
        True, description="one folder with a folder per specification, or a folder each (`assets`)"
    )
    assets: dict[str, UploadAsset] = Field(
        default_factory=dict, description="specification -> `{path, is_recursive}`, in multi-path mode"
    )
    is_recursive: bool = Field(True, description="whether files in folders below `path` count")
    storage: Any = Field(None, description="where the files go: id, path, URL or configuration")
    data_collection: Any = Field(None, description="what a unit consists of: id, path or mapping")
    project: Any = Field(None, description="the project: id, path or mapping")
    excel_metadata_path: str | None = Field(None, description="a .csv or .xlsx whose rows are merged into the units")
    max_file_size_mb: float | None = Field(None, gt=0, description="no file may be larger; MB of 1,048,576 bytes")
    upload_max_workers: int = Field(10, ge=1, description="how many files are sent at a time")
    upload_max_retries: int = Field(2, ge=0, description="how often a file is tried again")
    retry_delay: float = Field(0.5, ge=0, description="seconds before the second attempt; doubles, jittered")
    skip_local_duplicates: bool = Field(True, description="leave out a unit whose main file equals an earlier one's")
    on_missing: Literal["drop", "error"] = Field("drop", description="a unit without a required file")
    on_error: Literal["fail", "skip"] = Field("fail", description="a unit with a file that cannot be sent")
    overwrite: bool = Field(False, description="replace files in the storage whose content differs")
    extra_params: dict[str, Any] = Field(default_factory=dict, description="anything, for steps of your own")

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("must not be blank")
        if "/" in name:
            raise ValueError("must not contain '/'")
        try:
            checked_target(name)
        except Exception as error:
            raise ValueError(str(error)) from error
        return name.strip()
