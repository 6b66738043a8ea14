"""Build an image of the Dockerfile: preflight, progress, and the result with digest, layers and time per stage."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from scripts import cli, image_defaults, image_options, lock_files, process
from scripts.base_image import EPOCH
from scripts.cache import ROOT, cache
from scripts.image_result import STEP, Times, show, summary

DISK_BYTES = {
    "toolchain": 4 << 30,
    "builder": 12 << 30,
    "wheel": 12 << 30,
    "wheelhouse": 20 << 30,
    "runtime": 6 << 30,
    "doctor": 4 << 30,
    "train": 40 << 30,
}
"""Free space that a first build of the target takes at its peak; measured for the seed stack, rounded up."""
MEMORY_BYTES = 4 << 30
BUILD_SECONDS = 6 * 3600
BUILDX = "install docker-buildx (docker-buildx-plugin in Docker's own packages)"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What the Docker engine can do."""

    version: str
    buildx: bool
    root: str


def engine() -> Engine:
    """Ask the engine; raise EnvcheckError where there is none or BuildKit is missing."""
    try:
        text = process.output(["docker", "info", "--format", "{{json .}}"], timeout=20)
    except WorkError as error:
        raise EnvcheckError(
            f"no Docker engine answers: {error.what}", fix="start one (systemctl start docker)"
        ) from error
    info = json.loads(text)
    if info.get("ServerErrors") or not info.get("ServerVersion"):
        raise EnvcheckError(
            f"no Docker engine answers: {info.get('ServerErrors')}", fix="start one (systemctl start docker)"
        )
    try:
        process.output(["docker", "buildx", "version"], timeout=20)
        buildx = True
    except WorkError:
        buildx = False
    if not buildx:
        _check_without_buildx(info["ServerVersion"])
    return Engine(version=info["ServerVersion"], buildx=buildx, root=info["DockerRootDir"])


def _check_without_buildx(server: str) -> None:
    """Refuse an engine that has no BuildKit of its own, and a client that only speaks to BuildKit through buildx."""
    if int(server.partition(".")[0]) < 18:  # noqa: PLR2004  # BuildKit came with 18.09
        raise EnvcheckError(f"Docker {server} has no BuildKit", fix="take Docker 20.10 or newer")
    client = process.output(["docker", "version", "--format", "{{.Client.Version}}"], timeout=20).strip()
    if int(client.partition(".")[0]) >= 23:  # noqa: PLR2004  # since 23.0 the client builds through buildx alone
        raise EnvcheckError(f"the client, Docker {client}, builds through buildx, which is missing", fix=BUILDX)


def preflight(target: str, root: str, available: int | None = None) -> None:
    """Stop before a build that this host cannot finish: disk of the engine, memory."""
    place = Path(root)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    need = DISK_BYTES[target]
    if free < need:
        what = f"{target} needs about {need >> 30} GiB under {root}, {free >> 30} GiB are free"
        raise EnvcheckError(
            what, fix="docker system prune, or move the engine's data-root; --force builds all the same"
        )
    memory = available if available is not None else _memory()
    if memory < MEMORY_BYTES:
        what = f"{memory >> 30} GiB of memory are available, {MEMORY_BYTES >> 30} GiB are needed"
        raise EnvcheckError(what, fix="free some, or pass --force")


def _memory() -> int:
    found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) << 10 if found else MEMORY_BYTES


def arguments(given: argparse.Namespace, stack: stacks.Stack) -> dict[str, str]:
    """Build arguments; the base is the stack's digest unless one is named."""
    base = given.base_image or image_defaults.base_of(stack)
    there = local(base)
    _check_base(base, there.cuda, stack)
    return {
        "STACK": stack.name,
        "ENGINE": given.engine,
        "TRAINER": given.trainer,
        "BASE_IMAGE": base,
        "ARCHS": given.archs or ";".join(stack.archs),
        "APT_SNAPSHOT": lock_files.snapshot(stack),
        "PYTHON": given.python,
        "COMPONENT": given.component,
        "COMPILE": " ".join(given.compile),
        "MISSING": " ".join(given.allow_missing),
        "FROM_SDIST": " ".join(given.from_sdist),
        "BASE_DIGEST": there.digest,
        "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", str(EPOCH)),
    }


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base that this engine has: its digest, and the CUDA that its CUDA_VERSION names."""

    digest: str = ""
    cuda: str = ""


def local(base: str) -> Base:
    """Look at a base in the engine's store; nothing is known of one that is still to be pulled."""
    try:
        (found,) = json.loads(process.output(["docker", "image", "inspect", base], timeout=20))
    except WorkError:
        return Base()
    variables = dict(line.partition("=")[::2] for line in found["Config"].get("Env") or ())
    return Base(digest="" if "@" in base else found["Id"], cuda=variables.get("CUDA_VERSION", ""))


def _check_base(base: str, cuda: str, stack: stacks.Stack) -> None:
    """Refuse a base of another CUDA: by its own variable, else by its tag."""
    tag = re.search(r"cuda[^:]*:(\d+\.\d+)", base)
    named = cuda or (tag[1] if tag else "")
    if named and named.split(".")[:2] != stack.cuda.default.split("."):
        raise EnvcheckError(
            f"{base} is CUDA {named}, {stack.name} needs {stack.cuda.default}", fix="pass another --base-image"
        )


def reference(given: argparse.Namespace) -> str:
    """Give the name and tag."""
    if given.tag:
        return str(given.tag)
    return f"envcheck/{given.target}:{given.stack}-{given.engine}-{given.trainer}"


def command(given: argparse.Namespace, values: Mapping[str, str], found: Engine) -> list[str]:
    """Give the docker command; what only buildx can do is refused without it."""
    argv = ["docker", *(["buildx"] if found.buildx else []), "build", "--progress=plain", "-f", "docker/Dockerfile"]
    argv += ["--target", given.target, "--tag", reference(given), "--network", given.network]
    for name, value in values.items():
        argv += ["--build-arg", f"{name}={value}"]
    contexts = {"prebuilt": given.prebuilt, "mirrors": given.mirrors}
    named = {name: path for name, path in contexts.items() if path}
    if (named or given.push or given.output) and not found.buildx:
        raise EnvcheckError("injected wheelhouses, mirrors, --push and --output need docker buildx", fix=BUILDX)
    for name, path in named.items():
        argv += ["--build-context", f"{name}={path}"]
    for secret, path in (("ca", given.ca), ("pip", given.pip_conf)):
        argv += ["--secret", f"id={secret},src={path}"] if path else []
    argv += ["--no-cache"] if given.no_cache else []
    if found.buildx:
        attest = ["--provenance=mode=max", "--sbom=true"] if given.push else ["--provenance=false", "--sbom=false"]
        argv += [*attest, *(["--push"] if given.push else ["--output", given.output] if given.output else ["--load"])]
    return [*argv, "."]


def build(argv: Sequence[str], log: Path) -> Times:
    """Run the build; its lines go to the log and, shortened, to stderr."""
    times = Times()

    def shown(line: str) -> None:
        times.read(line)
        if STEP.match(line) or "ERROR" in line:
            print(line[:160], file=sys.stderr, flush=True)

    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f"+ {process.shown(argv)}\n", encoding="utf-8")
    environ = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
    done = process.stream(argv, timeout=BUILD_SECONDS, environ=environ, cwd=ROOT, log=log, each_line=shown)
    if done.returncode:
        end = "\n".join(done.tail[-25:])
        raise WorkError(
            f"the build ended with exit code {done.returncode}; its end:\n{end}",
            fix=f"python -m envcheck explain {log}",
        )
    return times


@contextlib.contextmanager
def keeping(ref: str) -> Iterator[None]:
    """Leave the name where it was when the build fails: the engine names an image before its layers are unpacked."""
    before = _id(ref)
    try:
        yield
    except BaseException:
        after = _id(ref)
        if after and after != before:
            process.output(["docker", "tag", before, ref] if before else ["docker", "rmi", ref])
        raise


def _id(ref: str) -> str:
    try:
        return process.output(["docker", "image", "inspect", "--format", "{{.Id}}", ref], timeout=20).strip()
    except WorkError:
        return ""


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    return image_options.parser(__doc__, tuple(DISK_BYTES))


def main(argv: Sequence[str] | None = None) -> int:
    """Build; the image gets its tag only when all of it went well."""
    given = parser().parse_args(argv)
    image_options.check(given)
    stack = stacks.load(given.stack)
    for kind, name, known in (("engine", given.engine, stack.engines), ("trainer", given.trainer, stack.trainers)):
        if name not in known:
            raise EnvcheckError(f"{stack.name} has no {kind} {name!r}", fix=f"take one of: {', '.join(known)}")
    if given.write_defaults:
        print("\n".join(str(path) for path in image_defaults.write(stack)) or "nothing to change")
        return 0
    values = arguments(given, stack)
    found = engine()
    if not (given.force or given.dry_run):
        preflight(given.target, found.root)
    line = command(given, values, found)
    if given.dry_run:
        print(process.shown(line))
        return 0
    start = time.monotonic()
    with keeping(reference(given)):
        times = build(line, cache("logs", f"image-{given.target}.log"))
    if given.push or given.output:
        print(f"done in {time.monotonic() - start:.0f} s")
        return 0
    result = summary(reference(given), times, time.monotonic() - start)
    print(json.dumps(result, indent=1) if given.format == "json" else show(result))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
