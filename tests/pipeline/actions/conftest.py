from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepwell.client import Engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine on a store of the test's own."""
    with Engine(f"sqlite:///{tmp_path / 'runs.db'}") as engine:
        yield engine


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace's root; not made."""
    root = tmp_path / "workspace"
    monkeypatch.setenv("STEPWELL_DATA", str(root))
    return root
