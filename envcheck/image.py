"""A Docker image or a running container as a host: a small agent is started inside, nothing in it is changed."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import posixpath
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, cast

from envcheck import data
from envcheck.errors import HostError
from envcheck.host import READ_LIMIT_BYTES, TIMEOUT_SECONDS, Completed, Host, LocalHost, Pending
from envcheck.record import dataclass
from envcheck.running import Finished

ENGINES = ("docker", "podman", "nerdctl")
START_SECONDS = 90.0
ANSWER_SECONDS = 30.0
END_SECONDS = 10.0
BUFFER_BYTES = 256 << 10
LAUNCHER = """
for p in python3 python /usr/local/bin/python3 /usr/bin/python3 /opt/conda/bin/python; do
    if "$p" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then
        exec "$p" -I -S -u -c "$1"
    fi
done
exec sh -c "$2"
"""
OUTSIDE = "run `python3 envcheck.pyz facts` inside it and judge that document with --facts"


class ContainerHost:
    """The inside of a container. One request at a time; a container that stops answering ends the run."""

    def __init__(self, command: Sequence[str], what: str, *, at_rest: bool = False) -> None:
        """Start the agent; raise HostError where that fails. ``at_rest``: an image, which runs only for the agent."""
        self.at_rest = at_rest
        self._what = what
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        try:
            self.kind, self._coding = self._greeted(self._line(START_SECONDS))
            self.environ: Mapping[str, str] = dict(_variables(self._ask("environ")))
        except BaseException:
            self.close()
            raise

    @classmethod
    @contextlib.contextmanager
    def of(cls, reference: str) -> Iterator[ContainerHost]:
        """Open an image or a running container by its name; raise HostError saying what to do where that fails."""
        host = _opened(cls, LocalHost(), reference)
        try:
            yield host
        finally:
            host.close()

    def _greeted(self, line: bytes) -> tuple[str, str]:
        """Read ``python base64`` or ``sh hex``: which agent it is, and how it encodes."""
        kind, _, coding = line.decode(errors="replace").strip().partition(" ")
        if kind not in {"python", "sh"} or coding not in {"base64", "hex"}:
            raise self._fault(f"its agent answered {line[:80]!r}")
        return kind, coding

    def close(self) -> None:
        """End the agent, and with it the container that was started for it."""
        with contextlib.suppress(OSError):
            cast("BinaryIO", self._process.stdin).close()
        try:
            self._process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        cast("BinaryIO", self._process.stdout).close()
        self._errors.close()

    def _line(self, patience: float) -> bytes:
        deadline = time.monotonic() + patience
        descriptor = cast("BinaryIO", self._process.stdout).fileno()
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise self._fault(f"it did not answer within {patience:g} s")
            part = os.read(descriptor, 1 << 20)
            if not part:
                raise self._fault("its agent ended")
            self._buffer += part
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return line

    def _fault(self, why: str) -> HostError:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return HostError(f"{self._what}: {why}" + (f": {said[-400:]}" if said else ""), fix=OUTSIDE)

    def _ask(self, *parts: str, patience: float = ANSWER_SECONDS) -> bytes:
        """Send one request; give the answer, or raise the OSError that it names."""
        line = "\t".join(part.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") for part in parts)
        with self._lock:
            try:
                sink = cast("BinaryIO", self._process.stdin)
                sink.write(os.fsencode(line) + b"\n")
                sink.flush()
            except (BrokenPipeError, ValueError) as error:
                raise self._fault("its agent ended") from error
            status, _, payload = self._line(patience).partition(b" ")
        content = base64.b64decode(payload) if self._coding == "base64" else bytes.fromhex(payload.decode())
        if status == b"0":
            return content
        raise OSError(int(status), content.decode(errors="replace"), parts[1] if len(parts) > 1 else None)

    def run(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Completed:
        """Run a program with LC_ALL=C and no input; never raises but HostError."""
        try:
            answer = self._ask("run", f"{timeout:g}", *argv, patience=timeout + ANSWER_SECONDS)
        except OSError as error:
            return Completed(returncode=-1, error=f"{argv[0]}: {error.strerror}")
        head, _, rest = answer.partition(b"\n")
        code, _, length = head.decode().partition(" ")
        size = len(rest) if length == "-" else int(length)
        out, err = rest[:size].decode(errors="replace"), rest[size:].decode(errors="replace")
        return Completed(returncode=int(code), stdout=out, stderr=err)

    def start(self, argv: Sequence[str], *, timeout: float = TIMEOUT_SECONDS) -> Pending:
        """Run a program; the agent does one thing at a time."""
        return Finished(completed=self.run(argv, timeout=timeout))

    def exchange(self, socket: str, request: bytes, *, timeout: float = TIMEOUT_SECONDS) -> Callable[[], bytes]:  # noqa: ARG002
        """Refuse: sockets inside a container are not asked."""
        raise FileNotFoundError(2, "sockets inside a container are not asked", socket)

    def read(self, path: str, limit: int = READ_LIMIT_BYTES) -> str:
        """Give at most ``limit`` bytes of a text file, undecodable bytes replaced."""
        return self._ask("read", path, "0", str(limit)).decode(errors="replace")

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading bytes at any offset."""
        raw = _Remote(path, int(self._ask("size", path)), self._ask)
        return io.BufferedReader(raw, BUFFER_BYTES)

    def glob(self, pattern: str) -> list[str]:
        """Sorted paths that match."""
        return _lines(self._ask("glob", pattern))

    def exists(self, path: str) -> bool:
        """Tell whether the path leads to something."""
        return self._ask("exists", path) == b"1"

    def realpath(self, path: str) -> str:
        """Follow links."""
        return os.fsdecode(self._ask("realpath", path)).rstrip("\n") or path

    def listdir(self, path: str) -> list[str]:
        """Sorted names in a directory; empty where it cannot be read."""
        try:
            return _lines(self._ask("listdir", path))
        except OSError:
            return []

    def which(self, name: str, path: str | None = None) -> str | None:
        """First executable of that name on PATH (or on the given path)."""
        places = (path if path is not None else self.environ.get("PATH", "")).split(":")
        candidates = (posixpath.join(place, name) for place in places if place)
        return next((path for path in candidates if self._ask("program", path) == b"1"), None)

    def writable(self, path: str) -> bool:
        """Tell whether this user may write there (or create it)."""
        return self._ask("writable", path) == b"1"

    def free(self, path: str) -> tuple[int, int]:
        """Free bytes and free inodes of the file system that would hold the path."""
        space, inodes = self._ask("free", path).split()
        return int(space), int(inodes)


class _Remote(io.RawIOBase):
    """A file inside, read by ranges."""

    def __init__(self, path: str, size: int, ask: Callable[..., bytes]) -> None:
        self._path = path
        self._size = size
        self._ask = ask
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self._size}[whence]
        self._offset = max(0, base + offset)
        return self._offset

    def tell(self) -> int:
        return self._offset

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        content = self._ask("read", self._path, str(self._offset), str(len(buffer)))
        buffer[: len(content)] = content
        self._offset += len(content)
        return len(content)


def _variables(content: bytes) -> Iterator[tuple[str, str]]:
    for item in os.fsdecode(content).split("\0"):
        name, sign, value = item.partition("=")
        if sign and name:
            yield name, value


def _lines(content: bytes) -> list[str]:
    return sorted(line for line in os.fsdecode(content).split("\n") if line)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The way in: ``exec`` into a running container, or ``run`` of an image, without network and removed at its end."""

    engine: str
    reference: str
    running: bool

    def command(self, program: str, *arguments: str) -> list[str]:
        """Give the command line that runs a program inside."""
        if self.running:
            return [self.engine, "exec", "-i", self.reference, program, *arguments]
        options = ["run", "-i", "--rm", "--pull", "never", "--network", "none", "--entrypoint", program]
        return [self.engine, *options, self.reference, *arguments]


def _opened(kind: type[ContainerHost], local: Host, reference: str) -> ContainerHost:
    """Start the agent through a shell, or where there is none through Python itself."""
    way = entry(local, reference)
    python, shell = data.read("agent.py"), data.read("agent.sh")
    what = f"--image {reference}"
    try:
        return kind(way.command("sh", "-c", LAUNCHER, "sh", python, shell), what, at_rest=not way.running)
    except HostError as first:
        if "did not answer" in first.what:
            raise
        try:
            return kind(way.command("python3", "-I", "-S", "-u", "-c", python), what, at_rest=not way.running)
        except HostError:
            raise first from None


def entry(local: Host, reference: str) -> Entry:
    """Find the engine, and what the reference names; raise HostError saying what to do where there is none."""
    engine = next((path for name in ENGINES if (path := local.which(name))), None)
    if engine is None:
        what = f"--image {reference}: none of {', '.join(ENGINES)} is on PATH"
        raise HostError(what, fix=f"install Docker or Podman; or {OUTSIDE}")
    if not reference or reference.startswith("-"):
        raise HostError(f"--image {reference!r} is no name of an image or container", fix="docker image ls lists them")
    container = local.run([engine, "container", "inspect", "--format", "{{.State.Running}}", reference], timeout=20)
    if container.ok and container.stdout.strip() != "true":
        raise HostError(f"--image {reference}: that container does not run", fix=f"docker start {reference}")
    if container.ok:
        return Entry(engine=engine, reference=reference, running=True)
    image = local.run([engine, "image", "inspect", "--format", "{{.Id}}", reference], timeout=20)
    if image.ok:
        return Entry(engine=engine, reference=reference, running=False)
    raise _absent(reference, image)


def _absent(reference: str, done: Completed) -> HostError:
    why = done.why().strip()
    if "permission denied" in why.lower():
        fix = "sudo usermod -aG docker $USER, then log in again"
        return HostError(f"--image {reference}: this user may not use the engine: {why}", fix=fix)
    if "cannot connect" in why.lower() or "is the docker daemon running" in why.lower() or done.error:
        return HostError(f"--image {reference}: the engine does not answer: {why}", fix="sudo systemctl start docker")
    return HostError(
        f"--image {reference}: there is no such image or container here: {why}", fix=f"docker pull {reference}"
    )
