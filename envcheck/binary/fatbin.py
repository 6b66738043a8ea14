"""The GPU architectures that a library carries code for, from the headers of its CUDA fat binaries.

A section ``.nv_fatbin`` holds containers, each with entries of machine code (cubin) or PTX. The architecture stands in
the entry's header, so compressed entries need no decompression. Layout, checked against nvcc 12.4 and 13.0:
https://github.com/n-eiling/cuda-fatbin-decompression
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator

from envcheck.binary.elf import Elf
from envcheck.binary.image import BinaryError, Image

MAGIC = 0xBA55ED50
CONTAINER = struct.Struct("<IHHQ")
ENTRY = struct.Struct("<H2xIQ12xI8xQ")  # kind, header size, payload size, architecture, flags
PTX, CUBIN = 1, 2
ARCH_SPECIFIC, FAMILY_SPECIFIC = 0x100000, 0x200000
KINDS, SPECIFIC = frozenset({PTX, CUBIN}), ARCH_SPECIFIC | FAMILY_SPECIFIC
HEAD_BYTES = CONTAINER.size + ENTRY.size
MAX_ENTRIES = 200_000
MAX_PADDING_BYTES = 4096
MANY_CONTAINERS = 4

Code = tuple[int, int, int]
"""Kind, architecture and the flags that make it specific, as an entry's header has them."""


def archs(elf: Elf) -> tuple[str, ...]:
    """Architectures in order: ``8.0``, ``9.0a``, ``10.0f`` for machine code, ``9.0+PTX`` for PTX; empty for host code.

    One that occurs in a single container of many is left out: a stray object that was compiled for nvcc's default
    (sm_52 in vllm/_C.abi3.so), not what the library was built for.
    """
    counts: Counter[Code] = Counter()
    for section in elf.sections():
        if section.name == ".nv_fatbin":
            for container in _containers(elf.image, section.offset, min(section.offset + section.size, elf.image.size)):
                counts.update(container)
    most = max(counts.values(), default=0)
    kept = {_name(*code) for code, count in counts.items() if count > 1 or most < MANY_CONTAINERS}
    return tuple(sorted(kept, key=_order))


def _order(arch: str) -> tuple[bool, int, int, str]:
    major, _, rest = arch.partition(".")
    minor = rest.removesuffix("+PTX").rstrip("af")
    return arch.endswith("+PTX"), int(major), int(minor), arch


def _containers(image: Image, start: int, end: int) -> Iterator[set[Code]]:
    """Give the architectures of each container; what follows a damaged one is not read."""
    budget, padding = MAX_ENTRIES, 0
    while start + CONTAINER.size <= end and padding < MAX_PADDING_BYTES:
        head = image.at(start, min(HEAD_BYTES, end - start))
        magic, _, header, size = CONTAINER.unpack_from(head)
        if magic != MAGIC:
            start, padding = start + 8, padding + 8
            continue
        found, read = _entries(image, start + header, min(start + header + size, end), budget, head[header:])
        yield found
        start, budget, padding = start + header + size, budget - read, 0
        if budget <= 0:
            raise BinaryError("damaged: a CUDA fat binary of too many entries")
        start = (start + 7) // 8 * 8


def _entries(image: Image, start: int, end: int, budget: int, head: bytes) -> tuple[set[Code], int]:
    """Architectures of one container, and how many entries were read; ``head`` holds the first one's header."""
    found: set[Code] = set()
    count, entry_bytes, unpack, read = 1, ENTRY.size, ENTRY.unpack_from, image.at  # hot path: thousands in libtorch
    while start + entry_bytes <= end and count < budget:
        kind, header, size, number, flags = unpack(head if len(head) >= entry_bytes else read(start, entry_bytes))
        if header < entry_bytes:
            break
        if number and kind in KINDS:  # other kinds: code for link-time optimisation
            found.add((kind, number, flags & SPECIFIC))
        start += header + size
        count += 1
        head = b""
    return found, count


def _name(kind: int, number: int, flags: int) -> str:
    suffix = "a" if flags & ARCH_SPECIFIC else "f" if flags & FAMILY_SPECIFIC else ""
    return f"{number // 10}.{number % 10}{suffix}" + ("+PTX" if kind == PTX else "")
