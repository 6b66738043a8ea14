"""The archives that a toolchain is made of: each pinned by size and SHA-256 in ``lockfiles/toolchain-*.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from envcheck.codec import Where, decode
from envcheck.errors import DataError
from envcheck.stack import parse_toml
from scripts.cache import ROOT

SourceName = Literal["debian", "redist", "gcc"]
SOURCES: tuple[SourceName, ...] = ("debian", "redist")
"""Where CUDA can be taken from; ``gcc`` is the host compiler, Debian packages too."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One archive: ``path`` is where it lies below a mirror."""

    name: str
    version: str
    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pins:
    """Everything that one toolchain is made of; ``cuda`` and ``nvcc``, or ``gcc``, say which release."""

    version: int
    kind: SourceName
    release: str
    cuda: str = ""
    nvcc: str = ""
    gcc: str = ""
    base: str | None = None
    archive: tuple[Archive, ...]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(item.size for item in self.archive)


def command(kind: SourceName) -> str:
    """Give the command that makes the pins."""
    return "python -m scripts.toolchain --pin " + ("--gcc" if kind == "gcc" else f"--from {kind}")


def place(kind: SourceName) -> Path:
    """Path of the pins of one source."""
    return ROOT / "lockfiles" / f"toolchain-{kind}.toml"


def load(kind: SourceName) -> Pins:
    """Load the pins of one source."""
    path = place(kind)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        fix = command(kind)
        raise DataError(path.name, "", expected="a pins file", found=str(error.strerror), fix=fix) from error
    return parse(text, path.name)


def parse(text: str, source: str) -> Pins:
    """Read and validate a pins file; an archive without a hash is an error that names it."""
    pins: Pins = decode(Pins, parse_toml(text, source), Where(source=source))
    for index, item in enumerate(pins.archive):
        if not item.sha256 or len(item.sha256) != 64:  # noqa: PLR2004  # hex digits of a SHA-256
            key = f"archive[{index}] ({item.name}).sha256"
            fix = f"{command(pins.kind)}, where the mirror can be reached"
            raise DataError(source, key, expected="64 hex digits", found=repr(item.sha256), fix=fix)
    return pins


def render(pins: Pins) -> str:
    """Write a pins file as TOML."""
    head = [
        f"# Made by `{command(pins.kind)}`; not edited by hand.",
        f"version = {pins.version}",
        f'kind = "{pins.kind}"',
        f'release = "{pins.release}"',
        *(f'{key} = "{getattr(pins, key)}"' for key in ("cuda", "nvcc", "gcc", "base") if getattr(pins, key)),
    ]
    return "\n".join(head) + "\n" + "".join(_row(item) for item in pins.archive)


def _row(item: Archive) -> str:
    digest = f'sha256 = "{item.sha256}"\n' if item.sha256 else ""
    return (
        f'\n[[archive]]\nname = "{item.name}"\nversion = "{item.version}"\npath = "{item.path}"\n'
        f"size = {item.size}\n{digest}"
    )
