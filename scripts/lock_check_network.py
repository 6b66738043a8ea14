"""The checks that need the index: the same bytes from scratch, pip's own acceptance, pip-compile's own answer."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from envcheck.errors import WorkError
from envcheck.stack import Stack
from scripts import lock_files, lock_inputs, lock_resolve, lock_text, lock_uv, process
from scripts.cache import ROOT
from scripts.lock_text import Pin

PIP_SECONDS = 540.0
COMPILE_SECONDS = 1800.0


def same_bytes(stack: Stack, place: Path) -> Iterator[str]:
    """Resolve from scratch with an empty project and compare each file."""
    for name, text in lock_files.pinned(stack, lock_resolve.resolve(stack)).items():
        path = place / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            yield f"{name}: resolving again gives other bytes, see nox -s lock -- --stack {stack.name} --dry-run"


def accepted(path: Path, python: str) -> list[str]:
    """Let pip take the lock, without installing it."""
    environ = lock_uv.environment() | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1"}
    if index := lock_uv.default_index(os.environ):
        environ["PIP_INDEX_URL"] = index
    argv = [sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "--quiet", "--ignore-installed"]
    try:
        process.output([*argv, "--no-deps", "--require-hashes", "-r", str(path)], timeout=PIP_SECONDS, environ=environ)
    except WorkError as error:
        return [f"{path.name}: pip does not take it: {error.what}"]
    return []


def reduced(stack: Stack, engine: str, pins: Sequence[Pin]) -> list[str]:
    """Give an input that pip-compile can resolve: no package whose setup.py needs torch, overridden edges cut.

    pip-compile knows no overrides and no metadata of ours, so each package of which we changed an edge is named by its
    own dependencies instead.
    """
    ours = {canonicalize_name(row.name): row for row in stack.lock.metadata}
    lines = [*lock_inputs.requirements(stack, None), *lock_inputs.requirements(stack, engine)]
    out: list[str] = []
    while lines:
        line = lines.pop()
        name = canonicalize_name(re.split(r"[\[=<>!~; ]", line)[0])
        if name in ours:
            lines += [need for need in ours[name].requires if need not in out]
        elif line not in out:
            out.append(line)
    overridden = {canonicalize_name(re.split(r"[=<>!~; ]", row.requirement)[0]) for row in stack.lock.overrides}
    cut = {"sglang"} if overridden else set()
    asked = {pin.name: pin for pin in pins}
    out = [line for line in out if canonicalize_name(re.split(r"[\[=<>!~; ]", line)[0]) not in cut]
    out += [
        f"{pin.name}=={pin.version}" for pin in asked.values() if cut & {re.split(r"[\[ ]", via)[0] for via in pin.via}
    ]
    return sorted(set(out))


def differences(stack: Stack, engine: str, place: Path, python: str) -> Mapping[str, tuple[str, str]]:
    """Print every pin on which pip-compile and the lock disagree, and why that may be."""
    path = place / f"requirements-{engine}.txt"
    pins = lock_text.parse(path.read_text(encoding="utf-8"), str(path))
    theirs = compiled(stack, reduced(stack, engine, pins), python)
    mine = {pin.name: pin.version for pin in pins}
    moved = {
        name: (mine[name], theirs[name]) for name in sorted(mine.keys() & theirs.keys()) if mine[name] != theirs[name]
    }
    print(f"{path.name}: pip-compile agrees on {len(mine.keys() & theirs.keys()) - len(moved)} of {len(mine)} pins")
    for name, (ours, other) in moved.items():
        print(f"  {name}: the lock has {ours}, pip-compile {other}: both satisfy what is asked")
    for name in sorted(mine.keys() - theirs.keys()):
        print(f"  {name}: only in the lock: asked for by what was left out of the reduced input")
    return moved


def compiled(stack: Stack, lines: Sequence[str], python: str) -> dict[str, str]:
    """Resolve with pip-compile as of the cut-off date; pins of ours that are newer are named outright."""
    with tempfile.TemporaryDirectory(prefix="pip-compile-") as name:
        work = Path(name)
        (work / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        environ = lock_uv.environment() | {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_UPLOADED_PRIOR_TO": lock_inputs.cutoff(stack.lock.cutoff),
        }
        if index := lock_uv.default_index(os.environ):
            environ["PIP_INDEX_URL"] = index
        tools = work / "tools"
        lock_uv.run(["venv", "--quiet", "--python", python, str(tools)])
        pins = ROOT / "lockfiles" / "tools.txt"
        lock_uv.run(
            [
                "pip",
                "install",
                "--quiet",
                "--require-hashes",
                "--python",
                str(tools / "bin" / "python"),
                "-r",
                str(pins),
            ]
        )
        argv = [
            str(tools / "bin" / "pip-compile"),
            "--quiet",
            "--allow-unsafe",
            "--strip-extras",
            "--no-header",
            "--no-annotate",
        ]
        process.output(
            [*argv, "--output-file", "out.txt", "in.txt"], timeout=COMPILE_SECONDS, environ=environ, cwd=work
        )
        text = (work / "out.txt").read_text(encoding="utf-8")
    return {pin.name: pin.version for pin in lock_text.parse(text, "pip-compile")}
