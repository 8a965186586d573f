"""Modules of command lines: found by their file, each loaded once."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from stepwell.client import load_module

SLOW = """
import sys
begun, go_on = sys.stepwell_test
begun.set()
assert go_on.wait(30)
late = "here"
"""


def test_who_comes_while_a_file_is_loaded_gets_the_whole_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slowly.py").write_text(SLOW)
    begun, go_on, asked = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "stepwell_test", (begun, go_on), raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found: list[Any] = []

    def load() -> None:
        found.append(getattr(load_module(f"{tmp_path}/slowly.py"), "late", "not yet"))

    def second() -> None:
        asked.set()
        load()

    threads = [threading.Thread(target=load), threading.Thread(target=second)]
    try:
        threads[0].start()
        assert begun.wait(30)
        threads[1].start()
        assert asked.wait(30)
        threads[1].join(0.05)  # as it is, it ends here with half a module; as it is to be, it waits
        go_on.set()
        for thread in threads:
            thread.join(30)
    finally:
        go_on.set()
        sys.modules.pop("slowly", None)
    assert found == ["here", "here"]
