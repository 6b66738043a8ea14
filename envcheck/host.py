"""The seam between the doctor and a machine: the only place that starts programs, opens files, reads environ."""

from __future__ import annotations

import fnmatch
import glob as globbing
import io
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from envcheck.record import dataclass, field

TIMEOUT_SECONDS = 10.0
READ_LIMIT_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A finished command. ``error`` says why there is no result: not found, timed out, not permitted."""

    returncode: int = 0
    stdout: str = ""
    stderr: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """True where it ran and returned 0."""
        return not self.error and self.returncode == 0

    def why(self) -> str:
        """One line that says what went wrong."""
        return self.error or (self.stderr.strip() or self.stdout.strip() or f"exit code {self.returncode}")[-200:]


class Host(Protocol):
    """Where facts come from. Paths are absolute strings of that host; files raise OSError as the host's would."""

    @property
    def environ(self) -> Mapping[str, str]:
        """Environment variables."""

    def run(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Completed:
        """Run a program with LC_ALL=C and no input; never raises."""

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
        environ = {**self.environ, "LC_ALL": "C", "LANGUAGE": "C"}
        try:
            done = subprocess.run(  # an argument list, no shell
                list(argv), capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, env=environ, check=False
            )
        except subprocess.TimeoutExpired:
            return Completed(returncode=-1, error=f"{argv[0]} did not answer within {timeout:g} s")
        except OSError as error:
            return Completed(returncode=-1, error=f"{argv[0]}: {error.strerror or error}")
        return Completed(
            returncode=done.returncode,
            stdout=done.stdout.decode(errors="replace"),
            stderr=done.stderr.decode(errors="replace"),
        )

    def read(self, path: str, limit: int = READ_LIMIT_BYTES) -> str:
        """Give at most ``limit`` bytes of a text file, undecodable bytes replaced."""
        with open(path, "rb") as file:  # hot path
            return file.read(limit).decode(errors="replace")

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading bytes at any offset."""
        return open(path, "rb")  # the caller closes it

    def glob(self, pattern: str) -> list[str]:
        """Sorted paths that match."""
        return sorted(globbing.glob(pattern))  # hot path

    def exists(self, path: str) -> bool:
        """Tell whether the path leads to something."""
        return os.path.exists(path)  # hot path

    def realpath(self, path: str) -> str:
        """Follow links."""
        return os.path.realpath(path)

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


def _existing(path: str) -> str:
    """Nearest ancestor that exists."""
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    return str(place)


@dataclass(frozen=True, kw_only=True)
class RecordedHost:
    """A host made of recorded files and command outputs; a command that was not recorded is not found."""

    files: Mapping[str, str | bytes] = field(default_factory=dict)
    commands: Mapping[tuple[str, ...], Completed] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    readonly: tuple[str, ...] = ()
    free_bytes: int = 500 << 30

    def run(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Completed:  # noqa: ARG002
        """Give the recorded output."""
        missing = Completed(returncode=-1, error=f"{argv[0]}: No such file or directory")
        return self.commands.get(tuple(argv), missing)

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
        names |= {str(parent) for name in list(names) for parent in Path(name).parents}
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
