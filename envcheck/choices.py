"""What a build on this host would take: toolkit, compilers, cuDNN, NCCL, architectures, jobs. Pure."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable

from envcheck.codec import Unknown
from envcheck.facts import Compiler, Facts, Package, Toolkit
from envcheck.limits import satisfies
from envcheck.record import dataclass, replace
from envcheck.stack import Component, Recipe, Stack

FALLBACK_MEMORY_BYTES = 4 << 30
"""Planned with where the memory of the host could not be read: one job of most recipes."""
PIP_MEMORY_BYTES = 512 << 20
"""What pip and setup.py, which imports torch, take beside the compilers: 0.47 GiB in a build of flash-attn."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Paths and numbers that fill a recipe's environment; None where the host has none that fits."""

    cuda_home: str | None
    cudnn_path: str | None
    nccl_path: str | None
    cc: str | None
    cxx: str | None
    archs: tuple[str, ...]
    """Compute capabilities, as ``9.0``."""
    cpus: int
    memory_bytes: int
    cache: str = "~/.cache/envcheck"
    """Directory below which this project keeps toolchains and environments, as a shell reads it."""

    @property
    def archs_dotted(self) -> str:
        """Join for TORCH_CUDA_ARCH_LIST: ``8.0;9.0``."""
        return ";".join(self.archs)

    @property
    def archs_cmake(self) -> str:
        """Join for CMake and flash-attn: ``80;90``."""
        return ";".join(arch.replace(".", "") for arch in self.archs)


def choose(facts: Facts, stack: Stack, *, cuda: str | None = None) -> Choices:
    """Choose for this host and stack; unknown facts count as absent. ``cuda`` names another CUDA than the stack's."""
    own = stack.cuda.default
    toolkit = usable_toolkit(facts, cuda or own)
    if toolkit is None and cuda and cuda.split(".")[0] == own.split(".")[0]:
        toolkit = usable_toolkit(facts, own)  # another minor release compiles and runs; torch only warns
    limit = _gcc_limit(toolkit)
    return Choices(
        cuda_home=toolkit.path if toolkit else None,
        cudnn_path=_wheel_directory(facts, "cudnn", "include/cudnn.h") or _header_root(facts, "cudnn"),
        nccl_path=_wheel_directory(facts, "nccl", "include/nccl.h") or _header_root(facts, "nccl"),
        cc=_compiler(facts, stack, ("cc", "gcc"), limit),
        cxx=_compiler(facts, stack, ("cuda-host", "cxx", "g++"), limit),
        archs=_archs(facts) or stack.archs,
        cpus=_number(facts, "cpus", 1),
        memory_bytes=_memory(facts),
        cache=_cache(facts),
    )


def of_recipe(choices: Choices, recipe: Recipe) -> Choices:
    """Give the choices with the architectures that the sources know instead of those of the GPUs: 8.0 for 8.6 and 8.9.

    Machine code runs on a GPU of the same major and a higher minor. https://docs.nvidia.com/cuda/ampere-compatibility-guide
    """
    return replace(choices, archs=tuple(dict.fromkeys(_compiled_as(arch, recipe.archs) for arch in choices.archs)))


def _compiled_as(arch: str, known: tuple[str, ...]) -> str:
    """Give the nearest known architecture whose code runs on this one; itself where there is none, or all are known."""
    major, _, minor = arch.rstrip("af").partition(".")
    below = [item for item in known if item.partition(".")[0] == major and int(item.partition(".")[2]) <= int(minor)]
    return max(below, default=arch)


def torch_cuda(facts: Facts) -> str | None:
    """CUDA release that the installed torch was built for, as ``12.4``; what is compiled against it must be of it."""
    packages = () if isinstance(facts.packages, Unknown) else facts.packages
    found = next((item.cuda for item in packages if item.name == "torch"), None)
    return found if isinstance(found, str) else None


def usable_toolkit(facts: Facts, cuda: str) -> Toolkit | None:
    """Give the toolkit of that CUDA release that has nvcc and headers; the selected one first."""
    toolkits = _items(facts.toolkits)
    fitting = [
        item
        for item in toolkits
        if isinstance(item.nvcc, str)
        and item.headers is True
        and isinstance(item.version, str)
        and satisfies(item.version, f"=={cuda}.*")
    ]
    return next(iter(sorted(fitting, key=lambda item: not item.selected)), None)


def fitting(memory_bytes: int, per_job_bytes: int) -> int:
    """Count the jobs that the memory holds beside pip; one where it holds one job only."""
    if memory_bytes < per_job_bytes:
        return 0
    return max(1, (memory_bytes - PIP_MEMORY_BYTES) // per_job_bytes)


def jobs(choices: Choices, recipe: Recipe) -> int:
    """Give min(cores, (memory - pip's own) / memory per job), at least 1."""
    return max(1, min(choices.cpus, fitting(choices.memory_bytes, recipe.memory_per_job_bytes)))


def planned_memory(count: int, recipe: Recipe) -> int:
    """Give the bytes that a build with this many jobs is planned to take."""
    return count * recipe.memory_per_job_bytes + PIP_MEMORY_BYTES


def fill(recipe: Recipe, choices: Choices, *, cuda_home: str, cudnn_path: str) -> dict[str, str]:
    """Give the recipe's environment with every {placeholder} filled; CC, CXX and CUDAHOSTCXX where one was chosen."""
    values = {
        "cuda_home": choices.cuda_home or cuda_home,
        "cudnn_path": choices.cudnn_path or cudnn_path,
        "nccl_path": choices.nccl_path or posixpath.join(posixpath.dirname(cudnn_path), "nccl"),
        "archs_dotted": choices.archs_dotted,
        "archs_cmake": choices.archs_cmake,
        "jobs": str(jobs(choices, recipe)),
        "cc": choices.cc or "gcc",
        "cxx": choices.cxx or "g++",
    }
    filled = {name: text.format_map(values) for name, text in recipe.environment.items()}
    if not (recipe.compiles or recipe.cxx):
        return filled
    compilers = {"CC": choices.cc, "CXX": choices.cxx, "CUDAHOSTCXX": choices.cxx}
    return filled | {name: path for name, path in compilers.items() if path}


def accepted(item: Component, found: Package) -> bool:
    """Tell whether the stack takes the installed version of a component: the pinned one, or another that it accepts."""
    if isinstance(found.version, Unknown):
        return False
    version = found.version.partition("+")[0]
    if satisfies(version, f"=={item.version}"):
        return True
    return any(
        satisfies(version, other.version) and (other.needs_module is None or other.needs_module in found.modules)
        for other in item.accepts
    )


def session(name: str) -> str:
    """Name of the nox session that builds a component."""
    return "build-te" if name == "transformer-engine" else f"build-{name}"


def command(stack: Stack, engine: str, name: str, *, archs: str = "") -> str:
    """Give the command that builds a component: ``nox -s build-te -- --stack S --engine E --archs '8.0;9.0'``."""
    more = f" --archs {shlex.quote(archs)}" if archs else ""
    return f"nox -s {session(name)} -- --stack {stack.name} --engine {engine}{more}"


def environment(stack: Stack, engine: str, trainer: str, python: str) -> str:
    """Name of the environment that ``nox -s env`` makes below the cache: ``envs/verl-lts-cu124-vllm-fsdp-py3.12``."""
    return f"envs/{stack.name}-{engine}-{trainer}-py{python}"


def _items(facts: tuple[Toolkit, ...] | Unknown) -> tuple[Toolkit, ...]:
    return () if isinstance(facts, Unknown) else facts


def _gcc_limit(toolkit: Toolkit | None) -> int | None:
    return toolkit.gcc_max if toolkit and isinstance(toolkit.gcc_max, int) else None


def _compiler(facts: Facts, stack: Stack, roles: Iterable[str], limit: int | None) -> str | None:
    """Give the first compiler in role order that the stack and nvcc accept, the selected one before others."""
    if isinstance(facts.compilers, Unknown):
        return None
    wanted = ("g++", "c++", "clang++") if "cxx" in roles else ("gcc", "cc", "clang")
    fitting = [item for item in facts.compilers if _fits(item, stack, limit) and _is(item, wanted)]
    fitting.sort(key=lambda item: (not item.selected, item.role == "other"))
    return next((item.path for item in fitting), None)


def _is(item: Compiler, names: tuple[str, ...]) -> bool:
    base = posixpath.basename(item.path).split("-")
    return any(name in base or posixpath.basename(item.path).startswith(name) for name in names)


def _fits(item: Compiler, stack: Stack, limit: int | None) -> bool:
    if item.family != "gcc" or isinstance(item.version, Unknown) or not satisfies(item.version, stack.gcc.requires):
        return False
    return limit is None or int(item.version.split(".")[0]) <= limit


def _wheel_directory(facts: Facts, name: str, header: str) -> str | None:
    copies = getattr(facts, name)
    if isinstance(copies, Unknown):
        return None
    ending = "/" + header
    wheels = (item.path for item in copies if item.kind == "header" and item.source == "pip")
    return next(
        (
            path.removesuffix(posixpath.basename(path)).removesuffix("include/").rstrip("/")
            for path in wheels
            if path.endswith((ending, "cudnn_version.h"))
        ),
        None,
    )


def _header_root(facts: Facts, name: str) -> str | None:
    copies = getattr(facts, name)
    if isinstance(copies, Unknown):
        return None
    headers = sorted((item for item in copies if item.kind == "header"), key=lambda item: not item.selected)
    return next((posixpath.dirname(posixpath.dirname(item.path)) for item in headers), None)


def _archs(facts: Facts) -> tuple[str, ...]:
    gpus = () if isinstance(facts.gpus, Unknown) else facts.gpus
    found = {gpu.compute_capability for gpu in gpus if isinstance(gpu.compute_capability, str)}
    return tuple(sorted(found, key=lambda arch: tuple(map(int, arch.split(".")))))


def _cache(facts: Facts) -> str:
    own, users = (facts.environment.get(name) for name in ("ENVCHECK_CACHE", "XDG_CACHE_HOME"))
    return shlex.quote(own) if own else f"{shlex.quote(users)}/envcheck" if users else Choices.cache


def _number(facts: Facts, name: str, default: int) -> int:
    value = default if isinstance(facts.resources, Unknown) else getattr(facts.resources, name)
    return value if isinstance(value, int) else default


def _memory(facts: Facts) -> int:
    """Give what a build may use: the memory that is available, or the cgroup's limit where that is less."""
    available = _number(facts, "memory_available_bytes", _number(facts, "memory_bytes", FALLBACK_MEMORY_BYTES))
    return min(available, _number(facts, "memory_limit_bytes", available))
