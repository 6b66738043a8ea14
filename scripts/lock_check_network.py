"""The checks that need the index: the same bytes from scratch, pip's own acceptance, pip-compile's own answer."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from envcheck.errors import WorkError
from envcheck.stack import Stack
from scripts import (
    env,
    env_plan,
    lock_files,
    lock_inputs,
    lock_reasons,
    lock_remote,
    lock_resolve,
    lock_text,
    lock_uv,
    process,
)
from scripts.cache import ROOT
from scripts.lock_text import Pin

PIP_SECONDS = 540.0
COMPILE_SECONDS = 1800.0
STACK_FILE = "stack file"
SILENT = re.compile(r"connection broken by|Read timed out|did not end within|HTTP error 5\d\d")
GONE = re.compile(r"No matching distribution found for (\S+==\S+)")


def same_bytes(stack: Stack, place: Path) -> Iterator[str]:
    """Resolve from scratch with an empty project and compare each file."""
    for name, text in lock_files.pinned(stack, lock_resolve.resolve(stack)).items():
        path = place / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{name}: resolving again gives other bytes, see nox -s lock -- --stack {stack.name} --dry-run"


def pip_environment() -> dict[str, str]:
    """Give pip's environment: no configuration of this machine but its default index."""
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"}
    environ = lock_uv.environment() | {"PIP_CONFIG_FILE": os.devnull} | quiet
    index = lock_uv.default_index(os.environ)
    return environ | ({"PIP_INDEX_URL": index} if index else {})


def accepted(path: Path, python: str) -> list[str]:
    """Let pip take the lock, without installing it; what it downloads is removed, also where it is ended.

    An index that does not answer is no fault of the lock: WorkError.
    """
    argv = [sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "--quiet", "--ignore-installed"]
    argv += ["--no-deps", "--require-hashes", "-r", str(path.absolute())]
    with tempfile.TemporaryDirectory(prefix="pip-takes-") as work:
        try:
            process.output(argv, timeout=PIP_SECONDS, environ=pip_environment() | {"TMPDIR": work})
        except WorkError as error:
            if SILENT.search(error.what):
                raise WorkError(
                    f"the package index did not answer pip:\n{error.what}", fix="try again later"
                ) from error
            gone = GONE.search(error.what)
            kit = f"\n  → {gone[1]} is gone from the package index: a kit has its file" if gone else ""
            return [f"{path.name}: pip does not take it: {error.what}{kit}"]
    return []


def reduced(stack: Stack, engine: str, pins: Sequence[Pin]) -> list[str]:
    """Give an input that pip-compile can resolve; it knows no overrides, no metadata of ours, no exempt packages.

    What needs one of these is left out, and what it brought is named outright, at the lock's version. An extra that
    asks for what is left out is left out too: ``verl[sglang]`` is verl.
    """
    cut = left_out(stack, pins)
    asking = {asker for pin in pins if pin.name in cut for asker in _askers(pin)}
    ours = {str(canonicalize_name(row.name)): row for row in stack.lock.metadata}
    lines = [*lock_inputs.requirements(stack, None), *lock_inputs.requirements(stack, engine)]
    out: set[str] = set()
    while lines:
        line = lines.pop()
        if name_of(line) in ours:
            lines += [need for need in ours[name_of(line)].requires if need not in out]
        else:
            out.add(re.sub(r"\[.*?\]", "", line) if name_of(line) in asking else line)
    brought = {pin.requirement for pin in pins if cut & _askers(pin) and pin.name not in cut}
    return sorted({line for line in out if name_of(line) not in cut} | brought)


def left_out(stack: Stack, pins: Iterable[Pin]) -> set[str]:
    """Name what is newer than the cut-off or has metadata of ours, and what asks for what we changed or must build."""
    exempt = {canonicalize_name(row.package) for row in stack.lock.exempt}
    edited = {canonicalize_name(row.name) for row in stack.lock.metadata if row.wheel}
    changed = {name_of(row.requirement) for row in stack.lock.overrides} | edited
    built = {item.name for item in stack.components if item.origin.kind == "sdist" and item.engines}
    asking = {asker for pin in pins if pin.name in changed for asker in _askers(pin)}
    heavy = {item.name for item in stack.components if item.role == "engine" and built & set(item.needs)}
    return {str(name) for name in exempt | edited | (asking - {STACK_FILE}) | heavy}


def _askers(pin: Pin) -> set[str]:
    return {re.split(r"[\[ ]", via)[0] if via != STACK_FILE else via for via in pin.via}


def name_of(line: str) -> str:
    """Give the name in a requirement: ``ray[default]==2.47.1`` -> ray."""
    return str(canonicalize_name(re.split(r"[\[=<>!~; ]", line)[0]))


def differences(stack: Stack, engine: str, place: Path, python: str) -> Mapping[str, tuple[str, str]]:
    """Print every pin on which pip-compile and the lock disagree, and why that may be."""
    path = place / f"requirements-{engine}.txt"
    here = env_plan.python_environment(env.version_of(python))
    pins = [pin for pin in lock_text.parse(path.read_text(encoding="utf-8"), str(path)) if pin.applies(here)]
    theirs = compiled(stack, reduced(stack, engine, pins), python)
    mine = {pin.name: pin.version for pin in pins}
    moved = {
        name: (mine[name], theirs[name]) for name in sorted(mine.keys() & theirs.keys()) if mine[name] != theirs[name]
    }
    print(f"{path.name}: pip-compile agrees on {len(mine.keys() & theirs.keys()) - len(moved)} of {len(mine)} pins")
    reasons = lock_reasons.of(moved, mine, lock_reasons.asks(here, lock_remote.index())) if moved else {}
    for name, (ours, other) in moved.items():
        print(f"  {name}: the lock has {ours}, pip-compile {other}: {reasons[name]}")
    for name in sorted(mine.keys() - theirs.keys()):
        print(f"  {name}: only in the lock: asked for by what was left out of the reduced input")
    return moved


def compiled(stack: Stack, lines: Sequence[str], python: str) -> dict[str, str]:
    """Resolve with pip-compile as of the cut-off date, in an environment of the locked tools."""
    with tempfile.TemporaryDirectory(prefix="pip-compile-") as name:
        work = Path(name)
        (work / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        tools = _tools(work / "tools", python)
        argv = [
            str(tools / "pip-compile"),
            "--quiet",
            "--allow-unsafe",
            "--strip-extras",
            "--no-header",
            "--no-annotate",
        ]
        argv += ["--output-file", "out.txt", "in.txt"]
        until = {"PIP_UPLOADED_PRIOR_TO": lock_inputs.cutoff(stack.lock.cutoff)}
        process.output(argv, timeout=COMPILE_SECONDS, environ=pip_environment() | until, cwd=work)
        text = (work / "out.txt").read_text(encoding="utf-8")
    return {pin.name: pin.version for pin in lock_text.parse(text, "pip-compile")}


def _tools(place: Path, python: str) -> Path:
    """Install the locked tools for an interpreter; give where its programs are."""
    lock_uv.run(["venv", "--quiet", "--no-project", "--python", python, str(place)])
    pins = str(ROOT / "lockfiles" / "tools.txt")
    argv = ["pip", "install", "--quiet", "--require-hashes", "--python", str(place / "bin" / "python"), "-r", pins]
    lock_uv.run(argv)
    return place / "bin"
