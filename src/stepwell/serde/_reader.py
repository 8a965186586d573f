"""From JSON text to a value."""

from __future__ import annotations

from typing import Any

import msgspec

from stepwell.errors import PayloadError
from stepwell.serde._classes import find_class
from stepwell.serde._placeholder import Placeholder
from stepwell.serde._tables import READERS, Node, Read
from stepwell.serde._writer import on_fresh_stack

loads = msgspec.json.Decoder().decode


def decode(text: str, *, key: str | None = None) -> Any:
    """The value that `encode` made `text` from.

    Only for text that `encode` wrote: it imports the modules of the classes it names. `key` is the step to name in the
    error. Raises PayloadError when a class is gone or has changed, or when the text is not in the format.
    """
    try:
        value = loads(text)
        return Reader().value(value) if '"$"' in text else value
    except RecursionError:
        error = PayloadError(_about(key, "nested too deep"), key=key)
        return on_fresh_stack(lambda: _decode_once(text, key), error)
    except Exception as error:
        raise _unreadable(error, key) from error.__cause__


def _decode_once(text: str, key: str | None) -> Any:
    try:
        return Reader().value(loads(text))
    except RecursionError:
        raise
    except Exception as error:
        raise _unreadable(error, key) from error.__cause__


def _unreadable(error: Exception, key: str | None) -> PayloadError:
    reason = error if isinstance(error, PayloadError) else f"not in the format: {error}"
    return PayloadError(_about(key, reason), key=key)


def decode_lenient(text: str) -> Any:
    """The value for a viewer: never raises, imports no module, resolves no secret.

    What cannot be made (its class is gone, has changed, or is not loaded here) is a Placeholder; a secret is `'***'`.
    """
    try:
        return LenientReader().value(loads(text))
    except (Exception, RecursionError):
        return Placeholder("text", text)


def _about(key: str | None, reason: object) -> str:
    return f"the recorded value of {key!r} cannot be read: {reason}" if key else f"cannot be read: {reason}"


class Reader:
    """One walk through plain data, which it leaves as it is."""

    __slots__ = ()
    lenient = False

    def value(self, node: Any) -> Any:
        """The value of `node`. Raises PayloadError."""
        cls = type(node)
        if cls is dict:
            if "$" in node:
                return self.tagged(node)
            made = {}
            for name, part in node.items():
                made[name] = self.value(part) if type(part) is dict or type(part) is list else part
            return made
        if cls is list:
            items = []  # no comprehension here: it is a frame more on each level
            for part in node:
                items.append(self.value(part) if type(part) is dict or type(part) is list else part)  # noqa: PERF401
            return items
        return node

    def tagged(self, node: Node) -> Any:
        """The value of a node with a tag."""
        tag = node["$"]
        read = READERS.get(tag) if isinstance(tag, str) else None
        try:
            if read is None:
                read = self.late(tag, node)
            return read(self, node)
        except (PayloadError, RecursionError):
            raise
        except LookupError as error:  # of `find`, and of nodes that lack a member
            reason = f"{tag!r} has no member {error}" if isinstance(error, KeyError) else str(error)
            raise PayloadError(reason) from error
        except Exception as error:
            raise PayloadError(f"{node.get('c', tag)}: {type(error).__name__}: {error}") from error

    def late(self, tag: object, node: Node) -> Read:
        """A tag of a higher floor that is not imported yet: its class's module registers it."""
        ref = node.get("c")
        if isinstance(tag, str) and isinstance(ref, str):
            self.find(ref)
            if tag in READERS:
                return READERS[tag]
        raise PayloadError(f"there is no type with the tag {tag!r} here")

    def find(self, ref: str) -> type:
        """The class on record. Raises LookupError."""
        return find_class(ref)


class LenientReader(Reader):
    """Makes Placeholders of what it cannot make."""

    __slots__ = ()
    lenient = True

    def tagged(self, node: Node) -> Any:
        if node["$"] == "secret":
            return "***"
        try:
            return super().tagged(node)
        except PayloadError:
            return Placeholder(str(node.get("c") or node["$"]), self.value(node.get("v")))

    def find(self, ref: str) -> type:
        return find_class(ref, load=False)
