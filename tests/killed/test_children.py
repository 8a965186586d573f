"""A run that invokes others over a queue, and the worker of both killed with SIGKILL at seeded points."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

from stepwell import Engine
from stepwell.client._functions import load_target
from tests.killed.stage import succeeded, violations

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import os
from stepwell import durable_execution

def body(key, value):
    os.write(1, f"begin {key}\\n".encode())
    os.write(1, f"end {key}\\n".encode())
    return value

@durable_execution(name="child", queue="far")
def child(event, context):
    n = event["n"]
    first = context.step(lambda: body(f"{event['of']}/{n}/first", n), name="first")
    context.wait(0.002, name="pause")
    return context.step(lambda: body(f"{event['of']}/{n}/last", first * 10), name="last")

@durable_execution(name="parent")
def parent(event, context):
    of = context.run_id
    ask = lambda ctx, n: ctx.invoke("child", {"of": of, "n": n}, "child")
    values = context.map(range(event["n"]), ask, "each").get_results()
    one = context.invoke("child", {"of": of, "n": 7}, "one")
    return context.step(lambda: body(f"{of}/sum", sum(values) + one), name="sum")
"""
ROUNDS = 20
CHILDREN = 3
LINES = 2 * (2 * (CHILDREN + 1) + 1)
RECORDS = 20


class Worker:
    """``stepwell worker``, and the lines that its bodies write."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "stepwell.cli", "worker", "app.py", "--queue", "default", "--queue", "far"]
        self.process = subprocess.Popen(
            [*command, "--store", "sqlite:///one.db"], cwd=folder, stdout=subprocess.PIPE, bufsize=0
        )

    def line(self) -> str:
        """The next line of a body. Blocks."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def kill(self) -> list[str]:
        """Kill it; what its bodies had still said."""
        self.process.kill()
        return self.process.communicate()[0].decode().splitlines()


def records(engine: Engine, run_id: str) -> int:
    """How much of a run and of its children is on record."""
    handle = engine.get_run(run_id)
    return len(handle.history()) + sum(len(child.history()) for child in handle.children())


def test_children_run_once_whatever_becomes_of_the_worker(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    engine = Engine(f"sqlite:///{tmp_path / 'one.db'}")
    parent = load_target(f"{tmp_path / 'app.py'}:parent")
    worker = Worker(tmp_path)
    said: Counter[str] = Counter()
    try:
        for number in range(ROUNDS):
            dice = random.Random(number)
            run_id = f"round-{number}"
            handle = engine.enqueue(parent, {"n": CHILDREN}, id=run_id)
            if number % 2:
                left = dice.randint(1, LINES - 1)
                while left:
                    line = worker.line()
                    said[line] += 1
                    left -= f" {run_id}/" in line
            else:
                goal = dice.randint(1, RECORDS)
                while records(engine, run_id) < goal:
                    engine.store.wait(0.01)
            said.update(worker.kill())
            worker = Worker(tmp_path)
            handle.wait(30)
            check(engine, run_id, number)
    finally:
        said.update(worker.kill())
        engine.stop()
    ended = {line: count for line, count in said.items() if line.startswith("end ")}
    assert len(ended) == ROUNDS * LINES // 2
    assert max(ended.values()) <= 2


def check(engine: Engine, run_id: str, seed: int) -> None:
    """Result, promises, and each success once."""
    handle = engine.get_run(run_id)
    assert handle.result() == sum(range(CHILDREN)) * 10 + 70, seed
    children = handle.children()
    assert len(children) == CHILDREN + 1, seed
    for run in (handle, *children):
        assert violations(engine, run.id) == [], seed
    assert succeeded(engine, run_id) == {"sum": 1}, seed
    assert all(succeeded(engine, child.id) == {"first": 1, "last": 1} for child in children), seed
