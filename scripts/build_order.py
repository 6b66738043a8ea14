"""The order of builds: from the ``needs`` of the stack, as the plan has it."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter

from envcheck.stack import Stack


def names(stack: Stack, engine: str, trainers: Iterable[str]) -> list[str]:
    """Name what is built for an engine and these trainers, what is needed first; optional components are left out."""
    wanted = {item.name: item for trainer in trainers for item in stack.wanted(engine, trainer)}
    listed = list(wanted)
    sorter = TopologicalSorter({name: [n for n in item.needs if n in wanted] for name, item in wanted.items()})
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=listed.index)
        order += ready
        sorter.done(*ready)
    return [name for name in order if wanted[name].recipe is not None and not wanted[name].optional]
