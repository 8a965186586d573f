"""What the records of a run add up to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stepwell.core._progress import Reached

if TYPE_CHECKING:
    from stepwell.core._records import (
        CancelRequested,
        Kind,
        LifeStarted,
        Parked,
        Payload,
        RollbackStarted,
        RunCancelled,
        RunFailed,
        RunStarted,
        RunSucceeded,
        RunTimedOut,
    )
    from stepwell.errors import ErrorRecord

OpStatus = Literal["started", "planned", "succeeded", "failed", "cancelled", "reopened"]
"""Life of one operation. ``planned``: an attempt is over, the next has its time; ``reopened``: to be asked anew."""

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class Op:
    """One operation of a run, as its records leave it. Only `fold` writes to it."""

    # Class attributes are the defaults, so that an operation costs memory only for what was said of it.
    name: str | None = None
    sub_type: str | None = None
    attempt: int = 0
    base: int = 0
    """Attempts made before the run was last reopened: they count against no budget."""
    reopened: int = 0
    """How often it was to be begun anew, because the run was reopened."""
    payload: Payload = None
    error: ErrorRecord | None = None
    until: int = 0
    undo: bool = False
    started_at: int = 0
    attempt_at: int = 0
    """When the newest attempt began; 0 for the first, which began with the operation."""
    ended_at: int = 0
    epoch: int = 0
    """The life in which the newest attempt began."""
    fingerprint: str | None = None
    weight: float | None = None
    total: int | None = None
    replay_children: bool = False
    callback_id: str | None = None
    form: str | None = None
    timeout_at: int | None = None
    heartbeat: int | None = None
    child: str | None = None
    """The run that an invoke or start is about."""
    function: str | None = None
    tenant: str | None = None
    signal: str | None = None
    how: str | None = None
    """How it failed, where there is more than one way: timed_out, cancelled, failed."""
    by: str | None = None

    def __init__(self, key: str, kind: Kind, status: OpStatus) -> None:
        self.key = key
        self.kind = kind
        self.status = status

    def __repr__(self) -> str:
        return f"<Op {self.key} {self.kind} {self.status}>"

    @property
    def ended(self) -> bool:
        """No record will change it in this life."""
        return self.status in TERMINAL


class RunState:
    """A run, as its records leave it. Only `fold` writes to it."""

    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.ops: dict[str, Op] = {}
        """By key, in the order in which they were first recorded."""
        self.started: RunStarted | None = None
        self.life: LifeStarted | None = None
        self.epoch = 0
        self.first_life_at: int | None = None
        """When the run was first driven."""
        self.parked: Parked | None = None
        self.cancel: CancelRequested | None = None
        self.rollback: RollbackStarted | None = None
        self.end: RunSucceeded | RunFailed | RunCancelled | RunTimedOut | None = None
        self.blocked: str | None = None
        self.reopened = 0
        """How often the run was taken up again after an end."""
        self.reopened_at = 0
        """When it was last taken up again after an end."""
        self.ends = 0
        """How often it has ended."""
        self.undoable: list[str] = []
        """Keys of finished operations that have an undo, in the order in which they finished."""
        self.executing: set[str] = set()
        """Keys of steps that are on record as started and not as ended."""
        self.careful = False
        """A life was lost and nothing has finished since: starts are durable before their bodies (ENGINE.md §2)."""
        self.deaths: dict[str, int] = {}
        """For each step: deaths of the process in a row while it was on record as started."""
        self.expiries = 0
        """Lives in a row that lost their lease without dying."""
        self.signals: dict[str, list[Payload]] = {}
        """All signals that came, by name, in order."""
        self.taken: dict[str, int] = {}
        """How many of them code has been given, by name: the first ones."""
        self.published: dict[str, Payload] = {}
        """The latest value under each published name."""
        self.outside: dict[str, None] = {}
        """Keys of callbacks and invokes that are open."""
        self.reached = Reached()

    @property
    def deadline(self) -> int | None:
        """When the run times out, if ever. Who retries it gives it its time anew, or it would time out at once."""
        started = self.started
        if started is None or started.deadline is None:
            return None
        return started.deadline + self.reopened_at - started.at if self.reopened_at else started.deadline

    @property
    def input(self) -> Payload:
        """The recorded input."""
        return None if self.started is None else self.started.input
