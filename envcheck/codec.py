"""JSON- and TOML-shaped data to frozen dataclasses and back, with errors that name the key.

A field that may be absent is typed ``X | None`` with the default ``None`` and is left out of the written document;
a fact that could not be read is ``Unknown`` and is written ``{"unknown": "why"}``. ``null`` is never written or read.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NoReturn, TypeVar

from envcheck.errors import DataError
from envcheck.record import dataclass, names_of

T = TypeVar("T")

SCALARS = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}


class Unknown:
    """A fact that could not be read, and why."""

    unknown: str

    def __init__(self, unknown: str) -> None:
        """Keep the reason."""
        self.__dict__["unknown"] = unknown

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Refuse: it is frozen."""
        message = f"cannot change {name} of an unknown fact"
        raise AttributeError(message)

    def __eq__(self, other: object) -> bool:
        """Equal where the reasons are."""
        return isinstance(other, Unknown) and self.unknown == other.unknown

    def __hash__(self) -> int:
        """Hash of the reason."""
        return hash(("unknown", self.unknown))

    def __repr__(self) -> str:
        """As it is written in code."""
        return f"Unknown({self.unknown!r})"


@dataclass(frozen=True, kw_only=True)
class Where:
    """The document and the key path that is being read, for error messages."""

    source: str
    key: str = ""

    def at(self, key: str | int) -> Where:
        """One step further down."""
        if isinstance(key, int):
            return Where(source=self.source, key=f"{self.key}[{key}]")
        return Where(source=self.source, key=f"{self.key}.{key}" if self.key else key)

    def fault(self, expected: str, found: object) -> DataError:
        """Build the error for this place."""
        shown = found if isinstance(found, str) and found.startswith("no ") else repr(found)
        return DataError(self.source, self.key, expected=expected, found=str(shown)[:200])


@cache
def fields_of(cls: typing.Hashable) -> dict[str, tuple[Any, bool]]:
    """Field name -> (type, required) of a dataclass, annotations resolved."""
    hints = typing.get_type_hints(cls)
    return {name: (hints[name], required) for name, required in names_of(cls).items()}


Place = tuple[Any, ...]
"""Where a value stands: ``(document,)``, or ``(place, key)``. It becomes a Where only when something is wrong there."""
Reader = Callable[[Any, Place], Any]


def _where(place: Place) -> Where:
    return place[0] if len(place) == 1 else _where(place[0]).at(place[1])


def decode(kind: Any, value: Any, where: Where) -> Any:  # noqa: ANN401  # any annotation, any document
    """Turn ``value`` into ``kind``: a dataclass, tuple, dict, union or scalar; raise DataError naming the key."""
    return _reader(kind)(value, (where,))


@cache
def _reader(kind: Any) -> Reader:  # noqa: ANN401
    """Give what decodes a kind; an annotation is taken apart once, not at every value."""
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        return _union_reader(typing.get_args(kind))
    if origin is tuple:
        return _tuple_reader(_reader(typing.get_args(kind)[0]))
    if origin is dict:
        return _dict_reader(_reader(typing.get_args(kind)[1]))
    if origin is typing.Literal:
        return _literal_reader(typing.get_args(kind))
    if names_of(kind):
        return partial(_read_dataclass, kind)
    return _scalar_reader(kind)


def _scalar_reader(kind: Any) -> Reader:  # noqa: ANN401
    def read(value: Any, place: Place) -> Any:  # noqa: ANN401
        if type(value) is kind or kind is Any:
            return value
        if kind is float and type(value) is int:
            return float(value)
        raise _where(place).fault(SCALARS.get(kind, str(kind)), value)

    return read


def _literal_reader(allowed: tuple[Any, ...]) -> Reader:
    def read(value: Any, place: Place) -> Any:  # noqa: ANN401
        if value not in allowed:
            raise _where(place).fault("one of " + ", ".join(map(str, allowed)), value)
        return value

    return read


def _tuple_reader(item: Reader) -> Reader:
    def read(value: Any, place: Place) -> tuple[Any, ...]:  # noqa: ANN401
        if not isinstance(value, (list, tuple)):
            raise _where(place).fault("a list", value)
        return tuple([item(each, (place, index)) for index, each in enumerate(value)])

    return read


def _dict_reader(item: Reader) -> Reader:
    def read(value: Any, place: Place) -> dict[str, Any]:  # noqa: ANN401
        if not isinstance(value, dict):
            raise _where(place).fault("a table", value)
        return {key: item(each, (place, key)) for key, each in value.items()}

    return read


def _union_reader(args: tuple[Any, ...]) -> Reader:
    readers = [_reader(arg) for arg in args if arg is not Unknown and arg is not type(None)]
    may_be_unknown = Unknown in args

    def read(value: Any, place: Place) -> Any:  # noqa: ANN401
        if may_be_unknown and isinstance(value, dict) and value.keys() == {"unknown"}:
            return Unknown(str(value["unknown"]))
        for reader in readers[:-1]:
            try:
                return reader(value, place)
            except DataError:
                continue
        return readers[-1](value, place)

    return read


@cache
def _readers(cls: typing.Hashable) -> tuple[dict[str, Reader], frozenset[str]]:
    """What decodes each field, and the fields that must be there."""
    fields = fields_of(cls)
    required = frozenset(name for name, (_, needed) in fields.items() if needed)
    return {name: _reader(kind) for name, (kind, _) in fields.items()}, required


def _read_dataclass(cls: type[T], value: Any, place: Place) -> T:  # noqa: ANN401
    if not isinstance(value, dict):
        raise _where(place).fault("a table", value)
    readers, required = _readers(typing.cast("typing.Hashable", cls))
    if not value.keys() <= readers.keys():
        strange = next(key for key in value if key not in readers)
        raise _where((place, strange)).fault(f"one of the keys {', '.join(readers)}", "no such key")
    if not required <= value.keys():
        missing = next(key for key in readers if key in required and key not in value)
        raise _where((place, missing)).fault("a value", "no such key")
    return cls(**{key: readers[key](item, (place, key)) for key, item in value.items()})


def encode(value: Any) -> Any:  # noqa: ANN401  # any fact
    """Turn dataclasses into plain JSON data; fields that are None are left out."""
    if isinstance(value, Unknown):
        return {"unknown": value.unknown}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {key: encode(item) for key, item in value.items()}
    pairs = ((name, getattr(value, name)) for name in names_of(type(value)))
    found = {name: encode(item) for name, item in pairs if item is not None}
    return found if found or names_of(type(value)) else value
