"""What a build on this host would use: the facts, the choices made from them, and the rules judged before it starts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envcheck import choices as chooser
from envcheck import engine, limits
from envcheck.choices import Choices
from envcheck.codec import Unknown
from envcheck.errors import EnvcheckError, WorkError
from envcheck.facts import Facts, Gpu, Package
from envcheck.host import LocalHost
from envcheck.model import Fix, Outcome, Target
from envcheck.probes.collection import collect
from envcheck.stack import Component, Recipe, Stack
from scripts import build_sdist, sources_lock, toolchain, toolchain_compiler, toolchain_gcc
from scripts.sources_lock import Source

KEYS = frozenset(
    [
        "os",
        "environment",
        "resources",
        "python",
        "packages",
        "toolkits",
        "cudnn",
        "nccl",
        "compilers",
        "tools",
        "gpus",
        "driver",
        "sources",
    ]
)
BEFORE = frozenset({"environment", "toolkits", "compilers", "cudnn"})
"""What a build environment changes."""
COMPILER_RULES = frozenset({"gcc-too-old", "gcc-too-new-for-nvcc"})
ARCH_RULES = ("nvcc-too-old-for-gpu", "gpu-too-old")
UNLIMITED = 1 << 60


class NothingToBuildError(EnvcheckError):
    """The component is a wheel of the lock."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was asked for on the command line."""

    engine: str
    trainer: str
    python: str | None = None
    archs: tuple[str, ...] = ()
    jobs: int | None = None
    from_sdist: bool = False
    """Build from the locked sdist what the lock takes as a wheel."""
    places: tuple[Path, ...] = ()
    """Directories that may hold that sdist."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """A component, where it is built, and with what."""

    stack: Stack
    component: Component
    source: Source
    wishes: Wishes
    facts: Facts
    choices: Choices

    @property
    def recipe(self) -> Recipe:
        """The recipe; a component without one was refused before."""
        assert self.component.recipe is not None  # noqa: S101  # `context` refuses it
        return self.component.recipe

    @property
    def python(self) -> str:
        """Path of the target interpreter."""
        python = self.facts.python
        if isinstance(python, Unknown):
            raise WorkError(f"the target interpreter could not be read: {python.unknown}", fix="name it with --python")
        return python.executable

    @property
    def torch(self) -> Package:
        """The torch that is built against."""
        packages = () if isinstance(self.facts.packages, Unknown) else self.facts.packages
        for item in packages:
            if item.name == "torch":
                return item
        wanted = self.stack.component("torch", self.wishes.engine)
        fix = f"nox -s env -- --stack {self.stack.name} --engine {self.wishes.engine}, or --python of one that has it"
        raise WorkError(f"{self.python} has no torch; {wanted.version} is to be built against", fix=fix)

    @property
    def jobs(self) -> int:
        """Compilers side by side: min(cores, memory / memory per job), or what was asked for."""
        return chooser.jobs(self.choices, self.recipe)

    def with_jobs(self, count: int) -> Context:
        """Give the same with another number of jobs."""
        choices = dataclasses.replace(self.choices, cpus=count, memory_bytes=UNLIMITED)
        return dataclasses.replace(self, choices=choices)


def context(stack: Stack, name: str, wishes: Wishes) -> Context:
    """Read this host and choose, for one component that is built from source."""
    component = _component(stack, name, wishes)
    if wishes.from_sdist:
        component, source = build_sdist.from_sdist(stack, component, wishes.engine, wishes.places)
    elif component.recipe is not None:
        source = sources_lock.of_component(stack, component)
    recipe = component.recipe
    if recipe is None:
        fix = f"nox -s env -- --stack {stack.name} --engine {wishes.engine} installs it; --from-sdist compiles it"
        raise NothingToBuildError(f"{name} {component.version} comes as a wheel of the lock", fix=fix)
    wishes = dataclasses.replace(
        wishes, engine=_of(wishes.engine, component.engines), trainer=_of(wishes.trainer, component.trainers)
    )
    facts, choices = _chosen(stack, wishes, recipe)
    if wishes.archs:
        choices = dataclasses.replace(choices, archs=wishes.archs)
    choices = chooser.of_recipe(choices, recipe)
    if wishes.jobs is not None:
        choices = dataclasses.replace(choices, cpus=wishes.jobs, memory_bytes=UNLIMITED)
    return Context(stack=stack, component=component, source=source, wishes=wishes, facts=facts, choices=choices)


def _of(wanted: str, offered: Sequence[str]) -> str:
    """Judge a component for what needs it, whatever else was asked for."""
    return wanted if not offered or wanted in offered else offered[0]


def _component(stack: Stack, name: str, wishes: Wishes) -> Component:
    known = sorted({item.name for item in stack.components})
    if name not in known:
        raise EnvcheckError(f"the stack {stack.name} has no component {name!r}", fix=f"take one of: {', '.join(known)}")
    return stack.component(name, wishes.engine)


def _chosen(stack: Stack, wishes: Wishes, recipe: Recipe) -> tuple[Facts, Choices]:
    """Collect the facts as a build would meet them: with the toolkit, compilers and cuDNN that were chosen."""
    facts = collect(LocalHost(), python=wishes.python, only=KEYS)
    choices = chooser.choose(facts, stack, cuda=chooser.torch_cuda(facts))
    environ = _environ(stack, choices, recipe)
    if environ is None:
        return facts, choices
    seen = collect(LocalHost(environ=environ), python=wishes.python, only=BEFORE | {"python"})
    changed = {name: getattr(seen, name) for name in BEFORE}
    facts = dataclasses.replace(facts, **changed)
    return facts, chooser.choose(facts, stack, cuda=chooser.torch_cuda(facts))


def _environ(stack: Stack, choices: Choices, recipe: Recipe) -> dict[str, str] | None:
    """Give the environment that the build will be judged in; None where it is this one."""
    cxx = choices.cxx or (toolchain_gcc.provisioned() if recipe.compiles or recipe.cxx else None)
    home = (choices.cuda_home or _provisioned(stack)) if recipe.compiles else None
    if home is None and (recipe.compiles or cxx == choices.cxx):
        return None
    named = {"CC": toolchain_compiler.cc_of(cxx) if cxx else None, "CXX": cxx, "CUDAHOSTCXX": cxx}
    if home is not None:
        named |= {"CUDA_HOME": home, "PATH": f"{home}/bin{os.pathsep}{os.environ.get('PATH', '')}"}
    if recipe.takes("cudnn_path"):
        named |= {"CUDNN_PATH": choices.cudnn_path, "CUDNN_HOME": choices.cudnn_path}
    return {**os.environ, **{name: path for name, path in named.items() if path}}


def _provisioned(stack: Stack) -> str | None:
    path = toolchain.provisioned(stack.cuda.default)
    return str(path) if path else None


def preflight(context: Context, *, force: Sequence[str] = ()) -> list[Outcome]:
    """Judge by the rules that this step needs, less those that were overridden; give all outcomes."""
    from envcheck.rules import RULES  # 50 modules, needed only here

    known = {rule.id: rule for rule in RULES}
    unknown = [rule_id for rule_id in force if rule_id not in context.recipe.preflight]
    if unknown:
        what = f"--force {unknown[0]}: no rule of this build"
        raise EnvcheckError(what, fix=f"take one of: {', '.join(context.recipe.preflight)}")
    wanted = [known[name] for name in context.recipe.preflight if name in known and name not in force]
    target = Target(
        stack=_alone(context),
        limits=limits.load(),
        stage="build",
        engine=context.wishes.engine,
        trainer=context.wishes.trainer,
    )
    outcomes = [outcome for rule in wanted for outcome in engine.outcomes_of(rule, _seen_by(rule.id, context), target)]
    return [_with_asked_archs(outcome, context) for outcome in outcomes]


def _seen_by(rule_id: str, context: Context) -> Facts:
    """Give the facts; to the rules about GPUs, as if those that are compiled for were in this host."""
    if rule_id not in ARCH_RULES or not context.recipe.takes("archs_"):
        return context.facts
    archs = dict.fromkeys(arch.rstrip("af") for arch in context.choices.archs)
    gpus = tuple(Gpu(name=f"sm_{arch.replace('.', '')}", compute_capability=arch, memory_bytes=0) for arch in archs)
    return dataclasses.replace(context.facts, gpus=gpus)


def _with_asked_archs(outcome: Outcome, context: Context) -> Outcome:
    """Say how to do without an architecture that was asked for by name: it cannot be compiled for."""
    if outcome.rule not in ARCH_RULES or not context.wishes.archs:
        return outcome
    fix = Fix(text=f"Leave it out of --archs {';'.join(context.wishes.archs)}")
    return dataclasses.replace(outcome, fix=(fix,) if outcome.outcome == "error" else outcome.fix)


def _alone(context: Context) -> Stack:
    """Give the stack as if nothing else had to be built, so that the needs of other components stop nothing."""
    name = context.component.name
    others = tuple(item for item in context.stack.components if item.recipe is None and item.name != name)
    wanted = dataclasses.replace(context.component, optional=False)  # it was asked for
    return dataclasses.replace(context.stack, components=(*others, wanted))


def refusal(outcomes: Sequence[Outcome]) -> str:
    """Say why a build does not start: each error with what was found, expected, and the fix; empty where none."""
    lines = []
    for outcome in outcomes:
        if outcome.outcome not in {"error", "crashed"}:
            continue
        lines.append(f"{outcome.rule}: {outcome.summary}")
        lines += [f"    found     {outcome.found}", f"    expected  {outcome.expected}"] if outcome.found else []
        for fix in outcome.fix:
            lines.append(f"    → {fix.text}")
            lines += [f"        {command}" for command in fix.commands]
        if outcome.rule in COMPILER_RULES or outcome.subject == "g++":
            lines += ["    → Or take the packaged GCC, without root", "        nox -s toolchain -- --gcc"]
    return "\n".join(lines)


def environment(context: Context) -> dict[str, str]:
    """Give the recipe's environment, filled, with the compilers and the toolkit first on PATH."""
    home = context.choices.cuda_home or ""
    filled = chooser.fill(context.recipe, context.choices, cuda_home=home, cudnn_path="")
    empty = sorted(name for name, value in filled.items() if not value)
    if empty:
        raise WorkError(
            f"no value for {', '.join(empty)}: the host has nothing that fits",
            fix=f"python -m envcheck doctor --stage build --python {context.python}",
        )
    return filled


def site_packages(context: Context) -> list[Path]:
    """List the site-packages of the target."""
    python = context.facts.python
    return [] if isinstance(python, Unknown) else [Path(path) for path in python.site_packages]
