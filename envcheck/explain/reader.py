"""Any stream of bytes to clean lines: colours, carriage returns, NULs, typographic quotes, lines without end."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

CHUNK = 1 << 20
LONGEST = 1 << 18
"""A line that is longer is cut in pieces that overlap."""
OVERLAP = 1 << 10

_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]{0,40}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,400}(?:\x07|\x1b\\)|[()][0-9A-Z]|[=>78A-Z])"
)
_QUOTE_TEXTS = (("\u2018".encode(), b"'"), ("\u2019".encode(), b"'"), ("\u00a0".encode(), b" "))
_MAGIC = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"\x7fELF": "ELF"}


class Log(Protocol):
    """A binary stream; ``read1`` where it has one, so that a slow one is not waited for."""

    def read(self, size: int, /) -> bytes | None:
        """Give at most ``size`` bytes, none at the end."""


@dataclass(kw_only=True)
class Reader:
    r"""Cuts a stream into lines. ``\r`` ends a piece but not a line: such a piece keeps it as its last byte."""

    stream: Log
    size: int = 0
    kind: str = ""
    """What the first bytes say that this is, where it is not text."""
    _rest: bytes = b""
    _decoder: codecs.IncrementalDecoder | None = field(default=None)

    def __iter__(self) -> Iterator[list[bytes]]:
        """Give lists of lines; the last list holds the last, perhaps unfinished, line."""
        read = getattr(self.stream, "read1", self.stream.read)
        while chunk := read(CHUNK):
            if not self.size:
                self._begin(chunk)
            self.size += len(chunk)
            if self._decoder:
                chunk = self._decoder.decode(chunk).encode()
            if lines := self._lines(chunk):
                yield lines
        if last := self.unfinished():
            yield last

    def _begin(self, chunk: bytes) -> None:
        self.kind = next((name for magic, name in _MAGIC.items() if chunk.startswith(magic)), "")
        for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
            if chunk.startswith(mark):
                self._decoder = codecs.getincrementaldecoder(name)("replace")

    def _lines(self, chunk: bytes) -> list[bytes]:
        data = self._rest + chunk
        if data.endswith(b"\r"):  # its \n may come with the next chunk
            data, held = data[:-1], b"\r"
        else:
            held = b""
        data = _plain(data).replace(b"\r\n", b"\n")
        if b"\r" in data:
            data = data.replace(b"\r", b"\r\n")
        *lines, rest = data.split(b"\n")
        while len(rest) > LONGEST:
            lines.append(rest[:LONGEST] + b"\r")
            rest = rest[LONGEST - OVERLAP :]
        self._rest = rest + held
        return _short(lines)

    def unfinished(self) -> list[bytes]:
        """Give what was read after the last line end; nothing the second time."""
        last, self._rest = self._rest, b""
        return [_plain(last)] if last.strip() else []


def _short(lines: list[bytes]) -> list[bytes]:
    """Cut lines that came whole but are too long."""
    if max(map(len, lines), default=0) <= LONGEST + 1:
        return lines
    pieces: list[bytes] = []
    for line in lines:
        rest = line
        while len(rest) > LONGEST + 1:
            pieces.append(rest[:LONGEST] + b"\r")
            rest = rest[LONGEST - OVERLAP :]
        pieces.append(rest)
    return pieces


def _plain(data: bytes) -> bytes:
    """Take out colours and NULs; make typographic single quotes plain."""
    if b"\0" in data:
        data = data.replace(b"\0", b"")
    if b"\x1b" in data:
        data = _ESCAPES.sub(b"", data)
    if not data.isascii():
        for text, plain in _QUOTE_TEXTS:
            data = data.replace(text, plain)
    return data
