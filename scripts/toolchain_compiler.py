"""The host compiler that nvcc is given: a g++ in the range that torch's headers and nvcc both take."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

from envcheck.errors import WorkError
from envcheck.limits import satisfies
from envcheck.stack import Range
from scripts import process


def version(path: str) -> str | None:
    """Ask for the version: ``g++ -dumpfullversion -dumpversion`` prints ``12.2.0``; None where it is no GCC."""
    try:
        text = process.output([path, "-dumpfullversion", "-dumpversion"], timeout=20).strip()
    except WorkError:
        return None
    return text if re.fullmatch(r"\d+(\.\d+)*", text) else None


def candidates(wanted: Range) -> Iterator[str]:
    """Name the compilers to try: what the user set, what PATH gives first, then versioned names, newest first."""
    for name in ("CUDAHOSTCXX", "CXX"):
        if os.environ.get(name):
            yield os.environ[name]
    yield "g++"
    default = int(wanted.default.split(".")[0])
    yield from (f"g++-{major}" for major in range(default, 8, -1))


def host_cxx(wanted: Range) -> tuple[str, str]:
    """Give path and version of the first g++ that fits the stack's range."""
    seen = []
    for name in candidates(wanted):
        path = shutil.which(name)
        found = version(path) if path else None
        if path and found:
            if satisfies(found, wanted.requires):
                return path, found
            seen.append(f"{path} {found}")
    what = f"no g++ {wanted.requires} was found (seen: {', '.join(dict.fromkeys(seen)) or 'none'})"
    raise WorkError(what, fix=f"install g++-{wanted.default}, or set CXX to one that fits ({wanted.reason})")


def cc_of(cxx: str) -> str:
    """Give the C compiler that belongs to a g++: ``/usr/bin/g++-12`` → ``/usr/bin/gcc-12``."""
    directory, name = os.path.split(cxx)
    path = os.path.join(directory, name.replace("g++", "gcc").replace("c++", "cc"))
    return path if os.path.exists(path) else cxx
