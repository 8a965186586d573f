"""Scopes hand out keys; branches are the threads of control of a run, and what the parking of a run is counted by."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from stepwell.core import MAX_NAME, child_key, label, operation_id
from stepwell.errors import InvalidStateError, NestedStepError, UsageError, ValidationError

if TYPE_CHECKING:
    from stepwell.runtime._api import Attempt
    from stepwell.runtime._life import Life

current_attempt: ContextVar[Attempt | None] = ContextVar("stepwell_attempt", default=None)
"""The attempt whose body runs here, so that a nested operation is refused at once."""


class Branch:
    """One thread of control of a run: the handler, or a branch of a map or parallel.

    It is *busy* unless it waits. Sync: one operation at a time, so it waits when that one waits. Async: it waits when
    operations are open and all of them wait. ``Life.busy`` counts the busy ones; at zero the run is parked.
    """

    __slots__ = (
        "counted",
        "ended",
        "gate",
        "idle",
        "inline",
        "key",
        "let_go",
        "life",
        "open",
        "parent",
        "pinned",
        "settling",
        "strands",
        "task",
        "waiting",
    )

    def __init__(self, life: Life, key: str, parent: Branch | None, *, inline: bool = False) -> None:
        self.life = life
        self.key = key
        self.parent = parent
        self.inline = inline
        """It runs on its coordinator's thread and must not keep it."""
        self.pinned = False
        """It has no coordinator that would give it a thread again: it keeps the one it has."""
        self.gate = None if life.is_async else life.host.threads.gate()
        self.strands = 0
        """Sync: operations that go on beside its code (`_strand`)."""
        self.task: Any = None
        self.open = 0
        """Async: operations called and not ended. (Sync: one at a time, not counted.)"""
        self.waiting = 0
        """Operations that wait."""
        self.idle = False
        """It waits: it is not among ``Life.busy``."""
        self.counted = True
        """Whether ``Life.busy`` takes notice of it; not once it was let go of."""
        self.settling = False
        """Async: an operation has just ended, and what awaits it may not have gone on yet."""
        self.let_go = False
        """Its batch has ended without it: nothing of it is written any more."""
        self.ended = False
        """Its end is in the queue: it can be let go of no more."""

    @property
    def gone(self) -> bool:
        """It, or a branch that it is inside of, was let go of."""
        branch: Branch | None = self
        while branch is not None:
            if branch.let_go:
                return True
            branch = branch.parent
        return False


class Scope:
    """A nested part of a run: hands out the keys of the operations in it, in the order in which they are called."""

    __slots__ = ("_counts", "_once", "branch", "closed", "key", "life", "owner", "pendings", "real", "virtual")

    def __init__(self, life: Life, key: str, branch: Branch, *, virtual: bool = False, real: str | None = None) -> None:
        self.life = life
        self.key = key
        self.branch = branch
        self.virtual = virtual
        self.real = key if real is None else real
        """Key of the nearest scope that has records: what its operations show as their parent."""
        self._counts: dict[str, int] = {}
        self._once: dict[str, Any] = {}
        self.owner: object = life.current_owner()
        self.closed = False
        self.pendings: list[Any] = []
        """What code in it began and goes on beside it."""
        if life.asked is not None:
            life.asked.scopes.add(key)

    def key_of(self, text: str) -> str:
        """The next key with this label. Raises if the scope may not be used from here."""
        counts = self._counts
        ordinal = counts.get(text, 0) + 1
        counts[text] = ordinal
        return child_key(self.key, text, ordinal)

    def begin(self, method: str, name: str | None, default: str) -> tuple[str, str | None]:
        """Check that an operation may begin here and hand out its key: (key, name or None).

        Raises:
            NestedStepError: inside a step's body.
            UsageError: from a thread or task that the scope does not own.
            InvalidStateError: the scope has ended.
            ValidationError: no operation can have this name, or it holds a secret.
        """
        self.check(method, name or default)
        life = self.life
        if name:
            key = self.key_of(label(checked_name(name)))
            self.refuse_secret(name, key)
        else:
            key, name = self.key_of(label(default)), None
        if life.asked is not None:
            life.asked.keys.add(key)
        return key, name

    def refuse_secret(self, name: str, key: str) -> None:
        """Raise `ValidationError` if a name that is about to go on record under ``key`` holds a secret of the run.

        It is not masked, as values are: a later life may come by here before the secret is revealed again, and would
        look for the operation under another key. One that is on record is found, whatever was revealed since.
        """
        redactor, ops = self.life.redactor, self.life.run.ops
        if not redactor.active or (masked := redactor.redact(name)) == name:
            return
        if key not in ops and not any(other.startswith((f"{key}/", f"{key}[")) for other in list(ops)):
            message = f"name {masked[:40]!r} holds a secret of this run, and names are on record: choose another"
            raise ValidationError(message)

    def check(self, method: str, inner: str) -> None:
        """Check that the scope may be used from here, now. Raises as `begin`."""
        life = self.life
        if life.over is not None:
            raise life.over.with_traceback(None)
        attempt = current_attempt.get()
        if attempt is not None:
            self._refuse_nested(attempt, method, inner)
        if self.closed:
            message = f"the context of scope '{self.key or life.run.id}' was used after its end"
            raise InvalidStateError(message)
        if self.owner != life.current_owner():
            self._refuse_stranger()
        branch = self.branch
        if branch.let_go or (branch.parent is not None and branch.gone):
            raise life.branch_over(branch)

    def _refuse_nested(self, attempt: Attempt, method: str, inner: str) -> None:
        if attempt.scope.life.run is not self.life.run:
            return
        outer = attempt.name or attempt.key
        message = (
            f"step '{outer}' called context.{method}('{inner}') inside its body; "
            "a step is a leaf, use context.run_in_child_context"
        )
        raise NestedStepError(message)

    def _refuse_stranger(self) -> None:
        who = self.life.owner_name()
        message = (
            f"context of scope '{self.key or self.life.run.id}' used from {who}; "
            "use context.map, context.parallel, context.gather or run_in_child_context"
        )
        raise UsageError(message)

    def once_slot(self, key: str, make: Any) -> Any:
        """The one place where callers of ``once`` with this key meet (threads included)."""
        return self._once.setdefault(key, make)

    def parent_id(self) -> str | None:
        """Operation id of the real scope; None for the run."""
        return operation_id(self.real) if self.real else None


def checked_name(name: object) -> str:
    """The name, if an operation can have it.

    Raises:
        ValidationError: it is no text, too long, or has characters that no name can have.
    """
    if not isinstance(name, str):
        message = f"a name is a text, not {name!r}"
        raise ValidationError(message)
    if len(name) > MAX_NAME or (not name.isprintable() and any(map(_is_unfit, name))):
        message = f"name {name[:40]!r}: at most {MAX_NAME} characters, none of them control characters"
        raise ValidationError(message)
    return name


def part_name(name: str, part: str) -> str:
    """The name of an operation that is a part of the one with this name: as much of it as there is room for."""
    return f"{name[: MAX_NAME - len(part)]}{part}"


def _is_unfit(character: str) -> bool:
    """Control characters, and halves of surrogate pairs: no store can keep those as text."""
    return character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff"
