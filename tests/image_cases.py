"""Fixtures of the image tests: an engine, a Debian base made on the spot, the same with a CUDA toolkit."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from scripts import base_image, image, process, toolchain
from scripts.cache import ROOT, cache, locked

STACK = stacks.load("verl-sglang-cu124")
CUDA_BASE = f"envcheck/cuda:{STACK.cuda.default}-devel-{base_image.SUITE}"
BUILD_SECONDS = 900
CUDA_BYTES = 16 << 30
"""What the CUDA base, torch to compile against and uv's cache take on disk at their peak."""
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
"""Names of results hold it: two workers may build the same image at once, and each removes its own."""


@pytest.fixture(scope="module")
def engine() -> image.Engine:
    """The engine, or a skip that says why there is none."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    try:
        return image.engine()
    except EnvcheckError as error:
        pytest.skip(str(error))


def tag_of(name: str) -> str:
    """A tag for a result of this test process."""
    return f"envcheck/test-{WORKER}:{name}"


def exists(tag: str) -> bool:
    return bool(process.output(["docker", "image", "ls", "--quiet", tag]).strip())


@contextmanager
def alone(tag: str) -> Iterator[None]:
    """One process at a time makes this image; the others find it made."""
    with locked(cache("images", f"{tag.replace('/', '-').replace(':', '-')}.lock"), what=tag):
        yield


@pytest.fixture(scope="module")
def base(engine: image.Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bookworm with the packages of apt.txt and no CUDA toolkit; kept under its packages' hash for the next run."""
    packages = STACK.apt[f"debian-{base_image.SUITE}"]
    tag = f"envcheck/test-base:{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
    with alone(tag):
        if not exists(tag):
            _bootstrap(tag, tmp_path_factory.mktemp("base"))
    return tag


def _bootstrap(tag: str, place: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    empty = place / "no-toolkit"
    empty.mkdir()
    made = base_image.Base(role="devel", stack=STACK, toolkit=empty)
    base_image.bootstrap(made, place / "root.tar", None)
    base_image.compose(made, place / "root.tar", place / "image.tar")
    process.output(["docker", "import", str(place / "image.tar"), tag], timeout=BUILD_SECONDS)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def cuda_base(base: str, engine: image.Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base that `nox -s base-image` makes: the one there is, else the base above with the toolkit composed in."""
    with alone(CUDA_BASE):
        if not exists(CUDA_BASE):
            free = shutil.disk_usage(next(path for path in (Path(engine.root), Path("/")) if path.exists())).free
            if free < CUDA_BYTES:
                pytest.skip(f"{free >> 30} GiB are free under {engine.root}, {CUDA_BYTES >> 30} GiB are needed")
            _with_cuda(base, tmp_path_factory.mktemp("cuda"))
    return CUDA_BASE


def _with_cuda(base: str, place: Path) -> None:
    """Compose and load the CUDA base from the root of ``base``, which holds the same Debian packages."""
    toolkit = toolchain.provisioned(STACK.cuda.default)
    if toolkit is None:
        toolkit = place / "toolkit"
        assert toolchain.main(["--prefix", str(toolkit)]) == 0
    made = base_image.Base(role="devel", stack=STACK, toolkit=toolkit)
    container = process.output(["docker", "create", base, "true"]).strip()
    process.output(["docker", "export", "--output", str(place / "root.tar"), container], timeout=BUILD_SECONDS)
    process.output(["docker", "rm", container])
    base_image.compose(made, place / "root.tar", place / "image.tar")
    shutil.rmtree(place / "toolkit", ignore_errors=True)
    base_image.load(made, place / "image.tar")
    shutil.rmtree(place)


def arguments(target: str, base: str, tag: str, *more: str) -> list[str]:
    line = ["--target", target, "--base-image", base, "--tag", tag, "--network", "host", "--force", *more]
    authority = os.environ.get("SSL_CERT_FILE", "")
    return [*line, "--ca", authority] if Path(authority).is_file() else line


def build(target: str, base: str, tag: str, *more: str) -> str:
    """Build a target of the Dockerfile through `nox -s image`'s own command."""
    assert image.main(arguments(target, base, tag, *more)) == 0
    return tag


def small_image(tag: str, place: Path, dockerfile: str) -> str:
    """Build an image of a few lines, whose context is ``place``."""
    (place / "Dockerfile").write_text(dockerfile, encoding="utf-8")
    authority = os.environ.get("SSL_CERT_FILE", "")
    secret = ["--secret", f"id=ca,src={authority}"] if Path(authority).is_file() else []
    argv = ["docker", "build", "--quiet", "--network", "host", *secret, "-t", tag, str(place)]
    process.output(argv, timeout=BUILD_SECONDS, environ={**os.environ, "DOCKER_BUILDKIT": "1"}, cwd=ROOT)
    return tag


def remove(*tags: str) -> None:
    process.stream(["docker", "rmi", *tags], timeout=60)
