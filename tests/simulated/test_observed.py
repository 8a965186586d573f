"""Observers and plugins under disasters: they see what is on record, in its order, once; and nothing comes out other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.core import decode_records
from stepwell.durable.lambda_service import OperationStatus
from stepwell.durable.plugin import DurableInstrumentationPlugin, InvocationEndInfo, InvocationStartInfo, OperationInfo
from stepwell.runtime._observe import Committed, Observer
from stepwell.testing import _process
from stepwell.testing._process import Process, SimulatedHost
from stepwell.testing._simulate import simulate_seed
from stepwell.testing._world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.durable._function import DurableFunction
    from stepwell.testing._world import Colour

SEEDS = 150


class Auditor(Observer):
    """Keeps what one process is told, by run and life."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.told: dict[tuple[str, int], list[Any]] = {}

    def on_commit(self, committed: Committed) -> None:
        self.told.setdefault((committed.run_id, committed.epoch), []).extend(committed.records)


def _journal(world: World, run_id: str) -> dict[int, list[Any]]:
    """What is on record of a run, by life."""
    store: Any = world.another_store()
    journal: dict[int, list[Any]] = {}
    for entry in store.record_load(store.run_get(run_id).rid):
        journal.setdefault(entry.epoch, []).extend(decode_records(entry.data))
    return journal


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_observer_is_told_the_journal(monkeypatch: pytest.MonkeyPatch, colour: Colour) -> None:
    auditors: list[Auditor] = []

    class AuditedHost(SimulatedHost):
        def __init__(self, process: Process) -> None:
            super().__init__(process)
            auditors.append(Auditor(process.world))
            self.observers = (auditors[-1],)

    monkeypatch.setattr(_process, "SimulatedHost", AuditedHost)
    lives = told = runs = 0
    for seed in range(SEEDS):
        auditors.clear()
        report = simulate_seed(seed, colour=colour)
        assert report.violations == [], report.replay
        journals: dict[tuple[int, str], dict[int, list[Any]]] = {}
        for auditor in auditors:
            for (run_id, epoch), seen in auditor.told.items():
                place = id(auditor.world), run_id
                if place not in journals:
                    journals[place] = _journal(auditor.world, run_id)
                # A process that ended after a commit tells its observers no more: a tail may be missing.
                assert seen == journals[place][epoch][: len(seen)], report.replay
                lives, told = lives + 1, told + len(seen)
        runs += len(journals)
    assert runs > 2 * SEEDS
    assert lives > runs
    assert told > 10 * SEEDS


class Tally:
    """Of one run: ends that were told, by operation and reopening; and what was wrong."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []


class Watchful(DurableInstrumentationPlugin):
    """One life: holds what it is told to what it was told before."""

    def __init__(self, tally: Tally, reopened: int) -> None:
        self.tally = tally
        self.wrong = tally.wrong
        self.reopened = reopened
        self.open: set[str] = set()
        self.ended: set[str] = set()
        self.alive = False

    def on_invocation_start(self, info: InvocationStartInfo) -> None:
        self.open = {op.operation_id for op in info.updated_operations}
        self.alive = True

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        self.alive = False
        for op in info.operations:
            if op.end_time is not None and op.operation_id in self.open:
                self.wrong.append(f"{op.name} has ended and nobody was told")

    def on_operation_start(self, info: OperationInfo) -> None:
        # Of its own life: a process that hung is told late of what another one has ended meanwhile.
        if info.end_time is not None or info.operation_id in self.ended:
            self.wrong.append(f"{info.name} starts after its end")
        self.open.add(info.operation_id)

    def on_operation_change(self, info: OperationInfo) -> None:
        if info.operation_id not in self.open or info.status not in (OperationStatus.PENDING, OperationStatus.STARTED):
            self.wrong.append(f"{info.name} changes to {info.status} while it is not open")

    def on_operation_end(self, info: OperationInfo) -> None:
        self.tally.ended[info.operation_id, self.reopened] += 1
        if info.operation_id not in self.open or info.is_replayed or not self.alive:
            self.wrong.append(f"{info.name} ends without a start")
        self.open.discard(info.operation_id)
        self.ended.add(info.operation_id)


def _watched(tallies: dict[tuple[int, str], Tally]) -> Callable[[World, float | None], DurableFunction]:
    """`World.function_of`, of functions with a plugin that writes to the tally of its run."""
    real = World.function_of

    def function_of(world: World, timeout: float | None) -> DurableFunction:
        function = real(world, timeout)

        def plugin(info: Any) -> Watchful:
            run_id = str(info.execution_arn).rpartition("/")[2]
            tally = tallies.setdefault((id(world), run_id), Tally())
            return Watchful(tally, world.tales[run_id].durable.reopened)

        function.plugins = (plugin,)
        return function

    return function_of


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_plugins_change_nothing_and_are_told_of_each_end_once(monkeypatch: pytest.MonkeyPatch, colour: Colour) -> None:
    ends = again = 0
    for seed in range(SEEDS):
        plain = simulate_seed(seed, colour=colour)
        tallies: dict[tuple[int, str], Tally] = {}
        with monkeypatch.context() as patch:
            patch.setattr(World, "function_of", _watched(tallies))
            report = simulate_seed(seed, colour=colour)
        assert report.violations == [], report.replay
        for tally in tallies.values():
            assert tally.wrong == [], report.replay
            assert max(tally.ended.values(), default=1) == 1, report.replay
            ends += tally.ended.total()
            again += sum(reopened > 0 for _, reopened in tally.ended)
        # Disturbed runs were held against these; when the time is up depends on how long the frames are kept.
        # So does, of runs that others start, whether they begin at all.
        for run_id, result in plain.undisturbed.items():
            if not run_id.startswith(f"seed-{seed}"):
                continue
            other = report.undisturbed[run_id]
            assert result == other or "RunTimedOut" in (result[0], other[0]), report.replay
    assert ends > 10 * SEEDS
    assert again
