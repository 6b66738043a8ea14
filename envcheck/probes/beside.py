"""Calls that run in a forked copy of this process while this one goes on: pure reading on a second core."""

from __future__ import annotations

import os
import select
import signal
import time
from _pickle import dumps, loads  # the half of pickle that is in C: the other one takes 4 ms to import
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NoReturn, TypeVar

from envcheck.host import Host, LocalHost
from envcheck.probes.together import PATIENCE_SECONDS

T = TypeVar("T")
MOST_CHILDREN = 3


class Beside(Generic[T]):
    """A call whose result a child of this process sends; where the child fails, the call is made here."""

    def __init__(self, call: Callable[[], T]) -> None:
        """Start the child; raise OSError where there can be none."""
        self._call = call
        self._reading, writing = os.pipe()
        try:
            self._pid = os.fork()
        except OSError:
            os.close(self._reading)
            os.close(writing)
            raise
        if self._pid == 0:
            _answer(call, writing)
        os.close(writing)

    def result(self, patience: float = PATIENCE_SECONDS) -> T:
        """Wait for the result, at most ``patience`` seconds; an exception of the call is raised here."""
        try:
            data = _all(self._reading, time.monotonic() + patience)
            found: T = loads(data) if data else self._call()  # this program's own bytes
        finally:
            self._end()
        return found

    def _end(self) -> None:
        os.close(self._reading)
        with suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _answer(call: Callable[[], object], writing: int) -> NoReturn:
    """Send what the call gives and end, whatever happens: nothing of the parent is cleaned up twice."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ^C reaches the parent too, which says so
        data = memoryview(dumps(call()))
        while data:
            data = data[os.write(writing, data) :]
    finally:
        os._exit(0)


def _all(descriptor: int, deadline: float) -> bytes:
    """Read to the end; nothing where it does not come in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    parts: list[bytes] = []
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        part = os.read(descriptor, 1 << 16)
        if not part:
            return b"".join(parts)
        parts.append(part)
    return b""


def children(host: Host) -> int:
    """Give the number of children that pay here: none on a single core, or where the host is not this machine."""
    return min(MOST_CHILDREN, len(os.sched_getaffinity(0)) - 1) if isinstance(host, LocalHost) else 0


def beside(call: Callable[[], T]) -> Callable[[], T]:
    """Make a call in a child, or in the end here, where there can be no more processes."""
    with suppress(OSError):
        return Beside(call).result
    return call
