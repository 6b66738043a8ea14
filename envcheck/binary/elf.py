"""One ELF file: header, program headers, dynamic section, symbols, versions. 64-bit little-endian, as CUDA hosts are.

Own struct code and not pyelftools, which is the tests' oracle: its import alone takes 56 ms of the doctor's 140 ms, and
it takes 180 ms to list what vllm/_C.abi3.so (5,800 dynamic symbols) needs, which this does in 2 ms (CPython 3.11).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from envcheck.binary import header
from envcheck.binary.gnuhash import HashTable
from envcheck.binary.header import MAX_ENTRIES, MAX_STRING_BYTES, Section, text
from envcheck.binary.image import BinaryError, Image
from envcheck.record import dataclass

DT_NEEDED, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 1, 5, 6, 10, 14, 15, 29
DT_HASH, DT_FLAGS_1, DT_GNU_HASH, DT_VERSYM = 4, 0x6FFFFFFB, 0x6FFFFEF5, 0x6FFFFFF0
DT_VERDEF, DT_VERDEFNUM, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
C_RUNTIME = re.compile(r"(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|ld-linux-[\w-]+)\.so\.\d+")
DF_1_NODEFLIB = 0x800
STB_LOCAL, STB_GLOBAL, STB_WEAK, STB_UNIQUE = 0, 1, 2, 10
REFERRED = frozenset({STB_GLOBAL, STB_UNIQUE})
EXPORTED = frozenset({STB_GLOBAL, STB_WEAK, STB_UNIQUE})
VER_FLG_WEAK = 2
SYMBOL = struct.Struct("<IBBHQQ")
MAX_DYNAMIC_BYTES = 64 << 10
MAX_TABLE_BYTES = 64 << 20


class Symbol(NamedTuple):  # thousands are made; a tuple is made three times as fast as a frozen dataclass
    """One dynamic symbol; ``version`` and ``library`` as the reference asks for them, empty where it does not."""

    name: str
    version: str
    library: str


@dataclass(frozen=True, kw_only=True)
class Need:
    """One version that is needed of one library; a weak one only warns when it is absent."""

    library: str
    version: str
    weak: bool
    index: int


class Elf:
    """The parts of one file, each read when it is first asked for; every reader raises BinaryError on damage."""

    def __init__(self, image: Image) -> None:
        """Read the header and the program headers."""
        self.image = image
        self.path = image.path
        self._header = header.read(image)
        self.machine = self._header.machine

    @property
    def is_shared(self) -> bool:
        """True for a file with a dynamic section: no object file, no static program."""
        return self._header.dynamic is not None

    @cached_property
    def dynamic(self) -> dict[int, list[int]]:
        """Dynamic entries: tag -> values."""
        if self._header.dynamic is None:
            raise BinaryError("no dynamic section: a static program or an object file, not a shared library")
        offset, size = self._header.dynamic
        data = self.image.at(offset, min(size, MAX_DYNAMIC_BYTES) // 16 * 16)
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
        for offset, start, size in self._header.segments:
            if start <= address < start + size:
                return offset + address - start
        raise BinaryError(f"damaged: address {address:#x} lies in no segment")

    @cached_property
    def _string_table(self) -> tuple[int, int]:
        """Offset and size of the dynamic string table."""
        address, size = self._one(DT_STRTAB), self._one(DT_STRSZ)
        if address is None or size is None or size > MAX_TABLE_BYTES:
            raise BinaryError(f"damaged: a string table of {size or 'no'} bytes")
        return self.offset_of(address), size

    @cached_property
    def strings(self) -> bytes:
        """The dynamic string table."""
        return self.image.at(*self._string_table)

    def string(self, at: int) -> str:
        """Give one string, read alone where the whole table was not read yet (libtorch's has 13 MB)."""
        if "strings" in self.__dict__:
            return text(self.strings, at)
        offset, size = self._string_table
        if at >= size:
            raise BinaryError("damaged: a string outside the string table")
        start, length = offset + at, min(size - at, 256)
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
        for _ in range(min(count, MAX_ENTRIES) if place is not None else 0):
            _, auxiliaries, file, first, following = struct.unpack("<HHIII", self.image.at(at, 16))
            library, where = self.string(file), at + first
            for _ in range(min(auxiliaries, MAX_ENTRIES)):
                _, flags, index, name, step = struct.unpack("<IHHII", self.image.at(where, 16))
                weak = bool(flags & VER_FLG_WEAK)
                found.append(Need(library=library, version=self.string(name), weak=weak, index=index & 0x7FFF))
                where += step
                if not step:
                    break
                if len(found) > MAX_ENTRIES:
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
        for _ in range(min(count, MAX_ENTRIES) if place is not None else 0):
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
        """Symbols that another library must define; weak ones are left out.

        So are those with a version of the C and C++ run-time libraries: the loader judges these by ``needs``.
        """
        # The hash table holds only defined symbols, and linkers put the undefined ones before them.
        table = self.hash_table
        count = table.first if table and table.first > 1 else self.symbol_count
        versions = self._symbol_versions(count)
        needs = {need.index: need for need in self.needs}
        runtime = {need.index for need in self.needs if C_RUNTIME.fullmatch(need.library)}
        strings = self.strings if count else b""
        budget = MAX_TABLE_BYTES
        for index, (at, info, _, section, _, _) in enumerate(SYMBOL.iter_unpack(self._symbols(count))):
            if section or not at or info >> 4 not in REFERRED:
                continue
            version = versions[index] & 0x7FFF if versions else 0
            if version in runtime:
                continue
            name = text(strings, at)
            budget -= len(name)
            if budget < 0:
                raise BinaryError("damaged: symbol names that overlap")
            need = needs.get(version)
            yield Symbol(name, need.version, need.library) if need else Symbol(name, "", "")

    def _symbol_versions(self, count: int) -> tuple[int, ...]:
        place = self._one(DT_VERSYM)
        if place is None or not count:
            return ()
        return struct.unpack(f"<{count}H", self.image.at(self.offset_of(place), 2 * count))

    def defines(self, name: str) -> bool:
        """Tell whether the library exports a symbol: one look-up in its hash table, its symbols are not listed."""
        if self.hash_table is None:
            return name in self._exports
        encoded = name.encode()
        indices = self.hash_table.candidates(encoded)  # hot path: thousands of look-ups
        return any(self._is_export(index, encoded) for index in indices) if indices else False

    def _is_export(self, index: int, name: bytes) -> bool:
        """Tell whether a symbol is defined, visible and of this very name."""
        if self._symbols_offset is None:
            return False
        data = self.image.at(self._symbols_offset + index * SYMBOL.size, SYMBOL.size)
        at, info, _, section, _, _ = SYMBOL.unpack(data)
        if not section or info >> 4 not in EXPORTED:
            return False
        offset, size = self._string_table
        if at + len(name) >= size:
            return False
        return self.image.at(offset + at, len(name) + 1) == name + b"\0"

    @cached_property
    def _symbols_offset(self) -> int | None:
        place = self._one(DT_SYMTAB)
        return None if place is None else self.offset_of(place)

    @cached_property
    def _exports(self) -> frozenset[str]:
        symbols = SYMBOL.iter_unpack(self._symbols(self.symbol_count))
        return frozenset(text(self.strings, name) for name, info, _, section, _, _ in symbols if section and info >> 4)

    def sections(self) -> tuple[Section, ...]:
        """Named sections; none where the section headers were stripped."""
        return header.sections(self.image, self._header)
