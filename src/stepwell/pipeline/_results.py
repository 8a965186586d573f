"""How a step's end is recorded: result, cause and changed fields, as one JSON object; and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell import serde
from stepwell.errors import SerDesError
from stepwell.pipeline._fields import Unrecordable, why
from stepwell.pipeline.steps.base import StepResult

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_MESSAGE = "no error message given"


@dataclass
class Ended:
    """How a step ended: its result, the exception behind it, and the texts of the fields that it changed."""

    result: StepResult
    cause: BaseException | None = None
    fields: dict[str, str] = field(default_factory=dict)


def failure(error: BaseException) -> StepResult:
    """The result of a step that raised."""
    return StepResult(success=False, error=str(error) or type(error).__name__)


def checked(given: object) -> StepResult:
    """What a step's ``execute`` returned, as a plain result of its own.

    Raises:
        Unrecordable: it is no result; the text says why.
    """
    if not isinstance(given, StepResult):
        message = f"execute() must return a StepResult, got {type(given).__name__}"
        raise Unrecordable(message)
    for name in ("data", "rollback_data"):
        value = getattr(given, name)
        if not isinstance(value, dict):
            message = f"result.{name} must be a dict, got {type(value).__name__}"
            raise Unrecordable(message)
    return given


def part_texts(result: StepResult, bad: list[str]) -> dict[str, str]:
    """The texts of ``data`` and ``rollback_data``, without what cannot be recorded, which is named in ``bad``."""
    found = {}
    for name in ("data", "rollback_data"):
        whole = getattr(result, name)
        if not isinstance(whole, dict):
            found[name] = "{}"
            continue
        try:
            found[name] = serde.encode(whole, place=f"result.{name}")
        except SerDesError:
            kept = {}
            for key, value in whole.items():
                try:
                    serde.encode({key: value}, place=f"result.{name}")
                except SerDesError as error:
                    bad.append(f"result.{name}[{key!r}] cannot be recorded ({why(error)})")
                else:
                    kept[key] = value
            found[name] = serde.encode(kept)
    return found


def written(ended: Ended, parts: Mapping[str, str]) -> str:
    """The text of the record. ``parts``: see `part_texts`."""
    result = ended.result
    texts = {
        "success": "true" if result.success else "false",
        "data": parts["data"],
        "error": serde.encode(None if result.error is None else str(result.error)),
        "rollback_data": parts["rollback_data"],
        "skipped": "true" if result.skipped else "false",
        "timestamp": serde.encode(result.timestamp),
    }
    if ended.cause is not None:
        texts["cause"] = cause_text(ended.cause)
    if ended.fields:
        texts["fields"] = joined(ended.fields)
    return joined(texts)


def joined(texts: Mapping[str, str]) -> str:
    """A JSON object of members whose texts are known."""
    return "{" + ",".join(f"{serde.encode(name)}:{text}" for name, text in texts.items()) + "}"


def cause_text(cause: BaseException) -> str:
    """An exception as it is recorded; one that cannot be, as its text."""
    try:
        return serde.encode(cause, place="cause")
    except SerDesError:
        return serde.encode(RuntimeError(f"{type(cause).__name__}: {cause}"))


def read(text: str) -> Ended:
    """The record again. Fields stay texts until somebody asks for them."""
    parts = split(text)
    result = StepResult(
        success=parts["success"] == "true",
        data=serde.decode(parts["data"]),
        error=serde.decode(parts["error"]),
        rollback_data=serde.decode(parts["rollback_data"]),
        skipped=parts["skipped"] == "true",
        timestamp=serde.decode(parts["timestamp"]),
    )
    cause: Any = serde.decode(parts["cause"]) if "cause" in parts else None
    return Ended(result, cause if isinstance(cause, BaseException) else None, split(parts.get("fields", "{}")))


def split(text: str) -> dict[str, str]:
    """The members of a JSON object, as texts."""
    raw = _decoder.decode(text)
    return {name: bytes(part).decode() for name, part in raw.items()}


_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
