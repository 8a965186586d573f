"""Operations of simulated programs that something outside of the run ends, and those that go on beside the code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.testing._programs import Node, Program, make_program

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from stepwell.testing._programs import What

    Make = Callable[[random.Random, int, int], tuple[Node, ...]]
    """Nodes at a depth, so many."""

LEAVES: tuple[What, ...] = (
    *("callback",) * 4, *("submit",) * 3, "approve", *("signal",) * 4, "look", "publish", *("invoke",) * 3, "start",
)  # fmt: skip
BESIDE: tuple[What, ...] = ("pending", "pending", "gather", "race")
OLDEST = 2
"""Generations of children."""


def outside_node(dice: random.Random, depth: int, index: int, make: Make, deepest: int) -> Node:
    """One operation of these."""
    if depth < deepest and dice.random() < 0.35:
        return _beside(dice, depth, f"{dice.choice('tu')}{index}", make)
    what = dice.choice(LEAVES)
    name = f"{dice.choice('xyz')}{index}"
    limited = dice.random() < 0.5
    seconds = dice.choice((5, 60, 60, 300)) if limited else 0
    match what:
        case "callback" | "submit":
            fails, attempts = (dice.choice((0, 0, 1)), dice.choice((1, 2))) if what == "submit" else (0, 1)
            inside = (make(dice, depth + 1, 1),) if what == "callback" and depth < deepest else ()
            return Node(
                what, name, inside, seconds=seconds, beat=dice.choice((0, 10, 30)) if limited else 0, fails=fails,
                attempts=attempts, caught=limited or dice.random() < 0.8,
            )  # fmt: skip
        case "approve":
            return Node("approve", name, seconds=seconds, by_key=dice.random() < 0.5)
        case "signal":
            # Who waits for ever takes from other names than who gives up: or one of them would wait in vain.
            return Node("signal", dice.choice("gh") if limited else dice.choice("st"), seconds=seconds)
        case "look":
            return Node("look", dice.choice("gh"))
        case "invoke" | "start":
            short = what == "invoke" and dice.random() < 0.25
            return Node(
                what, name, seed=dice.randrange(1_000_000), seconds=dice.choice((1, 20)) if short else 0,
                unknown=dice.random() < 0.1, caught=short or dice.random() < 0.85,
            )  # fmt: skip
        case _:
            return Node(what, name)


def _beside(dice: random.Random, depth: int, name: str, make: Make) -> Node:
    what = dice.choice(BESIDE)
    if what == "pending":
        kind: What = dice.choice(("step", "child", "wait", "invoke", "submit"))
        inside = (make(dice, depth + 1, 1), make(dice, depth + 1, 1))
        return Node(
            "pending", name, inside, kind=kind, early=dice.random() < 0.35, custom=dice.random() < 0.2,
            seed=dice.randrange(1_000_000), seconds=dice.choice((0, 1, 30)),
        )  # fmt: skip
    parts = tuple(make(dice, depth + 1, 1) for _ in range(dice.randint(2, 3)))
    return Node(what, name, parts, by_key=dice.random() < 0.4, seconds=dice.choice((0, 1, 30)))


def child_program(seed: int, generation: int) -> Program:
    """What a run does that another one of this generation (from 0) starts."""
    most = 1 if generation else 2
    outside = generation + 1 < OLDEST and seed % 3 == 0
    return Program(make_program(seed, least=1, most=most, outside=outside).nodes)
