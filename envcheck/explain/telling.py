"""The lines that tell most of a log that is not known: what looks like an error, each wording once."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from envcheck.explain.finder import fold
from envcheck.explain.matcher import CONTEXT_WIDTH, Line, bare, short

MANY = 300
"""So many wordings are kept from the beginning of a log; then only its end is looked at."""
CHECKED = 20_000
"""So many wordings are looked at, from the beginning of a log, for those."""
TAIL = 2_000
"""Lines that are its end."""
SHOWN = 5
"""Lines that are shown of the beginning, and of the end."""

_WORDS = (b"Error", b"error", b"ERROR", b"CRITICAL", b"xception", b"fatal", b"FATAL", b"ailed", b"FAILED", b"Killed",
          b"bort", b"anic", b"egmentation", b"ot found", b"annot ")  # fmt: skip
_TELLING = re.compile(
    r"^\w[\w.]{2,80}(?:Error|Exception|Exit|Interrupt)\b:?|\berror\s?(?:\[|:|#)|\bfatal\b|\bpanic\b|"
    r"(?-i:\bERROR\b|\bCRITICAL\b)|\bfailed\b|\babort(?:ed|ing)\b|Segmentation fault|\bKilled\b|not found|"
    r"\bcannot\b|terminate called",
    re.IGNORECASE,
)
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt)\b(?::|$)")


def alike(line: bytes) -> bytes:
    """Give what a line has in common with those that differ in numbers and case only."""
    return fold(line[:CONTEXT_WIDTH])


@dataclass(kw_only=True)
class Telling:
    """What looks like an error, from the beginning and the end of a log."""

    explained: set[bytes] = field(default_factory=set)
    """Wordings that a signature matched."""
    _first: dict[bytes, Line] = field(default_factory=dict)
    _checked: set[bytes] = field(default_factory=set)
    _tail: deque[tuple[Sequence[bytes], int]] = field(default_factory=lambda: deque(maxlen=2))

    def take(self, lines: Sequence[bytes], number: int) -> None:
        """Take the next lines; ``number`` is that of the first."""
        end = max(0, len(lines) - TAIL)
        self._tail.append((lines[end:], number + ends(lines[:end])))
        if len(self._first) < MANY and len(self._checked) < CHECKED:
            for key, line in _telling(lines, number, self._checked):
                self._first[key] = line
                if len(self._first) >= MANY:
                    break

    def lines(self) -> list[Line]:
        """Give the most telling lines that nothing explains: raised exceptions before others, in the log's order."""
        last = dict(item for lines, number in self._tail for item in _telling(lines, number, set()))
        found = [line for key, line in (self._first | last).items() if key not in self.explained]
        raised = [line for line in found if line.why]
        rest = [line for line in found if not line.why]
        chosen = [*_ends(raised), *_ends(rest)][: 2 * SHOWN]
        return sorted((Line(line=line.line, text=line.text) for line in chosen), key=lambda line: line.line)


def ends(lines: Sequence[bytes]) -> int:
    """Count the pieces that end a line."""
    return len(lines) - [line[-1:] for line in lines].count(b"\r")


def _ends(lines: list[Line]) -> list[Line]:
    return lines if len(lines) <= 2 * SHOWN else [*lines[:SHOWN], *lines[-SHOWN:]]


def _telling(lines: Sequence[bytes], number: int, checked: set[bytes]) -> Iterator[tuple[bytes, Line]]:
    """Give the lines that look like an error, of those whose wording was not checked before."""
    whole = b"\n".join(lines)
    words = [word for word in _WORDS if word in whole]
    for line in lines if words else ():
        if any(word in line for word in words) and (key := alike(line)) not in checked:
            checked.add(key)
            text = bare(line[:CONTEXT_WIDTH].decode(errors="replace"))
            if _TELLING.search(text):
                why = "raised" if _RAISED.search(text) else ""
                yield key, Line(line=number, text=short(line[:2000].decode(errors="replace")), why=why)
        number += not line.endswith(b"\r")
