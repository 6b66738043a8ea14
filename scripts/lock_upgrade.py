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
from envcheck.stack import Component, Exempt, Lock, Stack
from scripts import files, index_files, lock_diff, lock_inputs
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin

REASON = "asked for by nox -s lock -- --upgrade-package"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The version that is asked for, and when the index got its last file."""

    name: str
    version: str
    uploaded: dt.date | None


def _requirement(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise EnvcheckError(
            f"{text!r} is not NAME or NAME==V", fix="as in --upgrade-package sglang==0.4.6.post5"
        ) from error


def name_of(text: str) -> str:
    """Read the name in ``NAME`` or ``NAME==V``."""
    return str(canonicalize_name(_requirement(text).name))


def wish(text: str) -> Wish:
    """Read ``NAME`` or ``NAME==V`` and look the version up; without one, the newest that is not a pre-release."""
    asked = _requirement(text)
    name = str(canonicalize_name(asked.name))
    found = versions(index_files.files(name))
    chosen = [version for version in asked.specifier.filter(found) if asked.specifier or not version.is_prerelease]
    if not chosen:
        have = ", ".join(str(version) for version in sorted(found)[-8:])
        raise WorkError(
            f"the index has no {text} (any more); "
            + (f"its newest are: {have}" if have else f"it has no {name} at all"),
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


def upgraded(stack: Stack, text: str, place: Path | None = None) -> Stack:
    """Give the stack with the other version: a component's, or a direct pin of what components bring along.

    ``place`` holds the locks as they are: what only some engines have stays with these.
    """
    component = owner(stack, name_of(text))
    asked = wish(text)
    lock = stack.lock if component else _pinned(stack, asked, place)
    if needs_exemption(stack, asked):
        assert asked.uploaded is not None  # noqa: S101  # needs_exemption looked
        until = (asked.uploaded + dt.timedelta(days=1)).isoformat()
        rest = [row for row in lock.exempt if canonicalize_name(row.package) != asked.name]
        lock = dataclasses.replace(lock, exempt=(*rest, Exempt(package=asked.name, until=until, reason=REASON)))
    changed = tuple(
        dataclasses.replace(item, version=asked.version) if item is component else item for item in stack.components
    )
    return dataclasses.replace(stack, lock=lock, components=changed)


def _pinned(stack: Stack, asked: Wish, place: Path | None) -> Lock:
    """Pin a package that is no component: where it is asked for, else for the engines whose locks have it, else all."""
    lock = stack.lock
    named = [engine for engine in stack.engines if _extras(lock.engine_direct.get(engine, ()), asked.name) is not None]
    found = named or ([] if _extras(lock.direct, asked.name) is not None else _having(stack, asked.name, place))
    if not found or len(found) == len(stack.engines) != len(named):
        return dataclasses.replace(lock, direct=_with(lock.direct, asked))
    moved = {engine: _with(lock.engine_direct.get(engine, ()), asked) for engine in found}
    return dataclasses.replace(lock, engine_direct=lock.engine_direct | moved)


def _having(stack: Stack, name: str, place: Path | None) -> list[str]:
    """Name the engines whose locks have the package."""
    pins = _there(stack, place) if place else {}
    return [engine for engine, rows in pins.items() if any(pin.name == name for pin in rows)]


def _extras(lines: Sequence[str], name: str) -> set[str] | None:
    """Extras that a package is asked for with; None where it is not asked for."""
    rows = [Requirement(line) for line in lines]
    return next((row.extras for row in rows if canonicalize_name(row.name) == name), None)


def _with(lines: Sequence[str], asked: Wish) -> tuple[str, ...]:
    kept = [line for line in lines if canonicalize_name(Requirement(line).name) != asked.name]
    extras = _extras(lines, asked.name)
    names = f"[{','.join(sorted(extras))}]" if extras else ""
    return tuple(sorted([*kept, f"{asked.name}{names}=={asked.version}"]))


def owner(stack: Stack, name: str) -> Component | None:
    """Find the component that pins a distribution; refuse what is pinned by commit, by an override, or twice."""
    for row in stack.lock.overrides:
        if canonicalize_name(Requirement(row.requirement).name) == name:
            raise WorkError(
                f"stack {stack.name} overrides {row.requirement}: {row.reason}",
                fix="edit the override and its reason in the stack file, then nox -s lock",
            )
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


def check(old: Stack, new: Stack, resolved: Resolved, place: Path, known: Limits | None = None) -> None:
    """Raise WorkError with every limit that the new pins would break; ``place`` holds the locks as they are.

    What the old locks break too is no fault of the upgrade: TransformerEngine 1.7 was never meant for its flash-attn.
    """
    table = known or limits.load()
    broken = _all_faults(table, new, resolved.pins) - _all_faults(table, old, _there(old, place))
    if broken:
        raise WorkError(
            "the upgrade breaks limits, nothing was written:\n" + "\n".join(f"  {line}" for line in sorted(broken)),
            fix="take another version, or upgrade what the limits name first",
        )


def _all_faults(known: Limits, stack: Stack, pins: Mapping[str, Sequence[Pin]]) -> set[str]:
    versions = [versions_of(stack, engine, pins.get(engine, ())) for engine in stack.engines]
    return {text for found in versions for text in faults(known, found)}


def _there(stack: Stack, place: Path) -> dict[str, list[Pin]]:
    """Give the locks as they are, by engine."""
    found = lock_diff.read(place)
    return {engine: found.get(f"requirements-{engine}.txt", []) for engine in stack.engines}


def versions_of(stack: Stack, engine: str, pins: Sequence[Pin]) -> dict[str, str]:
    """Name -> version, the highest where Pythons differ; with what is built from source, which no lock has."""
    built = {item.distribution: item.version for item in stack.components if not item.engines or engine in item.engines}
    return built | {pin.name: pin.version for pin in sorted(pins, key=lambda pin: Version(pin.version))}


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
        text = _listed(text, "lock", "direct", new.lock.direct)
    for engine, wanted in new.lock.engine_direct.items():
        if old.lock.engine_direct.get(engine) != wanted:
            text = _listed(text, "lock.engine_direct", engine, wanted)
    for row in new.lock.exempt:
        if row not in old.lock.exempt:
            text = _exempted(text, row)
    return text


def _listed(text: str, table: str, key: str, lines: Sequence[str]) -> str:
    """Put ``key = […]`` into a table, in the place of what it has there."""
    head, mark, rest = text.partition(f"[{table}]\n")
    if not mark:
        head, mark, rest = f"{text.rstrip()}\n\n", f"[{table}]\n", ""
    body, end, after = rest.partition("\n[")
    line = f"{key} = {json.dumps(list(lines))}"
    body, count = re.subn(rf"^{re.escape(key)} = \[.*\]$", lambda _: line, body, count=1, flags=re.MULTILINE)
    return head + mark + (body if count else f"{line}\n{body}") + end + after


def _exempted(text: str, row: Exempt) -> str:
    block = f'[[lock.exempt]]\npackage = "{row.package}"\nuntil = "{row.until}"\nreason = {json.dumps(row.reason)}\n'
    known = rf'\[\[lock\.exempt\]\]\npackage = "{re.escape(row.package)}"\nuntil = .*\nreason = .*\n'
    text, count = re.subn(known, lambda _: block, text)
    return text if count else text.rstrip("\n") + f"\n\n{block}"
