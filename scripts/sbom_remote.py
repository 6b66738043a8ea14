"""METADATA of a wheel on the index, without downloading the wheel: beside it (PEP 658), else by range requests."""

from __future__ import annotations

import functools
import io
import ssl
import urllib.error
import urllib.request
import zipfile

from scripts import download

ATTEMPTS = 3
TIMEOUT_SECONDS = 30
BLOCK_BYTES = 1 << 16


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """One opener for all: reading the certificates takes longer than a request."""
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context()))


class Remote(io.RawIOBase):
    """A file behind a URL, read by ranges, a block at a time."""

    def __init__(self, url: str) -> None:
        """Ask for the last block, whose answer also tells the size: ``Content-Range: bytes 0-9/10``."""
        self.url = url
        self.place = 0
        self.blocks: dict[int, bytes] = {}
        self.size, tail = self._get(f"-{BLOCK_BYTES}")
        self.tail = max(self.size - len(tail), 0), tail

    def _get(self, span: str) -> tuple[int, bytes]:
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={span}"})  # noqa: S310  # the index
        with _opener().open(request, timeout=TIMEOUT_SECONDS) as response:
            total = str(response.headers.get("Content-Range", "")).rpartition("/")[2]
            if not total.isdigit():
                raise OSError(f"{self.url}: the server gives no ranges")
            return int(total), response.read()

    def seekable(self) -> bool:
        """Ranges can start anywhere."""
        return True

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        if place < 0:
            raise OSError(f"{self.url}: there is nothing before its start")
        self.place = place
        return place

    def tell(self) -> int:
        """Give the place."""
        return self.place

    def read(self, size: int = -1) -> bytes:
        """Read from the tail where it is, else by one range."""
        end = self.size if size < 0 else min(self.place + size, self.size)
        start, tail = self.tail
        if self.place >= start:
            data = tail[self.place - start : end - start]
        else:
            data = self._get(f"{self.place}-{end - 1}")[1] if end > self.place else b""
        self.place += len(data)
        return data


def metadata(url: str) -> str:
    """Give the text of METADATA; nothing where the index will not tell."""
    for _ in range(ATTEMPTS):
        for read in (_beside, _inside):
            try:
                return read(url)
            except urllib.error.HTTPError:
                continue
            except (*download.FAULTS, zipfile.BadZipFile, KeyError):
                break
    return ""


def _beside(url: str) -> str:
    with _opener().open(f"{url}.metadata", timeout=TIMEOUT_SECONDS) as response:
        return str(response.read().decode("utf-8", "replace"))


def _inside(url: str) -> str:
    with zipfile.ZipFile(Remote(url)) as wheel:
        name = next(item for item in wheel.namelist() if item.count("/") == 1 and item.endswith(".dist-info/METADATA"))
        return wheel.read(name).decode("utf-8", "replace")
