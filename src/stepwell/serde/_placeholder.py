"""What a viewer sees of a value that cannot be made here."""

from __future__ import annotations


class Placeholder:
    """Stands for a recorded value whose class is gone, has changed, or is not loaded.

    `type` is the class (`module:qualname`) or tag on record, `data` the recorded content. Equal to a Placeholder of the
    same type and data, and to nothing else.
    """

    __slots__ = ("data", "type")

    def __init__(self, type: str, data: object) -> None:
        self.type = type
        self.data = data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Placeholder):
            return NotImplemented
        return (self.type, self.data) == (other.type, other.data)

    def __hash__(self) -> int:
        return hash(self.type)

    def __repr__(self) -> str:
        return f"<{self.type} {self.data!r}>"
