"""The operating system: /etc/os-release, the kernel, the C and C++ run-time libraries; files first."""

from __future__ import annotations

import re

from envcheck.codec import Unknown
from envcheck.facts import Os, Text
from envcheck.host import Host

MACHINES = {3: "i686", 21: "ppc64le", 22: "s390x", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
BIG_ENDIAN = 2
LIBRARY_DIRECTORIES = (
    "/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib",
)
GLIBC = re.compile(rb"GNU C Library [^\n]*?(?:stable|development) release version (\d+\.\d+)")
GLIBCXX = re.compile(rb"GLIBCXX_(3\.4(?:\.\d+)?)\x00")


def probe(host: Host) -> Os:
    """Read which system this is."""
    release = read_release(host)
    kernel = _first_line(host, "/proc/sys/kernel/osrelease")
    return Os(
        id=release.get("ID", Unknown("no ID in /etc/os-release")),
        version=release.get("VERSION_ID", Unknown("no VERSION_ID in /etc/os-release (a rolling release has none)")),
        name=release.get("PRETTY_NAME", ""),
        like=tuple(release.get("ID_LIKE", "").split()),
        kernel=kernel,
        machine=machine(host),
        glibc=glibc(host),
        libstdcxx=libstdcxx(host),
        user_id=user_id(host),
        wsl=isinstance(kernel, str) and "microsoft" in kernel.lower(),
    )


def read_release(host: Host) -> dict[str, str]:
    """Give the keys of os-release; empty where there is no such file."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            return parse_release(host.read(path, 64 << 10))
        except OSError:
            continue
    return {}


def parse_release(text: str) -> dict[str, str]:
    """Read lines such as ``ID=ubuntu`` and ``PRETTY_NAME="Ubuntu 22.04.4 LTS"``; other lines are skipped."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def _first_line(host: Host, path: str) -> Text:
    try:
        return host.read(path, 4096).strip() or Unknown(f"{path} is empty")
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")


def machine(host: Host) -> Text:
    """Name the machine by the ELF header of a running program: e_machine, two bytes at offset 18; else ask uname."""
    try:
        with host.open("/proc/self/exe") as file:
            header = file.read(20)
    except OSError:
        header = b""
    if header[:4] == b"\x7fELF" and len(header) == 20:  # noqa: PLR2004  # the bytes that were asked for
        name = MACHINES.get(int.from_bytes(header[18:20], "big" if header[5] == BIG_ENDIAN else "little"))
        if name:
            return name
    done = host.run(["uname", "-m"], timeout=3)
    return done.stdout.strip() if done.ok and done.stdout.strip() else Unknown(f"uname -m: {done.why()}")


def glibc(host: Host) -> Text:
    """Version of the C library: ``libc-2.31.so`` names it, newer files say ``GNU C Library … release version 2.36``."""
    for directory in LIBRARY_DIRECTORIES:
        path = f"{directory}/libc.so.6"
        if not host.exists(path):
            continue
        named = re.search(r"/libc-(\d+\.\d+)\.so$", host.realpath(path))
        return named[1] if named else _glibc_inside(host, path)
    if host.glob("/lib/ld-musl-*.so.1"):
        return Unknown("the C library is musl, not glibc: the wheels of the index do not run here")
    done = host.run(["getconf", "GNU_LIBC_VERSION"], timeout=3)
    found = re.fullmatch(r"glibc (\d+\.\d+)\S*", done.stdout.strip())
    return found[1] if found else Unknown(f"no libc.so.6 in {', '.join(LIBRARY_DIRECTORIES)}")


def _glibc_inside(host: Host, path: str) -> Text:
    try:
        with host.open(path) as file:
            file.seek(file.seek(0, 2) * 2 // 3)  # the text stands at seven eighths of the file
            found = GLIBC.search(file.read(8 << 20))
            if found is None:
                file.seek(0)
                found = GLIBC.search(file.read(8 << 20))
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")
    return found[1].decode() if found else Unknown(f"{path} does not say its version")


def libstdcxx(host: Host) -> Text:
    """Highest GLIBCXX of libstdc++.so.6: the file name 6.0.30 stands for 3.4.30; else the version names inside."""
    for directory in LIBRARY_DIRECTORIES:
        path = f"{directory}/libstdc++.so.6"
        if not host.exists(path):
            continue
        named = re.search(r"libstdc\+\+\.so\.6\.0\.(\d+)$", host.realpath(path))
        return f"3.4.{named[1]}" if named else _glibcxx_inside(host, path)
    return Unknown(f"no libstdc++.so.6 in {', '.join(LIBRARY_DIRECTORIES)}")


def _glibcxx_inside(host: Host, path: str) -> Text:
    try:
        with host.open(path) as file:
            found = GLIBCXX.findall(file.read(8 << 20))
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}")
    if not found:
        return Unknown(f"{path} does not say its version")
    names: list[str] = [name.decode() for name in found]
    return max(names, key=lambda name: [int(part) for part in name.split(".")])


def user_id(host: Host) -> int:
    """Effective user id: the second number of the line ``Uid: 1000 1000 1000 1000`` of /proc/self/status."""
    try:
        found = re.search(r"^Uid:\s+\d+\s+(\d+)", host.read("/proc/self/status", 4096), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) if found else 0
