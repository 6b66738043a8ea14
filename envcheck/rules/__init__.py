"""Every rule, listed by hand; one subject a module. Rules do no input or output.

What comes first is told first: the machine before what is installed on it.
"""

from __future__ import annotations

from functools import cache

from envcheck.model import Rule
from envcheck.rules import (
    arch_list,
    binary,
    build_environment,
    build_resources,
    compiler,
    container,
    container_start,
    cudnn,
    driver,
    engines,
    gpu,
    kernels,
    libraries,
    megatron,
    mig,
    pins,
    ptx,
    requirements,
    runtime_environment,
    runtime_limits,
    runtime_ray,
    shadows,
    toolkit,
    transformer_engine,
    user_limits,
    wheels,
    wishes,
)

RULES: tuple[Rule, ...] = (
    *driver.RULES,
    *gpu.RULES,
    *mig.RULES,
    *container.RULES,
    *container_start.RULES,
    *compiler.RULES,
    *toolkit.RULES,
    *ptx.RULES,
    *arch_list.RULES,
    *build_environment.RULES,
    *build_resources.RULES,
    *cudnn.RULES,
    *shadows.RULES,
    *libraries.RULES,
    *pins.RULES,
    *kernels.RULES,
    *wheels.RULES,
    *binary.RULES,
    *transformer_engine.RULES,
    *megatron.RULES,
    *engines.RULES,
    *requirements.RULES,
    *runtime_environment.RULES,
    *user_limits.RULES,
    *runtime_limits.RULES,
    *runtime_ray.RULES,
    *wishes.RULES,
)


@cache
def by_id() -> dict[str, Rule]:
    """Rules by their ids."""
    return {rule.id: rule for rule in RULES}
