"""Answers from outside: to callbacks and approvals, and signals to runs. First come, first heard."""

from __future__ import annotations

import getpass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell import serde
from stepwell.core import Op
from stepwell.durable._checks import check_text
from stepwell.durable._form import check_answer
from stepwell.durable._outside import APPROVAL, callback_place
from stepwell.errors import BadArguments, ErrorObject, ErrorRecord, UnknownRun, UsageError
from stepwell.journal import RUN_DOOR, Claim, ClaimLost
from stepwell.runtime._inbox import ANSWER, BEAT, SIGNAL, AnswerFact, BeatFact, SignalFact, encode_fact
from stepwell.runtime._outside import CALLBACK, CallbackRow, row_place
from stepwell.runtime._scope import checked_name
from stepwell.runtime._values import keep_text

if TYPE_CHECKING:
    from stepwell.client._engine import Engine
    from stepwell.core import Payload, RunState
    from stepwell.journal import Store

LARGEST = 64 << 20
"""Most bytes of an answer."""


class Found:
    """A callback as it stands: its run, its row, the row's bytes."""

    def __init__(self, engine: Engine, callback_id: str) -> None:
        self.callback_id = callback_id = str(callback_id)
        place = callback_place(callback_id)
        self.run_id = "" if place is None else place[0]
        self.place = row_place(callback_id, self.run_id)
        data = None if place is None else engine.store.row_get(RUN_DOOR, CALLBACK, self.place)
        if data is None:
            message = f"no callback {callback_id[:60]!r} is known here; `stepwell show RUN` prints the ids that wait"
            raise UnknownRun(message, run_id=self.run_id or None)
        self.data = data
        self.row = msgspec.msgpack.decode(data, type=CallbackRow)


def answer(
    engine: Engine,
    callback_id: str,
    *,
    text: str | None = None,
    error: ErrorRecord | None = None,
    by: str | None = None,
) -> None:
    """Answer a callback: with a failure, else with ``text``. Durable when this returns.

    Raises:
        UnknownRun: there is no such callback.
        UsageError: it has been answered, has timed out, or its run has ended; nothing changes.
        BadArguments: an approval's form refuses the answer (all problems are listed), or it is larger than 64 MiB.
    """
    while True:
        found = Found(engine, callback_id)
        if found.row.status != "STARTED":
            message = f"callback already completed: {found.row.status}"
            raise UsageError(message)
        if error is None and found.row.form is not None:
            text = "true" if text is None else text
            check_answer(found.row.form, text, partial(_class_of, engine, found.run_id))
        status = "SUCCEEDED" if error is None else "FAILED"
        after = encode_fact(msgspec.structs.replace(found.row, status=status))
        claim = Claim(RUN_DOOR, CALLBACK, found.place, found.data, after)
        fact = AnswerFact(found.row.key, None if text is None else _kept(engine, text), error, user())
        try:
            told = tell(engine, found.run_id, ANSWER, encode_fact(fact), claim)
        except ClaimLost:
            continue  # somebody was quicker: say what became of it
        if told:
            return
        if Found(engine, callback_id).data == found.data:  # else somebody was quicker, and the run has ended since
            message = f"run {found.run_id} has ended; its callback can no longer be answered"
            raise UsageError(message)


def _class_of(engine: Engine, run_id: str, name: str) -> Any:
    """The class of a form, if the run's code can be loaded here."""
    from stepwell.durable._steps import importable

    row = engine.store.run_get(run_id)
    if row is not None:
        engine.function_for(row)  # loads the module that the run's function is in
    module, _, qualname = name.partition(":")
    try:
        return importable(module, qualname)
    except (ImportError, AttributeError, ValueError):
        return None


def heartbeat(engine: Engine, callback_id: str) -> None:
    """Whoever is to answer is still at it. Raises as `answer`."""
    found = Found(engine, callback_id)
    if found.row.status != "STARTED":
        message = f"callback already completed: {found.row.status}"
        raise UsageError(message)
    if not tell(engine, found.run_id, BEAT, encode_fact(BeatFact(found.row.key))):
        message = f"run {found.run_id} has ended; its callback can no longer be answered"
        raise UsageError(message)


def signal(engine: Engine, run_id: str, name: str, value: Any, idempotency_key: str | None) -> None:
    """Send a signal to a run. Durable when this returns; with a key that was used before nothing is sent.

    Raises:
        SerDesError: the value cannot be recorded.
        ValidationError: no signal can have this name, or no claim this key.
        UsageError: the run has ended.
    """
    if not name:
        message = "a signal needs a name"
        raise UsageError(message)
    checked_name(name)
    fact = SignalFact(name, _kept(engine, serde.encode(value, place=name)), user())
    claim = None
    if idempotency_key is not None:
        check_text("idempotency_key", idempotency_key)
        place = f"{run_id}/{name}/{idempotency_key}"
        if len(place) > 1000:
            message = "idempotency_key: at most some 800 characters"
            raise UsageError(message)
        claim = Claim(RUN_DOOR, SIGNAL, place, None, b"sent")
    try:
        told = tell(engine, run_id, SIGNAL, encode_fact(fact), claim)
    except ClaimLost:
        return
    if not told:
        message = f"run {run_id} has ended; it takes no signals"
        raise UsageError(message)


def tell(engine: Engine, run_id: str, kind: str, data: bytes, claim: Claim | None = None) -> bool:
    """Put a fact into a run's inbox; a life of this process takes it at once."""
    host = engine.host
    with host.writer.exclusive():
        told = host.store.fact_deliver(run_id, kind, host.store.now(), data, claim)
    if told:
        host.store.poke()
        life = host.lives.get(run_id)
        if life is not None:
            host.take_inbox(life)
    return told


def _kept(engine: Engine, text: str) -> Payload:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > LARGEST:
        message = f"{size:,} bytes are more than an answer can have (64 MiB); send where it lies"
        raise BadArguments(message)
    payload, _ = keep_text(engine.store, engine.host.writer, text)
    return payload


def text_of_result(result: Any) -> str | None:
    """What was sent, as text.

    Raises:
        BadArguments: bytes that are no UTF-8, or another kind of value.
    """
    if isinstance(result, bytes):
        try:
            return result.decode() or None
        except UnicodeDecodeError as error:
            message = f"the result of a callback is UTF-8 text: {error}"
            raise BadArguments(message) from error
    if result is not None and not isinstance(result, str):
        message = f"the result of a callback is bytes or str, not {type(result).__name__}; send JSON text"
        raise BadArguments(message)
    return result or None


def error_record(error: ErrorObject | str | BaseException | None) -> ErrorRecord:
    """A failure that was sent, as the journal keeps it."""
    if error is None:
        return ErrorRecord("", "the callback failed")
    if isinstance(error, str):
        return ErrorRecord("", error)
    if isinstance(error, BaseException):
        error = ErrorObject.from_exception(error)
    frames = tuple(error.stack_trace or ())
    return ErrorRecord(error.type or "", error.message or "", error.data, frames)


def open_callbacks(store: Store, run: RunState) -> list[Op]:
    """Callbacks and approvals that wait for an answer, in call order; not those whose answer is on its way."""
    waiting = [op for op in run.ops.values() if op.kind == "callback" and op.status == "started"]
    return [] if run.end is not None else [op for op in waiting if _is_open(store, run.id, op)]


def _is_open(store: Store, run_id: str, op: Op) -> bool:
    data = None if op.callback_id is None else store.row_get(RUN_DOOR, CALLBACK, row_place(op.callback_id, run_id))
    return data is not None and msgspec.msgpack.decode(data, type=CallbackRow).status == "STARTED"


def pick(store: Store, run: RunState, name: str | None, *, approvals: bool) -> Op:
    """The one that is meant.

    Raises:
        UsageError: there is none, or more than one; they are listed.
    """
    what = "approval" if approvals else "callback"
    waiting = [op for op in open_callbacks(store, run) if not approvals or op.sub_type == APPROVAL]
    found = [op for op in waiting if name is None or name in (op.name, op.key)]
    if len(found) == 1:
        return found[0]
    if name and not found:
        _refuse_completed(store, run, name)
    if not waiting:
        message = f"run {run.id} waits for no {what}"
        raise UsageError(message, hint=f"stepwell show {run.id}")
    names = ", ".join(op.name or op.key for op in waiting)
    message = f"run {run.id} has no open {what} called {name!r}" if name else f"name the {what} of run {run.id}"
    raise UsageError(f"{message}; open: {names}")


def _refuse_completed(store: Store, run: RunState, name: str) -> None:
    """Raise `UsageError` if what is meant has been answered, or its time was up."""
    for op in run.ops.values():
        if op.callback_id is not None and name in (op.name, op.key):
            data = store.row_get(RUN_DOOR, CALLBACK, row_place(op.callback_id, run.id))
            status = "" if data is None else msgspec.msgpack.decode(data, type=CallbackRow).status
            if status not in ("", "STARTED"):
                message = f"callback already completed: {status}"
                raise UsageError(message, hint=f"stepwell show {run.id}")


def user() -> str | None:
    """Who is at this machine's keyboard."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None
