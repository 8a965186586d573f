"""Lives of pipelines that are killed at lines of their ledger, for the tests: see `zygote`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from stepwell import Engine
from stepwell.core import decode_records
from stepwell.testing._invariants import check_run

ROOT = Path(__file__).parents[2]


class Zygote:
    """The process that forks them. ``with`` ends it for certain."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.zygote"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, **command: Any) -> dict[str, Any]:
        """One life."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer["code"] in (0, -9), answer
        return answer


class Stage:
    """A folder with a workspace, a target, a store and a ledger; one run."""

    def __init__(self, zygote: Zygote, folder: Path, what: str, params: dict[str, Any]) -> None:
        self._zygote = zygote
        self.folder = folder
        self.ledger = folder / "ledger"
        self.store = f"sqlite:///{folder}/store.db"
        self._command = {
            "what": what, "params": params, "store": self.store, "ledger": str(self.ledger),
            "workspace": str(folder / "stage" / "workspace"), "stage": str(folder / "stage"),
        }  # fmt: skip

    def live(self, kill_at: int | str = 0, **more: Any) -> dict[str, Any] | None:
        """One life; None if it was killed."""
        answer = self._zygote.ask(**self._command, kill_at=kill_at, **more)
        return None if answer["code"] == -9 else answer

    def lines(self) -> list[str]:
        """The ledger."""
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []

    def repeated(self, **more: str) -> list[str]:
        """What was done although it was on record, and records that are there twice.

        ``more``: besides ``execute`` and ``rollback``, by the first word of a line, the record of what it does, ``{}``
        for the line's second word.
        """
        records = {"execute": "StepSucceeded:{}", "rollback": "StepSucceeded:undo/{}", **more}
        committed: set[str] = set()
        found = []
        for line in self.lines():
            word, *names = line.split()
            if word == "committed":
                ends = {name for name in names if name.startswith(("StepSucceeded:", "Recorded:"))}
                found += sorted(ends & committed)
                committed |= ends
            elif word in records and records[word].format(names[0]) in committed:
                found.append(line)
        return found

    def tree(self) -> dict[str, bytes | None]:
        """Each file and folder of the stage."""
        stage = self.folder / "stage"
        return {
            path.relative_to(stage).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(stage.rglob("*"))
        }

    def broken(self) -> list[str]:
        """What its journal breaks of what is promised."""
        engine = Engine(self.store)
        row = engine.find("run")
        rows = [(entry.seq, entry.epoch, decode_records(entry.data)) for entry in engine.store.record_load(row.rid)]
        status: Any = None if row.ended_at is None else row.status
        found = check_run(rows, open=row.ended_at is None, hot=engine.store.hot_get(row.id), status=status)
        engine.stop()
        return [str(one) for one in found]
