"""An engine for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stepwell import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine("memory://")
    yield made
    made.stop()
