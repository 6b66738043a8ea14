"""Why another resolver took another version: which requirement the lock's own version does not meet."""

from __future__ import annotations

import email.parser
from collections.abc import Callable, Iterable, Iterator, Mapping

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from scripts import lock_remote, sbom_remote

Moved = Mapping[str, tuple[str, str]]
"""Name -> (the lock's version, the other's)."""
Asks = Callable[[str, str], Iterable[Requirement]]
"""What a version of a package asks for."""
FREE = "both satisfy what is asked"


def of(moved: Moved, mine: Mapping[str, str], asks: Asks) -> dict[str, str]:
    """Give the reason of each difference: what the other's versions ask of the lock's, where these do not meet it."""
    wanted = {name: list(asks(name, theirs)) for name, (_, theirs) in moved.items()}
    return {name: next(_found(name, moved, mine, wanted), FREE) for name in moved}


def _found(
    name: str, moved: Moved, mine: Mapping[str, str], wanted: Mapping[str, Iterable[Requirement]]
) -> Iterator[str]:
    for other, rows in wanted.items():
        for row in rows:
            if canonicalize_name(row.name) == name and not row.specifier.contains(mine[name], prereleases=True):
                yield f"{other} {moved[other][1]} asks for {row}"
    for row in wanted[name]:
        asked = canonicalize_name(row.name)
        if asked in mine and not row.specifier.contains(mine[asked], prereleases=True):
            yield f"{name} {moved[name][1]} asks for {row}, the lock has {asked} {mine[asked]}"


def asks(environment: Mapping[str, str], listed: lock_remote.Lister) -> Asks:
    """Give what asks the index for the metadata of a version's wheel; nothing where there is none."""

    def look(name: str, version: str) -> Iterator[Requirement]:
        urls = [item.url for item in listed(name) if _is_wheel_of(item.name, version)]
        if urls:
            yield from required(sbom_remote.metadata(urls[0]), environment)

    return look


def _is_wheel_of(file: str, version: str) -> bool:
    try:
        return parse_wheel_filename(file)[1] == Version(version)
    except InvalidWheelFilename:
        return False


def required(text: str, environment: Mapping[str, str]) -> Iterator[Requirement]:
    """Read METADATA, without extras: ``Requires-Dist: cachetools<6.0,>=2.0.0``."""
    for line in email.parser.HeaderParser().parsestr(text).get_all("Requires-Dist", []):
        try:
            row = Requirement(str(line))
        except InvalidRequirement:
            continue
        if row.marker is None or row.marker.evaluate({**environment, "extra": ""}):
            yield row
