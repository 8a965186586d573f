"""The input that nobody gave."""

from __future__ import annotations

from typing import Any

NONE: Any = type("Missing", (), {"__repr__": lambda _self: "<none>"})()
"""No input was given: the event is ``{}`` for a new run, the recorded one for a known id."""
