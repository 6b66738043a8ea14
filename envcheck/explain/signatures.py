"""The shipped error texts, one row per wording: what it looks like in a log, which rule it belongs to, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

from envcheck import data
from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.model import Fix
from envcheck.stack import parse_toml

FILE = "signatures.toml"
DEFAULT_RANK = 60
"""90: the tool itself names the cause · 60: the usual sign of it · 40: often not fatal · 20: could be many things."""

_SPACE = re.compile(r" (\?)?")
_PLACE = re.compile(r"\{([a-z_]+)(?:\|([^{}]*))?\}")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One wording. Any text of ``find`` must be in the line; then ``pattern`` must match from this line on."""

    find: tuple[str, ...]
    pattern: str | None = None
    near: str | None = None
    """Must match in the surrounding lines."""
    absent: str | None = None
    """Must not match in the surrounding lines."""
    rank: int | None = None
    harmless: bool | None = None
    summary: str | None = None
    fix: tuple[Fix, ...] | None = None
    also: tuple[str, ...] = ()
    """Other rules with the same wording; facts decide between them."""
    examples: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RuleTexts:
    """All wordings of one rule; summary, fix, rank and harmless stand for every row that has none of its own."""

    summary: str
    fix: tuple[Fix, ...]
    rank: int = DEFAULT_RANK
    harmless: bool = False
    also: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    row: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """What other programs say after something else has failed: never a cause."""

    find: str
    why: str
    pattern: str | None = None
    harmless: bool = False
    """It does not even say that something failed."""


@dataclass(frozen=True, kw_only=True)
class Reworded:
    """A foreign message whose words stand in another order; ``english`` takes the groups of ``pattern``."""

    find: str
    pattern: str
    english: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """The file ``signatures.toml``."""

    version: int
    rules: dict[str, RuleTexts]
    follow: tuple[FollowUp, ...] = ()
    translations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """English message -> the same in other languages."""
    reworded: tuple[Reworded, ...] = ()
    packages: dict[str, str] = field(default_factory=dict)
    """Regular expression on a file or module name -> the package that it belongs to."""


@dataclass(frozen=True, eq=False)
class Signature:
    """One row with what it takes over from its rule, patterns compiled when first used."""

    rule: str
    index: int
    row: Row
    texts: RuleTexts

    @property
    def name(self) -> str:
        """Name the row for tests and error messages."""
        return f"{self.rule}[{self.index}]"

    @property
    def rank(self) -> int:
        """Say how near to a root cause this wording is, 0 to 100."""
        return self.texts.rank if self.row.rank is None else self.row.rank

    @property
    def harmless(self) -> bool:
        """Tell whether nothing has to be done."""
        return self.texts.harmless if self.row.harmless is None else self.row.harmless

    @property
    def also(self) -> tuple[str, ...]:
        """Give the other rules that use this wording."""
        return self.row.also or self.texts.also

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """Compile the pattern of the line."""
        return compiled(self.row.pattern)

    @cached_property
    def near(self) -> re.Pattern[str] | None:
        """Compile the pattern of the surroundings."""
        return compiled(self.row.near)

    @cached_property
    def absent(self) -> re.Pattern[str] | None:
        """Compile the pattern that the surroundings must not have."""
        return compiled(self.row.absent)

    def summary(self, values: Mapping[str, str]) -> str:
        """Say what is wrong, with the names that were in the text."""
        return fill(self.row.summary or self.texts.summary, values)

    def fixes(self, values: Mapping[str, str]) -> tuple[Fix, ...]:
        """Say what to do, with the names that were in the text."""
        fixes = self.row.fix if self.row.fix is not None else self.texts.fix
        return tuple(
            Fix(text=fill(fix.text, values), commands=tuple(fill(command, values) for command in fix.commands))
            for fix in fixes
        )


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    """Compile one pattern of the file: no case; a space stands for any white space, ``" ?"`` for some or none."""
    return None if pattern is None else re.compile(_SPACE.sub(_white, pattern), re.IGNORECASE)


def _white(space: re.Match[str]) -> str:
    return r"\s{0,40}" if space[1] else r"\s{1,40}"


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values into ``{name}``, ``{name|what to say without one}`` and ``{name|}`` (in brackets, or nothing)."""
    return _PLACE.sub(lambda place: _filled(values.get(place[1], ""), place[2]), text)


def _filled(value: str, default: str | None) -> str:
    if default == "":
        return f" ({value})" if value else ""
    return value or default or "…"


@dataclass(frozen=True, eq=False)
class Signatures:
    """The document, with its rows in file order."""

    document: Document

    @cached_property
    def rows(self) -> tuple[Signature, ...]:
        """List every row of every rule."""
        rules = self.document.rules.items()
        return tuple(Signature(rule, at, row, texts) for rule, texts in rules for at, row in enumerate(texts.row))

    @cached_property
    def packages(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        """Compile the names that tell a package."""
        return tuple((re.compile(pattern), name) for pattern, name in self.document.packages.items())

    def package_of(self, *names: str) -> str | None:
        """Tell which package a file or module belongs to: ``flash_attn_2_cuda.cpython-310….so`` is flash-attn."""
        return next((package for pattern, package in self.packages for name in names if pattern.search(name)), None)


@cache
def load() -> Signatures:
    """Load the shipped file."""
    return parse(data.read(FILE), FILE)


def parse(text: str, source: str) -> Signatures:
    """Read a signatures file; raise DataError naming the key. Patterns are checked by ``check``: that takes time."""
    document: Document = decode(Document, parse_toml(text, source), Where(source=source))
    if document.version != 1:
        raise DataError(source, "version", expected="1", found=str(document.version))
    return Signatures(document)


def check(signatures: Signatures, source: str) -> None:
    """Compile every pattern; raise DataError naming the row."""
    for signature in signatures.rows:
        _check(signature, source)


def _check(signature: Signature, source: str) -> None:
    where = f"rules.{signature.rule}.row[{signature.index}]"
    if not signature.row.find or not signature.row.examples:
        raise DataError(source, where, expected="a text to find and an example", found="none")
    for name in ("pattern", "near", "absent"):
        try:
            getattr(signature, name)
        except re.error as error:
            raise DataError(source, f"{where}.{name}", expected="a regular expression", found=str(error)) from error
