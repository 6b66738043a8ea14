"""A stand-in for the driver library: it has the symbols that extensions name and answers that there is no device."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from envcheck.errors import WorkError
from scripts import process

NAME = "libcuda.so.1"
NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE."""
DRIVER = re.compile(r"^cu[A-Z]\w*$")
ALWAYS = ("cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuGetProcAddress_v2", "cuGetErrorString")
COMPILE_SECONDS = 60


def wanted(paths: Iterable[Path]) -> set[str]:
    """Name the driver's functions that these libraries leave to libcuda.so.1."""
    found = set(ALWAYS)
    for path in paths:
        found |= _undefined(path)
    return found


def _undefined(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            dynamic, symbols = elf.get_section_by_name(".dynamic"), elf.get_section_by_name(".dynsym")
            if not isinstance(dynamic, DynamicSection) or not isinstance(symbols, SymbolTableSection):
                return set()
            if NAME not in {getattr(tag, "needed", "") for tag in dynamic.iter_tags("DT_NEEDED")}:
                return set()
            return {
                item.name
                for item in symbols.iter_symbols()
                if item["st_shndx"] == "SHN_UNDEF" and DRIVER.match(item.name)
            }
    except (OSError, ELFError):
        return set()


def source(symbols: Iterable[str]) -> str:
    """Give the C source: every function answers CUDA_ERROR_NO_DEVICE."""
    return "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in sorted(symbols))


def build(directory: Path, symbols: Iterable[str]) -> Path:
    """Compile the stand-in into a directory, for LD_LIBRARY_PATH."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise WorkError("no C compiler was found for the stand-in of libcuda.so.1", fix="install gcc")
    text = directory / "stub.c"
    text.write_text(source(symbols), encoding="ascii")
    library = directory / NAME
    process.output(
        [compiler, "-shared", "-fPIC", "-w", f"-Wl,-soname,{NAME}", "-o", str(library), str(text)],
        timeout=COMPILE_SECONDS,
    )
    return library
