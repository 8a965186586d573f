"""Runs in virtual time: each wait ends the life, and time jumps to where the next one begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell import Engine
from stepwell.client import Parked
from stepwell.errors import RunError
from stepwell.testing._clock import VirtualClock

if TYPE_CHECKING:
    from stepwell import RunHandle


class Virtual:
    """An engine on a memory store that owns its clock."""

    def __init__(self, name: str, **options: Any) -> None:
        self.clock = VirtualClock()
        self.engine = Engine(f"memory://{name}", **{"hold": 0, "clock": self.clock, **options})

    def start(self, handler: Any, event: Any = None, run_id: str = "r") -> RunHandle:
        """Put it on record, and live until it waits or has ended."""
        handle = self.engine.enqueue(handler, event, id=run_id)
        self.live(handle)
        return handle

    def live(self, handle: RunHandle) -> int | None:
        """One life. Returns when the next may begin; None if the run has ended, or waits for the outside."""
        try:
            handle.resume(no_wait_parked=True)
        except Parked as parked:
            return parked.wake_at
        except RunError:
            pass
        return None

    def end(self, handler: Any, event: Any = None, run_id: str = "r") -> RunHandle:
        """The same, and on through all waits to the end of the run."""
        handle = self.engine.enqueue(handler, event, id=run_id)
        while (wake_at := self.live(handle)) is not None:
            self.clock.advance((wake_at - self.clock.now()) / 1_000_000)
        return handle
