"""Megatron-LM: importable, with its TransformerEngine, its bridge and its helpers."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts, Source
from envcheck.limits import satisfies
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, installed, package, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.transformer_engine import PARTS, build_te


def need_megatron(target: Target) -> None:
    """End the rule as not applicable where Megatron-LM is not the trainer."""
    if target.trainer != "megatron":
        msg = "Megatron-LM is not the trainer"
        raise NotApplicable(msg)


def megatron_source(facts: Facts) -> Source | None:
    """Find a checkout of Megatron-LM."""
    sources = facts.sources if isinstance(facts.sources, tuple) else ()
    return next((item for item in sources if item.name.lower().startswith("megatron")), None)


@rule(
    "megatron-te-missing",
    group="packages",
    subject="Megatron-LM",
    cause="Megatron-LM's layers come from TransformerEngine, which it does not declare; each release knows some.",
    stages=("launch", "train"),
    sources=("https://github.com/NVIDIA/Megatron-LM/blob/core_v0.14.0/pyproject.toml",),
    fix=("Build TransformerEngine: nox -s build-te.",),
)
def megatron_te_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """Where Megatron-LM trains, a TransformerEngine that it knows is installed."""
    need_megatron(target)
    core = subjects.installed_version(facts, "megatron-core")
    if core is None and megatron_source(facts) is None:
        raise NotApplicable("Megatron-LM is not there")
    te = next((version for name in PARTS if (version := subjects.installed_version(facts, name))), None)
    if te is None:
        yield Finding(
            summary="Megatron-LM is there without TransformerEngine",
            found="no transformer-engine in the target environment",
            expected="TransformerEngine",
            fix=(build_te(target, "Build it with the stack's recipe"),),
        )
        return
    for row in target.limits.rows("megatron-core", **{"megatron-core": core}) if core else ():
        if not subjects.holds(row, "transformer-engine", te):
            yield Finding(
                summary=f"megatron-core {core} declares another TransformerEngine than {te}",
                found=f"TransformerEngine {te}",
                expected=f"TransformerEngine {row.need['transformer-engine']}",
                fix=(remedy.locked(target),),
                severity="warning",
                sources=(row.source,),
            )


@rule(
    "megatron-not-importable",
    group="packages",
    subject="Megatron-LM",
    cause="Megatron-LM is a checkout that PYTHONPATH does not name, or a wheel without the training package.",
    stages=("launch", "train"),
    sources=("https://github.com/NVIDIA/Megatron-LM",),
    fix=("export PYTHONPATH=<Megatron-LM>:$PYTHONPATH, or build it: nox -s build-megatron.",),
)
def megatron_not_importable(facts: Facts, target: Target) -> Iterator[Finding]:
    """Where Megatron-LM trains, megatron.core can be imported."""
    need_megatron(target)
    source = megatron_source(facts)
    if package(facts, "megatron-core") is not None or (source is not None and source.importable):
        return
    build = remedy.build(target, "megatron", "Build it with verl's patch")
    name_it = (
        Fix(text="Name the checkout", commands=(f"export PYTHONPATH={source.path}:$PYTHONPATH",)) if source else build
    )
    yield Finding(
        summary="megatron.core cannot be imported",
        found=f"{source.path} is not on PYTHONPATH"
        if source
        else "neither megatron-core nor a checkout of Megatron-LM",
        expected="megatron-core installed, or the checkout on PYTHONPATH",
        fix=(name_it, build) if source else (build,),
    )


@rule(
    "megatron-bridge-differs",
    group="packages",
    subject="mbridge",
    cause="mbridge follows megatron-core's newest names and is unpinned in verl's extras.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/ISEEKYAN/mbridge/issues/50", "https://github.com/verl-project/verl/issues/6936"),
    fix=("Install an mbridge of the time of megatron-core's release.",),
)
def megatron_bridge_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """mbridge fits the installed megatron-core."""
    installed(facts, "mbridge")
    installed(facts, "megatron-core")
    have = subjects.versions(facts)
    for row, subject in subjects.broken(target, "megatron-core", have):
        if subject == "megatron-core":
            yield Finding(
                summary=f"mbridge {have['mbridge']} does not go with megatron-core {have['megatron-core']}: {row.why}",
                found=f"mbridge {have['mbridge']}, megatron-core {have['megatron-core']}",
                expected=f"megatron-core {row.need['megatron-core']}, or an older mbridge",
                fix=(remedy.install(facts, "Take an older mbridge", "mbridge<0.15"),)
                if satisfies(have["megatron-core"], "<0.13")
                else (remedy.locked(target),),
                sources=(row.source,),
            )


@rule(
    "megatron-helpers-not-compiled",
    group="packages",
    subject="Megatron-LM",
    cause="Megatron-LM compiles its dataset helpers in place when training starts, on every rank.",
    stages=("train",),
    sources=("https://github.com/NVIDIA/Megatron-LM/issues/807",),
    fix=("Compile them once: make -C megatron/core/datasets, with pybind11 and the interpreter's headers.",),
)
def megatron_helpers_not_compiled(facts: Facts, target: Target) -> Iterator[Finding]:
    """Megatron-LM's dataset helpers are compiled, or everything is there to compile them."""
    need_megatron(target)
    core = package(facts, "megatron-core")
    source = megatron_source(facts)
    if core is None and source is None:
        raise NotApplicable("Megatron-LM is not there")
    if core is not None and any("helpers" in item.path for item in core.extensions):
        return
    missing = [name for name in ("pybind11",) if package(facts, name) is None]
    missing += [] if subjects.compilers(facts, "cxx") else ["g++"]
    missing += ["Python.h"] if isinstance(subjects.python(facts).include_dir, Unknown) else []
    if missing:
        place = f"{source.path}/megatron/core/datasets" if source else "<megatron>/core/datasets"
        yield Finding(
            summary=f"Megatron-LM cannot compile its dataset helpers: {', '.join(missing)} is missing",
            found=f"no helpers_cpp, and no {', '.join(missing)}",
            expected="compiled helpers, or pybind11, g++ and the interpreter's headers",
            fix=(Fix(text="Compile them once", commands=(remedy.pip(facts, "pybind11"), f"make -C {place}")),),
            severity="warning",
        )


@rule(
    "apex-missing",
    group="packages",
    subject="apex",
    cause="verl's Megatron trainer imports NVIDIA's apex and declares it nowhere; the run ends when the workers start.",
    stages=("launch", "train"),
    sources=("https://github.com/volcengine/verl/blob/v0.4.1/docs/start/install.rst",),
    fix=("Build it: nox -s build-apex; the `apex` of the package index is another project.",),
)
def apex_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """Where verl trains with Megatron-LM, the apex that it imports is installed."""
    need_megatron(target)
    verl = subjects.wanted_version(facts, target, "verl")
    row = target.limits.first("verl-apex", verl=verl) if verl else None
    if row is None:
        raise NotApplicable("this verl imports no apex")
    if package(facts, "apex") is None:
        critic = row.give["part"] == "critic"
        yield Finding(
            summary=f"verl {verl} imports apex for Megatron's {row.give['part']}, and it is not installed"
            + ("; estimators without a critic (GRPO, RLOO) train" if critic else ""),
            found="no apex in the target environment",
            expected="NVIDIA's apex, built with its extensions",
            fix=(remedy.build(target, "apex", "Build it against this torch"),),
            severity="warning" if critic else "error",
            sources=(row.source,),
        )


RULES: tuple[Rule, ...] = (
    megatron_te_missing,
    megatron_not_importable,
    apex_missing,
    megatron_bridge_differs,
    megatron_helpers_not_compiled,
)
