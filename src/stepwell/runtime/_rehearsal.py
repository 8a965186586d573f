"""Rehearse: replay a run against code, executing and writing nothing, to see what the code asks for.

A rehearsal is a life that can never write: it has no lease, its line refuses, and what it would say along the way is
dropped. It goes where a real life would go and ends at the first thing that is not on record, or that waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.errors import Suspend
from stepwell.journal import Lease
from stepwell.runtime._api import ReplayEnd
from stepwell.runtime._life import Life
from stepwell.runtime._live import current_life
from stepwell.runtime._live_async import call_program, settle_tasks
from stepwell.serde import current_redactor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.core import AnyRecord, Done, Failed, RunState
    from stepwell.journal import Note
    from stepwell.runtime._api import Follower, Program
    from stepwell.runtime._host import Host
    from stepwell.runtime._scope import Branch


class Rehearsed(msgspec.Struct, frozen=True):
    """What a rehearsal came to: ``outcome`` None where it ended before the handler did; ``over`` what ended the life
    (`NonDeterminismError`); ``undos`` the keys of operations whose undo the code knows.
    """

    outcome: Done | Failed | None
    over: BaseException | None
    undos: frozenset[str]


class _Rehearsal(Life):
    """Its line refuses."""

    def ride(self, records: Sequence[AnyRecord], notes: Sequence[Note] = (), blobs: Sequence[bytes] = ()) -> None:
        """Nothing that is said along the way is kept."""

    def writable(self, branch: Branch | None, records: Sequence[AnyRecord]) -> None:
        """Never."""
        raise ReplayEnd


def rehearse(host: Host, run: RunState, program: Program, follower: Follower) -> Rehearsed:
    """Replay ``run`` against ``program`` on this thread; ``run`` itself is not changed.

    Finished scopes are entered only where a life would look for undo functions in them: in a run that is to be undone.
    """
    life = _Rehearsal(host, run, Lease(run.id, host.worker, epoch=run.epoch), program, hold=0)
    life.replay_only, life.follower = True, follower
    life.look_inside = run.rollback is not None or run.cancel is not None
    tokens = (current_redactor.set(life.redactor), current_life.set(life))
    try:
        outcome = asyncio.run(_call_async(life)) if life.is_async else _call(life)
    finally:
        current_redactor.reset(tokens[0])
        current_life.reset(tokens[1])
    return Rehearsed(outcome, life.over, frozenset(life.undos))


def _call(life: Life) -> Any:
    try:
        return life.program.call(life)
    except Suspend:
        return None


async def _call_async(life: Life) -> Any:
    life.loop = asyncio.get_running_loop()
    try:
        return await call_program(life)
    except Suspend:
        return None
    finally:
        await settle_tasks(life)
