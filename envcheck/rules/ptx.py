"""PTX, the code for no GPU in particular: a driver and a ptxas that are new enough for it."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.toolkit import right_toolkit


@rule(
    "nvcc-newer-than-driver",
    group="toolkit",
    subject="nvcc",
    cause="A driver compiles PTX (code for no GPU in particular) only of its own CUDA version and older ones; machine "
    "code of any release of the same major runs.",
    stages=("build", "launch", "train"),
    sources=("https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html",),
    fix=("Compile for the GPU itself (TORCH_CUDA_ARCH_LIST without +PTX), or update the driver.",),
)
def nvcc_newer_than_driver(facts: Facts, target: Target) -> Iterator[Finding]:
    """What nvcc compiles here, the driver can run."""
    subjects.need_start(facts, target)
    toolkit = subjects.nvcc_toolkit(facts)
    driver = known(facts.driver)
    if not known(driver.present) or driver.cuda is None:
        msg = "there is no driver on this host"
        raise NotApplicable(msg)
    cuda, highest = known(toolkit.version), subjects.minor(known(driver.cuda))
    if not subjects.older(highest, subjects.minor(cuda)):
        return
    other_major = subjects.major(cuda) != subjects.major(highest)
    yield Finding(
        summary=f"nvcc is CUDA {cuda}, the driver knows CUDA {highest}: "
        + ("what it compiles does not run here" if other_major else "machine code for the GPU runs, PTX does not"),
        found=f"{toolkit.path} {cuda}, driver {driver.version}",
        expected=f"CUDA {highest} or older" if other_major else "code for the GPUs themselves, no +PTX",
        fix=_older_toolkit(facts, target, highest) if other_major else _own_code(facts),
        severity=_ptx_severity(facts, target, cuda, other_major=other_major),
    )


def _older_toolkit(facts: Facts, target: Target, highest: str) -> tuple[Fix, ...]:
    """The stack's toolkit where the driver runs its major; else the driver is what is too old."""
    if subjects.major(highest) < subjects.major(target.stack.cuda.default):
        return remedy.driver(facts, target, target.stack.driver.minimum)
    return right_toolkit(facts, target)


def _own_code(facts: Facts) -> tuple[Fix, ...]:
    gpus = ";".join(item for gpu in known(facts.gpus) if isinstance(item := gpu.compute_capability, str))
    own = ";".join(sorted(set(gpus.split(";"))))
    return (remedy.exports("Compile for these GPUs alone", TORCH_CUDA_ARCH_LIST=own),) if own else ()


def _ptx_severity(facts: Facts, target: Target, cuda: str, *, other_major: bool) -> Severity:
    """The stack's own CUDA on an older driver of the same major is a supported combination, and worth a note."""
    if other_major:
        return "warning" if target.stage == "build" else subjects.at_run_time(facts, target)
    ptx = "+PTX" in subjects.variable(facts, "TORCH_CUDA_ARCH_LIST")
    own = subjects.minor(cuda) == target.stack.cuda.default and not ptx
    return "ok" if own or subjects.at_run_time(facts, target) == "ok" else "warning"


@rule(
    "ptxas-too-old",
    group="toolkit",
    subject="ptxas",
    cause="ptxas comes from an older toolkit than nvcc (a mixed PATH), or triton's own does not know the GPU.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/triton-lang/triton/issues/8539",),
    fix=("Take nvcc and ptxas from one toolkit; set TRITON_PTXAS_PATH to a ptxas that knows the GPU.",),
)
def ptxas_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """ptxas is as new as nvcc, and triton's knows every GPU."""
    yield from _triton_ptxas(facts, target)
    toolkit = subjects.nvcc_toolkit(facts)
    if not isinstance(toolkit.ptxas, str):
        return
    cuda = known(toolkit.version)
    if subjects.older(subjects.minor(toolkit.ptxas), subjects.minor(cuda)):
        yield Finding(
            summary=f"ptxas {toolkit.ptxas} is older than nvcc {cuda} and cannot read what it writes",
            found=f"nvcc {cuda} and ptxas {toolkit.ptxas} in {toolkit.path}",
            expected=f"ptxas {subjects.minor(cuda)}",
            fix=(Fix(text="Put one toolkit first", commands=(f"export PATH={toolkit.path}/bin:$PATH",)),),
            severity=subjects.at_run_time(facts, target),
        )


def _triton_ptxas(facts: Facts, target: Target) -> Iterator[Finding]:
    triton = None if not isinstance(facts.packages, tuple) else subjects.installed_version(facts, "triton")
    if triton is None or not isinstance(facts.gpus, tuple) or subjects.variable(facts, "TRITON_PTXAS_PATH"):
        return
    for gpu in subjects.capabilities(facts):
        for row in (r for r in target.limits.rows("triton", triton=triton, gpu=gpu) if "ptxas" in r.give):
            newest = max((item.path for item in subjects.toolkits(facts) if isinstance(item.ptxas, str)), default="")
            yield Finding(
                summary=f"triton {triton} cannot compile for this GPU: {row.give['ptxas']}",
                found=f"triton {triton}, GPU of compute capability {gpu}",
                expected="a ptxas that knows the GPU",
                fix=(
                    remedy.exports("Name a newer ptxas", TRITON_PTXAS_PATH=f"{newest or '/usr/local/cuda'}/bin/ptxas"),
                ),
                sources=(row.source,),
            )


RULES: tuple[Rule, ...] = (nvcc_newer_than_driver, ptxas_too_old)
