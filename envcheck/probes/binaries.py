"""What binaries and the loader say, read by forked copies of this process while it reads everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from envcheck import limits
from envcheck.binary.ldso import Files
from envcheck.codec import Unknown
from envcheck.facts import LoaderEntry, Package, Python
from envcheck.host import Host
from envcheck.probes import details, dists, elf, loader
from envcheck.probes import python as interpreters
from envcheck.probes.beside import beside, children
from envcheck.probes.together import guarded
from envcheck.record import dataclass, replace

Entries = tuple[LoaderEntry, ...] | Unknown


@dataclass(frozen=True, kw_only=True)
class Found:
    """Packages with what their files say, by name, and which file each library resolves to."""

    packages: dict[str, Package]
    loader: Entries


Begun = Callable[[Callable[[], Sequence[Package]]], Found]
"""Waits for the end; given what gives the packages of the target, once they are read."""


def of_target(host: Host, target: Callable[[], interpreters.Target | Unknown]) -> Begun | Unknown:
    """Begin to read the target's binaries as soon as it has said what it is; unknown where it has not."""
    python = interpreters.probe(host, target(), {})
    return python if isinstance(python, Unknown) else guarded(lambda: begin(host, python))


def begin(host: Host, python: Python) -> Begun:
    """Begin to read."""
    rows = {name: row.give for row in limits.shipped(elf.TABLE).row for name in row.when}
    count = children(host)
    shares = [slice(index, None, count) for index in range(count)]
    parts = [beside(partial(_read_subset, host, python, rows, share)) for share in shares]

    def finish(packages: Callable[[], Sequence[Package]]) -> Found:
        whole = packages()
        damage = {item.name: details.files_gone(host, item) for item in whole}
        archs = _torch_archs(host, whole) if parts else ()
        found = [part() for part in parts] or [_read(host, python, whole, rows, slice(None))]
        return _merged(whole, damage, archs, found)

    return finish


def _torch_archs(host: Host, packages: Sequence[Package]) -> tuple[str, ...]:
    """Read torch's architectures here, while the others read the rest."""
    files = Files(host)
    try:
        found = [guarded(partial(elf.torch_archs, files, item)) for item in packages if item.name == "torch"]
    finally:
        files.close()
    return next((item for item in found if not isinstance(item, Unknown)), ())


def _merged(
    whole: Sequence[Package], damage: dict[str, tuple[str, ...]], archs: tuple[str, ...], parts: Sequence[Found]
) -> Found:
    read = {name: package for part in parts for name, package in part.packages.items()}
    packages = {}
    for item in whole:
        other, gone = read.get(item.name, item), damage[item.name]
        read_here = archs if item.name == "torch" else ()
        if other is not item or gone or read_here:
            packages[item.name] = replace(
                item, archs=other.archs or read_here, extensions=other.extensions, damage=item.damage + gone
            )
    return Found(packages=packages, loader=next((part.loader for part in parts if part.loader), ()))


def _read_subset(host: Host, python: Python, rows: dict[str, dict[str, str]], share: slice) -> Found:
    """Read the metadata of the packages that matter here, so that nobody waits for that of all others."""
    packages = dists.probe(host, python, lambda name: name in rows or name.startswith(("nvidia-", "torch")))
    return _read(host, python, () if isinstance(packages, Unknown) else packages, rows, share)


def _read(
    host: Host,
    python: Python,
    packages: Sequence[Package],
    rows: dict[str, dict[str, str]],
    share: slice,
) -> Found:
    """Read a share of the packages, or all; who has the first share works the loader's choices out too."""
    with loader.Processes(host, python, packages) as processes:
        reader = elf.Reader(processes, with_archs=share.step is None)
        mine = [item for item in packages if item.name == "torch" or item.name in rows][share]
        read = {item.name: guarded(partial(reader.of, item, rows.get(item.name))) for item in mine}
        entries: Entries = () if share.start else guarded(lambda: loader.probe(processes, packages))
    found = {name: item for name, item in read.items() if not isinstance(item, Unknown)}
    return Found(packages=found, loader=entries)
