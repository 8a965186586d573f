"""Every store keeps every promise of the contract: the suite of `stepwell.testing`, on each kind of store."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from stepwell.errors import Fenced
from stepwell.journal._memory import MemoryStore
from stepwell.testing._store_conformance import StoreConformance
from stepwell.testing._store_rig import NotConforming

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stepwell.journal._api import Batch, Clock, Store
    from stepwell.testing._store_rig import StoreRig

    OpenStore = Callable[[Clock], Store]

every_check = pytest.mark.parametrize("check", StoreConformance.checks())


def memory() -> OpenStore:
    first: list[MemoryStore] = []

    def open_store(clock: Clock) -> Store:
        if not first:
            first.append(MemoryStore("conformance", clock))
        return first[0].view(clock)

    return open_store


@every_check
def test_memory(check: str) -> None:
    StoreConformance(memory()).run(check)


@every_check
def test_sqlite(check: str, tmp_path: Path) -> None:
    from stepwell.journal._sqlite import SqliteStore

    path = tmp_path / "well store.db"
    StoreConformance(lambda clock: SqliteStore(path, clock)).run(check)


@every_check
def test_postgres(check: str, postgres_database: str) -> None:
    from stepwell.journal._postgres import PostgresStore

    StoreConformance(lambda clock: PostgresStore(postgres_database, clock)).run(check)


def test_each_check_states_its_rule() -> None:
    for name in StoreConformance.checks():
        assert inspect.getdoc(getattr(StoreConformance, name)), name


def test_the_suite_needs_no_test_framework() -> None:
    modules = "_store_conformance, _invariants, _clock"
    seen = "[name for name in ('pytest', '_pytest', 'hypothesis') if name in sys.modules]"
    code = f"import sys; from stepwell.testing import {modules}; print({seen})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_the_suite_says_what_a_store_breaks() -> None:
    class Careless(MemoryStore):
        """Writes with any lease."""

        def batch_commit(self, batches):  # type: ignore[no-untyped-def]
            for batch in batches:
                run = self._shared.ids.get(batch.lease.run_id)
                if run is not None and run.hot is not None:
                    batch.lease.epoch, batch.lease.worker = run.hot.epoch, run.hot.owner
            return super().batch_commit(batches)

    with pytest.raises(NotConforming) as caught:
        StoreConformance(lambda clock: Careless("careless", clock)).run("check_append_by_another_worker")
    text = str(caught.value)
    assert "The right epoch with the wrong owner is `Fenced`." in text
    assert "Fenced" in text.split("seen:")[1]


def test_a_check_closes_what_it_opened() -> None:
    opened: list[MemoryStore] = []

    def open_store(clock: Clock) -> Store:
        opened.append(MemoryStore("m", clock))
        return opened[-1]

    class One(StoreConformance):
        def check_fails(self) -> None:
            """Fails."""
            self.open()
            self.open()
            self.expect(False, "it")

    with pytest.raises(NotConforming):
        One(open_store).run("check_fails")
    assert len(opened) == 2
    assert all(store._closed for store in opened)


def test_refused_looks_at_what_is_written() -> None:
    class Leaky(MemoryStore):
        """Answers `Fenced` and writes all the same."""

        def batch_commit(self, batches):  # type: ignore[no-untyped-def]
            results = super().batch_commit(batches)
            return [
                Fenced("so it says") if batch.seq > 1 else result
                for batch, result in zip(batches, results, strict=True)
            ]

    def act(rig: StoreRig) -> None:
        lease = rig.start("r")
        batch: Batch = rig.batch(lease, rig.record())
        rig.refused(Fenced, batch)

    store = Leaky("leaky")
    with pytest.raises(NotConforming, match="on record after the refusal"):
        act(StoreConformance(lambda clock: store))
