"""`simulate_seed`: one seed gives programs, a plan of disasters, one order of threads, one trace, one verdict."""

from __future__ import annotations

import gc
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.testing._direct import Direction
from stepwell.testing._invariants import Violation
from stepwell.testing._programs import make_program
from stepwell.testing._world import Act, Colour, Plan, StoreKind, World

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stepwell.testing._programs import Program

ACTS: tuple[Act, ...] = ("before", "before", "after", "after", "refused", "lost", "lost", "stalled", "clock", "cancel")

NEIGHBOURLY: tuple[Act, ...] = (
    "before", "after", "refused", "refused", "refused", "lost", "lost", "stalled", "clock", "cancel",
)  # fmt: skip
"""Where several runs share one writer."""


OPEN = 0.75
"""From here to 1 lie the seeds whose runs have to do with the world outside."""


class Report(msgspec.Struct):
    """What became of a seed."""

    seed: int
    store: str
    colour: str
    violations: list[Violation]
    cells: Counter[tuple[str, str]]
    trace: str
    """Hash of all that happened in its order."""
    lives: int
    appends: int
    results: dict[str, Any]
    undisturbed: dict[str, Any]
    """What each run came to where nothing went wrong."""
    groups: int
    """Commits that held more than one batch."""

    @property
    def replay(self) -> str:
        """The line that plays this seed again."""
        return f"python -m stepwell.testing {self.seed} --store {self.store} --colour {self.colour}"


def simulate_seed(
    seed: int, *, store: StoreKind = "memory", colour: Colour = "sync", folder: Path | None = None
) -> Report:
    """Play a seed's programs through their disasters to their ends, and hold what is left to the promises.

    ``folder``: where SQLite files go; many seeds may share one.
    """
    own = None
    if store == "sqlite" and folder is None:
        own = folder = Path(tempfile.mkdtemp(prefix="stepwell-"))
    collects = gc.isenabled()
    gc.disable()  # what is dropped would be told so at a moment that no seed knows: garbage goes between seeds
    try:
        return _simulate(seed, store, colour, folder)
    finally:
        if collects:
            gc.enable()
        if own is not None:
            shutil.rmtree(own)


def _simulate(seed: int, store: StoreKind, colour: Colour, folder: Path | None) -> Report:
    programs, deadly = _programs(seed)
    # The same ids, so that what depends on them is the same; a store of its own.
    calm = Plan(hold=60.0, workers=0.0 if len(programs) == 1 else 1.0)
    quiet = World(f"seed-{seed}", programs, calm, colour, "memory")
    expected = Direction(quiet, None).play()
    plan = _plan(seed, quiet, deadly=deadly)
    world = World(f"seed-{seed}", programs, plan, colour, store)
    results = Direction(world, folder).play()
    for run_id, result in results.items():
        if run_id in expected:
            _compare(world, quiet, run_id, (result, expected[run_id]))
    found = [*quiet.found, *world.found]
    groups = sum(line.startswith("group") for line in world.trace)
    return Report(
        seed, store, colour, found, world.cells, world.hash(), world.lives, world.appends, results, expected,
        groups,
    )  # fmt: skip


def _compare(world: World, quiet: World, run_id: str, came: tuple[tuple[Any, ...], tuple[Any, ...]]) -> None:
    result, expected = came
    tale = world.tales[run_id]
    # What somebody put right may come to something else; and when the time is up, depends on what held it up.
    if result == expected or world.found or tale.repaired or world.plan.deadly:
        return
    if (tale.cancelled and result[0] == "RunCancelled") or "RunTimedOut" in (result[0], expected[0]):
        return
    # So may what ends with a run that somebody cancelled, or put right; and who is let go of hangs on who was first.
    others = [other for other in world.tales.values() if other is not tale]
    if tale.program.outside and any(other.cancelled or other.repaired for other in others):
        return
    if tale.parent is not None and (
        result[0] == "nothing" or tale.letters.told_to_end or quiet.tales[run_id].letters.told_to_end
    ):
        return
    world.say("result", "", f"it came to {result}, undisturbed to {expected}", run_id)


def _programs(seed: int) -> tuple[Sequence[Program], int]:
    """What the runs of this seed do, and how often a body will end its process."""
    dice = random.Random(f"programs {seed}")
    kind = dice.random()
    if kind < 0.2:
        return [make_program(seed * 10 + i + 1_000_000, most=3) for i in range(dice.randint(2, 3))], 0
    if kind > OPEN:
        return [make_program(seed, most=3, outside=True)], 0
    deadly = dice.choice((2, 5, 6)) if kind < 0.25 else 0
    return [make_program(seed, deadly=deadly > 0)], deadly


def _plan(seed: int, quiet: World, *, deadly: int) -> Plan:
    dice = random.Random(f"plan {seed}")
    acts: dict[int, Act] = {}
    bodies: set[int] = set()
    for _ in range(dice.choice([1, 2, 3, 4])):
        if dice.random() < 0.2 and quiet.pauses:
            bodies.add(dice.randint(1, quiet.pauses + 2))
        else:
            acts[dice.randint(1, quiet.appends + 3)] = dice.choice(NEIGHBOURLY if len(quiet.tales) > 1 else ACTS)
    if deadly:
        # Before it is taken for deadly the step ends its process five times, with some appends each time.
        acts, bodies = {at + dice.choice((0, 10, 14, 18)): act for at, act in acts.items()}, set()
    hold, threads = dice.choice([0.0, 2.0, 60.0]), dice.choice([1, 2, 4, 64])
    repairs = dice.choice([1, 2]) if deadly or dice.random() < 0.25 else 0
    return Plan(acts, frozenset(bodies), hold, threads, deadly, repairs, 1.0 if len(quiet.tales) > 1 else 0.5)


def seeds_of(first: int, count: int) -> Iterator[tuple[int, StoreKind, Colour]]:
    """How many seeds are split: one in fifty on SQLite, every other one async."""
    for seed in range(first, first + count):
        store: StoreKind = "sqlite" if seed % 50 in (20, 41) else "memory"
        yield seed, store, "async" if seed % 2 else "sync"
