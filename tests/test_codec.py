"""Documents to dataclasses and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from envcheck.codec import Unknown, Where, decode, encode
from envcheck.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Inner:
    name: str
    size: int | Unknown = 0


@dataclass(frozen=True, kw_only=True)
class Outer:
    kind: Literal["a", "b"] = "a"
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    table: dict[str, float] = field(default_factory=dict)
    either: int | str = 0
    free: Any = 1


def read(value: object) -> Outer:
    decoded: Outer = decode(Outer, value, Where(source="file.json"))
    return decoded


def test_round_trip() -> None:
    data = {
        "kind": "b",
        "inner": {"name": "x", "size": {"unknown": "not permitted"}},
        "many": [{"name": "y", "size": 2}],
        "table": {"k": 1.5},
        "either": "unlimited",
        "free": [1],
    }
    outer = read(data)
    assert outer.inner == Inner(name="x", size=Unknown("not permitted"))
    assert encode(outer) == data


def test_absent_fields_are_left_out() -> None:
    assert "inner" not in encode(Outer())


def test_an_integer_is_a_number() -> None:
    assert read({"table": {"k": 2}}).table == {"k": 2.0}


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        pytest.param([], "", "a table", id="not-a-table"),
        pytest.param({"kin": "a"}, "kin", "one of the keys", id="unknown-key"),
        pytest.param({"kind": "c"}, "kind", "one of a, b", id="literal"),
        pytest.param({"inner": {}}, "inner.name", "a value", id="missing"),
        pytest.param({"inner": {"name": None}}, "inner.name", "a string", id="null"),
        pytest.param({"many": [{"name": "x"}, {"name": 3}]}, "many[1].name", "a string", id="in-a-list"),
        pytest.param({"many": "x"}, "many", "a list", id="not-a-list"),
        pytest.param({"table": {"k": "v"}}, "table.k", "a number", id="in-a-table"),
        pytest.param({"table": 1}, "table", "a table", id="table-of-nothing"),
        pytest.param({"inner": {"name": "x", "size": True}}, "inner.size", "an integer", id="bool-is-no-integer"),
    ],
)
def test_error_names_the_key(value: object, key: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read(value)
    assert caught.value.key == key
    assert expected in str(caught.value)
    assert "file.json" in str(caught.value)
