"""Build what a proof needs and no nvcc has to compile: verl is pure Python, and a proof without it proves little."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from envcheck.errors import EnvcheckError
from scripts import build_context, build_order, build_steps, sources, wheelhouse_store
from scripts.build_context import Wishes
from scripts.build_steps import Order
from scripts.env_plan import Selection


def light(wanted: Selection, missing: Sequence[str]) -> list[str]:
    """Name the components without a wheel that take seconds to build, in the plan's order."""
    names = build_order.names(wanted.stack, wanted.engine, [wanted.trainer])
    return [name for name in names if name in missing and not compiled(wanted, name)]


def compiled(wanted: Selection, name: str) -> bool:
    """Tell whether a component needs nvcc, and with it a toolkit, memory and hours."""
    recipe = wanted.stack.component(name, wanted.engine).recipe
    return recipe is not None and recipe.compiles


def build(wanted: Selection, missing: Sequence[str], prefix: Path, wheelhouse: Path | None = None) -> list[str]:
    """Build the light ones against the environment; give those that now have a wheel, and say why others have none."""
    order = Order(wheelhouse=(wheelhouse or wheelhouse_store.default()).absolute(), places=tuple(sources.directories()))
    wishes = Wishes(engine=wanted.engine, trainer=wanted.trainer, python=str(prefix / "bin" / "python"))
    done = []
    for name in light(wanted, missing):
        try:
            build_steps.build(build_context.context(wanted.stack, name, wishes), order)
        except EnvcheckError as error:
            print(f"{name} could not be built for the proof: {error}", file=sys.stderr)
        else:
            done.append(name)
    return done
