"""What goes wrong in the run's own store is never an operation's error: the life ends, and the run goes on later."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, NonDeterminismError, Retry, durable_execution, durable_step
from stepwell.core import CancelRequested, Parked, StepSucceeded
from stepwell.errors import Corrupt, JournalError
from stepwell.runtime import CANCEL, encode_cancel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.durable.conftest import Run

FULL = "the disk is full"


def fail_once(patch: pytest.MonkeyPatch, thing: Any, method: str, when: Any = lambda *_: True) -> None:
    """The next call for which ``when`` holds raises a JournalError and does nothing."""
    true, left = getattr(thing, method), [1]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left and when(*args):
            left.clear()
            raise JournalError(FULL)
        return true(*args, **kwargs)

    patch.setattr(thing, method, call)


def holds_success(batches: Any) -> bool:
    return any(isinstance(record, StepSucceeded) for batch in batches for record in batch.records)


@pytest.mark.parametrize("method", ["batch_commit", "blob_put"])
def test_a_refused_write_is_no_error_of_the_step(run: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    caught: list[BaseException] = []

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        try:
            return len(context.step(lambda: "x" * 100_000, name="big", retry=Retry(5, delay=0.001)))
        except Exception as error:
            caught.append(error)
            raise

    fail_once(monkeypatch, run.engine.store, method, holds_success if method == "batch_commit" else lambda *_: True)
    with pytest.raises(JournalError, match=FULL):
        run(handler, id="r")
    assert caught == [], "user code must not get to compensate for a full disk"
    assert run.engine.get_run("r").status == "interrupted"
    assert run(handler, id="r") == 100_000
    assert run.keys("r", "StepRetryPlanned") == []


def holds_park(batches: Any) -> bool:
    return any(isinstance(record, Parked) for batch in batches for record in batch.records)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_park_that_is_refused_has_not_given_the_run_up(
    run: Run, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """Else it was called waiting by its life and running by the store, and nobody would ever take it up."""

    @durable_execution(name="f", hold=0)
    def handler(event: Any, context: Any) -> str:
        context.wait(0.001)
        return "done"

    @durable_execution(name="f", hold=0)
    async def handler_async(event: Any, context: Any) -> str:
        await context.wait(0.001)
        return "done"

    function = handler_async if is_async else handler
    fail_once(monkeypatch, run.engine.store, "batch_commit", holds_park)
    with pytest.raises(JournalError, match=FULL):
        run(function, id="r")
    assert run.engine.get_run("r").status == "interrupted"
    assert run(function, id="r") == "done"


def test_a_lease_that_cannot_be_handed_back_is_handed_back_later(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others leave the runs of a living worker alone, so nobody would ever take the run up again."""
    true, refused = run.engine.store.batch_commit, list[int]()

    def full(batches: Any) -> Any:
        if refused or holds_success(batches):
            refused.append(1)
            raise JournalError(FULL)
        return true(batches)

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        return int(context.step(lambda: 1, name="s"))

    monkeypatch.setattr(run.engine.store, "batch_commit", full)
    with pytest.raises(JournalError, match=FULL):
        run(handler, id="r")
    assert len(refused) >= 2, "the release was refused, too"
    monkeypatch.setattr(run.engine.store, "batch_commit", true)
    assert run(handler, id="r") == 1


def test_a_refused_retry_of_a_blocked_run_leaves_nobody_holding_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [lambda context: context.step(lambda: 1, name="s"), lambda context: context.wait(0, name="s")]

    @durable_execution(name="f")
    def handler(event: Any, context: Any) -> Any:
        value = kinds[0](context)
        if len(kinds) == 2:
            raise KeyboardInterrupt
        return value

    with pytest.raises(KeyboardInterrupt):
        run(handler, id="r")
    right = kinds.pop(0)
    with pytest.raises(NonDeterminismError):
        run(handler, id="r")
    kinds[0] = right
    fail_once(monkeypatch, run.engine.store, "batch_commit")
    with pytest.raises(JournalError, match=FULL):
        run.engine.get_run("r").retry()
    assert run.engine.find("r").owner is None
    assert run(handler, id="r") == 1


def test_a_value_that_cannot_be_read_just_now_is_no_error_of_the_step(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught: list[BaseException] = []

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        try:
            size = len(context.step(lambda: "x" * 100_000, name="big"))
        except Exception as error:
            caught.append(error)
            raise
        if not context.is_replaying():
            raise KeyboardInterrupt
        return size

    with pytest.raises(KeyboardInterrupt):
        run(handler, id="r")
    fail_once(monkeypatch, run.engine.store, "blob_get")
    with pytest.raises(JournalError, match=FULL):
        run(handler, id="r")
    assert caught == []


def test_a_refused_commit_of_a_transaction_is_no_error_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stepwell.journal import _sqlite_transaction as transactions

    engine, caught = Engine(f"sqlite:///{tmp_path}/store.db"), list[BaseException]()

    @durable_step
    def load(context: Any) -> int:
        context.connection.execute("create table if not exists rows (n)")
        return int(context.connection.execute("insert into rows values (1)").rowcount)

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        try:
            return int(context.step(load(), transactional=True, retry=Retry(5, delay=0.001)))
        except Exception as error:
            caught.append(error)
            raise

    fail_once(monkeypatch, transactions.SqliteTransaction, "commit")
    try:
        with pytest.raises(JournalError, match=FULL):
            engine.run(handler, id="r")
        assert caught == []
        assert engine.run(handler, id="r") == 1
        records = [r["record"] for r in engine.get_run("r").history()]
        assert records.count("StepSucceeded") == 1
        assert "StepRetryPlanned" not in records
    finally:
        engine.stop()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute("select count(*) from rows").fetchone() == (1,)
    connection.close()


def test_rows_committed_elsewhere_and_not_yet_on_record_are_not_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plug is pulled exactly between the commit of the other database and the record of success."""
    engine, target, bodies = Engine("memory://between"), tmp_path / "other.db", list[int]()

    @durable_step
    def load(context: Any) -> int:
        bodies.append(1)
        context.connection.execute("create table if not exists rows (n)")
        return int(context.connection.execute("insert into rows values (1)").rowcount)

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        return int(context.step(load(), transactional=f"sqlite:///{target}"))

    fail_once(monkeypatch, engine.store, "batch_commit", holds_success)
    try:
        with pytest.raises(JournalError, match=FULL):
            engine.run(handler, id="r")
        assert engine.run(handler, id="r") == 1
    finally:
        engine.stop()
    assert bodies == [1]
    with sqlite3.connect(target) as connection:
        assert connection.execute("select count(*) from rows").fetchone() == (1,)
    connection.close()


def test_a_cancel_that_came_too_late_ends_no_retry(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    # The holder does not look into its inbox before the run has ended.
    monkeypatch.setattr(run.engine.host.pulse, "look", lambda: None)
    told: list[bool] = []

    @durable_execution
    def handler(event: Any, context: Any) -> str:
        def body() -> str:
            if told:
                return "done"
            store = run.engine.store
            told.append(store.fact_deliver("r", CANCEL, store.now(), encode_cancel("late", None)))
            raise LookupError("no")

        return str(context.step(body, name="s", retry=Retry(1)))

    with pytest.raises(LookupError):
        run(handler, id="r")
    assert told == [True]
    assert run.engine.get_run("r").retry() == "done"
    assert CancelRequested.__name__ not in [r["record"] for r in run.engine.get_run("r").history()]


def test_a_damaged_run_is_blocked_and_not_called_running(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: 1, name="s")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(handler, id="r")
    store = run.engine.store
    true = store.record_load

    def damaged(rid: int, **page: Any) -> Any:
        import msgspec

        return [msgspec.structs.replace(entry, data=entry.data[:-3]) for entry in true(rid, **page)]

    monkeypatch.setattr(store, "record_load", damaged)
    with pytest.raises(Corrupt, match="row 1 of run r cannot be read"):
        run(handler, id="r")
    row = run.engine.find("r")
    assert (row.status, row.owner) == ("blocked", None)
    assert "row 1 of run r cannot be read" in str(row.reason)


def test_a_fact_that_meets_a_parking_life_does_not_stop_the_beat(run: Run) -> None:
    from stepwell.errors import Suspend

    seen: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        def body() -> str:
            host = run.engine.host
            life, store = host.lives["r"], host.store
            assert store.fact_deliver("r", CANCEL, store.now(), encode_cancel("now", None))
            # As between the moment in which a park gives the run up and the one in which that is durable.
            life.over = Suspend("parked")
            try:
                host.take_inbox(life)
                host.pulse.look()
            finally:
                life.over = None
            seen.append(len(store.inbox_load(life.lease.rid or 0)))
            return "done"

        context.step(body, name="s")
        context.wait(600)

    from stepwell import RunCancelled

    with pytest.raises(RunCancelled):
        run(handler, id="r")
    assert seen == [1], "it waits for who can take it"
