"""Requirement files of the outside conformance suites: found, read, and held against a history.

They are not part of this repository. They are looked for at ``STEPWELL_CONFORMANCE``, else beside the repository in
``../shared/conformance``.
"""

from __future__ import annotations

import os
import random
import re
import string
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
_NAME = re.compile(r"\$\{(\w+)\}")


def folder() -> Path | None:
    """Where the suites are; None where they are not."""
    found = Path(os.environ.get("STEPWELL_CONFORMANCE") or ROOT.parent / "shared" / "conformance")
    return found if found.is_dir() else None


def cases() -> list[str]:
    """``suite/number`` of each requirement file."""
    found = folder()
    return [] if found is None else sorted(f"{path.parent.name}/{path.stem}" for path in found.glob("*/*.yaml"))


class Requirement:
    """One file, its variables filled in."""

    def __init__(self, case: str) -> None:
        found = folder()
        assert found is not None
        self.case = case
        text: dict[str, Any] = yaml.safe_load((found / f"{case}.yaml").read_text("utf-8"))
        made = {name: _generate(case, name, rule) for name, rule in (text.pop("Variables", None) or {}).items()}
        filled = _fill(text, made)
        self.input = filled.get("Input")
        self.to_first_park = bool(filled.get("AsyncInvoke"))
        self.result: dict[str, Any] = filled.get("ExpectedResult") or {}
        self.events: list[dict[str, Any]] = filled["ExpectedExecutionHistory"]
        self.logs: list[dict[str, Any]] = filled.get("ExpectedLogs") or []


def _generate(case: str, name: str, rule: str) -> str:
    length = re.fullmatch(r"\$\{GEN_STR:(\d+)\}", rule)
    assert length is not None, rule
    return "".join(random.Random(f"{case} {name}").choices(string.ascii_letters, k=int(length[1])))


def _fill(value: Any, made: dict[str, str]) -> Any:
    match value:
        case str():
            return _NAME.sub(lambda found: made.get(found[1], found[0]), value)
        case dict():
            return {key: _fill(inner, made) for key, inner in value.items()}
        case list():
            return [_fill(inner, made) for inner in value]
        case _:
            return value


class Matcher:
    """Expected against actual: ``'*'`` anything, ``{}`` it is there, ``${NAME}`` the same everywhere, ``${/re/}``."""

    def __init__(self) -> None:
        self.bound: dict[str, Any] = {}

    def problems(self, expected: list[dict[str, Any]], actual: list[dict[str, Any]]) -> list[str]:
        """What differs, event by event; events that are not listed are not asked about."""
        by_id = {event["EventId"]: event for event in actual}
        found: list[str] = []
        for event in expected:
            number = event["EventId"]
            if number not in by_id:
                found.append(f"event {number}: there is none, expected {event['EventType']}")
            else:
                found.extend(self._differences(event, by_id[number], f"event {number}"))
        return found

    def _differences(self, expected: Any, actual: Any, place: str) -> list[str]:
        if isinstance(expected, dict):
            if not expected:
                return []
            if not isinstance(actual, dict):
                return [f"{place}: {actual!r} is no object"]
            missing = [f"{place}: no {key}" for key in expected if key not in actual]
            return missing + [
                problem
                for key, value in expected.items()
                if key in actual
                for problem in self._differences(value, actual[key], f"{place} {key}")
            ]
        return [] if self._same(expected, actual) else [f"{place}: {actual!r}, expected {expected!r}"]

    def _same(self, expected: Any, actual: Any) -> bool:
        if not isinstance(expected, str):
            return bool(expected == actual)
        if expected == "*":
            return True
        if (pattern := re.fullmatch(r"\$\{/(.*)/\}", expected)) is not None:
            return re.search(pattern[1], str(actual)) is not None
        if (name := _NAME.fullmatch(expected)) is not None:
            return bool(self.bound.setdefault(name[1], actual) == actual)
        return bool(expected == actual)
