"""A kit's checksums: written when it is made, verified when it arrives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from envcheck import errors
from envcheck.errors import DataError
from scripts import files, lock_text
from scripts.files import sha256

SUMS = "SHA256SUMS"


def sums(kit: Path) -> str:
    """Give the checksums of all files, as sha256sum writes and checks them."""
    return "".join(f"{sha256(path)}  {path.relative_to(kit).as_posix()}\n" for path in _files(kit))


def _files(kit: Path) -> list[Path]:
    return sorted(path for path in kit.rglob("*") if path.is_file() and path.name != SUMS)


def summary(kit: Path) -> str:
    """Say how much it is."""
    found = _files(kit)
    return f"{len(found)} files, {files.size(sum(path.stat().st_size for path in found))}"


def verify(kit: Path) -> int:
    """Print every file that is gone, changed or not of the kit; give 1 where there is one."""
    faults = [*compared(kit), *incomplete(kit)]
    for fault in faults:
        print(fault)
    print(
        f"{kit}: {len(faults)} fault(s)" if faults else f"{kit}: {summary(kit)}, all as they were when the kit was made"
    )
    return errors.FINDINGS if faults else errors.OK


def compared(kit: Path) -> Iterator[str]:
    """Compare all files with SHA256SUMS: ``<64 hex digits>  wheels/torch-2.5.1-….whl``."""
    try:
        lines = (kit / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(str(kit / SUMS), "", expected="the checksums of a kit", found=str(error.strerror)) from error
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name, digest in sorted(wanted.items()):
        path = kit / name
        if not path.is_file():
            yield f"{name}: is gone"
        elif (found := sha256(path)) != digest:
            yield f"{name}: sha256 expected {digest}, got {found}"
    yield from (
        f"{name}: is not of this kit"
        for name in sorted({path.relative_to(kit).as_posix() for path in _files(kit)} - wanted.keys())
    )


def incomplete(kit: Path) -> Iterator[str]:
    """Name every locked package of which the kit has no file."""
    try:
        rows = json.loads((kit / "kit.json").read_text(encoding="utf-8"))["environments"]
        there = [flat(path.name) for path in (kit / "wheels").glob("*")]
        for row in rows:
            path = kit / row["lock"]
            for pin in lock_text.parse(path.read_text(encoding="utf-8"), str(path)):
                if not any(name.startswith(f"{flat(f'{pin.name}-{pin.version}')}-") for name in there):
                    yield f"{row['lock']}: no file of {pin.name}=={pin.version}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"kit.json: cannot be read: {error!r}"


def flat(name: str) -> str:
    """Make file names and pins comparable: ``Ruamel.Yaml-0.18.tar.gz`` -> ruamel-yaml-0-18-tar-gz."""
    return re.sub(r"[-_.+]+", "-", name.lower())
