"""The outside conformance suites, held against our own history (durable.md §18, §19.2)."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from tests.conformance.driver import play
from tests.conformance.requirement import Matcher, Requirement, cases

if TYPE_CHECKING:
    from pathlib import Path

SUITES = ("child", "map", "step", "wait", "wait_for_condition")
ABSENT = "the outside suites were not run: set STEPWELL_CONFORMANCE to their folder, or put it in ../shared/conformance"
CASES = cases()
ENDS = {"ExecutionSucceeded": "SUCCEEDED", "ExecutionFailed": "FAILED", "ExecutionTimedOut": "TIMED_OUT"}


@pytest.mark.parametrize("case", CASES or [pytest.param("absent", marks=pytest.mark.skip(reason=ABSENT))])
def test_requirement(case: str, tmp_path: Path) -> None:
    wanted = Requirement(case)
    played = play(case, wanted.input, tmp_path, to_first_park=wanted.to_first_park)
    history = played.history
    listed = "\n".join(f"{e['EventId']} {e['EventType']} {e.get('Name', '')}" for e in history)
    assert Matcher().problems(wanted.events, history) == [], listed
    assert [event["EventId"] for event in history] == list(range(1, len(history) + 1))
    unlisted = {event["EventId"] for event in history} - {event["EventId"] for event in wanted.events}
    if len(wanted.events) > 1:
        about = {event["EventType"] for event in history if event["EventId"] in unlisted}
        assert about <= {"ExecutionStarted", "InvocationCompleted", *ENDS}, listed
    if wanted.result:
        last = history[-1]
        assert ENDS[last["EventType"]] == wanted.result["ExecutionStatus"]
        if "Result" in wanted.result:
            assert json.loads(last["ExecutionSucceededDetails"]["Result"]["Payload"]) == wanted.result["Result"]
    for log in wanted.logs:
        pattern = re.compile(log["match"]["message"].strip("/"))
        assert sum(bool(pattern.search(line)) for line in played.lines) == log["count"], played.lines


if CASES:

    def test_each_handler_has_its_requirement() -> None:
        handlers = {f"{s}/{number}" for s in SUITES for number in import_module(f"tests.conformance.{s}").HANDLERS}
        assert handlers == set(CASES)
