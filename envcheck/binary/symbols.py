"""Which symbols of a library nothing in its process defines, and what C++ names mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from envcheck.binary.abi import of_torch
from envcheck.binary.elf import Symbol
from envcheck.binary.image import BinaryError
from envcheck.binary.ldso import Library

TORCH_LIBRARY = re.compile(r"lib(torch|c10)\w*\.so")
# Prefix of a C symbol -> the library that has it; compiled only where a symbol is missing.
OWNERS = (
    (r"_?Py", "the Python interpreter"),
    (r"__nvJitLink|nvJitLink", "libnvJitLink"),
    (r"nvrtc", "libnvrtc"),
    (r"(__)?cuda[A-Z]", "libcudart"),
    (r"cublas(Lt)?", "libcublas"),
    (r"cudnn", "libcudnn"),
    (r"cusparse", "libcusparse"),
    (r"cusolver", "libcusolver"),
    (r"nccl[A-Z]|pnccl", "libnccl"),
    (r"nvml", "libnvidia-ml"),
    (r"cu[A-Z]", "libcuda"),
    (r"numa_", "libnuma"),
    (r"_ZN3c104cuda|_ZNK3c104cuda", "libc10_cuda"),
    (r"_ZNK?3c10|_ZT[VIS]N3c10", "libc10"),
    (r"_ZNK?2at4cuda|_ZNK?4c10d", "libtorch_cuda"),
    (r".*(THPVariable|THPDtype|THPDevice|8pybind11)", "libtorch_python"),
    (r"_ZNK?2at|_ZNK?5torch|_ZT[VIS]N(2at|5torch)|_ZNK?6caffe2", "libtorch_cpu"),
    (r"_ZNK?St|_ZS|__cxa|__gxx|_Zn[wa]|_Zd[la]", "libstdc++"),
    (r".*18transformer_engine|nvte_", "libtransformer_engine"),
)
ALIKE = (12, 7, 2)
"""Symbols that begin alike, as ``_ZN2at4_ops5``, mostly live in one library: it is asked first."""


class SymbolTables:
    """Looks symbols up in the libraries of processes, and remembers who had them: extensions ask for the same ones."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._providers: dict[str, str] = {}
        self._alike: dict[str, str] = {}

    def undefined(self, symbols: Iterable[Symbol], scope: Sequence[Library]) -> tuple[str, ...]:
        """Give the names of the symbols that no library of ``scope`` defines."""
        inside = {library.path: library for library in sorted(scope, key=_is_torch, reverse=True)}
        providers = self._providers
        names = [symbol.name for symbol in symbols]
        return tuple(name for name in names if providers.get(name) not in inside and not self._search(name, inside))

    def _search(self, name: str, inside: dict[str, Library]) -> bool:
        likely = {self._alike.get(name[:length]) for length in ALIKE}
        for path in likely:
            if path in inside and _defines(inside[path], name):
                return self._found(name, path)
        for path, library in inside.items():
            if path not in likely and _defines(library, name):
                return self._found(name, path)
        return False

    def _found(self, name: str, path: str) -> bool:
        self._providers[name] = path
        for length in ALIKE:
            self._alike[name[:length]] = path
        return True


def _defines(library: Library, name: str) -> bool:
    try:
        return library.elf is not None and library.elf.defines(name)
    except BinaryError as error:
        library.fault, library.elf = str(error), None
        return False


def _is_torch(library: Library) -> bool:
    return "/torch/lib/" in library.path


def blamed(symbols: Sequence[str], missing: Sequence[str]) -> tuple[str, ...]:
    """Leave out the symbols that a library which is missing as a whole may have: that library is the finding then."""
    if not missing:
        return tuple(symbols)
    if any(TORCH_LIBRARY.match(name) for name in missing):
        return ()
    return tuple(name for name in symbols if of_torch(name))


def owner(symbol: str) -> str | None:
    """Name the library that should have a symbol: libc10_cuda has ``_ZN3c104cuda9SetDeviceEi``; None where unknown."""
    return next((library for pattern, library in OWNERS if re.match(pattern, symbol)), None)


def demangled(symbol: str) -> str:
    """Give the C++ name: ``_ZN3c104cuda9SetDeviceEi`` is ``c10::cuda::SetDevice(int)``; what is none, as it is."""
    if not symbol.startswith("_Z"):
        return symbol
    try:
        import itanium_demangler  # 20 ms, and only where a symbol is missing
    except ImportError:
        return symbol
    try:
        node = itanium_demangler.parse(symbol)
    except (NotImplementedError, RecursionError, IndexError, ValueError, TypeError, AttributeError, KeyError):
        return symbol
    return symbol if node is None else _constructors(str(node))


def _constructors(text: str) -> str:
    """Write ``c10::Error::{base ctor}`` as ``c10::Error::Error``."""
    text = re.sub(r"(\w+)::\{(?:base |complete )?ctor\}", r"\1::\1", text)
    return re.sub(r"(\w+)::\{(?:base |complete |deleting )?dtor\}", r"\1::~\1", text)
