"""The wheel key: a hash of everything that goes into a wheel. Same key, same wheel, no second build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from envcheck.codec import Unknown
from envcheck.facts import LibraryCopy
from scripts import build_tools, sources
from scripts.build_context import Context

FORMAT = 3
"""Raised where the way of building changes what comes out of the same inputs."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a wheel is made of; every field counts."""

    format: int = FORMAT
    component: str
    version: str
    source: str
    python: str
    machine: str
    tools: str
    environment: dict[str, str]
    torch: str = ""
    cxx11_abi: bool | None = None
    cuda: str = ""
    host_compiler: str = ""
    glibc: str = ""
    cudnn: str = ""
    archs: tuple[str, ...] = ()
    variant: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 over the canonical JSON of the inputs."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def inputs(context: Context, variant: Mapping[str, str] | None = None) -> Inputs:
    """Read the inputs of a build off its context. Paths and the number of jobs do not count."""
    facts, recipe = context.facts, context.recipe
    abi = "" if isinstance(facts.python, Unknown) else _text(facts.python.abi)
    system = facts.os
    common: dict[str, Any] = {
        "component": context.component.name,
        "version": context.component.version,
        "source": sources.digest_of(context.source),
        "python": abi,
        "machine": "" if isinstance(system, Unknown) else _text(system.machine),
        "tools": build_tools.digest(context.stack, recipe.requires, abi),
        "environment": dict(sorted(recipe.environment.items())),
        "variant": dict(sorted((variant or {}).items())),
    }
    if recipe.compiles or recipe.cxx:
        common |= {
            "host_compiler": _compiler(context),
            "glibc": "" if isinstance(system, Unknown) else _text(system.glibc),
        }
    if not recipe.compiles:
        return Inputs(**common)
    return Inputs(
        **common,
        torch="+".join(filter(None, (_text(context.torch.version), context.torch.build))),
        cxx11_abi=context.torch.cxx11_abi if isinstance(context.torch.cxx11_abi, bool) else None,
        cuda=_nvcc(context),
        cudnn=_cudnn(context) if recipe.takes("cudnn_path") else "",
        archs=context.choices.archs if recipe.takes("archs_") else (),
    )


def _text(value: str | Unknown) -> str:
    return "" if isinstance(value, Unknown) else value


def _nvcc(context: Context) -> str:
    toolkits = () if isinstance(context.facts.toolkits, Unknown) else context.facts.toolkits
    return next((_text(item.version) for item in toolkits if item.path == context.choices.cuda_home), "")


def _compiler(context: Context) -> str:
    compilers = () if isinstance(context.facts.compilers, Unknown) else context.facts.compilers
    chosen = (item for item in compilers if item.path == context.choices.cxx)
    # Where none fits, a build that was forced, or that has no limit, takes what comes first on PATH.
    first = (item for item in compilers if item.selected and item.role == "cxx")
    found = next(chosen, None) or next(first, None)
    return f"{found.family} {_text(found.version)}" if found else ""


def _cudnn(context: Context) -> str:
    copies: tuple[LibraryCopy, ...] = () if isinstance(context.facts.cudnn, Unknown) else context.facts.cudnn
    root = context.choices.cudnn_path or "?"
    headers = (item for item in copies if item.kind == "header" and item.path.startswith(root))
    return next((_text(item.version) for item in headers), "")
