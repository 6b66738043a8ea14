"""JSON- and TOML-shaped data to frozen dataclasses and back, with errors that name the key.

A field that may be absent is typed ``X | None`` with the default ``None`` and is left out of the written document;
a fact that could not be read is ``Unknown`` and is written ``{"unknown": "why"}``. ``null`` is never written or read.
"""

from __future__ import annotations

import types
import typing
from functools import cache
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


def decode(kind: Any, value: Any, where: Where) -> Any:  # noqa: ANN401  # any annotation, any document
    """Turn ``value`` into ``kind``: a dataclass, tuple, dict, union or scalar; raise DataError naming the key."""
    origin = typing.get_origin(kind)
    if origin in {types.UnionType, typing.Union}:
        return _decode_union(typing.get_args(kind), value, where)
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), value, where)
    if origin is dict:
        return _decode_dict(typing.get_args(kind)[1], value, where)
    if origin is typing.Literal:
        return _decode_literal(typing.get_args(kind), value, where)
    if names_of(kind):
        return _decode_dataclass(typing.cast("type", kind), value, where)
    return _decode_scalar(kind, value, where)


def _decode_scalar(kind: Any, value: Any, where: Where) -> Any:  # noqa: ANN401
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise where.fault(SCALARS.get(kind, str(kind)), value)
    return value


def _decode_literal(allowed: tuple[Any, ...], value: Any, where: Where) -> Any:  # noqa: ANN401
    if value not in allowed:
        raise where.fault("one of " + ", ".join(map(str, allowed)), value)
    return value


def _decode_tuple(args: tuple[Any, ...], value: Any, where: Where) -> tuple[Any, ...]:  # noqa: ANN401
    if not isinstance(value, (list, tuple)):
        raise where.fault("a list", value)
    return tuple(decode(args[0], item, where.at(index)) for index, item in enumerate(value))


def _decode_dict(kind: Any, value: Any, where: Where) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        raise where.fault("a table", value)
    return {key: decode(kind, item, where.at(key)) for key, item in value.items()}


def _decode_union(args: tuple[Any, ...], value: Any, where: Where) -> Any:  # noqa: ANN401
    if Unknown in args and isinstance(value, dict) and set(value) == {"unknown"}:
        return Unknown(str(value["unknown"]))
    rest = [arg for arg in args if arg is not Unknown and arg is not type(None)]
    for arg in rest[:-1]:
        try:
            return decode(arg, value, where)
        except DataError:
            continue
    return decode(rest[-1], value, where)


def _decode_dataclass(cls: type[T], value: Any, where: Where) -> T:  # noqa: ANN401
    if not isinstance(value, dict):
        raise where.fault("a table", value)
    fields = fields_of(typing.cast("typing.Hashable", cls))
    for key in value:
        if key not in fields:
            known = ", ".join(fields)
            raise where.at(key).fault(f"one of the keys {known}", "no such key")
    for key, (_, required) in fields.items():
        if required and key not in value:
            raise where.at(key).fault("a value", "no such key")
    return cls(**{key: decode(fields[key][0], item, where.at(key)) for key, item in value.items()})


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
