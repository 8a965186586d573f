"""Errors as values: a step may return an exception, or a batch hold some."""

from __future__ import annotations

from typing import Any

from stepwell.errors import ErrorObject, ErrorRecord, Suspend
from stepwell.serde._capture import being_captured, capture
from stepwell.serde._classes import recordable_ref
from stepwell.serde._combined import StandIn, parts_of
from stepwell.serde._reader import Reader, loads
from stepwell.serde._rebuild import revive, set_cause
from stepwell.serde._registry import register
from stepwell.serde._tables import Node, reads, writes_family
from stepwell.serde._writer import Writer, dumps, tagged


@writes_family(10, lambda cls: issubclass(cls, BaseException))
def _write_error(writer: Writer, value: BaseException) -> object:
    if isinstance(value, StandIn):
        return tagged("error", _to_node(value.record))
    if isinstance(value, Suspend):
        raise writer.refused(value, "it is how a parked run ends, and no value")
    if being_captured(value):
        raise writer.refused(value, "it contains itself, or is too deep inside other errors")
    for cls in parts_of(type(value)):
        try:
            recordable_ref(cls)
        except LookupError as error:
            raise writer.refused(value, str(error)) from None
    return tagged("error", _to_node(capture(value)))


@reads("error")
def _read_error(reader: Reader, node: Node) -> BaseException:
    record = _from_node(node["v"])
    try:
        error = revive(record, reader)
    except (LookupError, RecursionError):
        raise
    except Exception as reason:
        raise LookupError(f"{record.type} cannot be made again: {reason}") from reason
    set_cause(error, record.cause, reader)
    return error


def _to_node(record: ErrorRecord) -> Node:
    """The content of the record as JSON all through. Its texts of JSON are put in as what they say: quoted once more
    at each level, errors inside errors would double their backslashes each time.
    """
    node: Node = {"type": record.type, "message": record.message, "classes": list(record.classes)}
    if record.data is not None:
        node["data"] = record.data
    if record.stack_trace:
        node["stack"] = list(record.stack_trace)
    for member, text in (("args", record.args), ("attrs", record.attrs)):
        if text is not None:
            node[member] = loads(text)
    if record.cause is not None:
        node["cause"] = _to_node(record.cause)
    return node


def _from_node(node: Node) -> ErrorRecord:
    return ErrorRecord(
        type=node["type"],
        message=node["message"],
        data=node.get("data"),
        stack_trace=tuple(node.get("stack", ())),
        classes=tuple(node["classes"]),
        args=dumps(node["args"]).decode() if "args" in node else None,
        attrs=dumps(node["attrs"]).decode() if "attrs" in node else None,
        cause=_from_node(node["cause"]) if "cause" in node else None,
    )


def _describe(error: ErrorObject) -> list[Any]:
    return [error.message, error.type, error.data, error.stack_trace, error.cause]


def _undescribe(content: list[Any]) -> ErrorObject:
    message, kind, data, stack_trace, cause = content
    return ErrorObject(message, kind, data, stack_trace, cause=cause)


register("errorobject", ErrorObject, _describe, _undescribe)
