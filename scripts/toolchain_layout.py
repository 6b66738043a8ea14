"""From archives to a CUDA_HOME: where each file of a Debian package or a vendor archive goes, and nvcc's profile."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from envcheck.errors import WorkError
from scripts.toolchain_pins import Archive, SourceName

TARGET = "targets/x86_64-linux"
STATIC = ("libcudart_static.a", "libcudadevrt.a", "libculibos.a")
"""Static libraries that builds link; the others are 2.5 GB that nothing here asks for."""

LINKS = {
    "include": f"{TARGET}/include",
    "lib64": f"{TARGET}/lib",
    "nvvm/lib64/libnvvm.so": f"../../{TARGET}/lib/libnvvm.so",
    "extras/CUPTI/include": f"../../{TARGET}/include",
    "extras/CUPTI/lib64": f"../../{TARGET}/lib",
}

PROFILE = """\
TOP                = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH              += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES          += {includes} $(_SPACE_)
LIBRARIES         =+ $(_SPACE_) "-L$(TOP)/targets/x86_64-linux/lib/stubs" "-L$(TOP)/targets/x86_64-linux/lib"
CUDAFE_FLAGS      +=
PTXAS_FLAGS       +=
"""

HEADERS = "$(TOP)/targets/x86_64-linux/include"
GLIBC_WITH_OTHER_MATH = (2, 41)
"""From here on the C library declares cospi() and others with an exception specification that CUDA 12.4's headers
contradict; as system headers they are let pass."""

PROGRAM_LIBRARY = re.compile(r"/lib(isl|mpc|mpfr|gmp|zstd|z|bfd|opcodes|ctf|cc1)[-.\w]*\.so[.\d]*$")

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60


def debian_place(path: str) -> str | None:
    """Give the place in CUDA_HOME of a file of a Debian package; None: not wanted.

    ``usr/lib/nvidia-cuda-toolkit/bin/cicc`` → ``nvvm/bin/cicc``; ``usr/bin/nvcc`` is a wrapper, not wanted.
    """
    own = "usr/lib/nvidia-cuda-toolkit/"
    if path.startswith("usr/include/"):
        return f"{TARGET}/include/{path[len('usr/include/') :]}"
    if path.startswith("usr/lib/x86_64-linux-gnu/"):
        return _library(path[len("usr/lib/x86_64-linux-gnu/") :])
    if path.startswith(own):
        return _tool(path[len(own) :])
    if path.startswith("usr/bin/"):
        name = path[len("usr/bin/") :]
        return None if name in {"nvcc", "nvprof", "compute-sanitizer"} else f"bin/{name}"
    if path.startswith("usr/share/doc/") and path.endswith("/copyright"):
        return f"share/doc/{path[len('usr/share/doc/') :]}"
    return None


def _library(name: str) -> str | None:
    """Place a library; ``libnpp*``, debugger parts and big static libraries are left out."""
    if name.startswith(("libnpp", "cuda-gdb/", "pkgconfig/")):
        return None
    if name.endswith(".a") and name not in STATIC:
        return None
    return f"{TARGET}/lib/{name}"


def _tool(path: str) -> str | None:
    if path in {"bin/gcc", "bin/g++", "bin/nvcc.profile"}:
        return None
    if path == "bin/cicc":
        return "nvvm/bin/cicc"
    if path.startswith("libdevice/"):
        return f"nvvm/{path}"
    return path if path.startswith(("bin/", "compute-sanitizer/")) else None


def redist_place(path: str) -> str | None:
    """Give the place in CUDA_HOME of a file of a vendor archive, whose first folder is the archive's name."""
    top, _, rest = path.partition("/")
    if rest == "LICENSE":
        return f"share/doc/{top.split('-')[0]}/LICENSE"
    if rest == "bin/nvcc.profile":
        return None
    if rest.startswith("include/"):
        return f"{TARGET}/{rest}"
    if rest.startswith("lib/"):
        return _library(rest[len("lib/") :])
    return rest if rest.startswith(("bin/", "nvvm/", "compute-sanitizer/")) else None


def gcc_place(path: str) -> str | None:
    """Give the place of a file of the compiler's packages: as it is, but the compiler's own libraries are set apart.

    On LD_LIBRARY_PATH they must not bring this prefix's C library to the host's programs.
    """
    if PROGRAM_LIBRARY.search(path):
        return f"programs/lib/{path.rsplit('/', 1)[-1]}"
    if path.startswith("usr/share/doc/"):
        return f"share/doc/{path[len('usr/share/doc/') :]}" if path.endswith("/copyright") else None
    return path if path.startswith(("usr/bin/", "usr/lib/", "usr/include/", "lib/", "lib64/")) else None


PLACES: dict[SourceName, Callable[[str], str | None]] = {
    "debian": debian_place,
    "redist": redist_place,
    "gcc": gcc_place,
}


def unpack(kind: SourceName, archive: Archive, file: Path, into: Path) -> None:
    """Unpack the wanted files of one archive straight to their places."""
    try:
        with file.open("rb") as raw:
            source = raw if kind == "redist" else _data_member(raw, archive)
            with tarfile.open(fileobj=source, mode="r|*") as tar:
                for member, place in _wanted(tar, PLACES[kind]):
                    if member.islnk():
                        _same(into, PLACES[kind](_normal(member.linkname)), into / place)
                        continue
                    _write(tar, member, into / place, into, whole=kind == "gcc")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise WorkError(f"{archive.path} could not be unpacked: {error}", fix="run it again") from error


def _data_member(raw: BinaryIO, archive: Archive) -> BinaryIO:
    """Find ``data.tar.*`` in a .deb (an ``ar`` archive); its compression is xz or gzip, which tarfile reads."""
    if raw.read(len(AR_MAGIC)) != AR_MAGIC:
        raise ValueError("not a Debian package")
    while header := raw.read(AR_HEADER_BYTES):
        name, size = header[:16].decode("ascii").strip(), int(header[48:58])
        if name.startswith("data.tar"):
            return raw
        raw.seek(size + size % 2, os.SEEK_CUR)
    msg = f"{archive.name} has no data.tar"
    raise ValueError(msg)


def _wanted(tar: tarfile.TarFile, place: Callable[[str], str | None]) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for member in tar:
        path = _normal(member.name)
        target = None if ".." in path.split("/") or member.isdir() else place(path)
        if target is not None:
            yield member, target


def _normal(name: str) -> str:
    return str(PurePosixPath(name))


def _same(root: Path, place: str | None, path: Path) -> None:
    """Make a second name of a file that was unpacked before (a hard link in the archive)."""
    if place is not None and (root / place).is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.link(root / place, path)


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, root: Path, *, whole: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        _link(path, member.linkname, root, whole=whole)
        return
    source = tar.extractfile(member) if member.isfile() else None
    if source is None:
        return
    with source, path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def _link(path: Path, target: str, root: Path, *, whole: bool) -> None:
    """Make a link within the prefix; one that would leave it is left out. ``whole``: the prefix stands for ``/``."""
    if whole and target.startswith("/"):
        target = os.path.relpath(root / target.lstrip("/"), path.parent)
    inside = Path(os.path.normpath(path.parent / target)).is_relative_to(root)
    if inside and not target.startswith("/") and not os.path.lexists(path):
        path.symlink_to(target)


def profile(glibc: tuple[int, ...]) -> str:
    """Write nvcc.profile for a host with this C library."""
    system = f' "-isystem" "{HEADERS}"' if glibc >= GLIBC_WITH_OTHER_MATH else ""
    return PROFILE.format(includes=f'"-I{HEADERS}"{system}')


def host_glibc() -> tuple[int, ...]:
    """Ask for the C library's version: ``glibc 2.36``; empty where it is another."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ()
    parts = version.split(".")
    return tuple(map(int, parts)) if name == "glibc" and all(part.isdecimal() for part in parts) else ()


def finish(prefix: Path, glibc: tuple[int, ...]) -> None:
    """Add the links and the profile that make a CUDA_HOME of the unpacked files; drop links that lead nowhere."""
    for name, target in LINKS.items():
        path = prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(path):
            path.symlink_to(target)
    (prefix / "bin/nvcc.profile").write_text(profile(glibc), encoding="ascii")
    for path in sorted(prefix.rglob("*")):
        if path.is_symlink() and not path.exists():
            path.unlink()
