"""The locks of this project's own tools: what runs it (tools.txt) and what develops it (dev.txt)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envcheck import stack as stacks
from scripts import lock_inputs, lock_text, lock_uv
from scripts.cache import ROOT

FLOOR = "3.10"
PYTHONS = "CPython 3.10 to 3.14"
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


def wanted(project: dict[str, Any]) -> dict[str, list[str]]:
    """Requirements of each file, from pyproject.toml: run time and ``scripts`` extra, and these with all groups."""
    table = project["project"]
    tools = [*table["dependencies"], *table["optional-dependencies"]["scripts"]]
    groups = [line for group in project["dependency-groups"].values() for line in group if isinstance(line, str)]
    return {"tools.txt": sorted(set(tools)), "dev.txt": sorted({*tools, *groups})}


def header(name: str, requirements: Sequence[str], cutoff: str) -> list[str]:
    """Lines that say what the file is made from."""
    digest = hashlib.sha256(json.dumps([sorted(requirements), cutoff]).encode()).hexdigest()
    return [f"from pyproject.toml: {name}, {PYTHONS}, cut-off {cutoff}", f"inputs sha256:{digest}"]


def project(root: Path = ROOT) -> dict[str, Any]:
    """Give pyproject.toml as data."""
    path = root / "pyproject.toml"
    return dict(stacks.parse_toml(path.read_text(encoding="utf-8"), path.name))


def texts(root: Path = ROOT) -> dict[str, str]:
    """Resolve both files; dev.txt holds the pins of tools.txt."""
    table = project(root)
    cutoff: str = table["tool"]["envcheck"]["tools-cutoff"]
    lock_inputs.check_settled(cutoff, where="pyproject.toml (tools-cutoff)")
    done: dict[str, str] = {}
    for name, requirements in wanted(table).items():
        pins = resolve(requirements, cutoff, constraints=done.get("tools.txt", ""))
        done[name] = lock_text.render(pins, header(name, requirements, cutoff))
    return done


def resolve(requirements: Sequence[str], cutoff: str, *, constraints: str = "") -> list[lock_text.Pin]:
    """Resolve for every Python from FLOOR on, no build, every file of each pin hashed."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "pyproject").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        (work / "constraints").write_text(constraints, encoding="utf-8")
        text = lock_uv.run(
            ["pip", "compile", "pyproject", "-c", "constraints", "--universal", "--python-version", FLOOR,
             "--generate-hashes", "--no-header", "--only-binary", ":all:", "--exclude-newer", cutoff, "--quiet"],
            cwd=work,
        )  # fmt: skip
    return [dataclasses.replace(pin, via=_via(pin.via)) for pin in lock_text.parse(text, "uv")]


def _via(via: Sequence[str]) -> tuple[str, ...]:
    return tuple(item.replace("-r pyproject", "pyproject.toml") for item in via if not item.startswith("-c "))
