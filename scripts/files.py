"""Files that are whole or not there: written beside their place and renamed, hashed, unpacked with path checks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from envcheck import output
from envcheck.errors import WorkError

CHUNK_BYTES = 1 << 20
UNITS = (("GB", 1e9, 1e9, 1), ("MB", 1e6, 1e5, 1), ("kB", 1e3, 1e3, 0))
"""Unit, its bytes, from how many bytes on it is written, and with how many decimals."""


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(path)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def size(count: int) -> str:
    """Write a number of bytes as package indexes do, in the unit that tells something: ``13 kB``, ``4.1 MB``."""
    for unit, one, least, decimals in UNITS:
        if count >= least:
            return f"{count / one:.{decimals}f} {unit}"
    return f"{count} B"


def write(path: Path, content: str | bytes) -> None:
    """Write a file by way of a temporary one in the same directory; the old one stays whole until the rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    output.write(str(path), content.encode() if isinstance(content, str) else content)


def check_ours(path: Path, mark: str, text: str = "") -> None:
    """Raise WorkError where ``path`` is there and not ours to replace: it has no ``mark``, or one without the text."""
    if not path.exists():
        return
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.is_dir() and (not any(path.iterdir()) or text in (path / mark).read_text(encoding="utf-8")):
            return
    raise WorkError(
        f"{path} is there and was not made by this command, which would replace all of it",
        fix="name another directory, or remove it",
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a fresh directory that takes the place of ``path`` when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        work.chmod(0o755)
        yield work
        _swap(work, path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _swap(new: Path, path: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    path.rename(old / "it")
    try:
        new.rename(path)
    except BaseException:
        (old / "it").rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def unpack(archive: Path, into: Path) -> None:
    """Unpack a tar or zip archive; refuse members that would land outside ``into``."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, into)
        else:
            _untar(archive, into)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        what = f"{archive} could not be unpacked: {error}"
        raise WorkError(what, fix="remove it and fetch it again") from error


def _untar(archive: Path, into: Path) -> None:
    """Extract files, directories and links that stay inside.

    tarfile's own filters came with Python 3.10.12 and 3.11.4; Debian 12 has 3.11.2.
    """
    root = into.resolve()
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isdev():
                _refuse(archive, member.name, into)
            _check_place(archive, root, member.name, into)
            if member.issym():
                _check_place(archive, root, os.path.join(os.path.dirname(member.name), member.linkname), into)
            if member.islnk():
                _check_place(archive, root, member.linkname, into)
            member.mode = (member.mode or 0o644) & 0o755 | 0o600
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            tar.extract(member, root, set_attrs=not member.issym(), numeric_owner=False, **_filter())


def _filter() -> dict[str, Any]:
    return {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def _check_place(archive: Path, root: Path, name: str, into: Path) -> None:
    """Refuse a name that leads outside, through a link that was extracted before too."""
    if not (root / name).resolve().is_relative_to(root):
        _refuse(archive, name, into)


def _refuse(archive: Path, name: str, into: Path) -> NoReturn:
    raise WorkError(f"{archive}: {name!r} would land outside {into}", fix="do not use this archive")


def _unzip(archive: Path, into: Path) -> None:
    root = into.resolve()
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            _check_place(archive, root, name, into)
        file.extractall(root)  # noqa: S202  # every name was checked above
