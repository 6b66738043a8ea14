"""What binaries and the loader say, read by forked copies of this process while it reads everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from envcheck import limits
from envcheck.codec import Unknown
from envcheck.facts import LoaderEntry, Package, Python
from envcheck.host import Host
from envcheck.probes import details, dists, elf, loader
from envcheck.probes.beside import beside, children
from envcheck.probes.together import guarded
from envcheck.record import dataclass

Entries = tuple[LoaderEntry, ...] | Unknown


@dataclass(frozen=True, kw_only=True)
class Found:
    """Packages with what their files say, by name, and which file each library resolves to."""

    packages: dict[str, Package]
    loader: Entries


def begin(host: Host, python: Python, packages: Callable[[], Sequence[Package]]) -> Callable[[], Found]:
    """Begin to read; what is returned waits for the end. ``packages`` gives those of the target, where asked here."""
    rows = {name: row.give for row in limits.shipped(elf.TABLE).row for name in row.when}
    count = children(host)
    if not count:
        return lambda: _read(host, python, packages(), rows, slice(None))
    parts = [beside(partial(_read_subset, host, python, rows, slice(index, None, count))) for index in range(count)]
    return lambda: _merged([part() for part in parts])


def _merged(parts: Sequence[Found]) -> Found:
    packages = {name: package for part in parts for name, package in part.packages.items()}
    return Found(packages=packages, loader=next((part.loader for part in parts if part.loader), ()))


def _read_subset(host: Host, python: Python, rows: dict[str, dict[str, str]], share: slice) -> Found:
    """Read the metadata of the packages that matter here, so that nobody waits for that of all others."""
    wanted = {*rows, *details.WATCHED}
    packages = dists.probe(host, python, lambda name: name in wanted or name.startswith("nvidia-"))
    return _read(host, python, () if isinstance(packages, Unknown) else packages, rows, share)


def _read(
    host: Host, python: Python, packages: Sequence[Package], rows: dict[str, dict[str, str]], share: slice
) -> Found:
    """Read a share of the packages; the one who has the first package works the loader's choices out too."""
    with loader.Processes(host, python, packages) as processes:
        reader = elf.Reader(processes)
        mine = [item for item in packages if item.name in details.WATCHED or item.name in rows][share]
        found = {item.name: _complete(reader, item, rows.get(item.name)) for item in mine}
        entries: Entries = () if share.start else guarded(lambda: loader.probe(processes, packages))
    return Found(packages=found, loader=entries)


def _complete(reader: elf.Reader, package: Package, give: dict[str, str] | None) -> Package:
    package = details.with_files(reader.host, package)
    read = guarded(lambda: reader.of(package, give))
    return package if isinstance(read, Unknown) else read
