"""A PostgreSQL store that is only read: nothing is made, migrated or written."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
import pytest

from stepwell.errors import JournalError, SchemaTooNew, SchemaTooOld
from stepwell.journal import NoStoreYet, RunFilter, open_store
from stepwell.journal._postgres import PostgresStore
from stepwell.journal._sql import SCHEMA
from stepwell.testing._store_rig import StoreRig

if TYPE_CHECKING:
    from collections.abc import Iterator


def execute(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def schemas(url: str) -> list[str]:
    return [name for (name,) in execute(url, "select nspname from pg_namespace where nspname ~ '^stepwell'")]


def cli(url: str, *args: str, folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "stepwell.cli", *args],
        env={**os.environ, "STEPWELL_STORE": url}, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, (args, done.stdout, done.stderr)
    return done


@pytest.fixture
def reader(postgres_database: str) -> Iterator[PostgresStore]:
    rig = StoreRig(lambda clock: PostgresStore(postgres_database, clock))
    rig.append(rig.start("r"))
    rig.store.close()
    store: Any = open_store(postgres_database, read_only=True)
    yield store
    store.close()


def test_no_store_is_made(postgres_database: str, tmp_path: Path) -> None:
    with pytest.raises(NoStoreYet, match=r"there is no store of Stepwell at .* yet"):
        open_store(postgres_database, read_only=True)
    assert cli(postgres_database, "ls", "--json", folder=tmp_path).stdout == "[]\n"
    for command in ("show", "export", "logs", "trace"):
        assert "no run r" in cli(postgres_database, command, "r", folder=tmp_path, code=2).stderr
    assert "there is no store of Stepwell" in cli(postgres_database, "doctor", folder=tmp_path, code=7).stderr
    assert schemas(postgres_database) == []


def test_a_table_of_versions_without_one_is_no_store(postgres_database: str) -> None:
    PostgresStore(postgres_database).close()
    execute(postgres_database, "delete from stepwell.meta where key = 'schema'")
    with pytest.raises(NoStoreYet):
        open_store(postgres_database, read_only=True)


@pytest.mark.parametrize("version, error", [(SCHEMA - 1 or -1, JournalError), (SCHEMA + 1, SchemaTooNew)])
def test_another_schema_is_left_as_it_is(postgres_database: str, version: int, error: type[JournalError]) -> None:
    PostgresStore(postgres_database).close()
    execute(postgres_database, f"update stepwell.meta set value = '{version}' where key = 'schema'")
    with pytest.raises(error):
        open_store(postgres_database, read_only=True)
    assert execute(postgres_database, "select value from stepwell.meta where key = 'schema'") == [(str(version),)]


def test_an_older_schema_is_not_migrated(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from stepwell.journal import _postgres_schema

    PostgresStore(postgres_database).close()
    monkeypatch.setattr(_postgres_schema, "SCHEMA", SCHEMA + 1)
    with pytest.raises(SchemaTooOld, match="any command that writes") as old:
        open_store(postgres_database, read_only=True)
    assert (old.value.found, old.value.expected) == (SCHEMA, SCHEMA + 1)


def test_it_reads_all_and_every_session_is_read_only(postgres_database: str, reader: PostgresStore) -> None:
    row = reader.run_get("r")
    assert row is not None
    assert reader.run_count(RunFilter()) == 1
    assert len(reader.record_load(row.rid)) == 2
    assert list(reader.worker_silence()) == ["w1"]
    assert [line for line in reader.check() if "PostgreSQL at" not in line] == []
    assert reader.facts()["schema version"] == str(SCHEMA)
    reader.wait(0)
    shown = "show default_transaction_read_only"
    assert reader._pool.query(shown, {}, prepare=False) == [("on",)]
    for link in (reader._link, reader._beats):
        link.patiently(lambda _: None)
        assert link._pgconn is not None
        assert link._pgconn.exec_(shown.encode()).get_value(0, 0) == b"on"
    listens = reader._waiter._connection
    assert listens is not None
    assert listens.execute(shown).fetchall() == [("on",)]


def test_what_would_write_is_refused_at_once(reader: PostgresStore) -> None:
    with pytest.raises(JournalError, match="opened to read only"):
        reader.fact_deliver("r", "cancel", reader.now(), b"{}")
    with pytest.raises(JournalError, match="opened to read only"):
        reader.worker_leave("nobody")
    assert reader.inbox_load(1) == []


def test_a_role_that_may_only_read_looks(postgres_database: str, tmp_path: Path) -> None:
    rig = StoreRig(lambda clock: PostgresStore(postgres_database, clock))
    rig.start("r")
    rig.store.close()
    role = f"looker_{os.getpid()}_{time.monotonic_ns()}"
    execute(postgres_database, f"create role {role} login")
    parts = urlsplit(postgres_database)
    url = parts._replace(netloc=f"{role}@{parts.hostname}:{parts.port}").geturl()
    try:
        execute(postgres_database, f"grant usage on schema stepwell to {role}")
        execute(postgres_database, f"grant select on all tables in schema stepwell to {role}")
        assert "\nr " in cli(url, "ls", folder=tmp_path).stdout
        assert '"id":"r"' in cli(url, "export", "r", folder=tmp_path).stdout
        cli(url, "doctor", folder=tmp_path)
    finally:
        execute(postgres_database, f"drop owned by {role}")
        execute(postgres_database, f"drop role {role}")
