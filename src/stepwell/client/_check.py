"""``stepwell check``: replay open runs against new code, executing and writing nothing, and say what has changed.

A rehearsal ends at the first thing that is not on record. Where the record goes on from there under another name, that
is taken for a renamed operation and the rehearsal is made again as if it were; it stands unless the old name is asked
for later, which makes it an added one.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stepwell.client._rehearsed import Change, Comparison, Seen, old_key, within
from stepwell.core import Done, Failed, SignalAwaited, parent_of
from stepwell.durable._program import DurableProgram
from stepwell.errors import Corrupt, NonDeterminismError, ReplayWarning
from stepwell.runtime import load
from stepwell.runtime._rehearsal import Rehearsed, rehearse
from stepwell.runtime._rollback import to_undo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.client._engine import Engine
    from stepwell.core import RunState
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import RunRow
    from stepwell.runtime import Host

MOST_RENAMED = 50


class Checked(msgspec.Struct, frozen=True):
    """What new code means for one open run.

    ``verdict``: SAFE, nothing of the record is lost; CHANGED, as in ``changes``; BROKEN, the run will be blocked, with
    ``error``. ``goes_on``: key of the operation at which the run goes on; ``ends``: how it ends instead, where the code
    asks for nothing more. ``notes``: what a life would warn of.
    """

    run: str
    function: str
    status: str
    verdict: Literal["SAFE", "CHANGED", "BROKEN"]
    changes: list[Change] = []
    error: str | None = None
    goes_on: str | None = None
    ends: str | None = None
    notes: list[str] = []


def check_run(engine: Engine, row: RunRow, function: DurableFunction) -> Checked:
    """Rehearse one run. The handler's own code runs, up to where the record ends; no step does."""
    program = DurableProgram(function, row.function)
    try:
        run = load(engine.store, row.id, row.rid)
    except Corrupt as error:
        return Checked(row.id, row.function, row.status, "BROKEN", error=str(error))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = _Check(engine.host, run, program).made()
    notes = list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, ReplayWarning)))
    changes, rehearsed, goes_on = found
    if isinstance(rehearsed.over, NonDeterminismError):
        return Checked(row.id, row.function, row.status, "BROKEN", changes, str(rehearsed.over), notes=notes)
    verdict: Literal["SAFE", "CHANGED"] = "CHANGED" if changes else "SAFE"
    ends = _ends(rehearsed.outcome)
    return Checked(row.id, row.function, row.status, verdict, changes, None, None if ends else goes_on, ends, notes)


def _ends(outcome: Done | Failed | None) -> str | None:
    match outcome:
        case None:
            return None
        case Failed(error=error):
            return f"failed: {error.type}: {error.message}"
        case _:
            return "succeeded"


class _Check:
    """Rehearsals of one run, until one shows all that can be seen."""

    def __init__(self, host: Host, run: RunState, program: DurableProgram) -> None:
        self._host = host
        self._run = run
        self._program = program
        self._aliases: dict[str, str] = {}

    def made(self) -> tuple[list[Change], Rehearsed, str | None]:
        """The changes, the last rehearsal, and the key at which it ended."""
        seen, rehearsed = self._rehearse()
        if self._run.rollback is not None or self._run.cancel is not None:
            return self._lost_undos(rehearsed), rehearsed, None
        added: list[Change] = []
        while len(self._aliases) < MOST_RENAMED:
            comparison = self._compare(seen, rehearsed)
            stranger = comparison.stranger()
            if stranger is None:
                break
            key, what = stranger
            old = comparison.successor(key, kind_of(what))
            if old is None or (then := self._suppose(key, old, rehearsed)) is None:
                added.append(Change("added", key, kind_of(what), name_of(what)))
                break
            seen, rehearsed = then
        comparison = self._compare(seen, rehearsed)
        changes = [*self._renamed(), *added, *comparison.changes(), *comparison.lost_undos(rehearsed.undos)]
        return changes, rehearsed, seen.last

    def _suppose(self, key: str, old: str, before: Rehearsed) -> tuple[Seen, Rehearsed] | None:
        """Take ``key`` for the new name of ``old``. None: it is not, as far as can be seen."""
        self._aliases[key] = old
        seen, rehearsed = self._rehearse()
        if isinstance(rehearsed.over, NonDeterminismError):
            wrong = within(rehearsed.over.key or "", key)
        else:
            wrong = isinstance(rehearsed.outcome, Failed) and not isinstance(before.outcome, Failed)
        others = {new: known for new, known in self._aliases.items() if new != key}
        if wrong or Comparison(self._run, seen, left=False, aliases=others).was_asked(old):
            del self._aliases[key]
            return None
        return seen, rehearsed

    def _rehearse(self) -> tuple[Seen, Rehearsed]:
        run, seen = copy.copy(self._run), Seen()
        run.ops = dict(run.ops)
        for new, old in self._aliases.items():
            for key, op in self._run.ops.items():
                if within(key, old):
                    other = copy.copy(op)
                    other.key = new + key[len(old) :]
                    run.ops[other.key] = other
        return seen, rehearse(self._host, run, self._program, seen)

    def _compare(self, seen: Seen, rehearsed: Rehearsed) -> Comparison:
        return Comparison(
            self._run, seen, left=rehearsed.outcome is not None and rehearsed.over is None, aliases=self._aliases
        )

    def _renamed(self) -> Iterator[Change]:
        for new, old in self._aliases.items():
            op = self._run.ops[old]
            same_scope = old_key(self._aliases, parent_of(new)) == parent_of(old)
            yield Change("renamed" if same_scope else "moved", old, op.kind, op.name, new)

    def _lost_undos(self, rehearsed: Rehearsed) -> list[Change]:
        ops = self._run.ops
        lost = (ops[key] for key in to_undo(self._run) if key not in rehearsed.undos)
        return [Change("removed", op.key, "undo", op.name) for op in lost]


def kind_of(what: Any) -> str:
    """What kind of operation was asked for."""
    return "signal" if isinstance(what, SignalAwaited) else str(what.kind)


def name_of(what: Any) -> str | None:
    """Its name."""
    return what.signal if isinstance(what, SignalAwaited) else what.name
