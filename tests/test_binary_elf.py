from __future__ import annotations

import io
import os
import struct
import sys
import time
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import given, settings
from hypothesis import strategies as st

from envcheck.binary import abi, fatbin
from envcheck.binary.elf import Elf
from envcheck.binary.gnuhash import HashTable, gnu_hash
from envcheck.binary.header import ForeignError
from envcheck.binary.image import BinaryError, Image, open_image
from envcheck.host import LocalHost, RecordedHost
from tests import tiny_elf

WHOLE = tiny_elf.shared(
    needed=["libc.so.6", "libc10.so"],
    soname="libx.so.1",
    undefined=["malloc", "_ZN3c105ErrorC2ENS_14SourceLocationESs", "_ZSt4copy"],
    weak=["__gmon_start__"],
    defined=["PyInit_x", "bar", "_ZN1a1bEv", "baz"],
    needs={"libc.so.6": ["GLIBC_2.17", "GLIBC_2.34"], "libstdc++.so.6": ["GLIBCXX_3.4.21", "CXXABI_1.3.13"]},
    symbol_versions={"malloc": "GLIBC_2.17", "_ZSt4copy": "GLIBCXX_3.4.21"},
    weak_versions=["GLIBC_2.34"],
    defined_versions=["X_1.0", "X_1.2"],
    sections={".nv_fatbin": tiny_elf.fatbin((2, 80, 0), (1, 90, 0)), ".rodata": b"text"},
)


def elf(data: bytes) -> Elf:
    return Elf(Image(io.BytesIO(data), "/x.so"))


def test_reads_the_dynamic_section() -> None:
    found = elf(tiny_elf.shared(needed=["liba.so"], soname="libx.so.1", runpath="$ORIGIN::/b", rpath="/ignored"))
    assert (found.needed, found.soname, found.runpath, found.rpath) == (
        ("liba.so",),
        "libx.so.1",
        ("$ORIGIN", "/b"),
        (),
    )
    assert found.machine == "x86_64"
    assert found.is_shared
    assert not found.no_default_directories


def test_rpath_counts_where_no_runpath_is() -> None:
    found = elf(tiny_elf.shared(rpath="$ORIGIN/../lib", no_default=True))
    assert (found.rpath, found.runpath, found.soname) == (("$ORIGIN/../lib",), (), "")
    assert found.no_default_directories


def test_undefined_symbols_leave_out_weak_ones_and_the_c_runtime() -> None:
    names = [symbol.name for symbol in elf(WHOLE).undefined()]
    assert names == ["_ZN3c105ErrorC2ENS_14SourceLocationESs"]


def test_symbol_of_another_library_keeps_its_version() -> None:
    data = tiny_elf.shared(
        undefined=["__nvJitLinkAddData_12_1"],
        needs={"libnvJitLink.so.12": ["libnvJitLink.so.12"]},
        symbol_versions={"__nvJitLinkAddData_12_1": "libnvJitLink.so.12"},
    )
    (symbol,) = elf(data).undefined()
    assert symbol == ("__nvJitLinkAddData_12_1", "libnvJitLink.so.12", "libnvJitLink.so.12")


def test_versions() -> None:
    found = elf(WHOLE)
    assert abi.floor(found.needs, "GLIBC") == "2.17"
    assert abi.floor(found.needs, "GLIBCXX") == "3.4.21"
    assert abi.floor(found.needs, "CXXABI") == "1.3.13"
    assert found.defined_versions == ("X_1.0", "X_1.2")


@pytest.mark.parametrize("sysv", [False, True], ids=["gnu", "sysv"])
def test_looks_up_single_symbols(sysv: bool) -> None:
    found = elf(tiny_elf.shared(undefined=["malloc"], defined=["bar", "baz", "_ZN1a1bEv", "qux"], sysv=sysv))
    assert [found.defines(name) for name in ("bar", "baz", "_ZN1a1bEv", "qux")] == [True] * 4
    assert not any(found.defines(name) for name in ("malloc", "other", "_ZN1a1cEv", ""))


def test_every_exported_symbol_of_the_interpreter_is_found() -> None:
    """Pyelftools lists what a real library exports; each look-up finds it, and what is only needed is not found."""
    path = os.path.realpath(sys.executable)
    ours = Elf(open_image(LocalHost(), path))
    with open(path, "rb") as file:
        theirs = ELFFile(file)
        section = theirs.get_section_by_name(".dynsym")
        assert isinstance(section, SymbolTableSection)
        symbols = [(symbol.name, symbol["st_shndx"], symbol["st_info"]["bind"]) for symbol in section.iter_symbols()]
        dynamic = theirs.get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        needed = tuple(str(vars(tag)["needed"]) for tag in dynamic.iter_tags("DT_NEEDED"))
    exported = [name for name, where, bind in symbols if where != "SHN_UNDEF" and name and bind != "STB_LOCAL"]
    imported = {name for name, where, _ in symbols if where == "SHN_UNDEF"}
    assert ours.needed == needed
    assert ours.symbol_count == len(symbols)
    assert all(ours.defines(name) for name in exported)
    assert not any(ours.defines(name) for name in imported - set(exported))
    ours.image.close()


def test_sections_and_archs() -> None:
    found = elf(WHOLE)
    assert [section.name for section in found.sections()] == ["", ".nv_fatbin", ".rodata", ".shstrtab"]
    assert fatbin.archs(found) == ("8.0", "9.0+PTX")


@pytest.mark.parametrize("name", [b"", b"printf", b"a" * 3000])
def test_hash_is_the_linkers(name: bytes) -> None:
    value = 5381
    for letter in name:
        value = (value * 33 + letter) & 0xFFFFFFFF
    assert gnu_hash(name) == value


@pytest.mark.parametrize(
    ("data", "word"),
    [
        pytest.param(b"", "an empty file", id="empty"),
        pytest.param(b"MZ\x90", "not an ELF file", id="short-other"),
        pytest.param(b"#!/bin/sh\n" * 100, "not an ELF file", id="script"),
        pytest.param(b"\x7fELF\x02", "truncated", id="magic-only"),
        pytest.param(WHOLE[:100], "truncated", id="inside-program-headers"),
        pytest.param(WHOLE[:4] + b"\x07" + WHOLE[5:], "damaged: neither 32- nor 64-bit", id="class"),
        pytest.param(WHOLE[:54] + b"\x20\0" + WHOLE[56:], "program headers of 32 bytes", id="entry-size"),
    ],
)
def test_a_file_that_is_no_library_is_named(data: bytes, word: str) -> None:
    with pytest.raises(BinaryError, match=word):
        elf(data)


@pytest.mark.parametrize(
    ("bits", "order", "number", "word"),
    [
        pytest.param(2, 2, b"\0\x16", "a big-endian ELF file for s390", id="big-endian"),
        pytest.param(1, 1, b"\x03\0", "a 32-bit ELF file for i386", id="32-bit"),
        pytest.param(1, 2, b"\0\x08", "a 32-bit big-endian ELF file for mips", id="both"),
        pytest.param(1, 1, b"\xff\x7f", "machine 32767", id="unheard-of"),
    ],
)
def test_another_kind_of_machine_is_named(bits: int, order: int, number: bytes, word: str) -> None:
    data = WHOLE[:4] + bytes([bits, order]) + WHOLE[6:18] + number + WHOLE[20:]
    with pytest.raises(ForeignError, match=word):
        elf(data)


def test_a_static_program_has_no_dynamic_section() -> None:
    data = bytearray(WHOLE)
    data[120:124] = struct.pack("<I", 6)  # PT_DYNAMIC becomes PT_PHDR
    found = elf(bytes(data))
    assert not found.is_shared
    with pytest.raises(BinaryError, match="no dynamic section"):
        _ = found.needed


def test_stripped_section_headers_cost_the_sections_alone() -> None:
    data = bytearray(WHOLE)
    data[40:48] = bytes(8)
    assert elf(bytes(data)).sections() == ()
    assert elf(bytes(data)).needed == ("libc.so.6", "libc10.so")


def test_section_names_outside_the_table() -> None:
    data = bytearray(WHOLE)
    data[62:64] = b"\xff\xff"
    with pytest.raises(BinaryError, match="no section names"):
        elf(bytes(data)).sections()


def test_a_missing_file_and_a_fifo_are_named(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="could not be opened: No such file"):
        open_image(LocalHost(), str(tmp_path / "gone.so"))
    with pytest.raises(BinaryError, match="could not be opened: Is a directory"):
        open_image(LocalHost(), str(tmp_path))
    os.mkfifo(tmp_path / "pipe.so")
    with pytest.raises(BinaryError, match="not a regular file"):
        open_image(LocalHost(), str(tmp_path / "pipe.so"))


def test_a_loop_of_links_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.so").symlink_to(tmp_path / "b.so")
    (tmp_path / "b.so").symlink_to(tmp_path / "a.so")
    with pytest.raises(BinaryError, match="Too many levels of symbolic links"):
        open_image(LocalHost(), str(tmp_path / "a.so"))


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(WHOLE)
    with open_image(LocalHost(), str(path)) as image:
        found = Elf(image)
        os.truncate(path, 176)
        with pytest.raises(BinaryError, match="truncated while it was read"):
            _ = found.needed


def test_a_sparse_file_of_2_gb_is_judged_at_once(tmp_path: Path) -> None:
    path = tmp_path / "sparse.so"
    path.write_bytes(WHOLE)
    os.truncate(path, 2 << 30)
    start = time.perf_counter()
    with open_image(LocalHost(), str(path)) as image:
        assert Elf(image).needed == ("libc.so.6", "libc10.so")
    zeros = tmp_path / "zeros.so"
    zeros.touch()
    os.truncate(zeros, 2 << 30)
    with open_image(LocalHost(), str(zeros)) as image, pytest.raises(BinaryError, match="not an ELF file"):
        Elf(image)
    assert time.perf_counter() - start < 1


def test_a_chain_without_an_end(tmp_path: Path) -> None:
    """The hash table of a sparse file: no entry ever ends the chain."""
    path = tmp_path / "chain.so"
    path.write_bytes(struct.pack("<IIII", 1, 1, 1, 0) + b"\xff" * 8 + struct.pack("<I", 1))
    os.truncate(path, 2 << 30)
    with open_image(LocalHost(), str(path)) as image:
        with pytest.raises(BinaryError, match="a hash chain without an end"):
            list(HashTable(image, 0).candidates(b"x"))
        with pytest.raises(BinaryError, match="a hash chain without an end"):
            _ = HashTable(image, 0).symbol_count


@pytest.mark.parametrize("numbers", [(1 << 31, 1, 1, 0), (1, 1, 1 << 31, 0), (1, 1, 1, 64)])
def test_a_hash_table_of_impossible_size(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(BinaryError, match="impossible size"):
        HashTable(Image(io.BytesIO(struct.pack("<IIII", *numbers) + bytes(64)), "/x"), 0)


def test_an_empty_hash_table_has_no_symbol() -> None:
    table = HashTable(Image(io.BytesIO(struct.pack("<IIII", 0, 3, 0, 0) + bytes(8)), "/x"), 0)
    assert list(table.candidates(b"x")) == []
    assert table.symbol_count == 3


def test_symbol_names_that_overlap_are_damage() -> None:
    """A small file may name one long string by a million symbols: that must not cost gigabytes."""
    names = [f"s{index}" for index in range(1200)]
    data = bytearray(tiny_elf.shared(undefined=["x" * 60000, *names]))
    found = elf(bytes(data))
    table = found.offset_of(found.dynamic[6][0])
    for index in range(2, 1202):
        data[table + 24 * index : table + 24 * index + 4] = data[table + 24 : table + 28]
    with pytest.raises(BinaryError, match="overlap"):
        list(elf(bytes(data)).undefined())


def with_tag(data: bytes, tag: int, value: int, *, new_tag: int | None = None) -> bytes:
    """Change one dynamic entry."""
    found = elf(data)
    offset, size = struct.unpack_from("<Q", data, 120 + 8)[0], struct.unpack_from("<Q", data, 120 + 32)[0]
    assert tag in found.dynamic
    body = bytearray(data)
    for place in range(offset, offset + size, 16):
        if struct.unpack_from("<Q", body, place)[0] == tag:
            body[place : place + 16] = struct.pack("<QQ", tag if new_tag is None else new_tag, value)
    return bytes(body)


STRTAB, SYMTAB, STRSZ, HASH, VERNEEDNUM, UNHEARD_OF = 5, 6, 10, 4, 0x6FFFFFFF, 0x60000000


def test_no_string_table_or_one_of_impossible_size() -> None:
    for data in (with_tag(WHOLE, STRTAB, 0, new_tag=UNHEARD_OF), with_tag(WHOLE, STRSZ, 1 << 40)):
        with pytest.raises(BinaryError, match="damaged: a string table of"):
            _ = elf(data).needed


def test_strings_outside_the_table_or_without_an_end() -> None:
    with pytest.raises(BinaryError, match="a string outside the string table"):
        _ = elf(with_tag(WHOLE, STRSZ, 1)).needed
    with pytest.raises(BinaryError, match="a string without an end"):
        _ = elf(with_tag(WHOLE, STRSZ, 4)).needed


def test_a_long_string_is_read_whole() -> None:
    name = "lib" + "x" * 5000 + ".so"
    assert elf(tiny_elf.shared(needed=[name])).needed == (name,)


def test_no_symbol_table() -> None:
    found = elf(with_tag(WHOLE, SYMTAB, 0, new_tag=UNHEARD_OF))
    assert list(found.undefined()) == []
    assert not found.defines("bar")


def test_a_symbol_table_of_impossible_size() -> None:
    data = tiny_elf.shared(undefined=["a"], defined=["b"], sysv=True)
    body = bytearray(data)
    place = elf(data).offset_of(elf(data).dynamic[HASH][0])
    body[place + 4 : place + 8] = b"\xff\xff\xff\x7f"
    with pytest.raises(BinaryError, match="a table of 2147483647 symbols"):
        list(elf(bytes(body)).undefined())


def test_a_table_of_versions_that_leads_back_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(with_tag(WHOLE, VERNEEDNUM, 60000))
    place = elf(bytes(data)).offset_of(elf(bytes(data)).dynamic[0x6FFFFFFE][0])
    data[place + 2 : place + 4] = b"\xff\xff"  # auxiliary entries
    data[place + 16 + 12 : place + 16 + 16] = bytes(4)  # … whose first one leads nowhere: the list ends there
    data[place + 12 : place + 16] = bytes(4)
    assert len(elf(bytes(data)).needs) == 1
    monkeypatch.setattr("envcheck.binary.elf.MAX_ENTRIES", 3)
    with pytest.raises(BinaryError, match="a table of versions without an end"):
        _ = elf(tiny_elf.shared(needs={"liba.so": ["A_1", "A_2", "A_3"], "libb.so": ["B_1", "B_2", "B_3"]})).needs


def word_of(data: bytes) -> str:
    """Ask a file all that the program asks; what it is instead of a library, or ``read``."""
    try:
        everything(data)
    except BinaryError as error:
        return str(error)
    return "read"


def everything(data: bytes) -> None:
    found = elf(data)
    for ask in (
        lambda: (found.needed, found.soname, found.rpath, found.runpath, found.no_default_directories),
        lambda: (found.needs, found.defined_versions, found.symbol_count),
        lambda: abi.cxx11_abi(found.undefined()),
        lambda: [found.defines(name) for name in ("bar", "malloc", "nothing")],
        lambda: fatbin.archs(found),
    ):
        try:
            ask()
        except BinaryError:
            continue


@settings(max_examples=400, deadline=1000)
@given(st.data())
def test_damage_is_a_clear_word_and_never_another_error(data: st.DataObject) -> None:
    body = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(body) - 1))
        value = data.draw(st.binary(min_size=1, max_size=8))
        body[place : place + len(value)] = value
    cut = data.draw(st.integers(0, len(body)))
    for attempt in (bytes(body), bytes(body[:cut])):
        assert word_of(attempt)


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=400))
def test_any_bytes_after_the_magic(tail: bytes) -> None:
    assert word_of(b"\x7fELF\x02\x01\x01" + tail)


class BrokenDisk(io.BytesIO):
    """A file whose reads fail."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(5, f"Input/output error after {size} bytes")


def test_a_disk_that_fails_is_named() -> None:
    with pytest.raises(BinaryError, match="could not be read: Input/output error"):
        Image(BrokenDisk(WHOLE), "/x.so").at(0, 4)


def test_recorded_bytes_are_read_alike() -> None:
    with open_image(RecordedHost(files={"/x.so": WHOLE}), "/x.so") as image:
        assert Elf(image).soname == "libx.so.1"
        with pytest.raises(BinaryError, match="truncated: bytes 5 to"):
            image.at(5, 1 << 30)
