"""From records to events, row by row of the table of durable.md §18, where no run of its own shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import core
from stepwell.client._projection import Projection
from stepwell.core import operation_id
from stepwell.errors import ErrorRecord

if TYPE_CHECKING:
    from stepwell.core import AnyRecord

S = 1_000_000
STARTED = (core.RunStarted(0, "app:handler", "{}"), core.LifeStarted(0, 1, "w-1", "start"))
OOPS = ErrorRecord("ValueError", "oops")


def project(*records: AnyRecord, include_data: bool = True) -> list[dict[str, Any]]:
    """The events of a run after ``STARTED``."""

    def read(payload: Any) -> str | None:
        return None if payload is None else str(payload)

    projection = Projection("r", read, include_data=include_data)
    events = [event for record in (*STARTED, *records) for event in projection.events(record)]
    assert [event["EventId"] for event in events] == list(range(1, len(events) + 1))
    return events[1:]


def brief(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (
            event["EventType"],
            *(event[f] for f in ("Name", "SubType") if f in event),
            event[f"{event['EventType']}Details"],
        )
        for event in events
    ]


def error(kind: str, message: str) -> dict[str, Any]:
    return {"Error": {"Payload": {"ErrorMessage": message, "ErrorType": kind}}}


def created(**more: Any) -> core.CallbackCreated:
    return core.CallbackCreated(0, "ask", "cb-1", **more)


CALLBACKS: dict[str, tuple[list[AnyRecord], list[tuple[Any, ...]]]] = {
    "answered": (
        [created(name="ask"), core.CallbackSucceeded(S, "ask", '"yes"', "joe")],
        [
            ("CallbackStarted", "ask", "Callback", {"CallbackId": "cb-1"}),
            ("CallbackSucceeded", "ask", "Callback", {"Result": {"Payload": '"yes"', "Truncated": False}}),
        ],
    ),
    "answered with nothing": (
        [created(), core.CallbackSucceeded(S, "ask", None)],
        [("CallbackStarted", "Callback", {"CallbackId": "cb-1"}), ("CallbackSucceeded", "Callback", {})],
    ),
    "limits in whole seconds": (
        [created(timeout_at=90 * S, heartbeat=1_500_000), core.CallbackBeat(S, "ask")],
        [("CallbackStarted", "Callback", {"CallbackId": "cb-1", "Timeout": 90, "HeartbeatTimeout": 2})],
    ),
    "refused": (
        [created(), core.CallbackFailed(S, "ask", OOPS)],
        [("CallbackStarted", "Callback", {"CallbackId": "cb-1"}), ("CallbackFailed", "Callback", error("ValueError", "oops"))],
    ),
    "out of time": (
        [created(), core.CallbackFailed(S, "ask", ErrorRecord("Callback.Timeout", "Callback timed out"), timed_out=True)],
        [
            ("CallbackStarted", "Callback", {"CallbackId": "cb-1"}),
            ("CallbackTimedOut", "Callback", error("Callback.Timeout", "Callback timed out")),
        ],
    ),
    "approval": (
        [created(name="refund", sub_type="Approval", form="{}"), core.CallbackSucceeded(S, "ask", '{"ok":true}', "ann")],
        [
            ("CallbackStarted", "refund", "Approval", {"CallbackId": "cb-1"}),
            ("CallbackSucceeded", "refund", "Approval", {"Result": {"Payload": '{"ok":true}', "Truncated": False}}),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks(name: str) -> None:
    records, events = CALLBACKS[name]
    assert brief(project(*records)) == events


def invoked(**more: Any) -> core.InvokeStarted:
    return core.InvokeStarted(0, "call", "c-1", "app:other", '{"n":1}', **more)


ARN = "arn:stepwell:lambda:local:000000000000:function:app.other:$LATEST/durable-execution/c-1/c-1"
INVOKE = {
    "FunctionName": "app:other",
    "Input": {"Payload": '{"n":1}', "Truncated": False},
    "ExecutedVersion": "$LATEST",
    "DurableExecutionArn": ARN,
}


def test_an_invoke_and_its_success() -> None:
    records = (invoked(name="call", tenant="acme"), core.InvokeSucceeded(S, "call", "2"))
    assert brief(project(*records)) == [
        ("ChainedInvokeStarted", "call", "ChainedInvoke", INVOKE | {"TenantId": "acme"}),
        ("ChainedInvokeSucceeded", "call", "ChainedInvoke", {"Result": {"Payload": "2", "Truncated": False}}),
    ]


@pytest.mark.parametrize(
    "how, event",
    [("failed", "ChainedInvokeFailed"), ("timed_out", "ChainedInvokeTimedOut"), ("cancelled", "ChainedInvokeStopped")],
)
def test_an_invoke_that_does_not_succeed(how: str, event: str) -> None:
    assert brief(project(invoked(), core.InvokeFailed(S, "call", OOPS, how))) == [
        ("ChainedInvokeStarted", "ChainedInvoke", INVOKE),
        (event, "ChainedInvoke", error("ValueError", "oops")),
    ]


def test_a_run_that_was_only_started() -> None:
    records = (invoked(kind="start"), core.InvokeSucceeded(0, "call", None))
    assert brief(project(*records)) == [
        ("ChainedInvokeStarted", "ChainedInvoke", INVOKE),
        ("ChainedInvokeSucceeded", "ChainedInvoke", {}),
    ]


def test_wait_for_callback_is_a_scope() -> None:
    events = project(
        core.ScopeStarted(0, "ask", "wait_for_callback", "ask"),
        core.CallbackCreated(0, "ask/ask create callback id", "cb-1", "ask create callback id"),
        core.StepStarted(0, "ask/ask submitter", 1, "step", "ask submitter"),
        core.StepSucceeded(0, "ask/ask submitter", "null"),
        core.Parked(0, None),
        core.LifeStarted(S, 2, "w-1", "due"),
        core.CallbackSucceeded(S, "ask/ask create callback id", "x"),
        core.ScopeSucceeded(S, "ask", '"x"'),
    )
    assert [(event["EventType"], event.get("SubType")) for event in events] == [
        ("ContextStarted", "WaitForCallback"),
        ("CallbackStarted", "Callback"),
        ("StepStarted", "Step"),
        ("StepSucceeded", "Step"),
        ("InvocationCompleted", None),
        ("CallbackSucceeded", "Callback"),
        ("ContextSucceeded", "WaitForCallback"),
    ]
    assert {event.get("ParentId") for event in events[1:4]} == {operation_id("ask")}
    assert "ParentId" not in events[0]


@pytest.mark.parametrize("kind", ["gather", "race"])
def test_gather_and_race_are_parallels(kind: Any) -> None:
    events = project(
        core.ScopeStarted(0, kind, kind, total=2),
        core.ScopeStarted(0, f"{kind}[0]", "parallel_branch", "a"),
        core.StepStarted(0, f"{kind}[0]/s", 1),
        core.StepSucceeded(0, f"{kind}[0]/s", "1"),
        core.ScopeSucceeded(0, f"{kind}[0]", "1"),
        core.ScopeSucceeded(0, kind, "[1]"),
    )
    assert [event["SubType"] for event in events] == [
        "Parallel",
        "ParallelBranch",
        "Step",
        "Step",
        "ParallelBranch",
        "Parallel",
    ]
    assert [event.get("ParentId") for event in events[:3]] == [None, operation_id(kind), operation_id(f"{kind}[0]")]


def test_a_lost_life() -> None:
    events = project(
        core.StepStarted(S, "s", 1),
        core.LifeLost(9 * S, 1, "host-7-ab", "dead"),
        core.LifeStarted(9 * S, 2, "w-2", "takeover"),
        core.StepFailed(9 * S, "s", ErrorRecord("StepInterruptedError", "lost")),
        core.LifeLost(30 * S, 2, "w-2", "expired"),
    )
    lost, _, expired = [event for event in events if event["EventType"] != "StepStarted"]
    details = lost["InvocationCompletedDetails"]
    assert details["Error"] == error("Runtime.ExitError", "host-7-ab: its process ended")["Error"]
    assert details["RequestId"] == "r-1"
    assert (details["EndTimestamp"] - details["StartTimestamp"]).total_seconds() == 9
    assert (
        expired["InvocationCompletedDetails"]["Error"] == error("Runtime.ExitError", "w-2: its lease expired")["Error"]
    )
    assert expired["InvocationCompletedDetails"]["RequestId"] == "r-2"


def test_a_life_begins_where_kept_frames_go_on() -> None:
    events = project(
        core.WaitStarted(0, "w", 5 * S),
        core.Parked(0, 5 * S, ("w",)),
        core.WaitEnded(5 * S, "w"),
        core.RunSucceeded(6 * S, "null"),
    )
    assert [event["EventType"] for event in events] == [
        "WaitStarted", "InvocationCompleted", "WaitSucceeded", "InvocationCompleted", "ExecutionSucceeded",
    ]  # fmt: skip
    details = events[3]["InvocationCompletedDetails"]
    assert (details["StartTimestamp"].second, details["EndTimestamp"].second) == (5, 6)


def test_a_life_that_only_heard_a_heartbeat_is_no_invocation() -> None:
    events = project(
        created(timeout_at=9 * S, heartbeat=5 * S),
        core.Parked(0, 5 * S),
        core.LifeStarted(S, 2, "w-1", "due"),
        core.CallbackBeat(S, "ask"),
        core.Parked(S, 6 * S),
        core.CallbackBeat(2 * S, "ask"),
        core.Parked(2 * S, 7 * S),
        core.LifeStarted(3 * S, 3, "w-1", "due"),
        core.CallbackBeat(3 * S, "ask"),
        core.CallbackSucceeded(3 * S, "ask", "x"),
        core.Parked(3 * S, None),
    )
    assert [(event["EventType"], event["EventTimestamp"].second % 20) for event in events] == [
        ("CallbackStarted", 0),
        ("InvocationCompleted", 0),
        ("CallbackSucceeded", 3),
        ("InvocationCompleted", 3),
    ]


def test_signals_requests_and_the_recorded_world_have_no_events() -> None:
    assert (
        project(
            core.SignalReceived(0, "go", "1"),
            core.SignalAwaited(0, "signal", "go"),
            core.SignalTaken(0, "signal", "go", 0),
            core.SignalAwaited(0, "signal#2", "go"),
            core.SignalTimedOut(0, "signal#2", OOPS),
            core.Recorded(0, "publish", "publish", "1", name="state"),
            core.Recorded(0, "now", "now", "1"),
            core.CancelRequested(0, "why", "joe"),
            core.RollbackStarted(0, "failed", OOPS),
            core.Reopened(0, "joe"),
            core.OperationCancelled(0, "never-begun", "wait"),
            core.OperationCancelled(0, "step", "step"),
        )
        == []
    )


def test_callbacks_and_invokes_without_data() -> None:
    events = project(
        invoked(),
        core.InvokeFailed(0, "call", OOPS),
        created(),
        core.CallbackSucceeded(0, "ask", "x"),
        include_data=False,
    )
    assert [details for *_, details in brief(events)] == [
        {**INVOKE, "Input": {}},
        {"Error": {}},
        {"CallbackId": "cb-1"},
        {"Result": {}},
    ]


def test_memory_holds_what_is_open_and_no_more() -> None:
    projection = Projection("r", lambda payload: None)
    for record in STARTED:
        list(projection.events(record))
    for n in range(100):
        list(projection.events(core.StepStarted(0, f"s#{n}", 1)))
        list(projection.events(core.StepSucceeded(0, f"s#{n}", "1")))
    assert projection._open == {}
