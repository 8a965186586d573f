"""Records that nobody asks for any more, since the code has changed under the run (durable.md §3.2): kept and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from stepwell.core import parent_of
from stepwell.journal import Note

if TYPE_CHECKING:
    from stepwell.core import BatchWanted, Op, RunState
    from stepwell.runtime._life import Life

MOST = 1000
"""Keys that are kept of them."""


class Asked:
    """What a life that began with records was asked for, and the scopes whose code it ran."""

    __slots__ = ("keys", "scopes")

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.scopes: set[str] = {""}

    def batch(self, op: Op | None, asked: BatchWanted) -> None:
        """A map or parallel is asked for; its branches are, too, if it is not answered from the record."""
        if op is None or not op.ended:
            self.scopes.add(asked.want.key)
            self.keys.update(branch.key for branch in asked.branches)

    def unused(self, run: RunState) -> list[str]:
        """Keys on record that were not asked for, in scopes whose code ran. What is inside one goes with it."""
        return [
            key
            for key in run.ops
            if key not in self.keys and parent_of(key) in self.scopes and not key.startswith("undo/")
        ][:MOST]


def note_unused(life: Life) -> None:
    """The handler has come to its end by itself: what it did not ask for rides with the run's end."""
    if life.asked is None:
        return
    keys = life.asked.unused(life.run)
    if keys or life.run.reopened:  # a retry may ask for what the code before it did not
        life.ride((), (Note("", "unused", life.store.now(), msgspec.json.encode(keys).decode()),))
