"""The seam between the doctor and a machine: the only place that starts programs, opens files, reads environ."""

from __future__ import annotations

import fnmatch
import glob as globbing
import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, BinaryIO, Protocol

from envcheck.record import dataclass, field
from envcheck.running import Completed, Finished, Pending, Running

TIMEOUT_SECONDS = 5.0
READ_LIMIT_BYTES = 4 << 20
FIRST_READ_BYTES = 64 << 10


class Host(Protocol):
    """Where facts come from. Paths are absolute strings of that host; files raise OSError as the host's would."""

    @property
    def environ(self) -> Mapping[str, str]:
        """Environment variables."""

    def run(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Completed:
        """Run a program with LC_ALL=C and no input; never raises."""

    def start(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Pending:
        """Start a program as ``run`` does, to ask for its result later; never raises."""

    def exchange(self, socket: str, request: bytes, *, timeout: float = TIMEOUT_SECONDS) -> Callable[[], bytes]:
        """Send bytes to a Unix socket; what is returned waits for all that comes back; both raise OSError."""

    def read(self, path: str, limit: int = READ_LIMIT_BYTES) -> str:
        """Give at most ``limit`` bytes of a text file, undecodable bytes replaced."""

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading bytes at any offset."""

    def glob(self, pattern: str) -> list[str]:
        """Sorted paths that match."""

    def exists(self, path: str) -> bool:
        """Tell whether the path leads to something."""

    def realpath(self, path: str) -> str:
        """Follow links."""

    def listdir(self, path: str) -> list[str]:
        """Sorted names in a directory; empty where it cannot be read."""

    def which(self, name: str, path: str | None = None) -> str | None:
        """First executable of that name on PATH (or on the given path)."""

    def writable(self, path: str) -> bool:
        """Tell whether this user may write there (or create it)."""

    def free(self, path: str) -> tuple[int, int]:
        """Free bytes and free inodes of the file system that would hold the path."""


@dataclass(frozen=True, kw_only=True)
class LocalHost:
    """This machine."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Completed:
        """Run a program with LC_ALL=C and no input; never raises."""
        return self.start(argv, timeout=timeout).result()

    def start(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Pending:
        """Start a program as ``run`` does, to ask for its result later; never raises."""
        path = argv[0] if "/" in argv[0] else self.which(argv[0])
        if path is None:
            return Finished(completed=Completed(returncode=-1, error=f"{argv[0]}: not found on PATH"))
        try:
            return Running(path, argv, {**self.environ, "LC_ALL": "C", "LANGUAGE": "C"}, timeout)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return Finished(completed=Completed(returncode=-1, error=f"{argv[0]}: {why}"))

    def exchange(self, socket: str, request: bytes, *, timeout: float = TIMEOUT_SECONDS) -> Callable[[], bytes]:
        """Send bytes to a Unix socket; what is returned waits for all that comes back; both raise OSError."""
        from _socket import AF_UNIX  # all that a Unix socket needs; importing socket would cost 3 ms of 90
        from _socket import socket as connection

        link = connection(AF_UNIX)
        try:
            link.settimeout(timeout)
            link.connect(socket)
            link.sendall(request)
        except OSError:
            link.close()
            raise

        def answer() -> bytes:
            try:
                return b"".join(iter(lambda: link.recv(65536), b""))
            finally:
                link.close()

        return answer

    def read(self, path: str, limit: int = READ_LIMIT_BYTES) -> str:
        """Give at most ``limit`` bytes of a text file, undecodable bytes replaced."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # hot path: a file object costs three times as much
        try:
            data = os.read(descriptor, min(limit, FIRST_READ_BYTES))
            if len(data) == FIRST_READ_BYTES or (data and _is_virtual(path)):
                data += _rest(descriptor, limit - len(data))
        finally:
            os.close(descriptor)
        return data.decode(errors="replace")

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading bytes at any offset."""
        return open(path, "rb", opener=_without_waiting)  # the caller closes it

    def glob(self, pattern: str) -> list[str]:
        """Sorted paths that match."""
        return sorted(globbing.glob(pattern))  # hot path

    def exists(self, path: str) -> bool:
        """Tell whether the path leads to something."""
        return os.path.exists(path)  # hot path

    def realpath(self, path: str) -> str:
        """Follow links."""
        directory, _, name = path.rpartition("/")
        if not directory or name in {"", ".", ".."} or os.path.islink(path):
            return os.path.realpath(path)
        return f"{_real_directory(directory).rstrip('/')}/{name}"

    def listdir(self, path: str) -> list[str]:
        """Sorted names in a directory; empty where it cannot be read."""
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    def which(self, name: str, path: str | None = None) -> str | None:
        """First executable of that name on PATH (or on the given path)."""
        for directory in (path if path is not None else self.environ.get("PATH", "")).split(os.pathsep):
            candidate = os.path.join(directory, name)  # hot path
            if directory and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
                return candidate
        return None

    def writable(self, path: str) -> bool:
        """Tell whether this user may write there (or create it)."""
        return os.access(_existing(path), os.W_OK)

    def free(self, path: str) -> tuple[int, int]:
        """Free bytes and free inodes of the file system that would hold the path."""
        status = os.statvfs(_existing(path))
        return status.f_bavail * status.f_frsize, status.f_favail


@lru_cache(maxsize=1024)  # hot path: 200 libraries lie in 30 directories, each ten links deep
def _real_directory(path: str) -> str:
    return os.path.realpath(path)


def _is_virtual(path: str) -> bool:
    """Tell whether a read may give less than there is, as the files of /proc do."""
    return path.startswith(("/proc/", "/sys/"))


def _rest(descriptor: int, limit: int) -> bytes:
    parts = []
    while limit > 0 and (part := os.read(descriptor, min(limit, 1 << 20))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a FIFO that nobody writes to would make a plain open wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _existing(path: str) -> str:
    """Nearest ancestor that exists."""
    place = os.path.abspath(path)
    while not os.path.exists(place) and place != "/":
        place = os.path.dirname(place)
    return place


@dataclass(frozen=True, kw_only=True)
class RecordedHost:
    """A host made of recorded files and command outputs; a command that was not recorded is not found."""

    files: Mapping[str, str | bytes] = field(default_factory=dict)
    commands: Mapping[Any, Completed] = field(default_factory=dict)
    """Argument list, as a tuple -> what it gave."""
    environ: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[tuple[str, str], bytes] = field(default_factory=dict)
    """(socket, path of an HTTP request) -> answer."""
    readonly: tuple[str, ...] = ()
    free_bytes: int = 500 << 30

    def run(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Completed:  # noqa: ARG002
        """Give the recorded output."""
        missing = Completed(returncode=-1, error=f"{argv[0]}: No such file or directory")
        return self.commands.get(tuple(argv), missing)

    def start(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Pending:
        """Give the recorded output."""
        return Finished(completed=self.run(argv, timeout=timeout))

    def exchange(self, socket: str, request: bytes, *, timeout: float = TIMEOUT_SECONDS) -> Callable[[], bytes]:  # noqa: ARG002
        """Give the recorded answer."""
        path = request.split(b" ")[1].decode()
        if (socket, path) not in self.answers:
            raise FileNotFoundError(2, "No such file or directory", socket)
        answer = self.answers[socket, path]
        return lambda: answer

    def read(self, path: str, limit: int = READ_LIMIT_BYTES) -> str:
        """Give the recorded text."""
        return self._bytes(path)[:limit].decode(errors="replace")

    def open(self, path: str) -> BinaryIO:
        """Open the recorded bytes."""
        return io.BytesIO(self._bytes(path))

    def _bytes(self, path: str) -> bytes:
        content = self.files.get(self.realpath(path))
        if content is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        return content.encode() if isinstance(content, str) else content

    def glob(self, pattern: str) -> list[str]:
        """Match recorded files, links and their directories."""
        names = {*self.files, *self.links}
        names |= {name[:at] for name in list(names) for at, letter in enumerate(name) if letter == "/" and at}
        return sorted(name for name in names if _matches(name, pattern))

    def exists(self, path: str) -> bool:
        """Tell whether a file or a directory of that name was recorded."""
        real = self.realpath(path)
        return any(name == real or name.startswith(real.rstrip("/") + "/") for name in self.files)

    def realpath(self, path: str) -> str:
        """Follow recorded links, of directories too."""
        for _ in range(40):
            link = next((at for at in self.links if path == at or path.startswith(at + "/")), None)
            if link is None:
                return path
            path = self.links[link] + path[len(link) :]
        return path

    def listdir(self, path: str) -> list[str]:
        """Names of what was recorded below a directory."""
        start = self.realpath(path).rstrip("/") + "/"
        names = [*self.files, *self.links]
        return sorted({name[len(start) :].split("/")[0] for name in names if name.startswith(start)})

    def which(self, name: str, path: str | None = None) -> str | None:
        """First recorded file of that name on PATH."""
        places = (path if path is not None else self.environ.get("PATH", "")).split(":")
        return next((f"{place}/{name}" for place in places if place and self.exists(f"{place}/{name}")), None)

    def writable(self, path: str) -> bool:
        """Tell whether the path is outside what was recorded as read-only."""
        return not path.startswith(self.readonly) if self.readonly else True

    def free(self, path: str) -> tuple[int, int]:  # noqa: ARG002
        """Give the recorded free space."""
        return self.free_bytes, 10_000_000


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(
        fnmatch.fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True)
    )


__all__ = ["READ_LIMIT_BYTES", "TIMEOUT_SECONDS", "Completed", "Host", "LocalHost", "Pending", "RecordedHost"]
