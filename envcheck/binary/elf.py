"""One ELF file: header, program headers, dynamic section, symbols, versions. 64-bit little-endian, as CUDA hosts are.

Own struct code and not pyelftools, which is the tests' oracle: its import alone takes 56 ms of the doctor's 140 ms, and
it lists the 2,700 dynamic symbols of vllm/_C.abi3.so in 71 ms where one iter_unpack takes 1 ms (CPython 3.11, warm).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from envcheck.binary.gnuhash import HashTable
from envcheck.binary.image import BinaryError, Image

MACHINES = {3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NEEDED, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 6, 10, 14, 15, 29
DT_HASH, DT_FLAGS_1, DT_GNU_HASH, DT_VERSYM = 4, 0x6FFFFFFB, 0x6FFFFEF5, 0x6FFFFFF0
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
DF_1_NODEFLIB = 0x800
STB_LOCAL, STB_GLOBAL, STB_WEAK, STB_UNIQUE = 0, 1, 2, 10
VER_FLG_WEAK = 2
SYMBOL = struct.Struct("<IBBHQQ")
# No real table is as large: a corrupt size must cost neither gigabytes nor minutes.
MAX_HEADERS = 4096
MAX_DYNAMIC_BYTES = 64 << 10
MAX_TABLE_BYTES = 64 << 20
MAX_STRING_BYTES = 64 << 10


class ForeignError(BinaryError):
    """An ELF file for another kind of machine, which the loader passes over."""


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """One dynamic symbol; ``version`` and ``library`` as the reference asks for them, empty where it does not."""

    name: str
    version: str = ""
    library: str = ""


@dataclass(frozen=True, kw_only=True)
class Need:
    """One version that is needed of one library; a weak one only warns when it is absent."""

    library: str
    version: str
    weak: bool
    index: int


@dataclass(frozen=True, kw_only=True)
class Section:
    """A named range of the file."""

    name: str
    offset: int
    size: int


class Elf:
    """The parts of one file, each read when it is first asked for; every reader raises BinaryError on damage."""

    def __init__(self, image: Image) -> None:
        """Read the header and the program headers."""
        self.image = image
        self.path = image.path
        head = image.at(0, 64) if image.size >= 64 else _refuse_short(image)
        self.machine = _machine(head)
        offset, sections = struct.unpack_from("<QQ", head, 32)
        entry, count, section_entry, section_count, names = struct.unpack_from("<HHHHH", head, 54)
        self._section_table = (sections, section_entry, section_count, names)
        self._segments = _segments(image, offset, entry, count)

    @cached_property
    def dynamic(self) -> dict[int, list[int]]:
        """Dynamic entries: tag -> values."""
        place = next(((where, size) for kind, where, _, size in self._segments if kind == PT_DYNAMIC), None)
        if place is None:
            raise BinaryError("no dynamic section: a static program or an object file, not a shared library")
        data = self.image.at(place[0], min(place[1], MAX_DYNAMIC_BYTES) // 16 * 16)
        entries: dict[int, list[int]] = {}
        for tag, value in struct.iter_unpack("<QQ", data):
            if tag == 0:
                break
            entries.setdefault(tag, []).append(value)
        return entries

    def _one(self, tag: int) -> int | None:
        values = self.dynamic.get(tag)
        return values[0] if values else None

    def offset_of(self, address: int) -> int:
        """Turn an address of the loaded image into an offset of the file."""
        for kind, offset, start, size in self._segments:
            if kind == PT_LOAD and start <= address < start + size:
                return offset + address - start
        raise BinaryError(f"damaged: address {address:#x} lies in no segment")

    @cached_property
    def strings(self) -> bytes:
        """The dynamic string table."""
        address, size = self._one(DT_STRTAB), self._one(DT_STRSZ)
        if address is None or size is None:
            raise BinaryError("damaged: no dynamic string table")
        if size > MAX_TABLE_BYTES:
            raise BinaryError(f"damaged: a string table of {size} bytes")
        return self.image.at(self.offset_of(address), size)

    def string(self, at: int) -> str:
        """Give one string, read alone where the whole table was not read yet (libtorch's has 13 MB)."""
        if "strings" in self.__dict__:
            return _text(self.strings, at)
        address, size = self._one(DT_STRTAB), self._one(DT_STRSZ)
        if address is None or size is None or at >= size:
            raise BinaryError("damaged: a string outside the string table")
        start = self.offset_of(address) + at
        length = min(size - at, 256)
        while True:
            data = self.image.at(start, length)
            end = data.find(b"\0")
            if end >= 0:
                return data[:end].decode("utf-8", "replace")
            if length in {size - at, MAX_STRING_BYTES}:
                raise BinaryError("damaged: a string without an end")
            length = min(size - at, length * 4, MAX_STRING_BYTES)

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """DT_NEEDED, in order."""
        return tuple(self.string(at) for at in self.dynamic.get(DT_NEEDED, ()))

    @cached_property
    def soname(self) -> str:
        """DT_SONAME; empty where there is none."""
        at = self._one(DT_SONAME)
        return "" if at is None else self.string(at)

    @cached_property
    def rpath(self) -> tuple[str, ...]:
        """DT_RPATH entries; none where a DT_RUNPATH makes the loader ignore it."""
        return () if DT_RUNPATH in self.dynamic else self._path(DT_RPATH)

    @cached_property
    def runpath(self) -> tuple[str, ...]:
        """DT_RUNPATH entries."""
        return self._path(DT_RUNPATH)

    def _path(self, tag: int) -> tuple[str, ...]:
        at = self._one(tag)
        return () if at is None else tuple(item for item in self.string(at).split(":") if item)

    @property
    def no_default_directories(self) -> bool:
        """True where the file asks the loader not to look into the cache and the default directories."""
        return bool((self._one(DT_FLAGS_1) or 0) & DF_1_NODEFLIB)

    @cached_property
    def needs(self) -> tuple[Need, ...]:
        """Versions that are needed of other libraries (DT_VERNEED)."""
        place, count = self._one(DT_VERNEED), self._one(DT_VERNEEDNUM) or 0
        found: list[Need] = []
        at = 0 if place is None else self.offset_of(place)
        for _ in range(min(count, MAX_HEADERS) if place is not None else 0):
            _, auxiliaries, file, first, following = struct.unpack("<HHIII", self.image.at(at, 16))
            library, where = self.string(file), at + first
            for _ in range(min(auxiliaries, MAX_HEADERS)):
                _, flags, index, name, step = struct.unpack("<IHHII", self.image.at(where, 16))
                weak = bool(flags & VER_FLG_WEAK)
                found.append(Need(library=library, version=self.string(name), weak=weak, index=index & 0x7FFF))
                where += step
                if not step:
                    break
                if len(found) > MAX_HEADERS:
                    raise BinaryError("damaged: a table of versions without an end")
            at += following
            if not following:
                break
        return tuple(found)

    @cached_property
    def defined_versions(self) -> tuple[str, ...]:
        """Versions that this library defines (DT_VERDEF), its own name left out."""
        place, count = self._one(DT_VERDEF), self._one(DT_VERDEFNUM) or 0
        found: list[str] = []
        at = 0 if place is None else self.offset_of(place)
        for _ in range(min(count, MAX_HEADERS) if place is not None else 0):
            _, flags, _, _, _, first, following = struct.unpack("<HHHHIII", self.image.at(at, 20))
            if not flags & 1:  # VER_FLG_BASE is the file itself
                found.append(self.string(struct.unpack("<I", self.image.at(at + first, 4))[0]))
            at += following
            if not following:
                break
        return tuple(found)

    @cached_property
    def hash_table(self) -> HashTable | None:
        """The GNU hash table; None where the file has none (a System V one only, or no symbols)."""
        place = self._one(DT_GNU_HASH)
        return None if place is None else HashTable(self.image, self.offset_of(place))

    @cached_property
    def symbol_count(self) -> int:
        """Number of dynamic symbols, from whichever hash table there is."""
        place = self._one(DT_HASH)
        if place is not None:
            return int(struct.unpack("<I", self.image.at(self.offset_of(place) + 4, 4))[0])
        return self.hash_table.symbol_count if self.hash_table else 0

    def _symbols(self, count: int) -> bytes:
        place = self._one(DT_SYMTAB)
        if place is None or not count:
            return b""
        if count * SYMBOL.size > MAX_TABLE_BYTES:
            message = f"damaged: a table of {count} symbols"
            raise BinaryError(message)
        return self.image.at(self.offset_of(place), count * SYMBOL.size)

    def undefined(self) -> Iterator[Symbol]:
        """Symbols that another library must define; weak ones are left out."""
        # The hash table holds only defined symbols, and linkers put the undefined ones before them.
        table = self.hash_table
        count = table.first if table and table.first > 1 else self.symbol_count
        versions = self._symbol_versions(count)
        needs = {need.index: need for need in self.needs}
        strings = self.strings if count else b""
        budget = MAX_TABLE_BYTES
        for index, (at, info, _, section, _, _) in enumerate(SYMBOL.iter_unpack(self._symbols(count))):
            if section == 0 and at and info >> 4 in {STB_GLOBAL, STB_UNIQUE}:
                need = needs.get(versions[index] & 0x7FFF) if versions else None
                name = _text(strings, at)
                budget -= len(name)
                if budget < 0:
                    raise BinaryError("damaged: symbol names that overlap")
                yield Symbol(name=name, version=need.version if need else "", library=need.library if need else "")

    def _symbol_versions(self, count: int) -> tuple[int, ...]:
        place = self._one(DT_VERSYM)
        if place is None or not count:
            return ()
        return struct.unpack(f"<{count}H", self.image.at(self.offset_of(place), 2 * count))

    def defines(self, name: str) -> bool:
        """Tell whether the library exports a symbol: one look-up in its hash table, its symbols are not listed."""
        if self.hash_table is None:
            return name in self._exports
        place = self._one(DT_SYMTAB)
        if place is None:
            return False
        start = self.offset_of(place)
        encoded = name.encode()
        for index in self.hash_table.candidates(encoded):
            at, info, _, section, _, _ = SYMBOL.unpack(self.image.at(start + index * SYMBOL.size, SYMBOL.size))
            if section and info >> 4 in {STB_GLOBAL, STB_WEAK, STB_UNIQUE} and self.string(at) == name:
                return True
        return False

    @cached_property
    def _exports(self) -> frozenset[str]:
        symbols = SYMBOL.iter_unpack(self._symbols(self.symbol_count))
        return frozenset(_text(self.strings, name) for name, info, _, section, _, _ in symbols if section and info >> 4)

    def sections(self) -> Iterator[Section]:
        """Named sections; none where the section headers were stripped."""
        offset, entry, count, names = self._section_table
        if not offset or not count or entry != 64:
            return
        headers = [struct.unpack_from("<IIQQQQ", row) for row in _rows(self.image.at(offset, entry * count), entry)]
        if names >= count:
            raise BinaryError("damaged: no section names")
        table = self.image.at(headers[names][4], min(headers[names][5], 1 << 20))
        for name, _, _, _, start, size in headers:
            yield Section(name=_text(table, name), offset=start, size=size)


def _refuse_short(image: Image) -> bytes:
    start = image.at(0, min(4, image.size))
    raise BinaryError(f"truncated: {image.size} bytes" if start == b"\x7fELF" else "not an ELF file")


def _machine(head: bytes) -> str:
    if head[:4] != b"\x7fELF":
        raise BinaryError("not an ELF file")
    bits, order = head[4], head[5]
    if bits not in {1, 2} or order not in {1, 2}:
        raise BinaryError("damaged: neither 32- nor 64-bit, or of no byte order")
    number = struct.unpack_from("<H" if order == 1 else ">H", head, 18)[0]
    machine = MACHINES.get(number, f"machine {number}")
    if order == 2 or bits == 1:
        kind = " ".join(word for word in ("32-bit" if bits == 1 else "", "big-endian" if order == 2 else "") if word)
        raise ForeignError(f"a {kind} ELF file for {machine}, which a 64-bit little-endian Python cannot load")
    return machine


def _segments(image: Image, offset: int, entry: int, count: int) -> list[tuple[int, int, int, int]]:
    """Kind, offset, address and size in the file of each program header."""
    if count and (entry != 56 or count > MAX_HEADERS):
        raise BinaryError(f"damaged: {count} program headers of {entry} bytes")
    found = []
    for row in _rows(image.at(offset, 56 * count), 56):
        kind, _, where, address, _, size, _, _ = struct.unpack("<IIQQQQQQ", row)
        found.append((kind, where, address, size))
    return found


def _rows(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _text(table: bytes, at: int) -> str:
    end = table.find(b"\0", at, at + MAX_STRING_BYTES)
    if at >= len(table) or end < 0:
        raise BinaryError("damaged: a string outside its table")
    return table[at:end].decode("utf-8", "replace")
