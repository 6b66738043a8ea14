"""Start programs: argument lists only, time-outs always, children ended on ^C, output to a log and to a callback."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envcheck.errors import WorkError

LAST_LINES = 40
GRACE_SECONDS = 10.0
PAUSE_SECONDS = 0.05
PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished program: its exit code and the end of its output (stdout and stderr as they came)."""

    argv: tuple[str, ...]
    returncode: int
    tail: tuple[str, ...]
    log: Path | None = None

    @property
    def killed(self) -> bool:
        """True where a signal 9 ended it: nearly always the kernel's out-of-memory killer."""
        return self.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}


def shown(argv: Sequence[str]) -> str:
    """Give the command as one would type it."""
    return shlex.join(argv)


def output(
    argv: Sequence[str], *, timeout: float = 60, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> str:
    """Give the standard output of a program as text; raise WorkError with its last lines where it fails."""
    return output_bytes(argv, timeout=timeout, environ=environ, cwd=cwd).decode(errors="replace").replace("\r\n", "\n")


def output_bytes(
    argv: Sequence[str], *, timeout: float = 60, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> bytes:
    """Give the standard output of a program as it is; raise WorkError with its last lines where it fails."""
    try:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env=None if environ is None else dict(environ),
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError as error:
        raise WorkError(f"{argv[0]} was not found", fix=f"install {argv[0]}, or put it on PATH") from error
    except subprocess.TimeoutExpired as error:
        raise WorkError(f"{shown(argv)} did not end within {timeout:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace")
        end = "\n".join(said.strip().splitlines()[-15:])
        raise WorkError(f"{shown(argv)} ended with exit code {done.returncode}:\n{end}")
    return done.stdout


def stream(  # noqa: PLR0913  # all but the first are options
    argv: Sequence[str],
    *,
    timeout: float,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    each_line: Callable[[str], None] | None = None,
) -> Done:
    """Run a program in a process group of its own; its lines go to the log and to ``each_line`` as they come.

    On a time-out, ^C or any exception the group gets SIGTERM, then its session SIGKILL after GRACE_SECONDS.
    """
    tail: deque[str] = deque(maxlen=LAST_LINES)
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
        try:
            process = subprocess.Popen(
                list(argv),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                env=None if environ is None else dict(environ),
                cwd=cwd,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkError(f"{argv[0]} could not be started: {error.strerror}", fix=f"install {argv[0]}") from error
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            end_group(process)

        timer = threading.Timer(timeout, expire)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None  # noqa: S101  # for the type checker
            for line in process.stdout:
                tail.append(line.rstrip("\n"))
                if sink:
                    sink.write(line)
                    sink.flush()
                if each_line:
                    each_line(line.rstrip("\n"))
            process.wait()
        finally:
            timer.cancel()
            end_group(process)
            if process.stdout is not None:
                process.stdout.close()
        if expired.is_set():
            raise WorkError(
                f"{shown(argv)} did not end within {timeout:g} s and was stopped", fix=f"see {log}" if log else ""
            )
    return Done(argv=tuple(argv), returncode=process.returncode, tail=tuple(tail), log=log)


def end_group(process: subprocess.Popen[str]) -> None:
    """Ask the process group to end, then make its whole session: ninja starts compilers in groups of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    if _ends(process):
        return
    for member in session(process.pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)
    _ends(process)


def _ends(process: subprocess.Popen[str]) -> bool:
    """Wait until nothing of the session runs, GRACE_SECONDS at most."""
    end = time.monotonic() + GRACE_SECONDS
    while process.poll() is None or session(process.pid):
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def session(leader: int, proc: Path = PROC) -> list[int]:
    """List the running processes of a session, by the sixth field of ``/proc/N/stat``: ``7 (g++) R 6 7 5 …``."""
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            # The second field is the program's name in brackets, and may hold spaces and brackets.
            state, _, _, number = text.rpartition(")")[2].split()[:4]
            if state not in "ZX" and int(number) == leader:
                found.append(int(entry.name))
    return found
