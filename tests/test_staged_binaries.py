"""Binaries staged with g++ alone: the wheel, the loader's own words and the doctor are held against each other."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from envcheck.binary import wheel as wheels
from tests import staged
from tests.staged import BORDER, SUFFIX, TAG, Staged

pytestmark = [pytest.mark.toolchain, pytest.mark.skipif(staged.GXX is None, reason="no g++")]
NEW, OLD = "-D_GLIBCXX_USE_CXX11_ABI=1", "-D_GLIBCXX_USE_CXX11_ABI=0"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Staged:
    """An environment with a torch of the old C++ ABI, as 2.6.0+cu124 has it."""
    made = staged.environment(tmp_path_factory.mktemp("staged"))
    made.torch("2.6.0+cu124", abi=False)
    return made


def test_a_wheel_whose_name_lies(tmp_path: Path, base: Staged) -> None:
    """flash-attn 2.8 names wheels cxx11abiFALSE that carry the new ABI."""
    module = f"flash_attn_2_cuda{SUFFIX}"
    content = staged.shared(tmp_path / module, BORDER, NEW, str(base.site / "torch/lib/libc10.so")).read_bytes()
    name = f"flash_attn-2.8.0.post2+cu12torch2.6cxx11abiFALSE-{TAG}-{TAG}-linux_x86_64.whl"
    made = staged.wheel(tmp_path / name, {module: content, "flash_attn/__init__.py": b"import flash_attn_2_cuda\n"})
    found = wheels.verify(made, cxx11_abi=False, torch_libs=base.site / "torch/lib", python_tag=TAG)
    assert "the C++ ABI is not torch's; its name says cxx11abiFALSE" in {item.summary for item in found}
    with zipfile.ZipFile(made) as archive:
        archive.extractall(base.site)
    (wrong,) = base.judged("cxx11-abi-differs")
    assert (wrong["subject"], wrong["outcome"]) == ("flash-attn", "error")
    assert wrong["summary"].endswith("cxx11abiFALSE, lies")
    done = staged.ran(base.python, "-c", "import torch, flash_attn")
    assert "undefined symbol: _ZN3c106detail14torchCheckFail" in done.stderr
    explained = base.explained(done.stderr)[0]
    assert (explained["rule"], explained["confirmed"]) == ("cxx11-abi-differs", True)
    assert "torchCheckFail" in explained["found"]
    assert explained["fix"][0]["commands"]


def test_an_extension_of_torchs_own_abi_is_no_fault(tmp_path: Path) -> None:
    base = staged.environment(tmp_path)
    base.torch("2.6.0+cu124", abi=False)
    base.dist("vllm", "0.8.5.post1", tag=f"{TAG}-abi3-manylinux1_x86_64")
    module = staged.shared(base.site / "vllm" / "_C.abi3.so", BORDER, OLD, str(base.site / "torch/lib/libc10.so"))
    assert base.judged("cxx11-abi-differs", "undefined-symbol", "extension-built-for-other-torch") == []
    assert base.loads(module).returncode == 0


@pytest.mark.parametrize(
    ("library", "version", "rule"),
    [("libm.so.6", "GLIBC_2.99", "glibc-too-old"), ("libstdc++.so.6", "GLIBCXX_3.4.99", "libstdcxx-too-old")],
)
def test_a_floor_that_is_too_high(tmp_path: Path, library: str, version: str, rule: str) -> None:
    """The platform tag promises manylinux_2_17, the bytes need a library that no system has."""
    base = staged.environment(tmp_path / "env")
    base.torch("2.6.0+cu124", abi=False)
    newer = staged.versioned(tmp_path / "newer" / library, {"of_the_future": version})
    module = staged.needing(tmp_path / f"flash_attn_2_cuda{SUFFIX}", newer, "of_the_future")
    name = f"flash_attn-2.7.4.post1-{TAG}-{TAG}-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    made = staged.wheel(tmp_path / name, {module.name: module.read_bytes()})
    found = wheels.verify(made, glibc_max="2.36", glibcxx_max="3.4.30")
    assert [item for item in found if version in item.found and item.severity == "error"]
    with zipfile.ZipFile(made) as archive:
        archive.extractall(base.site)
    (wrong,) = base.judged(rule)
    assert (wrong["subject"], wrong["outcome"]) == ("flash-attn", "error")
    done = base.loads(base.site / module.name)
    assert f"version `{version}' not found" in done.stderr
    explained = base.explained(done.stderr)[0]
    assert (explained["rule"], explained["confirmed"]) == (rule, True)


CUDNN = """
#include <dlfcn.h>
extern "C" long cudnnGetVersion() { return %d; }
extern "C" long part() {
  void* graph = dlopen("libcudnn_graph.so.9", RTLD_NOW);
  return graph ? ((long (*)())dlsym(graph, "version_of_part"))() : -1;
}
"""
PART = 'extern "C" long version_of_part() { return %d; }'


def cudnn(lib: Path, version: int) -> Path:
    """Make a cuDNN 9: one library that is linked, which opens its parts by name."""
    staged.shared(lib / "libcudnn_graph.so.9", PART % version)
    return staged.shared(lib / "libcudnn.so.9", CUDNN % version, "-Wl,--enable-new-dtags,-rpath,$ORIGIN")


def numbered(lib: Path, version: str) -> None:
    """Name the files as NVIDIA's archives do: libcudnn.so.9 is a link to libcudnn.so.9.2.0."""
    for path in sorted(lib.glob("*.so.9")):
        path.rename(f"{path.with_suffix('')}.{version}")
        path.symlink_to(f"{path.with_suffix('').name}.{version}")


@pytest.fixture
def cuda(tmp_path: Path) -> Staged:
    """NVIDIA's wheels under torch: it finds them by RPATH, they find each other by RUNPATH, which comes later."""
    base = staged.environment(tmp_path / "env")
    nvidia = base.site / "nvidia"
    link = staged.versioned(
        nvidia / "nvjitlink/lib/libnvJitLink.so.12", {"__nvJitLinkComplete_12_4": "libnvJitLink.so.12"}
    )
    runpath = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../../nvjitlink/lib"
    sparse = staged.needing(nvidia / "cusparse/lib/libcusparse.so.12", link, "__nvJitLinkComplete_12_4", runpath)
    base.torch("2.6.0+cu124", abi=False, needs=(sparse, cudnn(nvidia / "cudnn/lib", 90100)))
    for name, version in (("nvjitlink", "12.4.127"), ("cudnn", "9.1.0.70"), ("cusparse", "12.3.1.170")):
        base.dist(f"nvidia-{name}-cu12", version)
    return base


def test_nothing_is_shadowed_without_ld_library_path(cuda: Staged) -> None:
    assert staged.ran(cuda.python, "-c", "import torch", LD_LIBRARY_PATH="").returncode == 0
    rules = ("ld-library-path-shadows-torch", "cudnn-shadowed", "cudnn-mixed", "undefined-symbol")
    assert cuda.judged(*rules, LD_LIBRARY_PATH="") == []


def test_an_older_nvjitlink_goes_before_torchs_own(tmp_path: Path, cuda: Staged) -> None:
    old = tmp_path / "cuda-12.1" / "lib64"
    staged.versioned(old / "libnvJitLink.so.12", {"__nvJitLinkComplete_12_1": "libnvJitLink.so.12"})
    done = staged.ran(cuda.python, "-c", "import torch", LD_LIBRARY_PATH=str(old))
    assert "__nvJitLinkComplete_12_4" in done.stderr
    found = cuda.judged("ld-library-path-shadows-torch", LD_LIBRARY_PATH=str(old))
    assert [item for item in found if item["outcome"] == "error" and str(old) in item["found"]]
    explained = cuda.explained(done.stderr, LD_LIBRARY_PATH=str(old))[0]
    assert (explained["rule"], explained["confirmed"]) == ("ld-library-path-shadows-torch", True)
    assert str(old) in explained["found"]


@pytest.mark.parametrize("outcome", ["error", "warning"])
def test_a_part_of_cudnn_comes_from_another_version(tmp_path: Path, cuda: Staged, outcome: str) -> None:
    """An error where the name tells the other version, else a warning."""
    other = tmp_path / "cudnn" / "lib"
    cudnn(other, 90200)
    if outcome == "error":
        numbered(other, "9.2.0")
    code = "import torch, ctypes; dnn = ctypes.CDLL('libcudnn.so.9'); print(dnn.cudnnGetVersion(), dnn.part())"
    assert staged.ran(cuda.python, "-c", code, LD_LIBRARY_PATH="").stdout == "90100 90100\n"
    assert staged.ran(cuda.python, "-c", code, LD_LIBRARY_PATH=str(other)).stdout == "90100 90200\n"
    (found,) = cuda.judged("cudnn-mixed", "cudnn-shadowed", LD_LIBRARY_PATH=str(other))
    assert (found["rule"], found["outcome"]) == ("cudnn-mixed", outcome)
    assert str(other) in found["found"]
    assert "LD_LIBRARY_PATH" in found["fix"][0]["text"]


def test_another_cudnn_is_preloaded(tmp_path: Path, cuda: Staged) -> None:
    other = cudnn(tmp_path / "cudnn", 90200)
    numbered(other.parent, "9.2.0")
    code = "import torch, ctypes; print(ctypes.CDLL('libcudnn.so.9').cudnnGetVersion())"
    assert staged.ran(cuda.python, "-c", code, LD_PRELOAD=str(other)).stdout == "90200\n"
    (found,) = cuda.judged("cudnn-shadowed", LD_PRELOAD=str(other))
    assert str(other.parent) in found["found"]
    assert "9.1.0.70" in found["expected"]
