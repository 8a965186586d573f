"""The same workloads written for dbos. Run by `bench._peer` with the Python of an environment that has it.

    python bench/_peer_dbos.py URL w1|w2|w2q|w2q-fast|w3-begin|w3-again|w4

Prints one number, or for w2q two: runs a second, and milliseconds of a single run (median).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

from dbos import DBOS  # type: ignore[import-not-found,unused-ignore]

clock: dict[str, float] = {}
over = threading.Event()


def _noop() -> dict[str, Any]:
    return {"ok": True, "i": 1}


async def _noop_async() -> dict[str, Any]:
    return {"ok": True, "i": 1}


def _steps(count: int, die: bool) -> int:
    clock["first"] = time.perf_counter()
    for _ in range(count):
        noop()
    clock["last"] = time.perf_counter()
    if die and sys.argv[2] == "w3-begin":
        os._exit(0)
    over.set()
    return count


def _one() -> Any:
    return noop()


async def _fan(count: int) -> int:
    return len(await asyncio.gather(*(noop_async() for _ in range(count))))


DBOS(
    config={
        "name": "bench",
        "system_database_url": sys.argv[1],
        "application_version": "1",
        "executor_id": "one",
        "log_level": "ERROR",
    }
)
noop, noop_async = DBOS.step()(_noop), DBOS.step()(_noop_async)
steps, one, fan = DBOS.workflow()(_steps), DBOS.workflow()(_one), DBOS.workflow()(_fan)


def per_second(count: int, work: Any) -> float:
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def w1() -> str:
    steps(20, False)
    return f"{per_second(1000, lambda: steps(1000, False))}"


def w2() -> str:
    one()
    return f"{per_second(500, lambda: [one() for _ in range(500)])}"


def w2q(poll: float | None) -> str:
    """``poll``: seconds between two looks of the queue and of who waits; None: as it is delivered."""
    often = {} if poll is None else {"polling_interval_sec": poll}
    DBOS.register_queue("bench", **often)
    DBOS.enqueue_workflow("bench", one).get_result(**often)

    def many() -> None:
        for handle in [DBOS.enqueue_workflow("bench", one) for _ in range(500)]:
            handle.get_result(**often)

    rate = per_second(500, many)
    taken = []
    for _ in range(5 if poll is None else 50):
        begun = time.perf_counter()
        DBOS.enqueue_workflow("bench", one).get_result(**often)
        taken.append((time.perf_counter() - begun) * 1000)
    return f"{rate} {sorted(taken)[len(taken) // 2]}"


def w3() -> str:
    """Microseconds a step of a workflow that is taken up again when the process starts."""
    if sys.argv[2] == "w3-begin":
        steps(1000, True)
    assert over.wait(300)
    return f"{(clock['last'] - clock['first']) / 1000 * 1e6}"


def w4() -> str:
    asyncio.run(fan(10))
    return f"{per_second(1000, lambda: asyncio.run(fan(1000)))}"


DBOS.launch()
WORK: dict[str, Any] = {
    "w1": w1, "w2": w2, "w2q": lambda: w2q(None), "w2q-fast": lambda: w2q(0.01),
    "w3-begin": w3, "w3-again": w3, "w4": w4,
}  # fmt: skip
print(WORK[sys.argv[2]](), flush=True)
os._exit(0)
