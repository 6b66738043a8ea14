"""``dataclass`` as this program uses it, frozen and keyword-only, made without generating code.

dataclasses compiles six methods for every class: 0.6 ms each, 40 ms for the classes of one run of the doctor, which may
take 120 ms in all. The classes made here share generic methods instead; to type checkers they are plain dataclasses.
"""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, field, fields, replace
from dataclasses import dataclass as _plain
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass

T = TypeVar("T")


def _init(self: Any, **given: object) -> None:  # noqa: ANN401  # a method of every record
    kind = type(self)
    values = kind.__record_defaults__ | given
    for name, factory in kind.__record_factories__.items():
        if name not in given:
            values[name] = factory()
    if values.keys() != kind.__record_names__:
        raise TypeError(_mismatch(kind, given))
    self.__dict__.update(values)


def _mismatch(kind: Any, given: dict[str, object]) -> str:  # noqa: ANN401
    names = kind.__record_names__
    strange = ", ".join(sorted(given.keys() - names))
    if strange:
        return f"{kind.__name__} has no field {strange}"
    missing = names - given.keys() - kind.__record_defaults__.keys() - kind.__record_factories__.keys()
    return f"{kind.__name__} needs {', '.join(sorted(missing))}"


def _values(self: Any) -> tuple[object, ...]:  # noqa: ANN401
    return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:  # noqa: ANN401
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
    return f"{type(self).__qualname__}({shown})"


def _frozen(self: object, name: str, value: object = None) -> NoReturn:  # noqa: ARG001
    message = f"cannot change field {name!r}"
    raise FrozenInstanceError(message)


def _make(cls: type[T]) -> type[T]:
    made: Any = _plain(init=False, repr=False, eq=False, match_args=False, kw_only=True)(cls)
    parts = fields(made)
    made.__record_names__ = {part.name for part in parts}
    made.__record_defaults__ = {part.name: part.default for part in parts if part.default is not MISSING}
    made.__record_factories__ = {
        part.name: part.default_factory for part in parts if part.default_factory is not MISSING
    }
    made.__init__, made.__eq__, made.__hash__, made.__repr__ = _init, _eq, _hash, _repr
    made.__setattr__ = made.__delattr__ = _frozen
    return made  # type: ignore[no-any-return]


if not TYPE_CHECKING:

    def dataclass(*, frozen: bool, kw_only: bool) -> Callable[[type[T]], type[T]]:
        """Make a frozen keyword-only record of a class; there is no other kind."""
        if not (frozen and kw_only):
            message = "a record is frozen and keyword-only"
            raise TypeError(message)
        return _make


__all__ = ["dataclass", "field", "replace"]
