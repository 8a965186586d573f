"""Classes made on the fly: an operation error that is also what was raised, and stand-ins for what cannot be made.

durable.md §14, Identity. A combined class has the operation error first among its bases, so that its constructor-free
fields, exit code and `__reduce__` win, and the original classes after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import new_class
from typing import Any

from stepwell.errors import ErrorRecord
from stepwell.serde._classes import static_base


class Combined:
    """First base of every class made here: what has to win over anything that the other bases say."""

    __slots__ = ()
    _parts: tuple[type[BaseException], ...]

    def __init_subclass__(cls, **kwargs: object) -> None:
        # Goes no further: a user's class may keep a register of its subclasses, where ours have no business.
        pass

    def __str__(self) -> str:
        record: ErrorRecord = self.__dict__["_recipe"][1][0]
        return record.message

    def __repr__(self) -> str:
        return BaseException.__repr__(self)  # type: ignore[arg-type]

    # A frozen class forbids what contextlib does to every error that passes it: setting its traceback.
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        function, arguments = state.pop("_recipe")
        # Attributes go as an argument: as pickle's state they would pass through the class's own `__setattr__`.
        return function, (*arguments, state)


class StandIn(Exception):
    """What is raised from, in place of an error whose class cannot be made; has the name of that class and its text."""

    def __init__(self, record: ErrorRecord) -> None:
        super().__init__(record.message)
        self.record = record

    def __reduce__(self) -> tuple[Any, ...]:
        return stand_in, (self.record,)


_combined: dict[tuple[type, ...], type[BaseException]] = {}
_stand_ins: dict[str, type[StandIn]] = {}


def parts_of(cls: type[BaseException]) -> tuple[type[BaseException], ...]:
    """What `cls` was combined from, the class that names it first; of an ordinary class, that class."""
    parts: tuple[type[BaseException], ...] = cls.__dict__.get("_parts", (cls,))
    return parts


def combine(first: type[BaseException], others: Sequence[type[BaseException]], *, always: bool = False) -> type[Any]:
    """A class that is `first`, named like it, and each of `others` that can be combined with what is before it.

    `first` itself when nothing is added, unless `always`: then a class whose text is the record's.
    """
    key = (first, *others, *((Combined,) if always else ()))
    cls = _combined.get(key)
    if cls is None:
        cls = _combined.setdefault(key, _combine(first, others, always))
    return cls


def _combine(first: type[BaseException], others: Sequence[type[BaseException]], always: bool) -> type[BaseException]:
    parts = [first]
    best = _derive(parts) if always else None
    for other in others:
        if any(issubclass(part, other) for part in parts):
            continue
        cls = _derive([*parts, other])
        if cls is not None:
            parts.append(other)
            best = cls
    return best or first


def _derive(parts: list[type[BaseException]]) -> type[BaseException] | None:
    """The class, or None where the parts do not go together: layouts, method order, final classes, metaclasses."""
    first = parts[0]
    bases = [part for part in parts if not any(other is not part and issubclass(other, part) for other in parts)]
    namespace = {
        "__module__": first.__module__,
        "__qualname__": first.__qualname__,
        "__doc__": first.__doc__,
        "_parts": tuple(parts),
    }
    try:
        cls: type[BaseException] = new_class(
            first.__name__, (Combined, *bases), exec_body=lambda body: body.update(namespace)
        )
        blank(cls)
    except Exception:
        return None
    return cls


def blank(cls: type[BaseException]) -> BaseException:
    """An instance on which no constructor of the user's has run. Raises where the interpreter forbids that."""
    # The layout's own `__new__`: the user's may want arguments that nobody has any more. The interpreter itself checks
    # that it is the right one for `cls`, so that no extension class is left without its content.
    layout: Any = static_base(cls)
    made: BaseException = layout.__new__(cls)
    return made


def stand_in(record: ErrorRecord) -> StandIn:
    """A stand-in for the recorded error; all of one type name are of one class."""
    cls = _stand_ins.get(record.type)
    if cls is None:
        module, _, name = record.type.rpartition(".")
        cls = type(name or "Error", (StandIn,), {"__module__": module or "builtins", "__doc__": StandIn.__doc__})
        cls = _stand_ins.setdefault(record.type, cls)
    return cls(record)
