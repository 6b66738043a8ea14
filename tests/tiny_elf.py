"""ELF files, CUDA fat binaries and wheels made in memory, as small as the readers allow."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

from envcheck.binary.gnuhash import gnu_hash

GLOBAL, WEAK = 1, 2


class _Strings:
    def __init__(self) -> None:
        self.data = b"\0"

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


def shared(
    *,
    needed: Sequence[str] = (),
    soname: str = "",
    rpath: str = "",
    runpath: str = "",
    undefined: Sequence[str] = (),
    weak: Sequence[str] = (),
    defined: Sequence[str] = (),
    needs: Mapping[str, Sequence[str]] | None = None,
    symbol_versions: Mapping[str, str] | None = None,
    weak_versions: Sequence[str] = (),
    defined_versions: Sequence[str] = (),
    sections: Mapping[str, bytes] | None = None,
    machine: int = 62,
    sysv: bool = False,
    no_default: bool = False,
) -> bytes:
    """Make a 64-bit little-endian shared object; addresses are offsets; ``symbol_versions``: symbol -> version."""
    strings = _Strings()
    dynamic = [(1, strings.add(name)) for name in needed]
    for tag, text in ((14, soname), (15, rpath), (29, runpath)):
        if text:
            dynamic.append((tag, strings.add(text)))
    if no_default:
        dynamic.append((0x6FFFFFFB, 0x800))
    buckets = 4
    exported = sorted(defined, key=lambda name: gnu_hash(name.encode()) % buckets)
    rows = [(0, 0, 0)]
    rows += [(strings.add(name), GLOBAL << 4, 0) for name in undefined]
    rows += [(strings.add(name), WEAK << 4, 0) for name in weak]
    first = len(rows)
    rows += [(strings.add(name), GLOBAL << 4, 1) for name in exported]
    symbols = b"".join(struct.pack("<IBBHQQ", at, info, 0, where, 0x1000 * where, 0) for at, info, where in rows)
    names = ["", *undefined, *weak, *exported]
    indices = _version_indices(needs or {})
    verneed = _verneed(strings, needs or {}, indices, weak_versions)
    verdef = _verdef(strings, soname, defined_versions)
    versym = b"".join(struct.pack("<H", indices.get((symbol_versions or {}).get(name, ""), 1)) for name in names)
    table = _sysv(len(rows)) if sysv else _gnu(exported, first, buckets)
    parts = [strings.data, symbols, table, versym, verneed, verdef]
    at, places = 64 + 2 * 56, []
    for part in parts:
        at = (at + 7) // 8 * 8
        places.append(at)
        at += len(part)
    dynamic += [(5, places[0]), (10, len(strings.data)), (6, places[1]), (11, 24)]
    dynamic.append((4 if sysv else 0x6FFFFEF5, places[2]))
    if needs:
        dynamic += [(0x6FFFFFF0, places[3]), (0x6FFFFFFE, places[4]), (0x6FFFFFFF, len(needs))]
    if defined_versions:
        dynamic += [(0x6FFFFFFC, places[5]), (0x6FFFFFFD, len(defined_versions) + 1)]
    dynamic.append((0, 0))
    dynamic_at = (at + 7) // 8 * 8
    body = bytearray(dynamic_at)
    for place, part in zip(places, parts, strict=True):
        body[place : place + len(part)] = part
    body += b"".join(struct.pack("<QQ", tag, value) for tag, value in dynamic)
    end = len(body)
    table_at, count, extra = _sections(end, sections or {})
    body += extra
    body[:64] = _header(machine, programs=2, sections=table_at, count=count)
    body[64:120] = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, 4096)
    body[120:176] = struct.pack("<IIQQQQQQ", 2, 6, dynamic_at, dynamic_at, 0, 16 * len(dynamic), 0, 8)
    return bytes(body)


def _header(machine: int, *, programs: int, sections: int, count: int) -> bytes:
    start = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    rest = (3, machine, 1, 0, 64, sections, 0, 64, 56, programs, 64 if count else 0, count, max(count - 1, 0))
    return start + struct.pack("<HHIQQQIHHHHHH", *rest)


def _version_indices(needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    names = [name for versions in needs.values() for name in versions]
    return {name: index for index, name in enumerate(names, 2)}


def _verneed(
    strings: _Strings, needs: Mapping[str, Sequence[str]], indices: Mapping[str, int], weak: Sequence[str]
) -> bytes:
    data = b""
    for position, (library, versions) in enumerate(needs.items()):
        last = position == len(needs) - 1
        size = 16 + 16 * len(versions)
        data += struct.pack("<HHIII", 1, len(versions), strings.add(library), 16, 0 if last else size)
        for place, name in enumerate(versions):
            step = 0 if place == len(versions) - 1 else 16
            data += struct.pack("<IHHII", 0, 2 if name in weak else 0, indices[name], strings.add(name), step)
    return data


def _verdef(strings: _Strings, soname: str, versions: Sequence[str]) -> bytes:
    data = b""
    for position, name in enumerate([soname, *versions] if versions else []):
        step = 0 if position == len(versions) else 28
        flags = 1 if position == 0 else 0
        data += struct.pack("<HHHHIII", 1, flags, position + 1, 1, 0, 20, step)
        data += struct.pack("<II", strings.add(name), 0)
    return data


def _gnu(exported: Sequence[str], first: int, buckets: int) -> bytes:
    words, shift = 1, 6
    bloom, starts, chain = 0, [0] * buckets, []
    hashes = [gnu_hash(name.encode()) for name in exported]
    for index, value in enumerate(hashes):
        bloom |= 1 << value % 64 | 1 << (value >> shift) % 64
        bucket = value % buckets
        starts[bucket] = starts[bucket] or first + index
        is_last = index + 1 == len(hashes) or hashes[index + 1] % buckets != bucket
        chain.append(value & ~1 | int(is_last))
    head = struct.pack("<IIII", buckets, first, words, shift)
    return (
        head + struct.pack("<Q", bloom) + struct.pack(f"<{buckets}I", *starts) + struct.pack(f"<{len(chain)}I", *chain)
    )


def _sysv(count: int) -> bytes:
    return struct.pack(f"<{3 + count}I", 1, count, *([0] * (1 + count)))


def _sections(at: int, sections: Mapping[str, bytes]) -> tuple[int, int, bytes]:
    """Offset of the table, number of sections, and the bytes to append."""
    if not sections:
        return 0, 0, b""
    strings = _Strings()
    rows, data = [struct.pack("<IIQQQQIIQQ", *([0] * 10))], b""
    for name, content in sections.items():
        rows.append(struct.pack("<IIQQQQIIQQ", strings.add(name), 1, 0, 0, at + len(data), len(content), 0, 0, 1, 0))
        data += content + bytes(-len(content) % 8)
    place = strings.add(".shstrtab")
    rows.append(struct.pack("<IIQQQQIIQQ", place, 3, 0, 0, at + len(data), len(strings.data), 0, 0, 1, 0))
    data += strings.data + bytes(-len(strings.data) % 8)
    return at + len(data), len(rows), data + b"".join(rows)


def fatbin(*entries: tuple[int, int, int]) -> bytes:
    """One container; an entry is (kind, architecture number, flags): (2, 90, 0x100000) is a cubin for sm_90a."""
    body = b""
    for kind, number, flags in entries:
        body += struct.pack(
            "<HHIQIIHHIIIQQQ", kind, 0x101, 64, 16, 0, 0, 7, 1, number, 0, 0, flags | 0x11, 0, 0
        ) + bytes(16)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def wheel(
    files: Mapping[str, bytes],
    *,
    name: str = "demo",
    version: str = "1.0",
    tags: Sequence[str] = ("cp310-cp310-linux_x86_64",),
    record: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
) -> bytes:
    """Make a wheel; ``record`` replaces lines of RECORD, ``without`` leaves members of .dist-info out."""
    info = f"{name}-{version}.dist-info"
    whole = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n".encode(),
        f"{info}/WHEEL": "".join(["Wheel-Version: 1.0\n", *(f"Tag: {tag}\n" for tag in tags)]).encode(),
    }
    whole = {path: data for path, data in whole.items() if path.rpartition("/")[2] not in without}
    lines = {path: f"{path},sha256={_digest(data)},{len(data)}" for path, data in whole.items()} | dict(record or {})
    text = "".join(f"{line}\n" for line in [*lines.values(), f"{info}/RECORD,,"] if line)
    if "RECORD" not in without:
        whole[f"{info}/RECORD"] = text.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for path, data in whole.items():
            file.writestr(path, data)
    return buffer.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
