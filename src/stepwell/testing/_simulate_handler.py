"""`simulate`: a durable function through thousands of seeded disasters, and whether it always comes to the same."""

from __future__ import annotations

import contextlib
import gc
import random
import warnings
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.durable._function import DurableFunction
from stepwell.errors import StepwellError, UsageError
from stepwell.testing._handler_machine import RUN, Machine
from stepwell.testing._handler_store import Chances

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stepwell.client import RunHandle

HOLDS = (0.0, 2.0, 60.0)
SHOWN = 5
"""Most seeds that are told of one by one."""


class SimulationFailed(StepwellError):
    """Some seeds broke a rule. ``violations``: seed to what was found; empty where the undisturbed run did."""

    def __init__(self, message: str, violations: dict[int, list[str]]) -> None:
        super().__init__(message)
        self.violations = violations


class Simulated(msgspec.Struct, frozen=True):
    """What a simulation without violations went through. ``result``: what the undisturbed run came to."""

    seeds: int
    disasters: int
    result: Any

    def __str__(self) -> str:
        return f"{self.seeds} seeds: no violation"


def simulate(
    handler: Any, input: Any = None, seeds: Iterable[int] = range(1000),
    invariant: Callable[[RunHandle], Any] | None = None, crash: float = 0.15, compare: bool = True,
) -> Simulated:  # fmt: skip
    """Run a durable function once undisturbed, then once for each seed with disasters, on the memory store.

    A seed decides what goes wrong and where (the process ends before, inside and after what it appends and in the
    middle of bodies, an append is refused, a lease is lost, an answer comes twice), and the order in which branches
    run. Time is virtual. Bodies really run, many times: let them do nothing that lasts.

    Args:
        handler: the durable function, or a plain function with its signature.
        input: its event; None: ``{}``.
        seeds: which to play.
        invariant: called with a handle of each run that has ended, the undisturbed one first; it raises, or returns
            False, where something is wrong.
        crash: how likely a disaster is at each append, 0 to 1.
        compare: every seed comes to the same result as the undisturbed run. False for functions whose result depends
            on the time, or on how often an at-most-once step was interrupted.

    Raises:
        SimulationFailed: a seed broke a promise of Stepwell (P1 to P7), came to another result, or the invariant.
        UsageError: the run waits for an answer from outside that no time-out ends.
    """
    if not 0 <= crash <= 1:
        message = f"crash is a likelihood, from 0 to 1, not {crash!r}"
        raise UsageError(message)
    function = handler if isinstance(handler, DurableFunction) else DurableFunction(handler)
    with _unawaited():
        return _simulate(function, {} if input is None else input, seeds, invariant, crash, compare)


@contextlib.contextmanager
def _unawaited() -> Iterator[None]:
    """What a process that ends had begun to await is awaited by nobody; Python need not tell."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        try:
            yield
        finally:
            gc.collect()


def _simulate(
    function: DurableFunction, event: Any, seeds: Iterable[int], invariant: Callable[[RunHandle], Any] | None,
    crash: float, compare: bool,
) -> Simulated:  # fmt: skip
    quiet = _play(function, event, Chances(random.Random("quiet"), 0.0), 60.0, invariant)
    if quiet.found:
        message = f"undisturbed: {quiet.found[0]}"
        raise SimulationFailed(message, {})
    expected, count, disasters = quiet.outcome(), 0, 0
    violations: dict[int, list[str]] = {}
    for seed in seeds:
        machine = play_seed(function, event, seed, crash, invariant)
        found, count, disasters = machine.found, count + 1, disasters + machine.chances.disasters
        if compare and not found and machine.outcome() != expected:
            found.append(f"it came to {_shown(machine.outcome())}, undisturbed to {_shown(expected)}")
        if found:
            violations[seed] = found
            if len(violations) >= SHOWN:
                break
    if violations:
        raise SimulationFailed(_told(violations), violations)
    return Simulated(count, disasters, expected[1])


def play_seed(
    function: DurableFunction, event: Any, seed: int, crash: float, invariant: Callable[[RunHandle], Any] | None
) -> Machine:
    """One seed, to its end."""
    dice = random.Random(f"handler {seed}")
    return _play(function, event, Chances(dice, crash), dice.choice(HOLDS), invariant)


def _play(
    function: DurableFunction, event: Any, chances: Chances, hold: float, invariant: Callable[[RunHandle], Any] | None
) -> Machine:
    machine = Machine(function, event, chances, hold)
    machine.play()
    machine.check()
    if invariant is not None:
        try:
            fine = invariant(machine.engine().get_run(RUN))
        except AssertionError as error:
            machine.found.append(f"invariant: {str(error).splitlines()[0] if str(error) else 'an assertion failed'}")
        else:
            if fine is False:
                machine.found.append("invariant: it is False")
    return machine


def _shown(outcome: tuple[str, Any]) -> str:
    kind, value = outcome
    text = repr(value) if kind in ("value", "status") else f"{kind}: {value}"
    return text if len(text) <= 200 else text[:200] + "…"


def _told(violations: dict[int, list[str]]) -> str:
    lines = [f"seed {seed}: {found[0]}" for seed, found in violations.items()]
    return "\n".join([*lines, f"play the first one again with seeds=[{next(iter(violations))}]"])
