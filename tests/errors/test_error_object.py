"""ErrorObject: the wire form, the text, equality."""

from __future__ import annotations

import copy
import pickle

import pytest

from stepwell.errors import ErrorObject, StepError


def test_wire_form() -> None:
    full = {"ErrorMessage": "m", "ErrorType": "T", "ErrorData": "d", "StackTrace": ["a", "b"]}
    assert ErrorObject.from_dict(full).to_dict() == full
    assert ErrorObject.from_dict({}).to_dict() == {}
    assert ErrorObject.from_message("m").to_dict() == {"ErrorMessage": "m"}
    assert ErrorObject("m", "T") == ErrorObject(message="m", type="T")


def test_text_has_the_types_of_all_causes() -> None:
    error = ErrorObject("Something went wrong", "StepError", cause=ErrorObject("x", "RuntimeError"))
    assert str(error) == "StepError: Something went wrong [RuntimeError]"
    assert str(ErrorObject("m", "A", cause=ErrorObject("x", "B", cause=ErrorObject("y", "C")))) == "A: m [B, C]"
    assert [str(ErrorObject("m")), str(ErrorObject(None, "T")), str(ErrorObject())] == ["m", "T", "unknown error"]


def test_frozen_equal_hashable_and_portable() -> None:
    error = ErrorObject("m", "T", "d", ["f"], cause=ErrorObject("x"))
    with pytest.raises(AttributeError):
        error.message = "n"
    with pytest.raises(AttributeError):
        del error.message
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert again == error
        assert hash(again) == hash(error)
    assert error != ErrorObject("m", "T", "d", ["f"])
    assert error != "m"


def test_from_exception() -> None:
    try:
        try:
            raise KeyError("k")
        except KeyError as error:
            raise ValueError("bad") from error
    except ValueError as error:
        described = ErrorObject.from_exception(error)
    assert (described.type, described.message) == ("ValueError", "bad")
    assert described.cause is not None
    assert (described.cause.type, described.cause.message) == ("KeyError", "'k'")
    assert "test_error_object.py" in (described.stack_trace or [""])[0]


def test_from_exception_of_an_operation() -> None:
    described = ErrorObject.from_exception(StepError("m", "app.Bad", "d", ["frame"]))
    assert described == ErrorObject("m", "StepError", "d", ["frame"])


def test_an_error_without_a_text() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "cannot be had" in str(ErrorObject.from_exception(Mute()))


def test_a_loop_of_causes_ends() -> None:
    one, two = ValueError("1"), ValueError("2")
    one.__cause__, two.__cause__ = two, one
    assert str(ErrorObject.from_exception(one)) == "ValueError: 1 [ValueError]"
