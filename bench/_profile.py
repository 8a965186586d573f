"""Where the time goes: what the engine itself costs, where a commit costs nothing."""

from __future__ import annotations

import asyncio
import cProfile
import io
import pstats
import re
import time
from typing import TYPE_CHECKING, Any

from bench import _work
from bench._rows import table
from stepwell import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COUNT, TIMES, LINES = 300, 12, 12


def costs(engine: Engine) -> dict[str, tuple[str, float]]:
    """For each workload: what is counted, and microseconds of the processor for one of it; the best of some."""

    def many() -> None:
        async def all_at_once() -> None:
            for _ in range(COUNT // 50):
                await asyncio.gather(*(engine.run_async(_work.one_async) for _ in range(50)))

        asyncio.run(all_at_once())

    asked: dict[str, tuple[str, Callable[[], Any]]] = {
        "W1": ("a step", lambda: engine.run(_work.steps, {"n": COUNT})),
        "W2": ("a run", lambda: [engine.run(_work.one) for _ in range(COUNT)]),
        "W2c 50": ("a run", many),
        "W4 async": ("an item", lambda: engine.run(_work.map_async, {"n": COUNT})),
        "W4 threads": ("an item", lambda: engine.run(_work.map_threads, {"n": COUNT})),
    }
    found = {}
    for name, (what, work) in asked.items():
        best = float("inf")
        for _ in range(TIMES):
            begun = time.process_time()
            work()
            best = min(best, time.process_time() - begun)
        found[name] = what, best / COUNT * 1e6
    return found


def costs_table(found: Mapping[str, tuple[str, float]], limits: Mapping[str, float]) -> str:
    """With the ratio that each would reach if commits took no time: no disk makes it higher."""
    body = [
        (name, f"{taken:.0f} µs {what}", *(f"{1e6 / taken / most:.1f}" for most in limits.values()))
        for name, (what, taken) in found.items()
    ]
    return table(("workload", "processor time on memory://", *(f"most on {store}" for store in limits)), body)


def hottest(engine: Engine) -> dict[str, str]:
    """The first lines of a profile, by the time in the function itself."""
    return {
        "W2": _profile(lambda: [engine.run(_work.one) for _ in range(1000)]),
        "W4 async": _profile(lambda: asyncio.run(engine.run_async(_work.map_async, {"n": 2000}))),
    }


def _profile(work: Callable[[], Any]) -> str:
    work()
    profile = cProfile.Profile()
    profile.runcall(work)
    out = io.StringIO()
    pstats.Stats(profile, stream=out).sort_stats("tottime").print_stats(LINES)
    text = out.getvalue()
    text = re.sub(r"\S*/src/stepwell/", "", re.sub(r"\S*/lib/python[\d.]+/", "", text))
    lines = [line.rstrip() for line in text[text.index("ncalls") :].splitlines() if line.strip()]
    return "\n".join(lines)
