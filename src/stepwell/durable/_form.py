"""What an approval asks for: a form whose answers are checked before they count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.errors import BadArguments, PayloadError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class FormRecord(msgspec.Struct, frozen=True):
    """A form as the journal keeps it, for those who answer without the code at hand.

    ``model`` is ``module:qualname`` of the class, ``schema`` the JSON schema of an answer; both None: any JSON will do.
    """

    title: str
    who: tuple[str, ...] = ()
    model: str | None = None
    schema: dict[str, Any] | None = None


class Form:
    """What is asked, of whom. ``fields``: pydantic model, dataclass, ``{name: type}``, or None.

    A codec of `stepwell.runtime`: an answer's JSON to what `approve` returns.

    Raises:
        ValidationError: ``fields`` is none of these.
    """

    def __init__(self, title: str, fields: Any, who: Sequence[str]) -> None:
        self._title = title
        self._who = tuple(who)
        self._read = None if fields is None else reader_of(fields)
        self._model = None
        if isinstance(fields, type):
            self._model = f"{fields.__module__}:{fields.__qualname__}"

    def recorded(self) -> str:
        """The form's record, as JSON."""
        schema = None if self._read is None else self._read.schema()
        return msgspec.json.encode(FormRecord(self._title, self._who, self._model, schema)).decode()

    def encode(self, value: Any, place: str) -> str:
        """Never asked: answers come as JSON from outside."""
        raise NotImplementedError(place)

    def decode(self, text: str, key: str) -> Any:
        """An answer's value."""
        try:
            return msgspec.json.decode(text) if self._read is None else self._read.value(text)
        except BadArguments as error:
            raise PayloadError(f"the answer to '{key}' does not fit the form any more: {error}") from error


class Reader:
    """Reads answers to one form, by pydantic."""

    def __init__(self, adapter: Any, finish: Callable[[Any], Any]) -> None:
        self._adapter = adapter
        self._finish = finish

    def schema(self) -> dict[str, Any]:
        """The JSON schema of an answer."""
        return self._adapter.json_schema()  # type: ignore[no-any-return]

    def value(self, text: str) -> Any:
        """The answer, checked.

        Raises:
            BadArguments: it does not fit; all problems are listed.
        """
        import pydantic

        try:
            return self._finish(self._adapter.validate_json(text))
        except pydantic.ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()]
            raise BadArguments(problems=problems) from error


def reader_of(fields: Any) -> Reader:
    """What reads answers to a form."""
    import dataclasses

    import pydantic

    if isinstance(fields, dict):
        if not all(isinstance(name, str) and name.isidentifier() for name in fields):
            raise ValidationError("a form is {name: type}; each name an identifier")
        given: dict[str, Any] = {name: (kind, ...) for name, kind in fields.items()}
        model = pydantic.create_model("Answer", **given)
        return Reader(pydantic.TypeAdapter(model), dict)
    is_model = isinstance(fields, type) and (issubclass(fields, pydantic.BaseModel) or dataclasses.is_dataclass(fields))
    if not is_model:
        raise ValidationError(f"form is a pydantic model, a dataclass or {{name: type}}, not {fields!r}")
    return Reader(pydantic.TypeAdapter(fields), lambda value: value)


def check_answer(form: str, text: str, find: Callable[[str], Any]) -> None:
    """Check an answer where it is given. ``find``: the class of a ``module:qualname``, or None where it cannot be had;
    then the recorded schema's fields and their plain types are checked.

    Raises:
        BadArguments: it does not fit; all problems are listed, and nothing changes.
    """
    recorded = msgspec.json.decode(form, type=FormRecord)
    try:
        value = msgspec.json.decode(text)
    except msgspec.MsgspecError as error:
        raise BadArguments(f"the answer is no JSON: {error}") from error
    model = find(recorded.model) if recorded.model is not None else None
    if model is not None:
        reader_of(model).value(text)
    elif recorded.schema is not None:
        problems = list(_misfits(recorded.schema, value))
        if problems:
            raise BadArguments(problems=problems)


_PLAIN: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,),
    "object": (dict,), "null": (type(None),),
}  # fmt: skip


def _misfits(schema: dict[str, Any], value: Any) -> list[str]:
    if not isinstance(value, dict):
        return ["answer: must be a JSON object"]
    fields = schema.get("properties", {})
    problems = [f"{name}: Field required" for name in schema.get("required", ()) if name not in value]
    for name, given in value.items():
        kind = fields.get(name, {}).get("type")
        known = _PLAIN.get(kind) if isinstance(kind, str) else None
        fits = known is None or (isinstance(given, known) and (kind == "boolean" or not isinstance(given, bool)))
        if not fits:
            problems.append(f"{name}: must be of type {kind}")
    return problems
