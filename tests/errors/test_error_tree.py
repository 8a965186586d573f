"""The tree: every class pickles and copies, has a message, and knows its codes."""

from __future__ import annotations

import ast
import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from stepwell import errors
from stepwell.errors import ErrorObject, StepwellError

CLASSES: list[type[BaseException]] = [
    thing
    for name in errors.__all__
    if isinstance(thing := getattr(errors, name), type) and issubclass(thing, BaseException)
]

FIELDS: dict[str, dict[str, Any]] = {
    "UnknownRun": {"run_id": "r1"},
    "DuplicateRun": {"run_id": "r1", "expected": {"a": 1}, "found": {"a": 2}},
    "RunHeld": {"run_id": "r1", "holder": "host-1"},
    "BadArguments": {"problems": ("a is missing", "b is odd")},
    "FlowError": {"file": "flow.yaml", "line": 3, "column": 4, "problems": ("x",)},
    "RunFailed": {"run_id": "r1", "key": "a/b", "attempts": 3, "error": ErrorObject("m", "T", "d", ["f"])},
    "RunCancelled": {"run_id": "r1", "reason": "because"},
    "RunTimedOut": {"run_id": "r1"},
    "RunBlocked": {"run_id": "r1", "reason": "code-changed"},
    "RollbackFailed": {"run_id": "r1", "failures": ("x", "y")},
    "NonDeterminismError": {"key": "a", "expected": "step", "found": "wait", "line": "app.py:12"},
    "PayloadError": {"key": "a"},
    "SerDesError": {"key": "a"},
    "JournalBusy": {"holder": "pid 1"},
    "SchemaTooOld": {"found": 1, "expected": 2},
    "SchemaTooNew": {"found": 3, "expected": 2},
    "BatchCompletionError": {"completion_reason": "ALL_COMPLETED"},
}


def made(cls: type[BaseException]) -> BaseException:
    if cls is errors.MissingExtra:
        return errors.MissingExtra("sql")
    return cls("text", **FIELDS.get(cls.__name__, {}))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_pickle_and_copy_keep_everything(cls: type[BaseException]) -> None:
    error = made(cls)
    if isinstance(error, StepwellError):
        error.hint = "do this"
        error.exit_code = 99
    ways = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(2, 6)]
    for again in [*ways, copy.copy(error), copy.deepcopy(error)]:
        assert type(again) is cls
        assert again.args == error.args
        assert again.__dict__ == error.__dict__
        assert str(again) == str(error)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_fields_are_attributes(cls: type[BaseException]) -> None:
    error = made(cls)
    for name, value in FIELDS.get(cls.__name__, {}).items():
        assert getattr(error, name) == value


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_public_module_and_docstring(cls: type[BaseException]) -> None:
    assert cls.__module__ == "stepwell.errors"
    assert cls.__dict__["__doc__"]
    if issubclass(cls, StepwellError) and cls is not errors.MissingExtra:
        error = cls()
        assert str(error)
        assert cls.__dict__["__doc__"].startswith(str(error))
        assert cls(None).args == error.args
        assert str(cls("said")) == "said"


@pytest.mark.parametrize(
    "cls, exit_code, http_status",
    [
        (errors.UsageError, 2, 400),
        (errors.UnknownRun, 2, 404),
        (errors.DuplicateRun, 2, 409),
        (errors.RunHeld, 4, 409),
        (errors.ValidationError, 2, 400),
        (errors.NestedStepError, 2, 400),
        (errors.RunFailed, 1, 500),
        (errors.RunCancelled, 6, 409),
        (errors.RunTimedOut, 1, 504),
        (errors.RunBlocked, 1, 409),
        (errors.NonDeterminismError, 2, 409),
        (errors.JournalError, 7, 503),
        (errors.Fenced, 7, 503),
        (errors.StepError, 1, 500),
    ],
)
def test_codes(cls: type[StepwellError], exit_code: int, http_status: int) -> None:
    assert (cls.exit_code, cls.http_status) == (exit_code, http_status)


@pytest.mark.parametrize(
    "child, parents",
    [
        (errors.ValidationError, (errors.DurableExecutionsError, errors.UsageError)),
        (errors.SerDesError, (errors.DurableExecutionsError, errors.PayloadError)),
        (errors.NonDeterminismError, (errors.ExecutionError, errors.ReplayError)),
        (errors.StepInterruptedError, (errors.InvocationError,)),
        (errors.RetryableSerDesError, (errors.InvocationError,)),
        (errors.StepTimeoutError, (errors.StepError,)),
        (errors.ApprovalRejected, (errors.CallbackExternalError, errors.CallbackError)),
        (errors.FlowError, (errors.UsageError, ValueError)),
        (errors.ReplayWarning, (UserWarning,)),
    ],
)
def test_tree(child: type, parents: tuple[type, ...]) -> None:
    assert all(issubclass(child, parent) for parent in parents)


def test_names() -> None:
    assert errors.NonDeterministicExecutionError is errors.NonDeterminismError
    assert errors.__all__ == sorted(errors.__all__)
    assert not issubclass(errors.Suspend, Exception)
    for name in errors.__all__:
        if isinstance(thing := getattr(errors, name), type) and issubclass(thing, BaseException):
            assert name in (errors.__doc__ or ""), f"{name} is not in the drawing"


def test_details() -> None:
    assert 'pip install "stepwell[sql]"' in str(errors.MissingExtra("sql"))
    assert str(errors.BadArguments(problems=["a", "b"])) == "a; b"
    assert errors.InvocationError().is_retryable()
    assert not errors.StepInterruptedError().is_retryable()
    assert errors.ExecutionError("x").termination_reason is errors.TerminationReason.EXECUTION_ERROR
    reason = errors.TerminationReason.CHECKPOINT_FAILED
    assert pickle.loads(pickle.dumps(errors.ExecutionError("x", reason))).termination_reason is reason
    operation = errors.DurableOperationError("m", "T", "d", ("f",))
    assert (operation.error_type, operation.data, operation.stack_trace) == ("T", "d", ["f"])
    assert (operation.attempts, operation.key, operation.run_id) == (None, None, None)


def test_run_failed_keeps_its_cause() -> None:
    error = errors.RunFailed("x", cause=KeyError("k"))
    assert error.cause is error.__cause__
    again = pickle.loads(pickle.dumps(error))
    assert type(again.cause) is KeyError


def test_run_failed_travels_without_a_cause_that_cannot() -> None:
    class Local(Exception):
        pass

    again = pickle.loads(pickle.dumps(errors.RunFailed("x", run_id="r", cause=Local())))
    assert (str(again), again.run_id, again.cause) == ("x", "r", None)


def test_a_key_error_of_ours_shows_no_quotes() -> None:
    class Missing(StepwellError, KeyError):
        """Gone."""

    assert str(Missing("a b")) == "a b"


def test_floor_zero_imports_nothing_forbidden() -> None:
    banned = {"time", "asyncio", "threading", "random", "sqlite3", "logging", "os"}
    for file in Path(errors.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in banned, f"{file.name} imports {name}"
                assert not name.startswith("stepwell.") or name.startswith("stepwell.errors")
