"""``dataclass`` as this program uses it, frozen and keyword-only, made without generating code.

dataclasses compiles six methods for every class (0.6 ms each, 40 ms for the classes of one run of the doctor, which may
take 120 ms in all) and imports inspect (7 ms). The classes made here share generic methods; to type checkers they are
plain dataclasses, and so they are to ``dataclasses.fields`` and ``dataclasses.replace``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass, field, replace

T = TypeVar("T")
MISSING: Any = object()


class Field:
    """Default of a field."""

    def __init__(self, default: object = MISSING, default_factory: Any = MISSING) -> None:  # noqa: ANN401
        """Keep a value, or what makes one."""
        self.default = default
        self.default_factory = default_factory


class _AsDataclass:
    """``__dataclass_fields__``, made when the dataclasses module itself asks for it."""

    def __get__(self, instance: object, owner: Any) -> object:  # noqa: ANN401
        import dataclasses

        body: dict[str, Any] = {"__annotations__": dict(owner.__record_types__), **owner.__record_defaults__}
        for name, factory in owner.__record_factories__.items():
            body[name] = dataclasses.field(default_factory=factory)
        plain: Any = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=True)(type("x", (), body))
        owner.__dataclass_fields__ = plain.__dataclass_fields__
        return owner.__dataclass_fields__


def _init(self: Any, **given: object) -> None:  # noqa: ANN401  # a method of every record
    kind = type(self)
    values = kind.__record_defaults__ | given
    for name, factory in kind.__record_factories__.items():
        if name not in given:
            values[name] = factory()
    if values.keys() != kind.__record_types__.keys():
        raise TypeError(_mismatch(kind, given))
    self.__dict__.update(values)


def _mismatch(kind: Any, given: dict[str, object]) -> str:  # noqa: ANN401
    names = kind.__record_types__.keys()
    strange = ", ".join(sorted(given.keys() - names))
    if strange:
        return f"{kind.__name__} has no field {strange}"
    missing = names - given.keys() - kind.__record_defaults__.keys() - kind.__record_factories__.keys()
    return f"{kind.__name__} needs {', '.join(sorted(missing))}"


def _values(self: Any) -> tuple[object, ...]:  # noqa: ANN401
    return tuple(getattr(self, name) for name in self.__record_types__)


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:  # noqa: ANN401
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record_types__)
    return f"{type(self).__qualname__}({shown})"


def _frozen(self: object, name: str, value: object = None) -> NoReturn:  # noqa: ARG001
    from dataclasses import FrozenInstanceError

    message = f"cannot change field {name!r}"
    raise FrozenInstanceError(message)


def _make(cls: Any) -> Any:  # noqa: ANN401  # gives the class itself
    types: dict[str, Any] = {**getattr(cls, "__record_types__", {})}
    defaults = {**getattr(cls, "__record_defaults__", {})}
    factories = {**getattr(cls, "__record_factories__", {})}
    for name, kind in cls.__annotations__.items():
        types[name] = kind
        default = cls.__dict__.get(name, MISSING)
        if isinstance(default, Field):
            if default.default_factory is not MISSING:
                factories[name] = default.default_factory
                delattr(cls, name)
                continue
            default = default.default
            setattr(cls, name, default)
        if default is not MISSING:
            defaults[name] = default
    cls.__record_types__, cls.__record_defaults__, cls.__record_factories__ = types, defaults, factories
    cls.__init__, cls.__eq__, cls.__hash__, cls.__repr__ = _init, _eq, _hash, _repr
    cls.__setattr__ = cls.__delattr__ = _frozen
    cls.__dataclass_fields__ = _AsDataclass()
    return cls


def names_of(kind: Any) -> dict[str, bool]:  # noqa: ANN401  # any class
    """Field name -> required, of a record or a dataclass; empty for another class."""
    types = getattr(kind, "__record_types__", None)
    if types is not None:
        return {name: name not in kind.__record_defaults__ and name not in kind.__record_factories__ for name in types}
    if not hasattr(kind, "__dataclass_fields__"):
        return {}
    import dataclasses

    missing = dataclasses.MISSING
    found = [item for item in dataclasses.fields(kind) if item.init]
    return {item.name: item.default is missing and item.default_factory is missing for item in found}


if not TYPE_CHECKING:

    def dataclass(*, frozen: bool, kw_only: bool) -> Callable[[type[T]], type[T]]:
        """Make a frozen keyword-only record of a class; there is no other kind."""
        if not (frozen and kw_only):
            message = "a record is frozen and keyword-only"
            raise TypeError(message)
        return _make

    field = Field

    def replace(instance: T, /, **changes: object) -> T:
        """Give a record with other values in some fields."""
        kind = type(instance)
        types = getattr(kind, "__record_types__", None)
        if types is None:
            import dataclasses

            return dataclasses.replace(instance, **changes)
        return kind(**{name: getattr(instance, name) for name in types} | changes)


__all__ = ["dataclass", "field", "names_of", "replace"]
