"""Kernel packages against torch and each other: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Facts, Package
from tests import factories as make

BUILD = make.target(stage="build")
LAUNCH = make.target()
LTS = make.target(make.LTS)


def pinned(**versions: str) -> Facts:
    names = {name.replace("_", "-"): version for name, version in versions.items()}
    return make.having(make.healthy(), *(make.package(name, version) for name, version in names.items()))


def kernels(*found: Package) -> Facts:
    return make.having(make.healthy(), *found)


JIT = "flashinfer-jit-cache"
NGC = make.package("torch", "2.5.0a0+872d972e41.nv24.08", cuda="12.6", cxx11_abi=True)
AOT = make.package("flashinfer-python", "0.2.2.post1+cu124torch2.5")
TORCH_26_CU126 = make.package("torch", "2.6.0+cu126", cuda="12.6", cxx11_abi=Unknown("x"))


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("flashinfer-parts-differ", make.healthy(), LAUNCH, "ok", id="one-part"),
        pytest.param(
            "flashinfer-parts-differ", pinned(flashinfer_jit_cache="0.2.2.post1+cu130"), LAUNCH, "ok", id="same"
        ),
        pytest.param("flashinfer-parts-differ", pinned(flashinfer_cubin="0.6.9"), BUILD, "error", id="cubin"),
        pytest.param(
            "flashinfer-parts-differ",
            make.variables(pinned(flashinfer_jit_cache="0.6.9"), FLASHINFER_DISABLE_VERSION_CHECK="1"),
            LAUNCH,
            "error",
            id="check-turned-off",
        ),
        pytest.param("flashinfer-parts-differ", make.bare(), BUILD, "not-applicable", id="no-flashinfer"),
        pytest.param("flashinfer-parts-differ", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="unread"),
        pytest.param("flashinfer-torch-differs", make.healthy(), LAUNCH, "not-applicable", id="compiled-at-run-time"),
        pytest.param("flashinfer-torch-differs", kernels(AOT), LAUNCH, "ok", id="right"),
        pytest.param(
            "flashinfer-torch-differs",
            kernels(replace(AOT, version="0.1.6+cu121torch2.4")),
            LAUNCH,
            "error",
            id="other",
        ),
        pytest.param("flashinfer-torch-differs", kernels(AOT, NGC), BUILD, "error", id="ngc"),
        pytest.param(
            "flashinfer-torch-differs",
            kernels(replace(AOT, version="0.2.5+cu124torch2.6"), TORCH_26_CU126),
            LAUNCH,
            "error",
            id="one-version-two-abis",
        ),
        pytest.param(
            "flashinfer-torch-differs", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="fi-unread"
        ),
        pytest.param("sgl-kernel-differs", make.healthy(), LAUNCH, "ok", id="seed"),
        pytest.param("sgl-kernel-differs", make.lts(), LTS, "ok", id="lts"),
        pytest.param("sgl-kernel-differs", pinned(sglang="0.5.6"), LAUNCH, "error", id="sglang-alone-was-upgraded"),
        pytest.param("sgl-kernel-differs", pinned(sgl_kernel="0.3.21"), LAUNCH, "error", id="of-another-torch"),
        pytest.param("sgl-kernel-differs", pinned(sglang_kernel="0.4.2"), LAUNCH, "error", id="both-names"),
        pytest.param(
            "sgl-kernel-differs",
            make.without(kernels(make.package("sglang-kernel", "0.4.2")), "sgl-kernel"),
            LAUNCH,
            "error",
            id="new-name",
        ),
        pytest.param(
            "sgl-kernel-differs",
            make.having(make.lts(), make.package("sgl-kernel", "0.1.0")),
            LTS,
            "error",
            id="not-what-sglang-pins",
        ),
        pytest.param("sgl-kernel-differs", make.bare(), BUILD, "not-applicable", id="no-kernel"),
        pytest.param("sgl-kernel-differs", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="kernel-unread"),
        pytest.param("torchvision-torch-differs", make.healthy(), LAUNCH, "ok", id="pair"),
        pytest.param("torchvision-torch-differs", pinned(torchvision="0.21.0"), LAUNCH, "error", id="of-torch-2.6"),
        pytest.param("torchvision-torch-differs", pinned(torchvision="0.20.1+cpu"), LAUNCH, "error", id="cpu"),
        pytest.param("torchvision-torch-differs", pinned(torchaudio="2.6.0"), LAUNCH, "error", id="torchaudio"),
        pytest.param("torchvision-torch-differs", make.bare(), BUILD, "not-applicable", id="no-torch"),
        pytest.param(
            "torchvision-torch-differs", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="tv-unread"
        ),
        pytest.param("vllm-torch-differs", pinned(vllm="0.7.2"), LAUNCH, "ok", id="of-this-torch"),
        pytest.param(
            "vllm-torch-differs", pinned(vllm="0.10.1.1"), make.target(engine="vllm"), "error", id="torch-2.7"
        ),
        pytest.param("vllm-torch-differs", pinned(vllm="0.8.5"), LAUNCH, "warning", id="beside-sglang"),
        pytest.param("vllm-torch-differs", pinned(vllm="0.8.5"), make.target(engine="vllm"), "error", id="the-engine"),
        pytest.param(
            "vllm-torch-differs",
            kernels(make.package("vllm", "9.9", requires=("torch ==2.13.0",))),
            LAUNCH,
            "warning",
            id="by-its-metadata",
        ),
        pytest.param("vllm-torch-differs", pinned(vllm="9.9"), LAUNCH, "ok", id="not-in-the-table"),
        pytest.param("vllm-torch-differs", make.healthy(), LAUNCH, "not-applicable", id="no-vllm"),
        pytest.param("vllm-torch-differs", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="vllm-unread"),
        pytest.param("xformers-torch-differs", pinned(xformers="0.0.28.post3"), LAUNCH, "ok", id="xformers-pair"),
        pytest.param(
            "xformers-torch-differs",
            kernels(make.package("xformers", "0.0.29.post2", built_for={"torch": "2.6.0+cu124"})),
            make.target(engine="vllm"),
            "error",
            id="one-release-ahead",
        ),
        pytest.param("xformers-torch-differs", make.healthy(), LAUNCH, "not-applicable", id="no-xformers"),
        pytest.param("xformers-torch-differs", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="xf-unread"),
        pytest.param("prebuilt-wheel-missing", make.healthy(), BUILD, "ok", id="installed"),
        pytest.param("prebuilt-wheel-missing", make.without(make.healthy(), "flash-attn"), BUILD, "ok", id="a-wheel"),
        pytest.param(
            "prebuilt-wheel-missing",
            make.without(kernels(make.package("torch", "2.10.0", cuda="12.8")), "flash-attn"),
            BUILD,
            "warning",
            id="torch-is-ahead",
        ),
        pytest.param("prebuilt-wheel-missing", make.bare(), BUILD, "not-applicable", id="no-torch-yet"),
        pytest.param("prebuilt-wheel-missing", make.healthy(packages=Unknown("x")), BUILD, "unknown", id="fa-unread"),
    ],
)
def test_kernels(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


def test_the_index_of_the_installed_torch_is_named() -> None:
    facts = kernels(replace(AOT, version="0.2.2.post1+cu121torch2.4"))
    assert (
        "https://flashinfer.ai/whl/cu124/torch2.5/"
        in make.outcomes("flashinfer-torch-differs", facts)[0].fix[0].commands[0]
    )
