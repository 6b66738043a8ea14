"""Go through a log once, in constant memory, and keep what signatures matched and which lines tell most."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache

from envcheck.explain.finder import Finder, fold
from envcheck.explain.reader import Log, Reader
from envcheck.explain.signatures import FollowUp, Reworded, Signature, Signatures, compiled

BEFORE, AFTER = 60, 30
"""Lines around a line that a signature may ask for."""
WRAP = 4
"""A message goes on over so many lines."""
WIDTH = 4_000
"""Bytes of a line that are looked at in one go."""
CONTEXT_WIDTH = 300
PER_ROW = 8
"""Matches that are kept of one row; the rest is counted."""
TRIES = 500
"""A row that has failed so often on look-alikes costs no more time."""
ALIKE = 20
"""Lines that differ in numbers only are judged so often."""
MANY = 20_000
LONG_PIECES = 200
TELLING = 6
"""Lines of an unknown log that are kept from its beginning, and from its end."""

_PREFIX = re.compile(
    r"^(?:\s|#\d{1,5} \d{1,7}\.\d{1,4} |\([\w:. -]{1,60}pid=[^)]{1,80}\)|[|│┃╎╭╮╰╯─├▶×>!]|\[rank\d{1,5}\]:?)*"
)
_TELLING = re.compile(
    r"^\w[\w.]{2,80}(?:Error|Exception|Exit|Interrupt)\b:?|\berror\s?(?:\[|:|#)|\bfatal\b|\bE\d{4} |Traceback|panic|"
    r"\bFAILED\b|\bfailed\b|\babort(?:ed|ing)\b|Segmentation fault|\bKilled\b|not found|\bcannot\b|terminate called",
    re.IGNORECASE,
)
_TELLING_TEXTS = ("error:", "error -", "exception:", "fatal", "traceback (most", "segmentation fault", "failed", "panic:",
                  "error[", "aborted", "terminate called", "exception in ", " error ")  # fmt: skip
_MARKS = re.compile("\xab ?| ?\xbb|[\u201e\u201c\u201d\u300c\u300d]")
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)\b(?::|$)")


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


@dataclass(kw_only=True)
class Scan:
    """What was met so far."""

    hits: list[Hit] = field(default_factory=list)
    follow: list[Line] = field(default_factory=list)
    first: list[Line] = field(default_factory=list)
    last: list[Line] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lines: int = 0
    size: int = 0
    kind: str = ""
    interrupted: bool = False


class Matcher:
    """The signatures, ready to be searched for."""

    def __init__(self, signatures: Signatures) -> None:
        """Index the rows by the texts that they look for."""
        self.signatures = signatures
        self.by_text: dict[str, list[Signature]] = {}
        for signature in signatures.rows:
            for text in signature.row.find:
                self.by_text.setdefault(text, []).append(signature)
        self.follow = {follow.find: follow for follow in signatures.document.follow}
        self.foreign = {
            text: english for english, texts in signatures.document.translations.items() for text in texts
        }
        self.reworded = {item.find: item for item in signatures.document.reworded}
        self.finder = Finder([*self.by_text, *self.follow, *self.foreign, *self.reworded, *_TELLING_TEXTS])

    def read(self, text: str, found: Sequence[str]) -> tuple[str, Sequence[str]]:
        """Give the line as an English system writes it, and the texts that are in that."""
        foreign = [item for item in found if item in self.foreign or item in self.reworded]
        if not foreign:
            return text, found
        english = self.translated(text, foreign)
        return english, self.finder.texts_in(english.encode())

    def translated(self, text: str, foreign: Iterable[str]) -> str:
        """Put the English message in the place of the foreign one."""
        text = _MARKS.sub("'", text).replace("\uff1a", ": ").replace(" :", ":")
        for item in sorted(foreign, key=len, reverse=True):
            if item in self.foreign:
                text = re.sub(re.escape(item), self.foreign[item], text, flags=re.IGNORECASE)
            else:
                text = _reworded(self.reworded[item]).sub(self.reworded[item].english, text)
        return text


@cache
def _reworded(item: Reworded) -> re.Pattern[str]:
    return re.compile(item.pattern, re.IGNORECASE)


@cache
def matcher(signatures: Signatures) -> Matcher:
    """Build the matcher once."""
    return Matcher(signatures)


def scan(log: Log, signatures: Signatures) -> Scan:
    """Read the log to its end, or until the user has enough."""
    reader = Reader(stream=log)
    state = _Window(matcher(signatures))
    try:
        for lines in reader:
            state.feed(lines)
    except KeyboardInterrupt:
        state.scan.interrupted = True
        state.feed(reader.unfinished())
    state.finish()
    state.scan.size, state.scan.kind = reader.size, reader.kind
    return state.scan


class _Window:
    """The lines that are in memory: those that wait for the lines after them, and those before."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.scan = Scan()
        self.lines: list[bytes] = []
        self.number = 1  # of lines[0]
        self.waiting: deque[int] = deque()  # candidates, as indices of lines
        self.alike: Counter[bytes] = Counter()
        self.seen: set[str] = set()

    def feed(self, lines: Sequence[bytes]) -> None:
        """Take new lines; judge the candidates whose surroundings are complete."""
        offset = len(self.lines)
        self.waiting += [offset + index for index in self.matcher.finder.candidates(lines)]
        self.lines += lines
        self._judge(len(self.lines) - AFTER)

    def finish(self) -> None:
        """Judge the rest."""
        self._judge(len(self.lines))
        self.scan.lines = self.number - 1 + sum(not line.endswith(b"\r") for line in self.lines)

    def _judge(self, end: int) -> None:
        """Judge the candidates before ``end`` and forget lines that no later one can ask for."""
        number, at = self.number, 0
        while self.waiting and self.waiting[0] < end:
            index = self.waiting.popleft()
            number += sum(not line.endswith(b"\r") for line in self.lines[at:index])
            at = index
            self._candidate(index, number)
        drop = max(0, end - BEFORE)
        if drop > 0:
            self.number += sum(not line.endswith(b"\r") for line in self.lines[:drop])
            self.lines = self.lines[drop:]
            self.waiting = deque(index - drop for index in self.waiting)

    def _candidate(self, index: int, number: int) -> None:
        line = self.lines[index].rstrip(b"\r")
        if self._again(line):
            return
        for piece in self._pieces(line):
            found = self.matcher.finder.texts_in(piece)
            if not found:
                continue
            text, found = self.matcher.read(piece.decode(errors="replace"), found)
            self._match(index, number, text, found)

    def _again(self, line: bytes) -> bool:
        """Tell whether the same line, but for its numbers, has been judged often enough."""
        if len(self.alike) > MANY:
            self.alike.clear()
        key = fold(line[:CONTEXT_WIDTH])
        self.alike[key] += 1
        return self.alike[key] > ALIKE

    def _pieces(self, line: bytes) -> list[bytes]:
        """Give the line, or of a very long one the parts where a text may be."""
        if len(line) <= WIDTH:
            return [line]
        pieces, end = [], 0
        for start in self.matcher.finder.starts(line):
            if start >= end and len(pieces) < LONG_PIECES:
                begin = max(0, start - WIDTH // 2)
                end = begin + WIDTH - 200
                pieces.append(line[begin : begin + WIDTH])
        return pieces

    def _match(self, index: int, number: int, text: str, found: Sequence[str]) -> None:
        best: Hit | None = None
        for signature in dict.fromkeys(row for item in found for row in self.matcher.by_text.get(item, ())):
            hit = self._try(signature, index, number, text)
            if hit and (best is None or signature.rank > best.signature.rank):
                best = hit
        if best:
            self._keep(best)
            return
        for follow in (self.matcher.follow[item] for item in found if item in self.matcher.follow):
            if _follows(follow, text):
                if len(self.scan.follow) < PER_ROW * TELLING:
                    self.scan.follow.append(Line(line=number, text=short(text), why=follow.why))
                self.scan.counts["follow"] += 1
                return
        self._tell(number, text)

    def _keep(self, hit: Hit) -> None:
        name = hit.signature.name
        self.scan.counts[name] += 1
        if self.scan.counts[name] <= PER_ROW:
            self.scan.hits.append(hit)

    def _try(self, signature: Signature, index: int, number: int, text: str) -> Hit | None:
        tries = f"{signature.name} tried"
        if self.scan.counts[tries] > TRIES:
            return None
        values: dict[str, str] = {}
        if signature.pattern:
            match = signature.pattern.search(self._joined(index, text))
            if not match or match.start() > len(text):
                self.scan.counts[tries] += 1
                return None
            values = _named(match)
        if not self._fits(signature, index):
            self.scan.counts[tries] += 1
            return None
        return Hit(signature=signature, line=number, text=short(text), values=values)

    def _fits(self, signature: Signature, index: int) -> bool:
        """Tell whether the surroundings are as the signature asks."""
        if not signature.near and not signature.absent:
            return True
        around = self._around(index)
        if signature.near and not signature.near.search(around):
            return False
        return not (signature.absent and signature.absent.search(around))

    def _joined(self, index: int, text: str) -> str:
        """Join a line with the next ones, as a message that was wrapped reads."""
        rest = (line[:CONTEXT_WIDTH].decode(errors="replace") for line in self.lines[index + 1 : index + 1 + WRAP])
        return "\n".join([text[:WIDTH], *(_PREFIX.sub("", line).rstrip() for line in rest)])

    def _around(self, index: int) -> str:
        lines = self.lines[max(0, index - BEFORE) : index + AFTER]
        return b"\n".join(line[:CONTEXT_WIDTH] for line in lines).decode(errors="replace")

    def _tell(self, number: int, text: str) -> None:
        """Keep a line that looks like an error and that nothing else explains."""
        bare = _PREFIX.sub("", text[:WIDTH])
        if not _TELLING.search(bare[:CONTEXT_WIDTH]) or len(self.seen) > TRIES * 40:
            return
        alike = re.sub(r"\d+|0x[0-9a-f]+", "0", bare[:CONTEXT_WIDTH])
        if alike in self.seen:
            return
        self.seen.add(alike)
        line = Line(line=number, text=short(text), why="raised" if _RAISED.search(bare) else "")
        self.scan.counts["telling"] += 1
        if len(self.scan.first) < TELLING:
            self.scan.first.append(line)
        else:
            self.scan.last = [*self.scan.last, line][-TELLING:]


def _named(match: re.Match[str]) -> dict[str, str]:
    """Give the named groups that matched; ``found2`` is another place for ``found``."""
    values: dict[str, str] = {}
    for name, value in match.groupdict().items():
        if value and value.strip():
            values.setdefault(name.rstrip("23456789"), " ".join(value.split()))
    return values


def _follows(follow: FollowUp, text: str) -> bool:
    pattern = _pattern(follow.pattern)
    return pattern is None or bool(pattern.search(text[:WIDTH]))


@cache
def _pattern(pattern: str | None) -> re.Pattern[str] | None:
    return compiled(pattern)


def short(text: str) -> str:
    """Give a line as it is shown: no control characters, at most 500 characters."""
    shown = "".join(char if char.isprintable() else " " for char in text.strip()[:500])
    return shown.strip()
