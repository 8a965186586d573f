"""What a failed operation raises: its own class and the original's, alike in every life (durable.md §19.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import RunCancelled, RunFailed, RunTimedOut, durable_execution
from stepwell.durable import ChildContextError, DurableOperationError, StepError
from stepwell.errors import RunError
from tests.durable.kit import NEVER, Once, Plug, raiser

if TYPE_CHECKING:
    from tests.durable.conftest import Run


class Own(Exception):
    """Importable, with what the serializer takes and what it does not."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.data = text


class Stubborn(Exception):
    """Needs arguments that it does not keep."""

    def __init__(self, *, needed: int) -> None:
        super().__init__(f"needed {needed}")


def twice(run: Run, fail: Any, look: Any) -> list[Any]:
    """What ``look`` sees of the error ``fail(context)`` raises, in the first life and in one after a crash."""
    seen: list[Any] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        try:
            fail(context)
        except Exception as error:
            seen.append(look(error))
        context.step(plug, name="plug")

    with pytest.raises(Plug):
        run(handler, id="r")
    run(handler, id="r")
    assert len(seen) == 2
    assert seen[0] == seen[1]
    return list(seen[0])


def step(error: BaseException) -> Any:
    return lambda context: context.step(raiser(error), name="s", retry=NEVER)


@pytest.mark.parametrize(
    "error, shown",
    [
        (ValueError("no"), "ValueError"),
        (KeyError("k"), "KeyError"),
        (OSError(2, "gone"), "FileNotFoundError"),
        (Own(3, "text"), f"{__name__}.Own"),
        (Stubborn(needed=3), f"{__name__}.Stubborn"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), "UnicodeDecodeError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_identity(run: Run, error: Exception, shown: str) -> None:
    def look(found: Any) -> list[Any]:
        kinds = isinstance(found, StepError), isinstance(found, type(error))
        return [*kinds, type(found).__name__, found.error_type, str(found), found.args, tuple(found.stack_trace or ())]

    is_step, is_own, name, error_type, text, args, stack = twice(run, step(error), look)
    assert (is_step, is_own, name, error_type) == (True, True, "StepError", shown)
    assert text == str(error)
    assert args == error.args
    assert any("kit.py" in frame for frame in stack)


def test_attributes_and_data(run: Run) -> None:
    found = twice(run, step(Own(3, "text")), lambda e: [e.code, e.data, e.key, e.run_id, e.attempts])
    assert found == [3, "text", "s", "r", 1]


def test_a_local_class_is_a_stand_in(run: Run) -> None:
    class Local(Exception):
        pass

    def look(error: Any) -> list[Any]:
        return [type(error), isinstance(error, Local), str(error), type(error.__cause__).__name__]

    assert twice(run, step(Local("here")), look) == [StepError, False, "here", "Local"]


@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration()], ids=repr)
def test_classes_that_cannot_be_combined(run: Run, error: Exception) -> None:
    def look(found: Any) -> list[Any]:
        return [isinstance(found, StepError), isinstance(found, type(error)), found.error_type]

    assert twice(run, step(error), look) == [True, False, type(error).__name__]


def test_errors_through_scopes(run: Run) -> None:
    def fail(context: Any) -> None:
        context.run_in_child_context(step(Own(1, "x")), "c")

    def look(error: Any) -> list[Any]:
        return [isinstance(error, ChildContextError), isinstance(error, Own), isinstance(error, StepError), error.key]

    assert twice(run, fail, look)[:2] == [True, True]


def test_causes_are_kept(run: Run) -> None:
    def body() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    def fail(context: Any) -> None:
        context.step(body, name="s", retry=NEVER)

    def look(error: Any) -> list[Any]:
        chain = []
        while error is not None:
            chain.append(type(error).__name__)
            error = error.__cause__
        return chain

    chain = twice(run, fail, look)
    assert chain[0] == "StepError"
    assert "KeyError" in chain


def test_what_leaves_the_handler_is_the_runs_error(run: Run) -> None:
    handler = durable_execution(lambda event, context: step(Own(3, "text"))(context))
    for _ in range(2):
        with pytest.raises(Own) as failed:
            run(handler, id="r")
        found: Any = failed.value
        assert issubclass(type(found), RunFailed)
        assert issubclass(type(found), StepError)
        assert (found.run_id, found.key, found.attempts) == ("r", "s", 1)
        assert isinstance(found.error.type, str)
        assert found.cause is not None
    error = run.engine.get_run("r").error
    assert error is not None
    assert (error.type, error.message, error.data) == ("StepError", str(Own(3, "text")), "text")
    assert "Own" in str(error)


def test_the_text_of_an_error_object_names_the_chain(run: Run) -> None:
    with pytest.raises(RuntimeError):
        run(durable_execution(lambda event, context: step(RuntimeError("Something went wrong"))(context)), id="r")
    assert str(run.engine.get_run("r").error) == "StepError: Something went wrong [RuntimeError]"


def test_an_error_of_the_handler_itself(run: Run) -> None:
    with pytest.raises(Own) as failed:
        run(durable_execution(lambda event, context: raiser(Own(1, "x"))()), id="r")
    assert issubclass(type(failed.value), RunFailed)
    assert not issubclass(type(failed.value), DurableOperationError)


def test_run_errors_come_first(run: Run) -> None:
    assert issubclass(RunFailed, RunError)
    assert issubclass(RunCancelled, RunError)
    assert issubclass(RunTimedOut, RunError)


def test_a_cancelled_run(run: Run) -> None:
    handle = run.engine.start_run(durable_execution(lambda event, context: context.wait(600)), id="r")
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.result(10)
    assert handle.status == "cancelled"
