"""GPUs that are split: what a part of a GPU cannot do."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Facts
from envcheck.model import Finding, Fix, Rule, Target, known, rule
from envcheck.rules import remedy, subjects

WHOLE = {"disabled", "n/a", ""}


@rule(
    "mig-enabled",
    group="run time",
    subject="GPUs",
    cause="A process sees one MIG instance only, however many it is given, and instances have no peer access: the "
    "second worker finds no device, or NCCL stops at a duplicate GPU.",
    stages=("launch", "train"),
    sources=("https://github.com/pytorch/pytorch/issues/130181", "https://github.com/NVIDIA/nccl/issues/1716"),
    fix=("Take whole GPUs, or train on one instance.",),
)
def mig_enabled(facts: Facts, _target: Target) -> Iterator[Finding]:
    """The GPUs are whole ones, or one instance is all that is used."""
    visible = subjects.need_gpu(facts)
    split = [gpu for gpu in visible if known(gpu.mig) not in WHOLE]
    if not split:
        return
    found = ", ".join(f"{gpu.name} (MIG {gpu.mig})" for gpu in split)
    if len(visible) == 1:
        yield subjects.note("the GPU is split by MIG: a process sees one instance of it, and no second", found=found)
        return
    off = remedy.as_root(facts, "nvidia-smi -mig 0") if facts.container is None else ()
    yield Finding(
        summary=f"{len(split)} of {len(visible)} GPUs are split by MIG: a run over several of them does not start",
        found=found,
        expected="whole GPUs, or one instance",
        fix=(Fix(text="Take whole GPUs" + (": turn MIG off" if off else ""), commands=off),),
        severity="warning",
    )


RULES: tuple[Rule, ...] = (mig_enabled,)
