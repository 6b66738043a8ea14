"""How far a build is: objects done and in all, read from ninja's own lines; a live view, or plain lines."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

NINJA = re.compile(r"^\[(\d+)/(\d+)\]\s+(.*)")
PLAIN_SECONDS = 30.0
SHOWN_WIDTH = 60


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of ninja: objects done, objects in all, and what was done last."""

    done: int
    total: int
    what: str


def parse(line: str) -> Step | None:
    """Read one line of ninja: ``[3/33] Building CUDA object …/fused_attn.cu.o``; None for any other line."""
    match = NINJA.match(line.strip())
    if match is None:
        return None
    return Step(done=int(match[1]), total=int(match[2]), what=_object(match[3]))


def _object(text: str) -> str:
    """Name the object: the last path in the line, without its directories."""
    paths = re.findall(r"[\w./+-]+\.(?:o|so|cu|cpp|cc|a)\b", text)
    return str(paths[-1]).rsplit("/", 1)[-1] if paths else text[:SHOWN_WIDTH]


def remaining(step: Step, elapsed: float, planned: float) -> float:
    """Estimate the seconds left: from the pace so far once a tenth is done, before that from the plan."""
    if step.total and step.done * 10 >= step.total:
        return elapsed * (step.total - step.done) / max(step.done, 1)
    return max(planned - elapsed, 0.0)


def clock(seconds: float) -> str:
    """Write a duration as ``1:02:03`` or ``2:03``."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class View:
    """Shows a build while it runs: a bar on a terminal, else a line when something changed, at most every 30 s."""

    def __init__(
        self, title: str, *, planned: float, memory: Callable[[], int], console: Console | None = None
    ) -> None:
        """Take the title, the planned seconds, and how to read the memory that the build uses now."""
        self.title = title
        self.planned = planned
        self.memory = memory
        self.console = console or Console(stderr=True)
        self.started = time.monotonic()
        self.phase = self.started
        """When ninja began to count: a build can start it several times."""
        self._last = self.started
        self.step: Step | None = None
        self._said = 0.0
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> View:  # noqa: PYI034  # typing.Self comes with Python 3.11
        """Start the live view where there is a terminal."""
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[rest]}"),
                console=self.console,
            )
            self._progress.start()
            self._task = self._progress.add_task(self.title, total=None, rest="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the live view."""
        if self._progress is not None:
            self._progress.stop()

    def line(self, text: str) -> None:
        """Take one line of the build's output."""
        step = parse(text)
        if step is None:
            return
        now = time.monotonic()
        if self.step is None or step.total != self.step.total or step.done < self.step.done:
            self.phase = self._last
        self.step, self._last = step, now
        elapsed = now - self.started
        left = remaining(step, now - self.phase, self.planned - (self.phase - self.started))
        rest = f"ETA {clock(left)}  {self.memory() / 2**30:.1f} GiB  {step.what}"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step.done, total=step.total, rest=rest)
        elif step.done in {1, step.total} or elapsed - self._said >= PLAIN_SECONDS:
            self._said = elapsed
            sys.stderr.write(f"{self.title} [{step.done}/{step.total}] {clock(elapsed)}  {rest}\n")
            sys.stderr.flush()
