"""Programs as data: a seed gives a tree of durable operations, at most three scopes deep."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

What = Literal[
    "step", "wait", "poll", "child", "map", "parallel", "with_retry", "once", "on_failure", "now", "random", "rollback",
    "fail",
]  # fmt: skip
DEPTH = 3


class Node(msgspec.Struct, frozen=True):
    """One operation. ``inside``: what each scope in it does; which fields mean something depends on ``what``."""

    what: What
    name: str
    inside: tuple[tuple[Node, ...], ...] = ()
    fails: int = 0
    """Attempts that fail before one succeeds."""
    attempts: int = 1
    once: bool = False
    """A crash must not repeat an attempt."""
    undo: bool = False
    undo_fails: int = 0
    caught: bool = True
    seconds: float = 0.0
    width: int = 0
    at_a_time: int | None = None
    early: bool = False
    """A batch that ends with its first success."""
    flat: bool = False


class Program(msgspec.Struct, frozen=True):
    """What one run does."""

    nodes: tuple[Node, ...]

    @property
    def size(self) -> int:
        """Operations in the text of the program."""
        return sum(_size(node) for node in self.nodes)


def _size(node: Node) -> int:
    return 1 + sum(_size(inner) for part in node.inside for inner in part)


LEAVES: tuple[What, ...] = ("step",) * 7 + ("wait", "poll", "once", "on_failure", "now", "random")
SCOPES: tuple[What, ...] = ("child", "map", "parallel", "with_retry")


def make_program(seed: int) -> Program:
    """The program of this seed: the same on every machine."""
    dice = random.Random(f"program {seed}")
    nodes = _nodes(dice, 1, dice.randint(2, 5))
    ends = dice.random()
    if ends < 0.3:
        nodes += (Node("fail", "end"),)
    elif ends < 0.35:
        nodes += (Node("rollback", "back"),)
    return Program(nodes)


def _nodes(dice: random.Random, depth: int, count: int) -> tuple[Node, ...]:
    return tuple(_node(dice, depth, index) for index in range(count))


def _node(dice: random.Random, depth: int, index: int) -> Node:
    if depth < DEPTH and dice.random() < 0.3:
        return _scope(dice, depth, f"{dice.choice('pqr')}{index}")
    what = dice.choice(LEAVES)
    name = f"{dice.choice('abc')}{index}" if dice.random() < 0.8 else dice.choice("abc")
    match what:
        case "step":
            return _step(dice, name)
        case "wait":
            return Node("wait", name, seconds=dice.choice([0, 1, 5, 300]))
        case "poll":
            return Node("poll", name, fails=dice.randint(0, 2), seconds=dice.choice([1, 30]))
        case "on_failure":
            return Node("on_failure", name, undo_fails=_undo_fails(dice))
        case "once":
            return Node("once", f"once{index}")
        case _:
            return Node(what, name)


def _undo_fails(dice: random.Random) -> int:
    return dice.choice([0, 0, 0, 1, 2, 99])


def _step(dice: random.Random, name: str) -> Node:
    once = dice.random() < 0.25
    attempts = dice.choice([1, 2, 3])
    return Node(
        "step",
        name,
        fails=dice.choice([0, 0, 0, 1, 2, 3]),
        attempts=attempts,
        once=once,
        undo=dice.random() < 0.5,
        undo_fails=_undo_fails(dice),
        caught=once or dice.random() < 0.85,
        seconds=dice.choice([1, 1, 20]),
    )


def _scope(dice: random.Random, depth: int, name: str) -> Node:
    what = dice.choice(SCOPES)
    inside = _nodes(dice, depth + 1, dice.randint(1, 2))
    match what:
        case "child":
            return Node("child", name, (inside,), flat=dice.random() < 0.2, caught=dice.random() < 0.8)
        case "with_retry":
            return Node(
                "with_retry", name, (inside,), fails=dice.randint(0, 2), attempts=2, flat=dice.random() < 0.3,
                seconds=dice.choice([1, 60]),
            )  # fmt: skip
        case _:
            width = dice.randint(2, 3)
            parts = (inside,) if what == "map" else tuple(_nodes(dice, depth + 1, 1) for _ in range(width))
            return Node(
                what, name, parts, width=width, at_a_time=dice.choice([None, 1, 2]), early=dice.random() < 0.3,
                flat=dice.random() < 0.2,
            )  # fmt: skip
