"""PTX: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Facts
from tests import factories as make

BUILD = make.target(stage="build")
LAUNCH = make.target()
CUDA13 = make.toolkit("13.0.2", path="/usr/local/cuda", gcc_max=15)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("nvcc-newer-than-driver", make.healthy(), BUILD, "ok", id="same"),
        pytest.param(
            "nvcc-newer-than-driver",
            make.healthy(driver=make.driver("535.183.06", "12.2")),
            LAUNCH,
            "ok",
            id="the-stacks-own-cuda-on-535",
        ),
        pytest.param(
            "nvcc-newer-than-driver",
            make.healthy(toolkits=(make.toolkit("12.8.1"),)),
            LAUNCH,
            "warning",
            id="newer-minor",
        ),
        pytest.param(
            "nvcc-newer-than-driver", make.bare(toolkits=(CUDA13,)), BUILD, "warning", id="other-major-to-build"
        ),
        pytest.param(
            "nvcc-newer-than-driver", make.healthy(toolkits=(CUDA13,)), LAUNCH, "error", id="other-major-to-run"
        ),
        pytest.param(
            "nvcc-newer-than-driver",
            make.variables(make.healthy(driver=make.driver("535.183.06", "12.2")), TORCH_CUDA_ARCH_LIST="8.0+PTX"),
            LAUNCH,
            "warning",
            id="ptx-asked-for",
        ),
        pytest.param(
            "nvcc-newer-than-driver", make.bare(driver=make.no_driver()), BUILD, "not-applicable", id="no-driver"
        ),
        pytest.param("nvcc-newer-than-driver", make.bare(driver=Unknown("NVML")), BUILD, "unknown", id="driver-unread"),
        pytest.param("ptxas-too-old", make.healthy(), BUILD, "ok", id="same"),
        pytest.param("ptxas-too-old", make.bare(toolkits=(make.toolkit(ptxas="11.8.89"),)), BUILD, "error", id="mixed"),
        pytest.param(
            "ptxas-too-old", make.bare(toolkits=(make.toolkit(ptxas=Unknown("hangs")),)), BUILD, "ok", id="ptxas-unread"
        ),
        pytest.param(
            "ptxas-too-old",
            make.having(make.healthy(gpus=(make.gpu("NVIDIA GB10", "12.1"),)), make.package("triton", "3.5.1")),
            LAUNCH,
            "error",
            id="tritons-own",
        ),
        pytest.param(
            "ptxas-too-old",
            make.having(make.healthy(gpus=(make.gpu("RTX 5090", "12.0"),)), make.package("triton", "3.2.0")),
            LAUNCH,
            "error",
            id="triton-3.2-on-blackwell",
        ),
        pytest.param(
            "ptxas-too-old",
            make.variables(
                make.having(make.healthy(gpus=(make.gpu("NVIDIA GB10", "12.1"),)), make.package("triton", "3.5.1")),
                TRITON_PTXAS_PATH="/usr/local/cuda/bin/ptxas",
            ),
            LAUNCH,
            "ok",
            id="another-is-named",
        ),
        pytest.param(
            "ptxas-too-old", make.bare(toolkits=Unknown("no file can be read")), BUILD, "unknown", id="unread"
        ),
    ],
)
def test_ptx(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


def test_a_driver_of_an_older_major_is_what_is_too_old() -> None:
    facts = make.healthy(driver=make.driver("470.256.02", "11.4"))
    texts = [fix.text for fix in make.outcomes("nvcc-newer-than-driver", facts, LAUNCH)[0].fix]
    assert texts[-1] == "Without root: ask the administrator for driver 525.60.13 or newer"
    assert not [text for text in texts if "toolkit" in text or "Provision" in text]


def test_another_major_of_nvcc_is_replaced_by_the_stacks_toolkit() -> None:
    fix = make.outcomes("nvcc-newer-than-driver", make.healthy(toolkits=(CUDA13,)), LAUNCH)[0].fix
    assert fix[0].commands[0] == "nox -s toolchain -- --stack verl-sglang-cu124"
