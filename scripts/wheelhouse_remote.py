"""Send wheels to, and take them from, a directory, an S3-compatible store or an HTTP index: whatever fsspec reaches."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from envcheck.errors import WorkError
from scripts import wheelhouse_store
from scripts.files import sha256
from scripts.wheelhouse_http import HttpWheelhouse
from scripts.wheelhouse_store import RECEIPT, Entry

DIGITS = 64
"""Of a SHA-256 in hex."""


class FileSystem(Protocol):
    """The part of an fsspec file system that is used here."""

    def exists(self, path: str) -> bool:
        """Tell whether a file is there."""

    def find(self, path: str) -> Sequence[str]:
        """List all files below a path."""

    def put_file(self, lpath: str, rpath: str) -> None:
        """Send a file."""

    def get_file(self, rpath: str, lpath: str) -> None:
        """Take a file."""

    def cat_file(self, path: str) -> bytes:
        """Give the bytes of a file."""

    def makedirs(self, path: str, exist_ok: bool) -> None:  # noqa: FBT001  # fsspec's own signature
        """Make a directory, where the store has them."""


def connect(url: str) -> tuple[FileSystem, str]:
    """Give the file system and the path that a URL names; say what to install where fsspec or a backend is absent."""
    if url.startswith(("http://", "https://")):
        return HttpWheelhouse(url), url.rstrip("/")
    try:
        import fsspec  # optional
    except ImportError as error:
        raise WorkError("push and pull need fsspec", fix="pip install fsspec (and s3fs for s3://)") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        fix = f"install what it names: {sys.executable} -m pip install …"
        raise WorkError(f"{url} cannot be reached: {error}", fix=fix) from error
    return cast("FileSystem", system), str(path).rstrip("/")


def push(root: Path, url: str) -> list[Entry]:
    """Send the wheels that the other side lacks, receipts last; then the index of all that is there."""
    system, base = connect(url)
    sent = []
    for entry in wheelhouse_store.entries(root):
        fault = wheelhouse_store.damage(entry)
        if fault:
            raise WorkError(f"{entry.wheel}: {fault}", fix="build it again, or remove it")
        place = f"{base}/wheels/{entry.key}"
        if system.exists(f"{place}/{RECEIPT}"):
            continue
        system.makedirs(place, exist_ok=True)
        system.put_file(str(entry.wheel), f"{place}/{entry.wheel.name}")
        system.put_file(str(entry.wheel.parent / RECEIPT), f"{place}/{RECEIPT}")
        sent.append(entry)
    _push_index(system, base)
    return sent


def _push_index(system: FileSystem, base: str) -> None:
    """Write the index anew from all receipts on the other side, so that wheels of other hosts stay in it."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for key, receipt in receipts(system, base):
            directory = work / "wheels" / key
            directory.mkdir(parents=True)
            (directory / RECEIPT).write_text(json.dumps(receipt), encoding="utf-8")
        wheelhouse_store.write_index(work)
        for path in sorted([work / "index.html", *(work / "simple").rglob("index.*")]):
            place = f"{base}/{path.relative_to(work)}"
            system.makedirs(place.rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), place)


def receipts(system: FileSystem, base: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give key and receipt of every wheel on the other side."""
    for path in sorted(system.find(f"{base}/wheels")):
        if path.endswith(f"/{RECEIPT}"):
            yield path.split("/")[-2], _receipt(system, path)


def _receipt(system: FileSystem, path: str) -> dict[str, Any]:
    """Read a receipt of the other side; raise WorkError where it is none, or names no plain file."""
    try:
        receipt: dict[str, Any] = json.loads(system.cat_file(path))
        file, digest = str(receipt["wheel"]["file"]), str(receipt["wheel"]["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise WorkError(f"{path} is not a receipt: {error!r}", fix="push it again from where it was built") from error
    if file != Path(file).name or not file.endswith(".whl") or len(digest) != DIGITS:
        raise WorkError(f"{path} names {file!r}, which is no wheel beside it; it was refused")
    return receipt


def pull(
    root: Path, url: str, *, keys: Sequence[str] = (), check: Callable[[Path], object] = lambda _: None
) -> list[Entry]:
    """Take the wheels that this side lacks (or those of the keys named); each is checked against its receipt's hash.

    ``check`` sees the bytes of each before it is put here, and raises WorkError where it is not what was wanted.
    """
    system, base = connect(url)
    offered = list(_offered(system, base, keys))
    if not offered and not keys:
        raise WorkError(f"{url} holds no wheels", fix="check the address: it is the directory that holds simple/")
    taken = []
    for key, receipt in offered:
        if wheelhouse_store.get(root, key) is not None:
            continue
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / receipt["wheel"]["file"]
            system.get_file(f"{base}/wheels/{key}/{file.name}", str(file))
            found, wanted = sha256(file), receipt["wheel"]["sha256"]
            if found != wanted:
                what = f"{url}: {file.name} has sha256 {found}, its receipt says {wanted}; it was refused"
                raise WorkError(what, fix="push it again from where it was built")
            check(file)
            taken.append(wheelhouse_store.put(root, key, file, receipt))
    return taken


def _offered(system: FileSystem, base: str, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not keys:
        yield from receipts(system, base)
        return
    for key in keys:
        path = f"{base}/wheels/{key}/{RECEIPT}"
        if system.exists(path):
            yield key, _receipt(system, path)
