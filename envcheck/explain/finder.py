"""Find a few hundred texts in a flood of bytes: which lines are worth a second look.

Lines that differ only in digits and case are looked at once: most of a build log is the same line again. What is left
is searched by one expression, a tree of the texts. A text is searched from its rarest byte on, because the time goes
into the places where the expression starts to match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

RAREST_FIRST = "zqjx@#~^&*$%!?;<>{}[]()|+'`\"=kwbyv:gm,hfpudlcns ro-a/i_t.e0"
TAIL = 8
"""A text is cut no shorter than this; one that is shorter stays whole."""
SEEN = 20_000
"""So many lines without any text are remembered; then the memory starts anew."""

_UPPER = bytes(range(ord("A"), ord("Z") + 1))
_FOLD = bytes.maketrans(_UPPER + b"123456789", _UPPER.lower() + b"0" * 9)
_RANK = {ord(byte): rank for rank, byte in enumerate(RAREST_FIRST)}


def fold(text: bytes) -> bytes:
    """Make letters small and digits 0."""
    return text.translate(_FOLD)


def cut(text: bytes) -> bytes:
    """Give the end of the text that begins with its rarest byte."""
    starts = range(max(1, len(text) - TAIL + 1))
    return text[min(starts, key=lambda at: _RANK.get(text[at], -1)) :]


def tree(texts: Iterable[bytes]) -> bytes:
    """Write an expression that matches any of the texts, common beginnings once."""
    root: dict[int, dict] = {}  # type: ignore[type-arg]  # a tree of itself
    for text in texts:
        node = root
        for byte in text:
            node = node.setdefault(byte, {})
        node[-1] = {}
    return _written(root)


def _written(node: dict[int, dict]) -> bytes:  # type: ignore[type-arg]
    if -1 in node:  # a text ends here: what follows does not matter
        return b""
    branches = [re.escape(bytes([byte])) + _written(node[byte]) for byte in sorted(node)]
    return branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")"


class Finder:
    """Finds lines that may hold one of the texts; the texts are searched without regard to case and digits."""

    def __init__(self, texts: Iterable[str]) -> None:
        """Build the expression."""
        self.texts = {text: text.encode().lower() for text in texts}
        cuts: dict[bytes, list[str]] = {}
        for text, lower in self.texts.items():
            cuts.setdefault(cut(fold(lower)), []).append(text)
        self._search = re.compile(tree(cuts))
        self._at: dict[bytes, list[str]] = {}
        for end, those in cuts.items():  # the expression stops at the shortest text that fits
            self._at.setdefault(self._search.match(end)[0], []).extend(those)  # type: ignore[index]  # it matches itself
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
            at = text.find(b"\n", match.end())
            at = len(text) if at < 0 else at
            found.add(text[text.rfind(b"\n", 0, match.start()) + 1 : at])
        if len(self._seen) + len(lines) > SEEN:
            self._seen.clear()
        self._seen |= lines - found
        return found

    def starts(self, line: bytes) -> Iterator[int]:
        """Give the places in a line where a text may be."""
        return (match.start() for match in self._search.finditer(fold(line)))

    def texts_in(self, line: bytes) -> list[str]:
        """Give the texts that are in a line."""
        folded, lowered = fold(line), line.lower()
        found: dict[str, None] = {}
        match = self._search.search(folded)
        while match:
            found.update((text, None) for text in self._at[match[0]] if self.texts[text] in lowered)
            match = self._search.search(folded, match.start() + 1)
        return list(found)
