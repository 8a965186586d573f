"""Fixtures: one PostgreSQL server for the session, a fresh database for each test that asks for one.

`STEPWELL_TEST_POSTGRES=postgresql://…` uses that server instead (a user who may create databases). Tests that stop
and crash a server make their own with `tests.postgres_server.PostgresServer`, whatever this variable says.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.postgres_server import PostgresServer, create_database, drop_database

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a server's maintenance database, for the whole session."""
    if given := os.environ.get("STEPWELL_TEST_POSTGRES"):
        yield given
        return
    with PostgresServer() as server:
        yield server.url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of an empty database that is dropped after the test, whoever is still connected."""
    database = create_database(postgres_url)
    try:
        yield database
    finally:
        drop_database(postgres_url, database)
