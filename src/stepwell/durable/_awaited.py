"""What an async context's operation gives: a coroutine that notices when nobody ever awaits it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.runtime._open import op_end

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from stepwell.core import Flow
    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Branch


T = TypeVar("T")


def at_once(work: Awaitable[T]) -> T:
    """The value of a coroutine that never suspends."""
    try:
        next(work.__await__())
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError(f"{work!r} suspends")


class Awaited(Coroutine[Any, Any, Any]):
    """An operation counts as under way from the call on (durable.md §3.1), and its run does not park meanwhile. One
    that is dropped without having begun would count for ever: it is counted out, and named as Python names coroutines.

    A coroutine that has not begun lets a cancellation pass without a line of it being run; nothing would be on record,
    and a later life, in which it may not be cancelled so early, would run the operation: ``instead`` is run then.
    """

    __slots__ = ("_begun", "_branch", "_flow", "_instead", "_life", "_work")

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        flow: Flow[Any],
        life: Life,
        branch: Branch,
        instead: Callable[[BaseException], Coroutine[Any, Any, Any]],
    ) -> None:
        self._work = work
        self._flow = flow
        self._life = life
        self._branch = branch
        self._instead = instead
        self._begun = False

    def __await__(self) -> Generator[Any, Any, Any]:
        self._begun = True
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        """As of a coroutine."""
        self._begun = True
        return self._work.send(value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None) -> Any:
        """As of a coroutine; a task that is cancelled before its first step ends one that has not begun."""
        if self._begun:
            return self._work.throw(kind if value is None else value)
        self._begun = True
        self._work.close()
        error = kind if isinstance(kind, BaseException) else value if isinstance(value, BaseException) else kind()
        self._work = self._instead(error)
        return self._work.send(None)

    def close(self) -> None:
        """As of a coroutine; one that has not begun never will."""
        if not self._begun:
            self._give_up()
        self._work.close()

    def _give_up(self) -> None:
        self._begun = True
        loop = self._life.loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(op_end, self._life, self._branch)

    def __del__(self) -> None:
        if self._begun:
            return
        self.close()
        if self._life.over is None:  # a life that is over lets go of whatever it had asked for
            given = inspect.getgeneratorlocals(self._flow)
            want = given.get("want") or getattr(given.get("asked"), "want", None)
            name = "operation" if want is None else f"{want.kind} '{want.name or want.key}'"
            warnings.warn(f"{name} was called and never awaited", RuntimeWarning, stacklevel=2, source=self)
