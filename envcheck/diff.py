"""Where recorded hosts differ: facts documents flattened to keys, values grouped, the odd host named. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from envcheck import codec
from envcheck.facts import Facts
from envcheck.record import dataclass

ABSENT = "absent"
VOLATILE = frozenset(
    {
        "collected",
        "host",
        "uuid",
        "free_bytes",
        "free_inodes",
        "memory_available_bytes",
        "shm_free_bytes",
        "session_dir",
    }
)
"""Fields that differ between any two readings."""
IDENTITIES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "packages": lambda item: str(item["name"]),
    "tools": lambda item: str(item["name"]),
    "sources": lambda item: str(item["name"]),
    "toolkits": lambda item: str(item["path"]),
    "cudnn": lambda item: f"{item['kind']} {item['path']}",
    "nccl": lambda item: f"{item['kind']} {item['path']}",
    "compilers": lambda item: f"{item['role']} {item['path']}",
    "loader": lambda item: str(item["library"]),
    "disks": lambda item: str(item["role"]),
    "libraries": lambda item: str(item["path"]),
    "extensions": lambda item: str(item["path"]),
}
"""What makes two entries of a list the same thing; other lists are compared as a whole or by position."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """One value of a key, and the hosts that have it."""

    value: Any
    hosts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A key that not all hosts agree on; the value that most hosts have comes first."""

    key: str
    values: tuple[Value, ...]

    @property
    def odd(self) -> tuple[str, ...]:
        """Hosts outside the majority; empty where no value has more hosts than every other."""
        first, second = self.values[0], self.values[1]
        if len(first.hosts) == len(second.hosts):
            return ()
        return tuple(host for value in self.values[1:] for host in value.hosts)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between hosts, and how many keys are the same."""

    hosts: tuple[str, ...]
    differences: tuple[Difference, ...]
    same: int

    @property
    def odd(self) -> dict[str, int]:
        """How often each host is outside the majority, most often first."""
        return dict(Counter(host for difference in self.differences for host in difference.odd).most_common())


def flatten(facts: Facts, *, volatile: bool = False) -> dict[str, Any]:
    """Give every fact under its key: ``packages.torch.version``; ``volatile`` keeps what differs at any reading."""
    return dict(_flat("", codec.encode(facts), volatile=volatile))


def _flat(key: str, value: Any, *, volatile: bool) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # JSON data
    if isinstance(value, dict) and set(value) != {"unknown"}:
        for name, item in value.items():
            if volatile or name not in VOLATILE:
                yield from _flat(f"{key}.{name}" if key else name, item, volatile=volatile)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for name, item in _named(key, value):
            yield from _flat(f"{key}.{name}", item, volatile=volatile)
    else:
        yield key, value


def _named(key: str, items: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Name the entries of a list by what they are; a second one of the same name gets a number."""
    identity = IDENTITIES.get(key.rsplit(".", 1)[-1])
    seen: Counter[str] = Counter()
    for position, item in enumerate(items):
        name = identity(item) if identity else str(position)
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name} #{seen[name]}"), item


def compare(documents: Mapping[str, Facts], *, volatile: bool = False) -> Comparison:
    """Compare facts by host name, in the order of the first host's keys."""
    flat = {host: flatten(facts, volatile=volatile) for host, facts in documents.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values))
    differences = []
    covered: set[str] = set()
    for key in keys:
        if key not in covered and (found := _difference(key, flat)):
            whole, siblings = _collapsed(found, keys, flat)
            covered |= siblings
            differences.append(whole)
    differing = {difference.key for difference in differences} | covered
    return Comparison(hosts=tuple(documents), differences=tuple(differences), same=len(set(keys) - differing))


def _difference(key: str, flat: Mapping[str, Mapping[str, Any]]) -> Difference | None:
    groups: dict[str, list[str]] = {}
    shown: dict[str, Any] = {}
    for host, values in flat.items():
        value = values.get(key, ABSENT)
        groups.setdefault(repr(value), []).append(host)
        shown[repr(value)] = value
    if len(groups) == 1:
        return None
    ordered = sorted(groups, key=lambda name: -len(groups[name]))
    return Difference(key=key, values=tuple(Value(value=shown[name], hosts=tuple(groups[name])) for name in ordered))


def _collapsed(
    difference: Difference, keys: Sequence[str], flat: Mapping[str, Mapping[str, Any]]
) -> tuple[Difference, set[str]]:
    """Show a thing that some hosts do not have as one line, not as one line per field of it."""
    parent = difference.key.rpartition(".")[0]
    lacking = {host for value in difference.values if value.value == ABSENT for host in value.hosts}
    siblings = {key for key in keys if key.startswith(f"{parent}.")}
    if not parent or not lacking or len(siblings) == 1:
        return difference, set()
    wholly = {host for host, values in flat.items() if not siblings & set(values)}
    if wholly != lacking:
        return difference, set()
    return _presence(parent, siblings, flat), siblings


def _presence(parent: str, siblings: set[str], flat: Mapping[str, Mapping[str, Any]]) -> Difference:
    """Group the hosts by the version of the thing, where it has one, else by its being there."""
    version = f"{parent}.version"
    groups: dict[str, list[str]] = {}
    for host, facts in flat.items():
        found = facts.get(version, "present")
        there = found if isinstance(found, str) else "present"
        groups.setdefault(there if siblings & set(facts) else ABSENT, []).append(host)
    ordered = sorted(groups, key=lambda name: -len(groups[name]))
    return Difference(key=parent, values=tuple(Value(value=name, hosts=tuple(groups[name])) for name in ordered))


def document(comparison: Comparison) -> dict[str, Any]:
    """Give the comparison as JSON data."""
    return {
        "version": 1,
        "hosts": list(comparison.hosts),
        "same": comparison.same,
        "odd": comparison.odd,
        "differences": [
            {
                "key": difference.key,
                "odd": list(difference.odd),
                "values": [{"value": value.value, "hosts": list(value.hosts)} for value in difference.values],
            }
            for difference in comparison.differences
        ],
    }
