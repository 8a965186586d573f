"""Parameters of actions: checked by pydantic, all problems at once, and recorded without their secrets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from stepwell.errors import BadArguments

MASK = "***"
SECRET_KEYS = frozenset({"secret_key", "access_key", "password", "token", "secret"})
"""Keys of configurations whose values are secrets, whatever their type."""


class ActionParams(BaseModel):
    """What parameters of all actions share: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def checked_params(model: type[BaseModel], given: Any) -> BaseModel:
    """The parameters as the model has them.

    Raises:
        BadArguments: with all problems.
    """
    if isinstance(given, model):
        return given
    if isinstance(given, BaseModel):
        given = given.model_dump()
    if given is None:
        given = {}
    if not isinstance(given, Mapping):  # what callers pass is not what annotations say
        message = f"params must be a mapping or {model.__name__}, got {type(given).__name__}"
        raise BadArguments(message)
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise BadArguments(problems=[_problem(item) for item in error.errors(include_url=False)]) from None


def _problem(item: Any) -> str:
    place = ".".join(str(part) for part in item["loc"])
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{place}: {text}" if place else text


def split_secrets(params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The parameters as they may be recorded, and the secrets that were taken out, by their place."""
    secrets: dict[str, str] = {}

    def walk(value: Any, place: str, secret: bool) -> Any:
        if isinstance(value, SecretStr):
            value, secret = value.get_secret_value(), True
        if isinstance(value, BaseModel):
            value = {name: getattr(value, name) for name in [*type(value).model_fields, *(value.model_extra or {})]}
        if isinstance(value, Mapping):
            return {key: walk(item, f"{place}{key}/", key in SECRET_KEYS) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(walk(item, f"{place}{number}/", False) for number, item in enumerate(value))
        if secret and isinstance(value, str) and not value.startswith("${env:"):
            secrets[place] = value
            return MASK
        return value

    return walk(params, "", False), secrets


def revealed(recorded: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
    """The recorded parameters with the secrets put in again.

    Raises:
        BadArguments: one is not there.
    """

    def walk(value: Any, place: str) -> Any:
        if isinstance(value, Mapping):
            return {key: walk(item, f"{place}{key}/") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(walk(item, f"{place}{number}/") for number, item in enumerate(value))
        if place in secrets:
            return secrets[place]
        if value == MASK:
            field = place.rstrip("/").replace("/", ".")
            message = f"{field} is a secret and was not recorded: give it again, or as ${{env:NAME}}"
            raise BadArguments(message)
        return value

    result: dict[str, Any] = walk(recorded, "")
    return result


def texts(value: Any) -> Iterator[str]:
    """All texts in it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts(item)
