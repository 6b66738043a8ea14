"""The environment variables that a training run is started with, and why each is set."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from envcheck.codec import Unknown
from envcheck.errors import WorkError
from envcheck.facts import Facts
from envcheck.stack import load
from scripts import process, toolchain
from scripts.cache import cache

TIMEOUT_SECONDS = 120.0
ALWAYS = {
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "HYDRA_FULL_ERROR": "1",
}
OURS = {"NCCL_NVLS_ENABLE": "0"}
"""Set where the person has not set them: NVLink SHARP needs a fabric manager that many hosts do not have right."""
JIT = "kernels that are compiled on first use (flashinfer, triton) may not build: nox -s toolchain makes one"
LEFT_OUT = {
    "RAY_ADDRESS": "the run starts a cluster of its own (--ray-address joins one)",
    "ROCR_VISIBLE_DEVICES": "ray refuses it beside CUDA_VISIBLE_DEVICES",
    "PYTHONDONTWRITEBYTECODE": "every worker of every run would compile all that it imports anew",
    "PYTHONHOME": "it would point the training environment at another standard library",
}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The variables, and one line for each that was added, changed or left out."""

    variables: dict[str, str]
    said: tuple[str, ...] = ()


def build(  # noqa: PLR0913  # by keyword, each its own source of variables
    *,
    stack: str,
    python: str,
    facts: Facts | None,
    profile: Mapping[str, str],
    cuda_home: str | None = None,
    ray_address: str | None = None,
    start: Mapping[str, str] | None = None,
) -> Environment:
    """Give the variables: the person's own, less what harms, then the stack's, then the profile's."""
    before = dict(os.environ if start is None else start)
    said = [f"{name} is left out: {why}" for name, why in LEFT_OUT.items() if name in before]
    after = {name: value for name, value in before.items() if name not in LEFT_OUT}
    exported = exports(stack, python)
    after |= exported
    home = cuda_home or (None if "CUDA_HOME" in exported else provisioned(stack))
    if home:
        after |= {"CUDA_HOME": home, "PATH": f"{home}/bin:{after.get('PATH', '')}"}
    elif "CUDA_HOME" not in exported:
        said.append(
            f"no toolkit of this stack's CUDA is here ({after.get('CUDA_HOME', 'CUDA_HOME is not set')}): {JIT}"
        )
    after["PATH"] = (
        f"{Path(python).absolute().parent}:{after.get('PATH', '')}"  # ninja, for kernels compiled on first use
    )
    after |= ALWAYS | {name: value for name, value in OURS.items() if name not in after} | dict(profile)
    if ray_address:
        after["RAY_ADDRESS"] = ray_address
    after |= libcuda(facts, after)
    said += [f"{name}={after[name]}" for name in sorted(after) if after[name] != before.get(name)]
    return Environment(variables=after, said=tuple(said))


def provisioned(stack: str) -> str | None:
    """Give the toolkit of the stack's CUDA that ``nox -s toolchain`` made; None where it was not made."""
    path = toolchain.provisioned(load(stack).cuda.default)
    return None if path is None else str(path)


def exports(stack: str, python: str) -> dict[str, str]:
    """Ask ``envcheck env`` for CUDA_HOME, LD_LIBRARY_PATH and the like."""
    argv = [sys.executable, "-m", "envcheck", "env", "--stack", stack, "--python", python, "--shell", "json"]
    text = process.output(argv, timeout=TIMEOUT_SECONDS)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise WorkError(f"envcheck env did not answer with JSON: {text[:200]!r}") from error
    return {str(name): str(value) for name, value in found.items()}


def libcuda(facts: Facts | None, variables: Mapping[str, str]) -> dict[str, str]:
    """Give triton and linkers an unversioned libcuda.so where the host has none: a link in the project's cache."""
    if facts is None or isinstance(facts.driver, Unknown) or facts.driver.libcuda_symlink is True:
        return {}
    loading = [item for item in facts.driver.libraries if item.name.startswith("libcuda.so") and item.kind != "stub"]
    if not loading:
        return {}
    library = next((item.path for item in loading if item.loads), loading[0].path)
    folder = cache("libcuda")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("libcuda.so", "libcuda.so.1"):
        link = folder / name
        if not link.is_symlink() or os.readlink(link) != library:
            fresh = folder / f".{name}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(library)
            fresh.replace(link)
    return {"TRITON_LIBCUDA_PATH": str(folder)} | {
        name: ":".join(item for item in (str(folder), variables.get(name, "")) if item)
        for name in ("LD_LIBRARY_PATH", "LIBRARY_PATH")
    }
