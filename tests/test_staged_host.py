"""CUDA_HOME broken in many ways and GCC of two versions, staged on this host: the tools' own words and the doctor."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from envcheck.explain import explain
from scripts import toolchain, toolchain_gcc
from tests import staged
from tests.staged import Staged
from tests.verl_environments import TORCH_PYTHONS

HERE = Staged(python=sys.executable, site=Path())
SETUP = """
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension
setup(name="k", ext_modules=[CUDAExtension("k", ["k.cu"])], cmdclass={"build_ext": BuildExtension})
"""


def homes(place: Path) -> dict[str, str]:
    """Give values of CUDA_HOME that name no toolkit, by what the doctor says of each."""
    empty = place / "cuda-12.4"
    (empty / "include").mkdir(parents=True)
    (empty / "include/cuda_runtime.h").touch()
    return {
        "names a directory that holds no CUDA toolkit": f"{place}/gone",
        "names a toolkit without nvcc": str(empty),
        "is a list of directories": f"{empty}:{place}/gone",
        "names a part of a toolkit, not the toolkit": f"{empty}/bin/nvcc",
        "has quotation marks in its value": f"\u201c{empty}\u201d",
        "has spaces around its value": f"{empty} ",
        "is set to nothing": "",
    }


@pytest.mark.process
def test_the_doctor_says_what_is_wrong_with_cuda_home(tmp_path: Path) -> None:
    for said, value in homes(tmp_path).items():
        found = HERE.judged("cuda-home-invalid", stage="build", CUDA_HOME=value)
        assert [item["outcome"] for item in found] == ["error"], value
        assert found[0]["summary"] in {f"CUDA_HOME {said}", "CUDA_HOME names a directory that holds no CUDA toolkit"}
        assert found[0]["fix"][0]["commands"]


@pytest.mark.toolchain
def test_a_toolkit_is_taken_as_one() -> None:
    prefix = toolchain.provisioned()
    if prefix is None:
        pytest.skip("needs `nox -s toolchain`")
    assert HERE.judged("cuda-home-invalid", stage="build", CUDA_HOME=str(prefix)) == []


@pytest.mark.torch
@pytest.mark.parametrize("python", TORCH_PYTHONS)
def test_what_torch_says_of_a_broken_cuda_home_is_explained(tmp_path: Path, python: str) -> None:
    """A CUDA extension is built with every one of them; each fails, and the cause is CUDA_HOME or nvcc."""
    (tmp_path / "setup.py").write_text(SETUP, encoding="utf-8")
    (tmp_path / "k.cu").write_text("__global__ void k() {}\n", encoding="utf-8")
    script = f"cd {tmp_path} && exec {python} setup.py build_ext"
    values = [value for value in homes(tmp_path / "toolkits").values() if value]  # where it is empty torch looks around
    for value in values:
        done = staged.ran("sh", "-c", script, CUDA_HOME=value, PATH=f"{Path(python).parent}:/usr/bin:/bin")
        assert done.returncode
        root = explain(io.BytesIO((done.stdout + done.stderr).encode())).root
        assert root is not None, done.stderr
        assert root.rule in {"cuda-home-invalid", "nvcc-missing"}, (value, root.text)


def compilers() -> dict[str, str]:
    """Give the g++ of every version that is on this machine, by version."""
    places = [Path(place) for place in os.environ["PATH"].split(":")]
    names = [path for place in places if place.is_dir() for path in place.glob("g++*")]
    paths = [str(path) for path in names if re.fullmatch(r"g\+\+(-\d+)?", path.name)]
    paths += [path] if (path := toolchain_gcc.provisioned()) else []
    found = {staged.ran(path, "-dumpfullversion").stdout.strip(): path for path in paths}
    return {version: found[version] for version in sorted(found, key=lambda text: int(text.partition(".")[0] or 0))}


@pytest.fixture(scope="module")
def two() -> Mapping[str, str]:
    """The oldest and the newest g++ of this machine."""
    found = list(compilers().items())
    if len(found) < 2:
        pytest.skip("needs g++ of two versions, as g++-11 beside g++-12")
    return dict([found[0], found[-1]])


def path_with(place: Path, programs: Mapping[str, str]) -> str:
    """Make a directory where names are links to programs, in front of the system's."""
    place.mkdir()
    for name, target in programs.items():
        script = f'#!/bin/sh\nexec {target} "$@"\n'
        (place / name).write_text(script, encoding="utf-8")
        (place / name).chmod(0o755)
    return f"{place}:/usr/bin:/bin"


@pytest.mark.toolchain
def test_cmake_takes_another_compiler_than_the_gcc_that_was_meant(tmp_path: Path, two: Mapping[str, str]) -> None:
    """gcc and g++ are of one version, c++ of another: cmake takes c++, and the doctor says so."""
    (old, old_path), (new, new_path) = two.items()
    path = path_with(tmp_path / "bin", {"gcc": old_path.replace("g++", "gcc"), "g++": old_path, "c++": new_path})
    found = HERE.judged("host-compiler-differs", stage="build", PATH=path, CC="", CXX="", CUDAHOSTCXX="")
    assert [item for item in found if old in item["found"] and new in item["found"]], found
    same = {"CXX": old_path, "CC": old_path.replace("g++", "gcc"), "CUDAHOSTCXX": old_path}
    assert HERE.judged("host-compiler-differs", stage="build", PATH=path, **same) == []
    cmake = shutil.which("cmake")
    if cmake:
        text = "cmake_minimum_required(VERSION 3.18)\nproject(a CXX)\n"
        (tmp_path / "CMakeLists.txt").write_text(text, encoding="utf-8")
        done = staged.ran("env", "-u", "CXX", cmake, "-S", str(tmp_path), "-B", str(tmp_path / "build"), PATH=path)
        assert f"The CXX compiler identification is GNU {new}" in done.stdout


@pytest.mark.toolchain
def test_what_a_newer_compiler_made_does_not_link_with_an_older_one(tmp_path: Path, two: Mapping[str, str]) -> None:
    (_, old), (_, new) = two.items()
    source = "#include <string>\n#include <vector>\nint a(int n) { return std::vector<std::string>(n).size(); }\n"
    (tmp_path / "a.cpp").write_text(source, encoding="utf-8")
    (tmp_path / "b.cpp").write_text("int a(int); int main() { return a(0); }\n", encoding="utf-8")
    made = staged.ran(new, "-shared", "-fPIC", "-O0", f"{tmp_path}/a.cpp", "-o", f"{tmp_path}/liba.so")
    assert made.returncode == 0, made.stderr
    done = staged.ran(old, f"{tmp_path}/b.cpp", f"{tmp_path}/liba.so", "-o", f"{tmp_path}/b")
    if done.returncode == 0:
        pytest.skip("these two share one libstdc++")
    explained = explain(io.BytesIO(done.stderr.encode()))
    assert explained.root is not None, done.stderr
    assert explained.root.rule in {"libstdcxx-too-old", "glibc-too-old"}, done.stderr
