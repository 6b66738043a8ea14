"""What a build is told to compile for, and whether the toolkit is new enough for the component at all."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envcheck.facts import Facts
from envcheck.model import Finding, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.gpu import runs_machine_code, runs_ptx

DOTTED = "TORCH_CUDA_ARCH_LIST"
NAMES = {"kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell", "common", "all"}
FORMS = {
    DOTTED: (re.compile(r"\d+\.\d[af]?(\+PTX)?"), "8.0;9.0"),
    "CUDAARCHS": (re.compile(r"\d{2,3}[af]?(-real|-virtual)?|native|all|all-major"), "80;90"),
    "FLASH_ATTN_CUDA_ARCHS": (re.compile(r"\d{2,3}"), "80;90"),
    "NVTE_CUDA_ARCHS": (re.compile(r"\d{2,3}[af]?"), "80;90"),
}
SEPARATORS = {DOTTED: r"[;\s,]+"}


def entries(facts: Facts, name: str) -> list[str]:
    """Entries of an arch list."""
    return [item for item in re.split(SEPARATORS.get(name, ";"), subjects.variable(facts, name).strip()) if item]


def dotted(name: str, entry: str) -> str:
    """Write an entry as ``9.0``: 90 of CMake's lists, 9.0a and 9.0+PTX of torch's."""
    plain = re.sub(r"(-real|-virtual|\+PTX|[af])$", "", entry)
    return plain if name == DOTTED else f"{plain[:-1]}.{plain[-1]}"


@rule(
    "arch-list-invalid",
    group="toolkit",
    subject=DOTTED,
    cause="Each build system writes the list of GPU architectures in its own way, and torch ends in an IndexError on "
    "an empty one.",
    stages=("build", "launch"),
    sources=("https://github.com/pytorch/pytorch/blob/main/torch/utils/cpp_extension.py",),
    fix=("Write TORCH_CUDA_ARCH_LIST='8.0;9.0', CUDAARCHS='80;90', or unset it.",),
)
def arch_list_invalid(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every arch list is written as its build system reads it, and has the GPUs of this host."""
    for name, (form, example) in FORMS.items():
        if name not in facts.environment:
            continue
        found = entries(facts, name)
        wrong = [item for item in found if not form.fullmatch(item) and item.lower().removesuffix("+ptx") not in NAMES]
        if not found or wrong:
            yield Finding(
                summary=f"{name} cannot be read: " + (f"{wrong[0]!r} is no architecture" if wrong else "it is empty"),
                found=f"{name}={facts.environment[name]}",
                expected=f"as {example}",
                fix=(remedy.unset(name), remedy.exports("Or write it so", **{name: example})),
                subject=name,
                severity=subjects.at_run_time(facts, target),
            )
        elif not wrong:
            yield from _without_this_gpu(facts, name, found)


def _without_this_gpu(facts: Facts, name: str, found: list[str]) -> Iterator[Finding]:
    gpus = facts.gpus if isinstance(facts.gpus, tuple) else ()
    capabilities = {gpu.compute_capability for gpu in gpus if isinstance(gpu.compute_capability, str)}
    readable = [item for item in found if item[0].isdigit()]
    if name != DOTTED or len(readable) != len(found):
        archs = tuple(dotted(name, item) for item in readable)
    else:
        archs = tuple(readable)
    for capability in sorted(capabilities) if len(readable) == len(found) else ():
        plain = (*archs, *(item.removesuffix("+PTX") for item in archs))
        if not runs_machine_code(plain, capability) and not runs_ptx(archs, capability):
            yield Finding(
                summary=f"{name} leaves out this host's GPU: what is built will have no kernel image for it",
                found=f"{name}={facts.environment[name]}, GPU of compute capability {capability}",
                expected=f"{capability} in the list",
                fix=(remedy.unset(name),),
                subject=name,
                severity="warning",
            )


@rule(
    "arch-removed-from-nvcc",
    group="toolkit",
    subject=DOTTED,
    cause="A list of architectures names GPUs that this nvcc does not compile for: too old ones are dropped with each "
    "major release, too new ones are not known yet.",
    stages=("build", "launch"),
    sources=("https://github.com/NVIDIA/TransformerEngine/blob/v2.10/transformer_engine/common/CMakeLists.txt",),
    fix=("Leave in the list the GPUs that are there.",),
)
def arch_removed_from_nvcc(facts: Facts, target: Target) -> Iterator[Finding]:
    """nvcc compiles for every architecture that the lists name."""
    toolkit = subjects.nvcc_toolkit(facts)
    named = [name for name in FORMS if name in facts.environment]
    if not named:
        raise NotApplicable("no arch list is set")
    cuda = known(toolkit.version)
    for name in named:
        for entry in entries(facts, name):
            gpu = dotted(name, entry)
            row = target.limits.first("gpu-arch", gpu=gpu) if re.fullmatch(r"\d+\.\d", gpu) else None
            if row is not None and not subjects.holds(row, "cuda", cuda):
                yield Finding(
                    summary=f"nvcc {cuda} does not compile for {entry}, which {name} names: {row.why}",
                    found=f"{name}={facts.environment[name]}, CUDA {cuda}",
                    expected=f"CUDA {row.need['cuda']}, or {name} without {entry}",
                    fix=(remedy.unset(name),),
                    subject=name,
                    severity=subjects.at_run_time(facts, target),
                    sources=(row.source,),
                )


@rule(
    "toolkit-too-old",
    group="toolkit",
    subject="nvcc",
    cause="A distribution's CUDA toolkit is years older than what the sources ask for.",
    stages=("build",),
    sources=("https://github.com/NVIDIA/TransformerEngine/blob/v2.2/README.rst",),
    fix=("Provision the stack's toolkit: nox -s toolchain.",),
)
def toolkit_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """The toolkit is as new as each component that is compiled asks for."""
    cuda = known(subjects.nvcc_toolkit(facts).version)
    wanted = {item.name: item.version for item in subjects.wanted(target)} | {"cuda": cuda, "nvcc": cuda}
    for table, subject in (("transformer-engine", "cuda"), ("flash-attn", "nvcc")):
        for row, missed in subjects.broken(target, table, wanted):
            if missed == subject:
                yield Finding(
                    summary=f"CUDA {cuda} is too old for {table} {wanted[table]}",
                    found=f"nvcc {cuda}",
                    expected=f"CUDA {row.need[subject]}",
                    fix=(remedy.toolchain(target),),
                    subject=table,
                    sources=(row.source,),
                )


RULES: tuple[Rule, ...] = (arch_list_invalid, arch_removed_from_nvcc, toolkit_too_old)
