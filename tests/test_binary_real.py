"""Binaries staged for real: compiled here, loaded by the real loader, and judged the same without loading."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from envcheck.binary import abi, fatbin
from envcheck.binary.elf import Elf
from envcheck.binary.image import open_image
from envcheck.binary.ldso import Files, Process
from envcheck.binary.symbols import demangled
from envcheck.facts import Facts
from envcheck.host import LocalHost
from envcheck.model import Outcome
from envcheck.probes import elf, loader
from envcheck.probes.collection import collect
from tests import factories as make
from tests.verl_environments import TORCH_PYTHONS

GXX = shutil.which("g++")
NVCC = shutil.which("nvcc")
KEYS = frozenset({"os", "python", "packages", "loader", "environment"})
BORDER = """
#include <string>
namespace c10 { struct Error { Error(std::string const&, int); }; void check(std::string); }
extern "C" int PyInit_border() { c10::check("x"); throw c10::Error("x", 1); }
"""


def run(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environ})


def compile_shared(place: Path, name: str, text: str, *options: str) -> Path:
    assert GXX
    source, output = place / f"{name}.cpp", place / name
    source.write_text(text)
    done = run(GXX, "-shared", "-fPIC", str(source), "-o", str(output), *options)
    assert done.returncode == 0, done.stderr
    return output


needs_gxx = pytest.mark.skipif(GXX is None, reason="no g++")


@needs_gxx
@pytest.mark.toolchain
@pytest.mark.parametrize("new", [True, False])
def test_abi_of_what_gcc_compiles(tmp_path: Path, new: bool) -> None:
    path = compile_shared(tmp_path, "border.so", BORDER, f"-D_GLIBCXX_USE_CXX11_ABI={int(new)}")
    with open_image(LocalHost(), str(path)) as image:
        found = Elf(image)
        assert abi.cxx11_abi(found.undefined()) is new
        assert "libstdc++.so.6" in found.needed
        assert abi.floor(found.needs, "GLIBC")


@needs_gxx
@pytest.mark.toolchain
@pytest.mark.parametrize("tags", ["--disable-new-dtags", "--enable-new-dtags"])
@pytest.mark.parametrize("env", ["", "env"])
def test_the_loader_takes_what_is_worked_out(tmp_path: Path, tags: str, env: str) -> None:
    """RPATH goes before LD_LIBRARY_PATH and RUNPATH after it; ldd, which asks the real loader, agrees."""
    for folder in ("path", "env"):
        (tmp_path / folder).mkdir()
        compile_shared(tmp_path / folder, "liba.so", "int a() { return 1; }", "-Wl,-soname,liba.so")
    options = ("-L", str(tmp_path / "path"), "-la", "-Wl,--no-as-needed", f"-Wl,{tags},-rpath,$ORIGIN/path")
    path = compile_shared(tmp_path, "ext.so", "int a(); int b() { return a(); }", *options)
    environ = {"LD_LIBRARY_PATH": str(tmp_path / env)} if env else {"LD_LIBRARY_PATH": ""}
    said = run("ldd", str(path), **environ).stdout
    theirs = dict(re.findall(r"^\s*(\S+) => (\S+)", said, re.MULTILINE))
    files = Files(LocalHost())
    library = Process(files, sys.executable, environ).load(str(path))
    assert library is not None
    ours = {name: need.path for name, need in library.needs.items() if need}
    assert {name: os.path.realpath(file) for name, file in ours.items()} == {
        name: os.path.realpath(theirs[name]) for name in ours
    }
    files.close()


@needs_gxx
@pytest.mark.toolchain
def test_floors_are_those_of_the_compilers_own_listing(tmp_path: Path) -> None:
    path = compile_shared(tmp_path, "border.so", BORDER)
    said = run("objdump", "-T", str(path)).stdout
    with open_image(LocalHost(), str(path)) as image:
        found = Elf(image)
        for family in ("GLIBC", "GLIBCXX", "CXXABI"):
            versions = re.findall(rf"\b{family}_[\d.]+", said)
            assert abi.floor(found.needs, family) == abi.highest(versions, family)


@pytest.mark.toolchain
@pytest.mark.skipif(shutil.which("c++filt") is None, reason="no c++filt")
def test_names_are_demangled_as_binutils_does() -> None:
    for symbol in ("_ZN3c104cuda9SetDeviceEi", "_ZTVN5torch8autograd4NodeE", "_ZN3c1021throwNullDataPtrErrorEv"):
        assert demangled(symbol) == run("c++filt", symbol).stdout.strip()


@pytest.mark.toolchain
@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize("compress", [(), ("-Xfatbin", "-compress-all")], ids=["plain", "compressed"])
def test_archs_of_what_nvcc_compiles(tmp_path: Path, compress: Sequence[str]) -> None:
    assert NVCC
    (tmp_path / "k.cu").write_text(
        "__global__ void k(float* a) { a[threadIdx.x] *= 2.f; }\nvoid go() { k<<<1, 1>>>(0); }"
    )
    targets = [
        ("compute_80", "sm_80"),
        ("compute_90a", "sm_90a"),
        ("compute_90", "sm_90"),
        ("compute_90", "compute_90"),
    ]
    options = [word for arch, code in targets for word in ("-gencode", f"arch={arch},code={code}")]
    output = str(tmp_path / "k.so")
    done = run(NVCC, "-Xcompiler", "-fPIC", "-shared", *options, *compress, str(tmp_path / "k.cu"), "-o", output)
    assert done.returncode == 0, done.stderr
    with open_image(LocalHost(), output) as image:
        assert fatbin.archs(Elf(image)) == ("8.0", "9.0", "9.0a", "9.0+PTX")


def environment(python: str, **environ: str) -> Facts:
    host = LocalHost(environ={**os.environ, **environ})
    return collect(host, python=python, only=KEYS)


def of_package(facts: Facts, name: str) -> list[Outcome]:
    return [
        outcome
        for rule in ("extension-built-for-other-torch", "cxx11-abi-differs", "undefined-symbol", "glibc-too-old")
        for outcome in make.outcomes(rule, facts)
        if outcome.subject == name and outcome.outcome in {"error", "warning"}
    ]


@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
def test_no_error_in_a_real_environment(python: str) -> None:
    facts = environment(python, LD_LIBRARY_PATH="")
    for rule in ("extension-built-for-other-torch", "cxx11-abi-differs", "undefined-symbol", "libstdcxx-too-old"):
        assert [item for item in make.outcomes(rule, facts) if item.outcome in {"error", "crashed"}] == []


@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
def test_torch_resolves_as_ldd_says(python: str) -> None:
    host = LocalHost(environ={**os.environ, "LD_LIBRARY_PATH": ""})
    facts = environment(python, LD_LIBRARY_PATH="")
    torch = next(item for item in facts.packages if item.name == "torch")  # type: ignore[union-attr]
    module = next(Path(f"{torch.location}/torch").glob("_C.cpython*.so"))
    said = run("ldd", str(module), LD_LIBRARY_PATH="").stdout
    theirs = {name: os.path.realpath(path) for name, path in re.findall(r"^\s*(\S+) => (/\S+)", said, re.MULTILINE)}
    files = Files(host)
    process = Process(files, python, host.environ)
    library = process.load(str(module))
    assert library is not None
    ours = {os.path.realpath(item.path) for item in library.closure()}
    assert {path for name, path in theirs.items() if not name.startswith("libutil")} <= ours | {
        os.path.realpath(item.path) for item in process.libraries
    }
    files.close()


@needs_gxx
@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
@pytest.mark.parametrize("new", [True, False])
def test_an_extension_of_the_other_abi_is_named_and_does_not_load(tmp_path: Path, python: str, new: bool) -> None:
    """Compiled against the real headers of torch with either ABI; the verdict and the real import agree."""
    facts = environment(python, LD_LIBRARY_PATH="")
    torch = next(item for item in facts.packages if item.name == "torch")  # type: ignore[union-attr]
    place = f"{torch.location}/torch"
    site = tmp_path / "site"
    (site / "vllm-1.0.dist-info").mkdir(parents=True)
    (site / "vllm-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 1.0\n\n")
    (site / "vllm").mkdir()
    text = '#include <c10/util/Exception.h>\nextern "C" int go(int n) { TORCH_CHECK(n > 0, "n is ", n); return n; }'
    options = ("-std=c++17", "-I", f"{place}/include", "-L", f"{place}/lib", "-lc10", "-ltorch_cpu")
    flag = f"-D_GLIBCXX_USE_CXX11_ABI={int(new)}"
    path = compile_shared(site / "vllm", "_C.abi3.so", text, *options, flag)
    packages = (*facts.packages, make.package("vllm", "1.0", location=str(site)))  # type: ignore[misc]
    with loader.Processes(LocalHost(environ={**os.environ, "LD_LIBRARY_PATH": ""}), facts.python, packages) as found:  # type: ignore[arg-type]
        read = elf.probe(found, packages)
    judged = of_package(make.having(facts, *(item for item in read if item.name == "vllm")), "vllm")
    done = run(python, "-c", f"import torch, ctypes; ctypes.CDLL({str(path)!r})", LD_LIBRARY_PATH="")
    assert [item.outcome for item in judged] == ([] if torch.cxx11_abi is new else ["error", "error"])
    assert (done.returncode == 0) is (torch.cxx11_abi is new), done.stderr
    if judged:
        assert judged[0].rule == "cxx11-abi-differs"
        symbol = re.search(r"undefined symbol: (\w+)", done.stderr)
        assert symbol is not None
        assert symbol[1] in {name for item in read if item.name == "vllm" for name in item.extensions[0].undefined}


@needs_gxx
@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
def test_a_shadowed_library_is_named_where_torch_does_not_import(tmp_path: Path, python: str) -> None:
    """Torch 2.6 and later load their own nvJitLink first, and are not hurt; the doctor agrees with the loader."""
    compile_shared(tmp_path, "libnvJitLink.so.12", "int old() { return 0; }", "-Wl,-soname,libnvJitLink.so.12")
    facts = environment(python, LD_LIBRARY_PATH=str(tmp_path))
    done = run(python, "-c", "import torch", LD_LIBRARY_PATH=str(tmp_path))
    found = [item for item in make.outcomes("undefined-symbol", facts) if item.subject == "torch"]
    said = re.search(r"undefined symbol: (\w+)", done.stderr)
    assert (done.returncode != 0) is (said is not None)
    assert [item.outcome for item in found] == (["error"] if said else [])
    if said:
        assert str(tmp_path) in found[0].found
        assert isinstance(facts.packages, tuple)
        extensions = [item for package in facts.packages if package.name == "torch" for item in package.extensions]
        assert said[1] in {name for item in extensions for name in item.undefined}


@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
def test_all_extensions_are_judged_within_a_second_and_200_mb(python: str) -> None:
    facts = environment(python)
    packages = facts.packages
    assert isinstance(packages, tuple)
    start = time.perf_counter()
    with loader.Processes(LocalHost(), facts.python, packages) as processes:  # type: ignore[arg-type]
        read = elf.probe(processes, packages)
        loader.probe(processes, read)
    assert time.perf_counter() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 200 << 10
