"""An upload in a process of its own, killed where the test says.

    python upload_process.py STORE SOURCE TARGET LEDGER KILL [fail | cancel]

TARGET is a path, or a configuration as JSON. KILL is ``before:N`` or ``after:N``: the process kills itself in front of, or behind, the sending of the Nth file; or
``-``. The ledger gets a line for each file sent. With ``fail`` a step behind the upload fails, with
``cancel`` the run is cancelled before it is taken up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from stepwell.client import Engine
from stepwell.errors import RunCancelled
from stepwell.pipeline.actions.upload import BaseUploadAction, UploadContext, UploadParams
from stepwell.pipeline.steps import BaseStep, StepFailed, StepRegistry, StepResult
from stepwell.pipeline.storage import open_storage


class Last(BaseStep[UploadContext]):
    name = "last"
    progress_weight = 0.1

    def execute(self, context: UploadContext) -> StepResult:
        return StepResult(success="fail" not in sys.argv, error="no")


class Upload(BaseUploadAction[UploadParams]):
    def setup_steps(self, registry: StepRegistry[UploadContext]) -> None:
        super().setup_steps(registry)
        registry.register(Last())


def main() -> None:
    store, source, target, ledger, kill = sys.argv[1:6]
    moment, _, number = kill.partition(":")
    spec: Any = json.loads(target) if target.startswith("{") else target
    kind: Any = type(open_storage(spec))
    real = kind.upload
    sent = 0

    def upload(self: Any, path: Any, name: str) -> Any:
        nonlocal sent
        sent += 1
        if (moment, str(sent)) == ("before", number):
            os.kill(os.getpid(), signal.SIGKILL)
        url = real(self, path, name)
        with Path(ledger).open("a", encoding="utf-8") as lines:
            lines.write(name + "\n")
        if (moment, str(sent)) == ("after", number):
            os.kill(os.getpid(), signal.SIGKILL)
        return url

    kind.upload = upload
    params = {"name": "up", "path": source, "storage": spec, "upload_max_workers": 1}
    with Engine(f"sqlite:///{store}") as engine:
        if "cancel" in sys.argv:
            engine.get_run("killed").cancel()
        try:
            print(Upload(params, run_id="killed", engine=engine).execute()["uploaded_files"])
        except (StepFailed, RunCancelled) as error:
            print(type(error).__name__, error)


if __name__ == "__main__":
    main()
