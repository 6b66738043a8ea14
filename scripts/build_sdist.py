"""A component that the lock takes as a wheel, built from its sdist instead: the same lock pins that file's hash."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from envcheck.errors import WorkError
from envcheck.stack import Component, Origin, Recipe, Stack
from scripts import files, index_files
from scripts.cache import ROOT, cache
from scripts.sources_lock import Source

RECIPE = Recipe(
    requires=("setuptools==70.3.0", "wheel", "packaging", "ninja", "cmake<4", "pybind11", "numpy"),
    environment={"CUDA_HOME": "{cuda_home}", "TORCH_CUDA_ARCH_LIST": "{archs_dotted}", "MAX_JOBS": "{jobs}"},
    preflight=(
        "nvcc-missing",
        "cuda-home-invalid",
        "nvcc-differs-from-torch",
        "nvcc-too-old-for-gpu",
        "gcc-too-old",
        "gcc-too-new-for-nvcc",
        "python-headers-missing",
        "build-tool-missing",
        "build-needs-more-memory",
    ),
    memory_per_job_bytes=4 << 30,
)
"""What nearly every torch extension wants; a component with wishes of its own has a recipe in the stack file."""


def from_sdist(
    stack: Stack, component: Component, engine: str, places: Sequence[Path] = ()
) -> tuple[Component, Source]:
    """Give the component as one that is built, and its source, whose hash has to be among those of the lock.

    The index is asked only where neither an earlier build nor a directory of archives tells the name of the file.
    """
    lock = ROOT / "lockfiles" / stack.name / f"requirements-{engine}.txt"
    hashes = locked_hashes(lock, component.distribution)
    name, version = component.distribution, component.version
    file = _remembered(component, hashes) or _beside(component, hashes, places) or index_files.sdist_of(name, version)
    if file.sha256 is None or file.sha256 not in hashes:
        what = f"{file.name} (sha256 {file.sha256}) is not among the files that {lock.name} pins"
        raise WorkError(what, fix=f"nox -s lock -- --stack {stack.name}, after reading what changed")
    files.write(_note(component), json.dumps({"name": file.name, "size": file.size, "sha256": file.sha256}) + "\n")
    source = Source(
        name=component.name,
        version=component.version,
        kind="sdist",
        distribution=component.distribution,
        file=file.name,
        size=file.size,
        sha256=file.sha256,
    )
    origin = Origin(kind="sdist", sha256=file.sha256, reason="asked for with --from-sdist")
    recipe = component.recipe or RECIPE
    return dataclasses.replace(component, origin=origin, recipe=recipe), source


def _note(component: Component) -> Path:
    return cache("sdists", f"{canonicalize_name(component.distribution)}-{component.version}.json")


def _remembered(component: Component, hashes: set[str]) -> index_files.IndexFile | None:
    """Give what the index said before, so that the same build needs no network; None where the lock pins it no more."""
    try:
        said = json.loads(_note(component).read_text(encoding="utf-8"))
        found = index_files.IndexFile(name=str(said["name"]), url="", size=said["size"], sha256=str(said["sha256"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.sha256 in hashes else None


def _beside(component: Component, hashes: set[str], places: Sequence[Path]) -> index_files.IndexFile | None:
    """Find the archive that the lock pins in directories that were named."""
    for path in (path for place in places for path in sorted(place.glob("*.tar.gz"))):
        if index_files.is_sdist(path.name, component.distribution, component.version):
            digest = files.sha256(path)
            if digest in hashes:
                return index_files.IndexFile(name=path.name, url="", size=path.stat().st_size, sha256=digest)
    return None


def locked_hashes(lock: Path, distribution: str) -> set[str]:
    """Read the hashes of one package: ``name==1.0`` and, in the lines below it, ``--hash=sha256:…``."""
    try:
        text = lock.read_text(encoding="utf-8")
    except OSError as error:
        raise WorkError(f"{lock} cannot be read: {error.strerror}", fix="nox -s lock") from error
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        name = re.match(r"[A-Za-z0-9][\w.-]*", block)
        if name and canonicalize_name(name[0]) == canonicalize_name(distribution):
            return set(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))
    return set()
