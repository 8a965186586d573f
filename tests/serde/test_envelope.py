"""The seed's typed envelope is read."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest

from stepwell.errors import PayloadError
from stepwell.serde import decode_envelope


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"t":"n","v":null}', None),
        ('{"t":"s","v":"x"}', "x"),
        ('{"t":"i","v":1}', 1),
        ('{"t":"f","v":1.5}', 1.5),
        ('{"t":"f","v":1}', 1.0),
        ('{"t":"f","v":"inf"}', math.inf),
        ('{"t":"b","v":true}', True),
        ('{"t":"B","v":"YWI="}', b"ab"),
        ('{"t":"d","v":"1.10"}', Decimal("1.10")),
        ('{"t":"u","v":"00000000-0000-0000-0000-000000000005"}', uuid.UUID(int=5)),
        ('{"t":"dt","v":"2024-01-02T03:04:05+00:00"}', dt.datetime(2024, 1, 2, 3, 4, 5, tzinfo=dt.UTC)),
        ('{"t":"D","v":"2024-01-02"}', dt.date(2024, 1, 2)),
        ('{"t":"t","v":[{"t":"i","v":1}]}', (1,)),
        ('{"t":"l","v":[{"t":"t","v":[]}]}', [()]),
        ('{"t":"m","v":{"a":{"t":"l","v":[]}}}', {"a": []}),
    ],
)
def test_tags(text: str, value: Any) -> None:
    found = decode_envelope(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["1", "{}", '{"t":"z","v":1}', '{"t":"i","v":"1"}', '{"t":"l","v":[1]}', "{", '{"t":"u","v":1}']
)
def test_anything_else(text: str) -> None:
    with pytest.raises(PayloadError, match="not a typed envelope"):
        decode_envelope(text)
