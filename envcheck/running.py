"""Programs that run while files are read. posix_spawn and poll: importing subprocess would cost 4 ms of 120."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from envcheck.record import dataclass

TICK_SECONDS = 0.05
OUTPUT_LIMIT_BYTES = 16 << 20


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
        """One line that says what went wrong: the last one that the program wrote."""
        said = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return self.error or (said[-1] if said else f"exit code {self.returncode}")[-200:]


class Pending(Protocol):
    """A program that was started."""

    def result(self) -> Completed:
        """Wait for its end, no longer than its time-out; never raises."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A program that needs no waiting."""

    completed: Completed

    def result(self) -> Completed:
        """Give what it gave."""
        return self.completed


class Running:
    """A program in a process group of its own, without input; when time is up the whole group is killed."""

    def __init__(self, path: str, argv: Sequence[str], environ: Mapping[str, str], timeout: float) -> None:
        """Start it; raise OSError where that fails."""
        self._name = argv[0]
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._completed: Completed | None = None
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        self._output: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
        self._open = {out, err}
        self._flooded = False
        self._pid = 0
        try:
            self._pid = os.posix_spawn(
                path,
                list(argv),
                dict(environ),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, out_end, 1),
                    (os.POSIX_SPAWN_DUP2, err_end, 2),
                ],
                setpgroup=0,
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(out_end)
            os.close(err_end)

    def result(self) -> Completed:
        """Wait for its end, no longer than its time-out; never raises but for ^C, which ends the program."""
        if self._completed is None:
            try:
                self._completed = self._wait()
            except BaseException:
                self._kill()
                raise
            finally:
                self._close()
        return self._completed

    def _wait(self) -> Completed:
        status = self._drain()
        while status is None and time.monotonic() <= self._deadline and not self._flooded:
            status = self._ended()
            if status is None:
                time.sleep(0.0005)
        if status is None:
            self._kill()
            why = "wrote without an end" if self._flooded else f"did not answer within {self._timeout:g} s"
            return Completed(returncode=-1, error=f"{self._name} {why}")
        out, err = (bytes(content).decode(errors="replace") for content in self._output.values())
        return Completed(returncode=os.waitstatus_to_exitcode(status), stdout=out, stderr=err)

    def _drain(self) -> int | None:
        """Read until both pipes are closed; a child that keeps them open after the program's end is not waited for."""
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        status: int | None = None
        while self._open and time.monotonic() <= self._deadline and not self._flooded:
            ready = poll.poll(0 if status is not None else TICK_SECONDS * 1000)
            for descriptor, _ in ready:
                if not self._read(descriptor):
                    poll.unregister(descriptor)
            if not ready:
                if status is not None:
                    break
                status = self._ended()  # what it wrote since that poll is still in the pipes: ask once more
        return status

    def _read(self, descriptor: int) -> bool:
        """Take what is there; False at the end."""
        data = os.read(descriptor, 65536)
        content = self._output[descriptor]
        content += data
        self._flooded = self._flooded or len(content) > OUTPUT_LIMIT_BYTES
        if not data:
            self._open.discard(descriptor)
            os.close(descriptor)
        return bool(data)

    def _ended(self) -> int | None:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._pid = 0
        return status

    def _kill(self) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _close(self) -> None:
        for descriptor in list(self._open):
            os.close(descriptor)
        self._open.clear()

    def __del__(self) -> None:
        """End a program whose result nobody asked for."""
        self._kill()
        self._close()
