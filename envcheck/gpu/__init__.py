"""Kernels that are run, not read about: each in the target interpreter, each against a float32 or float64 reference."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from envcheck import data
from envcheck.errors import EnvcheckError, HostError
from envcheck.gpu.judge import Report, report
from envcheck.gpu.tables import Kernel, Tables, load
from envcheck.host import Host
from envcheck.model import Outcome

__all__ = ["Report", "Tables", "load", "measure", "report", "run"]

BOOT = "import sys; sys.path[0] = sys.argv[1]; from envcheck_kernels import server; server.main(sys.argv[2])"
SPARE_SECONDS = 60.0
"""For importing torch, beside the kernels' own times."""


def run(host: Host, python: str, *, only: Sequence[str] = (), skip: Sequence[str] = ()) -> tuple[Outcome, ...]:
    """Run the kernels with this interpreter and judge each; raise HostError where it cannot be started."""
    return measure(host, python, load(), only=only, skip=skip).outcomes


def measure(host: Host, python: str, tables: Tables, *, only: Sequence[str] = (), skip: Sequence[str] = ()) -> Report:
    """Run the kernels and give their outcomes with times and speeds."""
    chosen = choose(tables.kernels, only, skip)
    timeout = sum(kernel.seconds for kernel in chosen) + SPARE_SECONDS
    place = os.path.join(data.ROOT, "gpu", "target")
    done = host.run([python, "-c", BOOT, place, json.dumps(request(chosen))], timeout=timeout)
    if done.error:
        raise HostError(f"the kernels could not be run with {python}: {done.error}", fix="name another with --python")
    results = list(lines(done.stdout))
    if not results:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise HostError(f"{python} ended with exit code {done.returncode} before any kernel ran:\n{said}")
    return report(chosen, results, tables)


def request(chosen: Iterable[Kernel]) -> dict[str, Any]:
    """Say what to run, in which lane, and for how long at most."""
    kernels = list(chosen)
    return {
        "timeouts": {kernel.id: kernel.seconds for kernel in kernels},
        "serial": [kernel.id for lane in ("serial", "last") for kernel in kernels if kernel.lane == lane],
        "beside": [kernel.id for kernel in kernels if kernel.lane == "beside"],
    }


def lines(text: str) -> Iterable[dict[str, Any]]:
    """Read the results: one JSON object a line, ``{"kernel": "gpu-matmul-bf16", "error": 0.0017, …}``."""
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue  # something printed beside
        if isinstance(found, dict) and "kernel" in found:
            yield found


def choose(kernels: Sequence[Kernel], only: Sequence[str], skip: Sequence[str]) -> list[Kernel]:
    """Pick kernels by id or by subject; the device itself is always first."""
    names = {kernel.id for kernel in kernels} | {kernel.subject for kernel in kernels}
    for word in (*only, *skip):
        if word not in names:
            import difflib

            near = difflib.get_close_matches(word, names, n=3) or sorted(names)
            raise EnvcheckError(f"there is no kernel {word!r}", fix=f"take {', '.join(near)}")

    def wanted(kernel: Kernel) -> bool:
        words = {kernel.id, kernel.subject}
        return kernel.lane == "first" or ((not only or bool(words & set(only))) and not words & set(skip))

    return [kernel for kernel in kernels if wanted(kernel)]
