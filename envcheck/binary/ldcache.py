"""/etc/ld.so.cache, read as the loader does: both formats, and no program is run."""

from __future__ import annotations

import struct

from envcheck.binary.image import BinaryError, open_image
from envcheck.host import Host

OLD_MAGIC, NEW_MAGIC = b"ld.so-1.7.0", b"glibc-ld.so.cache1.1"
MAX_BYTES = 16 << 20
# Flags of sysdeps/generic/ldconfig.h: low byte the kind (3: ELF for libc 6), next byte the ABI.
KIND_ELF_LIBC6 = 3
ABIS = {"x86_64": 3, "aarch64": 10, "ppc64": 5, "riscv": 16, "s390": 4}


def read(host: Host, machine: str, path: str = "/etc/ld.so.cache") -> dict[str, str]:
    """Soname -> file for 64-bit libraries of the machine; empty where there is no cache that can be read.

    Entries for CPU features (glibc-hwcaps) are passed over: none of the libraries that matter here has them.
    """
    try:
        with open_image(host, path) as image:
            return parse(image.at(0, min(image.size, MAX_BYTES)), ABIS.get(machine, 0))
    except BinaryError:
        return {}


def parse(data: bytes, abi: int) -> dict[str, str]:
    """Read a cache: the new format, alone or behind the old one; else the old one alone.

    Old: 11 bytes magic, count, then (flags, name, file) each; new: 20 bytes magic, count, string size, 20 bytes more,
    then (flags, name, file, OS version, hardware capabilities). Offsets count from each format's own start.
    """
    try:
        start = data.find(NEW_MAGIC, 0, len(data))
        if start >= 0:
            return _new(data[start:], abi)
        return _old(data, abi) if data.startswith(OLD_MAGIC) else {}
    except (struct.error, BinaryError):
        return {}


def _new(data: bytes, abi: int) -> dict[str, str]:
    count = struct.unpack_from("<I", data, 20)[0]
    found: dict[str, str] = {}
    for index in range(min(count, len(data) // 24)):
        flags, name, file, _, capabilities = struct.unpack_from("<iIIIQ", data, 48 + 24 * index)
        if not capabilities and _wanted(flags, abi):
            found.setdefault(_string(data, name), _string(data, file))
    return found


def _old(data: bytes, abi: int) -> dict[str, str]:
    count = struct.unpack_from("<I", data, 12)[0]
    count = min(count, len(data) // 12)
    strings = 16 + 12 * count
    found: dict[str, str] = {}
    for index in range(count):
        flags, name, file = struct.unpack_from("<iII", data, 16 + 12 * index)
        if _wanted(flags, abi):
            found.setdefault(_string(data, strings + name), _string(data, strings + file))
    return found


def _wanted(flags: int, abi: int) -> bool:
    return flags & 0xFF == KIND_ELF_LIBC6 and flags >> 8 & 0xFF == abi


def _string(data: bytes, at: int) -> str:
    end = data.find(b"\0", at, at + 4096)
    if end < 0:
        raise BinaryError("damaged")
    return data[at:end].decode("utf-8", "replace")
