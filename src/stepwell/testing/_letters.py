"""What reached one simulated run from outside, and what its records and its code make of that.

An answer or a signal that was accepted comes out of the run once and as it was sent, a refused one never. Accepted is
what the store took, whoever sent it, and whether or not the sender lived to hear of it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.core import (
    CallbackCreated,
    CallbackFailed,
    CallbackSucceeded,
    InvokeFailed,
    InvokeStarted,
    InvokeSucceeded,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    SignalReceived,
    SignalTimedOut,
)
from stepwell.runtime._inbox import ANSWER, BEAT, CANCEL, SIGNAL, AnswerFact, BeatFact, SignalFact

if TYPE_CHECKING:
    from stepwell.core import AnyRecord
    from stepwell.testing._ledger import Tale

RULE = "outside"
CHILDREN = "children"


class Opened(msgspec.Struct):
    """A callback. ``accepted``: the text that was sent, of the answer or of the failure."""

    created: CallbackCreated
    accepted: str | None = None
    heard_at: int = 0
    came: int = 0
    """How often its answer became a record."""


class Letters:
    """See the module."""

    def __init__(self, tale: Tale) -> None:
        self._tale = tale
        self.callbacks: dict[str, Opened] = {}
        """By key; a callback that is made anew takes the place of the former."""
        self.old: dict[str, set[str]] = {}
        """Texts that were accepted for callbacks that were made anew since, by key."""
        self.sent: dict[str, list[str]] = {}
        """Signals, by name, in order."""
        self.received: dict[str, int] = {}
        self.told_to_end = False
        """Somebody asked for the end of the run."""

    # -- into the inbox

    def delivered(self, kind: str, data: bytes, at: int) -> None:
        """The store took a fact for the run."""
        if kind == CANCEL:
            self.told_to_end = True
        elif kind == ANSWER:
            self._answered(msgspec.msgpack.decode(data, type=AnswerFact))
        elif kind == BEAT:
            opened = self.callbacks.get(msgspec.msgpack.decode(data, type=BeatFact).key)
            if opened is not None:
                opened.heard_at = at
        elif kind == SIGNAL:
            fact = msgspec.msgpack.decode(data, type=SignalFact)
            self.sent.setdefault(fact.name, []).append(str(fact.payload))

    def _answered(self, fact: AnswerFact) -> None:
        opened = self.callbacks.get(fact.key)
        if opened is None:
            self._tale.say(RULE, fact.key, "an answer was accepted of a callback that nobody has made")
            return
        op = self._tale.durable.ops.get(fact.key)
        if opened.accepted is not None:
            self._tale.say(RULE, fact.key, "two answers were accepted")
        if op is not None and op.ended:
            self._tale.say(RULE, fact.key, f"an answer was accepted after it had {op.how or op.status}")
        opened.accepted = fact.error.message if fact.error is not None else str(fact.payload)

    # -- into the records

    def wrote(self, record: AnyRecord) -> None:
        """This is on record, and folded."""
        match record:
            case CallbackCreated(key=key, at=at):
                before = self.callbacks.get(key)
                if before is not None and before.accepted is not None:
                    self.old.setdefault(key, set()).add(before.accepted)
                self.callbacks[key] = Opened(record, heard_at=at)
            case CallbackSucceeded(key=key, payload=payload):
                self._came(key, str(payload))
            case CallbackFailed(key=key, timed_out=True):
                self._timed_out(key, record.at)
            case CallbackFailed(key=key, error=error):
                self._came(key, error.message)
            case SignalReceived(name=name, payload=payload):
                self._received(name, str(payload))
            case SignalTimedOut(key=key):
                self._no_signal(key)
            case RunStarted() | InvokeStarted() | InvokeSucceeded() | InvokeFailed():
                self._child(record)
            case RunFailed() | RunCancelled() | RunTimedOut():
                self._left_alone()
            case _:
                pass

    def _came(self, key: str, text: str) -> None:
        opened = self.callbacks.get(key)
        if opened is None or opened.accepted != text:
            accepted = None if opened is None else opened.accepted
            self._tale.say(RULE, key, f"{text} is on record, accepted was {accepted}")
            return
        opened.came += 1
        if opened.came > 1:
            self._tale.say(RULE, key, "an answer is on record twice")

    def _timed_out(self, key: str, at: int) -> None:
        opened = self.callbacks[key]
        if opened.accepted is not None:
            self._tale.say(RULE, key, f"it timed out although {opened.accepted} had been accepted: that is lost")
        made = opened.created
        over = made.timeout_at is not None and at >= made.timeout_at
        if not over and (made.heartbeat is None or at < opened.heard_at + made.heartbeat):
            self._tale.say(RULE, key, f"it timed out {at - opened.heard_at} µs after an accepted heartbeat")

    def _received(self, name: str, text: str) -> None:
        place = self.received.get(name, 0)
        self.received[name] = place + 1
        sent = self.sent.get(name, [])
        if place >= len(sent) or sent[place] != text:
            expected = sent[place] if place < len(sent) else "none"
            self._tale.say(RULE, "", f"signal {place} '{name}' is {text}, sent was {expected}")

    def _no_signal(self, key: str) -> None:
        run = self._tale.durable
        name = str(run.ops[key].signal)
        if len(self.sent.get(name, ())) > self.received.get(name, 0):
            self._tale.say(RULE, key, f"no signal '{name}' in time, and one had been accepted")

    # -- other runs

    def _child(self, record: RunStarted | InvokeStarted | InvokeSucceeded | InvokeFailed) -> None:
        tale = self._tale
        tales = tale.world.tales
        if isinstance(record, RunStarted):
            if tale.started:
                tale.say(CHILDREN, "", "it starts twice")
            tale.started = True
            return
        if isinstance(record, InvokeStarted):
            tale.world.child_of(tale, record)
            return
        op = tale.durable.ops[record.key]
        child = tales.get(str(op.child))
        if op.kind == "start" or child is None or not child.started:
            return
        end = child.durable.end
        if isinstance(record, InvokeSucceeded):
            if not isinstance(end, RunSucceeded) or end.payload != record.payload:
                tale.say(CHILDREN, record.key, f"its child is said to have succeeded, and has come to {end!r}")
        elif record.error.type != "Invoke.Timeout" and (end is None or isinstance(end, RunSucceeded)):
            tale.say(CHILDREN, record.key, f"its child is said to have {record.how}, and has come to {end!r}")

    def _left_alone(self) -> None:
        """The run ends, and not well: what it waits for is told to."""
        tale = self._tale
        for op in tale.durable.ops.values():
            child = tale.world.tales.get(op.child) if op.kind == "invoke" and op.child is not None else None
            if child is None or op.ended or not child.started or child.durable.end is not None:
                continue
            if not child.letters.told_to_end:
                tale.say(CHILDREN, op.key, f"the run ends, and {child.id} goes on")

    # -- into the code

    def answer_is(self, value: Any) -> None:
        """Code got this answer, or the text of this failure; it names its callback."""
        text = json.dumps(value, separators=(",", ":")) if isinstance(value, dict) else str(value)
        key = place_of(text)
        opened = self.callbacks.get(key)
        if (opened is None or opened.accepted != text) and text not in self.old.get(key, ()):
            accepted = None if opened is None else opened.accepted
            self._tale.say(RULE, key, f"code got {text}, accepted was {accepted}")

    def signal_is(self, name: str, value: Any) -> None:
        """Code got this signal; that two operations get it, the fold refuses."""
        if json.dumps(value) not in self.sent.get(name, ()):
            self._tale.say(RULE, "", f"code got {value} as signal '{name}', which nobody has sent")


def place_of(text: str) -> str:
    """The key of the callback that an answer is meant for."""
    if text.startswith("{"):
        text = json.loads(text)["of"]
    return text.rpartition("!")[0]
