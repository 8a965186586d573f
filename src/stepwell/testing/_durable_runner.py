"""`DurableRunner`: runs a durable function in a test, with virtual time, crashes and answers from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from stepwell.client._none import NONE
from stepwell.journal import RunFilter
from stepwell.testing._kit import ENDED, Kit, called
from stepwell.testing._kit_callbacks import open_callback
from stepwell.testing._kit_replay import replay_problem
from stepwell.testing._kit_result import RunResult, run_result
from stepwell.testing._lookup import DurableFunctionsTestError

if TYPE_CHECKING:
    from stepwell.client import RunHandle
    from stepwell.errors import ErrorObject
    from stepwell.journal import RunRow


class DurableRunner:
    """Runs one durable function in this process, on the real engine and a store in memory.

    Time is virtual: waits, retry delays and polls take none, because time jumps where nothing runs. Usable as ``with``,
    which ends what still runs; without it, or a second time, it works as well.

    Args:
        handler: the durable function, or a plain function with its signature.
        lambda_function_name: the name that its runs are recorded under; default its own.
        skip_time: False for real time.
        store: URL of a store to use instead of memory.
        replay_twice: replay each finished run once more from its journal. A step that would run, or another result,
            fails the test: code outside of steps that is not deterministic.
    """

    def __init__(
        self, handler: Any, lambda_function_name: str | None = None, *,
        skip_time: bool = True, store: str | None = None, replay_twice: bool = True,
    ) -> None:  # fmt: skip
        self._function = called(handler, lambda_function_name)
        self._kit = Kit(store, skip_time=skip_time)
        self._replay_twice = replay_twice
        self._unchecked: list[str] = []

    def __repr__(self) -> str:
        return f"<DurableRunner {self._function.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self.close(check=kind is None)

    def close(self, *, check: bool = True) -> None:
        """End what still runs. Idempotent; a later `run` opens the runner again.

        Raises:
            DurableFunctionsTestError: with ``check``: a run that was started here does not replay, or a planned crash
                never came about.
        """
        try:
            if check:
                self._check_all()
        finally:
            self._unchecked.clear()
            self._kit.close()

    def register(self, name: str, function: Any) -> Self:
        """Make a function known that the one under test invokes: a durable one, or a plain one (one step)."""
        from stepwell.durable._function import DurableFunction

        self._kit.register(name, function, durable=isinstance(function, DurableFunction))
        return self

    # -- runs

    def run(self, input: Any = None, timeout: float = 60, id: str | None = None) -> RunResult:
        """Run it to its end. ``input`` None: ``{}``, or the recorded input of a known id.

        A run that does not end within ``timeout`` seconds of real time has failed; its ``execution_status`` is
        TIMED_OUT.

        Raises:
            DurableFunctionsTestError: its replay is not as the run was, or a planned crash never came about.
        """
        handle = self.start(input, id)
        return self.result(handle, timeout)

    def start(self, input: Any = None, id: str | None = None) -> RunHandle:
        """Start a run in the background; it goes on by itself until it waits for the outside."""
        handle = self._kit.start(self._function, NONE if input is None else input, id)
        self._unchecked.append(handle.id)
        return handle

    def result(self, handle: RunHandle, timeout: float = 60) -> RunResult:
        """Wait for the end of a run that was started here, at most ``timeout`` seconds of real time, and look at it.

        Raises:
            DurableFunctionsTestError: as `run`.
        """
        in_time = self._kit.wait(handle.id, timeout)
        if in_time:
            self._check(handle.id)
            self._check_crashes()
        return run_result(self._kit, handle, in_time=in_time, timeout=timeout)

    # -- from outside

    def wait_for_callback(self, handle: RunHandle, name: str | None = None, timeout: float = 60) -> str:
        """Wait until the run waits for a callback, and return the callback's id.

        Raises:
            DurableFunctionsTestError: the callback is completed already, or the run has ended without it.
            TimeoutError: there is none after ``timeout`` seconds of real time.
        """
        return open_callback(self._kit, handle.id, name, timeout)

    def complete(self, callback_id: str, value: Any = None) -> None:
        """Answer a callback. A text or bytes go as they are, another value as JSON."""
        given = value if value is None or isinstance(value, str | bytes) else _json(value)
        self._kit.engine.send_callback_success(callback_id, given)

    def fail(self, callback_id: str, error: ErrorObject | str | BaseException | None = None) -> None:
        """Refuse a callback."""
        from stepwell.errors import ErrorObject

        given = ErrorObject.from_exception(error) if isinstance(error, BaseException) else error
        self._kit.engine.send_callback_failure(callback_id, given)

    def heartbeat(self, callback_id: str) -> None:
        """Say that whoever is to answer a callback is still at it."""
        self._kit.engine.send_callback_heartbeat(callback_id)

    def signal(self, handle: RunHandle, name: str, value: Any = None, *, idempotency_key: str | None = None) -> None:
        """Send a run a signal."""
        handle.signal(name, value, idempotency_key=idempotency_key)

    def advance(self, seconds: float) -> None:
        """Let virtual time pass, past deadlines that are set for the outside: of callbacks, signals and runs.

        First waits until nothing runs, and again after it.

        Raises:
            UsageError: time is real here.
        """
        self._kit.advance(seconds)

    def crash_at(self, name: str, when: Literal["before", "after"] = "before", times: int = 1) -> None:
        """Drop the run's life at an operation, as a kill would, and take the run up in a new one.

        Args:
            name: name or key of the operation.
            when: ``before``: its body has run, and its end is not on record, so it runs again. ``after``: its end is
                on record, and nothing behind it has run.
            times: how often, counted over all operations with that name and their attempts.
        """
        self._kit.crashes.plan(name, when, times)

    # -- what is checked

    def _check_all(self) -> None:
        for run_id in self._unchecked[:]:
            if self._kit.row(run_id).status in ENDED:
                self._check(run_id)
        self._check_crashes()

    def _check_crashes(self) -> None:
        if unmet := self._kit.crashes.take_unmet():
            message = f"crash_at({unmet[0]!r}) never came about: no operation of that name or key has ended"
            raise DurableFunctionsTestError(message)

    def _check(self, run_id: str) -> None:
        """Replay a run once more, and those that it invoked, unless that was done."""
        if run_id not in self._unchecked:
            return
        self._unchecked.remove(run_id)
        if self._replay_twice:
            self._check_replay(self._kit.row(run_id))

    def _check_replay(self, row: RunRow) -> None:
        engine, run_id = self._kit.engine, row.id
        function = engine.function_for(row)
        problem = None if function is None else replay_problem(engine.host, engine.store, row, function)
        for child in engine.store.run_list(RunFilter(parent=run_id), limit=10_000):
            self._check_replay(child)
        if problem is not None:
            message = (
                f"run {run_id} does not replay: {problem}. What is not deterministic belongs into a step "
                "(replay_twice=False turns this check off)"
            )
            raise DurableFunctionsTestError(message)


def _json(value: Any) -> str:
    """Plain JSON, as an answer from outside would be; of models and dataclasses, too."""
    import msgspec

    return msgspec.json.encode(value, enc_hook=lambda model: model.model_dump(mode="json")).decode()
