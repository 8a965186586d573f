"""Users' serdes, and the codecs that the engine gets of them (durable.md §13)."""

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell import serde
from stepwell.core import operation_id
from stepwell.durable import serdes
from stepwell.durable._codec import NO_VALUE, codec_for, shown_text
from stepwell.durable.concurrency.models import BatchItem, BatchItemStatus, BatchResult, CompletionReason
from stepwell.durable.config import Duration
from stepwell.durable.serdes import (
    DEFAULT_JSON_SERDES,
    EXTENDED_TYPES_SERDES,
    ExtendedTypeSerDes,
    JsonSerDes,
    PassThroughSerDes,
    SerDes,
    SerDesContext,
    deserialize,
    serialize,
)
from stepwell.errors import PayloadError, RetryableSerDesError, SerDesError

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from("tv$"), inner, max_size=4),
    max_leaves=12,
)


class Upper(SerDes[str]):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[SerDesContext] = []

    def serialize(self, value: str, serdes_context: SerDesContext) -> str | None:
        self.told.append(serdes_context)
        return value.upper()

    def deserialize(self, data: str, serdes_context: SerDesContext) -> str:
        self.told.append(serdes_context)
        return data.lower()


class Raw(SerDes[Any]):
    """Records whatever it is made with."""

    def __init__(self, text: object) -> None:
        self.text = text

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str | None:
        if isinstance(self.text, Exception):
            raise self.text
        return self.text  # type: ignore[return-value]

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
        if isinstance(self.text, Exception):
            raise self.text
        return ["read", data]


def test_all_is_sorted_and_at_home() -> None:
    assert serdes.__all__ == sorted(serdes.__all__)
    assert isinstance(DEFAULT_JSON_SERDES, JsonSerDes)
    assert isinstance(EXTENDED_TYPES_SERDES, ExtendedTypeSerDes)


def test_serdes_is_abstract() -> None:
    with pytest.raises(TypeError):
        SerDes()  # type: ignore[abstract]


@given(plain)
def test_the_extended_format_returns_what_it_was_given(value: Any) -> None:
    one = ExtendedTypeSerDes[Any]()
    back = one.deserialize(one.serialize(value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "value",
    [{"t": "s", "v": "x"}, {"v": 1, "t": "i"}, {"t": "n", "v": None}, [{"t": "s", "v": "x"}], {"t": (1, 2), "v": b"x"}],
)
def test_a_dict_that_looks_like_an_envelope_stays_one(value: Any) -> None:
    text = EXTENDED_TYPES_SERDES.serialize(value, SerDesContext())
    assert text is not None
    assert EXTENDED_TYPES_SERDES.deserialize(text, SerDesContext()) == value
    assert serde.decode(text) == value
    assert list(EXTENDED_TYPES_SERDES.deserialize(text, SerDesContext())) == list(value)


def test_the_extended_format_is_that_of_the_library() -> None:
    value = {"at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "n": Decimal("1.5"), "id": uuid.uuid4(), "t": (1,)}
    assert EXTENDED_TYPES_SERDES.serialize(value, SerDesContext()) == serde.encode(value)
    assert EXTENDED_TYPES_SERDES.serialize(8, SerDesContext()) == "8"
    with pytest.raises(SerDesError, match=r"^result\.v: object cannot be recorded"):
        EXTENDED_TYPES_SERDES.serialize({"t": 1, "v": object()}, SerDesContext())


def test_envelopes_are_read() -> None:
    text = json.dumps(
        {"t": "m", "v": {"when": {"t": "D", "v": "2026-01-02"}, "xs": {"t": "t", "v": [{"t": "i", "v": 1}]}}}
    )
    assert EXTENDED_TYPES_SERDES.deserialize(text, SerDesContext()) == {"when": dt.date(2026, 1, 2), "xs": (1,)}


def test_an_envelope_with_a_batch_is_read() -> None:
    item = {"t": "m", "v": {"index": {"t": "i", "v": 0}, "status": {"t": "s", "v": "SUCCEEDED"},
            "result": {"t": "i", "v": 7}, "error": {"t": "n", "v": None}}}  # fmt: skip
    text = json.dumps(
        {"t": "br", "v": {"all": {"t": "l", "v": [item]}, "completionReason": {"t": "s", "v": "ALL_COMPLETED"}}}
    )
    expected = BatchResult([BatchItem(0, BatchItemStatus.SUCCEEDED, 7)], CompletionReason.ALL_COMPLETED)
    assert EXTENDED_TYPES_SERDES.deserialize(text, SerDesContext()) == expected


def test_plain_json() -> None:
    assert DEFAULT_JSON_SERDES.serialize((1, "é"), SerDesContext()) == '[1, "\\u00e9"]'
    assert JsonSerDes[Any]().deserialize("[1]") == [1]
    with pytest.raises(SerDesError):
        JsonSerDes[Any]().serialize({1, 2})
    with pytest.raises(PayloadError):
        JsonSerDes[Any]().deserialize("nope")


def test_pass_through() -> None:
    through = PassThroughSerDes[Any]()
    assert through.serialize("x") == "x"
    assert through.serialize(None) is None
    assert through.deserialize("x") == "x"
    with pytest.raises(SerDesError):
        through.serialize(3)


def test_the_functions_tell_which_operation_it_is() -> None:
    upper = Upper()
    assert serialize(upper, "abc", "op", "arn") == "ABC"
    assert deserialize(upper, "ABC", "op", "arn") == "abc"
    assert upper.told == [SerDesContext("op", "arn")] * 2
    assert serialize(None, {"a": 1}, "op", "arn") == '{"a":1}'
    assert deserialize(None, '{"a":1}', "op", "arn") == {"a": 1}


def test_what_a_serdes_raises() -> None:
    cause = KeyError("k")
    with pytest.raises(SerDesError, match=r"Raw\.serialize raised KeyError") as caught:
        serialize(Raw(cause), 1, "op", "arn")
    assert caught.value.__cause__ is cause
    with pytest.raises(SerDesError, match=r"Raw\.deserialize raised KeyError") as read:
        deserialize(Raw(cause), "x", "op", "arn")
    assert read.value.__cause__ is cause
    for passes in (RetryableSerDesError("later"), SerDesError("mine")):
        with pytest.raises(type(passes)) as same:
            serialize(Raw(passes), 1, "op", "arn")
        assert same.value is passes
        with pytest.raises(type(passes)) as same:
            deserialize(Raw(passes), "x", "op", "arn")
        assert same.value is passes


@pytest.mark.parametrize("bad", [b"bytes", 3, {"a": 1}, "\ud800"])
def test_what_is_no_text(bad: object) -> None:
    with pytest.raises(SerDesError):
        serialize(Raw(bad), 1, "op", "arn")


# Codecs


def test_the_default_codec_names_the_place_and_the_key() -> None:
    codec = codec_for(None, "arn")
    assert codec.decode(codec.encode({"x": (1,)}, "load"), "k") == {"x": (1,)}
    with pytest.raises(SerDesError, match=r"^load\.x"):
        codec.encode({"x": object()}, "load")
    with pytest.raises(PayloadError) as caught:
        codec.decode("{", "etl/load")
    assert caught.value.key == "etl/load"


def test_a_codec_of_a_serdes() -> None:
    upper = Upper()
    codec = codec_for(upper, "arn", "etl/load")
    assert codec.decode(codec.encode("abc", "result"), "etl/load") == "abc"
    assert upper.told == [SerDesContext(operation_id("etl/load"), "arn")] * 2


@given(st.none() | st.text() | st.text().map(lambda text: NO_VALUE + text))
def test_what_a_serdes_gives_comes_back_to_it_and_none_stays_none(text: str | None) -> None:
    codec = codec_for(PassThroughSerDes[Any](), "arn", "k")
    stored = codec.encode(text, "result")
    assert codec.decode(stored, "k") == text
    assert shown_text(stored) == text


def test_none_is_not_asked_of_the_serdes() -> None:
    codec = codec_for(Raw(None), "arn", "k")
    assert codec.decode(codec.encode(7, "result"), "k") is None
    assert codec_for(Raw("null"), "arn", "k").decode("null", "k") == ["read", "null"]


def test_durations_are_values() -> None:
    assert serde.decode(serde.encode([Duration(1.5)])) == [Duration(1.5)]
