"""The workloads: the same shape of work as the peers'."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from stepwell import durable_execution

if TYPE_CHECKING:
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


def w2c(engine: Engine) -> float:
    """Runs a second of one async step, 50 at once."""

    async def many() -> None:
        for _ in range(10):
            await asyncio.gather(*(engine.run_async(one_async) for _ in range(50)))

    return per_second(500, lambda: asyncio.run(many()))


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


def w5() -> float:
    """Milliseconds of the import over a bare interpreter, median of 15."""

    def median(code: str) -> float:
        taken = []
        for _ in range(15):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken.append(time.perf_counter() - begun)
        return sorted(taken)[7] * 1000

    return median("from stepwell import durable_execution, run, StepConfig") - median("pass")
