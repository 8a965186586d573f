"""Masks the texts of secrets in whatever a run leaves behind: P7."""

from __future__ import annotations

import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from stepwell.errors import ErrorRecord
from stepwell.serde._reader import loads
from stepwell.serde._writer import dumps

_MASK = "***"
_SHORTEST = 4  # shorter texts are found everywhere by chance
_SHORTEST_BASE64 = 8
_ESCAPES = 3  # JSON inside JSON inside JSON: the args of an error, in its record, in the journal's own JSON


class Redactor:
    """Replaces every text that it was fed by `***`. One per run; safe to share between threads.

    Masked are also the forms that a text takes inside JSON strings (up to three deep) and inside base64, and each line
    of a text of several lines. Texts and lines of fewer than 4 characters are ignored.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fed: set[str] = set()
        self._forms: tuple[str, ...] = ()  # replaced whole, longest first, so that readers need no lock

    @property
    def active(self) -> bool:
        """Whether there is anything to mask."""
        return bool(self._forms)

    def feed(self, text: str) -> None:
        """Mask `text` from now on."""
        if text in self._fed:
            return
        with self._lock:
            self._fed.add(text)
            forms = {*self._forms, *_forms(text)}
            self._forms = tuple(sorted(forms, key=lambda form: (-len(form), form)))

    def redact(self, text: str) -> str:
        """`text` with every secret masked; the same object when there is none in it.

        Knows no syntax: JSON may be no JSON any more afterwards. For JSON there is `redact_json`.
        """
        # Again until nothing is found: a mask and its neighbours can make up another secret. It ends, since what is
        # replaced is longer than the mask.
        while spans := self._spans(text):
            parts = []
            at = 0
            for start, end in spans:
                parts += [text[at:start], _MASK]
                at = end
            text = "".join([*parts, text[at:]])
        return text

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where the secrets are, overlapping ones as one span: else the tail of the longer would be left."""
        found = []
        for form in self._forms:
            start = text.find(form)
            while start >= 0:
                found.append((start, start + len(form)))
                start = text.find(form, start + 1)
        found.sort()
        merged: list[tuple[int, int]] = []
        for start, end in found:
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    def redact_value(self, value: Any) -> Any:
        """`value` with the secrets in its strings masked, keys included, at any depth of dicts, lists, tuples and sets.

        The same object when nothing was masked; otherwise containers are copied and the given one is left as it is.
        """
        if not self._forms:
            return value
        cls = type(value)
        if cls is str:
            return self.redact(value)
        if cls is dict:
            masked = {self.redact_value(key): self.redact_value(item) for key, item in value.items()}
            same = all(a is b and value[b] is masked[a] for a, b in zip(masked, value, strict=False))
            return value if same and len(masked) == len(value) else masked
        if cls in (list, tuple, set, frozenset):
            items = [self.redact_value(item) for item in value]
            return value if all(a is b for a, b in zip(items, value, strict=True)) else cls(items)
        return value

    def redact_json(self, text: str) -> str:
        """`text` (of `encode`) with every secret masked, still JSON that `decode` reads.

        A number or a node that would be broken by a mask inside it (a date, an enum member) is replaced whole, by the
        string `***`; bytes are masked as bytes. The same object when there is no secret in it.
        """
        if not self._forms or not any(mark in text for mark in (*self._forms, *_BASE64)):
            return text
        node = loads(text)
        masked = self._mask(node)
        return text if masked is node else dumps(masked).decode()

    def redact_error(self, record: ErrorRecord) -> ErrorRecord:
        """`record` with every secret masked in texts, args, attributes and causes; its classes are left as they are."""
        if not self._forms:
            return record
        return ErrorRecord(
            type=record.type,
            message=self.redact(record.message),
            data=None if record.data is None else self.redact(record.data),
            stack_trace=tuple(map(self.redact, record.stack_trace)),
            classes=record.classes,
            args=None if record.args is None else self.redact_json(record.args),
            attrs=None if record.attrs is None else self.redact_json(record.attrs),
            cause=None if record.cause is None else self.redact_error(record.cause),
        )

    def _mask(self, node: Any) -> Any:
        if isinstance(node, str):
            return self.redact(node)
        if isinstance(node, list):
            items = [self._mask(item) for item in node]
            return node if all(a is b for a, b in zip(items, node, strict=True)) else items
        if isinstance(node, dict):
            return self._mask_tagged(node) if "$" in node else self._mask_dict(node)
        if isinstance(node, int | float) and not isinstance(node, bool):
            text = dumps(node).decode()
            return node if self.redact(text) is text else _MASK
        return node

    def _mask_dict(self, node: dict[str, Any]) -> dict[str, Any]:
        masked = {}
        same = True
        for name, item in node.items():
            # A secret as key "$" would make a tagged node of a plain dict; shorter than 4, it cannot be one.
            new_name, new_item = self.redact(name), self._mask(item)
            same = same and new_name is name and new_item is item
            masked[new_name] = new_item
        return node if same else masked

    def _mask_tagged(self, node: dict[str, Any]) -> Any:
        tag, content = node["$"], node.get("v")
        if tag in ("bytes", "bytearray", "str") and isinstance(content, str):
            raw = b64decode(content)
            masked = self.redact(raw.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
            return node if masked == raw else {**node, "v": b64encode(masked).decode()}
        if tag in _FREE_TEXT and isinstance(content, str):
            new = self.redact(content)
            return node if new is content else {**node, "v": new}
        if not isinstance(content, dict | list) or tag in _FIXED or (tag == "error" and self._names(content)):
            rest = dumps(node).decode()
            return node if self.redact(rest) is rest else _MASK
        return self._mask_members(node)

    def _names(self, content: Any) -> bool:
        """Whether a secret is in the class names of a recorded error."""
        return any(self.redact(ref) is not ref for ref in content["classes"])

    def _mask_members(self, node: dict[str, Any]) -> Any:
        """A node of parts: values are masked; names of the class, its fields and the tag cannot be, so the node is."""
        masked = {}
        same = True
        for name, item in node.items():
            fields = isinstance(item, dict) and "$" not in item
            if fields:
                new: Any = {field: self._mask(part) for field, part in item.items()}
                unnamed = any(self.redact(field) is not field for field in item)
                changed = any(new[field] is not part for field, part in item.items())
            else:
                new = self._mask(item)
                unnamed = name in ("$", "c") and new is not item
                changed = new is not item
            if unnamed:
                return _MASK
            same = same and not changed
            masked[name] = new if changed else item
        return node if same else masked


_BASE64 = ('"$":"bytes"', '"$":"bytearray"', '"$":"str"')  # have to be opened to be searched
_FREE_TEXT = frozenset(("path", "posixpath", "windowspath"))
_FIXED = frozenset(("timedelta", "enum", "secret"))

current_redactor: ContextVar[Redactor | None] = ContextVar("stepwell_redactor", default=None)
"""The redactor of the run that this code belongs to; a secret that is revealed feeds it."""


def _forms(text: str) -> Iterator[str]:
    for part in {text, *(line.strip() for line in text.splitlines())}:
        if len(part) < _SHORTEST:
            continue
        yield part
        yield from _json_forms(part)
        yield from _base64_forms(part)


def _json_forms(text: str) -> set[str]:
    from json import dumps as json_dumps

    forms = {text}
    for _ in range(_ESCAPES):
        forms |= {json_dumps(form, ensure_ascii=ascii_only)[1:-1] for form in forms for ascii_only in (True, False)}
    return forms


def _base64_forms(text: str) -> Iterator[str]:
    """The characters that the text gives rise to in base64, at each of the three places it can stand in a group."""
    data = text.encode("utf-8", "surrogatepass")
    for before in range(3):
        padded = b64encode(bytes(before) + data).decode()
        first = (0, 2, 3)[before]  # characters that also depend on what stands in front
        last = (0, 3, 2)[(before + len(data)) % 3]  # … or behind, padding included
        form = padded[first : len(padded) - last]
        if len(form) >= _SHORTEST_BASE64:
            yield form
            yield form.replace("+", "-").replace("/", "_")
