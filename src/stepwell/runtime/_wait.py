"""Where one operation of a run waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from stepwell.runtime._scope import Branch


class Wait:
    """One operation that waits. ``until`` None: for its branches, or for something from outside."""

    __slots__ = ("branch", "future", "key", "own", "ready", "resume", "topics", "until")

    def __init__(
        self,
        branch: Branch,
        key: str,
        until: int | None,
        *,
        own: bool = True,
        topics: tuple[str, ...] = (),
        ready: Callable[[], bool] | None = None,
    ) -> None:
        self.branch = branch
        self.topics = topics
        """What comes from outside and may end it."""
        self.ready = ready
        """Whether it has."""
        self.resume: Callable[[], None] | None = None
        """Where its branch has no thread: what gives it one. Under the life's lock."""
        self.own = own
        """It waits for its own time; not for its branches."""
        self.key = key
        self.until = until
        self.future: asyncio.Future[None] | None = None

    def is_ready(self) -> bool:
        """Whether what it waits for has come from outside."""
        return self.ready is not None and self.ready()

    def wake(self) -> None:
        """Let whoever waits look again. On the life's loop in async lives."""
        if self.future is not None:
            if not self.future.done():
                self.future.set_result(None)
        elif self.branch.gate is not None:
            self.branch.gate.open()


def wake_each(waits: Sequence[Wait]) -> None:
    """Let these look again."""
    for wait in waits:
        wait.wake()
