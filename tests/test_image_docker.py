"""Images for real: a small Debian base made on the spot, `toolchain` and `doctor` built from it by scripts.image."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from scripts import base_image, image, image_check, process
from scripts.cache import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.network]

STACK = stacks.load("verl-sglang-cu124")
CUDA_BASE = f"envcheck/cuda:{STACK.cuda.default}-devel-{base_image.SUITE}"
BUILD_SECONDS = 900
OF_THE_IMAGE = ("os", "environment", "toolkits", "cudnn", "nccl", "compilers", "python", "packages", "loader")
"""Facts that do not depend on how a container is started."""
OF_THE_START = frozenset({"driver-too-old", "flash-attn-wheel-missing"})
"""Rules that ask for the driver, which an image at rest has not."""


@pytest.fixture(scope="module")
def engine() -> image.Engine:
    """The engine, or a skip that says why there is none."""
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    try:
        return image.engine()
    except EnvcheckError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def base(engine: image.Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bookworm with the packages of apt.txt and no CUDA toolkit; kept under its packages' hash for the next run."""
    packages = STACK.apt[f"debian-{base_image.SUITE}"]
    tag = f"envcheck/test-base:{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
    if _exists(tag):
        return tag
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    place = tmp_path_factory.mktemp("base")
    empty = place / "no-toolkit"
    empty.mkdir()
    made = base_image.Base(role="devel", stack=STACK, toolkit=empty)
    base_image.bootstrap(made, place / "root.tar", None)
    base_image.compose(made, place / "root.tar", place / "image.tar")
    process.output(["docker", "import", str(place / "image.tar"), tag], timeout=BUILD_SECONDS)
    shutil.rmtree(place)
    return tag


@pytest.fixture(scope="module")
def doctor(base: str) -> Iterator[str]:
    """The doctor's image, removed afterwards."""
    yield (tag := _build("doctor", base, "envcheck/test:doctor"))
    process.output(["docker", "rmi", tag])


def _exists(tag: str) -> bool:
    return bool(process.output(["docker", "image", "ls", "--quiet", tag]).strip())


def _arguments(target: str, base: str, tag: str, *more: str) -> list[str]:
    line = ["--target", target, "--base-image", base, "--tag", tag, "--network", "host", "--force", *more]
    authority = os.environ.get("SSL_CERT_FILE", "")
    return [*line, "--ca", authority] if Path(authority).is_file() else line


def _build(target: str, base: str, tag: str, *more: str) -> str:
    assert image.main(_arguments(target, base, tag, *more)) == 0
    return tag


def _run(tag: str, *command: str, entry: str | None = None) -> str:
    argv = ["docker", "run", "--rm", "--network", "none", *(["--entrypoint", entry] if entry else []), tag, *command]
    return process.output(argv, timeout=120)


def _document(argv: list[str], log: Path) -> dict[str, Any]:
    """Run a doctor, whose exit code is its verdict; give what it printed."""
    done = process.stream([*argv, "--stage", "build", "--format", "json"], timeout=120, log=log)
    assert done.returncode in {0, 1, 3}, done.tail
    found = json.loads(log.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_doctor_inside_and_outside_agree(doctor: str, tmp_path: Path) -> None:
    inside = _document(["docker", "run", "--rm", "--network", "none", doctor, "doctor"], tmp_path / "inside.json")
    outside = _document([sys.executable, "-m", "envcheck", "doctor", "--image", doctor], tmp_path / "outside.json")
    for name in OF_THE_IMAGE:
        assert inside["facts"][name] == outside["facts"][name], name
    assert inside["facts"]["os"]["id"] == "debian"
    judged = [{row["rule"]: row["outcome"] for row in found["outcomes"]} for found in (inside, outside)]
    rules = judged[0].keys() - OF_THE_START
    assert {name: judged[0][name] for name in rules} == {name: judged[1].get(name) for name in rules}
    assert len(rules) > 20


@pytest.mark.parametrize(
    "claim",
    [
        image_check.runs_as_user,
        image_check.adds_no_setuid,
        image_check.has_no_world_writable,
        image_check.has_no_secrets,
        image_check.has_no_caches,
    ],
    ids=lambda claim: claim.__name__,
)
def test_doctor_image_is_clean(claim: Any, doctor: str) -> None:
    result = claim(image_check.inspect(doctor))
    assert result.ok, result.found


def test_toolchain_has_the_locked_tools(base: str) -> None:
    tag = _build("toolchain", base, "envcheck/test:toolchain")
    locked = next(line for line in (ROOT / "lockfiles/tools.txt").read_text().splitlines() if line.startswith("uv=="))
    try:
        assert _run(tag, "uv", "--version").split()[1] == locked.split("==")[1].split()[0]
        assert "g++" in _run(tag, "g++", "--version")
    finally:
        process.output(["docker", "rmi", tag])


@pytest.mark.parametrize("target", ["doctor"])
def test_two_builds_without_cache_are_the_same_bytes(
    target: str, base: str, engine: image.Engine, tmp_path: Path
) -> None:
    if not engine.buildx:
        pytest.skip("rewrite-timestamp needs buildx")
    sums = []
    for name in ("one.tar", "two.tar"):
        out = tmp_path / name
        _build(target, base, "envcheck/test:same", "--no-cache", "--output", _oci(out))
        sums.append(_digest(out, tmp_path))
        out.unlink()
    assert sums[0] == sums[1]


def _oci(out: Path) -> str:
    return f"type=oci,dest={out},rewrite-timestamp=true"


def _digest(archive: Path, place: Path) -> str:
    """The manifest's digest, as the archive's index names it."""
    process.output(["tar", "-xf", str(archive), "-C", str(place), "index.json"])
    index = json.loads((place / "index.json").read_text(encoding="utf-8"))
    return str(index["manifests"][0]["digest"])


def test_a_failing_stage_leaves_no_tag_and_the_old_one_alone(base: str, tmp_path: Path) -> None:
    other, tag = "envcheck/test-base:other", "envcheck/test:failing"
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=forky\n", encoding="ascii")
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY os-release /etc/os-release\n", encoding="ascii")
    environ = {**os.environ, "DOCKER_BUILDKIT": "1"}
    process.output(["docker", "build", "-t", other, str(tmp_path)], timeout=BUILD_SECONDS, environ=environ)
    try:
        with pytest.raises(WorkError, match=r"apt\.txt has no packages for debian-forky"):
            _build("doctor", other, tag)
        assert not _exists(tag)
        process.output(["docker", "tag", base, tag])
        with pytest.raises(WorkError, match="debian-forky"):
            _build("doctor", other, tag)
        assert image_check.inspect(tag).history == image_check.inspect(base).history
    finally:
        process.stream(["docker", "rmi", other, tag], timeout=60)


def test_a_base_that_does_not_exist(engine: image.Engine) -> None:
    with pytest.raises(WorkError, match="no-such-base"):
        _build("doctor", "localhost:9/envcheck/no-such-base:1", "envcheck/test:nothing")
    assert not _exists("envcheck/test:nothing")


def test_no_engine_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(EnvcheckError, match="no Docker engine answers"):
        image.main(["--target", "doctor"])


@pytest.fixture(scope="module")
def cuda_base(engine: image.Engine) -> str:
    """The base with CUDA that `nox -s base-image` made."""
    if not _exists(CUDA_BASE):
        pytest.skip(f"there is no {CUDA_BASE}: nox -s base-image")
    return CUDA_BASE


@pytest.mark.toolchain
def test_runtime_image_compiles_a_kernel_as_a_user(cuda_base: str) -> None:
    tag = _build("runtime", cuda_base, "envcheck/test:runtime")
    script = "echo '__global__ void f(float *x) { *x += 1; }' > f.cu && nvcc -arch=sm_90 -cubin -o f f.cu && head -c4 f"
    argv = ["docker", "run", "--rm", "--network", "none", "--user", "48213:0", "--workdir", "/home/trainer", tag]
    try:
        assert process.output([*argv, "sh", "-c", script], timeout=120) == "\x7fELF"
    finally:
        process.output(["docker", "rmi", tag])


@pytest.mark.toolchain
@pytest.mark.build
@pytest.mark.skipif("ENVCHECK_MIRRORS" not in os.environ, reason="ENVCHECK_MIRRORS names no git mirrors")
def test_wheelhouse_stage_compiles_against_the_locked_torch(
    cuda_base: str, engine: image.Engine, tmp_path: Path
) -> None:
    if not engine.buildx:
        pytest.skip("--output needs buildx")
    more = ["--archs", "9.0", "--allow-missing", "flash-attn", "--mirrors", os.environ["ENVCHECK_MIRRORS"]]
    _build("wheelhouse", cuda_base, "envcheck/test:house", *more, "--output", f"type=local,dest={tmp_path}")
    receipts = [json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("receipt.json")]
    built = {found["inputs"]["component"]: found for found in receipts}
    assert "flash-attn" not in built
    assert built["torch-memory-saver"]["inputs"]["torch"].startswith("2.5.1")
    assert sorted(found["wheel"]["file"] for found in receipts) == sorted(path.name for path in tmp_path.rglob("*.whl"))
