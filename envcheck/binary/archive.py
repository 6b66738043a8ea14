"""A wheel as an archive: opened safely, every file compared with RECORD, its tag and metadata compared with its name.

Format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import posixpath
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import final

from packaging.tags import Tag, parse_tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from envcheck.model import Finding
from envcheck.record import dataclass

CHUNK_BYTES = 1 << 20
ELF_MAGIC = b"\x7fELF"
MAX_TOTAL_BYTES = 32 << 30
MAX_RATIO = 500
"""No real member shrinks as far; one that does is made to fill a disk."""
SUSPECT_BYTES = 256 << 20
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Member:
    """One ELF file of the wheel: its name there, and where it was unpacked."""

    name: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Name:
    """What the file name of a wheel says."""

    project: str
    version: Version
    tags: frozenset[Tag]


def fault(summary: str, *, found: str, expected: str, subject: str, warning: bool = False) -> Finding:
    """Make a finding about a wheel."""
    severity = "warning" if warning else "error"
    return Finding(summary=summary, found=found, expected=expected, subject=subject, severity=severity)  # type: ignore[arg-type]  # one of two words


@final
class Archive:
    """An open wheel. ``read`` unpacks its ELF files to a temporary directory, which goes when the archive is closed."""

    def __init__(self, wheel: Path) -> None:
        """Open nothing yet."""
        self.wheel = wheel
        self.name: Name | None = None
        self.members: list[Member] = []
        self.findings: list[Finding] = []
        self._directory = tempfile.TemporaryDirectory(prefix="envcheck-wheel-")
        self._hashes: dict[str, tuple[str, int]] = {}
        self._texts: dict[str, str] = {}

    def read(self) -> bool:
        """Read every member once: hash it, keep metadata, unpack ELF files. False where the archive cannot be used."""
        try:
            with zipfile.ZipFile(self.wheel) as file:
                unsafe = list(self._unsafe(file.infolist()))
                if unsafe:
                    self.findings += unsafe
                    return False
                for index, info in enumerate(file.infolist()):
                    if not info.is_dir():
                        self._take(file, info, index)
        except DAMAGE as error:
            self._add("the wheel is damaged", found=str(error) or type(error).__name__, expected="a whole zip archive")
            return False
        self.findings += [*self._of_name(), *self._of_record()]
        return True

    def _add(self, summary: str, *, found: str, expected: str) -> None:
        self.findings.append(fault(summary, found=found, expected=expected, subject=self.wheel.name))

    def _unsafe(self, infos: list[zipfile.ZipInfo]) -> Iterator[Finding]:
        """Members that would land outside, twice, or fill the disk."""
        seen: set[str] = set()
        for info in infos:
            parts = info.filename.split("/")
            if info.filename.startswith("/") or ".." in parts or "\\" in info.filename or "\0" in info.filename:
                yield self._refused("has a member that would land outside the environment", info.filename)
            if info.filename in seen:
                yield self._refused("has two members of one name", info.filename)
            seen.add(info.filename)
            if info.file_size > SUSPECT_BYTES and info.file_size > MAX_RATIO * max(1, info.compress_size):
                yield self._refused("has a member that swells when it is unpacked", info.filename)
        if sum(info.file_size for info in infos) > MAX_TOTAL_BYTES:
            yield self._refused("is too large when it is unpacked", f"more than {MAX_TOTAL_BYTES >> 30} GiB")

    def _refused(self, summary: str, found: str) -> Finding:
        return fault(
            f"the wheel {summary}", found=found, expected="a wheel made by a build tool", subject=self.wheel.name
        )

    def _take(self, file: zipfile.ZipFile, info: zipfile.ZipInfo, index: int) -> None:
        digest = hashlib.sha256()
        size = 0
        with file.open(info) as source:
            chunk = source.read(CHUNK_BYTES)
            target = os.path.join(self._directory.name, f"{index}-{posixpath.basename(info.filename)}"[:200])
            keep = chunk.startswith(ELF_MAGIC)
            text: list[bytes] | None = [] if ".dist-info/" in info.filename else None
            with open(target if keep else os.devnull, "wb") as sink:
                while chunk:
                    digest.update(chunk)
                    size += len(chunk)
                    sink.write(chunk)
                    if text is not None:
                        text.append(chunk)
                    chunk = source.read(CHUNK_BYTES)
        self._hashes[info.filename] = (base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode(), size)
        if keep:
            self.members.append(Member(name=info.filename, path=target))
        if text is not None:
            self._texts[info.filename] = b"".join(text).decode("utf-8", "replace")

    def _text(self, name: str) -> str:
        return next((text for path, text in self._texts.items() if path.endswith(f".dist-info/{name}")), "")

    def _of_name(self) -> Iterator[Finding]:
        """Tag and metadata against the file name."""
        try:
            project, version, _, tags = parse_wheel_filename(self.wheel.name)
        except InvalidWheelFilename as error:
            yield self._fault("the file name is not a wheel's", str(error), "name-version-python-abi-platform.whl")
            return
        self.name = Name(project=project, version=version, tags=tags)
        metadata, wheel = fields(self._text("METADATA")), fields(self._text("WHEEL"))
        if not metadata or not wheel:
            yield self._fault(
                "the wheel has no metadata", "no METADATA or no WHEEL", "a .dist-info directory with both"
            )
            return
        named = metadata.get("name", [""])[0]
        if canonicalize_name(named) != project:
            yield self._fault("the file name tells another project than METADATA", named, project)
        yield from self._of_version(metadata.get("version", [""])[0], version)
        inner = frozenset(tag for text in wheel.get("tag", []) for tag in parse_tag(text))
        if inner != tags:
            yield self._fault("the file name tells another tag than WHEEL", _shown(inner), _shown(tags), warning=True)
        pure = all(tag.platform == "any" for tag in tags)
        if pure and self.members:
            found = self.members[0].name
            yield self._fault("a wheel for any platform has machine code", found, "a platform tag, as linux_x86_64")

    def _of_version(self, text: str, version: Version) -> Iterator[Finding]:
        try:
            said = Version(text)
        except InvalidVersion:
            yield self._fault("METADATA has no valid version", repr(text), str(version))
            return
        if said != version:
            only_label = said.public == version.public
            what = "the file name tells another version than METADATA"
            yield self._fault(what, text, str(version), warning=only_label)

    def _of_record(self) -> Iterator[Finding]:
        """RECORD against the bytes: ``package/file.py,sha256=…,1234``."""
        place = next((name for name in self._hashes if name.endswith(".dist-info/RECORD")), None)
        if place is None:
            yield self._fault("the wheel has no RECORD", "no RECORD", "a RECORD with the hash of every file")
            return
        try:
            rows = [row for row in csv.reader(io.StringIO(self._texts[place])) if row]
        except csv.Error as error:
            yield self._fault("RECORD cannot be read", str(error), "lines of name, hash and size")
            return
        listed = {row[0]: (row[1] if len(row) > 1 else "", row[2] if len(row) > 2 else "") for row in rows}  # noqa: PLR2004
        signatures = {place, f"{place}.jws", f"{place}.p7s"}
        for name in self._hashes.keys() - listed.keys() - signatures:
            yield self._fault("a file is not in RECORD", name, "every file listed, with its hash")
        for name, (said, size) in listed.items():
            if name not in signatures:
                yield from self._of_file(name, said, size)

    def _of_file(self, name: str, said: str, size: str) -> Iterator[Finding]:
        if name not in self._hashes:
            yield self._fault("a file of RECORD is not in the wheel", name, "every listed file")
            return
        digest, length = self._hashes[name]
        kind, _, value = said.partition("=")
        if kind != "sha256":
            yield self._fault(
                "RECORD has no SHA-256 for a file", f"{name}: {said or 'no hash'}", "sha256=…", warning=True
            )
        elif value.rstrip("=") != digest or (size and size != str(length)):
            yield self._fault("a file is not what RECORD says", f"{name}: sha256={digest}", said)

    def _fault(self, summary: str, found: str, expected: str, *, warning: bool = False) -> Finding:
        return fault(summary, found=found, expected=expected, subject=self.wheel.name, warning=warning)

    def close(self) -> None:
        """Remove what was unpacked."""
        self._directory.cleanup()

    def __enter__(self) -> Archive:
        """Remove what was unpacked at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Remove what was unpacked."""
        self.close()


def fields(text: str) -> dict[str, list[str]]:
    """Read the header of METADATA or WHEEL: ``Tag: cp310-cp310-linux_x86_64`` lines up to the first empty one."""
    found: dict[str, list[str]] = {}
    for line in text.replace("\r\n", "\n").partition("\n\n")[0].splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            found.setdefault(key.strip().lower(), []).append(value.strip())
    return found


def _shown(tags: frozenset[Tag]) -> str:
    return ", ".join(sorted(map(str, tags))) or "no tag"
