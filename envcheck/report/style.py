"""How text looks: colour, symbols and width that fit the place where it is shown, and text that cannot harm it."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from typing import TextIO

from envcheck.record import dataclass

DEFAULT_WIDTH = 100
NARROWEST = 40
WIDEST = 120
CODES = {"red": "31", "green": "32", "yellow": "33", "magenta": "35", "cyan": "36", "bold": "1", "dim": "2"}
ASCII_SYMBOLS = {"✗": "x", "!": "!", "?": "?", "✓": "+", "·": "-", "→": "->", "…": "..."}
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What is no text: C0 and C1 controls but tab and line feed, direction overrides, lone surrogates."""


def safe(text: str) -> str:
    r"""Show what would steer a terminal or break a document as its escape: ``\x1b[31m`` is read, not obeyed."""
    return _CONTROL.sub(_escaped, text.replace("\r\n", "\n"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 1 << 8 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """Give safe text without line ends."""
    return " ".join(safe(text).split())


@dataclass(frozen=True, kw_only=True)
class Style:
    """Colour or not, Unicode or not, columns."""

    color: bool = False
    unicode: bool = True
    width: int = DEFAULT_WIDTH

    def paint(self, text: str, *names: str) -> str:
        """Colour a text that has no line end."""
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(CODES[name] for name in names)}m{text}\x1b[0m"

    def symbol(self, symbol: str) -> str:
        """Give the symbol, or its ASCII form."""
        return symbol if self.unicode else ASCII_SYMBOLS[symbol]

    def wrap(self, text: str, *, indent: str = "", first: str | None = None) -> str:
        """Fold safe text to the width; ``first`` stands before the first line, ``indent`` before the others."""
        lines = []
        for number, line in enumerate(safe(text).splitlines() or [""]):
            start = indent if number or first is None else first
            folded = textwrap.wrap(
                line,
                width=max(self.width, NARROWEST),
                initial_indent=start,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            lines += folded or [start.rstrip()]
        return "\n".join(lines)


def style_for(stream: TextIO, environ: Mapping[str, str], color: str, encoding: str) -> Style:
    """Choose the style for a stream: ``--color``, then NO_COLOR, then FORCE_COLOR, then whether it is a terminal."""
    return Style(color=_colored(stream, environ, color), unicode=_is_unicode(encoding), width=_width(stream, environ))


def _colored(stream: TextIO, environ: Mapping[str, str], color: str) -> bool:
    if color != "auto":
        return color == "always"
    if environ.get("NO_COLOR"):  # https://no-color.org: present and not empty
        return False
    if environ.get("FORCE_COLOR"):  # https://force-color.org; 0 switches off, as many programs take it
        return environ["FORCE_COLOR"] != "0"
    return stream.isatty() and environ.get("TERM") != "dumb"


def _is_unicode(encoding: str) -> bool:
    try:
        "".join(ASCII_SYMBOLS).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _width(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return min(max(int(columns), NARROWEST), WIDEST)
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return DEFAULT_WIDTH
    return min(max(found, NARROWEST), WIDEST) if found else DEFAULT_WIDTH
