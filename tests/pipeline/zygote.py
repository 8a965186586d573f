"""A process that forks lives of pipelines, each of which may kill itself with SIGKILL at a line of its ledger.

It imports everything once and opens no store itself, so that a life costs a fork and not an interpreter. One JSON
command a line on stdin, one JSON answer a line on stdout.

Each interesting place writes one line to the ledger, a file apart from the journal: a step's body and its rollback, the
moments before and after each commit, and before and after each change of the file system below the stage.
``kill_at`` is the line at which the life ends as by a pulled plug: its number, from the life's first, or its text.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepwell import Engine
from stepwell.client import load_target
from stepwell.errors import RunBlocked, RunCancelled, RunFailed, UsageError
from stepwell.pipeline.actions.action import BaseAction
from stepwell.pipeline.actions.add_task_data import AddTaskDataAction
from stepwell.pipeline.actions.dataset import DatasetAction
from stepwell.pipeline.actions.export import DefaultExportAction
from stepwell.pipeline.actions.train import BaseTrainAction
from stepwell.pipeline.actions.upload import DefaultUploadAction
from stepwell.pipeline.steps import BaseStep, StepRegistry, StepResult

ROOT = Path(__file__).parents[2]
IMAGES = f"{ROOT / 'examples' / 'images.py'}:resize"
CHANGES = ("replace", "rename", "unlink", "mkdir", "rmdir")

_command: dict[str, Any] = {}
_ledger = -1
_lines = 0


def note(text: str) -> None:
    """Write one line; end the process there if it is the one."""
    global _lines  # noqa: PLW0603 - one life per process
    _lines += 1
    os.write(_ledger, f"{text}\n".encode())
    if _command["kill_at"] in (_lines, text):
        os.write(_ledger, b"KILL\n")
        os.kill(os.getpid(), signal.SIGKILL)


class Train(BaseTrainAction[Any]):
    """Its model is there already."""

    def train_model(self, context: Any) -> dict[str, Any]:
        return {"model_path": context.param("checkpoint")}


class Last(BaseStep[Any]):
    """Fails if it is to."""

    name = "last"
    progress_weight = 0.1

    def execute(self, context: Any) -> StepResult:
        note("execute last")
        return StepResult(success=not _command.get("fails"), error="no")


ACTIONS: dict[str, type[BaseAction[Any]]] = {
    "add_task_data": AddTaskDataAction,
    "dataset": DatasetAction,
    "export": DefaultExportAction,
    "train": Train,
    "upload": DefaultUploadAction,
}


def noted(step: BaseStep[Any], method: str, doing: str, done: str) -> None:
    """Let one object's method tell when it begins and ends."""
    real = getattr(step, method)

    def call(*args: Any) -> Any:
        note(f"{doing} {step.name}")
        value = real(*args)
        note(f"{done} {step.name}")
        return value

    setattr(step, method, call)


def act(engine: Engine) -> Any:
    """The action, from Python."""
    kind = ACTIONS[_command["what"]]

    class Ending(kind):  # type: ignore[misc,valid-type]
        def setup_steps(self, registry: StepRegistry[Any]) -> None:
            super().setup_steps(registry)
            for step in registry:
                noted(step, "execute", "execute", "executed")
                noted(step, "rollback", "rollback", "rolled_back")
            registry.register(Last())

    return Ending(_command["params"], run_id="run", engine=engine).execute()


def images(engine: Engine) -> Any:
    """The example, as the command line runs it."""
    function = load_target(IMAGES)
    kind = sys.modules["images"].ImageContext
    kind.note = lambda _self, line: note(line)
    engine.register(function)
    row = engine.store.run_get("run")
    if row is not None and row.ended_at is None:
        return engine.get_run("run").resume()
    return engine.run(function, _command["params"], id="run")


def told(name: str, stage: str) -> None:
    """Let a change of the file system below the stage be a place, too."""
    real = getattr(os, name)

    def call(path: Any, *args: Any, **kwargs: Any) -> Any:
        place = os.fspath(path)
        mine = kwargs.get("dir_fd") is not None or str(place).startswith(stage)
        if mine:
            note(f"before {name} {Path(str(place)).name}")
        value = real(path, *args, **kwargs)
        if mine:
            note(f"after {name} {Path(str(place)).name}")
        return value

    setattr(os, name, call)


def watched(store: Any) -> None:
    """Let commits be places."""
    commit = store.batch_commit

    def batch_commit(batches: Any) -> Any:
        names = " ".join(
            f"{type(record).__name__}:{getattr(record, 'key', '')}" for batch in batches for record in batch.records
        )
        note(f"commit {names}")
        results = commit(batches)
        note(f"committed {names}")
        return results

    store.batch_commit = batch_commit


def life() -> dict[str, Any]:
    """One life, in the forked child: how it came out."""
    global _ledger  # noqa: PLW0603 - one life per process
    _ledger = os.open(_command["ledger"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.environ["STEPWELL_DATA"] = _command["workspace"]
    engine = Engine(_command["store"])
    watched(engine.store)
    for name in CHANGES:
        told(name, _command["stage"])
    play: Callable[[Engine], Any] = images if _command["what"] == "images" else act
    if _command.get("cancel"):
        with contextlib.suppress(UsageError):  # it has ended
            engine.get_run("run").cancel()
    try:
        return {"value": play(engine)}
    except (RunFailed, RunCancelled, RunBlocked) as error:
        return {"error": type(error).__name__, "text": str(error), "left": list(getattr(error, "rollback_errors", ()))}
    finally:
        engine.stop()


def main() -> None:
    """Serve commands until stdin ends."""
    for line in sys.stdin:
        answer, end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _command.update(json.loads(line))
                os.write(end, json.dumps(life()).encode())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        os.close(end)
        with os.fdopen(answer) as text:
            found = text.read()
        _, status = os.waitpid(child, 0)
        print(json.dumps({"code": os.waitstatus_to_exitcode(status), **json.loads(found or "{}")}), flush=True)


if __name__ == "__main__":
    main()
