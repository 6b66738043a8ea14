from __future__ import annotations

from collections.abc import Mapping

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Extension, Package
from envcheck.host import RecordedHost
from envcheck.probes import elf, loader
from tests import tiny_elf
from tests.test_probe_loader import NVIDIA, PACKAGES, PYTHON, SITE, SYSTEM, TORCH
from tests.tiny_elf import shared

ABI3 = f"{SITE}/sgl_kernel/common_ops.abi3.so"


def probe(
    name: str,
    files: Mapping[str, bytes],
    environ: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> Package:
    host = RecordedHost(
        files={"/venv/bin/python": shared(), **TORCH, **files}, environ=environ or {}, links=links or {}
    )
    packages = PACKAGES if name == "torch" else (*PACKAGES, Package(name=name, version="1.0", location=SITE))
    with loader.Processes(host, PYTHON, packages) as processes:
        return next(item for item in elf.probe(processes, packages) if item.name == name)


def extensions(name: str, files: Mapping[str, bytes]) -> tuple[Extension, ...]:
    return probe(name, files).extensions


def test_files_of_a_package_in_the_process_that_has_imported_torch() -> None:
    (found,) = extensions("sgl-kernel", {ABI3: shared(needed=["libcudart.so.12", "libtorch_cuda.so"])})
    assert (found.path, found.missing, found.python_abi) == (ABI3, (), "abi3")


def test_several_patterns_and_folders() -> None:
    files = {ABI3: shared(), f"{SITE}/sgl_kernel/sm90/a.so": shared(), f"{SITE}/sgl_kernel/sm90/a.py": b""}
    assert [item.path for item in extensions("sgl-kernel", files)] == [ABI3, f"{SITE}/sgl_kernel/sm90/a.so"]
    assert extensions("sgl-kernel", {}) == ()


def test_a_file_is_read_once_however_it_is_named() -> None:
    found = probe("sgl-kernel", {ABI3: shared()}, links={f"{SITE}/sgl_kernel/other.so": ABI3})
    assert len(found.extensions) == 1


def test_packages_that_are_not_in_the_list_are_left_alone() -> None:
    assert probe("requests", {f"{SITE}/requests/_C.so": shared()}).extensions == ()


def test_a_process_that_has_not_imported_torch() -> None:
    """The memory saver's hook is loaded by LD_PRELOAD, before torch brings libcudart."""
    path = f"{SITE}/torch_memory_saver_cpp.abi3.so"
    (found,) = extensions("torch-memory-saver", {path: shared(needed=["libcudart.so.12"])})
    assert found.missing == ("libcudart.so.12",)


def test_of_files_for_several_cuda_majors_torchs_is_read() -> None:
    names = ("torch_memory_saver_hook_mode_preload_cu12.abi3.so", "torch_memory_saver_hook_mode_preload_cu13.abi3.so")
    files = {f"{SITE}/{name}": shared() for name in names}
    assert [item.path for item in extensions("torch-memory-saver", files)] == [f"{SITE}/{names[0]}"]
    only_other = {f"{SITE}/{names[1]}": shared()}
    assert len(extensions("torch-memory-saver", only_other)) == 1


def test_libraries_that_the_package_loads_first() -> None:
    common = f"{SITE}/transformer_engine/wheel_lib/libtransformer_engine.so"
    module = f"{SITE}/transformer_engine/wheel_lib/transformer_engine_torch.cpython-310-x86_64-linux-gnu.so"
    files = {module: shared(undefined=["nvte_gelu", "nvte_gone"])}
    assert extensions("transformer-engine-torch", files)[0].undefined == ("nvte_gelu", "nvte_gone")
    files |= {common: shared(defined=["nvte_gelu"])}
    assert extensions("transformer-engine-torch", files)[0].undefined == ("nvte_gone",)


def test_libraries_of_cuda_that_the_package_opens_first() -> None:
    """TransformerEngine opens libnvrtc for all symbols and does not link it; of cuDNN it links the parts too."""
    common = f"{SITE}/transformer_engine/wheel_lib/libtransformer_engine.so"
    files = {
        f"{NVIDIA}/cuda_nvrtc/lib/libnvrtc.so.12": shared(soname="libnvrtc.so.12", defined=["nvrtcGetPTX"]),
        common: shared(needed=["libcudnn.so.9", "libcudnn_graph.so.9"], undefined=["nvrtcGetPTX", "nvrtcGone"]),
    }
    (found,) = extensions("transformer-engine-cu12", files)
    assert (found.missing, found.undefined) == (("libcudnn_graph.so.9",), ())
    (found,) = probe("transformer-engine-cu12", files, {"LD_LIBRARY_PATH": f"{NVIDIA}/cudnn/lib"}).extensions
    assert (found.missing, found.undefined) == ((), ("nvrtcGone",))


def test_archs_of_torch() -> None:
    path = f"{SITE}/torch/lib/libtorch_cuda.so"
    data = shared(soname="libtorch_cuda.so", sections={".nv_fatbin": tiny_elf.fatbin((2, 80, 0), (2, 90, 0))})
    found = probe("torch", {path: data})
    assert (found.archs, found.extensions) == (("8.0", "9.0"), ())
    assert probe("torch", {path: b"\x7fELF"}).archs == ()


def test_a_shadowed_library_is_checked_against_what_torch_needs_of_it() -> None:
    cusparse = f"{NVIDIA}/cusparse/lib/libcusparse.so.12"
    files = {
        f"{SITE}/torch/lib/libtorch_cuda.so": shared(
            soname="libtorch_cuda.so", needed=["libcusparse.so.12"], rpath="$ORIGIN/../../nvidia/cusparse/lib"
        ),
        cusparse: shared(
            soname="libcusparse.so.12",
            needed=["libnvJitLink.so.12"],
            runpath="$ORIGIN/../../nvjitlink/lib",
            undefined=["__nvJitLinkComplete_12_4"],
        ),
        f"{NVIDIA}/nvjitlink/lib/libnvJitLink.so.12": shared(
            soname="libnvJitLink.so.12", defined=["__nvJitLinkComplete_12_4"]
        ),
        "/old/libnvJitLink.so.12": shared(soname="libnvJitLink.so.12"),
    }
    assert probe("torch", files).extensions == ()
    (found,) = probe("torch", files, {"LD_LIBRARY_PATH": "/old"}).extensions
    assert (found.path, found.undefined) == (cusparse, ("__nvJitLinkComplete_12_4",))


@pytest.mark.parametrize("content", [b"", b"not ELF", b"\x7fELF"], ids=["empty", "text", "truncated"])
def test_what_cannot_be_read_is_unknown(content: bytes) -> None:
    (found,) = extensions("vllm", {f"{SITE}/vllm/_C.abi3.so": content})
    assert isinstance(found.glibc, Unknown)
    assert found.undefined == ()


def test_a_package_folder_without_bound_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "MAX_FILES", 2)
    files = {f"{SITE}/vllm/_{index}.so": shared() for index in range(5)}
    assert len(extensions("vllm", files)) == 2


def test_patterns_without_a_letter_to_match() -> None:
    host = RecordedHost(files={f"{SYSTEM}/a/b.so": b"", f"{SYSTEM}/a/c.so": b""})
    assert elf.find(host, SYSTEM, "a/b.so a/none.so none/*.so") == [f"{SYSTEM}/a/b.so"]
