"""A driver of which a part is not given to this process: the GPUs, or the library that computes."""

from __future__ import annotations

from envcheck.facts import Driver, Facts
from envcheck.model import Finding, Fix, NotApplicable, Target, known
from envcheck.rules import remedy, subjects

LIBCUDA = "libcuda.so.1"
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"


def leave_to_container(facts: Facts) -> None:
    """End a rule as not applicable where nvidia-runtime-missing says it: this container was not given the GPUs."""
    driver = known(facts.driver)
    if known(driver.present) and facts.gpus != ():
        return
    if facts.container is not None:
        known(facts.container)
        msg = "this container was not given the GPUs: nvidia-runtime-missing"
        raise NotApplicable(msg)


def lost(facts: Facts) -> bool:
    """Tell whether this is a container that had GPUs and lost them: NVML says ``Unknown Error``."""
    said = facts.driver.nvml_error if isinstance(facts.driver, Driver) else None
    return facts.container is not None and "unknown error" in (said or "").lower()


def without_compute(driver: Driver) -> bool:
    """Tell whether the driver's management library is here, and its libcuda.so.1 is not: nvidia-smi works, CUDA not."""
    names = {item.name for item in driver.libraries if item.kind == "driver"}
    return bool(names) and LIBCUDA not in names and not any(item.name == LIBCUDA for item in driver.libraries)


def no_libcuda(facts: Facts, target: Target) -> Finding:
    """Say that nvidia-smi works and CUDA does not, and why a container lacks the library."""
    said = subjects.variable(facts, CAPABILITIES)
    fix = (
        Fix(
            text="Ask for it as well",
            commands=(remedy.run_container(facts, f"--gpus all -e {CAPABILITIES}=compute,utility"),),
        ),
    )
    return Finding(
        summary="nvidia-smi works, CUDA does not: the driver's libcuda.so.1 is not here",
        found="libnvidia-ml.so.1, and no libcuda.so.1" + (f"; {CAPABILITIES}={said}" if said else ""),
        expected="both libraries of the driver",
        fix=fix if facts.container is not None else remedy.driver(facts, target, target.stack.driver.native),
    )
