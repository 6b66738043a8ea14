"""From a context to a verified wheel in the wheelhouse: look up, judge, prepare, build, normalise, verify, store."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from envcheck import choices
from envcheck.errors import WorkError
from scripts import (
    build_context,
    build_flash_attn,
    build_key,
    build_release,
    build_run,
    build_tools,
    build_verify,
    build_wheel,
    files,
    process,
    sources,
    wheelhouse_remote,
    wheelhouse_store,
)
from scripts.build_context import Context
from scripts.build_key import Inputs
from scripts.cache import cache, locked
from scripts.wheelhouse_store import Entry


@dataclass(frozen=True, kw_only=True)
class Order:
    """How to build: where wheels go, where sources come from, which rules are overridden, which variant."""

    wheelhouse: Path
    pull: str | None = None
    places: tuple[Path, ...] = ()
    mirrors_first: bool = False
    force: tuple[str, ...] = ()
    variant: Mapping[str, str] = field(default_factory=dict)
    keep: bool = False
    rebuild: bool = False


def lookup(context: Context, order: Order, inputs: Inputs) -> Entry | None:
    """Give the wheel of these inputs: from the wheelhouse, else from the remote one, its bytes verified."""
    found = None if order.rebuild else wheelhouse_store.get(order.wheelhouse, inputs.key)
    if found is None and order.pull and not order.rebuild:

        def check(wheel: Path) -> None:
            build_wheel.check_name(wheel, context.component.distribution, context.component.version)
            build_verify.verify(context, wheel)

        taken = wheelhouse_remote.pull(order.wheelhouse, order.pull, keys=[inputs.key], check=check)
        found = taken[0] if taken else None
    return found


def build(context: Context, order: Order) -> Entry:
    """Give the wheel, built only where the wheelhouse lacks it."""
    inputs = build_key.inputs(context, order.variant)
    found = _there(context, order, inputs)
    if found is not None:
        return found
    release = None if order.variant or order.rebuild else build_release.find(context)
    if release is not None:
        entry = build_release.take(context, inputs, release, order.wheelhouse)
        print(f"{entry.wheel}\n  is the release wheel that the stack pins; --rebuild compiles one instead")
        return entry
    outcomes = build_context.preflight(context, force=order.force)
    why = build_context.refusal(outcomes)
    if why:
        raise WorkError(
            f"{context.component.name} is not built, the host is not ready:\n{why}", fix="then run it again"
        )
    wheelhouse_store.check_writable(order.wheelhouse)
    tree = build_run.tree_of(_tree_name(context))
    with locked(tree.with_name(f".{tree.name}.lock"), what=f"building {context.component.name}"):
        # A run that held the lock may have built it meanwhile.
        return _there(context, order, inputs) or _build(context, order, inputs, tree)


def _there(context: Context, order: Order, inputs: Inputs) -> Entry | None:
    found = lookup(context, order, inputs)
    if found is not None:
        print(f"{found.wheel}\n  is there already (key {inputs.key[:12]}), nothing was compiled", flush=True)
    return found


def _tree_name(context: Context) -> str:
    """One tree for a component and Python, so that paths, and with them the compiler cache, stay the same."""
    abi = getattr(context.facts.python, "abi", "")
    return f"{context.component.name}-{abi}" if build_run.native(context) else context.component.name


def _build(context: Context, order: Order, inputs: Inputs, tree: Path) -> Entry:
    started = datetime.now(timezone.utc)
    source = sources.prepare(context.stack, context.source, places=order.places, mirrors_first=order.mirrors_first)
    resumed = build_run.prepare_tree(context, inputs.key, tree, source.path)
    if order.variant and not resumed:
        build_flash_attn.slim(tree, order.variant)
    log = cache("logs", f"{context.component.name}-{started:%Y%m%d-%H%M%S}.log")
    print(_opening(context, inputs, log, resumed=resumed), flush=True)
    made = build_run.run(context, tree=tree, log=log)
    build_wheel.check_name(made.wheel, context.component.distribution, context.component.version)
    done, tag = tree.with_name(f"{tree.name}.done"), build_flash_attn.build_tag(order.variant)
    wheel = build_wheel.normalise(made.wheel, done, epoch=build_run.epoch_of(context), build_tag=tag)
    verification = build_verify.verify(context, wheel, stays=True)
    entry = wheelhouse_store.put(
        order.wheelhouse, inputs.key, wheel, _receipt(context, inputs, made, started, verification)
    )
    _clean(tree, keep=order.keep)
    print(_closing(entry, made), flush=True)
    return entry


def _opening(context: Context, inputs: Inputs, log: Path, *, resumed: bool) -> str:
    archs = f" for {', '.join(context.choices.archs)}" if context.recipe.archs_variable else ""
    verb = "going on with" if resumed else "building"
    jobs = f"{context.jobs} jobs, " if context.recipe.compiles else ""
    return f"{verb} {inputs.component} {inputs.version}{archs}: {jobs}key {inputs.key[:12]}, log {log}"


def _closing(entry: Entry, made: build_run.Made) -> str:
    cached = f", compiler cache {made.hits} of {made.hits + made.misses}" if made.hits + made.misses else ""
    memory = f"peak memory {made.peak_bytes / 2**30:.1f} GiB ({made.peak_of_one_bytes / 2**30:.1f} GiB one process)"
    took = f"{files.size(entry.size)} in {made.seconds:.0f} s, {memory}{cached}"
    return f"{entry.wheel}\n  {took}\n  sha256 {entry.sha256}"


def _receipt(
    context: Context, inputs: Inputs, made: build_run.Made, started: datetime, verification: dict[str, Any]
) -> dict[str, Any]:
    """Write down what went in, with what it was built, what it took; the host's own environment stays out."""
    recipe = context.recipe
    overlay = build_tools.overlay(context.stack, recipe.requires, python=context.python, abi=inputs.python)
    return {
        "version": 1,
        "stack": context.stack.name,
        "inputs": asdict(inputs),
        "tools": build_tools.versions(overlay),
        "environment": {name: value for name, value in made.environment.items() if name != "PATH"},
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(made.seconds, 1),
        "jobs": made.jobs,
        "peak_memory_bytes": made.peak_bytes,
        "peak_memory_of_one_process_bytes": made.peak_of_one_bytes,
        "planned_memory_bytes": choices.planned_memory(made.jobs, recipe),
        "compiler_cache": {"hits": made.hits, "misses": made.misses},
        "path_independent": made.canonical or not build_run.native(context),
        "verification": verification,
    }


def _clean(tree: Path, *, keep: bool) -> None:
    for path in (tree.with_name(f"{tree.name}.wheels"), tree.with_name(f"{tree.name}.done")):
        shutil.rmtree(path, ignore_errors=True)
    if not keep:
        shutil.rmtree(tree, ignore_errors=True)


def dry_run(context: Context, order: Order) -> dict[str, Any]:
    """Say what would be done: the inputs, the key, the environment, the jobs, and what the rules say."""
    inputs = build_key.inputs(context, order.variant)
    outcomes = build_context.preflight(context, force=order.force)
    found = wheelhouse_store.get(order.wheelhouse, inputs.key)
    return {
        "component": inputs.component,
        "version": inputs.version,
        "key": inputs.key,
        "wheel": str(found.wheel) if found else None,
        "inputs": asdict(inputs),
        "environment": build_context.environment(context),
        "jobs": context.jobs,
        "memory_bytes": context.choices.memory_bytes,
        "memory_per_job_bytes": context.recipe.memory_per_job_bytes,
        "command": process.shown(build_run.command(context, Path("WHEELS"))),
        "preflight": {outcome.rule: outcome.outcome for outcome in outcomes},
        "refusal": build_context.refusal(outcomes),
    }
