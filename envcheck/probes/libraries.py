"""Every copy of cuDNN and NCCL: headers and libraries, with the one that a build includes and the one that loads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from envcheck.codec import Unknown
from envcheck.facts import LibraryCopy, LoaderEntry, Package, Text, Toolkit
from envcheck.host import Host
from envcheck.probes.places import (
    INCLUDE_DIRECTORIES,
    LIBRARY_DIRECTORIES,
    split,
    toolkit_includes,
    toolkit_libraries,
    unique,
)
from envcheck.record import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A library to look for: file names, version macros, variables that name its place, and its wheel's folder."""

    header: str
    version_headers: tuple[str, ...]
    macros: tuple[str, str, str]
    soname: str
    majors: tuple[int, ...]
    home_variables: tuple[str, ...]
    include_variables: tuple[str, ...]
    module_variables: tuple[str, ...]
    folder: str
    wheel: str


CUDNN = Wanted(
    header="cudnn.h",
    version_headers=("cudnn_version.h", "cudnn.h"),
    macros=("CUDNN_MAJOR", "CUDNN_MINOR", "CUDNN_PATCHLEVEL"),
    soname="libcudnn.so",
    majors=(7, 8, 9, 10, 11),
    home_variables=("CUDNN_PATH", "CUDNN_HOME", "CUDNN_ROOT", "CUDNN_ROOT_DIR"),
    include_variables=("CUDNN_INCLUDE_DIR", "CUDNN_INCLUDE_PATH"),
    module_variables=("EBROOTCUDNN",),
    folder="cudnn",
    wheel="nvidia-cudnn-cu",
)
NCCL = Wanted(
    header="nccl.h",
    version_headers=("nccl.h",),
    macros=("NCCL_MAJOR", "NCCL_MINOR", "NCCL_PATCH"),
    soname="libnccl.so",
    majors=(2, 3),
    home_variables=("NCCL_HOME", "NCCL_ROOT", "NCCL_ROOT_DIR"),
    include_variables=("NCCL_INCLUDE_DIR", "NCCL_INCLUDE_DIRS"),
    module_variables=("EBROOTNCCL",),
    folder="nccl",
    wheel="nvidia-nccl-cu",
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A directory to look in; ``why`` is set where a build looks there by itself, and says through what."""

    path: str
    source: str
    why: str = ""


def probe(
    host: Host,
    wanted: Wanted,
    toolkits: Sequence[Toolkit],
    packages: Sequence[Package],
    loader: Sequence[LoaderEntry],
) -> tuple[LibraryCopy, ...]:
    """Read every copy: headers in the order in which a build looks, then libraries."""
    sites = list(dict.fromkeys(item.location for item in packages if item.name.startswith("nvidia-") and item.location))
    homes = pip_homes(host, wanted, sites)
    return (*headers(host, wanted, toolkits, homes), *libraries(host, wanted, toolkits, homes, packages, loader))


def pip_homes(host: Host, wanted: Wanted, sites: Sequence[str]) -> list[str]:
    """Folders of the wheels: ``nvidia/cudnn`` of the CUDA 12 ones, ``nvidia/cu13`` holds several."""
    homes = [f"{site}/nvidia/{folder}" for site in sites for folder in (wanted.folder, "cu13")]
    return [home for home in homes if host.exists(home)]


def headers(host: Host, wanted: Wanted, toolkits: Sequence[Toolkit], homes: Sequence[str]) -> list[LibraryCopy]:
    """List the copies of the header; the first that a build would find is the selected one."""
    found: list[LibraryCopy] = []
    places = list(_header_places(host, wanted, toolkits, homes))
    first = {place.path: place for place in reversed(places)}
    for path in unique(host, [place.path for place in places]):
        place = first[path]
        if host.exists(f"{path}/{wanted.header}"):
            taken = bool(place.why) and not any(item.selected for item in found)
            copy = LibraryCopy(
                kind="header",
                path=f"{path}/{wanted.header}",
                version=header_version(host, wanted, path),
                source=place.source,
                selected=taken,
                why=place.why if taken else "",
            )
            found.append(copy)
    return found


def _header_places(host: Host, wanted: Wanted, toolkits: Sequence[Toolkit], homes: Sequence[str]) -> Iterator[Place]:
    """In the order of TransformerEngine's cuDNN.cmake and of the compiler's own search.

    https://github.com/NVIDIA/cudnn-frontend/blob/1b0b5eac540b7f8fd19b18f1e6b8427c95503348/cmake/cuDNN.cmake
    """
    yield from _named_includes(host, wanted)
    for toolkit in toolkits:
        for path in toolkit_includes(toolkit.path):
            why = "it lies in the selected toolkit" if toolkit.selected else ""
            yield Place(path=path, source="system" if toolkit.path == "/usr" else "toolkit", why=why)
    for name in ("CPATH", "CPLUS_INCLUDE_PATH", "C_INCLUDE_PATH"):
        for path in split(host.environ.get(name)):
            yield Place(path=path, source="env", why=f"{name} names it")
    for prefix, source in _prefixes(host, wanted):
        on_path = f"{prefix}/bin" in split(host.environ.get("PATH"))
        yield Place(path=f"{prefix}/include", source=source, why=f"{prefix}/bin is on PATH" if on_path else "")
    for path in INCLUDE_DIRECTORIES:
        yield Place(path=path, source="system", why="the compiler looks there by itself")
    for home in homes:
        yield Place(path=f"{home}/include", source="pip")


def _named_includes(host: Host, wanted: Wanted) -> Iterator[Place]:
    environ = host.environ
    for name in wanted.home_variables:
        for inner in ("/include", ""):
            if environ.get(name):
                yield Place(path=environ[name].rstrip("/") + inner, source="env", why=f"{name} names it")
    for name in wanted.include_variables:
        if environ.get(name):
            yield Place(path=environ[name].rstrip("/"), source="env", why=f"{name} names it")


def _prefixes(host: Host, wanted: Wanted) -> Iterator[tuple[str, str]]:
    environ = host.environ
    if environ.get("CONDA_PREFIX"):
        yield environ["CONDA_PREFIX"], "conda"
    for name in wanted.module_variables:
        if environ.get(name):
            yield environ[name].rstrip("/"), "module"


def header_version(host: Host, wanted: Wanted, directory: str) -> Text:
    """Version by the macros of a header, as ``#define CUDNN_MAJOR 9``."""
    for name in wanted.version_headers:
        try:
            text = host.read(f"{directory}/{name}", 256 << 10)
        except OSError:
            continue
        found = parse_macros(text, wanted.macros)
        if found:
            return found
    return Unknown(f"{directory}/{wanted.version_headers[0]} does not say its version")


def parse_macros(text: str, macros: tuple[str, str, str]) -> str | None:
    """Read ``#define NCCL_MAJOR 2`` and its like: 2.21.5; None where one is missing."""
    numbers = [re.search(rf"^#define {macro}\s+(\d+)", text, re.MULTILINE) for macro in macros]
    return ".".join(found[1] for found in numbers if found) if all(numbers) else None


def libraries(  # noqa: PLR0913, PLR0917  # everything that names a copy
    host: Host,
    wanted: Wanted,
    toolkits: Sequence[Toolkit],
    homes: Sequence[str],
    packages: Sequence[Package],
    loader: Sequence[LoaderEntry],
) -> list[LibraryCopy]:
    """List the copies of the shared library; the one that the loader takes is the selected one."""
    found: list[LibraryCopy] = []
    seen: set[str] = set()
    for place in _library_places(host, wanted, toolkits, homes):
        for major in wanted.majors:
            path = f"{place.path}/{wanted.soname}.{major}"
            if host.exists(path) and host.realpath(path) not in seen:
                seen.add(host.realpath(path))
                found.append(_library(host, wanted, place, path, packages))
    return _selected(host, wanted, found, loader)


def _library_places(host: Host, wanted: Wanted, toolkits: Sequence[Toolkit], homes: Sequence[str]) -> Iterator[Place]:
    environ = host.environ
    for home in homes:
        yield Place(path=f"{home}/lib", source="pip")
    for name in wanted.home_variables:
        for inner in ("lib", "lib64"):
            if environ.get(name):
                yield Place(path=f"{environ[name].rstrip('/')}/{inner}", source="env")
    for toolkit in toolkits:
        for path in toolkit_libraries(toolkit.path):
            yield Place(path=path, source="system" if toolkit.path == "/usr" else "toolkit")
    for prefix, source in _prefixes(host, wanted):
        yield Place(path=f"{prefix}/lib", source=source)
    for path in LIBRARY_DIRECTORIES:
        yield Place(path=path, source="system")
    for path in split(environ.get("LD_LIBRARY_PATH")):
        yield Place(path=path, source="env")


def _library(host: Host, wanted: Wanted, place: Place, path: str, packages: Sequence[Package]) -> LibraryCopy:
    stem = wanted.soname.removesuffix(".so")
    major = path.rpartition(".")[2]
    parts = host.glob(f"{place.path}/{stem}_*.so.{major}")
    return LibraryCopy(
        kind="library",
        path=path,
        version=library_version(host, wanted, place, path, packages),
        source=place.source,
        symlink=host.exists(f"{place.path}/{wanted.soname}"),
        sublibraries=tuple(part.rpartition("/")[2] for part in parts),
    )


def library_version(host: Host, wanted: Wanted, place: Place, path: str, packages: Sequence[Package]) -> Text:
    """Version by the file's name (libcudnn.so.9.1.0), by its wheel, or by the header beside it."""
    named = re.search(r"\.so\.(\d+(?:\.\d+)+)$", host.realpath(path))
    if named:
        return named[1]
    wheels = [item for item in packages if item.name.startswith(wanted.wheel) and isinstance(item.version, str)]
    wheel = next((item for item in wheels if item.location and path.startswith(f"{item.location}/")), None)
    if wheel:
        return wheel.version
    for root in (place.path.rpartition("/")[0], place.path.rpartition("/lib/")[0]):
        said = header_version(host, wanted, f"{root}/include")
        if root and isinstance(said, str):
            return said
    return Unknown(f"neither the name of {path} nor a header beside it says its version")


def _selected(host: Host, wanted: Wanted, found: list[LibraryCopy], loader: Sequence[LoaderEntry]) -> list[LibraryCopy]:
    """Mark the copy that the loader takes; where that was not resolved, the wheel's, which torch names by RPATH."""
    entry = next((item for item in loader if item.library.startswith(wanted.soname)), None)
    if entry and isinstance(entry.path, str):
        real = host.realpath(entry.path)
        return [
            replace(item, selected=True, why=f"the loader takes it, through {entry.through}")
            if host.realpath(item.path) == real
            else item
            for item in found
        ]
    index = next((index for index, item in enumerate(found) if item.source == "pip"), None)
    if index is not None:
        found[index] = replace(found[index], selected=True, why="torch names the wheel's copy by RPATH")
    return found
