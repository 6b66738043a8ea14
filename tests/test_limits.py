"""The tables of limits: what is shipped can be read and is used; a wrong file says where it is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from envcheck import limits
from envcheck.errors import DataError

SHIPPED = limits.load()
ROW = '[[row]]\nwhen = { cuda = ">=12" }\nneed = { driver = ">=525.60.13" }\nsource = "https://example.org"\n'
RULES = Path(limits.__file__).parent.parent / "rules"


def table(text: str = ROW, *, version: int = 1) -> limits.Table:
    return limits.parse(f'version = {version}\ntitle = "T"\n\n{text}', "cuda.toml")


@pytest.mark.parametrize("name", sorted(SHIPPED.tables))
def test_a_shipped_table_is_whole_and_every_row_has_its_source(name: str) -> None:
    shipped = SHIPPED.tables[name]
    assert shipped.title
    assert shipped.row
    for row in shipped.row:
        assert row.source.startswith("https://")
        assert row.need or row.give
        for specifier in (*row.when.values(), *row.need.values()):
            SpecifierSet(specifier)


@pytest.mark.parametrize("name", sorted(SHIPPED.tables))
def test_a_shipped_table_is_used_by_a_rule(name: str) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in RULES.glob("*.py"))
    assert re.search(rf'"{name}"', code)


@pytest.mark.parametrize(
    ("cuda", "driver", "minimum", "native"),
    [
        pytest.param("12.4", "550.54.14", True, True, id="native"),
        pytest.param("12.4", "550.40.07", True, False, id="just-below"),
        pytest.param("12.4", "535.183.06", True, False, id="535"),
        pytest.param("12.4", "525.60.13", True, False, id="the-first-of-cuda-12"),
        pytest.param("12.4", "525.60.11", False, False, id="one-before"),
        pytest.param("12.4", "470.57.02", False, False, id="470"),
        pytest.param("13.0", "570.133.20", False, False, id="570-and-cuda-13"),
        pytest.param("13.0", "580.65.06", True, True, id="580-and-cuda-13"),
    ],
)
def test_which_driver_runs_which_cuda(cuda: str, driver: str, *, minimum: bool, native: bool) -> None:
    rows = [SHIPPED.first(f"cuda-driver-{kind}", cuda=cuda) for kind in ("minimum", "native")]
    assert [limits.satisfies(driver, row.need["driver"]) for row in rows if row] == [minimum, native]


@pytest.mark.parametrize(
    ("cuda", "highest"),
    [("11.5", "11"), ("11.8", "11"), ("12.1", "12"), ("12.4.1", "13"), ("12.8", "14"), ("13.0.2", "15")],
)
def test_which_gcc_goes_with_which_cuda(cuda: str, highest: str) -> None:
    row = SHIPPED.first("cuda-gcc", cuda=cuda)
    assert row is not None
    assert row.give["max"] == highest


@pytest.mark.parametrize(
    ("torch", "cuda", "new"),
    [("2.5.1", "12.4", "false"), ("2.6.0", "12.4", "false"), ("2.6.0", "12.6", "true"), ("2.7.1", "12.6", "true")],
)
def test_which_abi_a_torch_wheel_has(torch: str, cuda: str, new: str) -> None:
    row = SHIPPED.first("torch-abi", torch=torch, cuda=cuda)
    assert row is not None
    assert row.give["cxx11_abi"] == new


@pytest.mark.parametrize(
    ("te", "flash_attn", "accepted"),
    [
        ("1.7.0", "2.5.8", True),
        ("1.7.0", "2.7.4.post1", False),
        ("2.2.0", "2.7.4.post1", True),
        ("2.2.0", "2.8.3", False),
        ("2.10.0", "2.8.3", True),
    ],
)
def test_which_flash_attn_transformer_engine_accepts(te: str, flash_attn: str, *, accepted: bool) -> None:
    row = SHIPPED.first("transformer-engine", **{"transformer-engine": te})
    assert row is not None
    assert limits.satisfies(flash_attn, row.need["flash-attn"]) is accepted


def test_a_condition_on_what_is_not_known_does_not_hold() -> None:
    one = limits.Limits(tables={"t": table()})
    assert one.first("t", torch="2.5.1") is None
    assert one.rows("t", cuda="11.8") == ()
    assert one.first("t", cuda="12.4") == table().row[0]


@pytest.mark.parametrize(
    ("version", "specifier", "holds"),
    [
        pytest.param("2.6.0a0", ">=2.5", True, id="pre-releases-count"),
        pytest.param("2.7.4.post1", "==2.7.4.post1", True, id="post-release"),
        pytest.param("no version", ">=1", False, id="no-version"),
        pytest.param("1.0", "nonsense", False, id="no-specifier"),
    ],
)
def test_a_version_meets_a_specifier(version: str, specifier: str, *, holds: bool) -> None:
    assert limits.satisfies(version, specifier) is holds


def test_a_table_that_is_not_shipped_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="no-such-table"):
        SHIPPED.tables["no-such-table"]
    assert "no-such-table" not in SHIPPED.tables
    assert len(SHIPPED.tables) == len(list(SHIPPED.tables))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(ROW.replace(">=12", "twelve"), r"row\[0\]\.when\.cuda: expected a version specifier", id="when"),
        pytest.param(ROW.replace(">=525.60.13", "525"), r"row\[0\]\.need\.driver: expected a version", id="need"),
        pytest.param(ROW + ROW.replace("source", "sauce"), r"row\[1\].*sauce", id="unknown-key"),
        pytest.param(ROW.replace('source = "https://example.org"', ""), r"row\[0\].*source", id="no-source"),
        pytest.param("[[row]", "expected TOML", id="no-toml"),
    ],
)
def test_a_wrong_row_is_named(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        table(text)
    assert error.value.source == "cuda.toml"


def test_another_version_of_the_format_is_refused() -> None:
    with pytest.raises(DataError, match="version: expected 1, found 2"):
        table(version=2)
