"""The ordered steps from this host to a working stack: what to provision, install, build, patch and check. Pure."""

from __future__ import annotations

import posixpath
import shlex
from graphlib import TopologicalSorter
from typing import Any, Literal

from envcheck import codec
from envcheck.choices import Choices, accepted, choose, command, environment, fill, jobs, of_recipe, usable_toolkit
from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import Target
from envcheck.record import dataclass, field
from envcheck.stack import Component

Kind = Literal["provision", "install", "build", "patch", "check"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to do; ``skipped`` says why it need not be done here."""

    name: str
    kind: Kind
    component: str
    version: str
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    jobs: int = 1
    command: str = ""
    preflight: tuple[str, ...] = ()
    reason: str = ""
    skipped: str | None = None


def plan(facts: Facts, target: Target) -> tuple[Step, ...]:
    """Give the steps in an order that respects every need; those that this host does not need say why."""
    choices = choose(facts, target.stack)
    wanted = target.stack.wanted(target.engine, target.trainer)
    steps = [step for item in wanted for step in _component_steps(item, facts, target, choices)]
    building = any(step.kind == "build" and step.skipped is None for step in steps)
    everything = [_toolchain(facts, target, building=building), *steps, *_checks(facts, target, choices, steps)]
    return tuple(_ordered(everything))


def document(steps: tuple[Step, ...]) -> dict[str, Any]:
    """Give the plan as JSON data; ``skipped`` is always there, null where the step is to be done."""
    return {"version": 1, "steps": [{**codec.encode(step), "skipped": step.skipped} for step in steps]}


def mermaid(steps: tuple[Step, ...]) -> str:
    """Draw the plan as a Mermaid flowchart; skipped steps are dashed."""
    lines = ["flowchart TD"]
    for step in steps:
        label = f"{step.kind}: {step.component} {step.version}".replace('"', "'")
        lines.append(f'    {_node(step.name)}["{label}"]')
    lines += [f"    {_node(need)} --> {_node(step.name)}" for step in steps for need in step.needs]
    dashed = [_node(step.name) for step in steps if step.skipped is not None]
    if dashed:
        lines += ["    classDef skipped stroke-dasharray: 5 5,opacity:0.6", f"    class {','.join(dashed)} skipped"]
    return "\n".join(lines) + "\n"


def _node(name: str) -> str:
    return name.replace("-", "_")


def _ordered(steps: list[Step]) -> list[Step]:
    """Sort by needs; among the steps that are ready, the stack file's order is kept."""
    names = [step.name for step in steps]
    sorter = TopologicalSorter({step.name: [need for need in step.needs if need in names] for step in steps})
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=names.index)
        order += ready
        sorter.done(*ready)
    by_name = {step.name: step for step in steps}
    return [by_name[name] for name in order]


def _toolchain(facts: Facts, target: Target, *, building: bool) -> Step:
    cuda = target.stack.cuda
    toolkit = usable_toolkit(facts, cuda.default)
    skipped = f"CUDA {cuda.default} is at {toolkit.path}" if toolkit else None
    if not building and skipped is None:
        skipped = "nothing has to be compiled"
    return Step(
        name="toolchain",
        kind="provision",
        component="cuda-toolkit",
        version=cuda.default,
        command=f"nox -s toolchain -- --stack {target.stack.name}",
        reason=f"compiling needs nvcc of CUDA {cuda.default}: {cuda.reason}",
        skipped=skipped,
    )


def _component_steps(item: Component, facts: Facts, target: Target, choices: Choices) -> list[Step]:
    there = _installed(item, facts)
    needs = tuple(need for need in item.needs if _is_wanted(need, target))
    if item.recipe is None:
        return [_install(item, target, needs, there)]
    steps = []
    if item.origin.patches:
        steps.append(_patch(item, target, needs, there))
        needs = (*needs, f"patch-{item.name}")
    return [*steps, _build(item, target, choices, needs, there)]


def _is_wanted(name: str, target: Target) -> bool:
    return any(item.name == name for item in target.stack.wanted(target.engine, target.trainer))


def _arguments(target: Target) -> str:
    return f"--stack {target.stack.name} --engine {target.engine} --trainer {target.trainer}"


def _install(item: Component, target: Target, needs: tuple[str, ...], there: str | None) -> Step:
    return Step(
        name=item.name,
        kind="install",
        component=item.name,
        version=item.version,
        needs=needs,
        command=f"nox -s env -- {_arguments(target)}",
        reason=item.origin.reason or "a wheel of the lock, checked by its hash",
        skipped=there,
    )


def _patch(item: Component, target: Target, needs: tuple[str, ...], there: str | None) -> Step:
    return Step(
        name=f"patch-{item.name}",
        kind="patch",
        component=item.name,
        version=item.version,
        needs=needs,
        command=f"nox -s sources -- --stack {target.stack.name} {item.name}",
        reason=f"{item.origin.reason}; applies {', '.join(item.origin.patches)}",
        skipped=there,
    )


def _build(item: Component, target: Target, choices: Choices, needs: tuple[str, ...], there: str | None) -> Step:
    assert item.recipe is not None  # noqa: S101  # the caller looked
    choices = of_recipe(choices, item.recipe)
    home = f"{choices.cache}/toolchains/cuda-{target.stack.cuda.default}"
    archs = choices.archs_dotted if item.recipe.archs_variable else ""
    return Step(
        name=item.name,
        kind="build",
        component=item.name,
        version=item.version,
        needs=(*(("toolchain",) if item.recipe.compiles else ()), *needs),
        environment=fill(item.recipe, choices, cuda_home=home, cudnn_path="<site-packages>/nvidia/cudnn"),
        jobs=jobs(choices, item.recipe),
        command=command(target.stack, target.engine, item.name, archs=archs),
        preflight=item.recipe.preflight,
        reason=item.origin.reason or f"comes as {item.origin.kind}",
        skipped=there or (_optional(item) if item.optional else None),
    )


def _optional(item: Component) -> str:
    return f"optional; type its command to have {item.name}"


def _installed(item: Component, facts: Facts) -> str | None:
    """Say that the pinned (or an accepted) version is there already."""
    if isinstance(facts.packages, Unknown):
        return None
    found = next((p for p in facts.packages if p.name == item.distribution), None)
    if found is None or not accepted(item, found):
        return None
    return f"{item.distribution} {found.version} is installed"


def _interpreter(facts: Facts, target: Target, choices: Choices, *, made: bool) -> str:
    """Name the environment that holds the stack in the end: the one that ``nox -s env`` makes, else the one at hand."""
    python = "" if isinstance(facts.python, Unknown) else facts.python.executable
    name = environment(target.stack, target.engine, target.trainer, "")
    if not made or f"/{name}" in python:
        return f" --python {shlex.quote(python)}" if posixpath.isabs(python) else ""
    return f" --python {choices.cache}/{name}{target.stack.python.default}"


def _checks(facts: Facts, target: Target, choices: Choices, steps: list[Step]) -> list[Step]:
    done = tuple(step.name for step in steps if not step.name.startswith("patch-"))
    todo = any(step.skipped is None for step in steps)
    check = f"python -m envcheck doctor {_arguments(target)}{_interpreter(facts, target, choices, made=todo)} --stage"
    gpus = () if isinstance(facts.gpus, Unknown) else facts.gpus
    return [
        Step(
            name="wheels",
            kind="install",
            component="environment",
            version=target.stack.name,
            needs=done,
            command=f"nox -s env -- {_arguments(target)}",
            reason="puts the wheels that were built into the locked environment",
            skipped=None if any(s.skipped is None and s.kind == "build" for s in steps) else "no wheel was built",
        ),
        Step(
            name="check-launch",
            kind="check",
            component="environment",
            version=target.stack.name,
            needs=("wheels",),
            command=f"{check} launch",
            reason="the doctor's verdict on the finished environment",
        ),
        Step(
            name="smoke",
            kind="check",
            component="verl",
            version=target.stack.component("verl", target.engine).version,
            needs=("check-launch",),
            command=f"nox -s ppo-smoke -- --stack {target.stack.name} --profile one-gpu",
            reason="three PPO steps on one GPU: it trains",
            skipped=None if gpus else "no GPU was found on this host",
        ),
    ]
