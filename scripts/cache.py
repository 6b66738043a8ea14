"""Where this project keeps what it downloads and builds: $ENVCHECK_CACHE, else the user's cache directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from envcheck.errors import WorkError

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""


def cache(*parts: str) -> Path:
    """Path below the cache directory; not created."""
    base = os.environ.get("ENVCHECK_CACHE") or platformdirs.user_cache_dir("envcheck", appauthor=False)
    return Path(base, *parts)


@contextlib.contextmanager
def locked(path: Path, *, what: str, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (a lock file), so that two runs do not do the same work at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another run is busy with {what}"
            if not wait:
                raise WorkError(msg, fix=f"wait for it; its lock is {path}") from error
            print(f"{msg}: waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
