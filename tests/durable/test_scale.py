"""Many at once: items that wait, runs that are parked, values that are large."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.testing import VirtualClock
from tests.durable.kit import giver
from tests.durable.twins import Way, coloured, violations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MIB = 1024 * 1024
MAP = """
import json, sys, threading
from stepwell import Engine, durable_execution

colour, hold, count, path = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
most = 0

def seen():
    global most
    most = max(most, threading.active_count())

def item(context, item):
    seen()
    context.wait(0.02)
    return context.step(lambda: item, name="s")

async def item_async(context, item):
    seen()
    await context.wait(0.02)
    return await context.step(lambda: item, name="s")

def handler(event, context):
    return sum(context.map(range(count), item, "m").get_results())

async def handler_async(event, context):
    return sum((await context.map(range(count), item_async, "m")).get_results())

engine = Engine(f"sqlite:///{path}", hold=hold)
value = engine.run(durable_execution(handler if colour == "def" else handler_async), {}, id="r")
engine.stop()
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps([value, most, peak]))
"""


@pytest.mark.parametrize("hold", [0, 60])
def test_a_map_over_10_000_items_that_wait(
    colour: str, hold: float, tmp_path: Path, found: Callable[[str], None]
) -> None:
    command = [sys.executable, "-c", MAP, colour, f"{hold}", "10000", str(tmp_path / "store.db")]
    # The process says itself: what `wait4` tells of a child counts the memory of the parent that it was forked from.
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    value, threads, peak = json.loads(done.stdout)
    found(f"{colour}, hold {hold}: {threads} threads, {peak / 1024:.0f} MiB")
    assert value == sum(range(10_000))
    assert threads <= 70
    assert peak <= 250 * 1024


RUNS, GROUPS = 10_000, 20


def test_10_000_parked_runs_hold_no_threads_and_wake_in_time() -> None:
    """Time is the test's own: what the records say of lateness is due to the engine alone."""
    woken: list[int] = []

    @durable_execution(name="sleeps")
    def sleeps(event: Any, context: Any) -> Any:
        context.wait(event["seconds"])
        woken.append(event["n"])

    others = threading.active_count()
    clock = VirtualClock()
    engine = Engine("memory://parked", functions=[sleeps], hold=0, clock=clock)
    for n in range(RUNS):
        engine.enqueue(sleeps, {"n": n, "seconds": 1000 + n % GROUPS}, id=f"r{n}")

    def until(there: Any) -> None:
        while not there():
            engine.store.poke()
            engine.store.wait(0.01)

    engine.start()
    until(lambda: not engine.host.lives and engine.store.hot_next_wake(queues=("default",), functions=None) is not None)
    until(lambda: not engine.list_runs("pending", limit=1) and not engine.host.lives)
    threads = threading.active_count() - others
    clock.advance(999.5)
    assert not woken
    for group in range(GROUPS):
        clock.advance(1)
        until(lambda group=group: len(woken) == (group + 1) * RUNS // GROUPS)
    until(lambda: not engine.host.lives)
    assert threads <= 70
    assert sorted(woken) == list(range(RUNS))
    for n in range(0, RUNS, 97):
        history = engine.get_run(f"r{n}").history()
        due = next(r["until"] for r in history if r["record"] == "WaitStarted")
        ended = next(r["at"] for r in history if r["record"] == "WaitEnded")
        assert 0 <= ended - due <= 1_000_000
        assert violations(engine, f"r{n}") == []
    engine.stop()


def test_a_result_of_5_mb_is_kept_once(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        first = await context.step(giver("ab" * 2_500_000), name="large")
        second = await context.step(giver(first), name="again")
        await context.wait(0.01)
        return first if first == second else None

    value = way.run(body)
    assert value == "ab" * 2_500_000
    ends = [r for r in way.engine.get_run("r").history() if r["record"] in ("StepSucceeded", "RunSucceeded")]
    assert len({json.dumps(r["payload"]) for r in ends}) == 1
    assert ends[0]["payload"][1] == 5_000_002
    assert way.engine.get_run("r").result() == value


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_answer_of_64_mib_goes_through_a_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "postgres":
        url = str(request.getfixturevalue("postgres_database"))
    else:
        url = f"sqlite:///{tmp_path / 'store.db'}"

    async def body(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask")
        answer = await callback.result()
        return [len(answer), answer[:1], answer[-1:]]

    engine = Engine(url, hold=0)
    handle = engine.start_run(coloured(body, "async def"), {}, id="r")
    while not (found := handle.callbacks()):
        engine.store.wait(0.02)
    engine.send_callback_success(found[0]["id"], "a" + "x" * (64 * MIB - 2) + "z")
    assert handle.result(100) == [64 * MIB, "a", "z"]
    engine.stop()
