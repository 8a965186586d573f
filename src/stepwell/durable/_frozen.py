"""Small value classes whose constructor differs from their fields: frozen, compared by content, copied and pickled."""

from __future__ import annotations

from typing import Any, NoReturn, Self


class Frozen:
    """Base of a class with ``__slots__``; its ``__init__`` fills them with `fill`."""

    __slots__ = ()

    def fill(self, **fields: Any) -> None:
        """Set the slots, once, from ``__init__``."""
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def _content(self) -> dict[str, Any]:
        return {name: getattr(self, name) for cls in type(self).__mro__ for name in cls.__dict__.get("__slots__", ())}

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed (attribute {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} cannot be changed (attribute {name!r})")

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        content = (tuple(value) if isinstance(value, list) else value for value in self._content().values())
        return hash((type(self), *content))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._content().items())
        return f"{type(self).__name__}({fields})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), self._content())


def _make(cls: type[Frozen], fields: dict[str, Any]) -> Frozen:
    value = cls.__new__(cls)
    value.fill(**fields)
    return value
