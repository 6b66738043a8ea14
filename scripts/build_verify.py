"""A wheel is taken only when its own bytes say that it is what was asked for; built or downloaded alike."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from envcheck.binary import wheel as wheels
from envcheck.codec import Unknown
from envcheck.errors import WorkError
from envcheck.model import Finding
from scripts.build_context import Context, site_packages
from scripts.build_run import CANONICAL
from scripts.cache import cache


def verify(context: Context, wheel: Path, *, stays: bool = False) -> dict[str, Any]:
    """Check a wheel against torch, architectures and C library of the context; raise WorkError where it lies.

    ``stays`` says that the file is kept where it is when it is refused.
    """
    started = time.monotonic()
    archs, wanted = wheels.archs_of(wheel), asked(context)
    if archs and "archs" in wanted and context.recipe.takes("archs_"):
        wanted["archs"] = context.choices.archs
    findings = wheels.verify(wheel, **wanted)
    errors = [item for item in findings if item.severity == "error"]
    if errors:
        what = f"{wheel.name} is not what was asked for:\n" + "\n".join(map(_shown, errors))
        raise WorkError(what, fix="it was not put into the wheelhouse" + (f"; it lies at {wheel}" if stays else ""))
    for item in findings:
        print(f"warning: {_shown(item).strip()}", flush=True)
    return {
        "seconds": round(time.monotonic() - started, 2),
        "archs": list(archs),
        "warnings": [_shown(item).strip() for item in findings],
    }


def asked(context: Context) -> dict[str, Any]:
    """Say what the wheel must be, as keywords of the verifier."""
    recipe, facts = context.recipe, context.facts
    out: dict[str, Any] = {"build_paths": [str(cache()), str(CANONICAL)]}
    if not isinstance(facts.python, Unknown) and isinstance(facts.python.abi, str):
        out["python_tag"] = facts.python.abi
    if not (recipe.compiles or recipe.cxx):
        return out
    system = facts.os
    if not isinstance(system, Unknown):
        out["glibc_max"] = system.glibc if isinstance(system.glibc, str) else None
        out["glibcxx_max"] = system.libstdcxx if isinstance(system.libstdcxx, str) else None
    if not recipe.compiles:
        return out
    out["cxx11_abi"] = context.torch.cxx11_abi if isinstance(context.torch.cxx11_abi, bool) else None
    out["archs"] = context.choices.archs if recipe.archs_variable else ()
    out["torch_libs"] = next(
        (path / "torch/lib" for path in site_packages(context) if (path / "torch/lib").is_dir()), None
    )
    return out


def _shown(item: Finding) -> str:
    return f"    {item.summary}: found {item.found}, expected {item.expected}"
