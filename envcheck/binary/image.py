"""Bytes of one file at any offset, read only where they are asked for."""

from __future__ import annotations

import io
import os
import stat
from types import TracebackType
from typing import BinaryIO, final

from envcheck.host import Host


class BinaryError(Exception):
    """A file is not the binary that it should be; the text is one clause that says what it is instead."""


@final
class Image:
    """Random access to a file. It reads with pread: a mapped file that shrinks would end the process by SIGBUS.

    A dozen reads of some 100 KB answer all that is asked of a library of 1 GB, so the process stays small too.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        """Take over an open file; raise BinaryError where it is not a regular one."""
        self.path = path
        self._file = file
        self._descriptor = -1
        try:
            self._descriptor = file.fileno()
        except (OSError, io.UnsupportedOperation):  # recorded bytes
            self.size = file.seek(0, os.SEEK_END)
            return
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BinaryError("not a regular file")
        self.size = status.st_size

    def at(self, offset: int, size: int) -> bytes:
        """Give exactly ``size`` bytes, or raise BinaryError where the file ends before."""
        if offset < 0 or size < 0 or offset + size > self.size:
            message = f"truncated: bytes {offset} to {offset + size} are wanted of a file of {self.size} bytes"
            raise BinaryError(message)
        try:
            if self._descriptor >= 0:  # hot path: thousands of reads
                data = os.pread(self._descriptor, size, offset)
            else:
                self._file.seek(offset)
                data = self._file.read(size)
        except OSError as error:
            raise BinaryError(f"could not be read: {error.strerror}") from error
        if len(data) < size:
            raise BinaryError("truncated while it was read")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Image:
        """Close at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self.close()


def open_image(host: Host, path: str) -> Image:
    """Open a file of the host; raise BinaryError saying why it cannot be read."""
    try:
        file = host.open(path)
    except OSError as error:
        raise BinaryError(f"could not be opened: {error.strerror or error}") from error
    try:
        return Image(file, path)
    except BinaryError:
        file.close()
        raise
