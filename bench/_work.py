"""The workloads: the same shape of work as the peers'."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from stepwell import durable_execution

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stepwell import Engine

CLOCK: dict[str, float] = {}


def noop() -> dict[str, Any]:
    return {"ok": True, "i": 1}


async def noop_async() -> dict[str, Any]:
    return {"ok": True, "i": 1}


@durable_execution(name="bench-steps")
def steps(event: Any, context: Any) -> int:
    CLOCK["first"] = time.perf_counter()
    for _ in range(event["n"]):
        context.step(noop, name="noop")
    CLOCK["last"] = time.perf_counter()
    if event.get("stop") and not CLOCK.get("go"):
        raise KeyboardInterrupt
    return int(event["n"])


@durable_execution(name="bench-one")
def one(event: Any, context: Any) -> Any:
    return context.step(noop, name="noop")


@durable_execution(name="bench-one-async")
async def one_async(event: Any, context: Any) -> Any:
    return await context.step(noop_async, name="noop")


@durable_execution(name="bench-named")
def named(event: Any, context: Any) -> int:
    for i in range(event["n"]):
        context.step(lambda: "x" * 98, name=f"step-{i}")
    return int(event["n"])


@durable_execution(name="bench-scoped")
def scoped(event: Any, context: Any) -> int:
    def inside(child: Any) -> None:
        for i in range(100):
            child.step(lambda: "x" * 98, name=f"step-{i}")

    for i in range(event["n"] // 101):
        context.run_in_child_context(inside, name=f"scope-{i}")
    return int(event["n"])


@durable_execution(name="bench-map-async")
async def map_async(event: Any, context: Any) -> int:
    async def item(child: Any, _item: int) -> Any:
        return await child.step(noop_async, name="noop")

    return int((await context.map(range(event["n"]), item)).success_count)


@durable_execution(name="bench-map-threads")
def map_threads(event: Any, context: Any) -> int:
    return int(context.map(range(event["n"]), lambda child, _item: child.step(noop, name="noop")).success_count)


def per_second(count: int, work: Any) -> float:
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def w1(engine: Engine) -> float:
    """Steps a second of one run of 1,000 steps."""
    engine.run(steps, {"n": 20})
    return per_second(1000, lambda: engine.run(steps, {"n": 1000}))


def w2(engine: Engine, *, ids: bool) -> float:
    """Runs a second of one step, one after the other."""
    engine.run(one)
    return per_second(500, lambda: [engine.run(one, id=f"w2-{i}" if ids else None) for i in range(500)])


def w2c(engine: Engine, at_once: int) -> float:
    """Runs a second of one async step, so many at once."""
    rounds = max(2, 500 // at_once)

    async def many() -> None:
        for _ in range(rounds):
            await asyncio.gather(*(engine.run_async(one_async) for _ in range(at_once)))

    return per_second(rounds * at_once, lambda: asyncio.run(many()))


def w4(engine: Engine, function: Any) -> float:
    """Items a second of a map over 1,000."""
    engine.run(function, {"n": 10})
    return per_second(1000, lambda: engine.run(function, {"n": 1000}))


REPLAY = """
import sys, time
import bench._work as work
from stepwell import Engine
engine = Engine(sys.argv[1])
work.CLOCK["go"] = 1
from stepwell.runtime import load
row = engine.find("w3")
begun = time.perf_counter()
load(engine.store, row.id, row.rid)
loaded = time.perf_counter() - begun
engine.run(work.steps, id="w3")
print((work.CLOCK["last"] - work.CLOCK["first"] + loaded) / 1000 * 1e6)
engine.stop()
"""


def w3(engine: Engine) -> float:
    """Microseconds a step to take up a run of 1,000 finished steps in a new process, claim, load and fold included."""
    try:
        engine.run(steps, {"n": 1000, "stop": True}, id="w3")
    except KeyboardInterrupt:
        pass  # the life ended before the run did
    done = subprocess.run([sys.executable, "-c", REPLAY, engine.url], capture_output=True, text=True, check=True)
    return float(done.stdout)


APP = """
from stepwell import durable_execution

@durable_execution
def handler(event, context):
    return context.step(lambda: 1, name="one")
"""
IMPORT = "from stepwell import durable_execution, run, StepConfig"


def cold(times: int, command: Callable[[int], list[str]], folder: Path) -> float:
    """Milliseconds of a process, median."""
    taken = []
    for i in range(times):
        begun = time.perf_counter()
        subprocess.run(command(i), check=True, cwd=folder, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[times // 2] * 1000


def w5(folder: Path) -> tuple[float, float, float]:
    """Milliseconds over a bare interpreter of the import, and of it and a first run of one step; then of the same run
    from the command line, whole. Each process is new, and each store.
    """
    (folder / "app.py").write_text(APP)
    bare = cold(15, lambda _: [sys.executable, "-c", "pass"], folder)
    imported = cold(15, lambda _: [sys.executable, "-c", IMPORT], folder) - bare
    code = f"{IMPORT}; from app import handler; run(handler, store='sqlite:///first-%d.db')"
    first = cold(15, lambda i: [sys.executable, "-c", code % i], folder) - bare
    target = ["-m", "stepwell.cli", "run", "app.py:handler", "--store"]
    shell = cold(15, lambda i: [sys.executable, *target, f"sqlite:///shell-{i}.db"], folder)
    return imported, first, shell
