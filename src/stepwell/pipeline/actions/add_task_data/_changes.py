"""Changes of tasks' files: on record before the first is made, and taken back byte for byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from stepwell.pipeline.actions.action import remove_scratch, scratch_folder
from stepwell.pipeline.actions.add_task_data._context import AddTaskDataContext, tasks_folder
from stepwell.pipeline.storage import Storage


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
    remove_scratch(scratch_folder(context))
    if problems:
        raise OSError("; ".join(problems))


def _changed(former: bytes, data: Any) -> bytes:
    task = json.loads(former)
    task["annotations"] = data
    task["status"] = "submitted"
    return (json.dumps(task, ensure_ascii=False, indent=2) + "\n").encode()


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
