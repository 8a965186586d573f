"""What the tests of durable functions share: strategies without delay, a pulled plug, and journals without times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell import Engine, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

FAST = Retry(3, delay=0.001, jitter="none")
NEVER = Retry(1)
TIMES = frozenset({"at", "until", "seq", "epoch", "worker", "pid", "host", "why", "fingerprint", "function", "target"})
LIVES = frozenset({"LifeStarted", "LifeLost", "Parked"})


class Plug(BaseException):
    """Pulled in the middle of a body: the life ends there, and the run is interrupted."""


class Once:
    """Raises what it is given, the first time only."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls == 1:
            raise self.error
        return self.calls


def nothing() -> None:
    return None


def giver(value: Any) -> Callable[[], Any]:
    return lambda: value


def raiser(error: BaseException) -> Callable[[], Any]:
    def body() -> Any:
        raise error

    return body


def records(engine: Engine, run_id: str, *, lives: bool = False) -> list[dict[str, Any]]:
    """The journal, ids, times and (unless asked for) lives aside."""
    return without_times(engine.get_run(run_id).history(), lives=lives)


def without_times(history: list[dict[str, Any]], *, lives: bool = False) -> list[dict[str, Any]]:
    """These records, ids, times and (unless asked for) lives aside."""
    return [
        {k: v for k, v in r.items() if k not in TIMES and k != "stack_trace"}
        for r in history
        if lives or r["record"] not in LIVES
    ]


def names(engine: Engine, run_id: str) -> list[str]:
    """The records in order, as ``Record key``; lives aside."""
    return [f"{r['record']} {r['key']}" if "key" in r else r["record"] for r in records(engine, run_id)]
