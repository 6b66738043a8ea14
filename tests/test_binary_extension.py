from __future__ import annotations

from collections.abc import Mapping

from envcheck.binary import extension
from envcheck.binary.ldso import Files, Process
from envcheck.binary.symbols import SymbolTables
from envcheck.codec import Unknown
from envcheck.facts import Extension
from envcheck.host import RecordedHost
from tests import tiny_elf
from tests.tiny_elf import shared

PYTHON, EXT = "/usr/bin/python3", "/s/ext.cpython-310-x86_64-linux-gnu.so"
ERROR_OLD = "_ZN3c105ErrorC2ENS_14SourceLocationESs"


def read(files: Mapping[str, bytes], python: bytes | None = None) -> Extension:
    program = shared(defined=["PyList_New"]) if python is None else python
    opened = Files(RecordedHost(files={PYTHON: program, **files}))
    return extension.read(opened, Process(opened, PYTHON, {}), SymbolTables(), EXT)


def test_all_facts() -> None:
    data = shared(
        needed=["libc10.so", "libcudart.so.12"],
        rpath="/torch",
        undefined=[ERROR_OLD, "PyList_New", "cudaFree", "_ZN3c104cuda9SetDeviceEi"],
        needs={"libc.so.6": ["GLIBC_2.32"], "libstdc++.so.6": ["GLIBCXX_3.4.29", "CXXABI_1.3.13"]},
        sections={".nv_fatbin": tiny_elf.fatbin((2, 90, 0))},
    )
    torch = {"/torch/libc10.so": shared(defined=[ERROR_OLD]), "/torch/libcudart.so.12": shared(defined=["cudaFree"])}
    assert read({EXT: data, **torch}) == Extension(
        path=EXT,
        needed=("libc10.so", "libcudart.so.12"),
        cxx11_abi=False,
        glibc="2.32",
        glibcxx="3.4.29",
        cxxabi="1.3.13",
        archs=("9.0",),
        undefined=("_ZN3c104cuda9SetDeviceEi",),
        missing=(),
        cuda_major=12,
        machine="x86_64",
        python_abi="cpython-310",
    )


def test_missing_libraries_of_the_whole_closure() -> None:
    files = {EXT: shared(needed=["liba.so", "libb.so"], rpath="/a"), "/a/liba.so": shared(needed=["libcuda.so.1"])}
    found = read({**files, "/a/libb.so": b"\x7fELF"})
    assert found.missing == ("libcuda.so.1", "/a/libb.so (truncated: bytes 0 to 64 are wanted of a file of 4 bytes)")


def test_symbols_of_a_python_that_cannot_be_read_are_not_blamed() -> None:
    files = {EXT: shared(undefined=["PyList_New", "_Py_Dealloc", "nvte_a"])}
    assert read(files, python=b"#!/bin/sh\n").undefined == ("nvte_a",)


def test_what_cannot_be_read_is_unknown_with_the_reason() -> None:
    found = read({EXT: b"not a library"})
    assert found.glibc == Unknown(f"{EXT}: not an ELF file")
    assert found.cxx11_abi == found.glibcxx == found.cxxabi == found.cuda_major == found.glibc
    assert found.undefined == ()
    assert read({}).glibc == Unknown(f"{EXT}: no such file")


def test_an_extension_of_another_machine() -> None:
    found = read({EXT: shared(machine=183)})
    assert found.glibc == Unknown(f"{EXT}: built for aarch64, while this Python is for x86_64")
