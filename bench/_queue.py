"""W2q: runs that go through a queue to one worker process."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import _work

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell import Engine

ROOT = Path(__file__).parent.parent
GAP = 0.005
"""Seconds between the end of a single run and the start of the next: each is alone in an idle store."""


class Queued(NamedTuple):
    """Runs a second of many at once, and milliseconds from start to result of single ones."""

    rate: float
    p50: float
    p99: float


@contextmanager
def worker(url: str) -> Iterator[None]:
    """A worker process, ready when its first run has ended."""
    command = [sys.executable, "-m", "stepwell.cli", "worker", "bench._work", "--store", url]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def w2q(engine: Engine, count: int = 500, singles: int = 200) -> Queued:
    """Through the queue of one worker process."""
    with worker(engine.url):
        engine.enqueue(_work.one).result(timeout=60)
        taken = []
        for _ in range(singles):
            time.sleep(GAP)
            begun = time.perf_counter()
            engine.enqueue(_work.one).result(timeout=60)
            taken.append((time.perf_counter() - begun) * 1000)
        taken.sort()

        def many() -> None:
            handles = [engine.enqueue(_work.one) for _ in range(count)]
            for handle in handles:
                handle.result(timeout=60)

        rate = _work.per_second(count, many)
    return Queued(rate, taken[singles // 2], taken[singles * 99 // 100])
