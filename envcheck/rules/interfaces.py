"""The network interfaces that variables name for NCCL and Gloo."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Facts
from envcheck.model import Finding
from envcheck.rules import remedy, subjects

LOCAL = frozenset({"lo", "docker0"})
NCCL, GLOO = "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"


def named_wrongly(facts: Facts, nodes: int) -> Iterator[Finding]:
    """Find an interface that this host does not have, or, for a run of several nodes, that no other node reaches."""
    have = subjects.resources(facts).interfaces
    for name in (NCCL, GLOO):
        value = subjects.variable(facts, name)
        if value.lstrip("=") in LOCAL and nodes > 1:
            what, expected = "names an interface that no other node reaches", "the interface between the nodes"
        elif have and value and not chosen(name, value, have):
            what, expected = "names no interface of this host", f"one of {', '.join(sorted(set(have) - LOCAL)) or 'lo'}"
        else:
            continue
        best = next((item for item in have if item not in LOCAL), "eth0")
        yield Finding(
            summary=f"{name} {what}",
            found=f"{name}={value}",
            expected=expected,
            fix=(remedy.exports("Name the interface", **{name: best}),),
        )


def chosen(name: str, value: str, have: tuple[str, ...]) -> tuple[str, ...]:
    """Give the interfaces that a value selects.

    NCCL reads a list of beginnings, ``eth,ib0``; ``=eth0`` names one as it is, ``^docker,lo`` leaves some out. Gloo
    reads whole names. https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    """
    out, exact = value.startswith("^"), name == GLOO or value.lstrip("^").startswith("=")
    names = tuple(item.split(":")[0].strip() for item in value.lstrip("^=").split(",") if item.strip())
    hits = tuple(item for item in have if (item in names if exact else item.startswith(names)))
    return tuple(item for item in have if item not in hits) if out else hits
