"""`simulate` and ``stepwell simulate``: a user's function through seeded disasters."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Retry, UsageError, durable_execution, durable_step
from stepwell.core import decode_records
from stepwell.core._decide import Execute, Return, decide
from stepwell.testing import simulate
from stepwell.testing._simulate_handler import SimulationFailed, _unawaited, play_seed

if TYPE_CHECKING:
    from pathlib import Path

    from stepwell import RunHandle

bodies: Counter[str] = Counter()


@durable_step
def charge(step_context: Any, amount: int) -> int:
    bodies["charge"] += 1
    return amount


@durable_step
def flaky(step_context: Any) -> int:
    if step_context.attempt < 3:
        raise ValueError(f"attempt {step_context.attempt}")
    return int(step_context.attempt)


@durable_execution
def order(event: Any, context: Any) -> Any:
    paid = context.step(charge(event.get("amount", 7)))
    context.wait(3600)
    tried = context.step(flaky(), retry=Retry(5, delay=600))

    def item(inside: Any, n: int, *_: Any) -> Any:
        inside.wait(n)
        return inside.step(lambda: n * 2, name="double")

    return [paid, tried, context.map([1, 2, 3], item).get_results(), context.invoke(doubles, {"n": 4})]


@durable_execution
async def order_async(event: Any, context: Any) -> Any:
    paid = await context.step(charge(event.get("amount", 7)))
    await context.wait(3600)
    tried = await context.step(flaky(), retry=Retry(5, delay=600))

    async def double(n: int) -> int:
        return n * 2

    async def item(inside: Any, n: int, *_: Any) -> Any:
        await inside.wait(n)
        return await inside.step(lambda: double(n), name="double")

    done = (await context.map([1, 2, 3], item)).get_results()
    return [paid, tried, done, await context.invoke(doubles_async, {"n": 4})]


@durable_execution
def doubles(event: Any, context: Any) -> Any:
    context.wait(5)
    return context.step(lambda: event["n"] * 2, name="double")


@durable_execution
async def doubles_async(event: Any, context: Any) -> Any:
    await context.wait(5)
    return await context.step(lambda: event["n"] * 2, name="double")


both = pytest.mark.parametrize("handler", [order, order_async], ids=["sync", "async"])


@both
def test_a_sound_function_breaks_nothing(handler: Any) -> None:
    seen: list[Any] = []

    def invariant(handle: RunHandle) -> None:
        seen.append((handle.id, handle.status, handle.result()))

    done = simulate(handler, {"amount": 3}, seeds=range(60), invariant=invariant)
    assert str(done) == "60 seeds: no violation"
    assert done.result == [3, 3, [2, 4, 6], 8]
    assert done.disasters > 60
    assert seen == [("simulated", "succeeded", done.result)] * 61


@both
def test_a_seed_is_one_journal(handler: Any) -> None:
    def journal(seed: int) -> list[list[str]]:
        with _unawaited():
            store = play_seed(handler, {}, seed, 0.3, None)._reader
        rows = [row for run in store.run_list(_all(), limit=10) for row in store.record_load(run.rid)]
        return [[repr(record) for record in decode_records(row.data) if not hasattr(record, "worker")] for row in rows]

    def _all() -> Any:
        from stepwell.journal import RunFilter

        return RunFilter()

    assert [journal(seed) for seed in range(8)] == [journal(seed) for seed in range(8)]
    assert journal(1) != journal(2)


def test_disasters_are_as_likely_as_they_are_told_to_be() -> None:
    assert simulate(order, seeds=range(5), crash=0).disasters == 0
    few, many = (simulate(order, seeds=range(20), crash=crash).disasters for crash in (0.05, 0.5))
    assert 0 < few < many
    with pytest.raises(UsageError, match="from 0 to 1"):
        simulate(order, crash=15)


def test_bodies_run_again_in_a_crash_and_an_invariant_sees_it() -> None:
    def once(handle: RunHandle) -> bool:
        count, bodies["charge"] = bodies["charge"], 0
        return count == 1

    bodies.clear()
    with pytest.raises(SimulationFailed, match=r"^seed \d+: invariant: it is False") as failed:
        simulate(order, seeds=range(40), invariant=once)
    seed = next(iter(failed.value.violations))
    assert f"seeds=[{seed}]" in str(failed.value)
    with pytest.raises(SimulationFailed, match=f"^seed {seed}: invariant"):
        simulate(order, seeds=[seed], invariant=once)


def test_an_assertion_of_the_invariant_is_told() -> None:
    def wrong(handle: RunHandle) -> None:
        raise AssertionError("the books do not balance")

    with pytest.raises(SimulationFailed, match=r"^undisturbed: invariant: the books do not balance$"):
        simulate(order, seeds=range(3), invariant=wrong)


def test_a_result_that_hangs_on_crashes_is_found() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        lives.append(1)
        context.step(lambda: 1, name="one")
        context.step(lambda: 1, name="two")
        return len(lives)

    lives: list[int] = []

    def forget(handle: RunHandle) -> None:
        lives.clear()

    with pytest.raises(SimulationFailed, match=r"^seed \d+: it came to [2-9], undisturbed to 1"):
        simulate(handler, seeds=range(40), invariant=forget)
    assert str(simulate(handler, seeds=range(40), invariant=forget, compare=False)) == "40 seeds: no violation"


def test_code_that_asks_for_something_else_is_found() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        kinds.append(1)
        if len(kinds) % 2:
            context.step(lambda: None, name="same")
        else:
            context.wait(1, name="same")
        context.step(lambda: 1, name="end")

    kinds: list[int] = []
    with pytest.raises(SimulationFailed, match="it is blocked: code-changed: step 'same' at same was recorded as"):
        simulate(handler, seeds=range(40), invariant=lambda handle: kinds.clear())


def test_an_at_most_once_step_fails_rather_than_to_run_twice() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(charge(1), at_most_once=True)

    def at_most_once(handle: RunHandle) -> bool:
        count, bodies["charge"] = bodies["charge"], 0
        return count <= 1

    bodies.clear()
    assert simulate(handler, seeds=range(60), invariant=at_most_once, compare=False, crash=0.4).disasters > 20


def test_a_broken_engine_is_caught_in_the_act(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(run: Any, want: Any, now: int) -> Any:
        decision = decide(run, want, now)
        again = isinstance(decision, Return) and want.name == "charge"
        return Execute(1, fresh=False) if again else decision

    monkeypatch.setattr("stepwell.core._flow.decide", forgetful)
    monkeypatch.setattr("stepwell.durable._operations.replay", lambda *_: None)
    with pytest.raises(SimulationFailed, match=r"step 'charge' ran twice: its success was on record"):
        simulate(order, seeds=range(40))


def test_who_waits_for_an_answer_is_told_that_nobody_gives_one() -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.create_callback("approval").result()

    with pytest.raises(UsageError, match="waits for approval, and in a simulation nobody answers"):
        simulate(handler)


def test_what_is_no_exception_comes_out() -> None:
    class Stop(BaseException):
        pass

    def body() -> None:
        raise Stop

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(body, name="stops")

    with pytest.raises(Stop):
        simulate(handler, seeds=range(2))


# -- the command

APP = """
from stepwell import durable_execution

@durable_execution
def handler(event, context):
    print("hello")
    return context.step(lambda: event.get("n", 1) + 1, name="add")

lives = 0

@durable_execution
def counts(event, context):
    global lives
    lives += 1
    context.step(lambda: None, name="one")
    return lives
"""


def command(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APP)
    line = [sys.executable, "-m", "stepwell.cli", "simulate", *args]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_says_how_many_seeds_it_played(tmp_path: Path) -> None:
    done = command(tmp_path, "app.py:handler", "--seeds", "20", "--input", '{"n": 3}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "20 seeds: no violation\n", "")


def test_the_command_shows_the_line_that_plays_a_seed_again(tmp_path: Path) -> None:
    done = command(tmp_path, "app.py:counts", "--seeds", "3", "--input", '{"a b": 1}')
    assert done.returncode == 1
    first, *_, again = done.stdout.splitlines()
    assert first == "seed 0: it came to 2, undisturbed to 1" or first.startswith("seed 0: it came to ")
    assert again == "play it again: stepwell simulate app.py:counts --seed 0 --input '{\"a b\": 1}'"


@pytest.mark.parametrize("args", [["app.py:nobody"], ["app.py:handler", "--input", "{"], ["nofile.py:handler"]])
def test_the_command_refuses_what_cannot_be(tmp_path: Path, args: list[str]) -> None:
    assert command(tmp_path, *args).returncode == 2
