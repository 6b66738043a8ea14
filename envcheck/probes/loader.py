"""Which file each CUDA and C++ library resolves to in a process of the target interpreter that has imported torch."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import final

from envcheck import limits
from envcheck.binary import abi
from envcheck.binary.image import BinaryError
from envcheck.binary.ldso import Files, Library, Process
from envcheck.codec import Unknown
from envcheck.facts import LoaderEntry, Package, Python
from envcheck.host import Host

WATCHED = re.compile(
    r"lib(cudart|cublas|cublasLt|cudnn|nvrtc|nvJitLink|nccl|cusparse|cupti|cuda|stdc\+\+|numa)\.so\.\d+[\d.]*"
)
WHEELS = {
    "libcudart": "cuda-runtime",
    "libcublas": "cublas",
    "libcublasLt": "cublas",
    "libcudnn": "cudnn",
    "libnvrtc": "cuda-nvrtc",
    "libnvJitLink": "nvjitlink",
    "libnccl": "nccl",
    "libcusparse": "cusparse",
    "libcupti": "cuda-cupti",
}
"""Library -> middle of its wheel's name, as nvidia-cuda-runtime-cu12."""
PLAIN = ("libcuda.so.1", "libstdc++.so.6", "libnuma.so.1")
BY_CUDA_MAJOR = ("libcudart.so", "libnvrtc.so", "libnvJitLink.so", "libcublas.so")
CUDART_OF_WHEEL = "nvidia/cuda_runtime/lib/libcudart.so"
OPTIONAL_SUBLIBRARIES = ("libcudnn_engines_tensor_ir.so.9",)
"""Not in every cuDNN wheel; where one is missing, the system's is taken: https://github.com/pytorch/pytorch/issues/188892"""


@final
class Processes:
    """Processes of the target interpreter: a bare one, and one that has imported torch. Close it at the end."""

    def __init__(self, host: Host, python: Python, packages: Sequence[Package]) -> None:
        """Work nothing out yet."""
        self.host = host
        self.files = Files(host)
        self._python = python
        self.sites = tuple(dict.fromkeys([*python.site_packages, *(item.location for item in packages)]))
        self.torch = next((item for item in packages if item.name == "torch"), None)
        self.wheel_folders = [f"{site}/nvidia" for site in self.sites if site and host.exists(f"{site}/nvidia")]

    @cached_property
    def bare(self) -> Process:
        """The interpreter alone, with what LD_PRELOAD names."""
        return Process(self.files, self._python.executable, self.host.environ)

    @cached_property
    def with_torch(self) -> Process:
        """The interpreter after ``import torch``; the bare one where there is no torch."""
        if self.torch is None:
            return self.bare
        process = self.bare.branch()
        place = f"{self.torch.location}/torch"
        for path, everywhere in self._imported(place):
            library = process.load(path, everywhere=everywhere)
            if library is not None:
                self._preload(process, library)
            if everywhere:
                self._preload_by_path(process)
        return process

    def _imported(self, place: str) -> Iterator[tuple[str, bool]]:
        """Libraries in the order in which torch/__init__.py loads them."""
        yield f"{place}/lib/libtorch_global_deps.so", True
        modules = [name for name in self.host.listdir(place) if name.startswith("_C.") and name.endswith(".so")]
        yield (f"{place}/{modules[0]}" if modules else f"{place}/lib/libtorch_python.so"), False

    def _preload_by_path(self, process: Process) -> None:
        """Load what torch 2.6 and later load by path, where the CUDA run time comes from a wheel."""
        if self.torch is None or not any(CUDART_OF_WHEEL in library.path for library in process.libraries):
            return
        version = self.torch.version
        row = limits.load().first("torch-preload", torch=version) if isinstance(version, str) else None
        for name in row.give["libraries"].split() if row else ():
            path = self.in_wheels(name)
            if path:
                process.load(path, through="loaded")

    def _preload(self, process: Process, library: Library) -> None:
        """Load from the NVIDIA wheels what the loader does not find, as torch's _preload_cuda_deps does."""
        for need in library.closure():
            for name in [name for name, found in need.needs.items() if found is None]:
                path = self.of_wheel(name)
                need.needs[name] = process.load(path, through="loaded") if path else None

    def of_wheel(self, name: str) -> str | None:
        """File of a library in the NVIDIA wheels or in torch itself, if any."""
        return self._wheel_files.get(name)

    def open_first(self, process: Process, location: str, give: dict[str, str]) -> None:
        """Load for all symbols what a package opens before its extensions: see the head of limits/extensions.toml."""
        opens = (self.in_wheels(name) for name in give.get("opens", "").split())
        places = (f"{location}/{name}" for name in give.get("loads", "").split())
        own = next((path for path in places if self.host.exists(path)), None)
        for path in (*opens, own):
            if path is not None:
                process.load(path, everywhere=True)

    def in_wheels(self, name: str) -> str | None:
        """File of a library in the wheels by its name without a version: libnvrtc is libnvrtc.so.12 of cuda_nvrtc."""
        return next((path for file, path in self._wheel_files.items() if file.startswith(f"{name}.so.")), None)

    @cached_property
    def _wheel_files(self) -> dict[str, str]:
        places = [f"{folder}/{name}/lib" for folder in self.wheel_folders for name in self.host.listdir(folder)]
        if self.torch is not None:
            places.append(f"{self.torch.location}/torch/lib")
        found: dict[str, str] = {}
        for place in places:
            for name in self.host.listdir(place):
                if ".so" in name:
                    found.setdefault(name, f"{place}/{name}")
        return found

    def close(self) -> None:
        """Close all files."""
        self.files.close()

    def __enter__(self) -> Processes:
        """Close at the end of the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Close all files."""
        self.close()


def probe(processes: Processes, packages: Sequence[Package]) -> tuple[LoaderEntry, ...]:
    """Give an entry per library, what torch has loaded first; ``library`` is the name asked for: libcudart.so.12."""
    process = processes.with_torch
    loaded = {name: library for library in process.libraries if (name := _name(library)) and WATCHED.fullmatch(name)}
    entries = [_entry(processes, packages, name, library) for name, library in sorted(loaded.items())]
    for name, library in loaded.items():
        if name.startswith("libcudnn.so."):
            entries += _sublibraries(processes, packages, _with_users(processes, packages), library)
    for name in _lazily(processes):
        if name not in loaded:
            entries.append(_entry(processes, packages, name, process.branch().load(name)))
    return tuple(entries)


def _with_users(processes: Processes, packages: Sequence[Package]) -> Process:
    """Give a process in which packages that link cuDNN's parts themselves are loaded: their choice of a part stays."""
    rows = {name: row.give for row in limits.shipped("extensions").row for name in row.when if "opens" in row.give}
    process = processes.with_torch.branch()
    for item in packages:
        if item.name in rows:
            processes.open_first(process, item.location, rows[item.name])
    return process


def _name(library: Library) -> str:
    try:
        return (library.elf.soname if library.elf else "") or posixpath.basename(library.path)
    except BinaryError:
        return posixpath.basename(library.path)


def _lazily(processes: Processes) -> Iterator[str]:
    """Libraries that are opened by name when they are first used, or that extensions need."""
    yield from PLAIN
    cuda = processes.torch.cuda if processes.torch else None
    if isinstance(cuda, str):
        yield from (f"{name}.{cuda.partition('.')[0]}" for name in BY_CUDA_MAJOR)


def _sublibraries(
    processes: Processes, packages: Sequence[Package], process: Process, cudnn: Library
) -> Iterator[LoaderEntry]:
    """Parts of cuDNN 8 and later, which libcudnn.so opens by name: each may come from another place."""
    major = _name(cudnn).rpartition(".")[2]
    beside = [
        name for name in processes.host.listdir(cudnn.origin) if re.fullmatch(rf"libcudnn_\w+\.so\.{major}", name)
    ]
    for name in dict.fromkeys([*beside, *OPTIONAL_SUBLIBRARIES]):
        found = process.branch().load(name, loader=cudnn)
        if found is not None or name in beside:
            yield _entry(processes, packages, name, found)


def _entry(processes: Processes, packages: Sequence[Package], name: str, library: Library | None) -> LoaderEntry:
    wanted = processes.of_wheel(name)
    if library is None:
        return LoaderEntry(library=name, path=Unknown(f"{name} is not on the loader's path"), wanted=wanted)
    real = processes.host.realpath
    return LoaderEntry(
        library=name,
        path=posixpath.normpath(library.path),
        through=library.through,
        version=_version(processes, packages, name, library),
        wanted=wanted if wanted and real(wanted) != real(library.path) else None,
    )


def _version(processes: Processes, packages: Sequence[Package], name: str, library: Library) -> str | None:
    """Version by the wheel that brought the file, by GLIBCXX_* in libstdc++, or by the name of the file itself."""
    base, _, number = name.partition(".so.")
    if base == "libstdc++":
        try:
            return abi.highest(library.elf.defined_versions, "GLIBCXX") if library.elf else None
        except BinaryError:
            return None
    real = processes.host.realpath(library.path)
    folder = next((folder for folder in processes.wheel_folders if real.startswith(f"{folder}/")), None)
    if folder is not None:
        names = _wheel_names(base.partition("_")[0], number)
        found = next((item.version for item in packages if item.name in names), None)
        if isinstance(found, str):
            return found
    longer = posixpath.basename(real).partition(".so.")[2]
    return longer if "." in longer else None


def _wheel_names(base: str, number: str) -> tuple[str, ...]:
    part = WHEELS.get(base)
    if part is None:
        return ()
    majors = dict.fromkeys([number.partition(".")[0], "12", "13", "11"])
    return (*(f"nvidia-{part}-cu{major}" for major in majors), f"nvidia-{part}")
