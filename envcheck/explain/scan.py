"""Go through a log once, in constant memory, and keep what signatures matched and which lines tell most."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from envcheck.explain.finder import Finder
from envcheck.explain.matcher import AFTER, BEFORE, Hit, Line, Matcher, Surroundings, best, matcher_of, short
from envcheck.explain.reader import Log, Reader
from envcheck.explain.signatures import Signatures
from envcheck.explain.telling import Telling, alike, ends

WIDTH = 4_000
"""Bytes of a line that are looked at in one go."""
PER_ROW = 8
"""Matches that are kept of one row."""
ALIKE = 20
"""Lines that differ in numbers only are judged so often."""
MANY = 20_000
LONG_PIECES = 10
FOLLOW = 50
WASTED = 5_000
"""After so many lines that look like something and are nothing, texts that led to nothing are not searched any more."""


@dataclass(kw_only=True)
class Scan:
    """What was met so far."""

    hits: list[Hit] = field(default_factory=list)
    follow: list[Line] = field(default_factory=list)
    telling: list[Line] = field(default_factory=list)
    lines: int = 0
    size: int = 0
    kind: str = ""
    interrupted: bool = False


def scan(log: Log, signatures: Signatures) -> Scan:
    """Read the log to its end, or until the user has enough."""
    reader = Reader(stream=log)
    window = _Window(matcher=matcher_of(signatures))
    try:
        for lines in reader:
            window.feed(lines)
    except KeyboardInterrupt:
        window.scan.interrupted = True
        window.feed(reader.unfinished())
    found = window.finish()
    found.size, found.kind = reader.size, reader.kind
    return found


@dataclass(kw_only=True)
class _Window:
    """The lines that are in memory: those that wait for the lines after them, and those before."""

    matcher: Matcher
    scan: Scan = field(default_factory=Scan)
    lines: list[bytes] = field(default_factory=list)
    number: int = 1
    """Of lines[0]."""
    waiting: deque[int] = field(default_factory=deque)
    """Lines that may hold a text, as indices."""
    telling: Telling = field(default_factory=Telling)
    judged: Counter[bytes] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    wasted: int = 0
    spent: frozenset[str] = frozenset()
    finder: Finder = field(init=False)

    def __post_init__(self) -> None:
        """Begin with all texts."""
        self.finder = self.matcher.finder

    def feed(self, lines: Sequence[bytes]) -> None:
        """Take new lines; judge the candidates whose surroundings are complete."""
        self.telling.take(lines, self.number + ends(self.lines))
        self._forget()
        offset = len(self.lines)
        self.waiting += [offset + index for index in self.finder.candidates(lines)]
        self.lines += lines
        self._judge(len(self.lines) - AFTER)

    def _forget(self) -> None:
        """Where most candidates are nothing, leave out the texts that no row asks for any more."""
        if self.wasted < WASTED:
            return
        self.wasted = 0
        if (spent := self.matcher.spent(self.failed)) != self.spent:
            self.spent, self.finder = spent, self.matcher.finder_without(spent)

    def finish(self) -> Scan:
        """Judge the rest and give what was met."""
        self._judge(len(self.lines))
        self.scan.lines = self.number - 1 + ends(self.lines)
        self.scan.telling = self.telling.lines()
        return self.scan

    def _judge(self, end: int) -> None:
        """Judge the candidates before ``end`` and forget the lines that no later one can ask for."""
        number, at = self.number, 0
        while self.waiting and self.waiting[0] < end:
            index = self.waiting.popleft()
            number, at = number + ends(self.lines[at:index]), index
            self._candidate(Surroundings(lines=self.lines, index=index, number=number))
        drop = max(0, end - BEFORE)
        self.number += ends(self.lines[:drop])
        self.lines = self.lines[drop:]
        self.waiting = deque(index - drop for index in self.waiting)

    def _candidate(self, place: Surroundings) -> None:
        line = place.lines[place.index].rstrip(b"\r")
        if len(self.judged) > MANY:
            self.judged.clear()
        key = alike(line)
        self.judged[key] += 1
        if self.judged[key] > ALIKE:
            return
        if not self._met(line, place):
            self.wasted += 1
        elif len(self.telling.explained) < MANY:
            self.telling.explained.add(key)

    def _met(self, line: bytes, place: Surroundings) -> bool:
        """Match every part of a line; tell whether anything was met."""
        met = False
        for piece in self._pieces(line):
            if texts := self.finder.texts_in(piece):
                met |= self._match(*self.matcher.read(piece.decode(errors="replace"), texts), place)
        return met

    def _pieces(self, line: bytes) -> Iterator[bytes]:
        """Give the line, or of a very long one the parts where a text may be."""
        if len(line) <= WIDTH:
            yield line
            return
        end = count = 0
        for start in self.finder.starts(line):
            if start >= end and count < LONG_PIECES:
                begin, end, count = max(0, start - WIDTH // 2), start + WIDTH // 2 - 200, count + 1
                yield line[begin : begin + WIDTH]

    def _match(self, text: str, found: Sequence[str], place: Surroundings) -> bool:
        hit = best(self.matcher, text, found, place, self.failed)
        if hit:
            name = hit.signature.name
            self.kept[name] += 1
            if self.kept[name] <= PER_ROW:
                self.scan.hits.append(hit)
            return True
        follow = self.matcher.followed(text, found)
        if follow and not follow.harmless and len(self.scan.follow) < FOLLOW:
            self.scan.follow.append(Line(line=place.number, text=short(text), why=follow.why))
        return follow is not None
