"""The sending of units: the plan is recorded, then each file as it arrives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepwell.pipeline.actions._transfer import Patience, is_passing, make_plan, send, side_by_side, take_back
from stepwell.pipeline.actions.action import remove_scratch, scratch_folder
from stepwell.pipeline.actions.upload._context import UploadContext, opened_storage
from stepwell.pipeline.actions.upload._units import units_target, units_text
from stepwell.pipeline.steps.base import StepResult
from stepwell.pipeline.storage import Storage


def send_units(context: UploadContext) -> StepResult:
    """Send all files of all units. The result says how to take it back, whatever happens."""
    storage = opened_storage(context)
    scratch = Path(context.temp_folder or scratch_folder(context))
    context.temp_folder = str(scratch)
    name = context.param("name")
    wanted = [(file["path"], file["target"]) for unit in context.data_units for file in unit["files"].values()]
    units_file = units_target(name, context.run_id)
    plan: dict[str, Any] = context.once(
        "plan",
        lambda: make_plan(storage, wanted, overwrite=context.param("overwrite"), aside=scratch, also=[units_file]),
    )
    result = StepResult(rollback_data={"plan": plan})
    try:
        result.error = _send_all(context, storage, plan)
        if result.error is None:
            storage.write(units_file, units_text(context.data_units))
            context.output_path = storage.get_url(name)
            context.data_units_path = storage.get_url(units_file)
    except Exception as error:
        result.error = str(error) or type(error).__name__
    result.success = result.error is None
    result.data = {"uploaded": len(context.uploaded_files), "failed": len(context.failed_files)}
    return result


def _send_all(context: UploadContext, storage: Storage, plan: Mapping[str, Any]) -> str | None:
    skip = context.param("on_error") == "skip"
    patience = Patience(1 + context.param("upload_max_retries"), context.param("retry_delay"))

    def one(item: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return send(storage, item, patience)
        except Exception as error:
            # Recorded as an outcome: after a resume the same units are left out.
            if skip and (is_passing(error) or isinstance(error, OSError)):
                return {"error": str(error) or type(error).__name__}
            raise

    items: list[Mapping[str, Any]] = plan["items"]
    total = len(items)
    context.set_metrics({"stand_by": total, "success": 0, "failed": 0})
    done, failed = side_by_side(
        items,
        lambda item: context.once(f"file:{item['target']}", lambda: one(item)),
        workers=context.param("upload_max_workers"),
        ended=lambda count: context.set_progress(count, total),
        stop=lambda: context.cancelled,
    )
    if failed:
        context.set_metrics({"stand_by": total - len(done) - len(failed), "success": len(done), "failed": len(failed)})
        texts = [f"{item['target']}: {str(error) or type(error).__name__}" for item, error in failed]
        return f"{len(failed)} of {total} files failed: {'; '.join(texts)}"
    if len(done) < total:
        return "cancelled"
    return _settle(context, storage, plan, {item["target"]: outcome for item, outcome in done})


def _settle(
    context: UploadContext, storage: Storage, plan: Mapping[str, Any], outcomes: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Fill the units with what has arrived; leave out those of which a file has not."""
    kept = []
    uploaded = []
    failed = []
    orphans: set[str] = set()
    for unit in context.data_units:
        files = unit["files"]
        bad = [spec for spec, file in files.items() if "error" in outcomes[file["target"]]]
        for spec, file in files.items():
            outcome = outcomes[file["target"]]
            entry = {"key": unit["key"], "specification": spec, "path": file["path"]}
            if spec in bad:
                failed.append({**entry, "error": outcome["error"]})
            if bad:
                orphans.add(file["target"])
            else:
                fact = {name: outcome[name] for name in ("target", "size", "checksum")}
                uploaded.append({**entry, **fact})
                files[spec] = {"path": file["path"], **fact}
        if not bad:
            kept.append(unit)
    take_back(storage, {"items": [item for item in plan["items"] if item["target"] in orphans]})
    context.failed_files = failed
    context.uploaded_files = uploaded
    context.set_metrics({"stand_by": 0, "success": len(uploaded), "failed": len(failed)})
    if not kept:
        return "No files were successfully uploaded"
    context.data_units = kept
    return None


def take_back_upload(context: UploadContext, plan: Mapping[str, Any] | None) -> None:
    """Take an upload back. May be called again.

    Args:
        context: of the upload.
        plan: of the upload; None: it came to nothing before it had one.

    Raises:
        OSError: something could not be taken back.
    """
    problems = take_back(opened_storage(context), plan) if plan else []
    if problems:
        raise OSError("; ".join(problems))  # what could not be put back lies in the temporary folder still
    context.uploaded_files = []
    remove_scratch(Path(context.temp_folder or scratch_folder(context)))
