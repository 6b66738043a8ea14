"""Images for real: a small Debian base made on the spot, `toolchain` and `doctor` built from it by scripts.image."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from scripts import build_wheel, files, image, image_check, lock_files, process, wheelhouse_store
from scripts.cache import ROOT
from tests import build_cases
from tests.image_cases import (
    BUILD_SECONDS,
    STACK,
    arguments,
    base,
    build,
    cuda_base,
    engine,
    exists,
    remove,
    tag_of,
)

__all__ = ["base", "cuda_base", "engine"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.network]

OF_THE_IMAGE = ("os", "environment", "toolkits", "cudnn", "nccl", "compilers", "python", "packages", "loader")
"""Facts that do not depend on how a container is started."""
OF_THE_START = frozenset({"driver-too-old", "flash-attn-wheel-missing", "container-start"})
"""Rules that ask for the driver, which an image at rest has not, or for the start itself."""


@pytest.fixture(scope="module")
def doctor(base: str) -> Iterator[str]:
    """The doctor's image, removed afterwards."""
    yield (tag := build("doctor", base, tag_of("doctor")))
    remove(tag)


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


@pytest.mark.parametrize(
    ("place", "text"),
    [
        pytest.param("/root/.aws/credentials", "x", id="by-its-place"),
        pytest.param("/opt/app/settings.txt", "token: hf_" + "a" * 24, id="by-its-line"),
        pytest.param("/home/a b/key", "-----BEGIN OPENSSH " + "PRIVATE KEY-----", id="a-private-key"),
    ],
)
def test_a_secret_in_a_file_is_found(place: str, text: str, base: str, tmp_path: Path) -> None:
    tag = tag_of("secret")
    (tmp_path / "file").write_text(f"{text}\n", encoding="ascii")
    copy = json.dumps(["file", place])
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY {copy}\n", encoding="ascii")
    process.output(["docker", "build", "-t", tag, str(tmp_path)], environ={**os.environ, "DOCKER_BUILDKIT": "1"})
    try:
        result = image_check.has_no_secrets(image_check.inspect(tag))
        assert (result.ok, result.found) == (False, place)
    finally:
        remove(tag)


def test_toolchain_has_the_locked_tools(base: str) -> None:
    tag = build("toolchain", base, tag_of("toolchain"))
    locked = next(line for line in (ROOT / "lockfiles/tools.txt").read_text().splitlines() if line.startswith("uv=="))
    try:
        assert _run(tag, "uv", "--version").split()[1] == locked.split("==")[1].split()[0]
        assert "g++" in _run(tag, "g++", "--version")
    finally:
        remove(tag)


@pytest.mark.parametrize("target", ["doctor", "toolchain"])
def test_two_builds_without_cache_are_the_same_bytes(
    target: str, base: str, engine: image.Engine, tmp_path: Path
) -> None:
    if not engine.buildx:
        pytest.skip("rewrite-timestamp needs buildx")
    sums = []
    for name in ("one.tar", "two.tar"):
        out = tmp_path / name
        build(target, base, tag_of("same"), "--no-cache", "--output", _oci(out))
        sums.append(_digest(out, tmp_path))
        out.unlink()
    assert sums[0] == sums[1]


KEPT = ("antlr4-python3-runtime", "filelock", "nvidia-nvtx-cu12", "packaging")
"""Of the lock in the small `train` image: an sdist, wheels, and one of NVIDIA's, whose folder the loader learns."""


def test_two_train_images_from_one_wheelhouse_are_the_same_bytes(
    cuda_base: str, engine: image.Engine, tmp_path: Path
) -> None:
    """Every step of `train` without cache, from two checkouts: one older than SOURCE_DATE_EPOCH, one of umask 077."""
    if not engine.buildx:
        pytest.skip("rewrite-timestamp needs buildx")
    house = _wheelhouse(tmp_path)
    sums = []
    for umask, year in ((0o022, 2001), (0o077, 2030)):
        out = tmp_path / f"{umask:o}.tar"
        checkout = _small_checkout(tmp_path / f"checkout-{umask:o}", umask, datetime(year, 1, 1, tzinfo=timezone.utc))
        given = image.parser().parse_args(
            arguments("train", cuda_base, tag_of("train"), "--no-cache", "--output", _oci(out))
        )
        values = image.arguments(given, STACK) | {"MISSING": " ".join(_components())}
        *line, context = image.command(given, values, engine)
        own_caches = ["--build-arg", f"BUILDKIT_CACHE_MOUNT_NS={tmp_path.name}-{umask:o}"]
        argv = [*line, *own_caches, "--build-context", f"wheelhouse={house}", context]
        process.output(argv, timeout=BUILD_SECONDS, environ={**os.environ, "DOCKER_BUILDKIT": "1"}, cwd=checkout)
        shutil.rmtree(checkout)
        sums.append(_digest(out, tmp_path))
        held = process.output(["tar", "-xOf", str(out), _member(out, tmp_path)], timeout=60)
        assert '"envcheck.engine":"sglang"' in held.replace(" ", "")
        out.unlink()
    assert sums[0] == sums[1]


def _components() -> list[str]:
    wanted = STACK.wanted("sglang", "fsdp")
    return sorted({name for item in wanted for name in (item.name, item.distribution)})


def _wheelhouse(place: Path) -> Path:
    """A wheelhouse with one wheel, as a build leaves it."""
    info = "flash_attn-2.7.4.post1.dist-info/WHEEL"
    text = b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    raw = build_cases.wheel(place / "raw", members={"flash_attn/__init__.py": b"x = 1\n", info: text})
    made = build_wheel.normalise(raw, place / "made", epoch=1735689600)
    inputs = {"component": "flash-attn", "torch": "2.5.1", "cuda": "12.4.131"}
    wheelhouse_store.put(place / "house", "a" * 64, made, build_cases.receipt(inputs=inputs))
    return place / "house"


def _small_checkout(place: Path, umask: int, when: datetime) -> Path:
    """What the context holds, its lock reduced to what is kept, with the modes that a umask gives, and one time."""
    for name in ("docker", "envcheck", "scripts", "lockfiles"):
        shutil.copytree(
            ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
        )
    for name in ("pyproject.toml", ".dockerignore"):
        shutil.copy(ROOT / name, place / name)
    lock = place / "lockfiles" / STACK.name / "requirements-sglang.txt"
    blocks = re.split(r"^(?=[a-z0-9])", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lock.write_text("".join(text for text in blocks if text.partition("==")[0] in KEPT), encoding="utf-8")
    for path in [place, *place.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o7777 & ~umask)
        os.utime(path, (when.timestamp(), when.timestamp()))
    return place


def _member(archive: Path, place: Path) -> str:
    """Path of the image's configuration inside an OCI archive."""
    manifest = f"blobs/{_digest(archive, place).replace(':', '/')}"
    found = json.loads(process.output(["tar", "-xOf", str(archive), manifest], timeout=60))
    return f"blobs/{found['config']['digest'].replace(':', '/')}"


def _oci(out: Path) -> str:
    return f"type=oci,dest={out},rewrite-timestamp=true,compression=uncompressed"


def _digest(archive: Path, place: Path) -> str:
    """The manifest's digest, as the archive's index names it."""
    process.output(["tar", "-xf", str(archive), "-C", str(place), "index.json"])
    index = json.loads((place / "index.json").read_text(encoding="utf-8"))
    return str(index["manifests"][0]["digest"])


def test_a_failing_stage_leaves_no_tag_and_the_old_one_alone(base: str, tmp_path: Path) -> None:
    other, tag = tag_of("other"), tag_of("failing")
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_CODENAME=forky\n", encoding="ascii")
    (tmp_path / "Dockerfile").write_text(f"FROM {base}\nCOPY os-release /etc/os-release\n", encoding="ascii")
    environ = {**os.environ, "DOCKER_BUILDKIT": "1"}
    process.output(["docker", "build", "-t", other, str(tmp_path)], timeout=BUILD_SECONDS, environ=environ)
    try:
        with pytest.raises(WorkError, match=r"apt\.txt has no packages for debian-forky"):
            build("doctor", other, tag)
        assert not exists(tag)
        process.output(["docker", "tag", base, tag])
        with pytest.raises(WorkError, match="debian-forky"):
            build("doctor", other, tag)
        assert image_check.inspect(tag).history == image_check.inspect(base).history
    finally:
        remove(other, tag)


def test_a_base_that_does_not_exist(engine: image.Engine) -> None:
    with pytest.raises(WorkError, match="no-such-base"):
        build("doctor", "localhost:9/envcheck/no-such-base:1", tag_of("nothing"))
    assert not exists(tag_of("nothing"))


def test_a_base_without_a_toolkit_is_told_apart(base: str) -> None:
    with pytest.raises(WorkError, match="has no nvcc: BASE_IMAGE must be a devel image"):
        build("runtime", base, tag_of("no-toolkit"))
    assert not exists(tag_of("no-toolkit"))


def test_no_engine_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("docker") is None:
        pytest.skip("docker is not installed")
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(EnvcheckError, match="no Docker engine answers"):
        image.main(["--target", "doctor"])


def test_runtime_image_compiles_a_kernel_as_a_user(cuda_base: str) -> None:
    tag = build("runtime", cuda_base, tag_of("runtime"))
    script = "echo '__global__ void f(float *x) { *x += 1; }' > f.cu && nvcc -arch=sm_90 -cubin -o f f.cu && head -c4 f"
    argv = ["docker", "run", "--rm", "--network", "none", "--user", "48213:0", "--workdir", "/home/trainer", tag]
    try:
        assert process.output([*argv, "sh", "-c", script], timeout=120) == "\x7fELF"
    finally:
        remove(tag)


def test_runtime_image_serves_any_uid_and_login_shells(cuda_base: str) -> None:
    tag = build("runtime", cuda_base, tag_of("login"))
    argv = ["docker", "run", "--rm", "--network", "none", "--user", "48213:0", tag]
    try:
        path = process.output([*argv, "bash", "-lc", "echo $PATH"], timeout=120).split(":")
        assert path[:2] == ["/opt/venv/bin", "/usr/local/cuda/bin"]
        assert process.output([*argv, "python3", "-c", "import getpass; print(getpass.getuser())"]) == "trainer\n"
    finally:
        remove(tag)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_entry_point_starts_read_only_unless_the_image_has_drifted(code: int, base: str, tmp_path: Path) -> None:
    doctor = tmp_path / "doctor.py"
    doctor.write_text(f"print('said')\nraise SystemExit({code})\n", encoding="ascii")
    mounts = [f"{doctor}:/opt/envcheck/envcheck.pyz:ro", f"{ROOT / 'docker/entrypoint'}:/entrypoint:ro"]
    argv = ["docker", "run", "--rm", "--network", "none", "--read-only", "--user", "1234:1234"]
    argv += [word for mount in mounts for word in ("-v", mount)]
    command = [*argv, base, "sh", "/entrypoint", "echo", "started"]
    if code == 1:
        with pytest.raises(WorkError, match="drifted from its manifest"):
            process.output(command, timeout=120)
    else:
        assert process.output(command, timeout=120) == "started\n"


def _bake(*targets: str, **variables: str) -> dict[str, Any]:
    """What bake would build, as it says it itself."""
    argv = ["docker", "buildx", "bake", "-f", "docker/docker-bake.hcl", "--print", *targets]
    text = process.output(argv, timeout=60, environ={**os.environ, **variables}, cwd=ROOT)
    found = json.loads(text[text.index("{") :])["target"]
    assert isinstance(found, dict)
    return found


def test_bake_knows_every_combination_of_the_stacks(engine: image.Engine) -> None:
    if not engine.buildx:
        pytest.skip("bake is part of buildx")
    found = _bake("matrix")
    for name in ("verl-sglang-cu124", "verl-lts-cu124"):
        stack = stacks.load(name)
        wanted = {f"{name}-{one}-{other}" for one in stack.engines for other in stack.trainers}
        assert wanted <= set(found)
        assert {found[item]["args"]["APT_SNAPSHOT"] for item in wanted} == {lock_files.snapshot(stack)}
    assert set(_bake("ci")) == {"doctor", "wheel"}
    assert _bake("dev")["dev"]["target"] == "builder"
    assert _bake("train-prebuilt", PREBUILT="/w")["train-prebuilt"]["contexts"] == {"prebuilt": "/w"}


@pytest.mark.parametrize("kind", ["type=registry,ref=r.example/c", "type=local,src=/c", "type=gha"])
def test_bake_takes_any_cache(kind: str, engine: image.Engine) -> None:
    if not engine.buildx:
        pytest.skip("bake is part of buildx")
    assert "cache-from" not in _bake("doctor")["doctor"]
    assert _bake("doctor", CACHE_FROM=kind)["doctor"]["cache-from"] == [kind]
    kept = kind.replace("src=", "dest=") + ",mode=max"
    assert _bake("doctor", CACHE_TO=kept)["doctor"]["cache-to"] == [kept]


@pytest.mark.build
def test_a_wheel_stage_compiles_against_cuda_and_the_locked_torch(
    cuda_base: str, engine: image.Engine, tmp_path: Path
) -> None:
    if not engine.buildx:
        pytest.skip("--output needs buildx")
    name = "torch-memory-saver"
    more = ["--component", name, "--from-sdist", name, "--archs", "9.0"]
    build("wheel", cuda_base, tag_of("wheel"), *more, "--output", f"type=local,dest={tmp_path}")
    (receipt,) = (json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("receipt.json"))
    (wheel,) = tmp_path.rglob("*.whl")
    given = receipt["inputs"]
    assert given["component"] == name
    assert given["cuda"].startswith("12.4.")
    assert given["torch"].startswith("2.5.1")
    assert (receipt["wheel"]["file"], receipt["wheel"]["sha256"]) == (wheel.name, files.sha256(wheel))
    assert "libcuda.so.1" in _needed(wheel)


def _needed(wheel: Path) -> set[str]:
    """Libraries that the wheel's one extension asks the loader for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (item for item in archive.namelist() if item.endswith(".so"))
        dynamic = ELFFile(io.BytesIO(archive.read(name))).get_section_by_name(".dynamic")
    assert isinstance(dynamic, DynamicSection)
    return {str(vars(tag)["needed"]) for tag in dynamic.iter_tags("DT_NEEDED")}
