"""OSV records (https://ossf.github.io/osv-schema/): which versions of which packages a vulnerability affects."""

from __future__ import annotations

import io
import json
import urllib.request
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from envcheck.errors import DataError, WorkError
from scripts import download
from scripts.lock_text import Pin

ATTEMPTS = 3
TIMEOUT_SECONDS = 120
ECOSYSTEM = "PyPI"
Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A locked package that a record affects."""

    id: str
    aliases: tuple[str, ...]
    name: str
    version: str
    summary: str
    fixed: tuple[str, ...]


def load(place: str, names: Collection[str]) -> list[Record]:
    """Read the records about these packages; raise where the place holds none at all."""
    records = list(_records(place))
    if not records:
        raise DataError(place, "", expected="OSV records", found="none")
    return [record for record in records if _concerns(record, set(names), place)]


def _concerns(record: Record, names: set[str], place: str) -> bool:
    """Tell whether a record is about one of the packages; refuse one that has not the shape of OSV."""
    try:
        concerned = bool(_named(record) & names)
        for row in record.get("affected", []) if concerned else ():
            affects(row, "0")
    except (AttributeError, TypeError) as error:
        expected = "packages, versions and ranges as OSV has them"
        raise DataError(place, f"record {record['id']}", expected=expected, found=str(error)) from error
    return concerned


def _named(record: Record) -> set[str]:
    rows = [row.get("package", {}) for row in record.get("affected", [])]
    return {canonicalize_name(row.get("name", "")) for row in rows if row.get("ecosystem") == ECOSYSTEM}


def _records(place: str) -> Iterator[Record]:
    if "://" in place and not place.startswith("file://"):
        yield from _parsed(_fetched(place), place)
        return
    path = Path(place.removeprefix("file://"))
    try:
        listed = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        for item in listed:
            yield from _parsed(item.read_bytes(), str(item))
    except OSError as error:
        raise WorkError(f"{path}: {error.strerror}", fix="name a file, directory or address of OSV records") from error


def _fetched(url: str) -> bytes:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310  # the user's own address
                return bytes(response.read())
        except download.FAULTS as error:
            if attempt == ATTEMPTS:
                raise WorkError(
                    f"{url} could not be read in {ATTEMPTS} attempts: {download.said(error)}",
                    fix="download it elsewhere and name the file",
                ) from error
    raise AssertionError  # pragma: no cover  # the loop returns or raises


def _parsed(content: bytes, source: str) -> Iterator[Record]:
    """Read one record, a list, ``{"vulns": […]}``, or a zip of records."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".json"):
                    yield from _parsed(archive.read(name), f"{source}: {name}")
        return
    try:
        document = json.loads(content)
    except ValueError as error:
        raise DataError(source, "", expected="JSON or a zip of it", found=str(error)) from error
    rows = document.get("vulns", [document]) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise DataError(source, "", expected="a record or a list of records", found=type(rows).__name__)
    yield from (row for row in rows if isinstance(row, dict) and "id" in row and not row.get("withdrawn"))


def hits(records: Iterable[Record], pins: Sequence[Pin]) -> Iterator[Hit]:
    """Match records with locked versions, in the order of the lock."""
    by_name: dict[str, list[Record]] = {}
    for record in records:
        for name in _named(record):
            by_name.setdefault(name, []).append(record)
    for pin in pins:
        for record in sorted(by_name.get(pin.name, []), key=lambda record: str(record["id"])):
            rows = [
                row
                for row in record["affected"]
                if canonicalize_name(row.get("package", {}).get("name", "")) == pin.name
            ]
            if any(affects(row, pin.version) for row in rows):
                yield _hit(record, rows, pin)


def _hit(record: Record, rows: Sequence[Record], pin: Pin) -> Hit:
    events = [event for row in rows for span in row.get("ranges", []) for event in span.get("events", [])]
    summary = str(record.get("summary") or str(record.get("details", "")).split("\n", 1)[0])
    fixed = tuple(
        dict.fromkeys(
            str(event["fixed"]) for event in events if "fixed" in event and _is_later(event["fixed"], pin.version)
        )
    )
    return Hit(
        id=str(record["id"]),
        aliases=tuple(map(str, record.get("aliases", []))),
        name=pin.name,
        version=pin.version,
        summary=summary[:160],
        fixed=fixed,
    )


def _is_later(fixed: str, version: str) -> bool:
    try:
        return Version(fixed) > Version(version)
    except InvalidVersion:
        return False


def affects(row: Record, version: str) -> bool:
    """Tell whether a version is listed, or lies in a range: from ``introduced`` to ``fixed``."""
    if version in row.get("versions", []):
        return True
    return any(
        _inside(span.get("events", []), version) for span in row.get("ranges", []) if span.get("type") == "ECOSYSTEM"
    )


def _inside(events: Sequence[Mapping[str, str]], version: str) -> bool:
    now, affected = Version(version), False
    for event in sorted(events, key=_when):
        at = _when(event)
        if "introduced" in event and now >= at:
            affected = True
        elif ("fixed" in event and now >= at) or ("last_affected" in event and now > at):
            affected = False
    return affected


def _when(event: Mapping[str, str]) -> Version:
    text = next(iter(event.values()), "0")
    try:
        return Version("0.dev0" if text == "0" else text)
    except InvalidVersion:
        return Version("0.dev0")
