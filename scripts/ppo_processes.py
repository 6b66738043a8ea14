"""End everything that a training run started, and nothing else.

Ray's daemons leave the process group of the driver, and ``ray stop`` ends the clusters of every run of this user. So
this process becomes the subreaper (prctl(2)) of its descendants: an orphan becomes its child instead of init's, and
what it started can be told from everything else on the machine to the end.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 8.0
POLL_SECONDS = 0.1


def become_subreaper() -> bool:
    """Adopt orphaned descendants from now on; False where the kernel does not offer it."""
    try:
        return int(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0
    except (OSError, AttributeError):
        return False


def parents(proc: Path = Path("/proc")) -> dict[int, int]:
    """Give the parent of every process, from ``/proc/71/stat``: ``71 (a (b) c) S 70 …``; zombies are left out."""
    found: dict[int, int] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] != "Z":
                    found[int(entry.name)] = int(fields[1])
    return found


def descendants(root: int, table: dict[int, int]) -> set[int]:
    """Give every process below ``root``."""
    children: dict[int, list[int]] = {}
    for child, parent in table.items():
        children.setdefault(parent, []).append(child)
    found: set[int] = set()
    waiting = [root]
    while waiting:
        below = [child for child in children.get(waiting.pop(), []) if child not in found]
        found.update(below)
        waiting += below
    return found


def end(processes: Iterable[int], *, grace: float = GRACE_SECONDS) -> list[int]:
    """Ask processes to end, then make them; give those that had to be asked."""
    asked = _signal(processes, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (left := _alive(asked)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    _signal(left, signal.SIGKILL)
    reap()
    return asked


def end_descendants(keep: Iterable[int] = (), *, grace: float = GRACE_SECONDS) -> list[int]:
    """End every descendant of this process that is not in ``keep``; give those that had to be asked."""
    asked: list[int] = []
    for _ in range(3):  # what is being ended may have started something meanwhile
        left = descendants(os.getpid(), parents()) - set(keep)
        if not left:
            break
        asked += end(left, grace=grace)
    reap()
    return asked


def _signal(processes: Iterable[int], sign: signal.Signals) -> list[int]:
    reached = []
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, sign)
            reached.append(process)
    return reached


def _alive(processes: Iterable[int]) -> list[int]:
    reap()
    table = parents()
    return [process for process in processes if process in table]


def reap() -> None:
    """Take the exit codes of orphans that became our children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
