"""Write a lock in another tool's form: pylock.toml (PEP 751), a project for uv, or constraints for pip.

pylock       every file with name, address and hash (asks the index for the addresses)
uv           a directory with pyproject.toml, uv.toml and uv.lock (resolves again); without what is built from source
constraints  NAME==VERSION ; MARKER lines, offline
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.pylock import Package, PackageSdist, PackageVcs, PackageWheel, Pylock, PylockValidationError
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from envcheck import errors
from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from envcheck.stack import Component, Stack
from scripts import cli, env_plan, files, lock_files, lock_inputs, lock_remote, lock_uv
from scripts.cache import ROOT
from scripts.index_files import IndexFile
from scripts.lock_text import Pin

FORMATS = ("pylock", "uv", "constraints")


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(
        prog="python -m scripts.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--format", choices=FORMATS, required=True)
    it.add_argument("--stack", default=stacks.DEFAULT_STACK)
    it.add_argument("--engine", help="sglang or vllm (the stack's first)")
    it.add_argument("--output", type=Path, help="file, or directory of --format uv (default: standard output)")
    it.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Write the lock in the form that is asked for."""
    given = parser().parse_args(argv)
    stack = stacks.load(given.stack)
    engine = given.engine or stack.engines[0]
    if engine not in stack.engines:
        raise EnvcheckError(f"stack {stack.name} has no engine {engine!r}", fix=f"it has: {', '.join(stack.engines)}")
    if given.format == "uv":
        if given.output is None:
            raise EnvcheckError("--format uv makes several files", fix="name a directory with --output")
        uv_project(stack, given.output)
        return errors.OK
    pins = env_plan.read(lock_files.requirements(stack.name, engine, given.root))
    if given.format == "constraints":
        text = constraints(stack, engine, pins)
    else:
        text = pylock(stack, engine, pins, listed=lock_remote.index())
    if given.output is None:
        sys.stdout.write(text)
    else:
        files.write(given.output, text)
    return errors.OK


def constraints(stack: Stack, engine: str, pins: Iterable[Pin]) -> str:
    """Give the pins without hashes, for ``pip install -c``."""
    lines = [f"# Exported by `nox -s export` from {stack.name}, engine {engine}"]
    lines += [f"{pin.name}=={pin.version}" + (f" ; {pin.marker}" if pin.marker else "") for pin in pins]
    return "\n".join(lines) + "\n"


def pylock(stack: Stack, engine: str, pins: Sequence[Pin], *, listed: lock_remote.Lister) -> str:
    """Give a PEP 751 file: the locked packages with their files, and what is built from a commit as such."""
    found = lock_remote.files_of(pins, listed)
    packages = [_package(pin, items) for pin, items in found.items()]
    packages += [_commit(item) for item in stack.components if item.origin.kind == "git" and _needed(item, engine)]
    document = Pylock(
        lock_version=Version("1.0"),
        environments=[Marker(lock_inputs.ENVIRONMENT)],
        requires_python=SpecifierSet(stack.python.requires),
        created_by="envcheck",
        packages=sorted(packages, key=lambda item: (item.name, str(item.version))),
    )
    table = document.to_dict()
    try:
        Pylock.from_dict(table)
    except PylockValidationError as error:
        what = f"the lock of {stack.name}, engine {engine}, does not fit the files of the index: {error}"
        raise WorkError(what, fix="nox -s lock_check names a lock that was edited") from error
    return f"# Exported by `nox -s export` from {stack.name}, engine {engine}\n" + toml(table)


def _needed(item: Component, engine: str) -> bool:
    return not item.optional and (not item.engines or engine in item.engines)


def _package(pin: Pin, items: Sequence[IndexFile]) -> Package:
    wheels = [
        PackageWheel(name=item.name, url=item.url, size=item.size, hashes={"sha256": item.sha256 or ""})
        for item in items
        if item.name.endswith(".whl")
    ]
    sources = [
        PackageSdist(name=item.name, url=item.url, size=item.size, hashes={"sha256": item.sha256 or ""})
        for item in items
        if item.name.endswith((".tar.gz", ".zip"))
    ]
    return Package(
        name=canonicalize_name(pin.name),
        version=Version(pin.version),
        marker=Marker(pin.marker) if pin.marker else None,
        wheels=wheels or None,
        sdist=next(iter(sources), None),
    )


def _commit(item: Component) -> Package:
    vcs = PackageVcs(type="git", url=item.origin.url, commit_id=item.origin.commit or "")
    return Package(name=canonicalize_name(item.distribution), vcs=vcs)


def toml(table: Mapping[str, Any]) -> str:
    """Write a PEP 751 table: plain values, then ``[[packages]]`` with inline tables."""
    lines = [f"{key} = {inline(value)}" for key, value in table.items() if key != "packages"]
    for package in table["packages"]:
        lines += ["", "[[packages]]"]
        for key, value in package.items():
            if key == "wheels":
                lines += ["wheels = [", *(f"  {inline(wheel)}," for wheel in value), "]"]
            else:
                lines.append(f"{key} = {inline(value)}")
    return "\n".join(lines) + "\n"


def inline(value: object) -> str:
    """Write a value in one line; JSON's strings are TOML's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return json.dumps(value if isinstance(value, (bool, int)) else str(value), ensure_ascii=False)


def uv_project(stack: Stack, output: Path) -> None:
    """Write the project that the locks are resolved from, with its uv.lock: one extra for each engine."""
    inputs = lock_inputs.make(stack)
    files.check_ours(output, "pyproject.toml", lock_inputs.PROJECT)
    with files.replacing(output) as work:
        for name, text in inputs.files.items():
            files.write(work / name, text)
        lock_uv.run(["lock", "--quiet"], cwd=work, extra=lock_uv.settings(work))
    # uv would refuse the stubs, and compile the rest where torch is not to be seen.
    without = " ".join(f"--no-install-package {name}" for name in inputs.left_out)
    print(f"{output}: uv sync --config-file uv.toml --extra {stack.engines[0]} --frozen {without}".rstrip())
    print("the packages that are left out are built from source: nox -s build-all" if without else "")


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
