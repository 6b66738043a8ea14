"""Hosts that are met but were not at hand: healthy ones of many kinds, and ones that are broken in one known way.

``python -m tests.hosts.compose`` writes each as ``tests/hosts/NAME/facts.json``, for ``python -m envcheck --facts``; a
test compares the files with what the functions here give, and judges them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from envcheck import documents
from envcheck.codec import Unknown, Where, decode, encode
from envcheck.facts import (
    Compiler,
    Container,
    DriverLibrary,
    Extension,
    FabricManager,
    Facts,
    LibraryCopy,
    LoaderEntry,
)
from tests import factories as f

DIRECTORY = Path(__file__).parent
PLACE = "/usr/lib/x86_64-linux-gnu"
Stage = Literal["build", "launch", "train"]


@dataclass(frozen=True, kw_only=True)
class Composed:
    """A host, what it is judged against, and for a broken one the rules that must say so."""

    name: str
    make: Callable[[], Facts]
    stack: str = f.LTS
    stages: tuple[Stage, ...] = ("launch", "train")
    engine: str = "sglang"
    trainer: str = "fsdp"
    finds: tuple[str, ...] = ()

    @property
    def facts(self) -> Facts:
        """Its facts; the host is called by its name."""
        return replace(self.make(), host=self.name)


def moved(facts: Facts, old: str, new: str) -> Facts:
    """Put everything below one directory below another."""
    text = json.dumps(encode(facts)).replace(old, new)
    found: Facts = decode(Facts, json.loads(text), Where(source="moved"))
    return found


def systems(name: str) -> Any:
    """Operating systems, as their os-release, glibc and libstdc++ say."""
    known: dict[str, dict[str, Any]] = {
        "ubuntu2004": {"id": "ubuntu", "version": "20.04", "name": "Ubuntu 20.04.6 LTS", "kernel": "5.4.0-182-generic",
                       "glibc": "2.31", "libstdcxx": "3.4.28"},
        "ubuntu2404": {"id": "ubuntu", "version": "24.04", "name": "Ubuntu 24.04.1 LTS", "kernel": "6.8.0-45-generic",
                       "glibc": "2.39", "libstdcxx": "3.4.33"},
        "debian12": {"id": "debian", "version": "12", "name": "Debian GNU/Linux 12 (bookworm)", "like": (),
                     "kernel": "6.1.0-25-amd64", "glibc": "2.36", "libstdcxx": "3.4.30"},
        "debian13": {"id": "debian", "version": "13", "name": "Debian GNU/Linux 13 (trixie)", "like": (),
                     "kernel": "6.12.6-amd64", "glibc": "2.41", "libstdcxx": "3.4.33"},
        "rocky8": {"id": "rocky", "version": "8.10", "name": "Rocky Linux 8.10 (Green Obsidian)",
                   "like": ("rhel", "centos", "fedora"), "kernel": "4.18.0-553.el8_10.x86_64", "glibc": "2.28",
                   "libstdcxx": "3.4.25"},
        "rocky9": {"id": "rocky", "version": "9.4", "name": "Rocky Linux 9.4 (Blue Onyx)",
                   "like": ("rhel", "centos", "fedora"), "kernel": "5.14.0-427.el9.x86_64", "glibc": "2.34",
                   "libstdcxx": "3.4.29"},
    }  # fmt: skip
    return f.system(**known[name])


def a100(count: int = 8) -> Any:
    """A100 of 80 GB."""
    return (f.gpu("NVIDIA A100-SXM4-80GB", "8.0", 80),) * count


def h200(count: int = 8) -> Any:
    """H200 of 141 GB."""
    return (f.gpu("NVIDIA H200", "9.0", 141),) * count


def l40s(count: int = 4) -> Any:
    """L40S of 48 GB."""
    return (f.gpu("NVIDIA L40S", "8.9", 48),) * count


def with_driver(facts: Facts, version: str, cuda: str, **changes: Any) -> Facts:
    """Another driver, of which libcuda and the loader know too."""
    loader = facts.loader if isinstance(facts.loader, tuple) else ()
    loader = tuple(replace(item, version=version) if item.library == "libcuda.so.1" else item for item in loader)
    return replace(facts, driver=f.driver(version, cuda, **changes), loader=loader)


def libstdcxx(facts: Facts) -> Facts:
    """Let the loader find the system's libstdc++ of that system's version."""
    loader = facts.loader if isinstance(facts.loader, tuple) else ()
    version = facts.os.libstdcxx if not isinstance(facts.os, Unknown) else ""
    assert isinstance(version, str)
    return replace(
        facts,
        loader=tuple(replace(item, version=version) if item.library == "libstdc++.so.6" else item for item in loader),
    )


def ubuntu2404_h100() -> Facts:
    """The lts stack on today's Ubuntu with a driver of CUDA 12.8."""
    facts = f.lts(os=systems("ubuntu2404"), compilers=f.compilers("13.2.0"))
    return libstdcxx(with_driver(facts, "570.172.08", "12.8"))


def ubuntu2004_a100() -> Facts:
    """An old Ubuntu with its own GCC 9.4, before anything is installed."""
    facts = f.bare(os=systems("ubuntu2004"), compilers=f.compilers("9.4.0"), gpus=a100())
    return with_driver(facts, "550.90.07", "12.4")


def debian12_l40s() -> Facts:
    """A driver of CUDA 12.2 under CUDA 12.4: minor-version compatibility."""
    facts = f.lts(os=systems("debian12"), compilers=f.compilers("12.2.0"), gpus=l40s())
    return with_driver(facts, "535.183.01", "12.2")


def rocky8_modules() -> Facts:
    """A cluster: GCC and CUDA from modules, an old system beneath, nothing installed yet."""
    gcc, cuda = "/sw/GCCcore/12.3.0", "/sw/CUDA/12.4.0"
    roles = {"cc": "gcc", "cxx": "g++", "cuda-host": "g++", "cmake-cxx": "g++"}
    compilers = tuple(
        Compiler(role=role, path=f"{gcc}/bin/{name}", version="12.3.0", selected=True) for role, name in roles.items()
    )
    facts = f.bare(
        os=systems("rocky8"),
        gpus=a100(4),
        toolkits=(f.toolkit("12.4.0", cuda, source="env", why="CUDA_HOME is set"),),
        compilers=compilers,
        environment={
            "HOME": "/home/me",
            "PATH": f"{f.VENV}/bin:{cuda}/bin:{gcc}/bin:/usr/bin",
            "CUDA_HOME": cuda,
            "EBROOTCUDA": cuda,
            "LOADEDMODULES": "GCCcore/12.3.0:CUDA/12.4.0",
            "CC": "gcc",
            "CXX": "g++",
        },
    )
    return with_driver(facts, "550.54.15", "12.4")


def rocky9_conda() -> Facts:
    """Everything from conda: interpreter, CUDA, compilers."""
    prefix = "/home/me/miniforge3/envs/verl"
    tool = f"{prefix}/bin/x86_64-conda-linux-gnu"
    roles = {"cc": "cc", "cxx": "c++", "cuda-host": "c++", "cmake-cxx": "c++"}
    compilers = tuple(
        Compiler(role=role, path=f"{tool}-{name}", version="12.4.0", selected=True) for role, name in roles.items()
    )
    facts = f.healthy(
        os=systems("rocky9"),
        toolkits=(f.toolkit("12.4.1", prefix, source="path", why=f"nvcc on PATH is {prefix}/bin/nvcc"),),
        compilers=compilers,
        environment={
            "HOME": "/home/me",
            "PATH": f"{prefix}/bin:/usr/bin",
            "CONDA_PREFIX": prefix,
            "CC": f"{tool}-cc",
            "CXX": f"{tool}-c++",
            "NVTE_FLASH_ATTN": "0",
        },
        python=f.python(environment="conda", conda_prefix=prefix, include_dir=f"{prefix}/include/python3.10"),
    )
    return libstdcxx(moved(facts, f.VENV, prefix))


def in_docker(facts: Facts, **resources: Any) -> Facts:
    """Started with --gpus all --ipc=host --ulimit memlock=-1."""
    given = {"hostname_resolves": "172.17.0.2", **resources}
    start = ("device nodes: /dev/nvidia0, /dev/nvidiactl", "the host's kernel module is loaded")
    facts = moved(facts, "/home/me", "/root")
    return replace(
        facts,
        os=f.system(user_id=0),
        container=Container(runtime="docker", nvidia_visible_devices="all", start=start),
        resources=replace(facts.resources, **given) if not isinstance(facts.resources, Unknown) else facts.resources,
        environment={
            **facts.environment,
            "NVIDIA_VISIBLE_DEVICES": "all",
            "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        },
    )


def kubernetes_h200() -> Facts:
    """A pod on an HGX H200 node; the fabric manager runs on the node, out of sight."""
    facts = in_docker(f.lts(gpus=h200()), hostname_resolves="10.42.0.17", memory_limit_bytes=900 << 30)
    outside = Unknown("it runs outside this container")
    fabric = FabricManager(nvswitch=True, active=outside, version=outside, state="completed")
    environment = {**facts.environment, "KUBERNETES_SERVICE_HOST": "10.43.0.1"}
    container = Container(runtime="kubernetes", nvidia_visible_devices="all", start=("device nodes: /dev/nvidia0",))
    facts = replace(facts, container=container, environment=environment)
    return with_driver(facts, "570.172.08", "12.8", fabric_manager=fabric)


def hgx(active: bool = True, version: str = "550.127.08", state: str = "completed") -> Facts:
    """An HGX node without containers, with its fabric manager."""
    fabric = FabricManager(nvswitch=True, active=active, version=version, state=state)
    return with_driver(f.healthy(gpus=h200()), "550.127.08", "12.4", fabric_manager=fabric)


def apptainer_a100() -> Facts:
    """An Apptainer image started with --nv: the driver's libraries lie in /.singularity.d/libs."""
    place = "/.singularity.d/libs"
    facts = with_driver(f.lts(gpus=a100(4)), "550.90.07", "12.4")
    facts = moved(facts, f"{PLACE}/libcuda.so.1", f"{place}/libcuda.so.1")
    facts = moved(facts, f"{PLACE}/libnvidia-ml.so.1", f"{place}/libnvidia-ml.so.1")
    environment = {
        **facts.environment,
        "APPTAINER_CONTAINER": "/home/me/verl.sif",
        "LD_LIBRARY_PATH": place,
    }
    container = Container(runtime="apptainer", image="/home/me/verl.sif", start=("device nodes: /dev/nvidia0",))
    return replace(facts, container=container, environment=environment)


def debian12_builder() -> Facts:
    """A build machine without a GPU."""
    return f.bare(os=systems("debian12"), compilers=f.compilers("12.2.0"), driver=f.no_driver(), gpus=())


def driver_470() -> Facts:
    """A driver of CUDA 11.4."""
    return with_driver(f.healthy(gpus=a100()), "470.256.02", "11.4")


def cuda13_selected() -> Facts:
    """CUDA 13 in /usr/local/cuda and on PATH, the stack's 12.4 beside it."""
    second = f.toolkit("12.4.1", selected=False)
    first = f.toolkit("13.0.2", "/usr/local/cuda-13.0", why="nvcc on PATH is /usr/local/cuda-13.0/bin/nvcc")
    return f.bare(toolkits=(first, second), compilers=f.compilers("13.2.0"), os=systems("ubuntu2404"))


def docker_without_gpus() -> Facts:
    """An image with everything in it, started without --gpus."""
    facts = in_docker(f.lts(gpus=()))
    driver = replace(f.no_driver(), present=True, kernel_module="550.54.15", nvml_error="NVML: not found")
    missing = Unknown("libcuda.so.1 is not on the loader's path")
    loader = facts.loader if isinstance(facts.loader, tuple) else ()
    return replace(
        facts,
        driver=driver,
        container=Container(runtime="docker", start=("no NVIDIA device nodes", "the host's kernel module is loaded")),
        loader=tuple(
            LoaderEntry(library="libcuda.so.1", path=missing) if item.library == "libcuda.so.1" else item
            for item in loader
        ),
    )


def docker_small_shm() -> Facts:
    """Docker's 64 MB of shared memory."""
    return in_docker(f.lts(), shm_bytes=64 << 20)


def module_and_library_differ() -> Facts:
    """The driver was upgraded, the old kernel module is still loaded."""
    facts = with_driver(f.lts(), "550.90.07", "12.4", kernel_module="550.54.15")
    failed = "NVML: Driver/library version mismatch"
    driver = facts.driver
    assert not isinstance(driver, Unknown)
    return replace(facts, driver=replace(driver, nvml_error=failed, cuda=Unknown(failed)))


def compat_shadows() -> Facts:
    """An image's cuda-compat library comes before the host's newer driver."""
    compat = "/usr/local/cuda-12.4/compat/libcuda.so.1"
    facts = in_docker(f.lts())
    driver = f.driver("570.172.08", "12.8")
    libraries = (
        DriverLibrary(name="libcuda.so.1", path=compat, version="550.54.15", kind="compat", loads=True),
        *(replace(item, loads=item.name != "libcuda.so.1") for item in driver.libraries),
    )
    loader = facts.loader if isinstance(facts.loader, tuple) else ()
    entry = LoaderEntry(library="libcuda.so.1", path=compat, through="LD_LIBRARY_PATH", version="550.54.15")
    environment = {**facts.environment, "LD_LIBRARY_PATH": "/usr/local/cuda-12.4/compat"}
    return replace(
        facts,
        driver=replace(driver, libraries=libraries),
        environment=environment,
        loader=tuple(entry if item.library == "libcuda.so.1" else item for item in loader),
    )


def cudnn_shadowed() -> Facts:
    """LD_LIBRARY_PATH puts an old cuDNN before torch's own."""
    path = "/opt/cudnn-8.9.7/lib/libcudnn.so.9"
    facts = f.healthy()
    copies = facts.cudnn if isinstance(facts.cudnn, tuple) else ()
    loader = facts.loader if isinstance(facts.loader, tuple) else ()
    wanted = f"{f.site('3.10')}/nvidia/cudnn/lib/libcudnn.so.9"
    entry = LoaderEntry(library="libcudnn.so.9", path=path, through="LD_LIBRARY_PATH", version="9.0.0", wanted=wanted)
    other = LibraryCopy(kind="library", path=path, version="9.0.0", source="env", selected=True)
    return replace(
        facts,
        environment={**facts.environment, "LD_LIBRARY_PATH": "/opt/cudnn-8.9.7/lib"},
        cudnn=(*(replace(item, selected=False) for item in copies), other),
        loader=tuple(entry if item.library == "libcudnn.so.9" else item for item in loader),
    )


def debian13_gcc14() -> Facts:
    """A GCC that nvcc 12.4 refuses, and a glibc whose headers CUDA 12.4's do not fit."""
    return f.bare(os=systems("debian13"), compilers=f.compilers("14.2.0"))


def flash_attn_of_another_abi() -> Facts:
    """The wheel of the new C++ ABI under a torch of the old one."""
    undefined = ("_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",)
    extension = Extension(
        path=f"{f.site('3.12')}/flash_attn_2_cuda.cpython-312-x86_64-linux-gnu.so",
        needed=("libc10.so", "libtorch.so"),
        cxx11_abi=True,
        glibc="2.32",
        glibcxx="3.4.29",
        archs=("8.0", "9.0"),
        undefined=undefined,
        cuda_major=12,
    )
    wheel = f.package(
        "flash-attn", "2.8.0.post2", build="cu12torch2.6cxx11abiTRUE", extensions=(extension,), location=f.site("3.12")
    )
    return f.having(f.lts(), wheel)


def low_limits() -> Facts:
    """A login session's limits."""
    return f.lts(resources=f.resources(max_processes=1024, open_files=1024))


def two_torches() -> Facts:
    """An interrupted upgrade left two dist-infos and a rest."""
    facts = f.changed(f.healthy(), "torch", damage=("2 of one name: torch-2.5.1.dist-info, torch-2.6.0.dist-info",))
    gone = Unknown("a rest of an uninstall has no version")
    rest = f.package("~orch", "0", damage=("~orch is left of an interrupted uninstall of torch",))
    return f.having(facts, replace(rest, version=gone))


def ubuntu2204_defaults() -> Facts:
    """Limits as Ubuntu sets them: 1024 open files, which a process may raise to 1048576."""
    return f.lts(gpus=a100(), resources=f.resources(open_files=1024, open_files_hard=1_048_576, locked_memory=8 << 20))


def rocky9_modules() -> Facts:
    """A cluster's node: GCC and CUDA from modules, their libraries on LD_LIBRARY_PATH, the stack in a venv."""
    gcc, cuda = "/opt/ohpc/pub/compiler/gcc/13.2.0", "/opt/ohpc/pub/cuda/12.4.1"
    roles = {"cc": "gcc", "cxx": "g++", "cuda-host": "g++", "cmake-cxx": "c++"}
    compilers = tuple(
        Compiler(role=role, path=f"{gcc}/bin/{name}", version="13.2.0", selected=True) for role, name in roles.items()
    )
    facts = f.lts(
        os=systems("rocky9"),
        gpus=h200(4),
        toolkits=(f.toolkit("12.4.1", cuda, source="module", why="CUDA_HOME is set"),),
        compilers=compilers,
        environment={
            "HOME": "/home/me",
            "PATH": f"{f.VENV}/bin:{cuda}/bin:{gcc}/bin:/usr/bin",
            "CUDA_HOME": cuda,
            "LOADEDMODULES": "gcc/13.2.0:cuda/12.4.1",
            "LD_LIBRARY_PATH": f"{gcc}/lib64:{cuda}/lib64",
        },
    )
    return libstdcxx(with_driver(facts, "550.127.08", "12.4"))


def wsl2_rtx4090() -> Facts:
    """WSL 2: Windows' driver, its library in /usr/lib/wsl, no kernel module and no /dev/nvidia*."""
    place = "/usr/lib/wsl/lib"
    libraries = tuple(
        DriverLibrary(
            name=name, path=f"{place}/{name}", version=Unknown("no version in its name"), kind="driver", loads=True
        )
        for name in ("libcuda.so.1", "libnvidia-ml.so.1")
    )
    system = replace(systems("ubuntu2404"), kernel="5.15.167.4-microsoft-standard-WSL2", wsl=True)
    facts = f.lts(os=system, gpus=(f.gpu("NVIDIA GeForce RTX 4090", "8.9", 24),), compilers=f.compilers("13.2.0"))
    facts = with_driver(facts, "566.36", "12.7", kernel_module=None, libraries=libraries, device_nodes=())
    return libstdcxx(moved(facts, f"{PLACE}/libcuda.so.1", f"{place}/libcuda.so.1"))


def podman_h100() -> Facts:
    """A rootless Podman container with the GPUs through CDI."""
    container = Container(runtime="podman", start=("device nodes: /dev/nvidia0", "the host's kernel module is loaded"))
    return replace(in_docker(f.lts()), container=container)


def login_node() -> Facts:
    """A cluster's login node, without a GPU: the stack lies in the shared home."""
    return libstdcxx(f.lts(os=systems("rocky9"), driver=f.no_driver(), gpus=()))


HOSTS: tuple[Composed, ...] = (
    Composed(name="healthy-ubuntu2204-h100", make=f.healthy, stack=f.SEED, trainer="megatron",
             stages=("build", "launch", "train")),
    Composed(name="healthy-ubuntu2404-h100", make=ubuntu2404_h100),
    Composed(name="healthy-ubuntu2004-a100-build", make=ubuntu2004_a100, stack=f.SEED, stages=("build",)),
    Composed(name="healthy-debian12-l40s-driver535", make=debian12_l40s),
    Composed(name="healthy-rocky8-a100-modules-build", make=rocky8_modules, stages=("build",)),
    Composed(name="healthy-rocky9-h100-conda", make=rocky9_conda, stack=f.SEED, stages=("build", "launch", "train")),
    Composed(name="healthy-docker-h100", make=lambda: in_docker(f.lts())),
    Composed(name="healthy-kubernetes-h200", make=kubernetes_h200),
    Composed(name="healthy-hgx-h200", make=hgx, stack=f.SEED),
    Composed(name="healthy-apptainer-a100", make=apptainer_a100),
    Composed(name="healthy-debian12-builder", make=debian12_builder, stack=f.SEED, stages=("build",)),
    Composed(name="healthy-ubuntu2204-driver580", make=lambda: with_driver(f.lts(), "580.95.05", "13.0")),
    Composed(name="healthy-ubuntu2204-a100-defaults", make=ubuntu2204_defaults),
    Composed(name="healthy-rocky9-h200-modules", make=rocky9_modules),
    Composed(name="healthy-podman-h100", make=podman_h100),
    Composed(name="healthy-wsl2-rtx4090", make=wsl2_rtx4090, stages=("build", "launch", "train")),
    Composed(name="broken-driver-470", make=driver_470, stack=f.SEED, finds=("driver-too-old",)),
    Composed(name="broken-cuda13-selected", make=cuda13_selected, stages=("build",),
             finds=("nvcc-differs-from-torch",)),
    Composed(name="broken-docker-without-gpus", make=docker_without_gpus, finds=("nvidia-runtime-missing",)),
    Composed(name="broken-docker-small-shm", make=docker_small_shm, finds=("shm-too-small",)),
    Composed(name="broken-driver-upgraded", make=module_and_library_differ, finds=("driver-library-differs",)),
    Composed(name="broken-compat-shadows", make=compat_shadows, finds=("cuda-compat-shadows-driver",)),
    Composed(name="broken-cudnn-shadowed", make=cudnn_shadowed, stack=f.SEED, finds=("cudnn-shadowed",)),
    Composed(name="broken-debian13-gcc14", make=debian13_gcc14, stages=("build",), finds=("gcc-too-new-for-nvcc",)),
    Composed(name="broken-flash-attn-abi", make=flash_attn_of_another_abi, finds=("cxx11-abi-differs",)),
    Composed(name="broken-login-node", make=login_node, finds=("driver-missing",)),
    Composed(name="broken-slurm-without-shm", make=lambda: f.lts(gpus=a100(4), resources=f.resources(shm_bytes=0)),
             finds=("shm-too-small",)),
    Composed(name="broken-v100", make=lambda: f.lts(gpus=(f.gpu("Tesla V100-SXM2-32GB", "7.0", 32),) * 8),
             finds=("gpu-too-old", "gpu-arch-not-built")),
    Composed(name="broken-b200", make=lambda: with_driver(f.lts(gpus=(f.gpu("NVIDIA B200", "10.0", 180),) * 8),
             "570.172.08", "12.8"), finds=("gpu-arch-not-built",)),
    Composed(name="broken-low-limits", make=low_limits, finds=("process-limit-low", "open-files-low")),
    Composed(name="broken-two-torches", make=two_torches, stack=f.SEED, finds=("metadata-damaged",)),
    Composed(name="broken-fabric-manager", make=lambda: hgx(active=False, state="in progress"), stack=f.SEED,
             finds=("fabric-manager-not-ready",)),
)  # fmt: skip


def main() -> None:
    """Write every host."""
    for host in HOSTS:
        path = DIRECTORY / host.name / "facts.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(documents.dumps(host.facts), encoding="utf-8")


if __name__ == "__main__":
    main()
