"""From this host to a working environment: doctor, toolchain, locked environment, missing wheels, verdict.

Each step does nothing where its result is there already, so that a run that was stopped goes on where it was.
What this host cannot take is skipped, with the reason and the command for later.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from envcheck import choices, engine, errors, limits
from envcheck import stack as stacks
from envcheck.codec import Unknown
from envcheck.errors import EnvcheckError
from envcheck.facts import Facts
from envcheck.host import LocalHost
from envcheck.model import Target
from envcheck.probes.collection import collect
from envcheck.stack import Component
from scripts import (
    build_context,
    build_order,
    build_steps,
    cli,
    env,
    sources,
    toolchain,
    toolchain_gcc,
    wheelhouse_store,
)
from scripts.build import archs_of
from scripts.build_context import Wishes
from scripts.build_steps import Order
from scripts.env_plan import Selection
from scripts.git_mirror import UnreachableError

LONG_SECONDS = 900
"""CPU seconds from which a kernel build is left to a host that has a GPU to run it."""
State = Literal["done", "skipped", "failed"]
MARKS: dict[State, str] = {"done": "✓", "skipped": "-", "failed": "✗"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one step; ``then`` is the command for later."""

    step: str
    state: State
    said: str
    then: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was asked for."""

    selection: Selection
    prefix: Path
    python: str
    order: Order
    wishes: Wishes
    build: Literal["auto", "all", "none"]
    dry_run: bool

    @property
    def target_python(self) -> str:
        """Interpreter of the environment that is made."""
        return str(self.prefix / "bin" / "python")


def steps(run: Run, facts: Facts) -> Iterator[Result]:
    """Do the steps in order; a generator, so that each result is printed when it is there."""
    yield _doctor(run, facts)
    wanted = [item for item in _components(run) if _reason_to_skip(item, run, facts) is None]
    if any(item.recipe and item.recipe.compiles for item in wanted):
        yield _toolchain(run, facts)
    yield _environment(run)
    lost: set[str] = set()
    for item in _components(run):
        result = _wheel(item, run, facts, lost)
        if result.state != "done":
            lost.add(item.name)
        yield result
    if not run.dry_run:
        yield _environment(run)


def _doctor(run: Run, facts: Facts) -> Result:
    """Judge the host for building; what is wrong is listed, and the steps that need it will say so."""
    from envcheck.rules import RULES  # not needed for --help

    selection = run.selection
    target = Target(
        stack=selection.stack,
        limits=limits.load(),
        stage="build",
        engine=selection.engine,
        trainer=selection.trainer,
    )
    judged = engine.judge(facts, target, RULES)
    wrong = [f"{outcome.rule}: {outcome.summary}" for outcome in judged.having("error", "crashed")]
    said = "this host is ready to build" if not wrong else "to know: " + "; ".join(wrong[:3])
    return Result(step="doctor", state="done", said=said, then="python -m envcheck" if wrong else "")


def _toolchain(run: Run, facts: Facts) -> Result:
    stack = run.selection.stack
    cxx = choices.choose(facts, stack).cxx or toolchain_gcc.provisioned()
    found = choices.usable_toolkit(facts, stack.cuda.default)
    path = found.path if found else toolchain.provisioned(stack.cuda.default)
    if path and cxx:
        return Result(step="toolchain", state="done", said=f"CUDA {stack.cuda.default} is at {path}")
    command = f"nox -s toolchain -- --stack {stack.name}"
    if run.dry_run:
        return Result(step="toolchain", state="skipped", said="would be provisioned", then=command)
    return _guarded("toolchain", command, lambda: _provision(stack, cuda=not path))


def _provision(stack: stacks.Stack, *, cuda: bool) -> str:
    cxx = toolchain.compiler(stack.gcc)
    if cuda:
        toolchain.main(["--stack", stack.name])
    return f"compiling with {cxx}" + (f", CUDA is at {toolchain.prefix_of()}" if cuda else "")


def _environment(run: Run) -> Result:
    selection = run.selection
    command = f"nox -s env -- --stack {selection.stack.name} --engine {selection.engine} --trainer {selection.trainer}"
    if run.dry_run:
        return Result(step="environment", state="skipped", said=f"would be made at {run.prefix}", then=command)
    return _guarded(
        "environment",
        command,
        lambda: env.make(selection, run.python, run.prefix, wheelhouse=run.order.wheelhouse).splitlines()[0],
    )


def _components(run: Run) -> list[Component]:
    selection = run.selection
    names = build_order.names(selection.stack, selection.engine, [selection.trainer])
    return [selection.stack.component(name, selection.engine) for name in names]


def _reason_to_skip(item: Component, run: Run, facts: Facts) -> str | None:
    """Say why a wheel is not built here and now; None where it is."""
    recipe = item.recipe
    if run.build == "none":
        return "--build none was asked for"
    long = recipe is not None and recipe.compiles and recipe.cpu_seconds >= LONG_SECONDS
    if run.build == "auto" and long and recipe is not None and not _has_gpu(facts):
        hours = recipe.cpu_seconds / 3600
        return f"about {hours:.1f} CPU hours for an architecture, and no GPU here to run it"
    return None


def _has_gpu(facts: Facts) -> bool:
    return not isinstance(facts.gpus, Unknown) and bool(facts.gpus)


def _wheel(item: Component, run: Run, facts: Facts, lost: set[str]) -> Result:
    stack = run.selection.stack
    command = f"{choices.command(stack, run.selection.engine, item.name)} --python {run.prefix}"
    if _released(item, run):
        return Result(step=item.name, state="done", said="a release wheel, pinned by its hash, is taken")
    missing = sorted(lost.intersection(item.needs))
    reason = _reason_to_skip(item, run, facts)
    if not Path(run.target_python).exists():
        reason = reason or f"the environment {run.prefix} is not there"
    if missing and item.recipe and item.recipe.compiles:
        reason = reason or f"it needs {', '.join(missing)}"
    if reason or run.dry_run:
        there = _in_wheelhouse(item, run) if Path(run.target_python).exists() else None
        if there:
            return Result(step=item.name, state="done", said=f"{there} is in the wheelhouse")
        return Result(step=item.name, state="skipped", said=reason or "would be built", then=command)
    return _guarded(item.name, command, lambda: _built(item, run))


def _released(item: Component, run: Run) -> bool:
    from scripts import env_plan  # only here

    return env_plan.release(run.selection.stack, item, run.selection.version) is not None


def _in_wheelhouse(item: Component, run: Run) -> str | None:
    from scripts import build_key  # only here

    try:
        context = build_context.context(run.selection.stack, item.name, _wishes(run))
        found = wheelhouse_store.get(run.order.wheelhouse, build_key.inputs(context).key)
    except EnvcheckError:
        return None
    return found.wheel.name if found else None


def _wishes(run: Run) -> Wishes:
    return dataclasses.replace(run.wishes, python=run.target_python)


def _built(item: Component, run: Run) -> str:
    context = build_context.context(run.selection.stack, item.name, _wishes(run))
    return build_steps.build(context, run.order).wheel.name


def _guarded(step: str, command: str, work: Callable[[], str]) -> Result:
    """Run one step; a fault of it ends this step, not the others; a source out of reach is left for later."""
    try:
        return Result(step=step, state="done", said=work())
    except UnreachableError as error:
        return Result(step=step, state="skipped", said=str(error), then=command)
    except EnvcheckError as error:
        return Result(step=step, state="failed", said=str(error), then=command)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    out = argparse.ArgumentParser(prog="python -m scripts.up", description=(__doc__ or "").splitlines()[0])
    out.add_argument("--stack", default=stacks.DEFAULT_STACK)
    out.add_argument("--engine", help="rollout engine (the stack's first)")
    out.add_argument("--trainer", help="training engine (the stack's first)")
    out.add_argument("--python", help="interpreter to make the environment with (default: the stack's version)")
    out.add_argument("--prefix", type=Path, help="where to make it (default: in the project's cache)")
    out.add_argument("--wheelhouse", type=Path, help="where wheels are and go (default: in the project's cache)")
    out.add_argument("--pull", metavar="URL", help="a wheelhouse to look in before building")
    out.add_argument("--source", action="append", default=[], metavar="DIR|mirror", help="local mirrors and archives")
    out.add_argument("--archs", help="GPU architectures, as 9.0 or 8.0;9.0 (the GPUs present, else the stack's)")
    out.add_argument(
        "--build", choices=("auto", "all", "none"), default="auto", help="auto: not what needs a GPU's host"
    )
    out.add_argument("--dry-run", action="store_true", help="only say what would be done")
    return out


def run_of(options: argparse.Namespace) -> Run:
    """Read what was asked for."""
    selection = env.selection(options.stack, options.engine, options.trainer, options.python)
    return Run(
        selection=selection,
        prefix=(options.prefix or env.default_prefix(selection)).absolute(),
        python=env.interpreter(options.python, selection.stack),
        order=Order(
            wheelhouse=(options.wheelhouse or wheelhouse_store.default()).absolute(),
            pull=options.pull,
            places=tuple(sources.directories(options.source)),
            mirrors_first="mirror" in options.source,
        ),
        wishes=Wishes(engine=selection.engine, trainer=selection.trainer, archs=archs_of(options.archs)),
        build=options.build,
        dry_run=options.dry_run,
    )


def shown(result: Result) -> str:
    """Write one result as a person reads it."""
    first, *more = result.said.splitlines() or [""]
    lines = [f"{MARKS[result.state]} {result.step}: {first}", *(f"    {line}" for line in more)]
    return "\n".join([*lines, *([f"    next: {result.then}"] if result.then else [])])


def main(argv: Sequence[str] | None = None) -> int:
    """Do all steps, print the doctor's verdict on what came out, then the plan of what is left.

    The exit code is 1 where a step failed. Else it is the doctor's, or 0 on a host without a GPU: nothing starts there,
    the steps that it can take are done, and those that it cannot are named.
    """
    run = run_of(parser().parse_args(argv))
    facts = collect(LocalHost(), python=run.target_python if os.path.exists(run.target_python) else None)
    failed = False
    for result in steps(run, facts):
        print(shown(result), flush=True)
        failed = failed or result.state == "failed"
    if run.dry_run:
        return errors.OK
    if not Path(run.target_python).exists():
        print("there is no environment to judge", file=sys.stderr)
        return errors.FINDINGS
    code = env.verdict(run.selection, run.prefix, None)
    print(flush=True)
    env.ask("plan", run.selection, run.prefix)
    if failed:
        return errors.FINDINGS
    return code if _has_gpu(facts) else errors.OK


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
