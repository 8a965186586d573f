"""What `doctor` asks of the database itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.journal._postgres_address import Address
    from stepwell.journal._postgres_read import ReadPool
    from stepwell.journal._postgres_schema import Sql

_CHECKS = {
    "check_open_without_hot": "run {} is open in the catalogue but has no hot row: nobody will drive it",
    "check_hot_without_run": "hot row {} belongs to a run that has ended or is not there",
    "check_gaps": "rows of run number {} are not 1, 2, 3 …: part of its journal is gone",
    "check_lost_rows": "rows of run number {} belong to no run",
    "check_blobs": "the chunks of blob {} do not make up its size",
    "check_indexes": "index {} is not valid: reindex it",
}


def problems(pool: ReadPool, sql: Sql, place: str) -> Iterator[str]:
    """One line for each thing that is not as the store left it, or not safe."""
    fsync, synchronous, pages = pool.query(sql.text("settings"), {}, prepare=False)[0]
    for name, value, risk in (
        ("fsync", fsync, "a crash of the machine can destroy the whole database"),
        ("full_page_writes", pages, "a crash of the machine can damage pages"),
        ("synchronous_commit", synchronous, "a crash can lose steps that were recorded as finished"),
    ):
        if value == "off":
            yield f"PostgreSQL at {place} runs with {name} = off: {risk}"
    for name, line in _CHECKS.items():
        for (found,) in pool.query(sql.text(name), {}, prepare=False):
            yield line.format(found)
    for (failures,) in pool.query(sql.text("check_checksums"), {}, prepare=False):
        if failures:
            yield f"PostgreSQL at {place} has met {failures} damaged pages in this database: restore it from a backup"


def facts_of(pool: ReadPool, sql: Sql, address: Address) -> dict[str, str]:
    """What can be told in words."""
    database, tables, version = pool.query(sql.text("sizes"), {}, prepare=False)[0]
    fsync, synchronous, _ = pool.query(sql.text("settings"), {}, prepare=False)[0]
    orphans = pool.query(sql.text("blob_orphans"), {}, prepare=False)[0][0]
    return {
        "kind": "postgres",
        "place": f"{address.place}, schema {address.schema}",
        "server version": version,
        "size of the database": database,
        "size of the store": tables,
        "blobs that nobody refers to": str(orphans),
        "fsync": fsync,
        "synchronous_commit": synchronous,
    }
