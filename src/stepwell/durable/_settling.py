"""What a scope began beside its own code is settled before the scope ends (durable.md §12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.runtime._scope import Scope


def settle(scope: Scope, *, failed: bool) -> None:
    """The scope's body is left: wait for what it began, and let go of it if the body failed.

    Raises:
        Exception: of the first pending that failed and that nobody asked.
    """
    for pending in scope.pendings:
        if failed:
            pending.cancel()
    for pending in scope.pendings:
        if pending.asked and not pending.done():
            pending.settled(scope)
        elif not pending.asked and not failed:
            pending.joined(scope)


async def settle_async(scope: Scope, *, failed: bool) -> None:
    """As `settle`."""
    for pending in scope.pendings:
        if failed:
            await pending.cancel()
    for pending in scope.pendings:
        if pending.asked and not pending.done():
            await pending.settled(scope)
        elif not pending.asked and not failed:
            await pending.joined(scope)
