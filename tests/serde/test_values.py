"""Values come back equal in type and value."""

from __future__ import annotations

import collections
import datetime as dt
import json
import math
import pathlib
import struct
import uuid
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.errors import ErrorObject
from stepwell.serde import decode, decode_lenient, encode, roundtrip

T = TypeVar("T")


class Colour(Enum):
    RED = 1
    CRIMSON = 1  # noqa: PIE796  an alias
    BLUE = ("a", 2)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Perm(Flag):
    R = 1
    W = 2
    X = 4


class Bits(IntFlag):
    A = 1
    B = 2


@dataclass
class Point:
    x: int
    y: Any = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    a: Any
    b: tuple[int, ...] = ()


@dataclass
class Odd:  # noqa: PLW1641
    start: InitVar[int]
    name: str = "n"
    made: int = field(init=False)
    unset: int = field(init=False)
    default: int = field(init=False, default=7)

    def __post_init__(self, start: int) -> None:
        self.made = start * 2
        self.extra = [start]

    @cached_property
    def heavy(self) -> object:
        return object()

    def __eq__(self, other: object) -> bool:
        return type(other) is Odd and {**vars(self), "heavy": 0} == {**vars(other), "heavy": 0}


@dataclass
class Box(Generic[T]):
    item: T


class Outer:
    @dataclass
    class Inner:
        z: int

    class Kind(Enum):
        A = "a"


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Model(pydantic.BaseModel):
    id: int
    tags: list[str] = []
    at: dt.datetime | None = None
    inner: Point | None = None
    _secret: int = pydantic.PrivateAttr(default=3)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    a: int

    @pydantic.field_validator("a")
    @classmethod
    def double(cls, value: int) -> int:
        return value * 2


class Root(pydantic.RootModel[list[int]]):
    pass


def same(a: Any, b: Any) -> bool:
    """Equal in type and value, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, Decimal):
        return str(a) == str(b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, (dt.datetime, dt.time)):
        return (a.isoformat(), a.fold, str(a.tzinfo), a.tzname()) == (b.isoformat(), b.fold, str(b.tzinfo), b.tzname())
    if isinstance(a, Point):
        return same(a.x, b.x) and same(a.y, b.y)
    return bool(a == b)


BERLIN = ZoneInfo("Europe/Berlin")
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 1.0, -0.0, 0.1, 1e300, 5e-324, math.nan, math.inf, -math.inf,
    2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400, 10**4290, 10**5000, -(10**5000),
    "", "x", "$", '"$"', '\x00\n"\\\u2028é😀', "\ud800", "a\udcff", "$\ud800",
    b"", b"\x00\xff", bytearray(b"ab"),
    [], [1, 1.0, True], {}, {"a": {"b": [None]}}, {"$": 1}, {"$": {"$": "int", "v": "0x1"}}, {"": 0},
    {"\ud800": 1}, {1: "a", "1": "b"}, {1: 1, None: 2, (1, 2): 3, Colour.RED: 4}, {Word.YES: 1},
    {dt.date(2024, 1, 1): {"x": (1,)}},
    (), (1,), ((), [()]), set(), {1, "a", (1, 2)}, frozenset({1, frozenset({2})}),
    Decimal("1.10"), Decimal("-0"), Decimal("NaN"), Decimal("sNaN12"), Decimal("-Infinity"), Decimal("1E+999999"),
    uuid.UUID(int=5), dt.date.min, dt.date.max, dt.timedelta.min, dt.timedelta.max, dt.timedelta(microseconds=-1),
    dt.datetime(2024, 1, 2, 3, 4, 5, 6), dt.datetime(2024, 1, 2, fold=1), dt.datetime.min, dt.datetime.max,
    dt.datetime(2024, 1, 2, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3.5))),
    dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(seconds=1, microseconds=5))),
    dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(microseconds=1))),
    dt.datetime(2024, 1, 2, tzinfo=dt.timezone(dt.timedelta(microseconds=-7), "X")),
    dt.time(1, tzinfo=dt.timezone(dt.timedelta(microseconds=1))),
    dt.datetime(2024, 7, 2, tzinfo=BERLIN), dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1), dt.datetime(2024, 3, 31, 2, 30, tzinfo=BERLIN),
    dt.time(1, 2, 3, 4), dt.time(1, fold=1), dt.time(1, tzinfo=dt.UTC), dt.time(1, tzinfo=BERLIN),
    dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=2), "X")),
    Colour.RED, Colour.BLUE, Colour.CRIMSON, Level.LOW, Word.YES, Perm.R, Perm.R | Perm.X, Perm(0), Bits.A | Bits.B,
    Bits(0), Bits(9), Outer.Kind.A,
    Point(1), Point(1, Point(2, {"a": (1,)})), Frozen([1], (2,)), Odd(4), Box(Box(1)), Outer.Inner(3),
    Pair(1), Pair(Pair(1, 2), (3,)),
    Model(id=1), Model(id=1, tags=["a"], at=dt.datetime(2024, 1, 1, tzinfo=dt.UTC), inner=Point(1)),
    Open.model_validate({"a": 1, "b": [1]}), Open(a=1), Root([1, 2]),
    pathlib.Path("/a/b"), pathlib.Path(), pathlib.Path("a\udcff"), pathlib.PurePosixPath("a"),
    pathlib.PureWindowsPath("C:\\a"),
    collections.OrderedDict([("b", 1), ("a", (2,))]), collections.Counter("aab"), collections.defaultdict(list, a=[1]),
    collections.defaultdict(None, {1: 2}),
    ErrorObject("m", "T", "d", ["f"], cause=ErrorObject("x")),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}")
def test_table(value: Any) -> None:
    text = encode(value)
    assert same(decode(text), value)
    assert roundtrip(value)[0] == text
    assert same(roundtrip(value)[1], value)
    wrapped = [value, (value, {"k": value}), Point(0, value)]
    assert same(roundtrip(wrapped)[1], wrapped)
    assert same(decode_lenient(text), value)
    assert encode(decode(text)) == text, "recorded again, the value gives the same text"
    json.loads(text)


@pytest.mark.parametrize(
    "value, text",
    [
        (8, "8"), ("x", '"x"'), ({"a": 1}, '{"a":1}'), (1.0, "1.0"), (None, "null"), ([1, [True]], "[1,[true]]"),
        ((1,), '{"$":"tuple","v":[1]}'),
        ({"$": 1}, '{"$":"dict","v":[["$",1]]}'),
        (b"ab", '{"$":"bytes","v":"YWI="}'),
        (Point(1, None), '{"$":"dataclass","v":{"x":1,"y":null},"c":"HERE:Point"}'),
        (Colour.CRIMSON, '{"$":"enum","v":"RED","c":"HERE:Colour"}'),
        ({3, 1, 2}, '{"$":"set","v":[1,2,3]}'),
        (dt.datetime(2024, 7, 2, tzinfo=BERLIN),
         '{"$":"datetime","v":"2024-07-02T00:00:00+02:00","zone":"Europe/Berlin"}'),
    ],
)  # fmt: skip
def test_format(value: Any, text: str) -> None:
    """Texts that journals hold: a change here breaks every run in flight."""
    assert encode(value) == text.replace("HERE", __name__)


def test_dataclass_is_restored_without_running_anything() -> None:
    odd = Odd(4)
    assert odd.heavy
    again = decode(encode(odd))
    assert vars(again) == {"name": "n", "made": 8, "extra": [4]}
    assert again.default == 7
    assert not hasattr(again, "unset")


def test_pydantic_is_restored_without_validation() -> None:
    model = Model(id=1)
    model._secret = 9
    again = decode(encode(model))
    assert again._secret == 9
    assert again.model_fields_set == {"id"}
    assert decode(encode(Open(a=1))).a == 2


def test_shared_references_are_fine() -> None:
    shared = (1,)
    assert roundtrip([shared, shared, {"a": shared}])[1] == [shared, shared, {"a": shared}]


def test_depth_does_not_depend_on_the_caller() -> None:
    value: Any = 1
    for _ in range(90):
        value = (Point(value),)
    text = encode(value)

    def deep(levels: int) -> Any:
        return deep(levels - 1) if levels else (encode(value), decode(text))

    assert deep(850) == (text, value)
    plain: Any = 1
    for _ in range(150):
        plain = {"a": plain}

    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels else (roundtrip(plain), decode(encode(plain)))

    assert deeper(850) == ((encode(plain), plain), plain)


zones = (
    st.none()
    | st.sampled_from([dt.UTC, BERLIN, ZoneInfo("Australia/Lord_Howe")])
    | st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)))
)
texts = st.text(st.characters(codec=None), max_size=8)
hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.binary(max_size=4) | st.dates() | st.uuids()
    | st.sampled_from([*Colour, *Level, *Word]) | st.timedeltas() | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
anything = st.recursive(
    hashable
    | st.floats()
    | st.datetimes(timezones=zones)
    | st.times(timezones=st.none() | st.just(dt.UTC))
    | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(texts | st.just("$"), inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(Frozen, inner)
        | st.sets(hashable, max_size=3)
    ),
    max_leaves=10,
)


def comparable(value: Any) -> Any:
    """`repr` shows type and value of everything generated here; sets are put in order."""
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, sorted(repr(comparable(item)) for item in value))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [comparable(item) for item in value])
    if isinstance(value, dict):
        return [(comparable(key), comparable(item)) for key, item in value.items()]
    if isinstance(value, Point):
        return ("Point", comparable(value.x), comparable(value.y))
    if isinstance(value, Frozen):
        return ("Frozen", comparable(value.a))
    return (type(value).__name__, repr(value))


@settings(deadline=None)
@given(anything)
def test_law_type_and_value(value: Any) -> None:
    text, again = roundtrip(value)
    assert comparable(again) == comparable(value)
    assert text == encode(value)
    assert comparable(decode(text)) == comparable(again)
    assert comparable(decode_lenient(text)) == comparable(value)


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**80), 2**80)
        | st.text(max_size=5)
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3).filter(lambda k: k != "$"), inner),
    )
)
def test_law_plain_stays_plain(value: Any) -> None:
    text = encode(value)
    assert json.loads(text) == value
    assert comparable(decode(text)) == comparable(value)
