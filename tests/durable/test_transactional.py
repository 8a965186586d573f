"""Steps that share a transaction with a database: together or not at all, on SQLite and PostgreSQL (durable.md §5.6)."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, UsageError, durable_execution
from stepwell.durable import StepContext, StepTimeoutError, durable_step
from tests.durable.kit import FAST, NEVER, Plug, names, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INSERT = "insert into rows values (1)"


class Target:
    """A store, and a table of the user's in its database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = Engine(url)
        self.engine.store.now()
        self.execute("create table rows (n integer)")

    def execute(self, statement: str) -> Any:
        """Run a statement on a connection of its own."""
        if self.url.startswith("sqlite"):
            connection: Any = sqlite3.connect(self.url.removeprefix("sqlite:///"))
        else:
            import psycopg

            connection = psycopg.connect(self.url)
        try:
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else None
            connection.commit()
            return rows
        finally:
            connection.close()

    @property
    def rows(self) -> int:
        """How many rows are committed."""
        return int(self.execute("select count(*) from rows")[0][0])


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    url = (
        f"sqlite:///{tmp_path}/store.db" if request.param == "sqlite" else request.getfixturevalue("postgres_database")
    )
    found = Target(url)
    yield found
    found.engine.stop()


def test_rows_and_record_appear_together(target: Target) -> None:
    seen: list[Any] = []

    @durable_step
    def load(context: StepContext) -> int:
        context.connection.execute(INSERT)
        seen.append((target.rows, "StepSucceeded load" in names(target.engine, "r")))
        return 7

    handler = durable_execution(lambda event, context: context.step(load(), transactional=True))
    assert target.engine.run(handler, id="r") == 7
    assert seen == [(0, False)]
    assert target.rows == 1
    assert names(target.engine, "r")[1:] == ["StepStarted load", "StepSucceeded load", "RunSucceeded"]
    assert target.engine.run(handler, id="r") == 7
    assert target.rows == 1


@pytest.mark.parametrize("error", [ConnectionError("away"), Plug()], ids=["error", "crash"])
def test_what_a_body_did_before_it_failed_is_rolled_back(target: Target, error: BaseException) -> None:
    attempts: list[int] = []

    @durable_step
    def load(context: StepContext) -> int:
        attempts.append(context.attempt)
        context.connection.execute(INSERT)
        if len(attempts) == 1:
            raise error
        return 7

    handler = durable_execution(lambda event, context: context.step(load(), transactional=True, retry=FAST))
    if isinstance(error, Plug):
        with pytest.raises(Plug):
            target.engine.run(handler, id="r")
        assert target.rows == 0
    assert target.engine.run(handler, id="r") == 7
    assert attempts == [1, 1 if isinstance(error, Plug) else 2]
    assert target.rows == 1


ENDINGS: dict[str, Callable[[Any], Any]] = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "close": lambda connection: connection.close(),
    "BEGIN": lambda connection: connection.execute("BEGIN"),
    "COMMIT": lambda connection: connection.execute(" -- a comment\nCOMMIT"),
    "ROLLBACK": lambda connection: connection.cursor().execute("rollback"),
}


@pytest.mark.parametrize("way", ENDINGS)
def test_a_body_that_ends_the_transaction_itself_fails_and_is_rolled_back(target: Target, way: str) -> None:
    @durable_step
    def load(context: StepContext) -> None:
        context.connection.execute(INSERT)
        ENDINGS[way](context.connection)

    handler = durable_execution(lambda event, context: context.step(load(), transactional=True, retry=NEVER))
    with pytest.raises(UsageError):
        target.engine.run(handler, id="r")
    assert target.rows == 0
    assert names(target.engine, "r")[-2:] == ["StepFailed load", "RunFailed"]


def test_one_that_ends_it_and_swallows_what_it_is_told_is_rolled_back_or_whole(target: Target) -> None:
    @durable_step
    def load(context: StepContext) -> str:
        context.connection.execute(INSERT)
        with pytest.raises(UsageError):
            context.connection.commit()
        assert target.rows == 0, "nothing was committed by that"
        return "whole"

    handler = durable_execution(lambda event, context: context.step(load(), transactional=True, retry=NEVER))
    assert target.engine.run(handler, id="r") == "whole"
    assert target.rows == 1


def test_a_body_whose_time_is_up_is_interrupted_and_rolled_back(target: Target) -> None:
    forever = (
        "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
        if target.url.startswith("sqlite")
        else "select pg_sleep(3600)"
    )

    @durable_step
    def load(context: StepContext) -> None:
        context.connection.execute(INSERT)
        if context.attempt == 1:
            context.connection.execute(forever).fetchall()

    handler = durable_execution(
        lambda event, context: context.step(load(), transactional=True, timeout=0.2, retry=FAST)
    )
    target.engine.run(handler, id="r")
    assert target.rows == 1, "of the second attempt"
    (planned,) = [r for r in records(target.engine, "r") if r["record"] == "StepRetryPlanned"]
    assert "StepTimeoutError" in str(planned["error"])


def test_the_greatest_time_on_sqlite_is_a_third_of_the_lease(tmp_path: Path) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/store.db", lease=6)
    ran: list[int] = []
    for timeout, allowed in ((2, True), (2.1, False)):
        handler = durable_execution(
            lambda event, context: context.step(
                lambda: ran.append(1), name="s", transactional=True, timeout=event, retry=NEVER
            )
        )
        if allowed:
            engine.run(handler, timeout)
        else:
            with pytest.raises(UsageError, match="timeout at most 2 s, a third of the lease"):
                engine.run(handler, timeout)
    engine.stop()
    assert ran == [1]


def test_async_steps_and_async_runs_have_none(target: Target) -> None:
    async def body(context: StepContext) -> None:
        context.connection.execute(INSERT)

    @durable_execution
    def plain(event: Any, context: Any) -> None:
        context.step(body, name="s", transactional=True, retry=NEVER)

    @durable_execution
    async def coloured(event: Any, context: Any) -> None:
        await context.step(lambda _: None, name="s", transactional=True, retry=NEVER)

    for handler in (plain, coloured):
        with pytest.raises(UsageError):
            target.engine.run(handler)
    assert target.rows == 0


# -- the user's other database


@pytest.fixture(params=["sqlite", "postgres", "function"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """What ``transactional=`` is given, and a connection to look there."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_database")
        import psycopg

        return url, lambda: psycopg.connect(url)
    path = tmp_path / "other.db"
    given = f"sqlite:///{path}" if request.param == "sqlite" else lambda: sqlite3.connect(path)
    return given, lambda: sqlite3.connect(path)


def test_exactly_once_in_another_database(elsewhere: Any) -> None:
    """The life ends after the commit there and before the record here: the result is looked up there."""
    given, connect = elsewhere
    engine = Engine("memory://elsewhere")
    ran: list[int] = []
    plug = [Plug()]

    @durable_step
    def load(context: StepContext) -> dict[str, int]:
        ran.append(context.attempt)
        context.connection.execute("create table if not exists rows (n integer)")
        context.connection.execute(INSERT)
        if len(ran) == 1:
            raise ConnectionError("away")
        return {"loaded": 1}

    commit = engine.host.writer.commit

    def pull(ticket: Any) -> Any:
        if plug and "StepSucceeded" in [type(record).__name__ for record in ticket.batch.records]:
            raise plug.pop()
        return commit(ticket)

    handler = durable_execution(
        lambda event, context: context.step(load(), name="load", transactional=given, retry=FAST)
    )
    engine.host.writer.commit = pull  # type: ignore[method-assign]
    with pytest.raises(Plug):
        engine.run(handler, id="r")
    assert engine.run(handler, id="r") == {"loaded": 1}
    engine.stop()
    assert ran == [1, 2], "once it was rolled back, once it was committed"
    connection = connect()
    assert connection.execute("select count(*) from rows").fetchone() == (1,)
    assert connection.execute("select run, op, result from stepwell_once").fetchall() == [("r", "load", '{"loaded":1}')]
    connection.close()


def test_a_place_that_is_none(tmp_path: Path) -> None:
    engine = Engine("memory://nowhere")
    handler = durable_execution(
        lambda event, context: context.step(lambda: 1, name="s", transactional="mysql://x", retry=NEVER)
    )
    with pytest.raises(UsageError, match=r"mysql://x"):
        engine.run(handler)
    engine.stop()


def test_a_body_whose_time_is_up_elsewhere_commits_nothing(tmp_path: Path) -> None:
    engine, path = Engine("memory://late"), tmp_path / "other.db"
    over: list[bool] = []

    @durable_step
    def load(context: StepContext) -> None:
        context.connection.execute("create table if not exists rows (n)")
        context.connection.execute(INSERT)
        while not context.cancelled:  # its time is up
            pass
        over.append(True)

    handler = durable_execution(
        lambda event, context: context.step(load(), transactional=f"sqlite:///{path}", timeout=0.05, retry=NEVER)
    )
    with pytest.raises(StepTimeoutError, match="it was rolled back"):
        engine.run(handler)
    engine.stop()
    assert over == [True]
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*) from sqlite_master where name = 'rows'").fetchone() == (0,)
    connection.close()
