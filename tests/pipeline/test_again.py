"""Skip, force, retry and fork: what a person decides about a pipeline's run, from Python and on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine
from stepwell.client import load_target, run_object
from stepwell.errors import BadArguments, RunFailed, UsageError
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import BaseStep, Orchestrator, ParallelSteps, StepFailed, StepResult
from stepwell.testing._invariants import check_run
from tests.pipeline.kit import Context, Pipeline, Step, raising

APP = """
from dataclasses import dataclass, field
from pathlib import Path
from stepwell.pipeline import BaseStep, BaseStepContext, Orchestrator, StepRegistry, StepResult


def note(context, line):
    with (Path(context.folder) / "ledger").open("a") as ledger:
        ledger.write(line + "\\n")


@dataclass
class Work(BaseStepContext):
    folder: str = ""
    kind: str = "plain"
    seen: list = field(default_factory=list)


class Step(BaseStep):
    name, progress_weight = "", 1

    def __init__(self, name):
        self.name = name

    def execute(self, context):
        note(context, self.name)
        context.once("part", lambda: note(context, self.name + "/part"))
        context.seen.append(self.name)
        if (Path(context.folder) / (self.name + ".bad")).exists():
            raise ValueError(self.name + " is no good")
        return StepResult(data={"by": self.name})


class Quiet(Step):
    def execute(self, context):
        result = super().execute(context)
        context.seen.remove(self.name)
        return result


class Skipping(Step):
    def can_skip(self, context):
        note(context, self.name + "?")
        if (Path(context.folder) / (self.name + ".unsure")).exists():
            raise ValueError("cannot say")
        return not (Path(context.folder) / (self.name + ".wanted")).exists()


class Reversible(Step):
    def rollback(self, context, result):
        note(context, "-" + self.name)


def build(folder, kind="plain", runtime_ctx=None):
    registry = StepRegistry()
    registry.register((Reversible if kind == "reversible" else Step)("one"))
    if kind == "group":
        registry.register_group("both", [Quiet("left"), Quiet("right")], max_workers=1)
    else:
        registry.register((Skipping if kind == "skipping" else Step)("two"))
    registry.register(Step("three"))
    return registry, Work(runtime_ctx, folder=folder, kind=kind)
"""
DONE = {"success": True, "steps_executed": 3, "steps_total": 3}


class Play:
    """A pipeline with an import path, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        sys.modules.pop("app", None)
        self.store = f"sqlite:///{folder}/s.db"
        self.engine = Engine(self.store)
        self.function = load_target(f"{folder}/app.py:build")

    def run(self, kind: str = "plain") -> Any:
        return self.engine.run(self.function, {"folder": str(self.folder), "kind": kind}, id="r")

    def bad(self, step: str, what: str = "bad") -> Path:
        """From here on the step fails, until the file is gone."""
        mark = self.folder / f"{step}.{what}"
        mark.touch()
        return mark

    def ledger(self) -> list[str]:
        """What was done since this was last asked."""
        file = self.folder / "ledger"
        lines = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def steps(self, run_id: str = "r") -> dict[str, str]:
        shown = run_object(self.engine.store, self.engine.find(run_id))
        return {step["name"]: step["status"] for step in shown["steps"]}

    def data(self, step: str, run_id: str = "r") -> Any:
        shown = run_object(self.engine.store, self.engine.find(run_id))
        return next(found["data"] for found in shown["steps"] if found["name"] == step)

    def sound(self, run_id: str = "r") -> None:
        from stepwell.core import decode_records

        store = self.engine.store
        row = store.run_get(run_id)
        assert row is not None
        rows = [(entry.seq, entry.epoch, decode_records(entry.data)) for entry in store.record_load(row.rid)]
        status: Any = None if row.ended_at is None else row.status
        found = check_run(rows, open=row.ended_at is None, hot=store.hot_get(run_id), status=status)
        assert [str(one) for one in found] == []

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "stepwell.cli", *words],
            cwd=self.folder, env={**os.environ, "STEPWELL_STORE": self.store},
            capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    made = Play(tmp_path)
    yield made
    made.engine.stop()
    sys.modules.pop("app", None)


def failed(play: Play, step: str, kind: str = "plain") -> None:
    """A run that has failed at this step, and whose step is good by now."""
    mark = play.bad(step)
    with pytest.raises(RunFailed, match=f"Step '{step}' failed"):
        play.run(kind)
    mark.unlink()
    play.ledger()


# -- retry


def test_a_failed_run_goes_on_at_the_failed_step_with_what_its_once_has_recorded(play: Play) -> None:
    failed(play, "two")
    assert play.engine.get_run("r").retry() == DONE
    assert play.ledger() == ["two", "three", "three/part"]
    assert play.steps() == {"one": "succeeded", "two": "succeeded", "three": "succeeded"}
    play.sound()


def test_a_retry_that_fails_again_may_be_retried_again(play: Play) -> None:
    mark = play.bad("two")
    with pytest.raises(RunFailed):
        play.run()
    for _ in range(2):
        with pytest.raises(RunFailed, match="Step 'two' failed: two is no good"):
            play.engine.get_run("r").retry()
    mark.unlink()
    assert play.engine.get_run("r").retry() == DONE
    assert play.ledger() == ["one", "one/part", "two", "two/part", "two", "two", "two", "three", "three/part"]
    play.sound()


def test_members_of_a_group_that_ended_well_are_not_made_again(play: Play) -> None:
    failed(play, "left", "group")
    assert play.steps() == {"one": "succeeded", "left": "failed", "right": "pending", "three": "pending"}
    found = play.engine.get_run("r").retry()
    assert found == {"success": True, "steps_executed": 4, "steps_total": 4}
    assert play.ledger() == ["left", "right", "right/part", "three", "three/part"]
    play.sound()
    failed_later = play.engine.get_run("r").retry(force=["three"])
    assert failed_later == found


def test_a_step_that_could_not_say_whether_to_skip_is_asked_again(play: Play) -> None:
    mark = play.bad("two", "unsure")
    with pytest.raises(RunFailed, match="Step 'two' failed: cannot say"):
        play.run("skipping")
    mark.unlink()
    assert play.ledger() == ["one", "one/part", "two?"]
    assert play.engine.get_run("r").retry() == {**DONE, "steps_executed": 2}
    assert play.ledger() == ["two?", "three", "three/part"]
    play.sound()


def test_what_failed_behind_its_step_is_made_again(engine: Engine) -> None:
    """The callback raised: the step had ended well, and is on record as failed all the same."""
    calls: list[int] = []

    def callback(current: int, _total: int) -> None:
        calls.append(current)
        if len(calls) == 1:
            raise ValueError("no paper")

    class Plain(BaseStep[Context]):
        name, progress_weight = "plain", 1.0

        def execute(self, context: Context) -> StepResult:
            context.number += 1
            return StepResult()

    def made() -> Pipeline:
        return Pipeline(engine, Plain(), callback=callback, run_id="r")

    with pytest.raises(StepFailed, match="no paper"):
        made().execute()
    assert engine.get_run("r").retry() is None
    again = made()
    assert again.execute() == {"success": True, "steps_executed": 1, "steps_total": 1}
    assert again.context.number == 1
    assert made().execute() == {"success": True, "steps_executed": 1, "steps_total": 1}, "as it is on record"


def test_the_failed_step_is_skipped(play: Play) -> None:
    failed(play, "two")
    assert play.engine.get_run("r").retry(skip=["two"]) == {**DONE, "steps_executed": 2}
    assert play.ledger() == ["three", "three/part"]
    assert play.steps() == {"one": "succeeded", "two": "skipped", "three": "succeeded"}
    assert play.run() == {**DONE, "steps_executed": 2}
    play.sound()


def test_a_later_step_is_skipped(play: Play) -> None:
    failed(play, "two")
    assert play.engine.get_run("r").retry(skip=["three"]) == {**DONE, "steps_executed": 2}
    # Who takes the run up after a kill behind the one finds the other: they are one commit.
    history = play.engine.get_run("r").history()
    assert len({r["seq"] for r in history if r["record"] in ("Reopened", "SignalReceived")}) == 1
    assert [r["record"] for r in history].count("SignalReceived") == 1
    assert play.ledger() == ["two"]
    assert play.steps() == {"one": "succeeded", "two": "succeeded", "three": "skipped"}
    play.sound()


def test_the_result_of_the_failed_step_is_set(play: Play) -> None:
    failed(play, "two")
    handle = play.engine.get_run("r")
    with pytest.raises(BadArguments, match="--set two: the data of a step's result are an object, got int"):
        handle.retry(set={"two": 3})
    with pytest.raises(UsageError, match="step 'three' has not begun: there is nothing to set"):
        handle.retry(set={"three": {}})
    assert handle.retry(set={"two": {"by": "hand"}}) == DONE
    assert play.ledger() == ["three", "three/part"]
    assert play.data("two") == {"by": "hand"}
    play.sound()


def test_a_finished_step_is_forced_to_run_again(play: Play) -> None:
    failed(play, "two")
    assert play.engine.get_run("r").retry(force=["one"]) == DONE
    assert play.ledger() == ["one", "one/part", "two", "three", "three/part"]
    play.sound()


def test_a_skipped_step_is_forced(play: Play) -> None:
    assert play.run("skipping") == {**DONE, "steps_executed": 2}
    assert play.ledger() == ["one", "one/part", "two?", "three", "three/part"]
    assert play.engine.get_run("r").retry(force=["two"]) == DONE
    assert play.ledger() == ["two", "two/part"]
    play.sound()


def test_names_that_are_none(play: Play) -> None:
    failed(play, "two")
    handle = play.engine.get_run("r")
    wrong: list[dict[str, Any]] = [{"force": ["zz"]}, {"skip": ["zz"]}, {"set": {"zz": {}}}]
    for given in wrong:
        with pytest.raises(UsageError, match="run r has no step 'zz'; it has one, two, three"):
            handle.retry(**given)
    assert handle.status == "failed"


def test_a_run_without_rollback_keeps_what_it_has_done_and_goes_on_at_the_failed_step(play: Play) -> None:
    mark = play.bad("three")
    given = json.dumps({"folder": str(play.folder), "kind": "reversible"})
    done = play("run", "app.py:build", "--id", "r", "--no-rollback", "--input", given)
    assert (done.returncode, done.stderr.splitlines()[-3]) == (1, "error: Step 'three' failed: three is no good")
    assert play.ledger() == ["one", "one/part", "two", "two/part", "three", "three/part"]
    mark.unlink()
    again = play("retry", "r")
    assert (again.returncode, json.loads(again.stdout)) == (0, DONE), again.stderr
    assert play.ledger() == ["three"]
    play.sound()
    (play.folder / "plain.py").write_text(
        "from stepwell import durable_execution\n\n@durable_execution\ndef f(event): ...\n"
    )
    refused = play("run", "plain.py:f", "--no-rollback")
    assert (refused.returncode, refused.stderr) == (2, "error: --no-rollback is for pipelines; plain.py:f is none\n")


def test_a_run_that_was_rolled_back_is_done_anew_by_another_one(play: Play) -> None:
    failed(play, "two", "reversible")
    with pytest.raises(UsageError, match="its finished steps were undone; start a new run"):
        play.engine.get_run("r").retry()
    refused = play("retry", "r", "--skip", "two")
    assert refused.returncode == 2
    assert "a retry starts a new run, which has nothing to force, skip or set yet" in refused.stderr
    dry = play("retry", "r", "--dry-run")
    assert dry.stdout == "would start again, as a new run, what was run r of app:build\n"
    assert play.ledger() == []
    done = play("retry", "r")
    assert (done.returncode, json.loads(done.stdout)) == (0, DONE)
    assert play.ledger() == ["one", "one/part", "two", "two/part", "three", "three/part"]
    assert play.steps()["two"] == "failed", "the first run stays as it was"


def test_retry_on_the_command_line(play: Play) -> None:
    failed(play, "two")
    dry = play("retry", "r", "--dry-run")
    assert dry.stdout == "would run two again in run r of app:build\n"
    assert play("retry", "r", "--skip", "two", "--dry-run").stdout == "would take up run r of app:build\n"
    assert play.ledger() == []
    done = play("retry", "r", "--set", 'two={"by": "hand"}')
    assert (done.returncode, json.loads(done.stdout)) == (0, DONE), done.stderr
    assert done.stderr == "100 %  three  succeeded\n"
    assert play.ledger() == ["three", "three/part"]


# -- fork


def test_a_fork_begins_with_the_results_before_a_step(play: Play) -> None:
    assert play.run("skipping") == {**DONE, "steps_executed": 2}
    play.ledger()
    play.bad("two", "wanted")
    fork = play.engine.get_run("r").fork(at="two", id="f")
    assert play.ledger() == []
    assert fork.resume() == DONE
    assert play.ledger() == ["two?", "two", "two/part", "three", "three/part"]
    assert play.data("one", "f") == {"by": "one"}
    play.sound("f")


def test_a_fork_of_a_failed_run_goes_on_at_the_failed_step(play: Play) -> None:
    failed(play, "two")
    play.engine.get_run("r").fork(id="f")
    assert play.engine.get_run("f").resume() == DONE
    assert play.ledger() == ["two", "two/part", "three", "three/part"]
    with pytest.raises(UsageError, match="run r has no step 'zz'; it has one, two, three"):
        play.engine.get_run("r").fork(at="zz")
    beyond = play.engine.get_run("f").fork(at="one", id="g")
    assert beyond.resume() == DONE
    assert play.ledger() == ["one", "one/part", "two", "two/part", "three", "three/part"]


def test_a_fork_undoes_only_what_it_has_done_itself(play: Play) -> None:
    play.run("reversible")
    play.ledger()
    play.bad("three")
    with pytest.raises(RunFailed, match="Step 'three' failed"):
        play.engine.get_run("r").fork(at="three", id="f").resume()
    assert play.ledger() == ["three", "three/part"]
    play.sound("f")
    with pytest.raises(RunFailed, match="Step 'three' failed"):
        play.engine.get_run("r").fork(at="one", id="g").resume()
    assert play.ledger()[-1] == "-one"
    with pytest.raises(UsageError, match="its finished steps were undone; start a new run"):
        play.engine.get_run("g").fork()


def test_fork_from_a_step_on_the_command_line(play: Play) -> None:
    play.run("group")
    play.ledger()
    done = play("fork", "r", "--from", "right", "--id", "f")
    assert (done.returncode, done.stdout) == (0, "f\n"), done.stderr
    resumed = play("resume", "f")
    assert json.loads(resumed.stdout) == {"success": True, "steps_executed": 4, "steps_total": 4}
    assert play.ledger() == ["right", "right/part", "three", "three/part"]


# -- skip and force, while a run goes on


class Held:
    """A run whose first step waits until it is let go."""

    def __init__(self, engine: Engine, *steps: BaseStep[Any]) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()
        self.pipeline = Pipeline(engine, Step("one", do=self.wait), *steps, run_id="r")
        self.found: list[Any] = []
        self.thread = threading.Thread(target=lambda: self.found.append(self.pipeline.execute()), daemon=True)
        self.thread.start()
        assert self.begun.wait(30)

    def wait(self, _context: Any) -> None:
        self.begun.set()
        assert self.gate.wait(30)

    def end(self) -> Any:
        self.gate.set()
        self.thread.join(30)
        return self.found[0]


class Asked(Step):
    """Skips itself."""

    def can_skip(self, context: Context) -> bool:
        self.calls.append("can_skip")
        return True


def test_a_step_that_has_not_begun_is_skipped(engine: Engine) -> None:
    two, three = Step("two"), Asked("three")
    held = Held(engine, two, three, Step("four"))
    handle = engine.get_run("r")
    handle.skip("two")
    handle.force("three")
    handle.skip("four")
    handle.force("four")
    assert held.end() == {"success": True, "steps_executed": 3, "steps_total": 4}
    assert (two.calls, three.calls) == ([], ["execute"]), "can_skip is not asked"
    assert [(r.success, r.skipped) for r in held.pipeline.context.step_results] == [
        (True, False), (True, True), (True, False), (True, False),
    ]  # fmt: skip
    assert held.pipeline.percents == [25, 50, 75, 100]


@pytest.mark.parametrize("verb", ["skip", "force"])
def test_a_step_that_has_begun_or_ended_cannot_be_decided_about(engine: Engine, verb: str) -> None:
    held = Held(engine, Asked("two"))
    decide: Callable[[str], None] = getattr(engine.get_run("r"), verb)
    told = len(engine.get_run("r").history())
    with pytest.raises(UsageError, match="step 'one' of run r has begun"):
        decide("one")
    with pytest.raises(UsageError, match="run r has no step 'zz'; it has one, two"):
        decide("zz")
    assert len(engine.get_run("r").history()) == told, "nothing was written"
    held.end()
    with pytest.raises(UsageError, match="run r has ended: succeeded"):
        decide("two")


def test_members_of_a_group_are_skipped_by_name(engine: Engine) -> None:
    left, right = Step("left", do=lambda _: StepResult()), Step("right", do=lambda _: StepResult())
    held = Held(engine, ParallelSteps("both", [left, right]))
    engine.get_run("r").skip("left")
    assert held.end() == {"success": True, "steps_executed": 2, "steps_total": 3}
    assert (left.calls, right.calls) == ([], ["execute"])


def test_a_decision_waits_for_a_run_that_nobody_holds(engine: Engine) -> None:
    with pytest.raises(KeyboardInterrupt):
        Pipeline(engine, Step("one", do=raising(KeyboardInterrupt())), Step("two"), run_id="r").execute()
    handle = engine.get_run("r")
    with pytest.raises(UsageError, match="step 'one' of run r has begun"):
        handle.skip("one")
    handle.skip("two")
    two = Step("two")
    assert Pipeline(engine, Step("one"), two, run_id="r").execute() == {
        "success": True, "steps_executed": 1, "steps_total": 2,
    }  # fmt: skip
    assert two.calls == []


def test_other_runs_have_no_steps_to_decide_about(engine: Engine) -> None:
    from stepwell import durable_execution

    @durable_execution(name="plain-one")
    def plain(event: Any, context: Any) -> None:
        context.step(lambda: None, name="one")

    engine.run(plain, id="d")
    with pytest.raises(UsageError, match="run d is no pipeline") as caught:
        engine.get_run("d").skip("one")
    assert caught.value.hint == "stepwell retry d --skip one"


def test_skip_and_force_on_the_command_line(play: Play) -> None:
    failed(play, "two")
    for verb in ("skip", "force"):
        done = play(verb, "r", "three")
        assert (done.returncode, done.stderr) == (
            2, f"error: run r has ended: failed\n  stepwell retry r --{verb} three\n",
        )  # fmt: skip
    play("fork", "r", "--id", "f")
    assert play("skip", "f", "three", "--dry-run").stdout == "would skip three in run f of app:build (pending)\n"
    assert play("skip", "f", "three").stdout == "step three of run f will be skipped\n"
    assert json.loads(play("skip", "f", "two", "--json").stdout) == {"run": "f", "step": "two", "decided": "skip"}
    assert play("force", "f", "two").stdout == "step two of run f will be executed\n"
    assert json.loads(play("resume", "f").stdout) == {**DONE, "steps_executed": 2}
    assert play.ledger() == ["two", "two/part"]


# -- bare orchestrators


def script(engine: Engine, *steps: BaseStep[Any], number: int = 0) -> Pipeline:
    return Pipeline(engine, *steps, context=Context(RuntimeContext(), number=number), run_id="r")


def test_a_bare_orchestrator_that_was_rolled_back_starts_over_from_the_recorded_initial_context(engine: Engine) -> None:
    def count(context: Any) -> None:
        context.once("part", lambda: parts.append(1))
        context.number += 1

    parts: list[int] = []
    with pytest.raises(StepFailed):
        script(engine, Step("one", do=count), Step("two", do=raising(ValueError("no"))), number=5).execute()
    assert engine.get_run("r").retry() is None
    assert engine.get_run("r").status == "interrupted"
    steps = run_object(engine.store, engine.find("r"))["steps"]
    assert [step["status"] for step in steps] == ["pending", "pending"]
    assert parts == [1], "nothing has run yet"
    again = script(engine, Step("one", do=count), Step("two"), number=9)
    assert again.execute() == {"success": True, "steps_executed": 2, "steps_total": 2}
    assert (again.context.number, again.context.seen) == (6, ["one", "two"])
    assert parts == [1, 1]


def test_one_that_fails_again_is_rolled_back_again(engine: Engine) -> None:
    for turn in range(3):
        one, two = Step("one"), Step("two", do=raising(ValueError("no")))
        pipeline = script(engine, one, two)
        with pytest.raises(StepFailed, match="Step 'two' failed: no"):
            pipeline.execute()
        assert (one.calls, two.calls) == (["execute", "rollback"], ["execute", "rollback"]), turn
        assert pipeline.context.seen == ["one", "-two", "-one"]
        engine.get_run("r").retry()


def test_one_that_fails_sooner_undoes_only_what_it_has_done_this_time(engine: Engine) -> None:
    with pytest.raises(StepFailed):
        script(engine, Step("one"), Step("two"), Step("three", do=raising(ValueError("no")))).execute()
    engine.get_run("r").retry()
    one, two, three = Step("one", do=raising(ValueError("not even this"))), Step("two"), Step("three")
    with pytest.raises(StepFailed, match="Step 'one' failed: not even this"):
        script(engine, one, two, three).execute()
    assert (one.calls, two.calls, three.calls) == (["execute", "rollback"], [], [])


def test_a_retry_of_a_bare_orchestrator_on_the_command_line(play: Play) -> None:
    with pytest.raises(StepFailed):
        script(play.engine, Step("one"), Step("two", do=raising(ValueError("no")))).execute()
    refused = play("retry", "r", "--skip", "two")
    assert refused.returncode == 2
    assert "it is done anew, and there is nothing to force, skip or set yet" in refused.stderr
    done = play("retry", "r")
    assert done.returncode == 5
    assert "run r is open again: run r goes on when " in done.stderr
    assert "is run again with the same run_id; nobody else continues it" in done.stderr
    assert play("resume", "r").returncode == 2
    assert script(play.engine, Step("one"), Step("two")).execute()["steps_executed"] == 2


def test_a_bare_orchestrator_cannot_be_forked(engine: Engine) -> None:
    script(engine, Step("one")).execute()
    with pytest.raises(UsageError, match=r"run r is driven by .* alone, and so would be a fork of it") as caught:
        engine.get_run("r").fork()
    assert caught.value.hint == "run the script with another run_id, or give the pipeline an import path"


def test_a_bare_orchestrator_that_failed_with_nothing_to_undo_goes_on_at_the_failed_step(engine: Engine) -> None:
    class Plain(BaseStep[Context]):
        progress_weight = 1.0
        name = ""

        def __init__(self, name: str, *, fails: bool = False) -> None:
            self.name = name
            self.fails = fails

        def execute(self, context: Context) -> StepResult:
            context.seen.append(self.name)
            return StepResult(success=not self.fails, error="no")

    with pytest.raises(StepFailed):
        script(engine, Plain("one"), Plain("two", fails=True)).execute()
    engine.get_run("r").retry()
    again = script(engine, Plain("one"), Plain("two"))
    assert again.execute() == {"success": True, "steps_executed": 2, "steps_total": 2}
    assert again.context.seen.count("one") == 1
    assert isinstance(again.made, Orchestrator)
