"""One lock file against what it must be; each fault names the file, the line and the command that mends it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from envcheck.errors import DataError
from envcheck.stack import Stack
from scripts import lock_check_edits, lock_files, lock_inputs, lock_text, sbom
from scripts.env_plan import BUILT, python_environment
from scripts.lock_text import Pin

MEND = "nox -s lock"
ADDRESS = re.compile(r"\b(?:https?|file|git)(?:\+\w+)?://|^\s*(?:-i|-f|--(?:extra-)?index-url|--find-links)\b")
ELSEWHERE = re.compile(r"sys_platform|os_name|platform_|full_version")
"""Markers of lines which a lock for all platforms and patch releases holds for others than those asked here."""
PATCH = "9"
"""Markers are asked for a late patch release of each Python."""


def lock(stack: Stack, engine: str, place: Path, digest: str) -> Iterator[str]:
    """Check the lock of an engine."""
    path = place / f"requirements-{engine}.txt"
    faults = list(whole(path, digest, lock_inputs.PYTHONS))
    yield from faults
    pins = _pins(path)
    if pins is None:
        return
    yield from _edited(path, place / f"sbom-{engine}.cdx.json", pins, whole_lock=not faults)
    yield from _components(stack, engine, path, pins)


def build(place: Path, digest: str) -> Iterator[str]:
    """Check build.txt."""
    yield from whole(place / "build.txt", digest, lock_inputs.PYTHONS)


def whole(path: Path, digest: str, pythons: Sequence[str]) -> Iterator[str]:
    """Check what every requirements file must be: from these inputs, unedited, pinned, hashed, unambiguous."""
    name = path.name
    try:
        text = lock_text.exact(path)
        pins = lock_text.parse(text, str(path))
    except OSError:
        yield f"{name}: is missing: {MEND}"
        return
    except DataError as error:
        yield str(error)
        return
    if lock_text.headed(text).get("inputs") != digest:
        yield f"{name}: was made from other inputs than stand in the stack file now: {MEND}"
    if not lock_text.is_whole(text):
        yield from lock_check_edits.told(path, text, MEND)
    yield from (
        f"{name}, line {number}: an address has no place in a lock: {MEND}"
        for number, line in enumerate(text.splitlines(), start=1)
        if ADDRESS.search(line)
    )
    yield from (
        f"{name}, line {pin.line}: {pin.name}=={pin.version} has no hash: {MEND}" for pin in pins if not pin.hashes
    )
    yield from _ambiguous(name, pins, pythons)


def _ambiguous(name: str, pins: Iterable[Pin], pythons: Sequence[str]) -> Iterator[str]:
    """Each package at most once for each Python, and each line for at least one of them."""
    listed = list(pins)
    environments = {version: python_environment(f"{version}.{PATCH}") for version in pythons}
    used: set[int] = set()
    for version, environment in environments.items():
        seen: dict[str, Pin] = {}
        for pin in listed:
            if not pin.applies(environment):
                continue
            used.add(pin.line)
            if pin.name in seen:
                other = seen[pin.name].line
                twice = f"{pin.name} is there twice for Python {version}, see line {other}"
                yield f"{name}, line {pin.line}: {twice}: {MEND}"
            seen[pin.name] = pin
    for pin in listed:
        if pin.line not in used and not ELSEWHERE.search(pin.marker):
            yield f"{name}, line {pin.line}: {pin.name} applies to none of Python {', '.join(pythons)}: {MEND}"


def _pins(path: Path) -> list[Pin] | None:
    try:
        return lock_text.parse(lock_text.exact(path), str(path))
    except (OSError, DataError):
        return None


def _edited(path: Path, document: Path, pins: Sequence[Pin], *, whole_lock: bool) -> Iterator[str]:
    """Compare with the SBOM, which knows each version and the digest of its hashes: it finds the edited line."""
    try:
        rows = json.loads(document.read_text(encoding="utf-8"))["components"]
        known = {(row["name"], row["version"]): _files(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        yield f"{document.name}: is missing or damaged: {MEND}"
        return
    for pin in pins:
        found = known.get((pin.name, pin.version))
        if found is None:
            yield f"{path.name}, line {pin.line}: {pin.name}=={pin.version} was written by hand: {MEND}"
        elif found != sbom.files_digest(pin):
            yield f"{path.name}, line {pin.line}: the hashes of {pin.name}=={pin.version} were edited: {MEND}"
    gone = known.keys() - {(pin.name, pin.version) for pin in pins}
    if gone or whole_lock is False:
        yield from (f"{path.name}: {name}=={version} was taken out by hand: {MEND}" for name, version in sorted(gone))


def _files(row: dict[str, object]) -> str:
    listed = row.get("properties", [])
    rows = listed if isinstance(listed, list) else []
    return next((str(item["value"]) for item in rows if item.get("name") == sbom.FILES), "")


def _components(stack: Stack, engine: str, path: Path, pins: Sequence[Pin]) -> Iterator[str]:
    versions: dict[str, set[str]] = {}
    for pin in pins:
        versions.setdefault(pin.name, set()).add(pin.version)
    for item in stack.components:
        if item.engines and engine not in item.engines:
            continue
        found = versions.get(item.distribution, set())
        if item.origin.kind in BUILT:
            if found:
                yield f"{path.name}: {item.distribution} is built from source, it must not be in the lock: {MEND}"
        elif found != {item.version}:
            there = ", ".join(sorted(found)) or "nothing"
            yield f"{path.name}: {item.distribution} is {there}, the stack file says {item.version}: {MEND}"


def generated(stack: Stack, place: Path) -> Iterator[str]:
    """Check the files that the stack file alone tells, and that nothing in them floats."""
    for name, text in lock_files.generated(stack).items():
        path = place / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{name}: is not what the stack file says: {MEND}"
    for image in stack.images:
        for digest in [image.digest, *image.platforms.values()]:
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                yield f"stack {stack.name}: image {image.tag}: {digest!r} is no digest"


def said(stack: Stack) -> Iterator[str]:
    """Check that what was decided by hand says why, from where and until when."""
    for row in stack.lock.overrides:
        for key in ("reason", "source", "until"):
            if not getattr(row, key).strip():
                yield f"stack {stack.name}: the override {row.requirement} has no {key}"
        if not row.source.startswith("https://"):
            yield f"stack {stack.name}: the source of the override {row.requirement} is no address"
    for item in stack.lock.exempt:
        if not item.reason.strip():
            yield f"stack {stack.name}: {item.package} is exempt from the cut-off date without a reason"
    for name in duplicates([row.package for row in stack.lock.exempt]):
        yield f"stack {stack.name}: {name} is exempt from the cut-off date twice"


def duplicates(names: Iterable[str]) -> list[str]:
    """List the names that stand there more than once."""
    seen = [canonicalize_name(name) for name in names]
    return sorted({name for name in seen if seen.count(name) > 1})
