"""TransformerEngine, Megatron-LM, the engines and verl: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Extension, Facts, Origin, Source
from tests import factories as make

BUILD = make.target(stage="build")
LAUNCH = make.target()
VLLM = make.target(engine="vllm")
TRAIN = make.target(stage="train", trainer="megatron")
MEGATRON = make.target(trainer="megatron")
LTS = make.target(make.LTS, trainer="megatron")
GIT = Origin(url="https://github.com/volcengine/verl.git", commit=make.VERL_COMMIT)
UNREAD = make.healthy(packages=Unknown("no site directory"))
NO_MEGATRON = make.without(make.healthy(), "megatron-core")


def pinned(base: Facts | None = None, **versions: str) -> Facts:
    names = {name.replace("_", "-"): version for name, version in versions.items()}
    return make.having(base or make.healthy(), *(make.package(name, version) for name, version in names.items()))


def te(*paths: str, **changes: Any) -> Facts:
    extensions = tuple(Extension(path=path) for path in paths)
    return make.having(make.healthy(), make.package("transformer-engine", "1.9.0", extensions=extensions, **changes))


def core(*archs: str) -> Facts:
    """An environment of the lts stack whose TransformerEngine has code for these architectures."""
    part = Extension(path="/s/transformer_engine/wheel_lib/libtransformer_engine.so", archs=archs)
    facts = make.having(make.lts(), make.package("nvidia-cublas-cu12", "12.4.5.8"))
    return make.changed(facts, "transformer-engine", extensions=(part,))


def checkout(*, importable: bool) -> Facts:
    found = Source(name="Megatron-LM", path="/src/Megatron-LM", commit="3" * 40, importable=importable)
    return replace(NO_MEGATRON, sources=(found,))


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("te-torch-extension-missing", make.lts(), LTS, "ok", id="three-packages"),
        pytest.param("te-torch-extension-missing", make.healthy(), MEGATRON, "not-applicable", id="1.7-not-read"),
        pytest.param("te-torch-extension-missing", te("/s/transformer_engine_extensions.so"), MEGATRON, "ok", id="1.x"),
        pytest.param("te-torch-extension-missing", te(), MEGATRON, "error", id="without-the-extra"),
        pytest.param("te-torch-extension-missing", te(), LAUNCH, "warning", id="not-the-trainer"),
        pytest.param(
            "te-torch-extension-missing",
            te("/s/libtransformer_engine.so", origin=GIT),
            MEGATRON,
            "error",
            id="core-alone",
        ),
        pytest.param(
            "te-torch-extension-missing",
            make.without(make.lts(), "transformer-engine-torch"),
            make.target(make.LTS),
            "ok",
            id="as-the-lock-leaves-it-for-fsdp",
        ),
        pytest.param(
            "te-torch-extension-missing",
            make.without(make.lts(), "transformer-engine-torch"),
            LTS,
            "error",
            id="to-be-built-for-megatron",
        ),
        pytest.param("te-torch-extension-missing", make.bare(), BUILD, "not-applicable", id="no-te"),
        pytest.param("te-torch-extension-missing", UNREAD, MEGATRON, "unknown", id="unread"),
        pytest.param("te-parts-differ", make.lts(), LTS, "ok", id="same-version"),
        pytest.param("te-parts-differ", pinned(make.lts(), transformer_engine_torch="2.1.0"), LTS, "error", id="two"),
        pytest.param(
            "te-parts-differ", pinned(make.lts(), transformer_engine_cu13="2.2.0"), LTS, "error", id="two-cores"
        ),
        pytest.param(
            "te-parts-differ",
            make.without(pinned(make.lts(), transformer_engine_cu13="2.2.0"), "transformer-engine-cu12"),
            LTS,
            "error",
            id="the-core-of-another-cuda",
        ),
        pytest.param("te-parts-differ", UNREAD, MEGATRON, "unknown", id="parts-unread"),
        pytest.param("te-flash-attn-range", make.lts(), LTS, "ok", id="in-range"),
        pytest.param("te-flash-attn-range", make.healthy(), MEGATRON, "ok", id="not-asked"),
        pytest.param("te-flash-attn-range", replace(make.healthy(), environment={}), MEGATRON, "error", id="refused"),
        pytest.param("te-flash-attn-range", replace(make.healthy(), environment={}), LAUNCH, "warning", id="beside"),
        pytest.param("te-flash-attn-range", pinned(make.lts(), flash_attn="2.8.3"), LTS, "error", id="newer-than-te"),
        pytest.param(
            "te-flash-attn-range", make.without(make.healthy(), "flash-attn"), MEGATRON, "not-applicable", id="no-flash"
        ),
        pytest.param("te-flash-attn-range", UNREAD, MEGATRON, "unknown", id="range-unread"),
        pytest.param("te-torch-too-old", make.lts(), LTS, "ok", id="torch-2.6"),
        pytest.param("te-cublas-too-old", core("9.0"), LTS, "ok", id="core-of-cuda-12.4"),
        pytest.param("te-cublas-too-old", make.lts(), LTS, "not-applicable", id="core-unread"),
        pytest.param("te-cublas-too-old", make.bare(), BUILD, "not-applicable", id="no-te"),
        pytest.param("te-cublas-too-old", UNREAD, MEGATRON, "unknown", id="cublas-unread"),
        pytest.param("apex-missing", make.healthy(), MEGATRON, "ok", id="apex-there"),
        pytest.param("apex-missing", make.without(make.healthy(), "apex"), MEGATRON, "error", id="verl-0.2"),
        pytest.param("apex-missing", make.without(make.lts(), "apex"), LTS, "warning", id="the-critic-of-verl-0.4"),
        pytest.param("apex-missing", pinned(make.lts(), verl="0.7.0"), LTS, "not-applicable", id="verl-0.7"),
        pytest.param("apex-missing", make.without(make.healthy(), "apex"), LAUNCH, "not-applicable", id="fsdp"),
        pytest.param("apex-missing", UNREAD, MEGATRON, "unknown", id="apex-unread"),
        pytest.param("te-torch-too-old", pinned(make.lts(), torch="2.0.1"), LTS, "error", id="torch-2.0"),
        pytest.param(
            "te-torch-too-old", pinned(transformer_engine="1.13.0", python="x"), MEGATRON, "ok", id="te-1.13-on-3.10"
        ),
        pytest.param("te-torch-too-old", make.bare(), BUILD, "not-applicable", id="no-torch"),
        pytest.param("te-torch-too-old", UNREAD, MEGATRON, "not-applicable", id="torch-unread"),
        pytest.param("megatron-te-missing", make.healthy(), MEGATRON, "ok", id="te-is-there"),
        pytest.param(
            "megatron-te-missing", make.without(make.healthy(), "transformer-engine"), MEGATRON, "error", id="te-is-not"
        ),
        pytest.param(
            "megatron-te-missing", pinned(make.lts(), megatron_core="0.15.0"), LTS, "warning", id="another-te-declared"
        ),
        pytest.param("megatron-te-missing", make.healthy(), LAUNCH, "not-applicable", id="fsdp"),
        pytest.param("megatron-te-missing", NO_MEGATRON, MEGATRON, "not-applicable", id="no-megatron"),
        pytest.param("megatron-te-missing", UNREAD, MEGATRON, "unknown", id="te-unread"),
        pytest.param("megatron-not-importable", make.healthy(), MEGATRON, "ok", id="installed"),
        pytest.param("megatron-not-importable", checkout(importable=True), MEGATRON, "ok", id="on-pythonpath"),
        pytest.param("megatron-not-importable", checkout(importable=False), MEGATRON, "error", id="not-on-pythonpath"),
        pytest.param("megatron-not-importable", NO_MEGATRON, MEGATRON, "error", id="nowhere"),
        pytest.param("megatron-not-importable", NO_MEGATRON, LAUNCH, "not-applicable", id="not-wanted"),
        pytest.param("megatron-not-importable", UNREAD, MEGATRON, "unknown", id="megatron-unread"),
        pytest.param("megatron-bridge-differs", make.healthy(), MEGATRON, "not-applicable", id="no-bridge"),
        pytest.param(
            "megatron-bridge-differs", pinned(mbridge="0.15.1", megatron_core="0.13.1"), MEGATRON, "ok", id="pair"
        ),
        pytest.param(
            "megatron-bridge-differs", pinned(mbridge="0.15.1", megatron_core="0.12.1"), BUILD, "error", id="old"
        ),
        pytest.param(
            "megatron-bridge-differs", pinned(mbridge="0.15.1", megatron_core="0.18.0"), BUILD, "error", id="new"
        ),
        pytest.param("megatron-bridge-differs", UNREAD, MEGATRON, "unknown", id="bridge-unread"),
        pytest.param("megatron-helpers-not-compiled", make.healthy(), TRAIN, "ok", id="can-be-compiled"),
        pytest.param(
            "megatron-helpers-not-compiled",
            make.changed(
                make.healthy(compilers=()),
                "megatron-core",
                extensions=(Extension(path="/m/helpers_cpp.cpython-310.so"),),
            ),
            TRAIN,
            "ok",
            id="are-compiled",
        ),
        pytest.param(
            "megatron-helpers-not-compiled",
            make.without(make.healthy(compilers=()), "pybind11"),
            TRAIN,
            "warning",
            id="no",
        ),
        pytest.param("megatron-helpers-not-compiled", NO_MEGATRON, TRAIN, "not-applicable", id="no-megatron-at-all"),
        pytest.param("megatron-helpers-not-compiled", UNREAD, TRAIN, "unknown", id="helpers-unread"),
    ],
)
def test_megatron(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


POST2 = make.package("sglang", "0.4.3.post2")
RELEASED_VERL = make.package("verl", "0.2.0.post2", requires=("vllm<=0.6.3",))


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("sglang-verl-engine-missing", make.healthy(), LAUNCH, "ok", id="there"),
        pytest.param(
            "sglang-verl-engine-missing", make.having(make.healthy(), POST2), LAUNCH, "error", id="the-release"
        ),
        pytest.param(
            "sglang-verl-engine-missing",
            make.having(make.healthy(), replace(POST2, modules=("sglang.srt.entrypoints.engine",))),
            BUILD,
            "error",
            id="by-its-files",
        ),
        pytest.param(
            "sglang-verl-engine-missing",
            make.having(make.healthy(), make.package("sglang", "0.4.8")),
            LAUNCH,
            "error",
            id="taken-out-again",
        ),
        pytest.param(
            "sglang-verl-engine-missing",
            make.having(make.healthy(), replace(POST2, origin=GIT)),
            LAUNCH,
            "ok",
            id="git",
        ),
        pytest.param("sglang-verl-engine-missing", make.lts(), make.target(make.LTS), "ok", id="lts"),
        pytest.param(
            "sglang-verl-engine-missing",
            pinned(make.lts(), sglang="0.4.9.post6"),
            make.target(make.LTS),
            "error",
            id="another-than-verl-pins",
        ),
        pytest.param("sglang-verl-engine-missing", make.healthy(), VLLM, "not-applicable", id="not-the-engine"),
        pytest.param("sglang-verl-engine-missing", UNREAD, LAUNCH, "unknown", id="unread"),
        pytest.param("vllm-pin-conflict", make.healthy(), LAUNCH, "not-applicable", id="no-vllm"),
        pytest.param("vllm-pin-conflict", pinned(vllm="0.6.4.post1"), LAUNCH, "ok", id="the-seeds-harmless-conflict"),
        pytest.param("vllm-pin-conflict", pinned(vllm="0.6.3"), VLLM, "ok", id="accepted"),
        pytest.param(
            "vllm-pin-conflict",
            make.having(make.healthy(), RELEASED_VERL, make.package("vllm", "0.6.4.post1")),
            LAUNCH,
            "error",
            id="the-release-raises",
        ),
        pytest.param(
            "vllm-pin-conflict",
            make.having(make.healthy(), RELEASED_VERL, make.package("vllm", "0.7.2")),
            VLLM,
            "error",
            id="the-engine-needs-one-that-verl-knows",
        ),
        pytest.param(
            "vllm-pin-conflict",
            make.having(
                make.lts(),
                make.package("vllm", "0.8.5.post1"),
                make.package("verl", "0.4.1", requires=('vllm<=0.8.5; extra == "vllm"',)),
            ),
            make.target(make.LTS, engine="vllm"),
            "ok",
            id="the-pair-that-the-stack-pins",
        ),
        pytest.param("vllm-pin-conflict", UNREAD, LAUNCH, "unknown", id="vllm-unread"),
        pytest.param("transformers-range", make.healthy(), LAUNCH, "ok", id="4.48"),
        pytest.param("transformers-range", pinned(transformers="4.49.0"), LAUNCH, "error", id="breaks-sglang-0.4.3"),
        pytest.param(
            "transformers-range", pinned(verl="0.7.0", transformers="5.0.0"), LAUNCH, "error", id="breaks-verl"
        ),
        pytest.param(
            "transformers-range",
            pinned(make.lts(), transformers="4.51.3"),
            make.target(make.LTS),
            "warning",
            id="not-the-exact-one",
        ),
        pytest.param("transformers-range", make.bare(), BUILD, "not-applicable", id="no-transformers"),
        pytest.param("transformers-range", UNREAD, LAUNCH, "unknown", id="transformers-unread"),
        pytest.param("transformers-needs-newer-torch", make.healthy(), LAUNCH, "ok", id="4.48-with-torch-2.5"),
        pytest.param("transformers-needs-newer-torch", pinned(transformers="4.52.3"), LAUNCH, "warning", id="4.52"),
        pytest.param(
            "transformers-needs-newer-torch", pinned(make.lts(), transformers="4.52.3"), LAUNCH, "ok", id="torch-2.6"
        ),
        pytest.param("transformers-needs-newer-torch", UNREAD, LAUNCH, "unknown", id="torch-unread"),
        pytest.param("ray-click-conflict", make.healthy(), LAUNCH, "ok", id="click-8.1"),
        pytest.param("ray-click-conflict", pinned(ray="2.48.0", click="8.4.1"), LAUNCH, "error", id="click-8.4"),
        pytest.param("ray-click-conflict", pinned(ray="2.60.0", click="8.4.1"), LAUNCH, "ok", id="a-newer-ray"),
        pytest.param("ray-click-conflict", make.bare(), BUILD, "not-applicable", id="no-ray"),
        pytest.param("ray-click-conflict", UNREAD, LAUNCH, "unknown", id="click-unread"),
        pytest.param("setuptools-too-new", make.healthy(), BUILD, "ok", id="70"),
        pytest.param(
            "setuptools-too-new", pinned(setuptools="84.0.0"), LAUNCH, "error", id="no-pkg_resources-for-verl"
        ),
        pytest.param("setuptools-too-new", pinned(torch="2.1.0"), BUILD, "error", id="70-with-torch-2.1"),
        pytest.param(
            "setuptools-too-old", pinned(torch="2.13.0", setuptools="75.0"), BUILD, "error", id="too-old-for-torch-2.13"
        ),
        pytest.param("setuptools-too-old", make.healthy(), BUILD, "ok", id="old-enough"),
        pytest.param("setuptools-too-old", UNREAD, BUILD, "unknown", id="age-unread"),
        pytest.param("setuptools-too-new", make.bare(), BUILD, "not-applicable", id="no-setuptools"),
        pytest.param("setuptools-too-new", UNREAD, LAUNCH, "unknown", id="setuptools-unread"),
        pytest.param("wheel-too-old", make.healthy(), BUILD, "ok", id="wheel-0.45"),
        pytest.param("wheel-too-old", pinned(setuptools="83.0.0", wheel="0.37.1"), BUILD, "error", id="ubuntus"),
        pytest.param("wheel-too-old", make.bare(), BUILD, "not-applicable", id="no-wheel"),
        pytest.param("wheel-too-old", UNREAD, BUILD, "unknown", id="wheel-unread"),
    ],
)
def test_engines(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


def test_the_checkout_is_named_on_pythonpath() -> None:
    outcome = make.outcomes("megatron-not-importable", checkout(importable=False), MEGATRON)[0]
    assert outcome.fix[0].commands == ("export PYTHONPATH=/src/Megatron-LM:$PYTHONPATH",)


def test_a_core_of_a_newer_cuda_is_worth_knowing() -> None:
    """As the wheel of 2.2.0 is: on an H100, fp8 products ended in cublaslt_gemm.cu, and bfloat16 was right."""
    (found,) = make.outcomes("te-cublas-too-old", core("9.0", "10.0", "10.0+PTX"), LTS)
    assert (found.outcome, found.found) == (
        "ok",
        "cuBLAS 12.4.5.8, and code for 9.0, 10.0 in libtransformer_engine.so",
    )
    assert "CUDA >=12.8" in found.summary


def test_apex_is_built_from_its_pinned_source() -> None:
    (found,) = make.outcomes("apex-missing", make.without(make.lts(), "apex"), LTS)
    assert found.fix[0].commands[0].startswith("nox -s build-apex -- --stack verl-lts-cu124")
    assert "GRPO" in found.summary
