"""Programs as data: a seed gives a tree of durable operations, at most three scopes deep."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from stepwell.testing._programs_outside import Make

What = Literal[
    "step", "wait", "poll", "child", "map", "parallel", "with_retry", "once", "on_failure", "now", "random", "uuid",
    "progress", "dropped", "rollback", "fail", "callback", "submit", "approve", "signal", "look", "publish", "invoke",
    "start", "pending", "gather", "race",
]  # fmt: skip
Limit = Literal["time", "beat"]
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
    custom: bool = False
    """The user's own function says so."""
    by_key: bool = False
    """Items are keyed by what they are."""
    flat: bool = False
    limit: Limit | None = None
    """What limits an attempt: its time, or the time between two heartbeats."""
    slow: int = 0
    """Attempts that take too long before one does not."""
    far: bool = False
    """The body runs in another process, which dies in the first ``dies`` attempts."""
    dies: int = 0
    transactional: bool = False
    """It shares a transaction with the store, where the store has any."""
    deadly: bool = False
    """Its body may end the process, time and again."""
    beat: float = 0.0
    """Seconds between two heartbeats of whoever answers a callback; 0 for none."""
    seed: int = 0
    """Of the program of another run."""
    unknown: bool = False
    """Nobody knows the function of that run."""
    kind: What = "step"
    """What goes on beside the code."""


class Program(msgspec.Struct, frozen=True):
    """What one run does."""

    nodes: tuple[Node, ...]
    timeout: float | None = None
    """Seconds for the whole run."""
    outside: bool = False
    """Others answer it, or it starts other runs."""

    @property
    def size(self) -> int:
        """Operations in the text of the program."""
        return sum(_size(node) for node in self.nodes)


def _size(node: Node) -> int:
    return 1 + sum(_size(inner) for part in node.inside for inner in part)


LEAVES: tuple[What, ...] = (
    *("step",) * 10, "wait", "poll", "once", "on_failure", "now", "random", "uuid", "progress", "dropped",
)  # fmt: skip
SCOPES: tuple[What, ...] = ("child", "map", "parallel", "with_retry")


def make_program(seed: int, *, least: int = 2, most: int = 5, deadly: bool = False, outside: bool = False) -> Program:
    """The program of this seed, with so many operations at its top: the same on every machine.

    ``deadly``: it begins with a step that may end its process. ``outside``: others answer it, or it starts other runs.
    """
    dice = random.Random(f"program {seed}")
    nodes = _open_nodes(dice, 1, dice.randint(least, most)) if outside else _nodes(dice, 1, dice.randint(least, most))
    if deadly:
        nodes = (Node("step", "deadly", attempts=2, deadly=True, seconds=1), *nodes)
    ends = dice.random()
    if ends < 0.3:
        nodes += (Node("fail", "end"),)
    elif ends < 0.35:
        nodes += (Node("rollback", "back"),)
    return Program(nodes, dice.choice((40.0, 400.0, 2000.0)) if dice.random() < 0.15 else None, outside)


def _nodes(dice: random.Random, depth: int, count: int) -> tuple[Node, ...]:
    return tuple(_node(dice, depth, index) for index in range(count))


def _open_nodes(dice: random.Random, depth: int, count: int) -> tuple[Node, ...]:
    from stepwell.testing._programs_outside import outside_node

    return tuple(
        outside_node(dice, depth, index, _open_nodes, DEPTH)
        if dice.random() < 0.6
        else _node(dice, depth, index, _open_nodes)
        for index in range(count)
    )


def _node(dice: random.Random, depth: int, index: int, make: Make | None = None) -> Node:
    if depth < DEPTH and dice.random() < 0.3:
        return _scope(dice, depth, f"{dice.choice('pqr')}{index}", make or _nodes)
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
    how = dice.random()
    limited, far = how < 0.15, 0.15 <= how < 0.25
    return Node(
        "step",
        name,
        fails=dice.choice([0, 0, 0, 1, 2, 3]),
        attempts=dice.choice([1, 2, 3]),
        once=once,
        undo=dice.random() < 0.5,
        undo_fails=_undo_fails(dice),
        caught=once or dice.random() < 0.85,
        seconds=dice.choice([1, 1, 20]),
        limit=dice.choice(("time", "beat")) if limited else "time" if far and dice.random() < 0.5 else None,
        slow=dice.choice([0, 1, 1, 2]) if limited or far else 0,
        far=far,
        dies=dice.choice([0, 0, 1]) if far else 0,
        transactional=0.25 <= how < 0.6 and not once,
    )


def _scope(dice: random.Random, depth: int, name: str, make: Make) -> Node:
    what = dice.choice(SCOPES)
    inside = make(dice, depth + 1, dice.randint(1, 2))
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
            parts = (inside,) if what == "map" else tuple(make(dice, depth + 1, 1) for _ in range(width))
            return Node(
                what, name, parts, width=width, at_a_time=dice.choice([None, 1, 2]), early=dice.random() < 0.3,
                custom=dice.random() < 0.5, by_key=dice.random() < 0.3, flat=dice.random() < 0.2,
            )  # fmt: skip
