"""A wheel made the same whoever made it: members sorted, times and modes fixed, RECORD written anew."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from envcheck.errors import WorkError

LEVEL = 6
FILE_MODE, PROGRAM_MODE = 0o100644, 0o100755


def normalise(wheel: Path, into: Path, *, epoch: int, build_tag: str = "") -> Path:
    """Write the wheel anew into a directory, byte for byte the same for the same contents; a build tag marks it."""
    into.mkdir(parents=True, exist_ok=True)
    out = into / (_tagged(wheel.name, build_tag) if build_tag else wheel.name)
    stamp = time.gmtime(epoch)[:6]
    try:
        with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(out, "w") as new:
            record = _record_name(old)
            rows = []
            for info, content in _members(old, record, build_tag):
                _add(new, info.filename, content, _mode(info), stamp)
                rows.append((info.filename, _digest(content), len(content)))
            _add(new, record, _record(rows, record), FILE_MODE, stamp)
    except (zipfile.BadZipFile, OSError, StopIteration) as error:
        raise WorkError(f"{wheel} is not a wheel: {error}", fix="build it again") from error
    return out


def _tagged(name: str, build_tag: str) -> str:
    distribution, version, *tags = name.removesuffix(".whl").split("-")
    return "-".join([distribution, version, build_tag, *tags[-3:]]) + ".whl"


def _with_build(wheel: bytes, build_tag: str) -> bytes:
    """Give the lines of WHEEL with the build tag before the others."""
    lines = [line for line in wheel.decode().splitlines() if not line.startswith("Build:")]
    at = next((index for index, line in enumerate(lines) if line.startswith("Tag:")), len(lines))
    return "\n".join([*lines[:at], f"Build: {build_tag}", *lines[at:], ""]).encode()


def _members(wheel: zipfile.ZipFile, record: str, build_tag: str) -> Iterator[tuple[zipfile.ZipInfo, bytes]]:
    """Give members sorted by name, the metadata last, without directories, RECORD and bytecode."""
    infos = [info for info in wheel.infolist() if not info.is_dir() and info.filename != record]
    infos = [info for info in infos if "__pycache__/" not in info.filename]
    for info in sorted(infos, key=lambda item: (".dist-info/" in item.filename, item.filename)):
        content = wheel.read(info)
        names_itself = build_tag and info.filename == record.removesuffix("RECORD") + "WHEEL"
        yield info, _with_build(content, build_tag) if names_itself else content


def _record_name(wheel: zipfile.ZipFile) -> str:
    return next(name for name in wheel.namelist() if name.endswith(".dist-info/RECORD") and name.count("/") == 1)


def _mode(info: zipfile.ZipInfo) -> int:
    return PROGRAM_MODE if (info.external_attr >> 16) & 0o100 else FILE_MODE


def _add(wheel: zipfile.ZipFile, name: str, content: bytes, mode: int, stamp: tuple[int, ...]) -> None:
    info = zipfile.ZipInfo(name, date_time=stamp)  # type: ignore[arg-type]  # the first six fields of a struct_time
    info.external_attr = mode << 16
    info.create_system = 3
    info.compress_type = zipfile.ZIP_DEFLATED
    wheel.writestr(info, content, compresslevel=LEVEL)


def _digest(content: bytes) -> str:
    text = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"sha256={text}"


def _record(rows: list[tuple[str, str, int]], name: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([*rows, (name, "", "")])
    return text.getvalue().encode()


def check_name(wheel: Path, distribution: str, version: str) -> None:
    """Raise WorkError where the file's name is not that of the wheel that was asked for."""
    try:
        name, found, _, _ = parse_wheel_filename(wheel.name)
    except InvalidWheelFilename as error:
        raise WorkError(f"{wheel.name} is not the name of a wheel: {error}") from error
    if name != canonicalize_name(distribution) or found.public != version:
        what = f"the build gave {name} {found}, asked for was {distribution} {version}"
        raise WorkError(what, fix="the source's own version differs from the stack file's")


def metadata(wheel: Path) -> tuple[str, str]:
    """Read name and version from METADATA inside the wheel."""
    with zipfile.ZipFile(wheel) as file:
        path = next(name for name in file.namelist() if name.endswith(".dist-info/METADATA"))
        head = file.read(path).decode(errors="replace").partition("\n\n")[0]
    rows = dict(line.partition(": ")[::2] for line in head.splitlines())
    return canonicalize_name(rows.get("Name", "")), rows.get("Version", "")
