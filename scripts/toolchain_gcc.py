"""A GCC for hosts whose own does not fit: Debian's packages with their own C library headers, beside the host's."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process, toolchain_fetch, toolchain_layout, toolchain_pins
from scripts.cache import cache, locked
from scripts.files import replacing, write

RECORD = "share/envcheck/gcc.json"
PROGRAM = """\
#include <filesystem>
#include <iostream>
#include <cmath>
int main() { std::cout << std::filesystem::path("/a/b").filename().string() << std::sqrt(16.0) << "\\n"; }
"""
WRAPPER = """\
#!/bin/sh
# The compiler's own libraries are for the compiler only; what it compiles is linked against this prefix's C library.
here=$(dirname "$(readlink -f "$0")")
root=$(dirname "$here")
LD_LIBRARY_PATH="$root/programs/lib" exec "$root/usr/bin/x86_64-linux-gnu-{name}-{major}" \
--sysroot="$root" -B"$root/usr/bin/" "$@"
"""
NAMES = {"gcc": "gcc", "cc": "gcc", "g++": "g++", "c++": "g++"}


def prefix_of() -> Path:
    """Path of the provisioned GCC."""
    return cache("toolchains", "gcc")


def provisioned() -> str | None:
    """Path of the provisioned g++, where it is whole."""
    path = prefix_of()
    return str(path / "bin/g++") if (path / RECORD).exists() else None


def provision(*, mirror: str | None = None, keep: bool = False) -> str:
    """Give the provisioned g++, made from pinned packages where it is not there yet."""
    prefix = prefix_of()
    with locked(prefix.with_name(".gcc.lock"), what=f"the GCC at {prefix}"):
        found = provisioned()
        return found or _make(prefix, mirror, keep=keep)


def _make(prefix: Path, mirror: str | None, *, keep: bool) -> str:
    pins = toolchain_pins.load("gcc")
    files = toolchain_fetch.archives(pins, toolchain_fetch.mirrors("gcc", mirror))
    with replacing(prefix) as work:
        for archive, file in zip(pins.archive, files, strict=True):
            toolchain_layout.unpack("gcc", archive, file, work)
        wrap(work, pins.gcc.split(".")[0])
        found = verify(work)
        if not found.startswith(pins.gcc.split(".")[0]):
            raise WorkError(f"GCC {pins.gcc} was pinned, the packages hold {found}", fix="pin the packages anew")
        record = {"version": 1, "gcc": found, "packages": {item.name: item.sha256 for item in pins.archive}}
        write(work / RECORD, json.dumps(record, indent=2) + "\n")
    if not keep:
        for file in files:
            file.unlink(missing_ok=True)
    return str(prefix / "bin/g++")


def wrap(prefix: Path, major: str) -> None:
    """Write ``bin/g++`` and its sisters, which work from wherever the prefix lies."""
    for name, tool in NAMES.items():
        path = prefix / "bin" / name
        write(path, WRAPPER.format(name=tool, major=major))
        path.chmod(0o755)


def verify(prefix: Path) -> str:
    """Compile, link and run a program with ``<filesystem>``; give the compiler's version."""
    cxx = str(prefix / "bin/g++")
    with tempfile.TemporaryDirectory(prefix="envcheck-gcc-") as name:
        (Path(name) / "x.cpp").write_text(PROGRAM, encoding="ascii")
        process.output([cxx, "-std=c++17", "-O2", "x.cpp", "-o", "x"], cwd=Path(name), timeout=120)
        said = process.output(["./x"], cwd=Path(name)).strip()
    if said != "b4":
        raise WorkError(f"what {cxx} compiled printed {said!r} instead of 'b4'")
    version = process.output([cxx, "-dumpfullversion"]).strip()
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise WorkError(f"{cxx} -dumpfullversion printed {version!r}")
    return version
