"""Find a few hundred texts in a flood of bytes: which lines are worth a second look.

Lines that differ only in digits and case are looked at once: most of a build log is the same line again. What is left
is searched by one expression, a tree of the texts. The expression starts at the rarest byte of each text and looks back
for what stands before it, because the time goes into the places where it starts to match. The few texts without a rare
byte are searched one by one, which is cheap as long as they are few.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

RARE = "zqjx@#~^&*$%!?;<>{}[]()|+'`\"=kwby:vgf,mp"
"""Bytes that start a search, the rarest first; those outside ASCII come before them."""
SEEN = 20_000
"""So many lines without any text are remembered; then the memory starts anew."""
KEY = 4
"""Bytes, from the rarest on, by which texts are looked up."""

_UPPER = bytes(range(ord("A"), ord("Z") + 1))
_FOLD = bytes.maketrans(_UPPER + b"123456789", _UPPER.lower() + b"0" * 9)
_RANK = {ord(byte): rank for rank, byte in enumerate(RARE)} | dict.fromkeys(range(128, 256), -1)
_COMMON = len(RARE)


def fold(text: bytes) -> bytes:
    """Make letters small and digits 0."""
    return text.translate(_FOLD)


def rarest(text: bytes) -> int | None:
    """Give the place of the rarest byte; None where all are common."""
    place = min(range(len(text)), key=lambda at: _RANK.get(text[at], _COMMON))
    return place if text[place] in _RANK else None


def tree(texts: Iterable[bytes]) -> bytes:
    """Write an expression that matches the texts from their rarest bytes on; common beginnings stand there once."""
    root: dict[int, Any] = {}
    for text in texts:
        node = root
        for byte in text[rarest(text) :]:
            node = node.setdefault(byte, {})
        node.setdefault(-1, []).append(text)
    return _written(root)


def _written(node: dict[int, Any]) -> bytes:
    whole = [b"(?<=" + re.escape(text) + b")" for text in node.get(-1, ())]
    longer = [re.escape(bytes([byte])) + _written(node[byte]) for byte in sorted(node) if byte >= 0]
    branches = [*whole, *longer]
    return branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")"


class Finder:
    """Finds lines that hold one of the texts; the texts are searched without regard to case and digits."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Build the expression."""
        lowered = {text: text.encode().lower() for text in texts}
        folded = {fold(lower) for lower in lowered.values()}
        self._plain = sorted(text for text in folded if rarest(text) is None)
        searched = sorted(folded - set(self._plain))
        self._search = re.compile(tree(searched) if searched else b"(?!)")
        self.texts = {text: number for number, text in enumerate(lowered)}
        self._common: list[tuple[str, bytes]] = []
        self._from_rarest: dict[bytes, list[tuple[str, bytes, int]]] = {}
        for text, lower in lowered.items():
            place = rarest(fold(lower))
            if place is None:
                self._common.append((text, lower))
            else:
                key = fold(lower)[place : place + KEY]
                self._from_rarest.setdefault(key, []).append((text, lower, place))
        self._seen: set[bytes] = set()

    def candidates(self, lines: Sequence[bytes]) -> list[int]:
        """Give the indices of the lines that may hold a text."""
        folded = fold(b"\n".join(lines)).split(b"\n")
        found = self._matching(set(folded) - self._seen)
        return [index for index, line in enumerate(folded) if line in found] if found else []

    def _matching(self, lines: set[bytes]) -> set[bytes]:
        """Pick the lines that match; remember those that do not."""
        text, found, at = b"\n".join(lines), set(), 0
        while match := self._search.search(text, at):
            line, at = _line_at(text, match.start())
            found.add(line)
        for plain in self._plain:
            at = 0
            while (place := text.find(plain, at)) >= 0:
                line, at = _line_at(text, place)
                found.add(line)
        if len(self._seen) + len(lines) > SEEN:
            self._seen.clear()
        self._seen |= lines - found
        return found

    def starts(self, line: bytes) -> list[int]:
        """Give the places in a line where a text may be, in order."""
        folded = fold(line)
        places = [match.start() for match in self._search.finditer(folded)]
        places += [match.start() for plain in self._plain for match in re.finditer(re.escape(plain), folded)]
        return sorted(places)

    def texts_in(self, line: bytes) -> list[str]:
        """Give the texts that are in a line, in the order in which they were given to the finder."""
        lowered, folded = line.lower(), fold(line)
        found = {text for text, lower in self._common if lower in lowered}
        at = -1
        while match := self._search.search(folded, at + 1):
            at = match.start()
            found.update(self._texts_at(lowered, folded, at))
        return sorted(found, key=self.texts.__getitem__)

    def _texts_at(self, lowered: bytes, folded: bytes, at: int) -> Iterator[str]:
        """Give the texts whose rarest byte stands at a place."""
        for length in range(1, KEY + 1):
            for text, lower, place in self._from_rarest.get(folded[at : at + length], ()):
                if at >= place and lowered.startswith(lower, at - place):
                    yield text


def _line_at(text: bytes, place: int) -> tuple[bytes, int]:
    """Give the line of a place, and where it ends."""
    end = text.find(b"\n", place)
    end = len(text) if end < 0 else end
    return text[text.rfind(b"\n", 0, place) + 1 : end], end
