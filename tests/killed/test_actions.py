"""Each action killed with SIGKILL: behind each step's work, in each step's rollback, and at lines all over its ledger. In
the end files and folders are as in a run that nobody killed, or byte for byte as they were before.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.pipeline.actions.staged import STAGES
from tests.pipeline.lives import Stage, Zygote

STEPS = {
    "add_task_data": ("validate_file", "load_annotations", "process_tasks", "upload_annotations"),
    "dataset": ("dataset", "convert"),
    "export": ("initialize", "fetch_results", "prepare_export", "convert_data", "save_files", "finalize"),
    "train": ("dataset", "train", "model_upload"),
    "upload": (
        "initialize", "validate_files", "analyze_collection", "organize_files", "generate_data_units", "upload_files",
        "process_metadata",
    ),
}  # fmt: skip
FAILED = {"error": "StepFailed", "text": "Step 'last' failed: no", "left": []}
CANCELLED = {"error": "RunCancelled", "text": "run run was cancelled: no reason given", "left": []}


class Stages:
    """Makes stages, each in a folder of its own."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self._zygote = zygote
        self._folder = folder
        self._numbers = count()

    def __call__(self, name: str) -> Stage:
        folder = self._folder / str(next(self._numbers))
        (folder / "stage").mkdir(parents=True)
        return Stage(self._zygote, folder, name, STAGES[name](folder / "stage"))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    with Zygote() as zygote:
        yield Stages(zygote, tmp_path_factory.mktemp("actions"))


def sound(stage: Stage) -> None:
    """Nothing was done twice that is on record, and the journal keeps every promise."""
    assert stage.repeated() == []
    assert stage.broken() == []


def outcome(answer: dict[str, object] | None) -> dict[str, object]:
    """What a life that was not killed came to."""
    assert answer is not None
    return {name: value for name, value in answer.items() if name != "code"}


def files(stage: Stage) -> dict[str, bytes | None]:
    """Each file and folder; contents without the name of the stage."""
    place = str(stage.folder).encode()
    return {name: text and text.replace(place, b"") for name, text in stage.tree().items()}


def undoing(stage: Stage) -> list[str]:
    """Steps whose rollback began, in order, each as often as it did."""
    return [line.split()[1] for line in stage.lines() if line.startswith("rollback ")]


@pytest.mark.parametrize("name, step", [(name, step) for name, steps in STEPS.items() for step in steps])
def test_a_step_that_was_killed_behind_its_work_is_undone_when_its_run_is_cancelled(
    stages: Stages, name: str, step: str
) -> None:
    stage = stages(name)
    before = stage.tree()
    assert stage.live(f"executed {step}") is None
    assert outcome(stage.live(cancel=True)) == CANCELLED
    assert stage.tree() == before
    sound(stage)


@pytest.mark.parametrize("name", STEPS)
def test_point_6_a_rollback_that_is_killed_in_each_step_leaves_all_as_it_was(stages: Stages, name: str) -> None:
    calm = stages(name)
    assert outcome(calm.live(fails=True)) == FAILED
    undone = undoing(calm)
    assert undone == [step for step in reversed(STEPS[name]) if step in undone], "each after all that came after it"
    stage = stages(name)
    before = stage.tree()
    for step in undone:
        assert stage.live(f"rollback {step}", fails=True) is None
        assert stage.live(f"rolled_back {step}", fails=True) is None
    assert outcome(stage.live(fails=True)) == FAILED
    assert stage.tree() == before
    sound(stage)
    assert undoing(stage) == [step for step in undone for _ in range(3)]


@pytest.mark.parametrize("name", STEPS)
def test_kills_all_over_an_action(stages: Stages, name: str, request: pytest.FixtureRequest) -> None:
    """As many as the ring has rounds, divided by 25; a third each goes on, fails, and is cancelled."""
    calm = stages(name)
    value = outcome(calm.live())
    after = files(calm)
    failing = stages(name)
    assert outcome(failing.live(fails=True)) == FAILED
    last = len(failing.lines())
    wanted = request.config.getoption("--rounds") // 25
    for number in range(wanted):
        kill_at = 1 + number * last // wanted
        stage = stages(name)
        before = stage.tree()
        fails, cancel = number % 3 == 1, number % 3 == 2
        killed = stage.live(kill_at, fails=fails) is None
        told = f"killed at line {kill_at} of {stage.lines()[-3:]}, fails {fails}, cancelled {cancel}"
        begun = any(line.startswith("committed RunStarted") for line in stage.lines())
        answer = outcome(stage.live(fails=fails, cancel=cancel and killed and begun))
        if fails:
            assert answer == FAILED, told
            assert stage.tree() == before, told
        elif answer == CANCELLED:
            assert stage.tree() == before, told
        else:
            assert set(answer) == set(value), told
            assert files(stage) == after, told
        sound(stage)
