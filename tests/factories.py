"""Facts of healthy hosts, and ways to break them one by one."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any

from envcheck import limits, stack
from envcheck.codec import Unknown
from envcheck.engine import outcomes_of
from envcheck.facts import (
    Compiler,
    Disk,
    Driver,
    DriverLibrary,
    Facts,
    Gpu,
    LibraryCopy,
    LoaderEntry,
    Os,
    Package,
    Python,
    Resources,
    Tool,
    Toolkit,
)
from envcheck.model import Outcome, Target
from envcheck.rules import by_id
from tests.factory_packages import VENV, VERL_COMMIT, lts_packages, package, seed_packages, site

__all__ = ["VENV", "VERL_COMMIT", "lts_packages", "package", "seed_packages", "site"]

SEED = "verl-sglang-cu124"
LTS = "verl-lts-cu124"
DRIVER = "550.54.15"


@cache
def _limits() -> limits.Limits:
    return limits.load()


@cache
def _stack(name: str) -> stack.Stack:
    return stack.load(name)


def target(name: str = SEED, *, stage: Any = "launch", engine: str = "sglang", trainer: str = "fsdp") -> Target:
    """What to judge against."""
    return Target(stack=_stack(name), limits=_limits(), stage=stage, engine=engine, trainer=trainer)


def toolkit(version: str | Unknown = "12.4.1", path: str = "", **changes: Any) -> Toolkit:
    """One CUDA toolkit with nvcc, the selected one unless told otherwise."""
    short = ".".join(version.split(".")[:2]) if isinstance(version, str) else "0"
    home = path or f"/usr/local/cuda-{short}"
    gcc = {"12.4": 13, "12.8": 14, "13.0": 15, "11.8": 11}.get(short, 13)
    given = {"nvcc": f"{home}/bin/nvcc", "ptxas": version, "headers": True, "source": "system", "selected": True}
    return Toolkit(
        path=home, version=version, **{**given, "gcc_max": gcc, "cmake": changes.get("selected", True), **changes}
    )


def compilers(version: str = "11.4.0", **changes: Any) -> tuple[Compiler, ...]:
    """One GCC in all roles."""
    roles = {"cc": "/usr/bin/gcc", "cxx": "/usr/bin/g++", "cuda-host": "/usr/bin/g++", "cmake-cxx": "/usr/bin/c++"}
    return tuple(Compiler(role=r, path=p, version=version, selected=True, **changes) for r, p in roles.items())


def compiler(role: str, path: str, version: str | Unknown, **changes: Any) -> Compiler:
    """One compiler that a build takes in a role."""
    return Compiler(role=role, path=path, version=version, **{"selected": True, **changes})


def gpu(name: str = "NVIDIA H100 80GB HBM3", capability: str = "9.0", gigabytes: int = 80) -> Gpu:
    """One GPU."""
    return Gpu(name=name, compute_capability=capability, memory_bytes=gigabytes << 30)


def driver(version: str | Unknown = DRIVER, cuda: str = "12.4", **changes: Any) -> Driver:
    """A driver in one piece."""
    place = "/usr/lib/x86_64-linux-gnu"
    libraries = tuple(
        DriverLibrary(name=name, path=f"{place}/{name}", version=version, kind="driver", loads=True)
        for name in ("libcuda.so.1", "libnvidia-ml.so.1")
    )
    given = {"present": True, "kernel_module": version, "libraries": libraries, "libcuda_symlink": True}
    return Driver(version=version, cuda=cuda, **{**given, "device_nodes": ("/dev/nvidia0",), **changes})


def no_driver() -> Driver:
    """A host without a GPU."""
    return Driver(present=False)


def copies(library: str, version: str, python: str, kind: Any = None) -> tuple[LibraryCopy, ...]:
    """Header and library of cuDNN or NCCL in torch's wheels."""
    home = f"{site(python)}/nvidia/{library}"
    soname = {"cudnn": "libcudnn.so.9", "nccl": "libnccl.so.2"}[library]
    both = (
        LibraryCopy(kind="header", path=f"{home}/include/{library}.h", version=version, source="pip"),
        LibraryCopy(
            kind="library", path=f"{home}/lib/{soname}", version=version, source="pip", selected=True, symlink=False
        ),
    )
    return tuple(item for item in both if kind in {None, item.kind})


def loader(python: str) -> tuple[LoaderEntry, ...]:
    """Libraries as a process of the environment resolves them: torch's own."""
    wheels = {
        "libcublas.so.12": ("cublas", "12.4.5.8"),
        "libcudart.so.12": ("cuda_runtime", "12.4.127"),
        "libcudnn.so.9": ("cudnn", "9.1.0.70"),
        "libnccl.so.2": ("nccl", "2.21.5"),
        "libnvJitLink.so.12": ("nvjitlink", "12.4.127"),
    }
    own = tuple(
        LoaderEntry(library=name, path=f"{site(python)}/nvidia/{folder}/lib/{name}", through="RPATH", version=version)
        for name, (folder, version) in wheels.items()
    )
    place = "/usr/lib/x86_64-linux-gnu"
    return (
        *own,
        LoaderEntry(
            library="libnvrtc.so.12",
            path="/usr/local/cuda-12.4/lib64/libnvrtc.so.12",
            through="cache",
            version="12.4.127",
            wanted=f"{site(python)}/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        ),
        LoaderEntry(library="libcuda.so.1", path=f"{place}/libcuda.so.1", through="cache", version=DRIVER),
        LoaderEntry(library="libstdc++.so.6", path=f"{place}/libstdc++.so.6", through="cache", version="3.4.30"),
        LoaderEntry(library="libnuma.so.1", path=f"{place}/libnuma.so.1", through="cache"),
    )


def disk(role: str, path: str, free_gigabytes: float = 500, **changes: Any) -> Disk:
    """One place with free space."""
    given = {"free_bytes": int(free_gigabytes * (1 << 30)), "free_inodes": 10_000_000, "writable": True}
    return Disk(role=role, path=path, **{**given, **changes})


def resources(**changes: Any) -> Resources:
    """Resources of a large GPU node."""
    given = {
        "cpus": 96,
        "memory_bytes": 1024 << 30,
        "memory_available_bytes": 900 << 30,
        "shm_bytes": 512 << 30,
        "disks": (
            disk("tmp", "/tmp"),
            disk("cache", "/home/me/.cache"),
            disk("home", "/home/me"),
            disk("work", "/work"),
        ),
        "max_processes": 4_000_000,
        "open_files": 1_048_576,
        "locked_memory": "unlimited",
        "shm_free_bytes": 100 << 30,
        "interfaces": ("eth0", "lo"),
        "hostname_resolves": "10.0.0.7",
    }
    return Resources(**{**given, **changes})


def python(version: str = "3.10.13", **changes: Any) -> Python:
    """The environment's interpreter."""
    minor = ".".join(version.split(".")[:2])
    given = {
        "executable": f"{VENV}/bin/python",
        "abi": "cp" + minor.replace(".", ""),
        "environment": "venv",
        "prefix": VENV,
        "include_dir": f"/usr/include/python{minor}",
        "site_packages": (site(minor),),
    }
    return Python(version=version, **{**given, **changes})


def system(**changes: Any) -> Os:
    """Ubuntu 22.04."""
    given = {
        "id": "ubuntu",
        "version": "22.04",
        "name": "Ubuntu 22.04.5 LTS",
        "like": ("debian",),
        "kernel": "5.15.0-122-generic",
        "machine": "x86_64",
        "glibc": "2.35",
        "libstdcxx": "3.4.30",
        "user_id": 1000,
    }
    return Os(**{**given, **changes})


def healthy(**changes: Any) -> Facts:
    """Ubuntu 22.04, eight H100, driver 550, CUDA 12.4, the seed's whole stack in a virtual environment."""
    given: dict[str, Any] = {
        "host": "node-1",
        "collected": "2026-01-02T03:04:05Z",
        "os": system(),
        "resources": resources(),
        "environment": {
            "NVTE_FLASH_ATTN": "0",
            "HOME": "/home/me",
            "PATH": f"{VENV}/bin:/usr/local/cuda-12.4/bin:/usr/bin",
        },
        "driver": driver(),
        "gpus": (gpu(),) * 8,
        "toolkits": (toolkit(),),
        "cudnn": copies("cudnn", "9.1.0.70", "3.10"),
        "nccl": copies("nccl", "2.21.5", "3.10"),
        "compilers": compilers(),
        "tools": tuple(
            Tool(name=name, path=f"/usr/bin/{name}", version="2.40") for name in ("git", "uv", "cmake", "ninja")
        ),
        "python": python(),
        "packages": seed_packages(),
        "loader": loader("3.10"),
    }
    return Facts(**{**given, **changes})


def lts(**changes: Any) -> Facts:
    """The same node with Python 3.12 and the lts stack."""
    given: dict[str, Any] = {
        "environment": {"HOME": "/home/me", "PATH": f"{VENV}/bin:/usr/local/cuda-12.4/bin:/usr/bin"},
        "python": python("3.12.3"),
        "packages": lts_packages(),
        "cudnn": copies("cudnn", "9.8.0.87", "3.12"),
        "nccl": copies("nccl", "2.21.5", "3.12"),
        "loader": loader("3.12"),
    }
    return healthy(**{**given, **changes})


def bare(**changes: Any) -> Facts:
    """The same node before anything is installed."""
    return healthy(**{"packages": (package("pip", "25.0.1"),), "cudnn": (), "nccl": (), "loader": (), **changes})


def having(facts: Facts, *packages: Package) -> Facts:
    """Facts in which these packages are installed, instead of others of their names."""
    names = {item.name for item in packages}
    there = facts.packages if isinstance(facts.packages, tuple) else ()
    return replace(facts, packages=(*(item for item in there if item.name not in names), *packages))


def without(facts: Facts, *names: str) -> Facts:
    """Facts in which these packages are not installed."""
    there = facts.packages if isinstance(facts.packages, tuple) else ()
    return replace(facts, packages=tuple(item for item in there if item.name not in names))


def changed(facts: Facts, name: str, /, **changes: Any) -> Facts:
    """Facts in which an installed package has other fields."""
    there = facts.packages if isinstance(facts.packages, tuple) else ()
    return replace(facts, packages=tuple(replace(item, **changes) if item.name == name else item for item in there))


def variables(facts: Facts, **values: str) -> Facts:
    """Facts with these variables set."""
    return replace(facts, environment={**facts.environment, **values})


def outcomes(rule: str, facts: Facts, against: Target | None = None) -> list[Outcome]:
    """What one rule says."""
    return outcomes_of(by_id()[rule], facts, against or target())


def said(rule: str, facts: Facts, against: Target | None = None) -> str:
    """The worst outcome of one rule: error, warning, unknown, ok, not-applicable or crashed."""
    order = ("crashed", "error", "warning", "unknown", "ok", "not-applicable")
    return min((item.outcome for item in outcomes(rule, facts, against)), key=order.index)


def field_names() -> tuple[str, ...]:
    """Names of the top-level facts."""
    return tuple(item.name for item in fields(Facts))
