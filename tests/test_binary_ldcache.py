from __future__ import annotations

import struct

import pytest

from envcheck.binary import ldcache
from envcheck.host import RecordedHost

X86_64, I386 = 0x0303, 0x0003
ENTRIES = [
    (X86_64, "libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1", 0),
    (I386, "libcuda.so.1", "/usr/lib32/libcuda.so.1", 0),
    (X86_64, "libm.so.6", "/usr/lib/glibc-hwcaps/x86-64-v3/libm.so.6", 1 << 62),
    (X86_64, "libm.so.6", "/usr/lib/libm.so.6", 0),
    (0x0A03, "libarm.so", "/usr/lib/libarm.so", 0),
]
EXPECTED = {"libcuda.so.1": "/usr/lib/x86_64-linux-gnu/libcuda.so.1", "libm.so.6": "/usr/lib/libm.so.6"}


def new(entries: list[tuple[int, str, str, int]] = ENTRIES) -> bytes:
    strings, rows = b"", b""
    start = 48 + 24 * len(entries)
    for flags, name, file, capabilities in entries:
        at = start + len(strings)
        strings += name.encode() + b"\0" + file.encode() + b"\0"
        rows += struct.pack("<iIIIQ", flags, at, at + len(name) + 1, 0, capabilities)
    return b"glibc-ld.so.cache1.1" + struct.pack("<II20x", len(entries), len(strings)) + rows + strings


def old(entries: list[tuple[int, str, str, int]] = ENTRIES) -> bytes:
    strings, rows = b"", b""
    for flags, name, file, _ in entries:
        rows += struct.pack("<iII", flags, len(strings), len(strings) + len(name) + 1)
        strings += name.encode() + b"\0" + file.encode() + b"\0"
    return b"ld.so-1.7.0\0" + struct.pack("<I", len(entries)) + rows + strings


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(new(), EXPECTED, id="new"),
        pytest.param(old() + bytes(-len(old()) % 8) + new(), EXPECTED, id="new-behind-old"),
        pytest.param(old([ENTRIES[0], ENTRIES[1], ENTRIES[3]]), EXPECTED, id="old"),
        pytest.param(b"", {}, id="empty"),
        pytest.param(b"something else", {}, id="garbage"),
        pytest.param(new()[:60], {}, id="truncated-new"),
        pytest.param(new()[:-30], {}, id="strings-cut"),
        pytest.param(old()[:14], {}, id="truncated-old"),
    ],
)
def test_parse(data: bytes, expected: dict[str, str]) -> None:
    assert ldcache.parse(data, ldcache.ABIS["x86_64"]) == expected


def test_another_machine_takes_its_own_entries() -> None:
    host = RecordedHost(files={"/etc/ld.so.cache": new()})
    assert ldcache.read(host, "aarch64") == {"libarm.so": "/usr/lib/libarm.so"}
    assert ldcache.read(host, "x86_64") == EXPECTED


def test_no_cache_is_an_empty_one() -> None:
    assert ldcache.read(RecordedHost(), "x86_64") == {}
