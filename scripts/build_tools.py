"""The build environment beside torch: setuptools, ninja, cmake … in a directory of their own, the target untouched."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from envcheck.errors import WorkError
from envcheck.stack import Stack
from scripts import process
from scripts.cache import ROOT, cache, locked
from scripts.files import replacing, write

ALWAYS = ("pip",)
INSTALL_SECONDS = 600
DONE = ".complete"
DIRECT = ("python", "python3")


def constraints(stack: Stack) -> Path | None:
    """Path of the stack's ``build.txt``, whose hashed pins decide which build tools are taken, where it exists."""
    path = ROOT / "lockfiles" / stack.name / "build.txt"
    return path if path.exists() else None


def digest(stack: Stack, requires: Sequence[str], abi: str) -> str:
    """Hash what decides the overlay: the requirements, their own pins (no others), the interpreter's ABI."""
    pins = constraints(stack)
    pinned = pins_of(pins.read_text(encoding="utf-8"), requires) if pins else []
    return hashlib.sha256("\n".join([*sorted({*requires, *ALWAYS}), abi, *pinned]).encode()).hexdigest()


def pins_of(text: str, requires: Sequence[str]) -> list[str]:
    """Give the lines ``name==version …`` of a lock that pin these requirements, markers too, hashes left out."""
    wanted = {canonicalize_name(Requirement(item).name) for item in {*requires, *ALWAYS}}
    lines = (line.rstrip(" \\") for line in text.splitlines() if line[:1].isalnum())
    return sorted(line for line in lines if canonicalize_name(line.split("==")[0].strip()) in wanted)


def overlay(stack: Stack, requires: Sequence[str], *, python: str, abi: str) -> Path:
    """Give a directory with the build requirements, made once: for PYTHONPATH, its ``bin`` for PATH."""
    path = cache("build-tools", digest(stack, requires, abi)[:16])
    with locked(path.with_name(f".{path.name}.lock"), what="the build tools"):
        if not (path / DONE).exists():
            with replacing(path) as work:
                process.output(
                    _installer(python, work, sorted({*requires, *ALWAYS}), constraints(stack)), timeout=INSTALL_SECONDS
                )
                shims(work, python)
                write(work / DONE, "")
    return path


def _installer(python: str, into: Path, requires: Sequence[str], pins: Path | None) -> list[str]:
    constraint = ["-c", str(pins)] if pins else []
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv:
        head = [uv, "pip", "install", "--quiet", "--python", python, "--target", str(into)]
        return [*head, "--only-binary", ":all:", *constraint, *requires]
    head = [python, "-m", "pip", "install", "--quiet", "--no-warn-script-location", "--target", str(into)]
    return [*head, "--only-binary", ":all:", *constraint, *requires]


def shims(directory: Path, python: str) -> None:
    """Write ``python`` and ``python3`` that start the target: a setup.py that calls ``python3`` meets no other."""
    (directory / "bin").mkdir(exist_ok=True)
    for name in DIRECT:
        path = directory / "bin" / name
        path.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n', encoding="utf-8")
        path.chmod(0o755)


def versions(overlay: Path) -> dict[str, str]:
    """Read what is in an overlay from the names of its dist-infos."""
    rows = (path.name.removesuffix(".dist-info").partition("-") for path in overlay.glob("*.dist-info"))
    found = {name.lower().replace("_", "-"): version for name, _, version in rows}
    if not found:
        raise WorkError(f"{overlay} holds no build tools", fix=f"remove {overlay}")
    return dict(sorted(found.items()))
