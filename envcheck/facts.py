"""The facts document: what was read from one host, nothing judged. ``facts.schema.json`` describes its JSON form.

A value that could not be read is ``Unknown(why)``. A field that is None does not exist on this host (no container, a
CPU torch without CUDA, a package without local version). Sizes are bytes; versions are the strings that were read.
"""

from __future__ import annotations

from typing import Literal

from envcheck.codec import Unknown
from envcheck.record import dataclass, field

Text = str | Unknown
Number = int | Unknown
Flag = bool | Unknown
NO_HEADERS = "there is no Python.h in"
"""How the reason begins where it is known that an interpreter has no headers."""

STARTED_BY_OTHERS = Unknown("it depends on how a container of this image is started")
"""What stands for a fact of an image that its start decides: shared memory, limits, whether GPUs are given."""


@dataclass(frozen=True, kw_only=True)
class Os:
    """The operating system: /etc/os-release, uname, the C and C++ run-time libraries."""

    id: Text
    version: Text
    name: Text = ""
    like: tuple[str, ...] = ()
    kernel: Text
    machine: Text
    glibc: Text
    libstdcxx: Text
    """Highest GLIBCXX_* version of the system's libstdc++.so.6, for example ``3.4.30``."""
    user_id: int = 0
    wsl: bool = False


@dataclass(frozen=True, kw_only=True)
class Container:
    """The container this process runs in, where it does."""

    runtime: str
    """docker, podman, containerd, kubernetes, apptainer, lxc, unknown."""
    image: str | None = None
    nvidia_visible_devices: str | None = None
    start: tuple[str, ...] = ()
    """What the start of the container lacks or gives, as read (``--gpus`` absent …)."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Free space of one place that matters: ``role`` is tmp, cache, home, work, docker."""

    role: str
    path: str
    free_bytes: Number
    free_inodes: Number
    writable: Flag


@dataclass(frozen=True, kw_only=True)
class Resources:
    """CPUs usable by this process, memory and its cgroup limit, shared memory, disks, limits."""

    cpus: Number
    memory_bytes: Number
    memory_available_bytes: Number
    memory_limit_bytes: int | Unknown | None = None
    """Limit of the cgroup (v1 or v2); None: none."""
    swap_bytes: Number = 0
    shm_bytes: Number
    shm_free_bytes: int | Unknown | None = None
    """Of /dev/shm; None: a document that does not say it."""
    disks: tuple[Disk, ...] = ()
    max_processes: int | str | Unknown
    """Soft ``ulimit -u``; "unlimited" where there is none. Likewise the two below; locked memory is in bytes."""
    open_files: int | str | Unknown
    locked_memory: int | str | Unknown
    open_files_hard: int | str | Unknown | None = None
    """Hard ``ulimit -n``, up to which a process may raise its own; None in documents of before it was read."""
    tasks_limit: int | Unknown | None = None
    """Processes and threads that the cgroup allows (``pids.max``); None: no limit."""
    interfaces: tuple[str, ...] = ()
    """Network interfaces of this host or container; none: they were not read."""
    hostname_resolves: Text = "unknown"
    """The address that the host's own name resolves to."""
    jit_locks: tuple[str, ...] = ()
    """Lock files of just-in-time builds (flashinfer's cached_ops/*/lock) that no living process holds."""


@dataclass(frozen=True, kw_only=True)
class DriverLibrary:
    """One libcuda.so.1 or libnvidia-ml.so.1: ``kind`` is driver, compat or stub."""

    name: str
    path: str
    version: Text
    kind: Literal["driver", "compat", "stub"]
    loads: bool = False
    """True for the file that the loader takes."""


@dataclass(frozen=True, kw_only=True)
class FabricManager:
    """NVSwitch systems need the fabric manager, at exactly the driver's version."""

    nvswitch: Flag
    active: Flag
    version: Text
    state: Text = "not reported"
    """NVML's fabric state of the GPUs: completed, in progress, not supported …"""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The NVIDIA driver. ``version`` is the user-space library's, ``kernel_module`` that of the loaded module."""

    present: Flag
    version: str | Unknown | None = None
    cuda: str | Unknown | None = None
    """Highest CUDA version that the driver supports, as ``12.4``."""
    kernel_module: str | Unknown | None = None
    libraries: tuple[DriverLibrary, ...] = ()
    libcuda_symlink: Flag = False
    """An unversioned libcuda.so lies beside the libcuda.so.1 that loads (or in a linker directory)."""
    fabric_manager: FabricManager | None = None
    nvml_error: str | None = None
    device_nodes: tuple[str, ...] = ()
    char_symlinks: Flag = True
    """/dev/char holds links to the NVIDIA device nodes."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU; ``mig`` is disabled, enabled or the MIG profile of this instance."""

    name: Text
    compute_capability: Text
    memory_bytes: Number
    mig: Text = "disabled"
    uuid: str | None = None


@dataclass(frozen=True, kw_only=True)
class Toolkit:
    """One CUDA toolkit: ``path`` is its CUDA_HOME; ``source``: env, path, system, debian, cache, conda, module, pip."""

    path: str
    version: Text
    nvcc: str | Unknown | None = None
    """Path of nvcc, where the toolkit has one."""
    ptxas: str | Unknown | None = None
    """Version of its ptxas."""
    headers: Flag
    """cuda_runtime.h is there."""
    source: str
    selected: bool = False
    """A build started now would take this one; ``why`` says through what."""
    why: str = ""
    gcc_max: int | Unknown | None = None
    """Highest major GCC that crt/host_config.h accepts."""
    archs: tuple[str, ...] = ()
    """What ``nvcc --list-gpu-arch`` prints, as ``9.0``, where it was asked."""
    cmake: bool = False
    """CMake would take its nvcc: CUDACXX, then PATH; it does not read CUDA_HOME."""


@dataclass(frozen=True, kw_only=True)
class LibraryCopy:
    """One copy of cuDNN or NCCL; ``source``: pip, system, toolkit, env, conda, module."""

    kind: Literal["header", "library"]
    path: str
    version: Text
    source: str
    selected: bool = False
    why: str = ""
    symlink: Flag = True
    """Library: the unversioned .so that a linker wants lies beside it."""
    sublibraries: tuple[str, ...] = ()
    """cuDNN 8+: file names of the libcudnn_*.so.N that lie in the same directory."""


@dataclass(frozen=True, kw_only=True)
class Compiler:
    """One compiler: ``role`` is cc, cxx, cuda-host, cmake-cxx or other; ``selected`` where a build would take it."""

    role: str
    path: str
    family: str = "gcc"
    version: Text
    selected: bool = False
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One program that a build or a run needs."""

    name: str
    path: str
    version: Text
    works: Flag = True


@dataclass(frozen=True, kw_only=True)
class Python:
    """The target interpreter; ``environment`` is venv, conda or system."""

    executable: str
    version: Text
    abi: Text
    implementation: str = "cpython"
    environment: str = "system"
    prefix: str = ""
    conda_prefix: str | None = None
    include_dir: Text
    """Directory of Python.h; unknown where the headers are not installed."""
    site_packages: tuple[str, ...] = ()
    shadowed: tuple[str, ...] = ()
    """Names of packages that a folder of the working directory or PYTHONPATH shadows, as ``ray=/home/me/ray``."""
    paths: tuple[str, ...] = ()
    """PYTHONPATH entries."""


@dataclass(frozen=True, kw_only=True)
class Extension:
    """One binary (extension module or shared library) of a package, read from its bytes."""

    path: str
    needed: tuple[str, ...] = ()
    cxx11_abi: bool | Unknown | None = None
    """True: uses std::__cxx11 strings; False: the old ones; None: uses neither across its borders."""
    glibc: str | Unknown | None = None
    glibcxx: str | Unknown | None = None
    cxxabi: str | Unknown | None = None
    archs: tuple[str, ...] = ()
    """Of the CUDA fatbin: ``9.0``, ``9.0a`` for machine code, ``9.0+PTX`` for PTX."""
    undefined: tuple[str, ...] = ()
    """Mangled symbols that no library which the loader would take defines."""
    missing: tuple[str, ...] = ()
    """Needed libraries that the loader would not find."""
    cuda_major: int | Unknown | None = None
    machine: str | None = None
    python_abi: str | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a package came from (PEP 610 direct_url.json)."""

    url: str
    commit: str | None = None
    editable: bool = False


@dataclass(frozen=True, kw_only=True)
class Package:
    """One installed distribution. torch carries cuda, cxx11_abi, archs; binary packages carry extensions."""

    name: str
    """Normalised (PEP 503)."""
    version: Text
    installer: str | Unknown | None = None
    origin: Origin | None = None
    tag: str | Unknown | None = None
    """Wheel tag, as ``cp310-cp310-linux_x86_64``."""
    build: str | None = None
    """Local version label or build hint such as ``cu12torch2.6cxx11abiFALSE``."""
    location: str = ""
    requires: tuple[str, ...] = ()
    """Requires-Dist lines, verbatim."""
    damage: tuple[str, ...] = ()
    """What is wrong with its metadata: no RECORD, two dist-infos, files that are gone …"""
    modules: tuple[str, ...] = ()
    """Module files that rules ask for and that exist, as ``sglang.srt.entrypoints.verl_engine``."""
    summary: str | None = None
    home: str | None = None
    cuda: str | Unknown | None = None
    """torch: CUDA version it was built for; None: a CPU build."""
    cxx11_abi: bool | Unknown | None = None
    archs: tuple[str, ...] = ()
    built_for: dict[str, str] = field(default_factory=dict)
    """What a binary package says that it was built with: torch, cuda, te parts …"""
    extensions: tuple[Extension, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoaderEntry:
    """The file that one soname resolves to in a process of the target interpreter, and through what."""

    library: str
    path: Text
    through: str = ""
    """RPATH, RUNPATH, LD_PRELOAD, LD_LIBRARY_PATH, cache, default, loaded (by torch before)."""
    version: str | None = None
    wanted: str | None = None
    """The file that torch's own wheels would give, where another one wins."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One checkout of a component's source."""

    name: str
    path: str
    commit: Text
    submodules: dict[str, bool] = field(default_factory=dict)
    """Submodule path -> its files are there."""
    importable: bool = False
    """It is on PYTHONPATH or installed."""


@dataclass(frozen=True, kw_only=True)
class Docker:
    """The Docker engine, seen from the host."""

    engine: str | Unknown | None = None
    runtimes: tuple[str, ...] = ()
    cgroup_driver: str | Unknown | None = None
    snap: bool = False
    nvidia_ctk: str | Unknown | None = None
    buildx: str | Unknown | None = None
    cdi: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ray:
    """Ray processes and addresses that a new run would meet."""

    address: str | None = None
    """RAY_ADDRESS, or the address in /tmp/ray/ray_current_cluster."""
    running: Flag = False
    version: str | Unknown | None = None
    python: str | Unknown | None = None
    """Of the running cluster."""
    session_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """/etc/envcheck/manifest.json of an image: what it was built from."""

    stack: str
    packages: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a run that is about to start asks for, where one was named; read from its configuration."""

    nodes: int = 1
    gpus_per_node: int | None = None
    tensor_parallel: int = 1
    model: str | None = None
    """A path, or a name on the hub."""
    files: dict[str, Flag] = field(default_factory=dict)
    """Path of the model or a data file -> it is there and can be read."""
    loggers: tuple[str, ...] = ()
    memory_saver: bool = False
    hub_reachable: Flag = True
    cluster_gpus: Number | None = None
    """GPUs of the whole Ray cluster, where one runs."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that was read from one host."""

    version: int = 1
    collected: str = ""
    """UTC time, ISO 8601."""
    host: str = ""
    os: Os | Unknown
    container: Container | Unknown | None = None
    resources: Resources | Unknown
    environment: dict[str, str] = field(default_factory=dict)
    driver: Driver | Unknown
    gpus: tuple[Gpu, ...] | Unknown = ()
    toolkits: tuple[Toolkit, ...] | Unknown = ()
    cudnn: tuple[LibraryCopy, ...] | Unknown = ()
    nccl: tuple[LibraryCopy, ...] | Unknown = ()
    compilers: tuple[Compiler, ...] | Unknown = ()
    tools: tuple[Tool, ...] | Unknown = ()
    python: Python | Unknown
    packages: tuple[Package, ...] | Unknown = ()
    loader: tuple[LoaderEntry, ...] | Unknown = ()
    sources: tuple[Source, ...] | Unknown = ()
    docker: Docker | Unknown | None = None
    ray: Ray | Unknown | None = None
    manifest: Manifest | Unknown | None = None
    wish: Wish | None = None
