"""Parameters of an export, and what its steps share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from stepwell.errors import BadArguments
from stepwell.pipeline.actions._params import ActionParams
from stepwell.pipeline.actions.action import TRANSIENT, ActionContext, run_token
from stepwell.pipeline.storage import Storage, checked_target, open_storage


class ExportParams(ActionParams):
    """Parameters of `BaseExportAction`."""

    name: str = Field(description="of the export; the folder of that name receives the files")
    description: str | None = Field(None, description="free text")
    storage: Any = Field(None, description="where the files go: id, path, URL or configuration")
    path: str = Field("", description="folder below the storage's root")
    target: Literal["assignment", "ground_truth", "task"] | None = Field(None, description="what is exported")
    project: Any = Field(None, description="the project whose tasks or assignments are exported: id or path")
    dataset: Any = Field(None, description="the data set whose ground truth is exported: id or path")
    filter: dict[str, Any] = Field(
        default_factory=dict, description="which items: `id ids status project dataset name tags split`"
    )
    save_original_file: bool = Field(True, description="whether the original files are copied, too")
    extra_params: dict[str, Any] = Field(default_factory=dict, description="anything, for an exporter of your own")

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("must not be blank")
        if "/" in name:
            raise ValueError("must not contain '/'")
        return _inside(name.strip())

    @field_validator("path")
    @classmethod
    def _usable_path(cls, path: str) -> str:
        return _inside(path.rstrip("/")) if path.rstrip("/") or path.startswith("/") else ""


def _inside(target: str) -> str:
    try:
        return checked_target(target)
    except BadArguments as error:
        raise ValueError(str(error)) from error


@dataclass
class ExportContext(ActionContext):
    """Shared state of an export.

    Args:
        path_root: folder below the storage's root, ``""`` for the root itself.
        folder: the export's own folder, below the storage's root.
        unique_export_path: its URL; a local path where the storage is local.
        output_paths: ``{'json', 'origin_files'}``: URLs of the two folders in it.
        results: the items, ordered by id.
        total_count: how many there are.
        export_params: the parameters, as the exporter gets them.
        configuration: of the project.
        project_id: of the project.
        export_items: the items as they go into the conversion.
        converted_items: what came out of it.
        errors_json: ``[[name, error], …]`` of items whose data was not saved.
        errors_original: the same of original files.
        exported_count: items that were saved.
        failed_count: items that were not.
        output_path: URL of the export's folder.
    """

    params_model: ClassVar[type[BaseModel]] = ExportParams

    path_root: str = ""
    folder: str = ""
    unique_export_path: str = ""
    output_paths: dict[str, str] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    total_count: int = 0
    export_params: dict[str, Any] = field(default_factory=dict)
    configuration: dict[str, Any] = field(default_factory=dict)
    project_id: Any = None
    export_items: list[dict[str, Any]] = field(default_factory=list)
    converted_items: list[dict[str, Any]] = field(default_factory=list)
    errors_json: list[list[str]] = field(default_factory=list)
    errors_original: list[list[str]] = field(default_factory=list)
    exported_count: int = 0
    failed_count: int = 0
    output_path: str = ""
    storage: Storage | None = field(default=None, repr=False, metadata=TRANSIENT)
    handler: Any = field(default=None, repr=False, metadata=TRANSIENT)


def opened_storage(context: ExportContext) -> Storage:
    """Where the files go; opened once per process.

    Raises:
        ValueError: none is given.
    """
    if context.storage is None:
        spec = context.param("storage")
        if spec is None or spec == "":
            raise ValueError("Storage parameter is required")
        context.storage = open_storage(spec, env=context.env, token=run_token(context))
    return context.storage
