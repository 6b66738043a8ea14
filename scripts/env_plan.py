"""What goes into an environment: the lines of the lock that apply, and the wheels that the lock cannot have."""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.parse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags, platform_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from envcheck import choices
from envcheck.errors import DataError, WorkError
from envcheck.stack import Component, ReleaseWheel, Stack
from scripts import lock_files, lock_inputs, lock_text, wheelhouse_store
from scripts.cache import ROOT
from scripts.lock_resolve import TARGET
from scripts.lock_text import Pin
from scripts.wheelhouse_store import Entry

BUILT = frozenset({"git", "sdist", "wheel"})
"""Origins whose wheels come from the wheelhouse, not from the lock."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What an environment is asked to be."""

    stack: Stack
    engine: str
    trainer: str
    version: str
    """Of Python, as 3.10.13."""


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A wheel beside the lock: a file of the wheelhouse, or a release wheel with a known hash."""

    component: str
    file: str
    sha256: str
    path: Path | None = None
    url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of an environment by name and hash; ``missing`` are the components that have no wheel yet."""

    pins: tuple[Pin, ...]
    constraints: Path
    extras: tuple[Extra, ...]
    missing: tuple[str, ...]
    sdists: tuple[str, ...]

    def digest(self, python: str) -> str:
        """Hash all that decides what is installed."""
        lines = [f"{pin.name}=={pin.version}" for pin in self.pins] + [
            value for pin in self.pins for value in pin.hashes
        ]
        lines += [extra.sha256 for extra in self.extras] + [self.constraints.read_text(encoding="utf-8"), python]
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def python_environment(version: str) -> dict[str, str]:
    """Give the marker environment of a Python on the platform of the locks."""
    return TARGET | {"python_version": ".".join(version.split(".")[:2]), "python_full_version": version}


def make(wanted: Selection, *, wheelhouse: Path | None = None, root: Path = ROOT) -> Plan:
    """Read the lock, refuse it where it was edited by hand, and find the wheels beside it."""
    stack = wanted.stack
    path = lock_files.requirements(stack.name, wanted.engine, root)
    pins = applying(read(path), wanted)
    torch = next((pin.version for pin in pins if pin.name == "torch"), "")
    house = list(wheelhouse_store.entries(wheelhouse or wheelhouse_store.default()))
    extras, missing = beside(wanted, house, torch)
    return Plan(
        pins=tuple(pins),
        constraints=lock_files.directory(stack.name, root) / "build.txt",
        extras=tuple(extras),
        missing=tuple(missing),
        sdists=tuple(sorted(sdists(stack) & {pin.name for pin in pins})),
    )


def beside(wanted: Selection, house: Sequence[Entry], torch: str) -> tuple[list[Extra], list[str]]:
    """Find the wheels of what the lock cannot have; name the components that have none yet."""
    extras, missing = [], []
    for item in wanted.stack.wanted(wanted.engine, wanted.trainer):
        if item.origin.kind in BUILT:
            found = release(wanted.stack, item, wanted.version) or built(item, house, wanted.version, torch)
            if found:
                extras.append(found)
            elif not item.optional:
                missing.append(item.name)
    return extras, missing


def read(path: Path) -> list[Pin]:
    """Give the pins of a lock that is as it was generated."""
    try:
        text = lock_text.exact(path)
    except OSError as error:
        raise DataError(str(path), "", expected="a lock", found=str(error.strerror), fix="nox -s lock") from error
    pins = lock_text.parse(text, str(path))
    if not lock_text.is_whole(text):
        raise DataError(
            str(path),
            "",
            expected="the lines that were generated",
            found="a lock that was edited",
            fix="nox -s lock_check names the line; git restore it, or nox -s lock",
        )
    return pins


def applying(pins: Iterable[Pin], wanted: Selection) -> list[Pin]:
    """Keep the pins of this Python, without the parts of other trainers."""
    environment = python_environment(wanted.version)
    others = {
        item.distribution for item in wanted.stack.components if item.trainers and wanted.trainer not in item.trainers
    }
    return [pin for pin in pins if pin.applies(environment) and pin.name not in others]


def sdists(stack: Stack) -> set[str]:
    """Name the locked packages that have no wheels: pure Python, built in isolation from ``build.txt``."""
    bare: set[str] = {canonicalize_name(row.name) for row in stack.lock.metadata if not row.wheel}
    return bare - {item.distribution for item in stack.components}


def release(stack: Stack, item: Component, version: str) -> Extra | None:
    """Give the prebuilt wheel that the stack names with a hash and that fits this Python."""
    for row in stack.lock.wheels:
        if row.component == item.name and row.sha256 and fits(name_of(row), version):
            return Extra(component=item.name, file=name_of(row), sha256=row.sha256, url=row.url)
    return None


def name_of(row: ReleaseWheel) -> str:
    """File name of a release wheel."""
    return urllib.parse.unquote(row.url.rsplit("/", 1)[-1])


def built(item: Component, house: Sequence[Entry], version: str, torch: str) -> Extra | None:
    """Give the newest wheel of the wheelhouse for this component, Python and torch."""
    found = [entry for entry in house if _matches(entry, item, version, torch)]
    if not found:
        return None
    best = max(found, key=lambda entry: str(entry.receipt.get("finished", "")))
    fault = wheelhouse_store.damage(best)
    if fault:
        fix = f"nox -s {choices.session(item.name)} -- --rebuild"
        raise WorkError(f"{best.wheel}: {fault}; it was refused", fix=fix)
    return Extra(component=item.name, file=best.wheel.name, sha256=best.sha256, path=best.wheel)


def _matches(entry: Entry, item: Component, version: str, torch: str) -> bool:
    inputs = entry.receipt.get("inputs", {})
    same = (inputs.get("component"), inputs.get("version")) == (item.name, item.version)
    built_for = str(inputs.get("torch", "")).split("+")[0]
    return same and built_for in {"", torch} and fits(entry.wheel.name, version)


def fits(file: str, version: str) -> bool:
    """Tell whether a wheel's name fits this Python on Linux x86_64."""
    try:
        tags = parse_wheel_filename(file)[3]
    except InvalidWheelFilename:
        return False
    return bool(tags & frozenset(ordered_tags(version)))


def ordered_tags(version: str) -> list[Tag]:
    """Tags that a CPython of this version takes on the platform that runs this, the best first."""
    major, minor = (int(part) for part in version.split(".")[:2])
    platforms = list(platform_tags()) if sys.platform == "linux" else ["linux_x86_64"]
    anywhere = compatible_tags((major, minor), f"cp{major}{minor}", platforms)
    return [*cpython_tags((major, minor), platforms=platforms), *anywhere]


def covered() -> tuple[str, ...]:
    """Pythons that the locks are made for."""
    return lock_inputs.PYTHONS
