"""What cannot be recorded says where it is, and never shows itself."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import pytest

from stepwell.errors import PayloadError, SerDesError, UsageError
from stepwell.serde import Placeholder, decode, decode_lenient, encode, register, roundtrip


class MyStr(str):  # noqa: SLOT000
    pass


class MyDict(dict[str, Any]):
    pass


class MyInt(int):
    pass


@dataclass
class Row:
    conn: Any


@dataclass
class Listed(list[int]):
    a: int = 0


class Two(NamedTuple):
    a: Any
    b: Any


class Units:
    def __init__(self, value: Any) -> None:
        self.value = value


class Broken:
    pass


class Picky:
    pass


def refuse(value: Picky) -> Any:
    raise ZeroDivisionError("no")


register("units", Units, lambda units: units.value, Units)
register("picky", Picky, refuse, lambda plain: Picky())


def cyclic() -> list[Any]:
    loop: list[Any] = [1]
    loop.append({"a": loop})
    return loop


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def local_instance() -> object:
    @dataclass
    class Local:
        a: int = 1

    return Local()


def local_member() -> object:
    class Local(Enum):
        A = 1

    return Local.A


PLACES: list[tuple[Any, str]] = [
    (object(), "result: object cannot be recorded; return plain data or give serdes="),
    ({"rows": [1, 2, 3, Row(object())]}, "result.rows[3].conn: object cannot be recorded"),
    ({"a b": [object()]}, "result['a b'][0]: object cannot"),
    ({3: object()}, "result[3]: object cannot"),
    ({(1, 2): object()}, "result[(1, 2)]: object cannot"),
    ((1, (object(),)), "result[1][0]: object cannot"),
    (Two(1, object()), "result.b: object cannot"),
    ([MyStr("a")], f"result[0]: {__name__}.MyStr cannot be recorded; return plain data"),
    ([MyDict()], f"result[0]: {__name__}.MyDict cannot"),
    ([MyInt()], f"result[0]: {__name__}.MyInt cannot"),
    ([Listed()], f"result[0]: {__name__}.Listed cannot"),
    (defaultdict(lambda: 1), "result: collections.defaultdict cannot be recorded; its default_factory"),
    (range(3), "result: range cannot"),
    (1j, "result: complex cannot"),
    (memoryview(b""), "result: memoryview cannot"),
    (int, "result: type cannot"),
    (len, "result: builtin_function_or_method cannot"),
    ((i for i in "ab"), "result: generator cannot"),
    (Units([object()]), "result.v[0]: object cannot"),
    ([Picky()], "result[0]: cannot be recorded: ZeroDivisionError: no"),
]


@pytest.mark.parametrize("value, text", PLACES, ids=[text for _, text in PLACES])
def test_place(value: Any, text: str) -> None:
    with pytest.raises(SerDesError) as caught:
        encode(value)
    assert str(caught.value).startswith(text)
    with pytest.raises(SerDesError):
        roundtrip(value)


def test_the_spec_s_example() -> None:
    conn = sqlite3.connect(":memory:")
    try:
        with pytest.raises(SerDesError) as caught:
            encode({"rows": [0, 1, 2, Row(conn)]})
    finally:
        conn.close()
    expected = "result.rows[3].conn: sqlite3.Connection cannot be recorded; return plain data or give serdes="
    assert str(caught.value) == expected


def test_place_is_given() -> None:
    with pytest.raises(SerDesError, match=r"^input\[0\]: object"):
        encode([object()], place="input")


@pytest.mark.parametrize("value", [local_instance(), local_member()])
def test_local_classes(value: Any) -> None:
    with pytest.raises(SerDesError, match=r"<locals>\.Local cannot be recorded; a class defined inside a function"):
        encode(value)


def test_a_class_that_is_not_where_it_says() -> None:
    lost = type("Row", (Row,), {"__module__": __name__, "__qualname__": "Row"})
    with pytest.raises(SerDesError, match="does not lead back to this class"):
        encode(lost(1))


def test_cycles_and_depth() -> None:
    with pytest.raises(SerDesError, match=r"result\[1\]\.a: list contains itself"):
        encode(cyclic())
    loop = Row(None)
    loop.conn = (loop,)
    with pytest.raises(SerDesError, match="contains itself"):
        encode(loop)
    for levels in (300, 10_000, 100_000):
        with pytest.raises(SerDesError, match="nested deeper"):
            encode(nested(levels))
    assert decode(encode(nested(150))) == nested(150)


def test_attributes_of_containers_are_not_lost_silently() -> None:
    ordered: Any = OrderedDict(a=1)
    ordered.note = 1
    with pytest.raises(SerDesError, match="attributes of its own"):
        encode(ordered)


def test_registry() -> None:
    again = roundtrip({"u": Units((1, 2))})[1]["u"]
    assert type(again) is Units
    assert again.value == (1, 2)
    register("units", Units, lambda units: units.value, Units)  # again is fine
    with pytest.raises(UsageError):
        register("units", Broken, lambda _: 1, lambda _: Broken())
    with pytest.raises(UsageError):
        register("tuple", Broken, lambda _: 1, lambda _: Broken())


@pytest.mark.parametrize(
    "text, reason",
    [
        ('{"$":"dataclass","c":"no_such_module:Point","v":{}}', "no_such_module:Point is gone: there is no module"),
        ('{"$":"dataclass","c":"HERE:Gone","v":{}}', "module 'HERE' has no class 'Gone'"),
        ('{"$":"dataclass","c":"HERE:MyInt","v":{}}', "HERE:MyInt has changed: it is no dataclass"),
        ('{"$":"dataclass","c":"HERE:Row","v":{}}', "HERE:Row has changed: the record has no field"),
        ('{"$":"dataclass","c":"HERE:Row","v":{"conn":1,"old":2}}', "it has no field 'old' any more"),
        ('{"$":"namedtuple","c":"HERE:Two","v":{"a":1}}', "the record has no field 'b'"),
        ('{"$":"namedtuple","c":"HERE:Two","v":{"a":1,"b":2,"c":3}}', "it has no field 'c' any more"),
        ('{"$":"enum","c":"HERE:Row","v":"A"}', "it is no Enum any more"),
        ('{"$":"pydantic","c":"HERE:Row","v":{},"set":[]}', "it is no pydantic model any more"),
        ('{"$":"wat","v":1}', "no type with the tag 'wat'"),
        ('{"$":"tuple"}', "'tuple' has no member 'v'"),
        ('{"$":"uuid","v":"x"}', "uuid: ValueError"),
        ('{"$":"datetime","v":"2024-01-01T00:00:00+00:00","zone":"No/Where"}', "time zone 'No/Where' is not known"),
        ('{"$":"error","v":{"type":"x.Y","message":"m","classes":["x_no:Y"]}}', "x_no:Y is gone"),
        ("{", "not in the format"),
    ],
)
def test_gone_or_changed(text: str, reason: str) -> None:
    text, reason = text.replace("HERE", __name__), reason.replace("HERE", __name__)
    with pytest.raises(PayloadError) as caught:
        decode(text, key="etl/load")
    assert caught.value.key == "etl/load"
    assert "'etl/load'" in str(caught.value)
    assert reason in str(caught.value)
    shown = decode_lenient(f"[{text}]")
    assert isinstance(shown, Placeholder | list)
    if isinstance(shown, list):
        assert isinstance(shown[0], Placeholder)
        assert shown == decode_lenient(f"[{text}]")


def test_a_module_that_fails_to_import(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_module_a.py").write_text("raise SystemExit(3)")
    (tmp_path / "bad_module_b.py").write_text("import no_such_thing_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PayloadError, match="raised SystemExit"):
        decode('{"$":"dataclass","c":"bad_module_a:P","v":{}}')
    with pytest.raises(PayloadError, match="No module named 'no_such_thing_at_all'"):
        decode('{"$":"dataclass","c":"bad_module_b:P","v":{}}')


def test_viewers_import_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_module_c.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    shown = decode_lenient('{"a":{"$":"dataclass","c":"bad_module_c:P","v":{"x":{"$":"tuple","v":[1]}}}}')
    assert shown == {"a": Placeholder("bad_module_c:P", {"x": (1,)})}
    assert repr(shown["a"]) == "<bad_module_c:P {'x': (1,)}>"


def test_new_fields_with_defaults_are_no_change(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "grown_module.py").write_text(
        "from dataclasses import dataclass, field\nfrom typing import NamedTuple\nimport pydantic\n"
        "@dataclass\nclass A:\n    x: int\n    y: int = 5\n    z: list = field(default_factory=list)\n"
        "@dataclass(slots=True)\nclass S:\n    x: int\n    y: int = 5\n"
        "class N(NamedTuple):\n    x: int\n    y: int = 5\n"
        "class M(pydantic.BaseModel):\n    x: int\n    y: int = 5\n    _p: int = 6\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    a = decode('{"$":"dataclass","c":"grown_module:A","v":{"x":1}}')
    assert (a.x, a.y, a.z) == (1, 5, [])
    assert decode('{"$":"dataclass","c":"grown_module:S","v":{"x":1}}').y == 5
    assert decode('{"$":"namedtuple","c":"grown_module:N","v":{"x":1}}').y == 5
    model = decode('{"$":"pydantic","c":"grown_module:M","v":{"x":1},"set":["x"]}')
    assert (model.y, model._p) == (5, 6)
    with pytest.raises(PayloadError, match="the record has no field 'x'"):
        decode('{"$":"pydantic","c":"grown_module:M","v":{},"set":[]}')


def test_a_tag_of_a_floor_that_is_not_imported_yet(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_module.py").write_text(
        "from stepwell.serde import register\nclass L:\n    pass\nregister('late-l', L, lambda _: 1, lambda _: L())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert type(decode('{"$":"late-l","v":1,"c":"late_module:L"}')).__name__ == "L"
