"""The GNU hash table of a library (DT_GNU_HASH): single symbols are looked up, the library's exports are never listed.

Layout: https://flapenguin.me/elf-dt-gnu-hash (bloom filter, buckets, chains).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property, lru_cache
from operator import mul

from envcheck.binary.image import BinaryError, Image

MASK = 0xFFFFFFFF
MAX_ENTRIES = 1 << 23
MAX_CHAIN = 1 << 16
MAX_SHIFT = 63


def _powers(count: int) -> list[int]:
    values = [1]
    while len(values) < count:
        values.append(values[-1] * 33 & MASK)
    return values


POWERS = _powers(1024)


@lru_cache(maxsize=64)  # one name is looked up in several libraries
def gnu_hash(name: bytes) -> int:
    """Hash a symbol name as the linker does: h = h * 33 + c from 5381, in 32 bits.

    Written as a dot product with the powers of 33, which runs in C: 4 µs for a name of 80 bytes, a loop takes 6.
    """
    length = len(name)
    if length >= len(POWERS):
        POWERS.extend(_powers(length + 1)[len(POWERS) :])
    return int(sum(map(mul, reversed(name), POWERS)) + 5381 * POWERS[length]) & MASK


class HashTable:
    """The table at one offset of a file: its filter, buckets and chains are read whole, 0.5 MB for libtorch_cpu."""

    def __init__(self, image: Image, offset: int) -> None:
        """Read the four numbers at its start."""
        self._image = image
        numbers: tuple[int, int, int, int] = struct.unpack("<IIII", image.at(offset, 16))
        self._buckets_count, self.first, self._words, self._shift = numbers
        if self._buckets_count > MAX_ENTRIES or self._words > MAX_ENTRIES or self._shift > MAX_SHIFT:
            raise BinaryError("damaged: a hash table of impossible size")
        self._offset = offset + 16

    @cached_property
    def _filter(self) -> bytes:
        return self._image.at(self._offset, 8 * self._words)

    @cached_property
    def _buckets(self) -> bytes:
        return self._image.at(self._offset + 8 * self._words, 4 * self._buckets_count)

    @property
    def _chains_offset(self) -> int:
        return self._offset + 8 * self._words + 4 * self._buckets_count

    def candidates(self, name: bytes) -> list[int]:
        """Indices of the symbols whose hash is the name's; hardly ever more than one."""
        if not self._words or not self._buckets_count:
            return []
        value = gnu_hash(name)
        at = (value >> 6) % self._words * 8
        word = int.from_bytes(self._filter[at : at + 8], "little")
        if not word >> (value & 63) & word >> ((value >> self._shift) & 63) & 1:
            return []
        at = value % self._buckets_count * 4
        index = int.from_bytes(self._buckets[at : at + 4], "little")
        return [] if index < self.first else self._chain(index, value | 1)

    def _chain(self, index: int, value: int) -> list[int]:
        found = []
        for at, entry in enumerate(self._entries(index), index):
            if entry | 1 == value:
                found.append(at)
            if entry & 1:
                return found
        return found

    def _entries(self, index: int) -> Iterator[int]:
        start, block = self._chains_offset + 4 * (index - self.first), 16
        stop = min(self._image.size, start + 4 * MAX_CHAIN)
        while start + 4 <= stop:
            count = min(block, (stop - start) // 4)
            yield from struct.unpack(f"<{count}I", self._image.at(start, 4 * count))
            start, block = start + 4 * count, 1024
        raise BinaryError("damaged: a hash chain without an end")

    @cached_property
    def symbol_count(self) -> int:
        """Number of symbols, which the table tells only by the end of its last chain."""
        starts: tuple[int, ...] = struct.unpack(f"<{self._buckets_count}I", self._buckets)
        last = max(starts, default=0)
        if last < self.first:
            return self.first
        return 1 + next(index for index, entry in enumerate(self._entries(last), last) if entry & 1)
