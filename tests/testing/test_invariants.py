"""Each rule has journals that keep it and at least one that breaks it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.core import (
    AnyRecord,
    CancelRequested,
    LifeLost,
    LifeStarted,
    OperationCancelled,
    Parked,
    Recorded,
    Reopened,
    RollbackStarted,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    ScopeCancelled,
    ScopeFailed,
    ScopeStarted,
    ScopeSucceeded,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    WaitEnded,
    WaitStarted,
)
from stepwell.errors import ErrorRecord
from stepwell.journal import HotRow, Note
from stepwell.testing._invariants import Violation, check_run, find_text

if TYPE_CHECKING:
    from stepwell.testing._invariants import Row

T = 1_700_000_000_000_000
BOOM = ErrorRecord("ValueError", "boom")

RUN = RunStarted(T, "app:handler", "{}")
OK = RunSucceeded(T, "null")
FAILED = RunFailed(T, BOOM)


def life(epoch: int, why: str = "start") -> LifeStarted:
    return LifeStarted(T, epoch, f"w{epoch}", why)


def lost(epoch: int) -> LifeLost:
    return LifeLost(T, epoch, f"w{epoch}", "dead")


def begin(key: str, attempt: int = 1, at: int = T) -> StepStarted:
    return StepStarted(at, key, attempt, "rollback" if key.startswith("undo/") else "step", key)


def done(key: str, *, undo: bool = False) -> StepSucceeded:
    return StepSucceeded(T, key, "1", undo)


def fail(key: str) -> StepFailed:
    return StepFailed(T, key, BOOM)


def plan(key: str, attempt: int = 1, until: int = T) -> StepRetryPlanned:
    return StepRetryPlanned(T, key, attempt, until, BOOM)


def step(key: str, *, undo: bool = False) -> tuple[StepStarted, StepSucceeded]:
    return begin(key), done(key, undo=undo)


def scope(key: str) -> ScopeStarted:
    return ScopeStarted(T, key, "child")


def close(key: str) -> ScopeSucceeded:
    return ScopeSucceeded(T, key, "1")


def reopened(**what: Any) -> Reopened:
    return Reopened(T, "me", **what)


def rows(*records: AnyRecord) -> list[Row]:
    """One record a row; a life's first row holds what a claim or a start writes together."""
    made: list[Row] = []
    epoch, held = 1, list[AnyRecord]()
    for record in records:
        held.append(record)
        if isinstance(record, RunStarted | LifeLost | Reopened) and record is not records[-1]:
            continue
        if isinstance(record, LifeStarted):
            epoch = record.epoch
        made.append((len(made) + 1, epoch, held))
        held = []
    return made


def rules(found: list[Violation]) -> set[str]:
    return {violation.rule for violation in found}


def hot(status: Any = "running", **changes: Any) -> HotRow:
    given: dict[str, Any] = {
        "rid": 1, "run_id": "r", "function": "f", "door": "durable", "queue": "default", "status": status,
        "reason": None, "owner": "w1" if status in ("running", "rolling_back") else None, "epoch": 1,
        "wake_at": None, "waiting_for": None, "inbox": 0, "ttl": 30.0,
    }  # fmt: skip
    return HotRow(**(given | changes))


FINE: dict[str, tuple[AnyRecord, ...]] = {
    "plain": (*step("a"), *step("b"), OK),
    "retries": (begin("a"), plan("a"), begin("a", 2), plan("a", 2), begin("a", 3), done("a"), OK),
    "retry then failure without an attempt": (begin("a"), plan("a"), fail("a"), FAILED),
    "crash inside a body": (begin("a"), lost(1), life(2, "takeover"), done("a"), OK),
    "wait": (WaitStarted(T, "w", T + 5), WaitEnded(T + 5, "w"), OK),
    "scopes": (scope("s"), *step("s/a"), scope("s/t"), *step("s/t/b"), close("s/t"), close("s"), *step("s2"), OK),
    "early end": (
        ScopeStarted(T, "m", "map"), ScopeStarted(T, "m[0]", "map_item"), ScopeStarted(T, "m[1]", "map_item"),
        begin("m[1]/a"), close("m[0]"), ScopeCancelled(T, "m[1]"), close("m"), OK,
    ),
    "recorded world": (Recorded(T, "n", "now", "1"), OK),
    "user cancelled": (begin("a"), OperationCancelled(T, "a"), OperationCancelled(T, "b"), OK),
    "rollback": (
        *step("a", undo=True), *step("b"), Recorded(T, "c", "on_failure", "1", undo=True), *step("d", undo=True),
        RollbackStarted(T, "failed", BOOM), *step("undo/d"), *step("undo/c"), *step("undo/a"), FAILED,
    ),
    "rollback with retries over a crash": (
        *step("a", undo=True), *step("b", undo=True), RollbackStarted(T, "failed", BOOM), begin("undo/b"),
        plan("undo/b"), lost(1), life(2, "takeover"), begin("undo/b", 2), done("undo/b"), *step("undo/a"), FAILED,
    ),
    "rollback that reports": (
        *step("a", undo=True), RollbackStarted(T, "failed", BOOM), begin("undo/a"), fail("undo/a"),
        RunFailed(T, ErrorRecord("RollbackFailed", "1 of the undo steps failed: a: ValueError: boom", cause=BOOM)),
    ),
    "cancelled": (
        *step("a", undo=True), CancelRequested(T, "enough"), RollbackStarted(T, "cancelled"), *step("undo/a"),
        RunCancelled(T, "enough"),
    ),
    "rollback in the middle": (
        scope("s"), *step("s/a", undo=True), *step("undo/s/a"), close("s"), *step("b", undo=True),
        RollbackStarted(T, "timed_out"), *step("undo/b"), RunTimedOut(T),
    ),
    "reopened": (
        scope("s"), begin("s/a"), fail("s/a"), ScopeFailed(T, "s", BOOM), FAILED,
        reopened(), life(2, "retry"), scope("s"), begin("s/a", 2), done("s/a"), close("s"), OK,
    ),
    "forced by name": (*step("a"), OK, reopened(force=("a",)), life(2, "retry"), begin("a", 2), done("a"), OK),
    "forced with what is in it": (
        scope("s"), *step("s/a"), close("s"), OK, reopened(force=("s",)), life(2, "retry"), scope("s"),
        begin("s/a", 2), done("s/a"), close("s"), OK,
    ),
    "asked again by key": (*step("a"), FAILED, reopened(again=("a",)), life(2, "retry"), begin("a", 2), done("a"), OK),
    "skipped": (begin("a"), fail("a"), FAILED, reopened(skip=("a",)), life(2, "retry"), *step("b"), OK),
    "blocked and resumed": (begin("a"), RunBlocked(T, "code-changed"), life(2, "resume"), done("a"), OK),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
def test_a_journal_that_keeps_all_rules(name: str) -> None:
    records = FINE[name]
    status = {RunSucceeded: "succeeded", RunFailed: "failed", RunCancelled: "cancelled", RunTimedOut: "timed_out"}
    ended: Any = status[type(records[-1])]
    assert check_run(rows(RUN, life(1), *records), open=False, status=ended) == []


def test_every_beginning_of_a_good_journal_is_good() -> None:
    for records in FINE.values():
        whole = rows(RUN, life(1), *records)
        for length in range(1, len(whole)):
            ended = isinstance(whole[length - 1][2][-1], RunSucceeded | RunFailed)
            assert check_run(whole[:length], open=not ended) == []


BROKEN: dict[str, tuple[str, str, tuple[AnyRecord, ...]]] = {
    "succeeds, then begins": ("P1", "a", (*step("a"), begin("a", 2))),
    "succeeds twice": ("P1", "a", (*step("a"), done("a"))),
    "succeeds, then fails": ("P1", "a", (*step("a"), fail("a"))),
    "fails, then succeeds": ("P1", "a", (begin("a"), fail("a"), done("a"))),
    "fails, then begins": ("P1", "a", (begin("a"), fail("a"), begin("a", 2))),
    "succeeds, then is planned": ("P1", "a", (*step("a"), plan("a"))),
    "cancelled, then succeeds": ("P1", "a", (begin("a"), OperationCancelled(T, "a"), done("a"))),
    "succeeds, then is cancelled": ("P1", "a", (*step("a"), OperationCancelled(T, "a"))),
    "recorded twice": ("P1", "n", (Recorded(T, "n", "now", "1"), Recorded(T, "n", "now", "2"))),
    "a wait ends twice": ("P1", "w", (WaitStarted(T, "w", T), WaitEnded(T, "w"), WaitEnded(T, "w"))),
    "a scope begins after its end": ("P1", "s", (scope("s"), close("s"), scope("s"))),
    "a scope ends twice": ("P1", "s", (scope("s"), close("s"), ScopeFailed(T, "s", BOOM))),
    "reopened, but not forced": ("P1", "a", (*step("a"), FAILED, reopened(), life(2), begin("a", 2))),
    "another one is asked again": (
        "P1", "a", (*step("a"), *step("b"), FAILED, reopened(again=("b",)), life(2), begin("a", 2)),
    ),
    "another one is forced": ("P1", "a", (*step("a"), *step("b"), FAILED, reopened(force=("b",)), life(2), begin("a", 2))),
    "skipped, yet it begins": ("P1", "a", (begin("a"), fail("a"), FAILED, reopened(skip=("a",)), life(2), begin("a", 2))),
    "set, yet it begins": ("P1", "a", (begin("a"), fail("a"), FAILED, reopened(set=(("a", "1"),)), life(2), begin("a", 2))),
    "forced once, begun twice": (
        "P1", "a",
        (*step("a"), OK, reopened(force=("a",)), life(2), begin("a", 2), done("a"), begin("a", 3)),
    ),
    "first attempt is 2": ("attempts", "a", (begin("a", 2),)),
    "first attempt is 0": ("attempts", "a", (begin("a", 0),)),
    "an attempt left out": ("attempts", "a", (begin("a"), plan("a"), begin("a", 3))),
    "an attempt said twice": ("attempts", "a", (begin("a"), lost(1), life(2), begin("a"))),
    "a next attempt without an end of the last": ("attempts", "a", (begin("a"), begin("a", 2))),
    "numbers begin again after a retry": (
        "attempts", "a", (begin("a"), fail("a"), FAILED, reopened(), life(2), begin("a"))
    ),
    "a plan for another attempt": ("attempts", "a", (begin("a"), plan("a", 2))),
    "planned twice": ("attempts", "a", (begin("a"), plan("a"), plan("a"))),
    "planned without a beginning": ("attempts", "a", (plan("a"),)),
    "an end without a beginning": ("attempts", "a", (done("a"),)),
    "an end between attempts": ("attempts", "a", (begin("a"), plan("a"), done("a"))),
    "a scope's end without a beginning": ("attempts", "s", (close("s"),)),
    "a wait ends early": ("waits", "w", (WaitStarted(T, "w", T + 5), WaitEnded(T + 4, "w"))),
    "an attempt begins early": ("waits", "a", (begin("a"), plan("a", until=T + 5), begin("a", 2, T + 4))),
    "a step begins in a closed scope": ("scopes", "s/a", (scope("s"), close("s"), begin("s/a"))),
    "a step ends in a closed scope": ("scopes", "s/a", (scope("s"), begin("s/a"), ScopeFailed(T, "s", BOOM), done("s/a"))),
    "a late result of a cancelled branch": (
        "scopes", "m[1]/a",
        (ScopeStarted(T, "m", "map"), ScopeStarted(T, "m[1]", "map_item"), begin("m[1]/a"), ScopeCancelled(T, "m[1]"),
         done("m[1]/a")),
    ),
    "deep inside a closed scope": ("scopes", "s/t/a", (scope("s"), scope("s/t"), close("s"), begin("s/t/a"))),
    "a branch in a closed map": (
        "scopes", "m[0]", (ScopeStarted(T, "m", "map"), close("m"), ScopeStarted(T, "m[0]", "map_item"))
    ),
    "a record after the end": ("ends", "a", (OK, begin("a"))),
    "two ends": ("ends", "", (OK, FAILED)),
    "a life after the end": ("ends", "", (OK, life(2))),
    "a record after blocking": ("ends", "a", (RunBlocked(T, "code-changed"), begin("a"))),
    "a scope begins twice": ("order", "s", (scope("s"), scope("s"))),
    "a wait is set twice": ("order", "w", (WaitStarted(T, "w", T), WaitStarted(T, "w", T))),
    "a key of two kinds": ("order", "a", (begin("a"), plan("a"), StepStarted(T, "a", 2, "once"))),
    "the run starts twice": ("order", "", (RUN, life(2))),
    "what is lost was not in force": ("P3", "", (lost(3), life(4))),
    "a lost life writes on": ("P3", "a", (begin("a"), lost(1), done("a"), life(2))),
    "not undone": ("P6", "a", (*step("a", undo=True), RollbackStarted(T, "failed", BOOM), FAILED)),
    "failed without a rollback": ("P6", "a", (*step("a", undo=True), FAILED)),
    "cancelled without a rollback": ("P6", "a", (*step("a", undo=True), RunCancelled(T))),
    "timed out without a rollback": ("P6", "a", (*step("a", undo=True), RunTimedOut(T))),
    "what was recorded is not undone": ("P6", "c", (Recorded(T, "c", "on_failure", "1", undo=True), FAILED)),
    "an undo that never ended": (
        "P6", "a", (*step("a", undo=True), RollbackStarted(T, "failed", BOOM), begin("undo/a"), FAILED)
    ),
    "first in, first out": (
        "P6", "undo/b",
        (*step("a", undo=True), *step("b", undo=True), RollbackStarted(T, "failed", BOOM), *step("undo/a"),
         *step("undo/b"), FAILED),
    ),
    "the order of beginning instead of finishing": (
        "P6", "undo/a",
        (begin("a"), begin("b"), done("b", undo=True), done("a", undo=True), RollbackStarted(T, "failed", BOOM),
         *step("undo/b"), *step("undo/a"), FAILED),
    ),
    "an undo of what did not finish": (
        "P6", "undo/a", (begin("a"), RollbackStarted(T, "failed", BOOM), *step("undo/a"), FAILED)
    ),
    "a failed undo that nobody tells of": (
        "P6", "a", (*step("a", undo=True), RollbackStarted(T, "failed", BOOM), begin("undo/a"), fail("undo/a"), FAILED)
    ),
    "an end that tells of another undo": (
        "P6", "a",
        (*step("a", undo=True), RollbackStarted(T, "failed", BOOM), begin("undo/a"), fail("undo/a"),
         RunFailed(T, ErrorRecord("RollbackFailed", "1 of the undo steps failed: aa: ValueError: boom"))),
    ),
    "rolled back into success": ("P6", "", (*step("a", undo=True), RollbackStarted(T, "failed", BOOM), *step("undo/a"), OK)),
    "rolled back into another end": (
        "P6", "", (*step("a", undo=True), RollbackStarted(T, "cancelled"), *step("undo/a"), FAILED)
    ),
    "the handler goes on in a rollback": (
        "P6", "b", (*step("a", undo=True), RollbackStarted(T, "failed", BOOM), begin("b"))
    ),
    "a rollback begins twice": ("P6", "", (RollbackStarted(T, "failed", BOOM), RollbackStarted(T, "failed", BOOM))),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_journal_that_breaks_a_rule(name: str) -> None:
    rule, key, records = BROKEN[name]
    journal = rows(RUN, life(1), *records)
    ended = isinstance(journal[-1][2][-1], RunSucceeded | RunFailed | RunCancelled | RunTimedOut)
    found = check_run(journal, open=not ended)
    assert (rule, key) in {(violation.rule, violation.key) for violation in found}, found
    assert all(violation.message for violation in found)


ROWS: dict[str, tuple[str, list[Row]]] = {
    "a gap": ("order", [(1, 1, [RUN, life(1)]), (3, 1, [begin("a")])]),
    "a row twice": ("order", [(1, 1, [RUN, life(1)]), (1, 1, [begin("a")])]),
    "no start": ("order", [(1, 1, [life(1)])]),
    "an empty first row": ("order", [(1, 1, [])]),
    "an epoch goes back": ("P3", [(1, 1, [RUN, life(1)]), (2, 2, [life(2)]), (3, 1, [begin("a")])]),
    "an epoch without a life": ("P3", [(1, 1, [RUN, life(1)]), (2, 2, [begin("a")])]),
    "a life in a row of another": ("P3", [(1, 1, [RUN, life(1)]), (2, 2, [life(3)])]),
    "a life begins twice": ("P3", [(1, 1, [RUN, life(1)]), (2, 1, [life(1)])]),
    "steps before any life": ("P3", [(1, 0, [RUN]), (2, 0, [begin("a")])]),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_no_run_has(name: str) -> None:
    rule, journal = ROWS[name]
    assert rule in rules(check_run(journal, open=True)), name


def test_a_pending_run_has_a_start_without_a_life() -> None:
    pending: list[Row] = [(1, 0, [RUN])]
    assert check_run(pending, open=True, hot=hot("pending", epoch=0)) == []
    claimed: list[Row] = [*pending, (2, 1, [life(1)]), (3, 1, [begin("a")])]
    assert check_run(claimed, open=True, hot=hot()) == []


BEGUN: tuple[AnyRecord, ...] = (RUN, life(1), begin("a"))
PARKED: tuple[AnyRecord, ...] = (RUN, life(1), begin("a"), plan("a", until=T + 9), Parked(T, T + 9, ("a",)))
BLOCKED: tuple[AnyRecord, ...] = (*BEGUN, RunBlocked(T, "code-changed"))


@pytest.mark.parametrize(
    "records, row, alive",
    [
        (BEGUN, hot(), True),
        (BEGUN, hot(), None),
        (BEGUN, hot("interrupted"), None),
        (BEGUN, hot("rolling_back", owner=None, reason="waiting for a worker that knows f"), None),
        (PARKED, hot("waiting", wake_at=T + 9, waiting_for="a"), None),
        (PARKED, hot("waiting", wake_at=T + 9, waiting_for="a", owner="w1"), True),
        (PARKED, hot("waiting", wake_at=T + 2, waiting_for="a", inbox=1), None),
        ((*BEGUN, Parked(T, None, ("approval",))), hot("waiting", waiting_for="approval"), None),
        (BLOCKED, hot("blocked", reason="code-changed"), None),
    ],
)
def test_an_open_run_that_can_be_accounted_for(records: tuple[AnyRecord, ...], row: HotRow, alive: bool | None) -> None:
    assert check_run(rows(*records), open=True, hot=row, alive=alive) == []


@pytest.mark.parametrize(
    "rule, records, row, alive",
    [
        ("P5", BEGUN, hot(owner=None), None),
        ("P5", BEGUN, hot(), False),
        ("P5", PARKED, hot("waiting", wake_at=T + 9, waiting_for="a", owner="w1"), False),
        ("P5", BEGUN, hot("interrupted", owner="w1"), True),
        ("P5", BEGUN, hot("pending"), None),
        ("P5", BEGUN, hot("rolling_back", owner=None), None),
        ("P5", BEGUN, hot("blocked", reason="why"), None),
        ("P5", BLOCKED, hot("blocked", reason=None), None),
        ("P5", BLOCKED, hot("interrupted"), None),
        ("P5", BEGUN, hot("waiting", wake_at=T + 9, waiting_for="a"), None),
        ("P5", PARKED, hot("waiting", wake_at=None, waiting_for="a"), None),
        ("P5", PARKED, hot("waiting", wake_at=T + 10, waiting_for="a"), None),
        ("P5", (*BEGUN, Parked(T, None)), hot("waiting"), None),
        ("P5", (*BEGUN, OK), hot(), True),
        ("P3", BEGUN, hot(epoch=2), True),
    ],
)
def test_an_open_run_that_nobody_accounts_for(
    rule: str, records: tuple[AnyRecord, ...], row: HotRow, alive: bool | None
) -> None:
    assert rule in rules(check_run(rows(*records), open=True, hot=row, alive=alive))


@pytest.mark.parametrize("status", ["failed", "cancelled", "timed_out", "continued"])
def test_catalogue_and_journal_name_the_same_end(status: Any) -> None:
    assert rules(check_run(rows(RUN, life(1), OK), open=False, status=status)) == {"P5"}
    assert check_run(rows(RUN, life(1), OK), open=False, status="succeeded") == []


def test_an_ended_run_has_an_end() -> None:
    assert rules(check_run(rows(*BEGUN), open=False)) == {"P5"}


def test_a_violation_reads_well() -> None:
    (violation,) = check_run(rows(RUN, life(1), *step("load"), done("load")), open=True)
    assert str(violation) == "P1: load: StepSucceeded again: it had succeeded, and nobody reopened it"
    (violation,) = check_run(rows(*BEGUN), open=False)
    assert str(violation).startswith("P5: run: ")


SECRET = 'hün"ter2\\/'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"x{SECRET}y",
        json.dumps({"password": SECRET}),
        json.dumps([SECRET], ensure_ascii=False),
        "aMO8biJ0ZXIyXC8=",
        "https://me:h%C3%BCn%22ter2%5C%2F@host/",
    ],
)
def test_a_secret_is_found_wherever_it_stands(text: str) -> None:
    places: list[AnyRecord] = [
        StepSucceeded(T, "a", text),
        StepFailed(T, "a", ErrorRecord("E", "m", cause=ErrorRecord("E", text))),
        RunStarted(T, "f", text),
        RunBlocked(T, text),
        Recorded(T, "a", "once", text),
    ]
    for record in places:
        (found,) = find_text(rows(RUN, life(1), record)[1:] or rows(record), [], SECRET)
        assert found.rule == "P7"
        assert type(record).__name__ in found.message
        assert SECRET not in str(found)
    (in_note,) = find_text([], [Note("a", "log", T, text)], SECRET)
    assert "log note of a" in in_note.message
    (elsewhere,) = find_text([], [], SECRET, {"a page": text, "a blob": b"nothing"})
    assert "a page" in elsewhere.message


def test_what_is_not_there_is_not_found() -> None:
    journal = rows(RUN, life(1), *step("a"))
    assert find_text(journal, [Note("a", "log", T, "hunter")], SECRET, {"page": b"\xff"}) == []
