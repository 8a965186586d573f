"""Secrets: they print as ***, are recorded as references, and are masked wherever their text turns up."""

from __future__ import annotations

import copy
import json
import pickle
from base64 import b64encode
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stepwell.errors import ErrorRecord, SerDesError, StepError, UsageError
from stepwell.serde import Redactor, Secret, capture, current_redactor, decode, decode_lenient, encode, rebuild

CANARY = 'c4n"ary\\\n☃ of the run'


@dataclass
class Holder:
    token: Any


class Denied(Exception):
    pass


def fed(*texts: str) -> Redactor:
    redactor = Redactor()
    for text in texts:
        redactor.feed(text)
    return redactor


def test_never_shown() -> None:
    for secret in (Secret("hunter22"), Secret.env("HUNTER22"), Secret.file("/hunter22")):
        shown = [str(secret), repr(secret), f"{secret}", f"{secret:>5}", "%s" % secret, repr([secret])]  # noqa: UP031
        assert [text.strip(" []") for text in shown] == ["***"] * 6
        with pytest.raises(AttributeError):
            secret.text = "x"
        assert copy.copy(secret) is copy.deepcopy(secret) is secret
    assert not hasattr(Secret("x"), "__dict__")


def test_equality() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret.env("A") == Secret.env("A") != Secret.file("A")
    assert len({Secret.env("A"), Secret.env("A"), Secret("A")}) == 2
    assert Secret("a") != "a"


def test_reveal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    monkeypatch.setenv("SW_TOKEN", "from-env")
    redactor = Redactor()
    token = current_redactor.set(redactor)
    try:
        revealed = [Secret("literal").reveal(), Secret.env("SW_TOKEN").reveal(), Secret.file(file).reveal()]
    finally:
        current_redactor.reset(token)
    assert revealed == ["literal", "from-env", "from-file"]
    assert redactor.redact("a literal b from-env c from-file") == "a *** b *** c ***"
    assert Secret("literal").reveal() == "literal"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SW_GONE", raising=False)
    with pytest.raises(UsageError, match="SW_GONE"):
        Secret.env("SW_GONE").reveal()
    with pytest.raises(UsageError, match="nothing-here"):
        Secret.file(tmp_path / "nothing-here").reveal()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        Secret.file(tmp_path / "binary").reveal()
    assert caught.value.__cause__ is None


def test_recorded_as_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    assert encode(Secret.env("X")) == '{"$":"secret","v":{"env":"X"}}'
    monkeypatch.delenv("X", raising=False)
    again = decode(encode(Holder(Secret.env("X"))))  # nothing is read yet
    assert again == Holder(Secret.env("X"))
    monkeypatch.setenv("X", "value")
    assert again.token.reveal() == "value"
    assert decode_lenient(encode([Secret.env("X"), Secret.file("/f")])) == ["***", "***"]
    assert decode(encode(Secret.file("/f"))) == Secret.file("/f")
    assert pickle.loads(pickle.dumps(Secret.env("X"))) == Secret.env("X")


def test_a_literal_is_neither_recorded_nor_pickled() -> None:
    with pytest.raises(SerDesError, match=r"result\.token: Secret cannot be recorded; use Secret\.env") as caught:
        encode(Holder(Secret(CANARY)))
    assert "c4n" not in str(caught.value)
    with pytest.raises(TypeError, match=r"use Secret\.env"):
        pickle.dumps(Secret(CANARY))


def test_secrets_in_errors() -> None:
    error = Denied("no", Secret(CANARY))
    error.token = Secret.env("TOKEN")  # type: ignore[attr-defined]
    error.literal = Secret(CANARY)  # type: ignore[attr-defined]
    record = capture(error)
    assert "c4n" not in repr(record)
    assert record.args is None
    again: Any = rebuild(record, StepError)
    assert again.token == Secret.env("TOKEN")
    assert not hasattr(again, "literal")


def test_short_texts_are_ignored() -> None:
    redactor = fed("abc", "", "a\nb\nc")
    assert redactor.redact("abc") == "abc"
    assert fed("abc").active is False
    assert fed("abcd").active is True


@pytest.mark.parametrize(
    "texts, text, masked",
    [
        (["abcd"], "xabcdx", "x***x"),
        (["abcd", "abcdef"], "abcdef abcd", "*** ***"),
        (["abcd", "cdef"], "abcdef", "***"),
        (["abcd", "bcdefgh"], "abcdefgh", "***"),
        (["abcd"], "abcdabcd", "******"),
        (["a***b", "xxxx"], "axxxxb", "***"),
        (["****"], "*****", "***"),
        (["-----BEGIN-----\n  line one\nx\n"], "line one / -----BEGIN----- / x", "*** / *** / x"),
        (['say "hi"'], json.dumps({"a": 'say "hi"'}), '{"a": "***"}'),
        (['say "hi"'], json.dumps(json.dumps('say "hi"')), '"\\"***\\""'),
        (["snow☃man"], json.dumps("snow☃man"), '"***"'),
    ],
)
def test_masks(texts: list[str], text: str, masked: str) -> None:
    assert fed(*texts).redact(text) == masked


def test_base64_at_any_alignment() -> None:
    redactor = fed("correct horse battery")
    for before in range(4):
        text = b64encode(b"x" * before + b"correct horse battery" + b"yy").decode()
        assert "***" in redactor.redact(text)


secrets = st.lists(st.text('ab"\\\n*é', min_size=0, max_size=12), min_size=1, max_size=4)


@settings(deadline=None)
@given(secrets, st.text('ab"\\\n*é', max_size=60))
def test_law_nothing_survives(texts: list[str], text: str) -> None:
    redactor = fed(*texts)
    masked = redactor.redact(text)
    assert not [secret for secret in texts if len(secret) >= 4 and secret in masked]
    assert redactor.redact(masked) is masked


@settings(deadline=None)
@given(secrets, st.data())
def test_law_nothing_survives_in_json(texts: list[str], data: st.DataObject) -> None:
    long = [text for text in texts if len(text) >= 4]
    assume(long)
    part = st.sampled_from(long) | st.text('ab"\\\n*é', max_size=6)
    value = data.draw(st.dictionaries(st.lists(part).map("".join), st.lists(st.lists(part).map("".join)), max_size=4))
    redactor = fed(*texts)
    for text in (encode(value), json.dumps(value), json.dumps(json.dumps(value))):
        masked = redactor.redact(text)
        for secret in long:
            assert secret not in masked
            assert json.dumps(secret)[1:-1] not in masked
    clean = decode(redactor.redact_json(encode(value)))
    assert clean == redactor.redact_value(value)
    for secret in long:
        assert secret not in clean
        assert not any(secret in text for items in clean.values() for text in items)


def test_values() -> None:
    redactor = fed("hunter22")
    value = {"a": ["x", ("hunter22!", {"hunter22"})], "hunter22": 1, "n": 5}
    assert redactor.redact_value(value) == {"a": ["x", ("***!", {"***"})], "***": 1, "n": 5}
    assert value["n"] == 5
    plain = {"a": [1, "x", (2,)], "b": {"c": {3}}}
    assert redactor.redact_value(plain) is plain
    assert Redactor().redact_value(value) is value


@pytest.mark.parametrize(
    "value, masked",
    [
        ({"a": 12345678}, {"a": "***"}),
        ({"a": 1234}, {"a": 1234}),
        ([b"x12345678y"], [b"x***y"]),
        ((Decimal("12345678.5"), 1), ("***", 1)),
        (Path("/a/12345678/b"), Path("/a/***/b")),
        (Holder("12345678"), Holder("***")),
        (Holder([b"12345678", {"12345678": 1.0}]), Holder([b"***", {"***": 1.0}])),
        ({12345678: "v"}, {"***": "v"}),
        ({"12345678": "v", "$": 2}, {"***": "v", "$": 2}),
        (Secret.env("V12345678"), "***"),
        ([b"\x0012345678\xff", bytearray(b"12345678")], [b"\x00***\xff", bytearray(b"***")]),
        ("a\ud80012345678", "a\ud800***"),
    ],
)
def test_json_stays_readable(value: Any, masked: Any) -> None:
    text = fed("12345678").redact_json(encode(value))
    assert "12345678" not in text
    assert decode(text) == masked


def test_short_secrets_inside_bytes() -> None:
    assert decode(fed("pw12").redact_json(encode([b"-pw12-"]))) == [b"-***-"]


def test_json_without_a_secret_is_the_same_object() -> None:
    text = encode({"a": (1, 2)})
    assert fed("12345678").redact_json(text) is text
    assert Redactor().redact_json(text) is text


def test_error_values_and_records() -> None:
    redactor = fed(CANARY)
    try:
        try:
            raise KeyError(CANARY)
        except KeyError as inner:
            error: Any = Denied(f"got {CANARY}", {"raw": CANARY})
            error.note = [CANARY]
            raise error from inner
    except Denied as caught:
        record = redactor.redact_error(capture(caught))
        value = redactor.redact_json(encode([caught]))
    shown = [repr(record), value]
    for form in (CANARY, json.dumps(CANARY)[1:-1], "ary\\", "of the run"):
        assert not [text for text in shown if form in text]
    again: Any = rebuild(record, StepError)
    assert "got ***" in str(again)
    assert again.note == ["***"]
    assert isinstance(again, Denied)
    assert isinstance(decode(value)[0], Denied)
    assert isinstance(record, ErrorRecord)


def test_a_class_named_like_a_secret_is_masked_whole() -> None:
    assert decode(fed("Denied").redact_json(encode([Denied("x"), 1]))) == ["***", 1]
    assert decode(fed("Holder").redact_json(encode([Holder(1)]))) == ["***"]
