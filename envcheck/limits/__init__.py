"""Compatibility rows: what version of one thing another thing needs, each with its source; data in the TOML files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from envcheck import data
from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.record import dataclass, field
from envcheck.stack import parse_toml
from envcheck.versions import is_specifier, satisfies

__all__ = ["Limits", "Row", "Shipped", "Table", "load", "parse", "satisfies"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """When everything in ``when`` holds, everything in ``need`` must; both map a subject to a version specifier.

    ``give`` holds values that are not specifiers (a list of architectures, an exact pin).
    """

    when: dict[str, str] = field(default_factory=dict)
    need: dict[str, str] = field(default_factory=dict)
    give: dict[str, str] = field(default_factory=dict)
    why: str = ""
    source: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of limits, named by its file."""

    version: int
    title: str
    row: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """All tables, by file name without suffix."""

    tables: Mapping[str, Table]

    def rows(self, table: str, **versions: str) -> tuple[Row, ...]:
        """Rows of a table whose ``when`` holds for these versions; a subject that is not given does not match."""
        given = versions.keys()  # hot path: most rows are about something else
        return tuple(row for row in self.tables[table].row if row.when.keys() <= given and _holds(row.when, versions))

    def first(self, table: str, **versions: str) -> Row | None:
        """First matching row, if any."""
        return next(iter(self.rows(table, **versions)), None)


def _holds(when: dict[str, str], versions: dict[str, str]) -> bool:
    return all(satisfies(versions[name], spec) for name, spec in when.items())


class Shipped(Mapping[str, Table]):
    """The shipped tables, each read when it is first asked for: no host needs them all."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._read: dict[str, Table] = {}

    def __getitem__(self, name: str) -> Table:
        """Give a table; raise KeyError where there is none of that name."""
        if name not in self._read:
            try:
                self._read[name] = shipped(name)
            except OSError as error:
                raise KeyError(name) from error
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        """Names of the tables."""
        return (name.removesuffix(".toml") for name in data.names("limits", ".toml"))

    def __len__(self) -> int:
        """Count of the tables."""
        return len(data.names("limits", ".toml"))


@cache
def load() -> Limits:
    """Give the shipped tables."""
    return Limits(tables=Shipped())


def shipped(name: str) -> Table:
    """Read a shipped table; raise OSError where there is none of that name."""
    source = f"{name}.toml"
    return _of(data.parsed(f"limits/{source}", lambda text: parse_toml(text, source)), source)


def parse(text: str, source: str) -> Table:
    """Read and validate one limits file; raise DataError naming the row."""
    return _of(parse_toml(text, source), source)


def _of(document: dict[str, object], source: str) -> Table:
    table: Table = decode(Table, document, Where(source=source))
    if table.version != 1:
        raise DataError(source, "version", expected="1", found=str(table.version))
    for index, row in enumerate(table.row):
        for kind in ("when", "need"):
            for name, spec in getattr(row, kind).items():
                _check(spec, source, f"row[{index}].{kind}.{name}")
    return table


def _check(spec: str, source: str, key: str) -> None:
    if not is_specifier(spec):
        raise DataError(source, key, expected="a version specifier", found=repr(spec))
