"""A real CUDA extension built through the whole pipeline: nvcc, torch, verification, wheelhouse, reproducibility."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from envcheck import data
from scripts import build, toolchain, wheelhouse_store
from scripts.cache import cache
from scripts.files import sha256

EXTENSION = Path(__file__).parent / "extension"
COMPONENT = """
[[components]]
name = "squares"
distribution = "envcheck-squares"
version = "1.0"
needs = ["torch"]
origin = {{ kind = "sdist", sha256 = "{sha256}" }}
[components.recipe]
requires = ["setuptools==78.1.1", "wheel", "packaging", "ninja", "numpy"]
environment = {{ CUDA_HOME = "{{cuda_home}}", TORCH_CUDA_ARCH_LIST = "{{archs_dotted}}", MAX_JOBS = "{{jobs}}" }}
preflight = ["nvcc-missing", "cuda-home-invalid", "nvcc-differs-from-torch", "gcc-too-old", "gcc-too-new-for-nvcc"]
memory_per_job_bytes = 3221225472
disk_bytes = 104857600
archs_variable = "TORCH_CUDA_ARCH_LIST"
verify_import = "envcheck_squares"
"""
pytestmark = [pytest.mark.build, pytest.mark.toolchain, pytest.mark.torch, pytest.mark.slow]


def interpreter() -> str:
    """The environment with torch 2.6+cu124 that is built against: named, or one that `nox -s env` made."""
    named = os.environ.get("ENVCHECK_BUILD_PYTHON")
    found = [named] if named else sorted(map(str, cache("envs").glob("verl-lts-cu124-*/bin/python")))
    if not found or toolchain.provisioned() is None:
        pytest.skip("needs `nox -s env -- --stack verl-lts-cu124` (or ENVCHECK_BUILD_PYTHON) and `nox -s toolchain`")
    return found[0]


@pytest.fixture
def stack_file(tmp_path: Path) -> Path:
    """A stack of its own: the lts stack and the extension, whose sdist is pinned by its hash."""
    sdist = tmp_path / "sources/envcheck_squares-1.0.tar.gz"
    sdist.parent.mkdir()
    with tarfile.open(sdist, "w:gz") as file:
        for path in sorted(EXTENSION.iterdir()):
            file.add(path, f"envcheck_squares-1.0/{path.name}")
    text = data.read("stacks/verl-lts-cu124.toml").replace('name = "verl-lts-cu124"', 'name = "squares-cu124"', 1)
    head, lock, tail = text.partition("[[traps]]")
    path = tmp_path / "squares-cu124.toml"
    path.write_text(head + COMPONENT.format(sha256=sha256(sdist)) + "\n" + lock + tail, encoding="utf-8")
    return path


def built(stack_file: Path, root: Path, *more: str) -> wheelhouse_store.Entry:
    """Build with a cache of its own below `root`, the toolchain shared."""
    argv = [sys.executable, "-m", "scripts.build", "squares", "--stack", str(stack_file), "--archs", "9.0"]
    argv += ["--python", interpreter(), "--source", str(stack_file.parent / "sources"), *more]
    (root / "toolchains").parent.mkdir(parents=True, exist_ok=True)
    if not (root / "toolchains").exists():
        (root / "toolchains").symlink_to(cache("toolchains"))
    environ = {**os.environ, "ENVCHECK_CACHE": str(root)}
    environ.pop("ENVCHECK_WHEELHOUSE", None)
    subprocess.run(argv, check=True, env=environ, cwd=build.__file__.rsplit("/", 2)[0], timeout=900)
    return next(wheelhouse_store.entries(root / "wheelhouse"))


def test_an_extension_is_built_verified_and_never_built_twice(stack_file: Path, tmp_path: Path) -> None:
    entry = built(stack_file, tmp_path / "cache")
    assert entry.receipt["verification"]["archs"] == ["9.0"]
    assert entry.receipt["verification"]["warnings"] == []
    assert entry.receipt["inputs"]["torch"] == "2.6.0+cu124"
    assert 0 < entry.receipt["peak_memory_bytes"] <= entry.receipt["planned_memory_bytes"]
    started = time.monotonic()
    built(stack_file, tmp_path / "cache")
    assert time.monotonic() - started < 2
    target = tmp_path / "installed"
    shutil.unpack_archive(entry.wheel, target, "zip")
    said = subprocess.run(
        [interpreter(), "-c", "import torch, envcheck_squares as s; print(s.squares.__doc__)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(target)},
    )
    assert "the squares of a tensor" in said.stdout


def test_two_builds_in_different_places_give_the_same_bytes(stack_file: Path, tmp_path: Path) -> None:
    first = built(stack_file, tmp_path / "one", "--keep")
    second = built(stack_file, tmp_path / "another/deeper", "--rebuild")
    if not (first.receipt["path_independent"] and second.receipt["path_independent"]):
        pytest.skip("this host allows no mount of its own; nvcc then hashes the directory into symbols")
    assert first.sha256 == second.sha256
    assert first.key == second.key
