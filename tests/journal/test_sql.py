from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stepwell.journal import _sql
from stepwell.journal._sql import SCHEMA, migrations, queries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KINDS = ("sqlite", "postgres")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "sql" / "x" / "migrations").mkdir(parents=True)
    monkeypatch.setattr(_sql, "_folder", lambda kind: tmp_path / "sql" / kind)
    queries.cache_clear()
    migrations.cache_clear()
    yield tmp_path / "sql" / "x"
    queries.cache_clear()
    migrations.cache_clear()


def test_queries_have_names_and_lose_whole_line_comments_only(folder: Path) -> None:
    (folder / "a.sql").write_text(
        "-- What this file is.\n\n-- name: one\n-- Index: none.\nselect '--', 1 -- stays\n  -- goes\nfrom t;\n\n"
        "-- name: two\nselect 2\n"
    )
    (folder / "b.sql").write_text("-- name: three\nselect 3;")
    assert dict(queries("x")) == {"one": "select '--', 1 -- stays\nfrom t", "two": "select 2", "three": "select 3"}


def test_a_name_stands_once(folder: Path) -> None:
    (folder / "a.sql").write_text("-- name: one\nselect 1")
    (folder / "b.sql").write_text("-- name: one\nselect 2")
    with pytest.raises(ValueError, match=r"b\.sql: query 'one' stands twice"):
        queries("x")


def test_no_sql_before_the_first_name(folder: Path) -> None:
    (folder / "a.sql").write_text("select 1;\n-- name: one\nselect 1")
    with pytest.raises(ValueError, match="SQL before the first"):
        queries("x")


def test_migrations_in_order_with_their_comments(folder: Path) -> None:
    (folder / "migrations" / "0002_more.sql").write_text("create table b (x);")
    (folder / "migrations" / "0001_start.sql").write_text("-- why\ncreate table a (x);")
    assert migrations("x") == [(1, "start", "-- why\ncreate table a (x);"), (2, "more", "create table b (x);")]


@pytest.mark.parametrize("name", ["0002_gap.sql", "1_short.sql", "first.sql"])
def test_migrations_are_numbered_without_gaps(folder: Path, name: str) -> None:
    (folder / "migrations" / name).write_text("")
    with pytest.raises(ValueError, match=r"expected 0001_<name>\.sql"):
        migrations("x")


@pytest.mark.parametrize("kind", KINDS)
def test_the_newest_migration_is_the_schema(kind: str) -> None:
    assert migrations(kind)[-1][0] == SCHEMA


def test_every_query_of_sqlite_is_used() -> None:
    from pathlib import Path

    code = "".join(file.read_text() for file in Path(_sql.__file__).parent.glob("_sqlite*.py"))
    unused = [name for name in queries("sqlite") if f'"{name}"' not in code and not name.startswith("where_")]
    assert unused == []


def test_the_queries_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        queries("sqlite")["batch_append"] = ""  # type: ignore[index]
