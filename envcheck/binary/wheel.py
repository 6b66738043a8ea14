"""A wheel verified from its bytes: nothing of it is installed, imported or run."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from envcheck.binary import abi, fatbin
from envcheck.binary.archive import Archive, Member, fault
from envcheck.binary.elf import Elf
from envcheck.binary.image import BinaryError
from envcheck.binary.ldso import Files, Library
from envcheck.binary.symbols import SymbolTables, demangled, owner
from envcheck.host import LocalHost
from envcheck.model import Finding
from envcheck.record import dataclass

SYSTEM = re.compile(
    r"(lib(c|m|dl|rt|pthread|util|stdc\+\+|gcc_s|gomp|atomic|resolv|anl|numa|z|ibverbs|mlx5)|ld-linux[\w-]*)\.so\.\d+"
)
DRIVER = re.compile(r"lib(cuda|nvidia-ml)\.so\.1")
PYTHON_LIBRARY = re.compile(r"libpython\d+\.\d+\w*\.so\.\d+\.\d+")
TORCH_SYMBOLS = frozenset({"libc10", "libc10_cuda", "libtorch_cpu", "libtorch_cuda", "libtorch_python"})
BUILD_PATH = re.compile(rb"(?<![\w.])/(?:[\w.+@~-]+/){1,40}[\w.+@~-]+\.(?:cpp|cc|cxx|cu|cuh|h|hpp|inl|o)\b")
PUBLIC_PATHS = (b"/usr/", b"/opt/rh/", b"/opt/_internal/", b"/proc/", b"/dev/", b"/etc/", b"/lib")
TEXT_SECTIONS = re.compile(r"\.(rodata|debug_|line_str|comment|data)")
MAX_SECTION_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a wheel must be; None or empty: not asked."""

    archs: tuple[str, ...] = ()
    """GPU architectures, as ``9.0`` or ``9.0+PTX``."""
    cxx11_abi: bool | None = None
    glibc_max: str | None = None
    glibcxx_max: str | None = None
    torch_libs: Path | None = None
    """torch/lib of the torch that the wheel is for; the NVIDIA wheels are found beside it."""
    python_tag: str | None = None
    """As ``cp310``."""
    build_paths: tuple[str, ...] = ()
    """Directories of the build, which must not be named inside."""


def verify(  # noqa: PLR0913  # everything that can be asked of a wheel, by keyword
    wheel: Path,
    *,
    archs: Sequence[str] = (),
    cxx11_abi: bool | None = None,
    glibc_max: str | None = None,
    glibcxx_max: str | None = None,
    torch_libs: Path | None = None,
    python_tag: str | None = None,
    build_paths: Sequence[str] = (),
) -> tuple[Finding, ...]:
    """Give what is wrong with a wheel; empty where it is what was asked for. See Wanted for the keywords.

    With an error it must not be installed: a damaged archive, other bytes than RECORD says, missing GPU code, another
    C++ ABI, a floor above the host's, a library or a symbol that neither the wheel nor torch has. With a warning it
    may: build paths, more architectures than asked for, a label that does not match. It never raises for the contents.
    """
    wanted = Wanted(
        archs=tuple(archs),
        cxx11_abi=cxx11_abi,
        glibc_max=glibc_max,
        glibcxx_max=glibcxx_max,
        torch_libs=torch_libs,
        python_tag=python_tag,
        build_paths=tuple(build_paths),
    )
    with Archive(wheel) as archive:
        if not archive.read():
            return tuple(archive.findings)
        return (*archive.findings, *_of_python_tag(archive, wanted), *_Contents(archive, wanted).findings())


def archs_of(wheel: Path) -> tuple[str, ...]:
    """GPU architectures of all code in a wheel, for a receipt; empty where there is none or it cannot be read."""
    files = Files(LocalHost())
    with Archive(wheel) as archive:
        archive.read()
        try:
            return _union(files, archive.members)
        finally:
            files.close()


def _union(files: Files, members: Sequence[Member]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for member in members:
        try:
            elf = files.elf(member.path)
            found.update((arch, None) for arch in (fatbin.archs(elf) if elf else ()))
        except BinaryError:
            continue
    return tuple(found)


def _of_python_tag(archive: Archive, wanted: Wanted) -> Iterator[Finding]:
    """Tags and the names of extension modules against the Python that is asked for."""
    if wanted.python_tag is None or archive.name is None:
        return
    number = int(wanted.python_tag.removeprefix("cp3") or 0)
    if not any(_takes(tag.interpreter, tag.abi, wanted.python_tag, number) for tag in archive.name.tags):
        tags = ", ".join(sorted(map(str, archive.name.tags)))
        yield fault(
            "the wheel is for another Python", found=tags, expected=wanted.python_tag, subject=archive.wheel.name
        )
    for member in archive.members:
        said = abi.python_abi(member.name)
        if said and said.startswith("cpython-") and said != f"cpython-{wanted.python_tag.removeprefix('cp')}":
            yield fault(
                "an extension module is for another Python",
                found=posixpath.basename(member.name),
                expected=wanted.python_tag,
                subject=archive.wheel.name,
            )


def _takes(interpreter: str, abi_tag: str, wanted: str, number: int) -> bool:
    if interpreter in {wanted, "py3", f"py3{number}"}:
        return abi_tag in {wanted, "none", "abi3"}
    lowest = interpreter.removeprefix("cp3")
    return abi_tag == "abi3" and lowest.isdigit() and int(lowest) <= number


class _Contents:
    """The ELF files of one wheel, judged."""

    def __init__(self, archive: Archive, wanted: Wanted) -> None:
        self._archive = archive
        self._wanted = wanted
        self._files = Files(LocalHost())
        self._tables = SymbolTables()

    def findings(self) -> list[Finding]:
        try:
            found = [item for member in self._archive.members for item in self._of_member(member)]
            return [*found, *self._of_archs()]
        finally:
            self._files.close()

    def _fault(self, member: str, summary: str, found: str, expected: str, *, warning: bool = False) -> Finding:
        where = f"{posixpath.basename(member)}: {found}" if member else found
        return fault(summary, found=where, expected=expected, subject=self._archive.wheel.name, warning=warning)

    def _of_member(self, member: Member) -> Iterator[Finding]:
        try:
            elf = self._files.elf(member.path)
            if elf is not None and elf.is_shared:
                yield from self._of_abi(member, elf)
                yield from self._of_floors(member, elf)
                yield from self._of_needed(member, elf)
                yield from self._of_symbols(member, elf)
                yield from self._of_paths(member, elf)
        except BinaryError as error:
            yield self._fault(member.name, "a binary cannot be read", str(error), "an ELF file for this machine")

    def _of_abi(self, member: Member, elf: Elf) -> Iterator[Finding]:
        found = abi.cxx11_abi(elf.undefined())
        if self._wanted.cxx11_abi is not None and found is not None and found is not self._wanted.cxx11_abi:
            words = {True: "the new C++ ABI (__cxx11)", False: "the old C++ ABI"}
            summary = "the C++ ABI is not torch's" + self._lie(found)
            yield self._fault(member.name, summary, words[found], words[self._wanted.cxx11_abi])

    def _lie(self, found: bool) -> str:  # noqa: FBT001  # which ABI it is
        label = re.search(r"cxx11abi(TRUE|FALSE)", self._archive.wheel.name, re.IGNORECASE)
        return f"; its name says {label[0]}" if label and (label[1].upper() == "TRUE") is not found else ""

    def _of_floors(self, member: Member, elf: Elf) -> Iterator[Finding]:
        glibc, glibcxx = abi.floor(elf.needs, "GLIBC"), abi.floor(elf.needs, "GLIBCXX")
        for name, found, most in (
            ("GLIBC", glibc, self._wanted.glibc_max),
            ("GLIBCXX", glibcxx, self._wanted.glibcxx_max),
        ):
            if found and most and abi.release(found) > abi.release(most):
                library = "C library" if name == "GLIBC" else "libstdc++"
                yield self._fault(
                    member.name, f"a newer {library} is needed", f"{name}_{found}", f"at most {name}_{most}"
                )
        promised = self._promised_glibc()
        if glibc and promised and abi.release(glibc) > abi.release(promised):
            summary = "the platform tag promises an older C library than is needed"
            yield self._fault(member.name, summary, f"GLIBC_{glibc}", f"at most GLIBC_{promised}")

    def _promised_glibc(self) -> str | None:
        tags = self._archive.name.tags if self._archive.name else ()
        found = [match for tag in tags if (match := re.match(r"manylinux_(\d+)_(\d+)_", tag.platform))]
        return min((f"{match[1]}.{match[2]}" for match in found), key=abi.release, default=None)

    def _own(self) -> set[str]:
        return {posixpath.basename(member.name) for member in self._archive.members}

    def _beside(self) -> list[str]:
        """Directories of torch's own libraries and of the NVIDIA wheels beside it."""
        place = self._wanted.torch_libs
        if place is None:
            return []
        nvidia = place.parent.parent / "nvidia"
        return [str(place), *(str(path) for path in sorted(nvidia.glob("*/lib")))]

    def _of_needed(self, member: Member, elf: Elf) -> Iterator[Finding]:
        if self._wanted.torch_libs is None:
            return
        own, places = self._own(), self._beside()
        for name in elf.needed:
            if name in own or SYSTEM.fullmatch(name) or DRIVER.fullmatch(name):
                continue
            if PYTHON_LIBRARY.fullmatch(name):
                what = "it links the Python library, which many interpreters do not have"
                yield self._fault(member.name, what, name, "no libpython among the needed libraries", warning=True)
            elif not any(os.path.exists(os.path.join(place, name)) for place in places):
                what = "it needs a library that neither the wheel, torch nor the system has"
                yield self._fault(member.name, what, name, "libraries of the wheel, of torch or of the system")

    def _of_symbols(self, member: Member, elf: Elf) -> Iterator[Finding]:
        if self._wanted.torch_libs is None:
            return
        scope = self._scope
        present = {posixpath.basename(library.path).partition(".so")[0] for library in scope}
        missing = [name for name in self._tables.undefined(elf.undefined(), scope) if _judged(owner(name), present)]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            found = f"{demangled(missing[0])} ({missing[0]}){more}"
            summary = f"{owner(missing[0])} of this torch does not define a symbol that is needed"
            yield self._fault(member.name, summary, found, "symbols that the locked torch defines")

    @cached_property
    def _scope(self) -> list[Library]:
        names = [os.path.join(place, name) for place in self._beside() for name in sorted(os.listdir(place))]
        paths = [name for name in names if ".so" in name] + [member.path for member in self._archive.members]
        found = []
        for path in paths:
            try:
                elf = self._files.elf(path)
            except BinaryError:
                continue
            if elf is not None and elf.is_shared:
                found.append(Library(path=path, through="", elf=elf))
        return found

    def _of_paths(self, member: Member, elf: Elf) -> Iterator[Finding]:
        given = [path.encode() for path in self._wanted.build_paths]
        for section in elf.sections():
            if not TEXT_SECTIONS.match(section.name) or section.occupies_nothing:
                continue
            data = elf.image.at(section.offset, min(section.size, MAX_SECTION_BYTES))
            named = next((path.decode() for path in given if path in data), None)
            if named:
                yield self._fault(member.name, "a directory of the build is named inside", named, "no build paths")
                return
            path = next(
                (hit.group() for hit in BUILD_PATH.finditer(data) if not hit.group().startswith(PUBLIC_PATHS)), None
            )
            if path:
                text = path.decode("ascii", "replace")
                yield self._fault(
                    member.name, "a path of the build is named inside", text, "no build paths", warning=True
                )
                return

    def _of_archs(self) -> Iterator[Finding]:
        """GPU architectures against those asked for; ``9.0a`` serves for 9.0, ``9.0+PTX`` asks for 9.0 and its PTX."""
        if not self._wanted.archs:
            return
        found = set(_union(self._files, self._archive.members))
        asked = {part for arch in self._wanted.archs for part in (arch, arch.removesuffix("+PTX"))}
        missing = {arch for arch in asked if arch not in found and f"{arch}a" not in found}
        shown = ", ".join(sorted(found)) or "no GPU code"
        if missing:
            yield self._fault("", f"no GPU code for {', '.join(sorted(missing))}", shown, ", ".join(sorted(asked)))
        more = {arch for arch in found - asked if not arch.endswith("+PTX") and arch.rstrip("af") not in asked}
        if more:
            what = f"GPU code that was not asked for: {', '.join(sorted(more))}"
            yield self._fault("", what, shown, ", ".join(sorted(asked)), warning=True)


def _judged(library: str | None, present: set[str]) -> bool:
    """Tell whether the library that should have a symbol is among those that were searched."""
    return library in TORCH_SYMBOLS or library in present
