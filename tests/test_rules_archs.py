"""Arch lists, toolkits and wheels for another host: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Extension, Facts
from tests import factories as make

BUILD = make.target(stage="build")
TE = make.target(stage="build", trainer="megatron")
LAUNCH = make.target()
UNREAD = make.healthy(packages=Unknown("no site directory"))


def told(toolkit: str = "12.4.1", **values: str) -> Facts:
    return make.variables(make.bare(toolkits=(make.toolkit(toolkit),)), **values)


def module(abi: str | None, *others: str) -> Facts:
    parts = tuple(Extension(path=f"/s/_C.{name}.so", python_abi=name) for name in (abi, *others))
    return make.changed(make.healthy(), "flash-attn", extensions=parts)


def named(file: str, machine: str | None = None) -> Facts:
    return make.changed(make.healthy(), "flash-attn", extensions=(Extension(path=f"/s/{file}", machine=machine),))


def tagged(tag: str) -> Facts:
    return make.changed(make.healthy(), "sgl-kernel", tag=tag)


def missing(package: str, *names: str) -> Facts:
    return make.changed(make.healthy(), package, extensions=(Extension(path="/x.so", needed=names, missing=names),))


PRELOADED = make.having(missing("sgl-kernel", "libnvJitLink.so.12"), make.package("torch", "2.6.0", cuda="12.4"))


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("arch-list-invalid", make.bare(), BUILD, "ok", id="not-set"),
        pytest.param("arch-list-invalid", told(TORCH_CUDA_ARCH_LIST="8.0 9.0a;9.0+PTX"), BUILD, "ok", id="torchs-form"),
        pytest.param("arch-list-invalid", told(TORCH_CUDA_ARCH_LIST="Hopper"), BUILD, "ok", id="a-name"),
        pytest.param("arch-list-invalid", told(TORCH_CUDA_ARCH_LIST="90"), BUILD, "error", id="cmakes-form-for-torch"),
        pytest.param("arch-list-invalid", told(TORCH_CUDA_ARCH_LIST=""), BUILD, "error", id="empty"),
        pytest.param("arch-list-invalid", told(CUDAARCHS="80;90"), BUILD, "ok", id="cmakes-form"),
        pytest.param("arch-list-invalid", told(CUDAARCHS="9.0"), BUILD, "error", id="torchs-form-for-cmake"),
        pytest.param("arch-list-invalid", told(CUDAARCHS="native"), BUILD, "ok", id="native"),
        pytest.param("arch-list-invalid", told(TORCH_CUDA_ARCH_LIST="8.0"), BUILD, "warning", id="without-this-gpu"),
        pytest.param(
            "arch-list-invalid", told(FLASH_ATTN_CUDA_ARCHS="80"), BUILD, "warning", id="flash-attn-without-it"
        ),
        pytest.param(
            "arch-list-invalid",
            make.variables(make.healthy(gpus=Unknown("NVML")), TORCH_CUDA_ARCH_LIST="8.0"),
            BUILD,
            "ok",
            id="gpus-unread",
        ),
        pytest.param("arch-removed-from-nvcc", make.bare(), BUILD, "not-applicable", id="no-list"),
        pytest.param("arch-removed-from-nvcc", told(TORCH_CUDA_ARCH_LIST="8.0;9.0"), BUILD, "ok", id="all-known"),
        pytest.param("arch-removed-from-nvcc", told(TORCH_CUDA_ARCH_LIST="3.5;9.0"), BUILD, "error", id="kepler"),
        pytest.param("arch-removed-from-nvcc", told("13.0.2", CUDAARCHS="70;90"), BUILD, "error", id="volta-on-13"),
        pytest.param("arch-removed-from-nvcc", told(CUDAARCHS="100"), BUILD, "error", id="blackwell-on-12.4"),
        pytest.param("arch-removed-from-nvcc", told(CUDAARCHS="native"), BUILD, "ok", id="no-number"),
        pytest.param("arch-removed-from-nvcc", make.bare(toolkits=Unknown("x")), BUILD, "unknown", id="nvcc-unread"),
        pytest.param("toolkit-too-old", make.bare(), TE, "ok", id="12.4"),
        pytest.param("toolkit-too-old", told("11.5"), TE, "error", id="ubuntus-11.5"),
        pytest.param(
            "toolkit-too-old", told("12.0"), make.target(make.LTS, stage="build", trainer="megatron"), "error", id="2"
        ),
        pytest.param("toolkit-too-old", make.bare(toolkits=()), TE, "not-applicable", id="no-nvcc"),
        pytest.param("toolkit-too-old", make.bare(toolkits=Unknown("x")), TE, "unknown", id="version-unread"),
        pytest.param("python-abi-differs", make.healthy(), LAUNCH, "ok", id="no-module-says"),
        pytest.param("python-abi-differs", module("cpython-310"), LAUNCH, "ok", id="own"),
        pytest.param("python-abi-differs", module("abi3"), LAUNCH, "ok", id="abi3"),
        pytest.param("python-abi-differs", module("cpython-39"), LAUNCH, "error", id="other"),
        pytest.param("python-abi-differs", module("cpython-39", "cpython-310"), LAUNCH, "ok", id="one-for-each"),
        pytest.param("python-abi-differs", named("_C.cpython-311-x86_64-linux-gnu.so"), LAUNCH, "error", id="by-name"),
        pytest.param("python-abi-differs", named("_C.abi3.so"), LAUNCH, "ok", id="abi3-by-name"),
        pytest.param("python-abi-differs", UNREAD, LAUNCH, "unknown", id="unread"),
        pytest.param("wheel-not-for-this-host", tagged("cp310-abi3-manylinux2014_x86_64"), LAUNCH, "ok", id="abi3-tag"),
        pytest.param(
            "wheel-not-for-this-host", tagged("cp38-abi3-manylinux2014_x86_64"), LAUNCH, "ok", id="older-abi3"
        ),
        pytest.param("wheel-not-for-this-host", tagged("py3-none-any"), LAUNCH, "ok", id="any"),
        pytest.param(
            "wheel-not-for-this-host",
            tagged("cp38-cp38-manylinux_2_28_x86_64"),
            LAUNCH,
            "ok",
            id="the-tag-inside-often-lies",
        ),
        pytest.param(
            "wheel-not-for-this-host", tagged("cp310-cp310-linux_aarch64"), LAUNCH, "error", id="other-machine"
        ),
        pytest.param("wheel-not-for-this-host", tagged("odd"), LAUNCH, "ok", id="no-tag"),
        pytest.param("wheel-not-for-this-host", named("_C.abi3.so", machine="aarch64"), LAUNCH, "error", id="bytes"),
        pytest.param("wheel-not-for-this-host", named("_C.abi3.so", machine="x86_64"), LAUNCH, "ok", id="own-bytes"),
        pytest.param("wheel-not-for-this-host", UNREAD, LAUNCH, "unknown", id="tags-unread"),
        pytest.param("cuda-library-not-found", make.healthy(), LAUNCH, "ok", id="all-found"),
        pytest.param("cuda-library-not-found", missing("sgl-kernel", "libcublas.so.12"), LAUNCH, "error", id="cublas"),
        pytest.param(
            "cuda-library-not-found", missing("psutil", "libnccl.so.2"), LAUNCH, "warning", id="beside-the-stack"
        ),
        pytest.param(
            "cuda-library-not-found",
            missing("sgl-kernel", "libcudart.so.13"),
            LAUNCH,
            "ok",
            id="another-rules-business",
        ),
        pytest.param(
            "cuda-library-not-found", missing("sgl-kernel", "libnvJitLink.so.12"), LAUNCH, "error", id="nvjitlink"
        ),
        pytest.param(
            "cuda-library-not-found", missing("torch", "libcusparseLt.so.0"), LAUNCH, "error", id="torch-itself"
        ),
        pytest.param("cuda-library-not-found", PRELOADED, LAUNCH, "ok", id="torch-2.6-loads-it-first"),
        pytest.param("cuda-library-not-found", UNREAD, LAUNCH, "unknown", id="libraries-unread"),
        pytest.param("cmake-too-new", make.healthy(), TE, "ok", id="cmake-3"),
        pytest.param(
            "cmake-too-new", make.having(make.healthy(), make.package("cmake", "4.0.2")), TE, "warning", id="cmake-4"
        ),
        pytest.param("cmake-too-new", make.healthy(), BUILD, "not-applicable", id="no-recipe-asks"),
        pytest.param("cmake-too-new", UNREAD, TE, "unknown", id="cmake-unread"),
    ],
)
def test_archs_and_wheels(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


def test_one_library_of_two_packages_is_told_once() -> None:
    part = "libcudnn_adv.so.9"
    extension = Extension(path="/s/transformer_engine/wheel_lib/libtransformer_engine.so", missing=(part,))
    facts = make.lts()
    for name in ("transformer-engine", "transformer-engine-cu12"):
        facts = make.changed(facts, name, extensions=(extension,))
    (found,) = make.outcomes("cuda-library-not-found", facts, make.target(make.LTS, trainer="megatron"))
    assert (found.outcome, found.subject) == ("error", "transformer-engine")
    assert "/nvidia/cudnn/lib" in found.fix[0].commands[0]


def test_the_wheels_folder_is_named() -> None:
    fix = make.outcomes("cuda-library-not-found", missing("sgl-kernel", "libcudart.so.12"))[0].fix[0]
    assert "nvidia/cuda_runtime/lib" in fix.commands[0]
