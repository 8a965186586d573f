"""The life of what something outside of the run ends: callbacks, invoked runs, signals. Flows as in `_flow`.

Each of them waits in a loop: look at the record, and only where it says nothing, wait; what comes from outside is on
record before anybody reacts to it. A time-out is written only if no answer came first (`EndOutside`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from stepwell.core._decide import Cancelled, Raise, Return, Wanted, diverged, settled
from stepwell.core._effects import (
    Await,
    CancelledHere,
    Decode,
    Diverge,
    EndOutside,
    Flow,
    Now,
    OpenOutside,
    Rebuild,
    Ride,
    StartChild,
    TakeSignal,
)
from stepwell.core._records import (
    CallbackCreated,
    CallbackFailed,
    InvokeFailed,
    InvokeStarted,
    Payload,
    Recorded,
    SignalAwaited,
    SignalTimedOut,
)
from stepwell.errors import ErrorRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core._state import Op, RunState


class CallbackWanted(Wanted, frozen=True):
    """A callback that code asks for. Times in microseconds from its creation; ``form``: JSON."""

    timeout: int | None = None
    heartbeat: int | None = None
    form: str | None = None


class InvokeWanted(Wanted, frozen=True):
    """Another run that code asks for. ``kind``: invoke (and wait for it) or start. ``timeout`` in microseconds."""

    function: str = ""
    child: Callable[[], str] | None = None
    """Gives the child's id, when it is started for the first time or anew."""
    payload: Callable[[], Payload] | None = None
    tenant: str | None = None
    timeout: int | None = None


class SignalWanted(Wanted, frozen=True):
    """A signal that code waits for. ``timeout`` in microseconds."""

    signal: str = ""
    timeout: int | None = None


def topic_of_signal(name: str) -> str:
    """What a wait for a signal is woken by; no key of an operation begins so."""
    return f"#signal/{name}"


def _asked(run: RunState, want: Wanted) -> Flow[Op | None]:
    """The operation on record, if it is the one that code asks for."""
    op = run.ops.get(want.key)
    if op is not None and (other := diverged(op, want)):
        yield Diverge(want, other)
    return None if op is None or op.status == "reopened" else op


def callback(run: RunState, want: CallbackWanted, mint: Callable[[], str]) -> Flow[str]:
    """A callback: its id, the same in every life. ``mint`` makes it at first sight."""
    op = yield from _asked(run, want)
    if op is None:
        at = yield Now()
        ends = None if want.timeout is None else at + want.timeout
        created = CallbackCreated(at, want.key, mint(), want.name, want.sub_type, ends, want.heartbeat, want.form)
        yield OpenOutside(want, created)
        op = run.ops[want.key]
    assert op.callback_id is not None
    return op.callback_id


def callback_result(run: RunState, want: CallbackWanted) -> Flow[Any]:
    """Its answer; waits for it."""
    op = run.ops[want.key]
    while not op.ended:
        now = yield Now()
        if op.until and now >= op.until:
            which = "Timeout" if op.until == op.timeout_at else "Heartbeat"
            error = ErrorRecord(f"Callback.{which}", "Callback timed out")
            yield EndOutside(want, CallbackFailed(now, want.key, error, timed_out=True))
        else:
            # A heartbeat moves the time: whoever waits looks again.
            yield Await(want, op.until or None, (want.key,), partial(_has_news, op, op.until))
    return (yield from _answer(op, want))


def _has_news(op: Op, until: int) -> bool:
    return op.ended or op.until != until


def _answer(op: Op, want: Wanted) -> Flow[Any]:
    match settled(op):
        case Return(None):
            return None
        case Return(payload):
            return (yield Decode(want, payload))
        case Raise(error, attempts):
            raise (yield Rebuild(want, error, attempts))
        case Cancelled() | None:
            yield CancelledHere(want)


def invoke(run: RunState, want: InvokeWanted) -> Flow[Any]:
    """Another run: started once, whatever happens to this one; its value."""
    op = yield from _asked(run, want)
    if op is None:
        at = yield Now()
        assert want.child is not None
        assert want.payload is not None
        until = None if want.timeout is None else at + want.timeout
        child, payload, kind = want.child(), want.payload(), want.kind
        started = InvokeStarted(at, want.key, child, want.function, payload, kind, want.name, want.tenant, until)
        yield OpenOutside(want, started)
        op = run.ops[want.key]
    # That end is refused where something else came in meanwhile: it is asked for again, for nobody else will tell it.
    while not op.ended and (end := (yield StartChild(want))) is not None:
        yield EndOutside(want, end)
    while not op.ended:
        now = yield Now()
        if op.until and now >= op.until:
            error = ErrorRecord("Invoke.Timeout", f"'{op.function}' did not end in time")
            yield EndOutside(want, InvokeFailed(now, want.key, error, "timed_out"))
        else:
            yield Await(want, op.until or None, (want.key,), lambda: op.ended)
    return (yield from _answer(op, want))


def wait_signal(run: RunState, want: SignalWanted, error: Callable[[], ErrorRecord]) -> Flow[Any]:
    """The next signal with a name; waits for it. ``error`` makes the record of a time-out."""
    op = yield from _asked(run, want)
    if op is None:
        at = yield Now()
        until = 0 if want.timeout is None else at + want.timeout
        yield Ride((SignalAwaited(at, want.key, want.signal, until or None),))
    else:
        until = op.until
    topics = (topic_of_signal(want.signal),)
    while op is None or not op.ended:
        if (yield TakeSignal(want, want.signal)):
            op = run.ops[want.key]
            continue
        now = yield Now()
        if until and now >= until:
            yield EndOutside(want, SignalTimedOut(now, want.key, error()))
        else:
            yield Await(want, until or None, topics, partial(signal_waits, run, want.signal), signal=want.signal)
        op = run.ops.get(want.key)
    return (yield from _answer(op, want))


def signal_waits(run: RunState, name: str) -> bool:
    """Whether a signal with this name has come that nobody was given."""
    return len(run.signals.get(name, ())) > run.taken.get(name, 0)


def try_signal(run: RunState, want: SignalWanted) -> Flow[tuple[Literal[True], Any] | None]:
    """The next signal with a name if one has come, else None; the same in every life."""
    op = yield from _asked(run, want)
    if op is None:
        if not (yield TakeSignal(want, want.signal)):
            yield Ride((Recorded((yield Now()), want.key, "signal", None, name=want.signal),))
            return None
        op = run.ops[want.key]
    if op.status == "succeeded" and op.payload is None:
        return None
    return True, (yield from _answer(op, want))
