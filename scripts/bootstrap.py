"""From a bare python3 (venv, pip) to nox: makes the locked tool environment, then runs the sessions that are named.

python3 scripts/bootstrap.py               all set-up: the session `up`, which ends with the doctor's verdict and plan
python3 scripts/bootstrap.py lint tests    these sessions (`nox -l` lists all); arguments after -- go to them
Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = {"tools": ROOT / ".venv", "dev": ROOT / ".venv-dev"}
INSTALL_SECONDS = 900


class BootstrapError(Exception):
    """The tool environment could not be made."""


def ensure(name: str) -> Path:
    """Give the interpreter of the environment ``tools`` or ``dev``, made from its lock where it is absent or old."""
    place, lock = PLACES[name], ROOT / "lockfiles" / f"{name}.txt"
    wanted = f"{sys.version_info[:2]} {hashlib.sha256(lock.read_bytes()).hexdigest()}"
    python = place / "bin" / "python"
    with _locked(place):
        if not _is_current(place, wanted):
            _make(place, lock, wanted)
    return python


def _is_current(place: Path, wanted: str) -> bool:
    mark = place / ".lock-sha256"
    return mark.is_file() and mark.read_text(encoding="ascii") == wanted and (place / "bin" / "python").exists()


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[None]:
    with (place.parent / f"{place.name}.lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(place: Path, lock: Path, wanted: str) -> None:
    """Install the lock, every file checked by its hash; an interrupted run leaves what was there before."""
    print(f"making {place.name} from {lock.relative_to(ROOT)} (hash-checked)", file=sys.stderr)
    mark = place / ".lock-sha256"
    mark.unlink(missing_ok=True)
    try:
        _run([sys.executable, "-m", "venv", "--clear", str(place)], "install python3-venv")
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(lock)], "see the output above")
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    handle, name = tempfile.mkstemp(dir=place)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(wanted)
    os.replace(name, mark)


def _run(argv: Sequence[str], fix: str) -> None:
    try:
        done = subprocess.run(argv, check=False, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        msg = f"{argv[0]} did not end within {INSTALL_SECONDS} s: is the package index reachable?"
        raise BootstrapError(msg) from error
    if done.returncode:
        msg = f"{' '.join(argv)} ended with exit code {done.returncode}: {fix}"
        raise BootstrapError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named nox sessions from the tool environment; give nox's exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    if sys.version_info < (3, 10):  # noqa: UP036  # the bare python3 may be older than the project allows
        print(f"error: Python >= 3.10 is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    try:
        python = ensure("tools")
    except (BootstrapError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sessions = arguments or ["up"]
    command = [str(python), "-m", "nox", *(sessions if sessions[0].startswith("-") else ["-s", *sessions])]
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.run(command, cwd=ROOT, check=False, env=keeping_compiled()).returncode
    return 130


def keeping_compiled() -> dict[str, str]:
    """Give this environment without PYTHONDONTWRITEBYTECODE: never compiled, the doctor starts in twice the time."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


if __name__ == "__main__":
    sys.exit(main())
