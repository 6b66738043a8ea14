from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import LoaderEntry, Package, Python
from envcheck.host import RecordedHost
from envcheck.probes import loader
from tests.tiny_elf import shared

SITE = "/venv/lib/python3.10/site-packages"
NVIDIA = f"{SITE}/nvidia"
SYSTEM = "/usr/lib"
RPATH = "$ORIGIN/../../nvidia/cuda_runtime/lib:$ORIGIN/../../nvidia/cudnn/lib:$ORIGIN"


def library(soname: str, **changes: Any) -> bytes:
    return shared(soname=soname, **changes)


TORCH = {
    f"{SITE}/torch/lib/libtorch_global_deps.so": library(
        "libtorch_global_deps.so", needed=["libcudart.so.12"], rpath=RPATH
    ),
    f"{SITE}/torch/_C.cpython-310-x86_64-linux-gnu.so": shared(needed=["libtorch_cuda.so"], rpath="$ORIGIN/lib"),
    f"{SITE}/torch/lib/libtorch_cuda.so": library(
        "libtorch_cuda.so", needed=["libcudnn.so.9", "libstdc++.so.6"], rpath=RPATH
    ),
    f"{NVIDIA}/cuda_runtime/lib/libcudart.so.12": library("libcudart.so.12"),
    f"{NVIDIA}/cuda_nvrtc/lib/libnvrtc.so.12": library("libnvrtc.so.12"),
    f"{NVIDIA}/cudnn/lib/libcudnn.so.9": library("libcudnn.so.9", runpath="$ORIGIN"),
    f"{NVIDIA}/cudnn/lib/libcudnn_ops.so.9": library("libcudnn_ops.so.9"),
    f"{NVIDIA}/cudnn/lib/libcudnn_graph.so.9": library("libcudnn_graph.so.9"),
    f"{SYSTEM}/libstdc++.so.6": library("libstdc++.so.6", defined_versions=["GLIBCXX_3.4.9", "GLIBCXX_3.4.30"]),
    f"{SYSTEM}/libcuda.so.550.54.15": library("libcuda.so.1"),
}
LINKS = {f"{SYSTEM}/libcuda.so.1": f"{SYSTEM}/libcuda.so.550.54.15"}
PACKAGES = (
    Package(name="nvidia-cuda-runtime-cu12", version="12.4.127", location=SITE),
    Package(name="nvidia-cudnn-cu12", version="9.1.0.70", location=SITE),
    Package(name="torch", version="2.5.1", cuda="12.4", location=SITE),
)
PYTHON = Python(
    executable="/venv/bin/python", version="3.10.13", abi="cp310", include_dir="/usr/include", site_packages=(SITE,)
)


def entries(
    files: Mapping[str, bytes] | None = None,
    packages: tuple[Package, ...] = PACKAGES,
    environ: Mapping[str, str] | None = None,
) -> dict[str, LoaderEntry]:
    host = RecordedHost(
        files={"/usr/bin/python3.10": shared(), **TORCH, **(files or {})},
        links={"/venv/bin/python": "/usr/bin/python3.10", **LINKS},
        environ=environ or {},
    )
    with loader.Processes(host, PYTHON, packages) as processes:
        return {entry.library: entry for entry in loader.probe(processes, packages)}


def test_torchs_own_libraries() -> None:
    found = entries()
    assert found["libcudart.so.12"] == LoaderEntry(
        library="libcudart.so.12",
        path=f"{NVIDIA}/cuda_runtime/lib/libcudart.so.12",
        through="RPATH",
        version="12.4.127",
    )
    assert found["libcudnn.so.9"].version == "9.1.0.70"
    assert (found["libcudnn_ops.so.9"].through, found["libcudnn_ops.so.9"].version) == ("RUNPATH", "9.1.0.70")
    assert found["libstdc++.so.6"].version == "3.4.30"
    assert found["libcuda.so.1"].version == "550.54.15"
    assert all(entry.wanted is None for name, entry in found.items() if name != "libnvrtc.so.12" and entry.wanted)


def test_a_library_that_only_a_wheel_has_is_not_on_the_path() -> None:
    """As sgl_kernel meets it: nvrtc's wheel is installed and the loader does not look there."""
    found = entries()["libnvrtc.so.12"]
    assert found.path == Unknown("libnvrtc.so.12 is not on the loader's path")
    assert found.wanted == f"{NVIDIA}/cuda_nvrtc/lib/libnvrtc.so.12"
    assert entries()["libnuma.so.1"].wanted is None


def test_a_sublibrary_of_cudnn_from_elsewhere() -> None:
    files = {"/opt/lib/libcudnn_ops.so.9": library("libcudnn_ops.so.9")}
    found = entries(files, environ={"LD_LIBRARY_PATH": "/opt/lib"})
    shadowed = found["libcudnn_ops.so.9"]
    assert (shadowed.path, shadowed.through) == ("/opt/lib/libcudnn_ops.so.9", "LD_LIBRARY_PATH")
    assert shadowed.wanted == f"{NVIDIA}/cudnn/lib/libcudnn_ops.so.9"
    assert shadowed.version is None
    assert found["libcudnn.so.9"].wanted is None


def test_a_sublibrary_that_a_package_links_comes_from_where_that_package_finds_it() -> None:
    """Seen on a host with a system cuDNN 9.14 beside the wheel's 9.1: who loads a part first decides for all."""
    name = "libcudnn_graph.so.9"
    core = f"{SITE}/transformer_engine/wheel_lib/libtransformer_engine.so"
    files = {f"{SYSTEM}/{name}": library(name), core: shared(needed=["libcudnn.so.9", name])}
    assert entries(files)[name].path == f"{NVIDIA}/cudnn/lib/{name}"
    te = Package(name="transformer-engine", version="2.2.0", location=SITE)
    found = entries(files, (*PACKAGES, te))
    assert (found[name].path, found[name].wanted) == (f"{SYSTEM}/{name}", f"{NVIDIA}/cudnn/lib/{name}")
    assert found["libcudnn_ops.so.9"].path == f"{NVIDIA}/cudnn/lib/libcudnn_ops.so.9"


def test_a_sublibrary_that_only_the_system_has() -> None:
    name = "libcudnn_engines_tensor_ir.so.9"
    assert name not in entries()
    assert entries({f"{SYSTEM}/{name}": library(name)})[name].through == "default"


def test_libraries_that_torch_loads_from_the_wheels_by_itself() -> None:
    """Without RPATH, torch/__init__.py loads them by path, and what needs them finds them loaded."""
    files = {
        f"{SITE}/torch/lib/libtorch_global_deps.so": shared(needed=["libcudart.so.12", "libgone.so"]),
        f"{SITE}/torch/lib/libtorch_cuda.so": library("libtorch_cuda.so", needed=["libcudart.so.12"]),
    }
    found = entries(files)["libcudart.so.12"]
    assert (found.path, found.through) == (f"{NVIDIA}/cuda_runtime/lib/libcudart.so.12", "loaded")


@pytest.mark.parametrize(
    ("version", "cudart", "expected"),
    [
        ("2.6.0", RPATH, f"{NVIDIA}/nvjitlink/lib/libnvJitLink.so.12"),
        ("2.5.1", RPATH, "/old/libnvJitLink.so.12"),
        ("2.6.0", SYSTEM, "/old/libnvJitLink.so.12"),
        (Unknown("no METADATA"), RPATH, "/old/libnvJitLink.so.12"),
    ],
    ids=["by-path", "older", "not-from-wheels", "unknown"],
)
def test_what_torch_loads_by_path_is_not_hidden(version: str | Unknown, cudart: str, expected: str) -> None:
    first = f"{SITE}/torch/lib/libtorch_global_deps.so"
    files = {
        f"{NVIDIA}/nvjitlink/lib/libnvJitLink.so.12": library("libnvJitLink.so.12"),
        f"{NVIDIA}/cusparse/lib/libcusparse.so.12": library("libcusparse.so.12", needed=["libnvJitLink.so.12"]),
        "/old/libnvJitLink.so.12": library("libnvJitLink.so.12"),
        f"{SITE}/torch/lib/libtorch_cuda.so": library(
            "libtorch_cuda.so", needed=["libcusparse.so.12"], rpath=f"{NVIDIA}/cusparse/lib"
        ),
        f"{SYSTEM}/libcudart.so.12": library("libcudart.so.12"),
        first: library("libtorch_global_deps.so", needed=["libcudart.so.12"], rpath=cudart),
    }
    packages = (*PACKAGES[:2], Package(name="torch", version=version, cuda="12.4", location=SITE))
    found = entries(files, packages, {"LD_LIBRARY_PATH": "/old"})
    assert found["libnvJitLink.so.12"].path == expected


def test_the_new_layout_of_cuda_13() -> None:
    packages = (
        Package(name="nvidia-cuda-runtime", version="13.0.96", location=SITE),
        Package(name="torch", version="2.11.0", cuda="13.0", location=SITE),
    )
    files = {
        f"{SITE}/torch/lib/libtorch_global_deps.so": shared(
            needed=["libcudart.so.13"], rpath="$ORIGIN/../../nvidia/cu13/lib"
        ),
        f"{NVIDIA}/cu13/lib/libcudart.so.13": library("libcudart.so.13"),
    }
    assert entries(files, packages)["libcudart.so.13"].version == "13.0.96"


def test_without_torch_only_the_plain_libraries_are_asked_for() -> None:
    found = entries(packages=())
    assert sorted(found) == ["libcuda.so.1", "libnuma.so.1", "libstdc++.so.6"]
    assert found["libcuda.so.1"].through == "default"


def test_a_torch_without_its_extension_module() -> None:
    host = RecordedHost(
        files={"/venv/bin/python": shared(), f"{SITE}/torch/lib/libtorch_python.so": shared(needed=["libnccl.so.2"])}
    )
    with loader.Processes(host, PYTHON, PACKAGES) as processes:
        found = {entry.library: entry.path for entry in loader.probe(processes, PACKAGES)}
    assert found["libcudart.so.12"] == Unknown("libcudart.so.12 is not on the loader's path")


@pytest.mark.parametrize("damage", ["soname", "versions"])
def test_damaged_libraries_have_a_path_and_no_version(damage: str) -> None:
    body = bytearray(TORCH[f"{SYSTEM}/libstdc++.so.6"])
    if damage == "soname":
        body[120:124] = b"\x06\0\0\0"
    else:
        at = body.index(b"GLIBCXX_3.4.9\0")
        body = body[:at] + b"\xff" * 30 + body[at + 30 :]
    found = entries({f"{SYSTEM}/libstdc++.so.6": bytes(body)})["libstdc++.so.6"]
    assert found.path == f"{SYSTEM}/libstdc++.so.6"


def test_a_libstdcxx_that_is_no_library() -> None:
    found = entries({f"{SYSTEM}/libstdc++.so.6": b"\x7fELF"})["libstdc++.so.6"]
    assert (found.path, found.version) == (f"{SYSTEM}/libstdc++.so.6", None)


def test_preloaded_libraries_are_said_to_be() -> None:
    files = {"/opt/libcudart.so.12": library("libcudart.so.12")}
    found = entries(files, environ={"LD_PRELOAD": "/opt/libcudart.so.12"})["libcudart.so.12"]
    assert (found.path, found.through) == ("/opt/libcudart.so.12", "LD_PRELOAD")
    assert found.wanted == f"{NVIDIA}/cuda_runtime/lib/libcudart.so.12"


def test_a_wheel_of_another_vendor_gives_no_version() -> None:
    """libcuda in a folder of the NVIDIA wheels: no wheel is known for it."""
    files = {f"{NVIDIA}/compat/lib/libcuda.so.1": library("libcuda.so.1")}
    found = entries(files, environ={"LD_LIBRARY_PATH": f"{NVIDIA}/compat/lib"})["libcuda.so.1"]
    assert (found.path, found.version) == (f"{NVIDIA}/compat/lib/libcuda.so.1", None)
