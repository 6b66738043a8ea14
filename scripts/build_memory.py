"""Memory that a running build uses: what its processes hold together, now and at most."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from types import TracebackType

PAUSE_SECONDS = 0.5
PROC = Path("/proc")
KILLED = re.compile(
    r"died due to signal 9|Killed signal terminated program|^\s*Killed$|\bKilled +\"?\$?\S*(nvcc|cc1plus|cicc)"
    r"|error: command '[^'\n]+' failed with exit code -9$"
    r"|internal compiler error: Killed|virtual memory exhausted|cc1plus: out of memory allocating",
    re.MULTILINE,
)
"""What nvcc, g++, setuptools and the shell print where a compiler was killed or got no memory."""
SILENT = re.compile(r"FAILED: (?:\[code=(?:255|137|-9)\] )?[^\n\[]*\n[^\n]*\n\s*(?:\[\d+/\d+\]|ninja: )")
"""ninja's words where a compiler ended without one of its own: it was killed (255 is what ccache makes of it)."""


def kills(proc: Path = PROC) -> int:
    """Read how many processes the kernel has killed for want of memory: ``oom_kill 3`` in ``/proc/vmstat``."""
    try:
        text = (proc / "vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    match = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def says_killed(text: str) -> bool:
    """Tell whether a build's output says that a compiler was killed, or got no memory."""
    return KILLED.search(text) is not None or SILENT.search(text) is not None


def parents(proc: Path = PROC) -> dict[int, int]:
    """Read who started whom: process -> parent, from the fourth field of ``/proc/N/stat``."""
    out = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            # The second field is the program's name in brackets, and may hold spaces and brackets.
            out[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    return out


def descendants(root: int, proc: Path = PROC) -> set[int]:
    """List every process that ``root`` started, directly or not."""
    children: dict[int, list[int]] = {}
    for process, parent in parents(proc).items():
        children.setdefault(parent, []).append(process)
    found: set[int] = set()
    todo = [root]
    while todo:
        for process in children.get(todo.pop(), []):
            if process not in found:
                found.add(process)
                todo.append(process)
    return found


def resident(process: int, proc: Path = PROC) -> int:
    """Give the resident bytes of a process: the second field of ``/proc/N/statm``, in pages; 0 where it has ended."""
    try:
        return int((proc / str(process) / "statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, ValueError, IndexError):
        return 0


class Meter:
    """Samples the memory of all processes below this one while it is entered."""

    def __init__(self, root: int | None = None, proc: Path = PROC) -> None:
        """Take the process to measure below (this one)."""
        self.root = os.getpid() if root is None else root
        self.proc = proc
        self.now = 0
        self.peak = 0
        self.peak_of_one = 0
        """Most that a single process held: what one compiler needs."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Meter:  # noqa: PYI034  # typing.Self comes with Python 3.11
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def sample(self) -> None:
        """Take one sample."""
        sizes = [resident(process, self.proc) for process in descendants(self.root, self.proc)]
        self.now = sum(sizes)
        self.peak = max(self.peak, self.now)
        self.peak_of_one = max(self.peak_of_one, max(sizes, default=0))

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            self.sample()
