"""The facts of one extension module or shared library, in the process that would load it."""

from __future__ import annotations

from collections.abc import Iterable

from envcheck.binary import abi, fatbin
from envcheck.binary.elf import Elf
from envcheck.binary.image import BinaryError
from envcheck.binary.ldso import Files, Library, Process
from envcheck.binary.symbols import SymbolTables, blamed
from envcheck.codec import Unknown
from envcheck.facts import Extension


def read(files: Files, process: Process, tables: SymbolTables, path: str) -> Extension:
    """Read one extension; what cannot be read is unknown, with the reason. The process is left as it was."""
    try:
        elf = files.elf(path)
        return _judged(elf, process.branch(), tables, path) if elf else _unread(path, "no such file")
    except BinaryError as error:
        return _unread(path, str(error))


def _unread(path: str, reason: str) -> Extension:
    why = Unknown(f"{path}: {reason}")
    return Extension(path=path, cxx11_abi=why, glibc=why, glibcxx=why, cxxabi=why, cuda_major=why)


def _judged(elf: Elf, process: Process, tables: SymbolTables, path: str) -> Extension:
    library = process.load(path)
    if library is None:
        raise BinaryError(f"built for {elf.machine}, while this Python is for {process.machine}")
    closure = library.closure()
    missing = missing_libraries(closure)
    symbols = list(elf.undefined())
    undefined = tables.undefined(symbols, _scope(closure, process.everywhere))
    return Extension(
        path=path,
        needed=elf.needed,
        cxx11_abi=abi.cxx11_abi(symbols),
        glibc=abi.floor(elf.needs, "GLIBC"),
        glibcxx=abi.floor(elf.needs, "GLIBCXX"),
        cxxabi=abi.floor(elf.needs, "CXXABI"),
        archs=fatbin.archs(elf),
        undefined=blamed(_without_python(undefined, process), missing),
        missing=missing,
        cuda_major=abi.cuda_major(elf.needed),
        machine=elf.machine,
        python_abi=abi.python_abi(path),
    )


def missing_libraries(closure: Iterable[Library]) -> tuple[str, ...]:
    """Names that the loader would not find, and files that it would find and refuse, with the reason."""
    names: dict[str, None] = {}
    for library in closure:
        if library.fault:
            names[f"{library.path} ({library.fault})"] = None
        names.update((name, None) for name, need in library.needs.items() if need is None)
    return tuple(names)


def _scope(closure: list[Library], everywhere: list[Library]) -> list[Library]:
    return [*closure, *(library for library in everywhere if library not in closure)]


def _without_python(symbols: tuple[str, ...], process: Process) -> tuple[str, ...]:
    """Leave out the symbols of Python where the interpreter itself could not be read."""
    if process.program.elf is not None:
        return symbols
    return tuple(name for name in symbols if not name.startswith(("Py", "_Py")))
