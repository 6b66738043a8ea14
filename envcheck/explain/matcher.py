"""The signatures, applied to one line and the lines around it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from envcheck.explain.finder import Finder
from envcheck.explain.signatures import FollowUp, Reworded, Signature, Signatures, compiled

BEFORE, AFTER = 60, 30
"""Lines around a line that a signature may ask for."""
WRAP = 4
"""A message goes on over so many lines."""
LEFT, RIGHT = 400, 1_200
"""Characters before and after a text that was found; a pattern sees no more of a line."""
CONTEXT_WIDTH = 300
"""Bytes of each line around."""
TRIES = 300
"""A row that has failed so often on look-alikes costs no more time."""

_PREFIX = re.compile(
    r"^(?:\s|#\d{1,5} \d{1,7}\.\d{1,4} |\([\w:. -]{1,60}pid=[^)]{1,80}\)|[|│┃╎╭╮╰╯─├▶\xd7>!]|\[rank\d{1,5}\]:?"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,]{0,12}Z? (?:std(?:err|out) [FP] )?"
    r"|(?:ERROR|WARNING|INFO|DEBUG) (?:\d\d-\d\d \d\d:\d\d:\d\d )?\[[\w./]{1,60}:\d{1,5}\] )*"
)
FRAME = " \t\r\n│┃"
"""What stands behind a line of a box."""

_FRENCH = re.compile("\xab (.{1,200}?) \xbb")
_MARKS = re.compile("[\xab\xbb\u201e\u201c\u201d\u300c\u300d]")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One signature that matched: where, on what, with the names it took from there."""

    signature: Signature
    line: int
    text: str
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the log, numbered from 1."""

    line: int
    text: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The lines in memory, and which of them is looked at."""

    lines: Sequence[bytes]
    index: int
    number: int = 1
    """Of the line that is looked at, in the log."""

    def after(self) -> str:
        """Give the next lines, as a message that was wrapped goes on."""
        rest = self.lines[self.index + 1 : self.index + 1 + WRAP]
        return "".join("\n" + bare(line[:CONTEXT_WIDTH].decode(errors="replace")) for line in rest)

    def around(self) -> str:
        """Give all lines that a signature may ask for."""
        lines = self.lines[max(0, self.index - BEFORE) : self.index + AFTER]
        return b"\n".join(line[:CONTEXT_WIDTH] for line in lines).decode(errors="replace")


def bare(line: str) -> str:
    """Give a line without what Docker, Kubernetes, Ray, vLLM, rich and uv put around it."""
    return _PREFIX.sub("", line).rstrip(FRAME)


def short(text: str) -> str:
    """Give a line as it is shown: no control characters, at most 500 characters."""
    text = text.strip()[:500]
    return text if text.isprintable() else "".join(char if char.isprintable() else " " for char in text).strip()


class Matcher:
    """The signatures, ready to be searched for."""

    def __init__(self, signatures: Signatures) -> None:
        """Index the rows by the texts that they look for."""
        document = signatures.document
        self.by_text: dict[str, list[Signature]] = {}
        for signature in signatures.rows:
            for text in signature.row.find:
                self.by_text.setdefault(text, []).append(signature)
        self.follow = {follow.find: follow for follow in document.follow}
        self.foreign = {text: english for english, texts in document.translations.items() for text in texts}
        self.reworded = {item.find: item for item in document.reworded}
        self.finder = Finder([*self.by_text, *self.follow, *self.foreign, *self.reworded])

    def spent(self, failed: Counter[str]) -> frozenset[str]:
        """Give the texts that lead to nothing any more: all their rows have failed too often."""
        others = {*self.follow, *self.foreign, *self.reworded}
        rows = self.by_text.items()
        return frozenset(t for t, found in rows if t not in others and all(failed[s.name] > TRIES for s in found))

    def finder_without(self, texts: frozenset[str]) -> Finder:
        """Give a finder that does not stop at these texts."""
        return Finder(text for text in self.finder.texts if text not in texts)

    def read(self, text: str, found: Sequence[str]) -> tuple[str, Sequence[str]]:
        """Give the line as an English system writes it, and the texts that are in that."""
        foreign = [item for item in found if item in self.foreign or item in self.reworded]
        if not foreign:
            return text, found
        english = self._translated(text, foreign)
        return english, self.finder.texts_in(english.encode())

    def _translated(self, text: str, foreign: Iterable[str]) -> str:
        if -1 < text.find("\xab") < text.find("\xbb"):  # in German they stand the other way round
            text = _FRENCH.sub(r"'\1'", text)
        text = _MARKS.sub("'", text).replace("\uff1a", ": ").replace(" :", ":")
        for item in sorted(foreign, key=len, reverse=True):
            if item in self.foreign:
                text = re.sub(re.escape(item), self.foreign[item], text, flags=re.IGNORECASE)
            else:
                text = _reworded(self.reworded[item]).sub(self.reworded[item].english, text)
        return text

    def rows(self, found: Iterable[str]) -> Iterator[tuple[str, Signature]]:
        """Give the rows that look for one of the texts, each with the first text of it that was found."""
        seen: set[Signature] = set()
        for item in found:
            for signature in self.by_text.get(item, ()):
                if signature not in seen:
                    seen.add(signature)
                    yield item, signature

    def followed(self, text: str, found: Iterable[str]) -> FollowUp | None:
        """Give the follow-up that a line is, if it is one."""
        items = (self.follow[item] for item in found if item in self.follow)
        return next((item for item in items if _fits(item.pattern, text)), None)


def best(matcher: Matcher, text: str, found: Sequence[str], place: Surroundings, failed: Counter[str]) -> Hit | None:
    """Give the signature that fits a line and is nearest to a cause; count in ``failed`` what did not fit."""
    chosen: Hit | None = None
    for item, signature in matcher.rows(found):
        if failed[signature.name] > TRIES or (chosen and signature.rank <= chosen.signature.rank):
            continue
        values = values_of(signature, text, item, place)
        if values is None or not _around_fits(signature, place):
            failed[signature.name] += 1
        else:
            chosen = Hit(signature=signature, line=place.number, text=short(text), values=values)
    return chosen


def values_of(signature: Signature, text: str, item: str, place: Surroundings) -> dict[str, str] | None:
    """Give the names that a row's pattern takes from the line; None where it does not match."""
    if signature.pattern is None:
        return {}
    at = text.lower().find(item.lower())
    line = text[max(0, at - LEFT) : at + RIGHT].rstrip(FRAME)
    match = signature.pattern.search(line + place.after())
    return None if match is None or match.start() > len(line) else _named(match)


def _named(match: re.Match[str]) -> dict[str, str]:
    """Give the named groups that matched; ``found2`` is another place for ``found``."""
    values: dict[str, str] = {}
    for name, value in match.groupdict().items():
        if value and value.strip():
            values.setdefault(name.rstrip("23456789"), " ".join(value.split()))
    return values


def _around_fits(signature: Signature, place: Surroundings) -> bool:
    """Tell whether the surroundings are as the signature asks."""
    if not signature.near and not signature.absent:
        return True
    around = place.around()
    if signature.near and not signature.near.search(around):
        return False
    return not (signature.absent and signature.absent.search(around))


@cache
def _reworded(item: Reworded) -> re.Pattern[str]:
    return re.compile(item.pattern, re.IGNORECASE)


@cache
def _pattern(pattern: str | None) -> re.Pattern[str] | None:
    return compiled(pattern)


def _fits(pattern: str | None, text: str) -> bool:
    wanted = _pattern(pattern)
    return wanted is None or bool(wanted.search(text[: LEFT + RIGHT]))


@cache
def matcher_of(signatures: Signatures) -> Matcher:
    """Build the matcher once."""
    return Matcher(signatures)
