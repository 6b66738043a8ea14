"""CUDA toolkits: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Facts, Source
from tests import factories as make

BUILD = make.target(stage="build")
TE = make.target(stage="build", trainer="megatron")
LAUNCH = make.target()
CUDA13 = make.toolkit("13.0.2", path="/usr/local/cuda", gcc_max=15)
NO_NVCC = make.toolkit(nvcc=None, ptxas=None)
BARE_NVCC = make.toolkit(path="/usr/local", headers=False)
WHOLE = make.toolkit(selected=False)
HEADERS_UNREAD = make.toolkit(headers=Unknown("the directory cannot be listed"))
BLACKWELL = (make.gpu("NVIDIA B200", "10.0", 180),)
OF_CUDA_13 = make.having(make.healthy(toolkits=(CUDA13,)), make.package("torch", "2.11.0", cuda="13.0"))
GONE = make.toolkit(Unknown("/gone does not exist"), path="/gone", nvcc=None, source="env", gcc_max=None, headers=False)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("nvcc-missing", make.bare(), BUILD, "ok", id="there"),
        pytest.param("nvcc-missing", make.bare(toolkits=()), BUILD, "error", id="no-toolkit"),
        pytest.param("nvcc-missing", make.bare(toolkits=(NO_NVCC,)), BUILD, "error", id="runtime-image"),
        pytest.param("nvcc-missing", make.healthy(toolkits=()), LAUNCH, "error", id="flashinfer-compiles-at-run-time"),
        pytest.param(
            "nvcc-missing",
            make.having(make.healthy(toolkits=()), make.package("flashinfer-jit-cache", "0.2.2.post1")),
            LAUNCH,
            "not-applicable",
            id="kernels-are-there",
        ),
        pytest.param(
            "nvcc-missing",
            make.changed(make.healthy(toolkits=()), "flashinfer-python", version="0.2.2.post1+cu124torch2.5"),
            LAUNCH,
            "not-applicable",
            id="compiled-ahead-of-time",
        ),
        pytest.param("nvcc-missing", make.bare(toolkits=Unknown("no file can be read")), BUILD, "unknown", id="unread"),
        pytest.param("cuda-home-invalid", make.bare(), BUILD, "ok", id="not-set"),
        pytest.param(
            "cuda-home-invalid", make.variables(make.bare(), CUDA_HOME="/usr/local/cuda-12.4/"), BUILD, "ok", id="right"
        ),
        pytest.param(
            "cuda-home-invalid",
            make.variables(make.bare(), CUDA_HOME="\u201c/usr/local/cuda-12.4\u201d"),
            BUILD,
            "error",
            id="quotes-of-the-web-page",
        ),
        pytest.param(
            "cuda-home-invalid",
            make.variables(make.bare(), CUDA_HOME="/usr/local/cuda:/opt/cuda"),
            BUILD,
            "error",
            id="list",
        ),
        pytest.param(
            "cuda-home-invalid",
            make.variables(make.bare(), CUDA_HOME="/usr/local/cuda-12.4/bin"),
            BUILD,
            "error",
            id="a-part-of-it",
        ),
        pytest.param("cuda-home-invalid", make.variables(make.bare(), CUDA_HOME=""), BUILD, "error", id="empty"),
        pytest.param("cuda-home-invalid", make.bare(toolkits=(BARE_NVCC,)), BUILD, "error", id="no-headers"),
        pytest.param("cuda-home-invalid", make.bare(toolkits=(BARE_NVCC, WHOLE)), BUILD, "warning", id="headers-apart"),
        pytest.param("cuda-home-invalid", make.bare(toolkits=(HEADERS_UNREAD,)), BUILD, "ok", id="headers-unread"),
        pytest.param(
            "cuda-home-invalid",
            make.having(make.healthy(toolkits=(BARE_NVCC,)), make.package("flashinfer-jit-cache", "0.2.2.post1")),
            LAUNCH,
            "ok",
            id="no-headers-and-nothing-compiles",
        ),
        pytest.param("cuda-home-invalid", make.variables(make.bare(), CUDA_HOME="cuda"), BUILD, "error", id="relative"),
        pytest.param(
            "cuda-home-invalid", make.variables(make.bare(), CUDA_HOME="/cuda "), BUILD, "error", id="a-space"
        ),
        pytest.param(
            "cuda-home-invalid", make.variables(make.bare(), CUDA_PATH="/gone"), BUILD, "error", id="cuda-path"
        ),
        pytest.param(
            "cuda-home-invalid",
            make.variables(make.bare(toolkits=(GONE,)), CUDA_HOME="/gone"),
            BUILD,
            "error",
            id="gone",
        ),
        pytest.param(
            "cuda-home-invalid",
            make.variables(make.bare(toolkits=(replace(NO_NVCC, source="env"),)), CUDA_HOME="/usr/local/cuda-12.4"),
            BUILD,
            "error",
            id="without-nvcc",
        ),
        pytest.param(
            "cuda-home-invalid",
            make.without(make.variables(make.healthy(), CUDA_HOME="/gone"), "flashinfer-python"),
            LAUNCH,
            "warning",
            id="launch",
        ),
        pytest.param("nvcc-differs-from-torch", make.healthy(), BUILD, "ok", id="same"),
        pytest.param(
            "nvcc-differs-from-torch", make.bare(toolkits=(CUDA13,)), BUILD, "error", id="cuda-13-before-torch"
        ),
        pytest.param("nvcc-differs-from-torch", OF_CUDA_13, BUILD, "error", id="right-for-a-torch-that-will-go"),
        pytest.param("nvcc-differs-from-torch", OF_CUDA_13, LAUNCH, "ok", id="right-for-the-torch-that-runs"),
        pytest.param("nvcc-differs-from-torch", make.healthy(toolkits=(CUDA13,)), BUILD, "error", id="cuda-13"),
        pytest.param(
            "nvcc-differs-from-torch",
            make.healthy(toolkits=(make.toolkit("12.2.2"),)),
            BUILD,
            "warning",
            id="other-minor",
        ),
        pytest.param(
            "nvcc-differs-from-torch",
            make.healthy(
                toolkits=(make.toolkit("12.2.2"),), sources=(Source(name="apex", path="/src/apex", commit="1" * 40),)
            ),
            BUILD,
            "error",
            id="apex-refuses-another-minor",
        ),
        pytest.param(
            "nvcc-differs-from-torch",
            make.bare(toolkits=(make.toolkit(cmake=False), make.toolkit("13.0.2", selected=False, cmake=True))),
            TE,
            "error",
            id="cmake-takes-another",
        ),
        pytest.param(
            "nvcc-differs-from-torch",
            make.changed(make.healthy(), "torch", cuda=None),
            BUILD,
            "not-applicable",
            id="torch-for-the-cpu",
        ),
        pytest.param(
            "nvcc-differs-from-torch",
            make.changed(make.healthy(), "torch", cuda=Unknown("torch/version.py is damaged")),
            BUILD,
            "ok",
            id="cuda-of-the-release",
        ),
        pytest.param(
            "nvcc-differs-from-torch",
            make.changed(make.healthy(), "torch", cuda=Unknown("damaged"), version="2.3.9"),
            BUILD,
            "unknown",
            id="unread",
        ),
        pytest.param("nvcc-too-old-for-gpu", make.bare(), BUILD, "ok", id="hopper-with-12.4"),
        pytest.param(
            "nvcc-too-old-for-gpu", make.bare(toolkits=(make.toolkit("11.8"),)), BUILD, "error", id="no-sm_90a"
        ),
        pytest.param("nvcc-too-old-for-gpu", make.bare(gpus=BLACKWELL), BUILD, "error", id="blackwell-with-12.4"),
        pytest.param(
            "nvcc-too-old-for-gpu",
            make.bare(gpus=BLACKWELL, toolkits=(make.toolkit("12.8.1"),)),
            BUILD,
            "warning",
            id="blackwell-without-the-family-target",
        ),
        pytest.param(
            "nvcc-too-old-for-gpu",
            make.bare(gpus=BLACKWELL, toolkits=(make.toolkit("12.9.1"),)),
            BUILD,
            "ok",
            id="12.9",
        ),
        pytest.param(
            "nvcc-too-old-for-gpu",
            make.bare(gpus=(make.gpu("Tesla V100", "7.0"),), toolkits=(CUDA13,)),
            BUILD,
            "error",
            id="cuda-13-dropped-it",
        ),
        pytest.param("nvcc-too-old-for-gpu", make.bare(gpus=()), BUILD, "not-applicable", id="no-gpu"),
        pytest.param("nvcc-too-old-for-gpu", make.bare(gpus=Unknown("NVML")), BUILD, "unknown", id="gpus-unread"),
    ],
)
def test_toolkits(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


def test_a_toolkit_of_the_stack_that_is_there_is_offered_first() -> None:
    facts = make.bare(toolkits=(CUDA13, make.toolkit(selected=False)))
    outcome = make.outcomes("nvcc-differs-from-torch", facts, BUILD)[0]
    assert outcome.fix[0].commands[0] == "export CUDA_HOME=/usr/local/cuda-12.4"


def test_cuda_home_is_mended_with_the_toolkit_of_the_stack() -> None:
    facts = make.variables(make.bare(toolkits=(CUDA13, make.toolkit(selected=False))), CUDA_HOME="/usr/local/cuda/bin")
    assert make.outcomes("cuda-home-invalid", facts, BUILD)[0].fix[0].commands == (
        "export CUDA_HOME=/usr/local/cuda-12.4",
    )


def test_cuda_home_is_not_mended_with_a_toolkit_that_torch_refuses() -> None:
    facts = make.variables(make.bare(toolkits=(CUDA13,)), CUDA_HOME="/etc/hostname")
    (fix,) = make.outcomes("cuda-home-invalid", facts, BUILD)[0].fix
    assert fix.commands[0] == "nox -s toolchain -- --stack verl-sglang-cu124"


def test_cuda_home_is_mended_for_the_torch_that_runs() -> None:
    facts = make.variables(replace(OF_CUDA_13, toolkits=(CUDA13,)), CUDA_HOME="/etc/hostname")
    (fix,) = make.outcomes("cuda-home-invalid", facts, LAUNCH)[0].fix
    assert fix.commands == ("export CUDA_HOME=/usr/local/cuda",)


def test_a_gpu_that_the_stacks_own_toolkit_does_not_know_wants_another_stack() -> None:
    (fix,) = make.outcomes("nvcc-too-old-for-gpu", make.bare(gpus=BLACKWELL), BUILD)[0].fix
    assert fix.text.startswith("Take a stack of CUDA >=12.8")
    assert fix.commands == ()


def test_nvcc_without_headers_names_where_the_headers_are() -> None:
    (apart,) = make.outcomes("cuda-home-invalid", make.bare(toolkits=(BARE_NVCC, WHOLE)), BUILD)
    assert apart.found == "no cuda_runtime.h below /usr/local"
    assert apart.fix[0].commands == (f"export CUDA_HOME={WHOLE.path}",)
    prefix = "/home/me/miniforge3/envs/verl"
    python = make.python(environment="conda", prefix=prefix, conda_prefix=prefix)
    facts = make.bare(python=python, toolkits=(make.toolkit(path=prefix, headers=False),))
    (conda,) = make.outcomes("cuda-home-invalid", facts, BUILD)
    assert conda.fix[0].commands == (f"conda install -p {prefix} -y -c conda-forge cuda-toolkit=12.4.1",)


def test_a_toolkit_that_torch_refuses_is_not_completed() -> None:
    bare, whole = replace(CUDA13, path="/usr/local", headers=False), replace(CUDA13, selected=False)
    (found,) = make.outcomes("cuda-home-invalid", make.bare(toolkits=(bare, whole)), BUILD)
    assert [fix.commands[0] for fix in found.fix] == ["nox -s toolchain -- --stack verl-sglang-cu124"]
