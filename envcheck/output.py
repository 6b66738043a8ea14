"""Where a document goes: to a file that is whole or not there, or to standard output as the terminal can show it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

from envcheck.errors import EnvcheckError

PRIVATE_MODE = 0o600
STANDARD_OUTPUT = "-"


def write(path: str, content: bytes) -> None:
    """Write a file by way of a temporary one in the same directory; the old one stays whole until the rename.

    A device or a pipe (``/dev/null``, ``/dev/fd/3``) is written to as it is. Raises OSError.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:  # a directory raises IsADirectoryError here
            file.write(content)
        return
    place = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(place), f".{os.path.basename(place)}.{os.urandom(6).hex()}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, _mode(place))
        os.replace(temporary, place)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.filename is None:  # of a write: which file it was is not said
            error.filename = place
        raise


def _mode(path: str) -> int:
    """Give the mode of the file that is replaced, or what the umask leaves for a new one."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def deliver(document: str, path: str | None, *, encoding: str | None = None) -> None:
    """Hand the finished document over; ``encoding`` None: as UTF-8, whatever the terminal is.

    Raises EnvcheckError where the file cannot be written; a closed pipe is no error.
    """
    if path is None or path == STANDARD_OUTPUT:
        _print(document, sys.stdout, encoding)
        return
    try:
        write(path, document.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        what = f"the output {path!r} could not be written: {error.strerror or error}"
        raise EnvcheckError(what, fix="name a file in a directory that exists and that you may write to") from error


def _print(document: str, stream: TextIO, encoding: str | None) -> None:
    buffer = getattr(stream, "buffer", None)
    try:
        if buffer is None:  # a stream of text only, as a caller in Python may have put there
            stream.write(document)
        else:
            stream.flush()
            buffer.write(document.encode(encoding or "utf-8", errors="backslashreplace"))
        stream.flush()
    except BrokenPipeError:
        reader_left()


def reader_left() -> None:
    """Go on quietly where the reader has closed the pipe (``| head``); what could not be written is dropped."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # no real file behind it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the process ends


def encoding_of(stream: TextIO) -> str:
    """Give the encoding of a stream; ASCII where it does not say."""
    return getattr(stream, "encoding", None) or "ascii"
