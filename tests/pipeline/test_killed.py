"""Real processes killed with SIGKILL at each place that there is, and started again: the rows of the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine
from stepwell.core import decode_records
from stepwell.testing._invariants import check_run

ROOT = Path(__file__).parents[2]
GOOD = ["step:s1", "step:s2", "step:s3"]
BAD = ["step:s1", "step:s2", "failing:s3"]


class Stage:
    """A store, a ledger, and what processes say."""

    def __init__(self, folder: Path) -> None:
        self.store = f"sqlite:///{folder}/store.db"
        self.ledger = folder / "ledger"

    def play(self, steps: list[str], die: str | None = None) -> dict[str, Any] | None:
        """One process; None if it was killed."""
        command = {"store": self.store, "ledger": str(self.ledger), "steps": steps, "die": die}
        done = subprocess.run(
            [sys.executable, "-m", "tests.pipeline.script", json.dumps(command)],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        if done.returncode == -9:
            return None
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def begin(self, steps: list[str], gate: Path) -> subprocess.Popen[str]:
        """A process that waits in a step; returns when it does."""
        os.mkfifo(gate)
        command = {"store": self.store, "ledger": str(self.ledger), "steps": steps, "gate": str(gate)}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.script", json.dumps(command)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        return process

    def lines(self, what: str) -> list[str]:
        """Names in the ledger's lines of this kind, in order."""
        pairs = (line.split(" ", 1) for line in self.ledger.read_text().splitlines())
        return [name for kind, name in pairs if kind == what]

    def clear(self) -> None:
        """Forget the ledger."""
        self.ledger.unlink(missing_ok=True)

    def sound(self) -> None:
        """The journal keeps every promise."""
        engine = Engine(self.store)
        row = engine.store.run_get("run-1")
        assert row is not None
        rows = [(entry.seq, entry.epoch, decode_records(entry.data)) for entry in engine.store.record_load(row.rid)]
        found = [str(one) for one in check_run(rows, open=row.ended_at is None, hot=engine.store.hot_get(row.id))]
        engine.stop()
        assert not found


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@cache
def calm(steps: tuple[str, ...]) -> dict[str, Any] | None:
    """How the run ends that nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        return Stage(Path(folder)).play(list(steps))


def lasting(told: dict[str, Any]) -> dict[str, Any]:
    """All but what belongs to one process: the callback's calls, and what is not recorded."""
    return {name: value for name, value in told.items() if name not in ("percents", "opened")}


def killed_and_again(stage: Stage, steps: list[str], die: str) -> dict[str, Any]:
    """How a run ends that was killed once; all but the callback's calls is as in a run that was not."""
    expected = calm(tuple(steps))
    assert stage.play(steps, die) is None
    found = stage.play(steps, die)
    assert expected is not None
    assert found is not None
    assert lasting(found) == lasting(expected)
    stage.sound()
    return found


@pytest.mark.parametrize(
    "die, can_skip, executed, parts, percents",
    [
        ("before RunStarted", "s1 s2 s3", "s1 s2 s3", "s1 s2 s3", [33, 66, 100]),
        ("can_skip s2", "s1 s2 s2 s3", "s1 s2 s3", "s1 s2 s3", [33, 66, 100]),
        ("after Recorded s2/can_skip", "s1 s2 s3", "s1 s2 s3", "s1 s2 s3", [33, 66, 100]),
        ("execute s2", "s1 s2 s3", "s1 s2 s2 s3", "s1 s2 s3", [33, 66, 100]),
        ("part s2", "s1 s2 s3", "s1 s2 s2 s3", "s1 s2 s2 s3", [33, 66, 100]),
        ("after Recorded s2/once:part", "s1 s2 s3", "s1 s2 s2 s3", "s1 s2 s3", [33, 66, 100]),
        ("executed s2", "s1 s2 s3", "s1 s2 s2 s3", "s1 s2 s3", [33, 66, 100]),
        ("before StepSucceeded s2", "s1 s2 s3", "s1 s2 s2 s3", "s1 s2 s3", [33, 66, 100]),
        ("after StepSucceeded s2", "s1 s2 s3", "s1 s2 s3", "s1 s2 s3", [66, 100]),
        ("callback 66", "s1 s2 s3", "s1 s2 s3", "s1 s2 s3", [66, 100]),
        ("callback 100", "s1 s2 s3", "s1 s2 s3", "s1 s2 s3", [100]),
        ("after RunSucceeded", "s1 s2 s3", "s1 s2 s3", "s1 s2 s3", [100]),
    ],
)
def test_point_3_a_run_that_was_killed_goes_on_where_it_stood(
    stage: Stage, die: str, can_skip: str, executed: str, parts: str, percents: list[int]
) -> None:
    found = killed_and_again(stage, GOOD, die)
    assert found["result"] == {"success": True, "steps_executed": 3, "steps_total": 3}
    assert stage.lines("can_skip") == can_skip.split()
    assert stage.lines("execute") == executed.split()
    assert stage.lines("part") == parts.split()
    assert found["percents"] == percents
    assert found["opened"] == (None if die == "after RunSucceeded" else ["s1", "s2", "s3"])


@pytest.mark.parametrize(
    "die, executed, rolled_back",
    [
        ("after StepSucceeded s3", "s1 s2 s3", "s3: s2:s2 s1:s1"),
        ("after RollbackStarted", "s1 s2 s3", "s3: s2:s2 s1:s1"),
        ("rollback s3:None", "s1 s2 s3", "s3: s3: s2:s2 s1:s1"),
        ("rollback s2:s2", "s1 s2 s3", "s3: s2:s2 s2:s2 s1:s1"),
        ("rolled_back s2", "s1 s2 s3", "s3: s2:s2 s2:s2 s1:s1"),
        ("after StepSucceeded undo/s2", "s1 s2 s3", "s3: s2:s2 s1:s1"),
        ("rolled_back s1", "s1 s2 s3", "s3: s2:s2 s1:s1 s1:s1"),
        ("after StepSucceeded undo/s1", "s1 s2 s3", "s3: s2:s2 s1:s1"),
        ("after RunFailed", "s1 s2 s3", "s3: s2:s2 s1:s1"),
    ],
)
def test_point_3_a_rollback_that_was_killed_goes_on_where_it_stood(
    stage: Stage, die: str, executed: str, rolled_back: str
) -> None:
    found = killed_and_again(stage, BAD, die)
    assert found["error"] == "Step 's3' failed: s3 is no good"
    assert found["cause"] == "ValueError('s3 is no good')"
    assert stage.lines("execute") == executed.split()
    assert [name.replace("None", "") for name in stage.lines("rollback")] == rolled_back.split()
    assert found["percents"] == []
    assert found["done"] == ["s1", "s2", "s3", "-s3", "-s2", "-s1"]
    assert found["where"] == {}


def test_a_rollback_may_be_killed_in_each_of_its_steps(stage: Stage) -> None:
    for place in ("rollback s3:None", "rolled_back s3", "rollback s2:s2", "rolled_back s2", "rolled_back s1"):
        assert stage.play(BAD, place) is None
        Path(f"{stage.ledger}.died").unlink()
    found, expected = stage.play(BAD), calm(tuple(BAD))
    assert found is not None
    assert expected is not None
    assert lasting(found) == lasting(expected)
    assert stage.lines("execute") == ["s1", "s2", "s3"]
    assert stage.lines("rollback") == [*["s3:None"] * 3, *["s2:s2"] * 3, *["s1:s1"] * 2]
    stage.sound()


def test_point_3_attempts_are_counted_on_after_a_kill_in_the_wait_for_the_next_one(stage: Stage) -> None:
    found = killed_and_again(stage, ["step:s1", "flaky:s2", "step:s3"], "after StepRetryPlanned s2")
    assert stage.lines("attempt") == ["1", "2"]
    assert stage.lines("execute") == ["s1", "s2", "s2", "s3"]
    assert stage.lines("part") == ["s1", "s2", "s3"]
    assert found["done"] == ["s1", "s2", "s3"]


@pytest.mark.parametrize(
    "second, die",
    [
        ("step:s2", "execute s2"),
        ("step:s2", "after Recorded s2/once:part"),
        ("step:s2", "executed s2"),
        ("step:s2", "before StepSucceeded s2"),
        ("flaky:s2", "after StepRetryPlanned s2"),
    ],
)
@pytest.mark.parametrize("again", [None, "rollback s2:None", "after StepSucceeded undo/s2"])
def test_a_step_that_never_ended_is_rolled_back_first_when_the_run_is_cancelled(
    stage: Stage, second: str, die: str, again: str | None
) -> None:
    steps = ["step:s1", second, "step:s3"]
    assert stage.play(steps, die) is None
    with Engine(stage.store) as engine:
        engine.get_run("run-1").cancel("not wanted any more")
    if again is not None:
        Path(f"{stage.ledger}.died").unlink()
        assert stage.play(steps, again) is None
    found = stage.play(steps)
    assert found is not None
    assert found["error"].startswith("run run-1 was cancelled")
    twice = ["s2:None"] if again == "rollback s2:None" else []
    assert stage.lines("rollback") == [*twice, "s2:None", "s1:s1"]
    assert "s3" not in stage.lines("execute")
    assert found["where"] == {}
    stage.sound()


def test_a_step_that_was_not_begun_is_not_rolled_back(stage: Stage) -> None:
    steps = ["step:s1", "step:s2"]
    assert stage.play(steps, "can_skip s2") is None
    with Engine(stage.store) as engine:
        engine.get_run("run-1").cancel()
    assert stage.play(steps) is not None
    assert stage.lines("rollback") == ["s1:s1"]
    stage.sound()


def test_a_member_that_never_ended_is_rolled_back_where_another_one_has_failed(stage: Stage) -> None:
    """The failed one is on record before the process dies in its neighbour."""
    steps = ["step:s1", "g=hang:m1+bad:m2"]
    assert stage.play(steps, "after StepSucceeded g/m2") is None
    found = stage.play(steps)
    assert found is not None
    assert found["error"] == "Step 'm2' failed: m2 is no good"
    assert stage.lines("rollback") == ["m2:None", "m1:None", "s1:s1"]
    stage.sound()


def test_a_step_that_runs_at_most_once_fails_when_nobody_knows_whether_it_has_run(stage: Stage) -> None:
    steps = ["step:s1", "once:s2", "step:s3"]
    assert stage.play(steps, "executed s2") is None
    found = stage.play(steps)
    assert found is not None
    assert found["error"] == "Step 's2' failed: interrupted: the step may or may not have run"
    assert stage.lines("execute") == ["s1", "s2"]
    assert stage.lines("rollback") == ["s2:None", "s1:s1"]
    again = stage.play(steps)
    assert again is not None
    assert lasting(again) == lasting(found)
    stage.sound()


@pytest.mark.parametrize(
    "die, executed",
    [
        ("executed m1", "s1 m1 m1 m2 s3"),
        ("after StepSucceeded g/m1", "s1 m1 m2 s3"),
        ("executed m2", "s1 m1 m2 m2 s3"),
        ("after ScopeSucceeded g", "s1 m1 m2 s3"),
    ],
)
def test_members_of_a_group_are_each_on_record_by_themselves(stage: Stage, die: str, executed: str) -> None:
    steps = ["step:s1", "g=quiet:m1+quiet:m2", "step:s3"]
    found = killed_and_again(stage, steps, die)
    assert stage.lines("execute") == executed.split()
    assert found["result"] == {"success": True, "steps_executed": 4, "steps_total": 4}
    assert found["errors"] == ["m1", "m2"]


@pytest.mark.parametrize("die", ["rollback m2:None", "rolled_back m1", "after StepSucceeded undo/g/m1"])
def test_members_of_a_group_are_undone_in_reverse_order_of_the_group(stage: Stage, die: str) -> None:
    found = killed_and_again(stage, ["step:s1", "g=quiet:m1+bad:m2+quiet:m3"], die)
    assert found["error"] == "Step 'm2' failed: m2 is no good"
    assert list(dict.fromkeys(stage.lines("rollback"))) == ["m2:None", "m1:m1", "s1:s1"]
    assert "m3" not in stage.lines("execute")


def test_point_5_of_two_processes_with_one_run_id_one_wins(stage: Stage, tmp_path: Path) -> None:
    steps = ["step:s1", "wait:s2", "step:s3"]
    winner = stage.begin(steps, tmp_path / "gate")
    try:
        loser = stage.play(steps)
        assert loser is not None
        assert f"-{winner.pid}-" in loser["refused"]
        assert "stepwell wait run-1" in loser["refused"]
        (tmp_path / "gate").write_text("go")
        out, errors = winner.communicate(timeout=60)
        assert json.loads(out)["result"]["steps_executed"] == 3, errors
    finally:
        winner.kill()
        winner.communicate()
    assert stage.lines("execute") == ["s1", "s2", "s3"]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_courteous_signal_hands_the_run_back_and_undoes_nothing(
    stage: Stage, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = stage.begin(["step:s1", "wait:s2", "step:s3"], tmp_path / "gate")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    engine = Engine(stage.store)
    row = engine.store.run_get("run-1")
    engine.stop()
    assert row is not None
    assert (row.status, row.owner) == ("interrupted", None)
    assert stage.lines("rollback") == []
    found = stage.play(["step:s1", "step:s2", "step:s3"])
    assert found is not None
    assert found["result"]["steps_executed"] == 3
    assert stage.lines("execute") == ["s1", "s2", "s2", "s3"]
