"""The header of an ELF file, its program headers and its section headers; damage is said in a clause."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from envcheck.binary.image import BinaryError, Image
from envcheck.record import dataclass

MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
}
PT_LOAD, PT_DYNAMIC, SHT_NOBITS = 1, 2, 8
BITS_32, BITS_64, LITTLE, BIG = 1, 2, 1, 2
HEADER_BYTES, PROGRAM_BYTES, SECTION_BYTES = 64, 56, 64
# No real table is as large: a corrupt size must cost neither gigabytes nor minutes.
MAX_ENTRIES = 4096
MAX_NAMES_BYTES = 1 << 20
MAX_STRING_BYTES = 64 << 10


class ForeignError(BinaryError):
    """An ELF file for another kind of machine, which the loader passes over."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A named range of the file."""

    name: str
    offset: int
    size: int
    occupies_nothing: bool = False
    """SHT_NOBITS, as .bss: its bytes are not in the file."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """Machine; (offset, address, size) of each loaded segment; (offset, size) of the dynamic one; section table."""

    machine: str
    segments: tuple[tuple[int, int, int], ...]
    dynamic: tuple[int, int] | None
    section_table: tuple[int, int, int, int]
    """Offset, bytes an entry, entries, index of the names."""


def read(image: Image) -> Header:
    """Read the header and the program headers; raise BinaryError saying what the file is instead."""
    start = image.at(0, min(HEADER_BYTES, image.size))
    if start[:4] != b"\x7fELF":
        raise BinaryError("not an ELF file" if start else "an empty file")
    machine = _machine(image.at(0, HEADER_BYTES))
    offset, sections = struct.unpack_from("<QQ", start, 32)
    entry, count, section_entry, section_count, names = struct.unpack_from("<HHHHH", start, 54)
    programs = list(_programs(image, offset, entry, count))
    return Header(
        machine=machine,
        segments=tuple((where, address, size) for kind, where, address, size in programs if kind == PT_LOAD),
        dynamic=next(((where, size) for kind, where, _, size in programs if kind == PT_DYNAMIC), None),
        section_table=(sections, section_entry, section_count, names),
    )


def _machine(head: bytes) -> str:
    bits, order = head[4], head[5]
    if bits not in {BITS_32, BITS_64} or order not in {LITTLE, BIG}:
        raise BinaryError("damaged: neither 32- nor 64-bit, or of no byte order")
    number = struct.unpack_from("<H" if order == LITTLE else ">H", head, 18)[0]
    machine = MACHINES.get(number, f"machine {number}")
    kind = " ".join(("32-bit",) * (bits == BITS_32) + ("big-endian",) * (order == BIG))
    if kind:
        raise ForeignError(f"a {kind} ELF file for {machine}, which a 64-bit little-endian Python cannot load")
    return machine


def _programs(image: Image, offset: int, entry: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """Kind, offset, address and size in the file of each program header."""
    if count and (entry != PROGRAM_BYTES or count > MAX_ENTRIES):
        raise BinaryError(f"damaged: {count} program headers of {entry} bytes")
    for kind, _, where, address, _, size, _, _ in struct.iter_unpack(
        "<IIQQQQQQ", image.at(offset, PROGRAM_BYTES * count)
    ):
        yield kind, where, address, size


def sections(image: Image, header: Header) -> tuple[Section, ...]:
    """Named sections; none where the section headers were stripped."""
    offset, entry, count, names = header.section_table
    if not offset or not count or entry != SECTION_BYTES:
        return ()
    headers = list(struct.iter_unpack("<II8x8xQQ24x", image.at(offset, entry * count)))
    if names >= count:
        raise BinaryError("damaged: no section names")
    table = image.at(headers[names][2], min(headers[names][3], MAX_NAMES_BYTES))
    return tuple(
        Section(name=text(table, name), offset=where, size=size, occupies_nothing=kind == SHT_NOBITS)
        for name, kind, where, size in headers
    )


def text(table: bytes, at: int) -> str:
    """Give the string at an offset of a string table."""
    end = table.find(b"\0", at, at + MAX_STRING_BYTES)
    if at >= len(table) or end < 0:
        raise BinaryError("damaged: a string outside its table")
    return table[at:end].decode("utf-8", "replace")
