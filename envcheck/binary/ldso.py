"""Which file the loader would take for each needed library, worked out as ld.so(8) does and without loading anything.

Order: what is loaded already, DT_RPATH of the object and of those that load it, LD_LIBRARY_PATH, DT_RUNPATH of the
object, the cache, the default directories. A file of another machine is passed over;
glibc-hwcaps directories are not modelled.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from envcheck.binary import ldcache
from envcheck.binary.elf import Elf
from envcheck.binary.header import ForeignError
from envcheck.binary.image import BinaryError, open_image
from envcheck.host import Host

TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "ppc64": "powerpc64le-linux-gnu"}
MAX_LIBRARIES = 2000


class Library:
    """One file in the process: ``needs`` maps each needed name to its library, None where the loader finds none."""

    def __init__(
        self, *, path: str, through: str, elf: Elf | None, fault: str = "", loader: Library | None = None
    ) -> None:
        """Keep what is known; its needs are worked out later."""
        self.path = path
        self.through = through
        self.elf = elf
        self.fault = fault
        self.loader = loader
        self.needs: dict[str, Library | None] = {}
        self.places: list[tuple[str, str]] | None = None
        """Directories in which its needs are searched, and through what; worked out when first asked for."""

    @property
    def origin(self) -> str:
        """What $ORIGIN stands for."""
        return posixpath.dirname(self.path)

    def closure(self) -> list[Library]:
        """Itself and everything that it needs, breadth first, each once."""
        found, waiting, seen = [], deque([self]), {id(self)}
        while waiting:
            library = waiting.popleft()
            found.append(library)
            for need in library.needs.values():
                if need is not None and id(need) not in seen:
                    seen.add(id(need))
                    waiting.append(need)
        return found


class Files:
    """ELF files that were opened once, shared by all processes that are worked out on a host; close it at the end."""

    def __init__(self, host: Host) -> None:
        """Open nothing yet."""
        self.host = host
        self._elves: dict[str, Elf | BinaryError | None] = {}
        self._caches: dict[str, dict[str, str]] = {}

    def cache(self, machine: str) -> dict[str, str]:
        """Give the loader's cache for a machine: soname -> file."""
        if machine not in self._caches:
            self._caches[machine] = ldcache.read(self.host, machine)
        return self._caches[machine]

    def elf(self, path: str) -> Elf | None:
        """Give a file, None where there is none of that name; raise BinaryError where it is not a library."""
        if path not in self._elves:
            self._elves[path] = self._open(path)
        found = self._elves[path]
        if isinstance(found, BinaryError):
            raise found
        return found

    def _open(self, path: str) -> Elf | BinaryError | None:
        if not self.host.exists(path):
            return None
        try:
            image = open_image(self.host, path)
        except BinaryError as error:
            return error
        try:
            return Elf(image)
        except BinaryError as error:
            image.close()
            return error

    def close(self) -> None:
        """Close all files."""
        for elf in self._elves.values():
            if isinstance(elf, Elf):
                elf.image.close()
        self._elves.clear()


class Process:
    """A process of one program, before or after it has loaded this and that."""

    def __init__(self, files: Files, program: str, environ: Mapping[str, str]) -> None:
        """Load the program, what LD_PRELOAD names and all that they need."""
        self._files = files
        self._environ = environ
        self._names: dict[str, Library] = {}
        self._libraries: dict[str, Library] = {}
        self.everywhere: list[Library] = []
        """Whose symbols every later library sees, beside those of what it needs itself."""
        self.program = self._open_program(program)
        self._fill(self.program)
        self.everywhere += self.program.closure()
        for name in environ.get("LD_PRELOAD", "").replace(":", " ").split():
            self.load(name, through="LD_PRELOAD", everywhere=True)

    def _open_program(self, program: str) -> Library:
        path = self._files.host.realpath(program)
        library = Library(path=path, through="program", elf=None)
        try:
            library.elf = self._files.elf(path)
        except BinaryError as error:
            library.fault = str(error)
        self._libraries[path] = library
        return library

    def branch(self) -> Process:
        """Give a copy: what it loads is not seen here."""
        copy = object.__new__(Process)
        copy._files, copy._environ, copy.program = self._files, self._environ, self.program
        copy._names, copy._libraries = dict(self._names), dict(self._libraries)
        copy.everywhere = list(self.everywhere)
        return copy

    @property
    def libraries(self) -> tuple[Library, ...]:
        """Everything that is loaded."""
        return tuple(self._libraries.values())

    @property
    def machine(self) -> str:
        """Machine of the program; empty where the program cannot be read."""
        return self.program.elf.machine if self.program.elf else ""

    def load(
        self, name: str, *, through: str = "", everywhere: bool = False, loader: Library | None = None
    ) -> Library | None:
        """Load a library by name or path as dlopen does, with all that it needs; None where it is not found."""
        found = self._resolve(name, loader or self.program)
        if found is None:
            return None
        if through:
            found.through = through
        self._fill(found)
        if everywhere:
            self.everywhere += [library for library in found.closure() if library not in self.everywhere]
        return found

    def _fill(self, start: Library) -> None:
        """Resolve what a library needs, breadth first, as the loader does."""
        waiting = deque([start])
        while waiting and len(self._libraries) < MAX_LIBRARIES:
            library = waiting.popleft()
            for name in self._needed(library):
                if name not in library.needs:
                    known = len(self._libraries)
                    found = library.needs[name] = self._resolve(name, library)
                    if found is not None and len(self._libraries) > known:
                        waiting.append(found)

    @staticmethod
    def _needed(library: Library) -> tuple[str, ...]:
        try:
            return library.elf.needed if library.elf else ()
        except BinaryError as error:
            library.fault = str(error)
            return ()

    def _resolve(self, name: str, loader: Library) -> Library | None:
        if name in self._names:
            return self._names[name]
        for path, through in self._candidates(name, loader):
            found = self._take(path, through, loader)
            if found is not None:
                self._names[name] = found
                return found
        return None

    def _take(self, path: str, through: str, loader: Library) -> Library | None:
        fault = ""
        try:
            elf = self._files.elf(path)
            if elf is None or (self.machine and elf.machine != self.machine):
                return None
        except ForeignError:
            return None
        except BinaryError as error:  # the loader stops at such a file too
            elf, fault = None, str(error)
        real = self._files.host.realpath(path)
        if real in self._libraries:
            return self._libraries[real]
        library = Library(path=path, through=through, elf=elf, fault=fault, loader=loader)
        self._libraries[real] = library
        soname = _soname(elf)
        if soname:
            self._names.setdefault(soname, library)
        return library

    def _candidates(self, name: str, loader: Library) -> Iterator[tuple[str, str]]:
        if "/" in name:
            yield expand(name, loader.origin, self.machine), "path"
            return
        if loader.places is None:
            loader.places = [(place, through) for through, places in self._places(loader) for place in places]
        for directory, through in loader.places:
            yield f"{directory}/{name}", through
        if loader.elf is not None and loader.elf.no_default_directories:
            return
        cache = self._files.cache(self.machine or "x86_64")
        if name in cache:
            yield cache[name], "cache"
        for directory in default_directories(self.machine):
            yield f"{directory}/{name}", "default"

    def _places(self, loader: Library) -> Iterator[tuple[str, list[str]]]:
        elf = loader.elf
        if elf is None or not elf.runpath:
            yield "RPATH", list(self._rpath(loader))
        paths = self._environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":")
        origin = self.program.origin
        yield "LD_LIBRARY_PATH", [expand(path, origin, self.machine) for path in paths if path]
        if elf is not None:
            yield "RUNPATH", [expand(path, loader.origin, self.machine) for path in elf.runpath]

    def _rpath(self, loader: Library) -> Iterator[str]:
        chain: list[Library] = []
        at: Library | None = loader
        while at is not None and at not in chain:
            chain.append(at)
            at = at.loader
        if self.program not in chain:
            chain.append(self.program)
        for library in chain:
            for path in library.elf.rpath if library.elf else ():
                yield expand(path, library.origin, self.machine)


def _soname(elf: Elf | None) -> str:
    try:
        return elf.soname if elf else ""
    except BinaryError:
        return ""


def expand(path: str, origin: str, machine: str) -> str:
    """Put in what $ORIGIN, $LIB and $PLATFORM stand for."""
    if "$" not in path:
        return path.rstrip("/") or path
    for token, value in (("ORIGIN", origin), ("LIB", "lib64"), ("PLATFORM", machine)):
        path = path.replace(f"${{{token}}}", value).replace(f"${token}", value)
    return posixpath.normpath(path)


def default_directories(machine: str) -> Iterable[str]:
    """Where the loader looks last: Debian's directories of the machine and the plain ones."""
    triplet = TRIPLETS.get(machine)
    if triplet:
        yield from (f"/lib/{triplet}", f"/usr/lib/{triplet}")
    yield from ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
