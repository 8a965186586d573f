"""durable.md §14, Identity: an operation error is also what was raised, in every life."""

from __future__ import annotations

import copy
import io
import json
import pickle
import socket
import subprocess
import traceback
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import (
    BatchCompletionError,
    CallbackExternalError,
    ChildContextError,
    DurableOperationError,
    ErrorRecord,
    PayloadError,
    RunError,
    RunFailed,
    SerDesError,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
    Suspend,
    UsageError,
    ValidationError,
)
from stepwell.serde import capture, decode, decode_lenient, encode, rebuild, roundtrip, to_error_object


class Plain(Exception):
    pass


class Fields(Exception):
    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail


class NoSuper(Exception):
    def __init__(self, a: int, b: int) -> None:
        self.total = a + b

    def __str__(self) -> str:
        return f"total {self.total}"


class OddNew(Exception):
    def __new__(cls, code: int, text: str) -> OddNew:  # noqa: PYI034
        return super().__new__(cls, text)

    def __init__(self, code: int, text: str) -> None:
        self.code = code


class Slotted(Exception):
    __slots__ = ("status", "unset")

    def __init__(self, status: int) -> None:
        super().__init__("slotted")
        self.status = status


class Computed(Exception):
    @property
    def data(self) -> str:
        return "computed"

    @property
    def key(self) -> str:
        raise ZeroDivisionError

    @property
    def error_type(self) -> str:
        return "mine"


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int
    why: str = "w"

    def __str__(self) -> str:
        return f"{self.code}/{self.why}"


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Volatile(Exception):
    """Its text is made from something that cannot be recorded."""

    def __init__(self) -> None:
        self.thing = object()

    def __str__(self) -> str:
        return "made of " + type(self.thing).__name__


class Registered(Exception):
    subclasses: ClassVar[list[type]] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        Registered.subclasses.append(cls)


class Meta(type):
    pass


class WithMeta(Exception, metaclass=Meta):
    pass


class Jammed(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("no")


class Outer:
    class Nested(LookupError):
        pass


class HasData(Exception):
    data = "payload"


class User(pydantic.BaseModel):
    id: int


def raised(make: Any) -> BaseException:
    try:
        if isinstance(make, BaseException):
            raise make
        make()
    except BaseException as error:
        return error
    raise AssertionError


def pydantic_error() -> None:
    User.model_validate({"id": "x"})


def unpack() -> None:
    _a, _b = (1,)  # type: ignore[misc]


COMBINABLE: list[Any] = [
    ValueError("bad"), ValueError(), ValueError("a", 2, (3,)), KeyError("k"), KeyError(("a", 1)), IndexError(3),
    RuntimeError("r"), ZeroDivisionError("z"), AssertionError(), NotImplementedError("n"), TimeoutError("t"),
    FileNotFoundError(2, "No such file", "/x/y"), OSError("plain"), OSError(5, "io", "a", None, "b"),
    ConnectionResetError(104, "reset"), BlockingIOError(11, "again", 5), io.UnsupportedOperation("no"),
    socket.gaierror(-2, "unknown"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"),
    UnicodeEncodeError("ascii", "é", 0, 1, "bad"), lambda: json.loads("{oops"), lambda: Path("/no/such").read_text(),
    SyntaxError("s", ("f.py", 1, 2, "text")), ImportError("i", name="mod", path="p"), NameError("n", name="x"),
    lambda: object().missing, unpack, subprocess.CalledProcessError(3, ["a", "b"], "out", "err"),  # type: ignore[attr-defined]
    Plain("p"), Plain(), Fields(3, detail="d"), NoSuper(1, 2), OddNew(4, "odd"), Slotted(7), Computed("c"),
    FrozenError(5), Unprintable("u"), Volatile(), Registered("r"), WithMeta("m"), Jammed("j"), Outer.Nested("n"),
    HasData("h"), ValidationError("ours"), SerDesError("ours too"), StepInterruptedError("cut"),
    UserWarning("w"), Exception("a", 2), msgspec.ValidationError("m"), Exception("e"), EOFError(), RecursionError("deep"),
]  # fmt: skip
NOT_COMBINABLE: list[Any] = [
    StopIteration(3), StopAsyncIteration(), ExceptionGroup("g", [ValueError("a"), Plain("b")]), pydantic_error,
    KeyboardInterrupt("stop"), SystemExit(4), GeneratorExit(),
]  # fmt: skip
OPERATIONS = [StepError, ChildContextError, CallbackExternalError, BatchCompletionError, RunFailed]


def lives(error: BaseException, operation: Any, **fields: Any) -> list[Any]:
    """The error of the first life and that of a replay, which has been through the journal."""
    record = capture(error)
    stored = msgspec.json.decode(msgspec.json.encode(record), type=ErrorRecord)
    assert stored == record
    return [rebuild(record, operation, **fields), rebuild(stored, operation, **fields)]


def ident(make: Any) -> str:
    return type(raised(make)).__name__


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("make", COMBINABLE, ids=ident)
def test_is_both(make: Any, operation: type[DurableOperationError | RunFailed]) -> None:
    original = raised(make)
    record = capture(original)
    for error in lives(original, operation, key="a/b", attempts=3, run_id="r"):
        assert isinstance(error, operation)
        assert isinstance(error, type(original))
        assert type(error).__name__ == operation.__name__
        assert type(error).__module__ == "stepwell.errors"
        assert str(error) == record.message
        assert (error.key, error.attempts, error.run_id) == ("a/b", 3, "r")
        assert (error.exit_code, error.http_status) == (operation.exit_code, operation.http_status)
        if isinstance(error, DurableOperationError):
            assert error.error_type == record.type
            assert error.data == record.data
            assert error.stack_trace == list(record.stack_trace)
        cause = error.__cause__
        assert isinstance(cause, type(original))
        assert str(cause) == record.message
        assert repr(error).startswith(operation.__name__)
        if not isinstance(original, SyntaxError):  # of which Python prints the parts
            assert record.message in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("make", COMBINABLE, ids=ident)
def test_args_and_attributes(make: Any) -> None:
    original = raised(make)
    for error in lives(original, StepError):
        assert error.args == original.args
        for name, value in vars(original).items():
            if not isinstance(value, type(object())) or type(value) is not object:
                assert getattr(error, name) == value
        for name in ("errno", "strerror", "filename", "filename2", "start", "reason", "lineno", "name", "path", "msg"):
            if hasattr(original, name):
                assert getattr(error, name) == getattr(original, name)
    for error in lives(original, None):
        assert str(error) == capture(original).message
        assert error.args == original.args


@pytest.mark.parametrize("make", COMBINABLE, ids=ident)
def test_captured_again_and_nested(make: Any) -> None:
    original = raised(make)
    own = f"{type(original).__module__}:{type(original).__qualname__}"
    step: Any = raised(lives(original, StepError, key="s", attempts=2)[1])
    record = capture(step)
    if not isinstance(original, StepError):
        assert record.classes == ("stepwell.errors:StepError", own)[: 1 if type(original) is Exception else 2]
    assert record.type == "StepError"
    assert record.message == str(step)
    assert record.stack_trace == tuple(step.stack_trace)
    child: Any = raised(lives(step, ChildContextError, key="c")[1])
    assert isinstance(child, ChildContextError)
    assert isinstance(child, StepError)
    assert isinstance(child, type(original))
    assert child.error_type == "StepError"
    assert (child.key, child.attempts) == ("c", None)
    inner: Any = child.__cause__
    assert isinstance(inner, StepError)
    assert isinstance(inner, type(original))
    assert (inner.key, inner.attempts, inner.error_type) == ("s", 2, step.error_type)
    assert isinstance(inner.__cause__, type(original))
    failed: Any = lives(child, RunFailed, run_id="r")[1]
    for cls in (RunFailed, RunError, ChildContextError, StepError, type(original)):
        assert isinstance(failed, cls)
    assert (failed.exit_code, failed.http_status) == (1, 500)
    assert (failed.run_id, failed.key) == ("r", "c")
    assert failed.cause is failed.__cause__
    assert isinstance(failed.cause, ChildContextError)
    assert str(failed) == str(step)
    assert failed.error == to_error_object(capture(child))
    text = str(failed.error)
    assert text.startswith("ChildContextError")
    assert "[StepError, " in text


@pytest.mark.parametrize("make", COMBINABLE + NOT_COMBINABLE, ids=ident)
def test_pickle_and_copy(make: Any) -> None:
    for operation in (StepError, RunFailed):
        error = lives(raised(make), operation, key="k", attempts=1)[0]
        error.__dict__["note"] = "later"
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert type(again) is type(error)
            assert str(again) == str(error)
            assert (again.key, again.attempts, again.note) == ("k", 1, "later")
            assert type(again.__cause__) is type(error.__cause__)


@pytest.mark.parametrize("make", NOT_COMBINABLE, ids=ident)
def test_not_combinable(make: Any) -> None:
    original = raised(make)
    for error in lives(original, StepError):
        assert type(error) is StepError
        assert str(error) == str(original)
        assert type(error.__cause__).__name__ == type(original).__name__
        assert str(error.__cause__) == str(original)
        assert error.error_type == capture(original).type


def test_groups_keep_their_members() -> None:
    cause = lives(ExceptionGroup("g", [ValueError("a"), Plain("b")]), StepError)[1].__cause__
    assert [type(member) for member in cause.exceptions] == [ValueError, Plain]


def test_local_and_gone_classes() -> None:
    class Local(ValueError):
        pass

    error, again = lives(Local("x"), StepError)
    assert type(error) is StepError
    assert str(error.error_type).endswith("<locals>.Local")
    assert type(error.__cause__).__name__ == "Local"
    assert type(error.__cause__) is type(again.__cause__)
    gone: Any = rebuild(ErrorRecord("app.Gone", "m", classes=("no_such_module:Gone",)), StepError)
    assert type(gone) is StepError
    assert (type(gone.__cause__).__name__, str(gone.__cause__)) == ("Gone", "m")
    assert gone.error_type == "app.Gone"
    nested: Any = lives(gone, RunFailed)[1]
    assert issubclass(type(nested), StepError)
    assert type(nested.cause.__cause__).__name__ == "Gone"
    assert pickle.loads(pickle.dumps(nested)).cause.error_type == "app.Gone"


def test_failures_from_outside_have_no_stand_in() -> None:
    error: Any = rebuild(ErrorRecord("Rejected", "no", data="d"), CallbackExternalError, key="k")
    assert type(error) is CallbackExternalError
    assert (str(error), error.error_type, error.data, error.__cause__) == ("no", "Rejected", "d", None)


def test_the_operation_s_own_error() -> None:
    error: Any = lives(StepTimeoutError("late", "app.Slow", "d"), StepTimeoutError, key="k")[1]
    assert type(error) is StepTimeoutError
    assert (error.error_type, error.data, error.key) == ("app.Slow", "d", "k")
    assert error.__cause__ is None
    wrapped: Any = lives(StepTimeoutError("late"), StepError)[1]
    assert isinstance(wrapped, StepTimeoutError)
    assert type(wrapped).__name__ == "StepError"


def test_causes_continue() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer")  # noqa: B904
    except ValueError as caught:
        error = lives(caught, StepError)[1]
    assert isinstance(error.__cause__, ValueError)
    assert isinstance(error.__cause__.__cause__, KeyError)
    try:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None
    except ValueError as caught:
        record = capture(caught)
    assert record.cause is None


def test_long_and_looping_chains_end() -> None:
    errors = [Plain(str(i)) for i in range(20)]
    for a, b in pairwise(errors):
        a.__cause__ = b
    record: ErrorRecord | None = capture(errors[0])
    depth = 0
    while record is not None:
        record, depth = record.cause, depth + 1
    assert depth == 9
    errors[1].__cause__ = errors[0]
    first = capture(errors[0])
    assert first.cause is not None
    assert first.cause.cause is None


def test_errors_that_hold_themselves() -> None:
    error = Plain("x")
    error.args = (error,)
    error.me = [error]  # type: ignore[attr-defined]
    record = capture(error)
    assert record.args is None
    assert len(msgspec.json.encode(record)) < 5_000
    with pytest.raises(SerDesError):
        bomb: Any = [1]
        bomb.append(bomb)
        encode(bomb)
    inner: BaseException = Plain("0")
    for level in range(30):
        outer = Plain(str(level))
        outer.inside = [inner, inner]  # type: ignore[attr-defined]
        inner = outer
    assert len(msgspec.json.encode(capture(inner))) < 100_000


def test_frames_are_the_user_s() -> None:
    record = capture(raised(lambda: json.loads("{oops")))
    assert "test_identity.py" in record.stack_trace[0]
    assert all(frame.startswith("  File ") for frame in record.stack_trace)
    only = capture(raised(lambda: json.loads("{oops")), skip=lambda file: "json" in file)
    assert len(only.stack_trace) < len(record.stack_trace)
    inside = capture(raised(lambda: decode("{")))
    assert not [frame for frame in inside.stack_trace if "stepwell/serde" in frame]
    everything = capture(raised(lambda: decode("{")), skip=lambda file: True)
    assert len(everything.stack_trace) > len(inside.stack_trace)

    def endless() -> None:
        endless()

    assert len(capture(raised(endless)).stack_trace) <= 101
    assert capture(ValueError("never raised")).stack_trace == ()


def test_subclass_registers_are_left_alone() -> None:
    lives(Registered("x"), StepError)
    assert Registered.subclasses == []


def test_classes_are_cached() -> None:
    assert type(lives(Plain("a"), StepError)[0]) is type(lives(Plain("b"), StepError)[1])


def test_two_unrelated_classes_of_which_one_does_not_fit() -> None:
    record = ErrorRecord("X", "m", classes=("builtins:OSError", "builtins:UnicodeDecodeError", "builtins:KeyError"))
    error = rebuild(record, StepError)
    assert [cls for cls in (OSError, KeyError, UnicodeDecodeError) if isinstance(error, cls)] == [OSError, KeyError]


def test_error_type() -> None:
    assert capture(Outer.Nested("x")).type == f"{__name__}.Outer.Nested"
    assert capture(StepError("x")).type == "StepError"
    assert capture(KeyError("x")).type == "KeyError"
    assert capture(HasData("x")).data == "payload"


@pytest.mark.parametrize("make", COMBINABLE + NOT_COMBINABLE, ids=ident)
def test_as_values(make: Any) -> None:
    original = raised(make)
    if isinstance(original, pydantic.ValidationError):
        with pytest.raises(SerDesError, match="cannot be made again"):
            roundtrip([original])
        return
    text, (again,) = roundtrip([original])
    assert isinstance(again, type(original))
    if not isinstance(original, Volatile | Unprintable):
        assert type(again) is type(original)
        assert str(again) == str(original)
    if not isinstance(original, ExceptionGroup):
        assert again.args == original.args
    assert decode_lenient(text) is not None
    assert json.loads(text)[0]["$"] == "error"


def test_values_with_operation_errors() -> None:
    step = lives(Fields(3, detail="d"), StepError, key="k", attempts=2)[0]
    again = roundtrip({"e": step})[1]["e"]
    assert type(again) is type(step)
    assert (again.key, again.attempts, again.code, again.error_type) == ("k", 2, 3, f"{__name__}.Fields")
    assert isinstance(again.__cause__, Fields)


def test_values_that_are_refused() -> None:
    class Local(Exception):
        pass

    with pytest.raises(SerDesError, match="Local cannot be recorded"):
        encode([Local()])
    with pytest.raises(SerDesError, match="parked"):
        encode(Suspend())
    with pytest.raises(PayloadError):
        decode('{"$":"error","v":{"type":"Suspend","message":"","classes":["stepwell.errors:Suspend"]}}')


def test_usage_errors_inside_a_run_do_not_change_its_exit_code() -> None:
    failed: Any = lives(UsageError("x", hint="do y"), RunFailed)[1]
    assert (failed.exit_code, failed.http_status, failed.hint) == (1, 500, "do y")


@settings(deadline=None)
@given(st.lists(st.none() | st.integers() | st.text(st.characters(codec=None)) | st.binary() | st.tuples(st.text())))
def test_law_text(args: list[Any]) -> None:
    for cls in (ValueError, KeyError, Plain, OSError):
        original = cls(*args)
        for error in lives(original, StepError):
            assert str(error) == str(original).encode("utf-8", "backslashreplace").decode()
            assert error.args == original.args
