"""Observers and plugins under disasters: they see what is on record, in its order, once; and nothing comes out other."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.core import decode_records
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus
from stepwell.durable.plugin import DurableInstrumentationPlugin, InvocationEndInfo, InvocationStartInfo, OperationInfo
from stepwell.runtime import Host
from stepwell.runtime._observe import Committed, Observer
from stepwell.testing import _simulate
from stepwell.testing._play import play_async, play_sync
from stepwell.testing._simulate import simulate_seed

if TYPE_CHECKING:
    from stepwell.testing._world import Colour

SEEDS = 150


class Auditor(Observer):
    def __init__(self) -> None:
        self.told: dict[int, list[Any]] = {}

    def on_commit(self, committed: Committed) -> None:
        self.told.setdefault(committed.epoch, []).extend(committed.records)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_an_observer_is_told_the_journal(monkeypatch: pytest.MonkeyPatch, colour: Colour) -> None:
    hosts: list[tuple[Host, Auditor]] = []

    def host(*args: Any, **options: Any) -> Host:
        auditor = Auditor()
        made = Host(*args, observers=[auditor], **options)
        hosts.append((made, auditor))
        return made

    monkeypatch.setattr(_simulate, "Host", host)
    lives = told = 0
    for seed in range(SEEDS):
        hosts.clear()
        report = simulate_seed(seed, colour=colour)
        assert report.violations == [], report.replay
        store: Any = hosts[-1][0].store
        last = store._real
        row = last.run_get(f"seed-{seed}")
        journal: dict[int, list[Any]] = {}
        for entry in last.record_load(row.rid):
            journal.setdefault(entry.epoch, []).extend(decode_records(entry.data))
        for made, auditor in hosts:
            if made.store._real is not last and getattr(made.store._real, "_data", 0) is not last._data:  # type: ignore[attr-defined]
                continue  # of the undisturbed run
            for epoch, seen in auditor.told.items():
                # A process that ended after a commit tells its observers no more: a tail may be missing.
                assert seen == journal[epoch][: len(seen)], report.replay
                lives, told = lives + 1, told + len(seen)
    assert lives > SEEDS
    assert told > 10 * SEEDS


class Watchful(DurableInstrumentationPlugin):
    """Holds what it is told to what it was told before."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.ended: Counter[str] = Counter()
        self.open: set[str] = set()
        self.alive = self.over = False

    def on_invocation_start(self, info: InvocationStartInfo) -> None:
        self.open = {op.operation_id for op in info.updated_operations}
        self.alive = True

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        self.alive, self.over = False, info.status in (InvocationStatus.SUCCEEDED, InvocationStatus.FAILED)
        for op in info.operations:
            if op.end_time is not None and op.operation_id in self.open:
                self.wrong.append(f"{op.name} has ended and nobody was told")

    def on_operation_start(self, info: OperationInfo) -> None:
        if info.end_time is not None or info.operation_id in self.ended:
            self.wrong.append(f"{info.name} starts after its end")
        self.open.add(info.operation_id)

    def on_operation_change(self, info: OperationInfo) -> None:
        if info.operation_id not in self.open or info.status not in (OperationStatus.PENDING, OperationStatus.STARTED):
            self.wrong.append(f"{info.name} changes to {info.status} while it is not open")

    def on_operation_end(self, info: OperationInfo) -> None:
        self.ended[info.operation_id] += 1
        if info.operation_id not in self.open or info.is_replayed or not self.alive:
            self.wrong.append(f"{info.name} ends without a start")
        self.open.discard(info.operation_id)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_plugins_change_nothing_and_are_told_of_each_end_once(monkeypatch: pytest.MonkeyPatch, colour: Colour) -> None:
    function = play_sync if colour == "sync" else play_async
    ends = 0
    for seed in range(SEEDS):
        monkeypatch.setattr(function, "plugins", ())
        plain = simulate_seed(seed, colour=colour)
        watchers: dict[int, Watchful] = {}

        def plugin(info: Any, watchers: dict[int, Watchful] = watchers) -> Any:
            # One for the undisturbed run, which is played first, and one for the other.
            if not watchers or watchers[len(watchers) - 1].over:
                watchers[len(watchers)] = Watchful()
            return watchers[len(watchers) - 1]

        monkeypatch.setattr(function, "plugins", (plugin,))
        report = simulate_seed(seed, colour=colour)
        assert report.violations == [], report.replay
        for watcher in watchers.values():
            assert watcher.wrong == [], report.replay
            assert max(watcher.ended.values(), default=1) == 1, report.replay
            ends += watcher.ended.total()
        assert plain.result[0] == report.result[0] or "RunCancelled" in (plain.result[0], report.result[0])
    assert ends > 10 * SEEDS
