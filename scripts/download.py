"""Download by hash: a file is kept under its SHA-256, an interrupted download goes on where it stopped."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

from envcheck.errors import WorkError
from scripts.cache import cache, locked
from scripts.files import CHUNK_BYTES, sha256

ATTEMPTS = 4
TIMEOUT_SECONDS = 60
PAUSE_SECONDS = 1.0
SPARE_BYTES = 64 << 20

Advance = Callable[[int], None]
FAULTS = (OSError, http.client.HTTPException)
"""What a server or the network may do to a request; http.client's own errors are no OSError."""


class FullDiskError(WorkError):
    """There is no room for the file: no other address helps."""


def said(error: BaseException) -> str:
    """Give a fault of FAULTS in words."""
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        return f"the answer broke off or was no HTTP: {error!r}"
    return str(error)


def stored(digest: str) -> Path:
    """Path at which a file of this SHA-256 is kept."""
    return cache("downloads", digest[:2], digest)


def fetch(urls: Sequence[str], *, digest: str, size: int | None = None, advance: Advance | None = None) -> Path:
    """Give the file of this SHA-256, from the cache or from the first URL that gives exactly these bytes."""
    path = stored(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), what=urls[0] if urls else digest):
        if path.exists() and sha256(path) == digest:
            return path
        path.unlink(missing_ok=True)
        _room(path.parent, size)
        faults = []
        for url in urls:
            try:
                return _from(url, path, digest, advance or (lambda _: None))
            except FullDiskError:
                raise
            except (OSError, WorkError) as error:
                faults.append(f"{url}: {error}")
    raise WorkError("\n".join(faults) or "no place to download from", fix="name a place that has it, or use a kit")


def _room(directory: Path, size: int | None) -> None:
    free = shutil.disk_usage(directory).free
    if size is not None and free < size + SPARE_BYTES:
        raise full(directory, f"{free >> 20} MiB free, {size + SPARE_BYTES >> 20} MiB are needed")


def full(directory: Path, seen: str) -> FullDiskError:
    """Give the error of a directory that has no room."""
    return FullDiskError(f"{directory} has {seen}", fix="make room, or set ENVCHECK_CACHE to a place that has it")


def _from(url: str, path: Path, digest: str, advance: Advance) -> Path:
    part = path.with_suffix(".part")
    complete(url, part, advance)
    found = sha256(part)
    if found != digest:
        part.unlink()
        raise WorkError(f"sha256 expected {digest}, got {found}; the file was refused and removed")
    os.replace(part, path)
    return path


def complete(url: str, part: Path, advance: Advance = lambda _: None) -> str:
    """Add what a part lacks of the file, a fault is tried again; give the address that answered, after redirects."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _append(url, part, advance)
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR or attempt == ATTEMPTS:
                raise WorkError(f"the server answered {error.code} {error.reason}") from error
        except FAULTS as error:
            if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
                raise full(cache(), "no room left") from error
            if attempt == ATTEMPTS:
                raise WorkError(said(error)) from error
        time.sleep(PAUSE_SECONDS * 2 ** (attempt - 1))
    raise AssertionError  # pragma: no cover  # the loop returns or raises


def _append(url: str, part: Path, advance: Advance) -> str:
    """Add the rest of the file to what is there; start anew where the server cannot go on from the middle."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310  # http, https, file: by hash
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return url
        raise
    with response:
        resumed = have and getattr(response, "status", None) == HTTPStatus.PARTIAL_CONTENT
        advance(have if resumed else 0)
        wanted = response.headers.get("Content-Length")
        got = _copy(response.read, part, append=bool(resumed), advance=advance)
    if wanted is not None and got < int(wanted):
        raise ConnectionError(f"the connection ended after {got} of {wanted} bytes")
    return str(getattr(response, "url", None) or url)


def _copy(read: Callable[[int], bytes], part: Path, *, append: bool, advance: Advance) -> int:
    got = 0
    with part.open("ab" if append else "wb") as file:
        while chunk := read(CHUNK_BYTES):
            file.write(chunk)
            got += len(chunk)
            advance(len(chunk))
    return got


def text(url: str) -> str:
    """Give a small text document."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # a mirror that was named
            body: bytes = response.read()
    except FAULTS as error:
        raise WorkError(f"{url} could not be read: {said(error)}", fix="check the address and the network") from error
    return body.decode()


def digest_of(content: bytes) -> str:
    """Give the SHA-256 of bytes as hex."""
    return hashlib.sha256(content).hexdigest()
