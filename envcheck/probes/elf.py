"""The binaries of the packages that matter, each read in the process that would load it; nothing is imported."""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterator, Sequence

from envcheck import limits
from envcheck.binary import extension, fatbin
from envcheck.binary.image import BinaryError
from envcheck.binary.ldso import Files, Library, Process
from envcheck.binary.symbols import SymbolTables
from envcheck.facts import Extension, Package
from envcheck.host import Host
from envcheck.probes.loader import WATCHED, Processes
from envcheck.record import replace

TABLE = "extensions"
MAX_FILES = 400
OTHER_CUDA = re.compile(r"_cu(\d+)\b")


def probe(processes: Processes, packages: Sequence[Package]) -> tuple[Package, ...]:
    """Give the packages with their extensions."""
    rows = {name: row.give for row in limits.shipped(TABLE).row for name in row.when}
    reader = Reader(processes)
    return tuple(reader.of(package, rows.get(package.name)) for package in packages)


class Reader:
    """What all packages of one run share."""

    def __init__(self, processes: Processes, *, with_archs: bool = True) -> None:
        """Read nothing yet; without ``with_archs`` someone else reads those of torch."""
        self._with_archs = with_archs
        self.host = processes.host
        self._processes = processes
        self._tables = SymbolTables()

    def of(self, package: Package, give: dict[str, str] | None) -> Package:
        """Add the extensions that a row names; to torch its architectures, and its libraries where shadowed."""
        if package.name == "torch":
            return self.of_torch(package)
        return package if give is None else self.of_package(package, give)

    def of_package(self, package: Package, give: dict[str, str]) -> Package:
        """Add the extensions that a row of the table names."""
        host, site = self._processes.host, package.location
        process = self._processes.bare if give.get("torch") == "no" else self._processes.with_torch
        if "opens" in give or "loads" in give:
            process = process.branch()
            self._processes.open_first(process, site, give)
        paths = self._chosen(find(host, site, give["files"]), give)
        return replace(package, extensions=tuple(self._extension(process, path) for path in paths))

    def _extension(self, process: Process, path: str) -> Extension:
        return extension.read(self._processes.files, process, self._tables, path)

    def _chosen(self, paths: list[str], give: dict[str, str]) -> list[str]:
        """Of files for several CUDA majors, those for torch's."""
        cuda = self._processes.torch.cuda if self._processes.torch else None
        if give.get("chosen") != "cuda" or not isinstance(cuda, str):
            return paths
        fitting = [path for path in paths if not (found := OTHER_CUDA.search(path)) or cuda.startswith(found.group(1))]
        return fitting or paths

    def of_torch(self, package: Package) -> Package:
        """Add architectures, and the libraries that would take another file than torch's wheels give."""
        archs = package.archs or (torch_archs(self._processes.files, package) if self._with_archs else ())
        return replace(package, archs=archs, extensions=tuple(self._shadowed()))

    def _shadowed(self) -> Iterator[Extension]:
        """Check torch's own libraries against a CUDA library that comes from elsewhere: seldom, so seldom paid for."""
        libraries = self._processes.with_torch.libraries
        for library in libraries:
            if any(self._foreign(name, need) for name, need in library.needs.items()):
                yield self._extension(self._processes.bare, library.path)

    def _foreign(self, name: str, found: Library | None) -> bool:
        wanted = self._processes.of_wheel(name)
        if found is None or wanted is None or not WATCHED.fullmatch(name):
            return False
        real = self._processes.host.realpath
        return real(wanted) != real(found.path)


def torch_archs(files: Files, package: Package) -> tuple[str, ...]:
    """GPU architectures of torch's own library; none where it cannot be read."""
    try:
        elf = files.elf(f"{package.location}/torch/lib/libtorch_cuda.so")
        return fatbin.archs(elf) if elf else ()
    except BinaryError:
        return ()


def find(host: Host, site: str, patterns: str) -> list[str]:
    """Files below a site directory that match space-separated patterns, each file once however it is named."""
    found: dict[str, str] = {}
    for pattern in patterns.split():
        for path in _matches(host, site, pattern.split("/")):
            if len(found) < MAX_FILES:
                found.setdefault(host.realpath(path), path)
    return list(found.values())


def _matches(host: Host, place: str, parts: list[str]) -> Iterator[str]:
    first, rest = parts[0], parts[1:]
    if not any(letter in first for letter in "*?["):
        path = posixpath.join(place, first)
        if rest:
            yield from _matches(host, path, rest)
        elif host.exists(path):
            yield path
        return
    for name in host.listdir(place):
        if fnmatch.fnmatchcase(name, first):
            path = posixpath.join(place, name)
            yield from _matches(host, path, rest) if rest else (path,)
