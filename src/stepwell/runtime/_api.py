"""The runtime's seams: what a door hands in, and the private exceptions that end a life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

from stepwell.errors import Suspend

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import BatchWanted, BranchEnded, Payload
    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Scope


class LifeOver(Suspend):
    """This life may write no more: its lease is lost, its store failed, or its process is told to stop.

    A kind of `Suspend`: user code unwinds in the same way, and neither is anybody's error.
    """

    def __init__(self, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(reason)
        self.cause = cause


class Unwinding(Suspend):
    """The run is to end early (cancelled, timed out): the handler is left, then finished steps are undone."""


class BranchOver(Suspend):
    """This branch was let go of: its batch has ended without it."""


class BranchUnwound(Suspend):
    """A waiting branch gives its thread to others; its coordinator enters it again when its time has come."""


class ReplayEnd(Suspend):
    """Replay without executing has come to something that is not on record."""


class Codec(Protocol):
    """How one operation's value becomes text and comes back."""

    def encode(self, value: Any, place: str) -> str:
        """Text for the record. Raises `SerDesError`."""
        ...

    def decode(self, text: str, key: str) -> Any:
        """The value again. Raises `PayloadError`."""
        ...


class Attempt:
    """What the runtime tells a step's body about the attempt that calls it."""

    __slots__ = ("attempt", "connection", "job", "key", "last_heartbeat_at", "name", "over", "scope", "state")

    def __init__(self, scope: Scope, key: str, name: str | None, attempt: int, state: Payload = None) -> None:
        self.scope = scope
        self.key = key
        self.name = name
        self.attempt = attempt
        self.state = state
        self.connection: Any = None
        self.last_heartbeat_at = 0.0
        self.over = False
        """The attempt timed out: what its body says from here on is dropped."""


class Body:
    """A step's body as a door hands it in."""

    __slots__ = (
        "call", "codec", "executor", "finish", "heartbeat_timeout", "is_async", "remote", "timeout", "transactional",
    )  # fmt: skip

    def __init__(  # a record of settings
        self,
        call: Callable[[Attempt], Any],
        codec: Codec,
        *,
        is_async: bool = False,
        timeout: float | None = None,
        heartbeat_timeout: float | None = None,
        executor: Any = None,
        transactional: Any = False,
        finish: Callable[[Any, Attempt], tuple[bool, float]] | None = None,
        remote: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> None:
        self.call = call
        self.codec = codec
        self.is_async = is_async
        self.timeout = timeout
        self.heartbeat_timeout = heartbeat_timeout
        self.executor = executor
        self.transactional = transactional
        self.finish = finish
        """For polls: the new state to (stop, delay in seconds)."""
        self.remote = remote
        """For executors outside this process: function, arguments behind its first (the attempt's number), keywords."""


class ScopeBody(Protocol):
    """The inside of a scope as a door hands it in."""

    codec: Codec

    def call(self, scope: Scope) -> Any:
        """Run it in a context on ``scope``; a coroutine in async runs."""
        ...

    def summary(self, value: Any) -> str | None:
        """What to keep of a value that is too large to keep (durable.md §9)."""
        ...


class BatchBody(Protocol):
    """The insides of a map or parallel as a door hands them in."""

    def branch(self, index: int) -> ScopeBody:
        """Body of one branch."""
        ...

    def ask(self, asked: BatchWanted, ended: dict[int, BranchEnded]) -> str:
        """The user's ``should_complete``: "" or a reason."""
        ...

    def conclude(
        self, scope: Scope, asked: BatchWanted, reason: str, ended: dict[int, BranchEnded], started: frozenset[int]
    ) -> tuple[str, Any]:
        """Text for the record, and the value."""
        ...

    def missing(self, scope: Scope, asked: BatchWanted, text: str) -> tuple[int, ...]:
        """Branches whose values a replay must make again."""
        ...

    def restore(self, scope: Scope, asked: BatchWanted, text: str, again: dict[int, BranchEnded]) -> Any:
        """The recorded value again."""
        ...


class Undo:
    """How to undo one finished operation."""

    __slots__ = ("body", "name", "plan")

    def __init__(self, body: Callable[[Payload], Body], name: str | None, plan: Any) -> None:
        self.body = body
        self.name = name
        self.plan = plan


class Program(Protocol):
    """A durable function, or whatever a door makes of its own language, as the runtime drives it."""

    name: str
    is_async: bool
    timeout: float | None
    hold: float | None
    identity: str
    """``module:qualname`` of the code."""

    def call(self, life: Life) -> Any:
        """Run the handler in ``life.root_scope()``: `Done` or `Failed`; async programs give a coroutine of it.

        Only `Suspend` and its like, and BaseExceptions that are the caller's (KeyboardInterrupt), leave it.
        """
        ...


Why = Literal["start", "due", "resume", "retry", "takeover"]
