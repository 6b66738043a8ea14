"""The defaults of docker/Dockerfile and docker/docker-bake.hcl, written from the default stack's file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from envcheck.stack import Stack
from scripts import files, lock_files
from scripts.cache import ROOT

DOCKERFILE = ROOT / "docker" / "Dockerfile"
BAKE = ROOT / "docker" / "docker-bake.hcl"
PYTHON = "python3"
"""The base's own interpreter: each base pins one of the stack's range."""


def base_of(stack: Stack) -> str:
    """Give the stack's devel image by digest; raise EnvcheckError where it names none."""
    devel = next((image for image in stack.images if image.role == "devel"), None)
    if devel is None:
        raise EnvcheckError(f"{stack.name} names no base image", fix="pass --base-image REF")
    return f"{devel.tag}@{devel.digest}"


def defaults(stack: Stack) -> dict[str, str]:
    """Give the build arguments whose defaults are the stack's: engine and trainer, architectures, archive's date."""
    return {
        "BASE_IMAGE": base_of(stack),
        "STACK": stack.name,
        "ENGINE": stack.engines[0],
        "TRAINER": stack.trainers[0],
        "PYTHON": PYTHON,
        "ARCHS": ";".join(stack.archs),
        "APT_SNAPSHOT": lock_files.snapshot(stack),
    }


def in_dockerfile(text: str, values: Mapping[str, str]) -> str:
    """Replace the values of ``ARG NAME=VALUE`` above the first stage."""
    head, start, rest = text.partition("\nFROM ")
    for name, value in values.items():
        written = json.dumps(value) if ";" in value else value
        head = re.sub(rf"^ARG {name}=.*$", f"ARG {name}={written}", head, count=1, flags=re.MULTILINE)
    return head + start + rest


def in_bake(text: str, values: Mapping[str, str]) -> str:
    """Replace the values of ``variable "NAME" { default = "VALUE" }``, and the archive's date of every stack."""
    for name, value in values.items():
        pattern = rf'(variable "{name}" \{{\s*default = )"[^"]*"'
        text = re.sub(pattern, rf"\g<1>{json.dumps(value)}", text, count=1)
    for stack in map(stacks.load, stacks.names()):
        text = re.sub(rf'("{stack.name}"\s*= )"[^"]*"', rf'\g<1>"{lock_files.snapshot(stack)}"', text, count=1)
    return text


def write(stack: Stack) -> list[Path]:
    """Write both files anew where they differ from the stack; give those that did."""
    values = defaults(stack)
    changed = []
    for path, put in ((DOCKERFILE, in_dockerfile), (BAKE, in_bake)):
        text = path.read_text(encoding="utf-8")
        new = put(text, values)
        if new != text:
            files.write(path, new)
            changed.append(path)
    return changed
