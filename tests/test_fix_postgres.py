"""The test server itself: it answers, it is durable by default, it survives a crash, and it leaves nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg
import pytest

from tests.postgres_server import PostgresServer


def test_a_fresh_database_answers(postgres_database: str) -> None:
    with psycopg.connect(postgres_database) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
        assert connection.execute("show fsync").fetchone() == ("on",)
        assert connection.execute("show server_encoding").fetchone() == ("UTF8",)


def test_a_crashed_server_comes_back_with_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = Path(tempfile.mkdtemp(prefix="a space ", dir=tempfile.gettempdir()))
    room.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    try:
        with PostgresServer() as server:
            assert server.home.parent == room
            database = server.database()
            with psycopg.connect(database) as connection:
                connection.execute("create table kept as select 42 as answer")
            server.stop("immediate")
            assert not server.running
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(database)
            server.restart("immediate")
            with psycopg.connect(database) as connection:
                assert connection.execute("select answer from kept").fetchone() == (42,)
        assert list(room.iterdir()) == []
        server.close()  # a second time changes nothing
    finally:
        room.rmdir()
