"""Take another version of one package: edit the stack file, or refuse where a limit would be broken."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envcheck import limits
from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from envcheck.limits import Limits, Row
from envcheck.stack import Component, Exempt, Stack
from scripts import files, index_files, lock_inputs
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin

REASON = "asked for by nox -s lock -- --upgrade-package"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The version that is asked for, and when the index got its last file."""

    name: str
    version: str
    uploaded: dt.date | None


def wish(text: str) -> Wish:
    """Read ``NAME`` or ``NAME==V`` and look the version up; without one, the newest that is not a pre-release."""
    try:
        asked = Requirement(text)
    except InvalidRequirement as error:
        raise EnvcheckError(
            f"{text!r} is not NAME or NAME==V", fix="as in --upgrade-package sglang==0.4.6.post5"
        ) from error
    name = canonicalize_name(asked.name)
    found = versions(index_files.files(name))
    chosen = [version for version in asked.specifier.filter(found) if asked.specifier or not version.is_prerelease]
    if not chosen:
        have = ", ".join(str(version) for version in sorted(found)[-8:])
        raise WorkError(
            f"the index has no {text} (any more); its newest are: {have}",
            fix="take the file from a kit, or name one of these",
        )
    best = max(chosen)
    return Wish(name=name, version=str(best), uploaded=found[best])


def versions(listed: Sequence[index_files.IndexFile]) -> dict[Version, dt.date | None]:
    """Version -> day of its last upload, from file names ``sglang-0.4.6.post5-py3-none-any.whl``."""
    found: dict[Version, dt.date | None] = {}
    for item in listed:
        stem = item.name.removesuffix(".tar.gz").removesuffix(".zip")
        parts = stem.split("-") if item.name.endswith(".whl") else stem.rsplit("-", 1)
        try:
            version = Version(parts[1])
        except (IndexError, InvalidVersion):
            continue
        days = [day for day in (found.get(version), _day(item.uploaded)) if day]
        found[version] = max(days, default=None)
    return found


def _day(text: str | None) -> dt.date | None:
    """Read ``2025-07-09T07:46:08.345Z``."""
    return dt.date.fromisoformat(text[:10]) if text else None


def upgraded(stack: Stack, text: str) -> Stack:
    """Give the stack with the other version: a component's, or a direct pin of what components bring along."""
    asked = wish(text)
    component = owner(stack, asked.name)
    lock = stack.lock
    if component is None:
        kept = [line for line in lock.direct if canonicalize_name(Requirement(line).name) != asked.name]
        extras = [
            Requirement(line).extras for line in lock.direct if canonicalize_name(Requirement(line).name) == asked.name
        ]
        names = f"[{','.join(sorted(extras[0]))}]" if extras and extras[0] else ""
        lock = dataclasses.replace(lock, direct=tuple(sorted([*kept, f"{asked.name}{names}=={asked.version}"])))
    if needs_exemption(stack, asked):
        assert asked.uploaded is not None  # noqa: S101  # needs_exemption looked
        until = (asked.uploaded + dt.timedelta(days=1)).isoformat()
        rest = [row for row in lock.exempt if canonicalize_name(row.package) != asked.name]
        lock = dataclasses.replace(lock, exempt=(*rest, Exempt(package=asked.name, until=until, reason=REASON)))
    changed = tuple(
        dataclasses.replace(item, version=asked.version) if item is component else item for item in stack.components
    )
    return dataclasses.replace(stack, lock=lock, components=changed)


def owner(stack: Stack, name: str) -> Component | None:
    """Find the component that pins a distribution; refuse what is pinned by commit, or twice."""
    found = [item for item in stack.components if item.distribution == name]
    if len(found) > 1:
        raise WorkError(
            f"stack {stack.name} pins {name} for each engine on its own", fix="edit the stack file, then nox -s lock"
        )
    if found and found[0].origin.kind in lock_inputs.OUTSIDE:
        raise WorkError(
            f"{name} is pinned by commit {found[0].origin.commit}",
            fix="edit its commit and tree in the stack file, then nox -s lock",
        )
    return found[0] if found else None


def needs_exemption(stack: Stack, asked: Wish) -> bool:
    """Tell whether the version appeared after the stack's cut-off date."""
    return asked.uploaded is not None and asked.uploaded.isoformat() >= stack.lock.cutoff[:10]


def check(stack: Stack, resolved: Resolved, known: Limits | None = None) -> None:
    """Raise WorkError with every limit that the new pins would break."""
    table = known or limits.load()
    broken = sorted({text for engine in stack.engines for text in faults(table, versions_of(resolved.pins[engine]))})
    if broken:
        raise WorkError(
            "the upgrade breaks limits, nothing was written:\n" + "\n".join(f"  {line}" for line in broken),
            fix="take another version, or upgrade what the limits name first",
        )


def versions_of(pins: Sequence[Pin]) -> dict[str, str]:
    """Name -> version; the highest where Pythons differ."""
    return {pin.name: pin.version for pin in sorted(pins, key=lambda pin: Version(pin.version))}


def faults(known: Limits, found: Mapping[str, str]) -> Iterator[str]:
    """Say which rows hold for these versions and are not met by them."""
    for name, table in known.tables.items():
        for row in table.row:
            if row.when and row.need and _holds(row, found):
                yield from _unmet(name, row, found)


def _holds(row: Row, found: Mapping[str, str]) -> bool:
    return all(name in found and limits.satisfies(found[name], wanted) for name, wanted in row.when.items())


def _unmet(table: str, row: Row, found: Mapping[str, str]) -> Iterator[str]:
    for name, wanted in row.need.items():
        if name in found and not limits.satisfies(found[name], wanted):
            when = ", ".join(f"{subject} {found[subject]}" for subject in row.when)
            yield f"{when} needs {name}{SpecifierSet(wanted)}, not {found[name]} ({table}: {row.source})"


def write(path: Path, old: Stack, new: Stack) -> None:
    """Write the other version into the stack file, whose comments and order stay."""
    after = edited(path.read_text(encoding="utf-8"), old, new)
    stacks.parse(after, str(path))
    files.write(path, after)
    print(f"wrote {path.name}")


def edited(text: str, old: Stack, new: Stack) -> str:
    """Give the stack file with a component's version, the direct requirements and the exemptions of ``new``."""
    for before, after in zip(old.components, new.components, strict=True):
        if before.version != after.version:
            lines = rf'(distribution = "{re.escape(before.distribution)}"\nversion = )"{re.escape(before.version)}"'
            text = re.sub(lines, rf'\g<1>"{after.version}"', text)
    if old.lock.direct != new.lock.direct:
        listed = f"direct = {json.dumps(list(new.lock.direct))}"
        text, count = re.subn(r"^direct = \[.*\]$", lambda _: listed, text, count=1, flags=re.MULTILINE)
        text = text if count else text.replace("[lock]\n", f"[lock]\n{listed}\n", 1)
    for row in new.lock.exempt:
        if row not in old.lock.exempt:
            text = _exempted(text, row)
    return text


def _exempted(text: str, row: Exempt) -> str:
    block = f'[[lock.exempt]]\npackage = "{row.package}"\nuntil = "{row.until}"\nreason = {json.dumps(row.reason)}\n'
    known = rf'\[\[lock\.exempt\]\]\npackage = "{re.escape(row.package)}"\nuntil = .*\nreason = .*\n'
    text, count = re.subn(known, lambda _: block, text)
    return text if count else text.rstrip("\n") + f"\n\n{block}"
