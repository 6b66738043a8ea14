"""The lines that set a shell up for this stack: CUDA_HOME, CUDNN_PATH, LD_LIBRARY_PATH and the like. Pure."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Mapping

from envcheck import cuda_wheels
from envcheck.choices import Choices, choose
from envcheck.facts import Facts
from envcheck.stack import Stack


def variables(facts: Facts, stack: Stack) -> dict[str, str]:
    """Give the variables that a build or a run on this host should have; those without a value are left out.

    LD_LIBRARY_PATH is what the shell has now, less every directory that would hide torch's own CUDA libraries, which
    torch finds through RPATH. Wheels whose libraries an extension of the stack does not find that way come first.
    """
    choices = choose(facts, stack)
    found = {
        "CUDA_HOME": choices.cuda_home,
        "CUDNN_PATH": choices.cudnn_path,
        "CUDNN_HOME": choices.cudnn_path,
        "CC": choices.cc,
        "CXX": choices.cxx,
        "CUDAHOSTCXX": choices.cxx,
        "TORCH_CUDA_ARCH_LIST": choices.archs_dotted,
        "PATH": _path(facts, choices),
        "LD_LIBRARY_PATH": _library_path(facts, stack, choices),
    }
    if stack.has("transformer-engine") and stack.component("transformer-engine").version.startswith("1."):
        found["NVTE_FLASH_ATTN"] = "0"
    return {name: value for name, value in found.items() if value is not None}


def render(values: Mapping[str, str], shell: str) -> str:
    """Write the variables for sh, for fish, or as JSON."""
    if shell == "json":
        return json.dumps(dict(values), indent=2) + "\n"
    if shell == "fish":
        return "".join(f"set -gx {name} {_fish(name, value)}\n" for name, value in values.items())
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def _fish(name: str, value: str) -> str:
    quoted = [
        "'" + part.replace("\\", "\\\\").replace("'", "\\'") + "'"
        for part in (value.split(":") if name == "PATH" else [value])
    ]
    return " ".join(quoted)


def _path(facts: Facts, choices: Choices) -> str | None:
    if choices.cuda_home is None:
        return None
    first = posixpath.join(choices.cuda_home, "bin")
    rest = [entry for entry in facts.environment.get("PATH", "").split(":") if entry and entry != first]
    return ":".join([first, *rest])


def _library_path(facts: Facts, stack: Stack, choices: Choices) -> str | None:
    old = facts.environment.get("LD_LIBRARY_PATH")
    added = cuda_wheels.folders(facts, (item.distribution for item in stack.components))
    if old is None and not added:
        return None
    kept = [entry for entry in (old or "").split(":") if entry and not _hides_torch(entry, choices)]
    return ":".join([*added, *(entry for entry in kept if entry not in added)])


def _hides_torch(entry: str, choices: Choices) -> bool:
    """Tell whether a directory belongs to a CUDA toolkit (libraries or link stubs)."""
    parts = entry.strip("/").split("/")
    toolkit = any(part == "cuda" or part.startswith("cuda-") for part in parts)
    return (toolkit and parts[-1] in {"lib64", "lib", "stubs"}) or "stubs" in parts or _below(entry, choices.cuda_home)


def _below(entry: str, home: str | None) -> bool:
    return home is not None and entry.startswith(home.rstrip("/") + "/")
