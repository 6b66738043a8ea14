"""What symbols and versions tell: the C++ string ABI across torch's borders, the glibc and libstdc++ floors."""

from __future__ import annotations

import re
from collections.abc import Iterable

from envcheck.binary.elf import Elf, Need, Symbol

TORCH_NAMES = ("3c10", "2at", "5torch", "6caffe2")
# Identifiers are length-prefixed and must be stepped over, or ``6PressSs`` would read as an old string.
PART = re.compile(r"S[0-9A-Z]*_|T\d*_|L[a-z]n?\d+E|(\d+)|S[a-z]|.", re.DOTALL)
CHECK_FAIL = "_ZN3c106detail14torchCheckFailEPKcS2_j"
OLD_STRING, NEW_STRING = "RKSs", "RKNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
PYTHON_TAG = re.compile(r"\.(cpython-\d+[a-z]*|abi3t?|pypy\d+-pp\d+)[.-]")
CUDA_SONAME = re.compile(r"lib(?:cudart|cublas|cublasLt|nvrtc|nvJitLink)\.so\.(\d+)(?:\.\d+)*")


def of_torch(symbol: str) -> bool:
    """Tell whether a mangled symbol names something in c10, at, torch or caffe2, alone or inside ``std``."""
    return symbol.startswith("_Z") and any(name in symbol for name in TORCH_NAMES)


def cxx11_abi(symbols: Iterable[Symbol]) -> bool | None:
    """Tell which std::string the symbols of torch's libraries are asked for with; None: none of them carries one."""
    return string_abi(symbol.name for symbol in symbols)


def string_abi(names: Iterable[str]) -> bool | None:
    """Tell which std::string mangled names of torch's libraries carry; None: none of them carries one.

    ``_ZN3c105ErrorC2ENS_14SourceLocationESs`` is the old ABI, ``…NSt7__cxx1112basic_stringI…`` the new one.
    """
    old = False
    for name in names:
        if of_torch(name):
            if "__cxx11" in name:
                return True
            old = old or uses_old_string(name)
    return False if old else None


def uses_old_string(symbol: str) -> bool:
    """Tell whether a mangled symbol has ``Ss``, the std::string of the old ABI, among its types."""
    if "Ss" not in symbol:
        return False
    at = 2
    while found := PART.match(symbol, at):
        if found.group() == "Ss":
            return True
        at = found.end() + int(found.group(1) or 0)
    return False


def torch_cxx11_abi(c10: Elf) -> bool | None:
    """Tell which ABI a torch was built with, from what its libc10.so exports; None where it exports neither form."""
    if c10.defines(CHECK_FAIL + NEW_STRING):
        return True
    return False if c10.defines(CHECK_FAIL + OLD_STRING) else None


def floor(needs: Iterable[Need], family: str) -> str | None:
    """Give the highest version of a family (``GLIBC``, ``GLIBCXX``, ``CXXABI``) that must be there."""
    return highest((need.version for need in needs if not need.weak), family)


def highest(versions: Iterable[str], family: str) -> str | None:
    """Give the highest ``FAMILY_x.y.z`` as ``x.y.z``; names without a number, as GLIBC_PRIVATE, do not count."""
    start = family + "_"
    numbers = [name[len(start) :] for name in versions if name.startswith(start) and name[len(start) :][:1].isdigit()]
    return max(numbers, key=release, default=None)


def release(version: str) -> tuple[int, ...]:
    """Numbers of a dotted version: ``3.4.30`` gives (3, 4, 30)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def python_abi(file: str) -> str | None:
    """Python ABI that the name of an extension module states: ``cpython-310``, ``abi3``; None where it states none."""
    found = PYTHON_TAG.search(file)
    return found.group(1) if found else None


def cuda_major(needed: Iterable[str]) -> int | None:
    """Major CUDA version of the run-time libraries that are needed; None where none of them carries one.

    cuFFT, cuRAND and cuSOLVER do not count: their numbers run apart from CUDA's (libcufft.so.11 is of CUDA 12).
    """
    found = [match for match in map(CUDA_SONAME.fullmatch, needed) if match]
    return max((int(match.group(1)) for match in found), default=None)
