"""Where the archives of a toolchain are had from, and their download: several at once, each checked by its hash."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from envcheck.errors import WorkError
from scripts import download, process, toolchain_pin
from scripts.toolchain_pins import Archive, Pins, SourceName

DOWNLOADS = 4


def debian_mirrors() -> list[str]:
    """List the Debian mirrors that the host's own apt uses; empty on other systems."""
    named = os.environ.get("ENVCHECK_DEBIAN_MIRROR")
    if named:
        return [named]
    if shutil.which("apt-get") is None:
        return []
    text = process.output(["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)"])
    uris = [line.partition(" ")[2] for line in text.splitlines() if line.startswith("Debian ")]
    return list(dict.fromkeys(uris))


def mirrors(kind: SourceName, named: str | None, pins: Pins | None = None) -> list[str]:
    """List the places that hold the archives, what was named first."""
    if named:
        return [named]
    found = [(pins and pins.base) or toolchain_pin.REDIST_BASE] if kind == "redist" else debian_mirrors()
    if not found:
        more = ", or take --from redist" if kind == "debian" else ""
        fix = f"name one with --mirror (any Debian mirror){more}"
        raise WorkError("this host's apt names no Debian mirror", fix=fix)
    return found


def archives(pins: Pins, places: Sequence[str]) -> list[Path]:
    """Download all archives; give their files in the order of the pins."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(DOWNLOADS) as pool:
        task = progress.add_task("downloading", total=pins.size)

        def one(archive: Archive) -> Path:
            urls = [f"{place.rstrip('/')}/{archive.path}" for place in places]
            return download.fetch(
                urls,
                digest=archive.sha256 or "",
                size=archive.size,
                advance=lambda size: progress.advance(task, size),
            )

        return list(pool.map(one, pins.archive))
