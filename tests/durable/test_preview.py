"""Previews: which fields are shown, and that they stay small and tell no secret."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from stepwell import Secret
from stepwell.durable.preview import FieldMatchMode, PreviewConfig, PreviewField, PreviewMode, build_preview
from stepwell.errors import ValidationError
from stepwell.serde import Redactor, current_redactor

ORDER = {
    "id": 7,
    "customer": {"name": "Ada", "card": {"number": "4111", "brand": "V"}, "id": 3},
    "lines": [{"sku": "a", "price": 2.5}, {"sku": "b", "price": 4}],
}
ALL, NONE = PreviewMode.INCLUDE_ALL, PreviewMode.EXCLUDE_ALL


@pytest.mark.parametrize(
    "config,shown",
    [
        (PreviewConfig(), ORDER),
        (PreviewConfig(NONE), {}),
        (PreviewConfig(NONE, include=["sku"]), {"lines": [{"sku": "a"}, {"sku": "b"}]}),
        (PreviewConfig(NONE, include=["customer.id"]), {"customer": {"id": 3}}),
        (PreviewConfig(NONE, include=["id"]), {"id": 7, "customer": {"id": 3}}),
        (PreviewConfig(NONE, include=["customer"], exclude=["card"]), {"customer": {"name": "Ada", "id": 3}}),
        (PreviewConfig(exclude=["customer", "price"]), {"id": 7, "lines": [{"sku": "a"}, {"sku": "b"}]}),
        (PreviewConfig(exclude=["lines"], mask=["card"]), {"id": 7, "customer": {"name": "Ada", "card": "***", "id": 3}}),
        (
            PreviewConfig(NONE, include=["customer"], exclude=["name", "id"], mask=["number"], mask_string="?"),
            {"customer": {"card": {"number": "?", "brand": "V"}}},
        ),
        (PreviewConfig(NONE, include=["id"], mask=["number"]), {"id": 7, "customer": {"id": 3}}),
        (
            PreviewConfig(NONE, include=[PreviewField("customer.card.*", FieldMatchMode.GLOB)]),
            {"customer": {"card": {"number": "4111", "brand": "V"}}},
        ),
        (PreviewConfig(NONE, include=[PreviewField("id", FieldMatchMode.PATH)]), {"id": 7}),
        (PreviewConfig(exclude=["price"], mask=["price"], include=["id"]), {**ORDER, "lines": [{"sku": "a", "price": "***"}, {"sku": "b", "price": "***"}]}),
    ],
)  # fmt: skip
def test_fields(config: PreviewConfig, shown: Any) -> None:
    assert build_preview(ORDER, config) == shown


class Colour(Enum):
    RED = "red"


@dataclass
class Box:
    what: Any
    secret: Secret = field(default_factory=lambda: Secret("hunter2hunter2"))


class Model(BaseModel):
    name: str
    more: Any = None


class Opaque:
    def __repr__(self) -> str:
        return "hunter2hunter2"


def test_objects_are_shown_by_their_fields_and_secrets_never() -> None:
    at = datetime(2024, 1, 2, tzinfo=UTC)
    value = [Box(Model(name="n", more={1: Colour.RED})), at, b"12", Opaque(), float("inf"), 2**60, None, True, {"t"}]
    assert build_preview(value) == [
        {"what": {"name": "n", "more": {"1": "red"}}, "secret": "***"},
        "2024-01-02 00:00:00+00:00", "<2 bytes>", "<Opaque>", "inf", str(2**60), None, True, ["t"],
    ]  # fmt: skip


def test_what_a_secret_was_revealed_as_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    token = current_redactor.set(Redactor())
    try:
        text = Secret("hunter2hunter2").reveal()
        assert build_preview({"url": f"https://u:{text}@host", text: 1}) == {"url": "https://u:***@host", "***": 1}
    finally:
        current_redactor.reset(token)


def test_a_circle_ends() -> None:
    circle: dict[str, Any] = {}
    circle["inner"] = circle
    assert len(json.dumps(build_preview(circle))) < 400


@pytest.mark.parametrize(
    "value,room,shown",
    [
        ({"a": 1, "b": 2, "c": 3}, 18, {"a": 1, "…": 2}),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 12, [1, 2, "…"]),
        ({"text": "x" * 100}, 20, {"text": "xxxxxx…"}),
        ("long" * 100, 12, "longlon…"),
        (123456, 3, None),
        ({"a": {"b": {"c": 12345}}}, 2, {}),
    ],
)
def test_what_does_not_fit_is_cut(value: Any, room: int, shown: Any) -> None:
    assert build_preview(value, PreviewConfig(max_preview_bytes=room)) == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(JSON, st.integers(4, 300))
def test_it_is_never_larger_than_it_may_be(value: Any, room: int) -> None:
    shown = build_preview(value, PreviewConfig(max_preview_bytes=room))
    assert len(msgspec.json.encode(shown)) <= room, "as it is written: json.dumps has 1e-07 where this has 1e-7"


def test_bad_configs() -> None:
    with pytest.raises(ValidationError, match="at least 2"):
        PreviewConfig(max_preview_bytes=1)
    with pytest.raises(ValidationError, match="mask is a list"):
        PreviewConfig(mask="card")
    with pytest.raises(ValidationError, match="include is a list"):
        PreviewConfig(include=[3])  # type: ignore[list-item]
    configs: tuple[dict[str, Any], ...] = (
        {"mode": "INCLUDE_ALL"},
        {"mask_string": 3},
        {"max_preview_bytes": "x"},
        {"exclude": 3},
    )
    for bad in configs:
        with pytest.raises(ValidationError, match=next(iter(bad))):
            PreviewConfig(**bad)
    fields: tuple[dict[str, Any], ...] = ({"field": 3}, {"field": "card", "match": "NAME"})
    for bad in fields:
        with pytest.raises(ValidationError):
            PreviewField(**bad)
