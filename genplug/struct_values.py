"""Class decorators for structs: fields that do not count in comparisons, and fields that are not printed."""

from collections.abc import Callable
from operator import attrgetter
from typing import TypeVar

from msgspec import Struct

_UNCOMPARED: dict[type, frozenset[str]] = {}

StructT = TypeVar("StructT", bound=type[Struct])


def compare_without(*names: str) -> Callable[[StructT], StructT]:
    """Make the instances of a struct compare and hash by all fields except some."""

    def decorate(cls: StructT) -> StructT:
        key = attrgetter(*(name for name in cls.__struct_fields__ if name not in names))

        def is_equal(self: Struct, other: object) -> bool:
            return key(self) == key(other) if type(other) is type(self) else NotImplemented

        _UNCOMPARED[cls] = frozenset(names)
        cls.__eq__ = is_equal  # type: ignore[method-assign, assignment]
        cls.__hash__ = lambda self: hash(key(self))  # type: ignore[method-assign]
        return cls

    return decorate


def uncompared_fields(cls: type) -> frozenset[str]:
    """Return the fields of a class that do not count in comparisons."""
    return _UNCOMPARED.get(cls, frozenset())


def hide_in_repr(*names: str) -> Callable[[StructT], StructT]:
    """Leave some fields out of the text of the instances of a struct."""

    def decorate(cls: StructT) -> StructT:
        shown = tuple(name for name in cls.__struct_fields__ if name not in names)

        def describe(self: Struct) -> str:
            return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

        cls.__repr__ = describe  # type: ignore[method-assign, assignment]
        return cls

    return decorate
