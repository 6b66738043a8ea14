"""Make the pins: from Debian's signed package index, by a private apt, or from the vendor's manifest."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from envcheck.errors import WorkError
from scripts import download, process
from scripts.toolchain_pins import Archive, Pins, SourceName

CUDA = "12.4"
DEBIAN_RELEASE = "trixie"
DEBIAN_PACKAGES = [
    "nvidia-cuda-toolkit",
    "nvidia-cuda-dev",
    "nvidia-profiler",
    "libcudart12",
    "libaccinj64-12.4",
    "libcuinj64-12.4",
    "libnvrtc12",
    "libnvrtc-builtins12.4",
    "libnvtoolsext1",
    "libnvvm4",
    "libcublas12",
    "libcublaslt12",
    "libnvblas12",
    "libcufft11",
    "libcufftw11",
    "libcurand10",
    "libcusolver11",
    "libcusolvermg11",
    "libcusparse12",
    "libnvfatbin12",
    "libnvjitlink12",
    "libnvjpeg12",
    "libcupti-dev",
    "libcupti12",
    "libnvidia-ml-dev",
    "libcu++-dev",
    "libcub-dev",
    "libthrust-dev",
]
GCC_RELEASE = "bullseye"
GCC_MAJOR = "10"
GCC_PACKAGES = [
    "binutils",
    "binutils-common",
    "binutils-x86-64-linux-gnu",
    "cpp-10",
    "g++-10",
    "gcc-10",
    "gcc-10-base",
    "libatomic1",
    "libbinutils",
    "libc6",
    "libc6-dev",
    "libcc1-0",
    "libcrypt-dev",
    "libcrypt1",
    "libctf-nobfd0",
    "libctf0",
    "libgcc-10-dev",
    "libgcc-s1",
    "libgmp10",
    "libgomp1",
    "libisl23",
    "libitm1",
    "libmpc3",
    "libmpfr6",
    "libquadmath0",
    "libstdc++-10-dev",
    "libstdc++6",
    "libzstd1",
    "linux-libc-dev",
    "zlib1g",
]
REDIST_RELEASE = "12.4.1"
REDIST_BASE = "https://developer.download.nvidia.com/compute/cuda/redist/"
REDIST_COMPONENTS = [
    "cuda_cccl",
    "cuda_cudart",
    "cuda_cuobjdump",
    "cuda_cupti",
    "cuda_cuxxfilt",
    "cuda_nvcc",
    "cuda_nvdisasm",
    "cuda_nvml_dev",
    "cuda_nvprof",
    "cuda_nvprune",
    "cuda_nvrtc",
    "cuda_nvtx",
    "cuda_profiler_api",
    "cuda_sanitizer_api",
    "libcublas",
    "libcufft",
    "libcurand",
    "libcusolver",
    "libcusparse",
    "libnvfatbin",
    "libnvjitlink",
    "libnvjpeg",
]
REDIST_PLATFORM = "linux-x86_64"
KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/etc/apt/trusted.gpg.d/debian-archive-keyring.gpg")


def debian(mirror: str) -> Pins:
    """Read the packages of the toolkit from a Debian mirror, whose signatures apt checks."""
    archives = _packages(mirror, DEBIAN_RELEASE, DEBIAN_PACKAGES)
    nvcc = next(item.version for item in archives if item.name == "nvidia-cuda-toolkit").partition("~")[0]
    return Pins(version=1, kind="debian", release=DEBIAN_RELEASE, cuda=CUDA, nvcc=nvcc, archive=archives)


def gcc(mirror: str) -> Pins:
    """Read the packages of the compiler; the oldest release that is served, so that it runs on most hosts."""
    archives = _packages(mirror, GCC_RELEASE, GCC_PACKAGES)
    version = next(item.version for item in archives if item.name == f"g++-{GCC_MAJOR}").partition("-")[0]
    return Pins(version=1, kind="gcc", release=GCC_RELEASE, gcc=version, archive=archives)


def _packages(mirror: str, release: str, names: Sequence[str]) -> tuple[Archive, ...]:
    with tempfile.TemporaryDirectory(prefix="envcheck-apt-") as directory:
        environ = {**os.environ, "APT_CONFIG": str(_apt(Path(directory), mirror, release))}
        process.output(["apt-get", "update", "-qq"], timeout=600, environ=environ)
        text = process.output(["apt-cache", "show", *names], environ=environ)
    archives = tuple(sorted(_archives(text), key=lambda item: item.name))
    lost = sorted(set(names) - {item.name for item in archives})
    if lost:
        raise WorkError(f"{mirror} has no {', '.join(lost)}", fix="name a mirror with contrib and non-free")
    return archives


def _apt(root: Path, mirror: str, release: str) -> Path:
    """Write an apt configuration of its own: sources, lists, state and cache all below ``root``."""
    keyring = next((path for path in KEYRINGS if os.path.exists(path)), None)
    if keyring is None:
        raise WorkError("Debian's archive keys are not on this host", fix="install debian-archive-keyring")
    for name in ("etc/preferences.d", "lists/partial", "cache/archives/partial", "state", "parts"):
        (root / name).mkdir(parents=True)
    (root / "status").touch()
    source = f"deb [signed-by={keyring}] {mirror} {release} main contrib non-free\n"
    (root / "sources.list").write_text(source, encoding="utf-8")
    config = root / "apt.conf"
    config.write_text(
        f'Dir "{root}";\nDir::Etc "{root}/etc";\nDir::Etc::sourcelist "{root}/sources.list";\n'
        f'Dir::Etc::sourceparts "{root}/parts";\nDir::Etc::parts "{root}/parts";\nDir::State "{root}/state";\n'
        f'Dir::State::lists "{root}/lists";\nDir::State::status "{root}/status";\nDir::Cache "{root}/cache";\n'
        'APT::Architecture "amd64";\nAPT::Architectures "amd64";\nAcquire::Languages "none";\n'
        'APT::Sandbox::User "root";\n',
        encoding="utf-8",
    )
    return config


def _archives(text: str) -> Iterator[Archive]:
    """Read what ``apt-cache show`` prints: paragraphs of ``Package: x``, ``Filename: pool/…``, ``SHA256: …``."""
    seen = set()
    for paragraph in text.strip().split("\n\n"):
        row = dict(re.findall(r"^(Package|Version|Filename|Size|SHA256): (.*)$", paragraph, re.MULTILINE))
        if len(row) == 5 and row["Package"] not in seen:  # noqa: PLR2004  # the five fields above
            seen.add(row["Package"])
            yield Archive(
                name=row["Package"],
                version=row["Version"],
                path=row["Filename"],
                size=int(row["Size"]),
                sha256=row["SHA256"],
            )


def redist(base: str = REDIST_BASE) -> Pins:
    """Read the archives of the toolkit from the vendor's manifest ``redistrib_12.4.1.json``."""
    url = f"{base.rstrip('/')}/redistrib_{REDIST_RELEASE}.json"
    try:
        return manifest(json.loads(download.text(url)))
    except (ValueError, KeyError, TypeError) as error:
        raise WorkError(f"{url} is not the manifest that was expected: {error!r}") from error


def manifest(document: dict[str, Any]) -> Pins:
    """Pick the components from the vendor's manifest."""
    rows = tuple(_component(name, document[name]) for name in REDIST_COMPONENTS)
    return Pins(
        version=1,
        kind="redist",
        release=document["release_label"],
        cuda=CUDA,
        nvcc=document["cuda_nvcc"]["version"],
        base=REDIST_BASE,
        archive=rows,
    )


def _component(name: str, entry: dict[str, Any]) -> Archive:
    file = entry[REDIST_PLATFORM]
    return Archive(
        name=name,
        version=entry["version"],
        path=file["relative_path"],
        size=int(file["size"]),
        sha256=file.get("sha256"),
    )


PINNERS: dict[SourceName, Callable[[str], Pins]] = {"debian": debian, "redist": redist, "gcc": gcc}
