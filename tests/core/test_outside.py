"""What the outside ends: for each state that a callback, an invoke or a signal can be in, what is asked and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from stepwell.core import (
    AnyRecord,
    CallbackWanted,
    InvokeWanted,
    Record,
    RunState,
    SignalWanted,
    callback,
    callback_result,
    fold,
    fold_all,
    invoke,
    topic_of_signal,
    try_signal,
    wait_signal,
)
from stepwell.core._effects import (
    Await,
    CancelledHere,
    Commit,
    Decode,
    Diverge,
    EndOutside,
    Now,
    OpenOutside,
    Rebuild,
    Ride,
    StartChild,
    TakeSignal,
)
from stepwell.core._records import (
    CallbackBeat,
    CallbackCreated,
    CallbackFailed,
    CallbackSucceeded,
    InvokeFailed,
    InvokeStarted,
    InvokeSucceeded,
    LifeStarted,
    OperationCancelled,
    Recorded,
    Reopened,
    RunFailed,
    ScopeCancelled,
    ScopeStarted,
    ScopeSucceeded,
    SignalAwaited,
    SignalReceived,
    SignalTaken,
    SignalTimedOut,
    WaitStarted,
)
from stepwell.errors import ErrorRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.core import Flow

ERROR = ErrorRecord("Denied", "no")
LATE = ErrorRecord("TimeoutError", "late")
ASK = CallbackWanted("c", "callback", "c")
HURRIED = msgspec.structs.replace(ASK, timeout=100)
BEATEN = msgspec.structs.replace(ASK, timeout=100, heartbeat=30)
CREATED = CallbackCreated(10, "c", "id", "c")
CALL = InvokeWanted("i", "invoke", "i", function="f", child=lambda: "c-1", payload=lambda: "7")
QUICK = msgspec.structs.replace(CALL, timeout=100)
STARTED = InvokeStarted(10, "i", "c-1", "f", "7", "invoke", "i")
HEAR = SignalWanted("s", "signal", "n", signal="n")
HEAR_SOON = msgspec.structs.replace(HEAR, timeout=100)


class Stop(Exception):
    """An effect that nothing is sent back to."""


class Talk:
    """Performs the effects of one flow at one time, and writes them down."""

    def __init__(
        self,
        run: RunState,
        now: int,
        *,
        comes: tuple[AnyRecord, ...] = (),
        quicker: AnyRecord | None = None,
        child: AnyRecord | None = None,
    ) -> None:
        self.run = run
        self.now = now
        self.said: list[str] = []
        self._comes: Iterator[AnyRecord] = iter(comes)
        self._quicker = quicker
        self._child = child

    def through(self, flow: Flow[Any]) -> Any:
        """To its end."""
        sent: Any = None
        try:
            while True:
                effect = flow.send(sent)
                if not isinstance(effect, Now):
                    self.said.append(type(effect).__name__)
                sent = self.answer(effect)
        except StopIteration as end:
            return end.value

    def answer(self, effect: Any) -> Any:
        match effect:
            case Now():
                return self.now
            case Commit(records) | Ride(records):
                fold_all(self.run, records)
            case OpenOutside(_, record):
                fold(self.run, record)
            case EndOutside(_, record):
                fold(self.run, self._quicker or record)
                self._quicker = None
            case Await(_, until, topics):
                self.said[-1] = f"Await {until} {' '.join(topics)}"
                coming = next(self._comes, None)
                if coming is None:
                    self.now = 1000 if until is None else until
                else:
                    fold(self.run, coming)
                    assert effect.ready()
            case TakeSignal(want, name):
                index = self.run.taken.get(name, 0)
                if index >= len(self.run.signals.get(name, ())):
                    return False
                fold(self.run, SignalTaken(self.now, want.key, name, index))
                return True
            case StartChild():
                return self._child
            case Decode(_, payload):
                return f"decoded {payload}"
            case Rebuild(_, error):
                return LookupError(f"{error.type}: {error.message}")
            case _:
                assert isinstance(effect, Diverge | CancelledHere)
                raise Stop
        return None


def after(*records: AnyRecord) -> RunState:
    run = RunState("r")
    fold_all(run, (LifeStarted(1, 1, "w", "start"), *records))
    return run


# -- callbacks


def test_a_callback_is_made_once() -> None:
    talk = Talk(after(), 10)
    assert talk.through(callback(talk.run, HURRIED, lambda: "id")) == "id"
    assert talk.said == ["OpenOutside"]
    op = talk.run.ops["c"]
    assert (op.status, op.timeout_at, op.until, op.kind) == ("started", 110, 110, "callback")
    again = Talk(talk.run, 50)
    assert again.through(callback(again.run, HURRIED, lambda: "another")) == "id"
    assert again.said == []


@pytest.mark.parametrize(
    "timeout, heartbeat, until", [(None, None, 0), (100, None, 110), (None, 30, 40), (100, 30, 40), (20, 30, 30)]
)
def test_when_a_callback_times_out(timeout: int | None, heartbeat: int | None, until: int) -> None:
    want = msgspec.structs.replace(ASK, timeout=timeout, heartbeat=heartbeat)
    talk = Talk(after(), 10)
    talk.through(callback(talk.run, want, lambda: "id"))
    assert talk.run.ops["c"].until == until


@pytest.mark.parametrize(
    "end, said, value",
    [
        (CallbackSucceeded(20, "c", '"x"'), ["Decode"], 'decoded "x"'),
        (CallbackSucceeded(20, "c", None), [], None),
    ],
)
def test_an_answer_that_is_there(end: AnyRecord, said: list[str], value: Any) -> None:
    talk = Talk(after(CREATED, end), 50)
    for _ in range(2):
        talk.said.clear()
        assert talk.through(callback_result(talk.run, ASK)) == value
        assert talk.said == said


def test_a_failure_that_is_there() -> None:
    talk = Talk(after(CREATED, CallbackFailed(20, "c", ERROR)), 50)
    with pytest.raises(LookupError, match="Denied: no"):
        talk.through(callback_result(talk.run, ASK))
    assert talk.said == ["Rebuild"]
    assert talk.run.ops["c"].how == "failed"


def test_waiting_for_an_answer() -> None:
    talk = Talk(after(CREATED), 50, comes=(CallbackSucceeded(60, "c", '"x"'),))
    assert talk.through(callback_result(talk.run, ASK)) == 'decoded "x"'
    assert talk.said == ["Await None c", "Decode"]


def made(want: CallbackWanted) -> RunState:
    talk = Talk(after(), 10)
    talk.through(callback(talk.run, want, lambda: "id"))
    return talk.run


def test_a_callback_that_nobody_answers() -> None:
    talk = Talk(made(HURRIED), 50)
    with pytest.raises(LookupError, match=r"Callback\.Timeout: Callback timed out"):
        talk.through(callback_result(talk.run, HURRIED))
    assert talk.said == ["Await 110 c", "EndOutside", "Rebuild"]
    assert talk.run.ops["c"].how == "timed_out"


def test_an_answer_that_is_quicker_than_the_end() -> None:
    talk = Talk(made(HURRIED), 500, quicker=CallbackSucceeded(109, "c", '"x"'))
    assert talk.through(callback_result(talk.run, HURRIED)) == 'decoded "x"'
    assert talk.said == ["EndOutside", "Decode"]


def test_heartbeats_move_what_is_waited_for() -> None:
    talk = Talk(made(BEATEN), 20, comes=(CallbackBeat(35, "c"), CallbackBeat(60, "c"), CallbackBeat(85, "c")))
    with pytest.raises(LookupError, match=r"Callback\.Timeout"):
        talk.through(callback_result(talk.run, BEATEN))
    assert talk.said == ["Await 40 c", "Await 65 c", "Await 90 c", "Await 110 c", "EndOutside", "Rebuild"]
    silent = Talk(made(BEATEN), 20)
    with pytest.raises(LookupError, match=r"Callback\.Heartbeat: Callback timed out"):
        silent.through(callback_result(silent.run, BEATEN))


# -- invokes


def test_an_invoke_is_on_record_before_the_child_begins() -> None:
    talk = Talk(after(), 10, comes=(InvokeSucceeded(60, "i", "8"),))
    assert talk.through(invoke(talk.run, QUICK)) == "decoded 8"
    assert talk.said == ["OpenOutside", "StartChild", "Await 110 i", "Decode"]
    op = talk.run.ops["i"]
    assert (op.child, op.function, op.payload, op.until) == ("c-1", "f", "8", 110)


@pytest.mark.parametrize(
    "records, child, said",
    [
        ([STARTED], None, ["StartChild", "Await None i", "Decode"]),
        ([STARTED], InvokeSucceeded(40, "i", "8"), ["StartChild", "EndOutside", "Decode"]),
        ([STARTED, InvokeSucceeded(40, "i", "8")], None, ["Decode"]),
    ],
)
def test_an_invoke_in_a_later_life(records: list[AnyRecord], child: AnyRecord | None, said: list[str]) -> None:
    talk = Talk(after(*records), 50, comes=(InvokeSucceeded(60, "i", "8"),), child=child)
    assert talk.through(invoke(talk.run, CALL)) == "decoded 8"
    assert talk.said == said


@pytest.mark.parametrize("how", ["failed", "cancelled", "timed_out"])
def test_a_child_that_did_not_succeed(how: str) -> None:
    talk = Talk(after(), 10, comes=(InvokeFailed(60, "i", ERROR, how),))
    with pytest.raises(LookupError, match="Denied: no"):
        talk.through(invoke(talk.run, CALL))
    assert talk.run.ops["i"].how == how


def test_a_child_that_cannot_be_started() -> None:
    talk = Talk(after(), 10, child=InvokeFailed(11, "i", ERROR))
    with pytest.raises(LookupError, match="Denied: no"):
        talk.through(invoke(talk.run, CALL))
    assert talk.said == ["OpenOutside", "StartChild", "EndOutside", "Rebuild"]


@pytest.mark.parametrize("kind", ["invoke", "start"])
@pytest.mark.parametrize("end", [InvokeSucceeded(11, "i", "8"), InvokeFailed(11, "i", ERROR)])
def test_an_end_that_something_else_got_in_the_way_of_is_asked_for_again(kind: Any, end: AnyRecord) -> None:
    talk = Talk(after(), 10, child=end, quicker=SignalReceived(11, "n", "1"))
    try:
        assert talk.through(invoke(talk.run, msgspec.structs.replace(CALL, kind=kind))) == "decoded 8"
    except LookupError:
        assert isinstance(end, InvokeFailed)
    assert talk.said[:-1] == ["OpenOutside", "StartChild", "EndOutside", "StartChild", "EndOutside"]


def test_a_child_that_takes_too_long() -> None:
    talk = Talk(after(), 10)
    with pytest.raises(LookupError, match=r"Invoke\.Timeout: 'f' did not end in time"):
        talk.through(invoke(talk.run, QUICK))
    assert talk.said == ["OpenOutside", "StartChild", "Await 110 i", "EndOutside", "Rebuild"]
    quicker = Talk(after(), 10, quicker=InvokeSucceeded(109, "i", "8"))
    assert quicker.through(invoke(quicker.run, QUICK)) == "decoded 8"


def test_a_child_that_failed_is_started_anew_when_the_run_is_retried() -> None:
    ids = iter(["c-2"])
    want = msgspec.structs.replace(CALL, child=lambda: next(ids))
    failed = (STARTED, InvokeFailed(20, "i", ERROR), RunFailed(30, ERROR), Reopened(40, None))
    talk = Talk(after(*failed), 50, comes=(InvokeSucceeded(60, "i", "8"),))
    assert talk.through(invoke(talk.run, want)) == "decoded 8"
    assert talk.run.ops["i"].child == "c-2"


# -- signals


def test_a_signal_that_is_there() -> None:
    talk = Talk(after(SignalReceived(5, "n", "1"), SignalReceived(6, "n", "2")), 10)
    assert talk.through(wait_signal(talk.run, HEAR, lambda: LATE)) == "decoded 1"
    assert talk.said == ["Ride", "TakeSignal", "Decode"]
    other = SignalWanted("s#2", "signal", "n", signal="n")
    assert talk.through(wait_signal(talk.run, other, lambda: LATE)) == "decoded 2"


def test_waiting_for_a_signal() -> None:
    talk = Talk(after(), 10, comes=(SignalReceived(20, "n", "1"),))
    assert talk.through(wait_signal(talk.run, HEAR_SOON, lambda: LATE)) == "decoded 1"
    assert talk.said == ["Ride", "TakeSignal", f"Await 110 {topic_of_signal('n')}", "TakeSignal", "Decode"]


def test_no_signal_in_time() -> None:
    talk = Talk(after(), 10)
    with pytest.raises(LookupError, match="TimeoutError: late"):
        talk.through(wait_signal(talk.run, HEAR_SOON, lambda: LATE))
    assert talk.said[-3:] == ["TakeSignal", "EndOutside", "Rebuild"]


def test_the_time_of_a_signal_counts_from_its_first_life() -> None:
    talk = Talk(after(SignalAwaited(10, "s", "n", 60)), 50)
    with pytest.raises(LookupError, match="TimeoutError: late"):
        talk.through(wait_signal(talk.run, HEAR_SOON, lambda: LATE))
    assert talk.said[1].startswith("Await 60 ")


@pytest.mark.parametrize(
    "end, value",
    [(SignalTaken(20, "s", "n", 0), "decoded 1"), (SignalTimedOut(20, "s", LATE), LookupError)],
    ids=["taken", "timed out"],
)
def test_a_wait_for_a_signal_that_is_over(end: AnyRecord, value: Any) -> None:
    talk = Talk(after(SignalReceived(5, "n", "1"), SignalAwaited(10, "s", "n", 60), end), 50)
    if value is LookupError:
        with pytest.raises(LookupError, match="late"):
            talk.through(wait_signal(talk.run, HEAR, lambda: LATE))
    else:
        assert talk.through(wait_signal(talk.run, HEAR, lambda: LATE)) == value
    assert talk.said in (["Decode"], ["Rebuild"])


def test_try_signal_has_its_answer_for_good() -> None:
    talk = Talk(after(), 10)
    assert talk.through(try_signal(talk.run, HEAR)) is None
    assert talk.said == ["TakeSignal", "Ride"]
    fold(talk.run, SignalReceived(20, "n", "1"))
    assert talk.through(try_signal(talk.run, HEAR)) is None
    second = SignalWanted("s#2", "signal", "n", signal="n")
    assert talk.through(try_signal(talk.run, second)) == (True, "decoded 1")
    assert talk.through(try_signal(talk.run, second)) == (True, "decoded 1")


# -- for all


def flows(run: RunState) -> dict[str, Flow[Any]]:
    return {
        "c": callback(run, ASK, lambda: "id"),
        "i": invoke(run, CALL),
        "s": wait_signal(run, HEAR, lambda: LATE),
        "t": try_signal(run, SignalWanted("t", "signal", "n", signal="n")),
    }


@pytest.mark.parametrize("key", ["c", "i", "s", "t"])
def test_another_kind_under_the_key(key: str) -> None:
    talk = Talk(after(WaitStarted(2, key, 60)), 10)
    with pytest.raises(Stop):
        talk.through(flows(talk.run)[key])
    assert talk.said == ["Diverge"]


@pytest.mark.parametrize("begun", [CREATED, STARTED, SignalAwaited(10, "s", "n", None)], ids=lambda r: type(r).__name__)
def test_what_was_cancelled_raises_so(begun: Any) -> None:
    run = after(begun, OperationCancelled(20, begun.key))
    talk = Talk(run, 50)
    with pytest.raises(Stop):
        talk.through(callback_result(run, ASK) if begun is CREATED else flows(run)[begun.key])
    assert talk.said[-1] == "CancelledHere"


# -- what is open outside


OPEN: list[tuple[list[Record], list[str]]] = [
    ([CREATED], ["c"]),
    ([STARTED], ["i"]),
    ([InvokeStarted(10, "i", "c-1", "f", "7", "start", "i")], []),
    ([SignalAwaited(10, "s", "n", None)], []),
    ([CREATED, CallbackBeat(11, "c")], ["c"]),
    ([CREATED, CallbackSucceeded(20, "c", None)], []),
    ([CREATED, CallbackFailed(20, "c", ERROR)], []),
    ([CREATED, OperationCancelled(20, "c", "callback")], []),
    ([STARTED, InvokeSucceeded(20, "i", None)], []),
    ([STARTED, InvokeFailed(20, "i", ERROR)], []),
    ([CREATED, STARTED, CallbackSucceeded(20, "c", None)], ["i"]),
    ([CREATED, RunFailed(20, ERROR), Reopened(30, None, skip=("c",))], []),
    ([Recorded(10, "p", "publish", "1")], []),
]


@pytest.mark.parametrize("records, keys", OPEN, ids=[str(n) for n in range(len(OPEN))])
def test_a_run_knows_what_is_open_outside(records: list[AnyRecord], keys: list[str]) -> None:
    assert list(after(*records).outside) == keys


def test_what_ended_with_a_branch_is_asked_again_with_it() -> None:
    """Also where a scope without an end stands between the two."""
    inside = "m[0]/child/c"
    records: list[AnyRecord] = [
        ScopeStarted(2, "m", "map"), ScopeStarted(3, "m[0]", "map_item"), ScopeStarted(4, "m[0]/child", "child"),
        CallbackCreated(5, inside, "id"), ScopeStarted(6, "m[1]", "map_item"),
        OperationCancelled(7, inside, "callback"), ScopeCancelled(7, "m[0]"), ScopeSucceeded(7, "m", "[]"),
        CallbackCreated(8, "x", "id"), OperationCancelled(9, "x", "callback"), RunFailed(9, ERROR),
    ]  # fmt: skip
    run = after(*records, Reopened(10, None, force=("m",)))
    assert run.ops[inside].status == "reopened"
    assert run.ops["x"].status == "cancelled"
