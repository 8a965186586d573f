"""The script that the kill tests run: ``python -m tests.pipeline.script '{"store": …, "ledger": …, "die": …}'``.

Its steps write a ledger apart from the journal: ``what name`` a line. It kills itself with SIGKILL at the place that it
is told, the first time that it comes there, and prints how the run has ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepwell import Engine
from stepwell.errors import DuplicateRun, RunCancelled
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import (
    BaseStep,
    BaseStepContext,
    Orchestrator,
    ParallelSteps,
    Retry,
    StepFailed,
    StepRegistry,
    StepResult,
)

COMMAND: dict[str, Any] = {}


def note(what: str, name: object) -> None:
    """One line of the ledger; then the end, if this is the place."""
    with Path(COMMAND["ledger"]).open("a") as ledger:
        ledger.write(f"{what} {name}\n")
    die_at(f"{what} {name}")


def die_at(place: str) -> None:
    """End here, the first time."""
    mark = Path(COMMAND["ledger"] + ".died")
    if COMMAND.get("die") == place and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Work(BaseStepContext):
    """What the steps share."""

    done: list[str] = field(default_factory=list)
    where: dict[str, Path] = field(default_factory=dict)
    opened: Any = field(default=None, metadata={"transient": True})


class Step(BaseStep[Work]):
    """Writes what it does into the ledger."""

    progress_weight = 0.2
    name = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def can_skip(self, context: Work) -> bool:
        note("can_skip", self.name)
        return False

    def execute(self, context: Work) -> StepResult:
        note("execute", self.name)
        value = context.once("part", self.part)
        note("once", f"{self.name}:{value}")
        context.done.append(self.name)
        context.where[self.name] = Path("/x") / self.name
        context.opened = [*(context.opened or ()), self.name]
        note("executed", self.name)
        return StepResult(data={"name": self.name}, rollback_data={"name": self.name})

    def part(self) -> int:
        note("part", self.name)
        return len(self.name)

    def rollback(self, context: Work, result: StepResult) -> None:
        note("rollback", f"{self.name}:{result.rollback_data.get('name')}")
        context.done.append(f"-{self.name}")
        context.where.pop(self.name, None)
        note("rolled_back", self.name)

    def restore(self, context: Work, result: StepResult) -> None:
        context.opened = [*(context.opened or ()), self.name]


class Failing(Step):
    """As `Step`, and fails at its end."""

    def execute(self, context: Work) -> StepResult:
        super().execute(context)
        message = f"{self.name} is no good"
        raise ValueError(message)


class Flaky(Step):
    """Fails in its first attempt."""

    retry = Retry(max_attempts=3, delay=0.05, jitter=False)

    def execute(self, context: Work) -> StepResult:
        result = super().execute(context)
        note("attempt", context.attempt)
        if context.attempt == 1:
            message = "not yet"
            raise OSError(message)
        return result


class AtMostOnce(Step):
    """Never begun again."""

    at_most_once = True


class Waiting(Step):
    """Waits at a named pipe until the test opens it."""

    def execute(self, context: Work) -> StepResult:
        note("execute", self.name)
        os.write(1, b"waiting\n")
        Path(COMMAND["gate"]).read_text()
        return StepResult()


class Quiet(Step):
    """Changes nothing that others change, too."""

    def execute(self, context: Work) -> StepResult:
        note("execute", self.name)
        context.errors.append(self.name)
        note("executed", self.name)
        return StepResult(rollback_data={"name": self.name})


class Bad(Quiet):
    """As `Quiet`, and fails at its end."""

    def execute(self, context: Work) -> StepResult:
        super().execute(context)
        message = f"{self.name} is no good"
        raise ValueError(message)


class Hanging(Quiet):
    """Never ends."""

    def execute(self, context: Work) -> StepResult:
        note("execute", self.name)
        threading.Event().wait()
        raise AssertionError


KINDS = {
    "step": Step,
    "failing": Failing,
    "flaky": Flaky,
    "once": AtMostOnce,
    "quiet": Quiet,
    "hang": Hanging,
    "bad": Bad,
    "wait": Waiting,
}


def killing(store: Any) -> None:
    """Let commits be places, too: ``before Record key`` and ``after Record key``."""
    commit = store.batch_commit

    def batch_commit(batches: Any) -> Any:
        names = [
            f"{type(record).__name__} {getattr(record, 'key', '')}".rstrip() for b in batches for record in b.records
        ]
        for name in names:
            die_at(f"before {name}")
        results = commit(batches)
        for name in names:
            die_at(f"after {name}")
        return results

    store.batch_commit = batch_commit


def step_of(given: str) -> BaseStep[Work]:
    """``kind:name``, or a group ``name=kind:name+kind:name``."""
    group, equals, members = given.partition("=")
    if equals:
        workers = 2 if "hang" in members else 1
        return ParallelSteps(group, [step_of(member) for member in members.split("+")], max_workers=workers)
    kind, _, name = given.partition(":")
    return KINDS[kind](name)


def main() -> None:
    """Play."""
    COMMAND.update(json.loads(sys.argv[1]))
    engine = Engine(COMMAND["store"])
    killing(engine.store)
    registry = StepRegistry[Work]()
    for given in COMMAND["steps"]:
        registry.register(step_of(given))
    context = Work(RuntimeContext())
    percents: list[int] = []

    def on_progress(current: int, total: int) -> None:
        percents.append(current)
        die_at(f"callback {current}")

    orchestrator = Orchestrator(registry, context, on_progress, run_id="run-1", engine=engine, name="killed")
    told: dict[str, Any] = {}
    try:
        told["result"] = orchestrator.execute()
    except DuplicateRun as error:
        told["refused"] = str(error)
    except (StepFailed, RunCancelled) as error:
        told["error"] = str(error)
        told["cause"] = repr(error.__cause__)
        told["left"] = list(getattr(error, "rollback_errors", ()))
    told |= {
        "percents": percents,
        "done": context.done,
        "where": {name: str(path) for name, path in context.where.items()},
        "opened": context.opened,
        "results": [[r.success, r.skipped, r.data, r.rollback_data, r.error] for r in context.step_results],
        "errors": context.errors,
        "current": context.current_step,
    }
    sys.stdout.write(json.dumps(told))
    engine.stop()


if __name__ == "__main__":
    main()
