"""Changes of tasks' files: known before the first is made, and taken back byte for byte.

The list is recorded, and lies in the run's own folder besides: whoever cancels a run that was cut off while it wrote
has no result of that step, and takes the changes back in the rollback of the step before it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwell.pipeline.actions.action import remove_scratch, run_token, scratch_folder
from stepwell.pipeline.actions.add_task_data._context import AddTaskDataContext, tasks_folder
from stepwell.pipeline.storage import Storage, write_whole

PLAN = "changes.json"


def make_change(folder: Storage, targets: dict[str, str], task_id: str, data: Any) -> dict[str, Any]:
    """What will be done to a task: ``{task_id, target, former, data, checksum}``; former is the file's content."""
    target = targets[task_id]
    former = folder.read(target)
    checksum = _digest(_changed(former, data))
    return {"task_id": task_id, "target": target, "former": _text(former), "data": data, "checksum": checksum}


def apply_change(folder: Storage, change: dict[str, Any]) -> None:
    """Do it, unless it is done.

    Raises:
        ValueError: somebody else has changed the file.
    """
    found = folder.read(change["target"])
    if _digest(found) == change["checksum"]:
        return
    if _text(found) != change["former"]:
        message = f"{change['target']} was changed by somebody else"
        raise ValueError(message)
    folder.write(change["target"], _changed(found, change["data"]))


def take_back(context: AddTaskDataContext, changes: Sequence[dict[str, Any]]) -> None:
    """Put back the exact former bytes. May be called again.

    Raises:
        OSError: somebody else has changed files since; they are left as they are.
    """
    problems = []
    folder = tasks_folder(context) if changes else None
    for change in changes:
        assert folder is not None
        target = change["target"]
        found = folder.read(target) if folder.exists(target) else b""
        if _digest(found) == change["checksum"]:
            folder.write(target, change["former"].encode("utf-8", "surrogateescape"))
        elif _text(found) != change["former"]:
            problems.append(f"{target} was changed by somebody else and is left as it is")
    remove_scratch(_scratch(context))
    if problems:
        raise OSError("; ".join(problems))


def keep_plan(context: AddTaskDataContext, changes: Sequence[dict[str, Any]]) -> None:
    """Put the list into the run's own folder."""
    context.temp_folder = str(_scratch(context))
    content = json.dumps(changes, default=str).encode()
    write_whole(Path(context.temp_folder) / PLAN, io.BytesIO(content), run_token(context))


def kept_plan(context: AddTaskDataContext) -> list[dict[str, Any]]:
    """The list from the run's own folder; empty when there is none."""
    kept = _scratch(context) / PLAN
    changes: list[dict[str, Any]] = json.loads(kept.read_bytes()) if kept.exists() else []
    return changes


def _scratch(context: AddTaskDataContext) -> Path:
    return Path(context.temp_folder or scratch_folder(context))


def _changed(former: bytes, data: Any) -> bytes:
    task = json.loads(former)
    task["annotations"] = data
    task["status"] = "submitted"
    return (json.dumps(task, ensure_ascii=False, indent=2) + "\n").encode()


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
