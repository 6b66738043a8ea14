"""Files that are whole or not there: written beside their place and renamed, hashed, unpacked with path checks."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from envcheck import output
from envcheck.errors import WorkError

CHUNK_BYTES = 1 << 20


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


def write(path: Path, content: str | bytes) -> None:
    """Write a file by way of a temporary one in the same directory; the old one stays whole until the rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    output.write(str(path), content.encode() if isinstance(content, str) else content)


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
            with tarfile.open(archive) as tar:
                tar.extractall(into, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        what = f"{archive} could not be unpacked: {error}"
        raise WorkError(what, fix="remove it and fetch it again") from error


def _unzip(archive: Path, into: Path) -> None:
    root = into.resolve()
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if not (root / name).resolve().is_relative_to(root):
                msg = f"{archive}: {name!r} would land outside {into}"
                raise WorkError(msg, fix="do not use this archive")
        file.extractall(root)  # noqa: S202  # every name was checked above
