from __future__ import annotations

import dataclasses
from dataclasses import FrozenInstanceError

import pytest

from envcheck.record import dataclass, field, names_of, replace


@dataclass(frozen=True, kw_only=True)
class Point:
    x: int
    y: int = 2
    tags: dict[str, str] = field(default_factory=dict)


def test_equals_a_dataclass_in_behaviour() -> None:
    point = Point(x=1)
    assert point == Point(x=1, y=2, tags={})
    assert point != Point(x=2)
    assert point.__eq__(1) is NotImplemented
    assert repr(point) == "Point(x=1, y=2, tags={})"
    assert replace(point, y=5).y == 5
    assert [item.name for item in dataclasses.fields(point)] == ["x", "y", "tags"]
    assert Point(x=1).tags is not Point(x=1).tags


def test_is_frozen() -> None:
    point = Point(x=1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x


def test_hash_is_that_of_its_values() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Name:
        text: str

    assert {Name(text="a"), Name(text="a")} == {Name(text="a")}
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(x=1))


def test_wrong_fields_are_named() -> None:
    with pytest.raises(TypeError, match="Point has no field z"):
        Point(x=1, z=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Point needs x"):
        Point()  # type: ignore[call-arg]


def test_there_is_no_other_kind_of_record() -> None:
    with pytest.raises(TypeError, match="frozen and keyword-only"):
        dataclass(frozen=False, kw_only=True)


def test_a_record_is_a_dataclass_to_the_dataclasses_module() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Line:
        start: Point
        width: int = field(default=1)

    line = Line(start=Point(x=1))
    assert dataclasses.is_dataclass(line)
    assert dataclasses.asdict(line) == {"start": {"x": 1, "y": 2, "tags": {}}, "width": 1}
    assert dataclasses.replace(line, width=3).width == 3


def test_names_of_records_of_dataclasses_and_of_others() -> None:
    @dataclasses.dataclass
    class Plain:
        a: int
        b: int = 1

    assert names_of(Point) == {"x": True, "y": False, "tags": False}
    assert names_of(Plain) == {"a": True, "b": False}
    assert names_of(int) == {}
    assert replace(Plain(a=1), a=2) == Plain(a=2)


def test_records_inherit_fields() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Named(Point):
        name: str

    assert repr(Named(x=1, name="a")).endswith("Named(x=1, y=2, tags={}, name='a')")
