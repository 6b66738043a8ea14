"""GPUs: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Container, Extension, FabricManager, Facts
from envcheck.report.machine import described
from envcheck.rules.gpu import runs_machine_code, runs_ptx
from tests import factories as make

LAUNCH = make.target()
DOCKER = Container(runtime="docker")
RTX_3090 = (make.gpu("NVIDIA GeForce RTX 3090", "8.6", 24),)
RTX_5090 = (make.gpu("NVIDIA GeForce RTX 5090", "12.0", 32),)
V100 = (make.gpu("Tesla V100S-PCIE-32GB", "7.0", 32),)
L40S = (make.gpu("NVIDIA L40S", "8.9", 48),)


def fabric(active: Any = True, version: Any = make.DRIVER, state: Any = "completed", **changes: Any) -> Facts:
    found = FabricManager(nvswitch=True, active=active, version=version, state=state)
    return make.healthy(driver=make.driver(fabric_manager=found), **changes)


BLACKWELL = make.having(
    make.healthy(gpus=RTX_5090),
    make.package("torch", "2.7.0", cuda="12.8", archs=("9.0", "12.0")),
    make.package("flash-attn", "2.7.4.post1", archs=("12.0",)),
)
FLASHMLA = Extension(path="/s/flashmla_ops.abi3.so", archs=("9.0a",))
FOR_12 = (Extension(path="/s/common_ops.abi3.so", archs=("12.0",)),)
FOR_8 = (Extension(path="/s/common_ops.abi3.so", archs=("8.0",)),)
SPLIT = replace(make.gpu(), mig="enabled")
CPU = make.healthy(driver=make.no_driver(), gpus=())


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param("gpu-arch-not-built", make.healthy(), "ok", id="hopper"),
        pytest.param("gpu-arch-not-built", make.healthy(gpus=L40S), "ok", id="ada-runs-code-of-ampere"),
        pytest.param("gpu-arch-not-built", make.healthy(gpus=RTX_5090), "error", id="blackwell"),
        pytest.param(
            "gpu-arch-not-built",
            make.changed(make.healthy(), "flash-attn", extensions=(Extension(path="/x.so", archs=("8.0", "8.6")),)),
            "error",
            id="flash-attn-without-hopper",
        ),
        pytest.param(
            "gpu-arch-not-built",
            make.having(BLACKWELL, make.package("sgl-kernel", "0.4", built_for={"cuda": "12.4"})),
            "error",
            id="sgl-kernel-by-its-label",
        ),
        pytest.param(
            "gpu-arch-not-built",
            make.having(make.without(BLACKWELL, "flash-attn"), make.package("sgl-kernel", "0.1.9")),
            "error",
            id="sgl-kernel-by-its-release",
        ),
        pytest.param(
            "gpu-arch-not-built",
            make.having(BLACKWELL, make.package("sgl-kernel", "0.2.5", extensions=(FLASHMLA, *FOR_12))),
            "warning",
            id="a-part-for-older-gpus",
        ),
        pytest.param(
            "gpu-arch-not-built",
            make.changed(make.healthy(gpus=(make.gpu("A100", "8.0"),)), "sgl-kernel", extensions=(FLASHMLA, *FOR_8)),
            "ok",
            id="a-part-for-newer-gpus",
        ),
        pytest.param("gpu-arch-not-built", CPU, "not-applicable", id="no-gpu"),
        pytest.param("gpu-arch-not-built", make.healthy(packages=Unknown("x")), "unknown", id="packages-unread"),
        pytest.param("gpu-too-old", make.healthy(), "ok", id="hopper-is-new"),
        pytest.param("gpu-too-old", make.healthy(gpus=V100), "error", id="volta"),
        pytest.param("gpu-too-old", CPU, "not-applicable", id="no-gpu-to-judge"),
        pytest.param("gpu-too-old", make.healthy(gpus=Unknown("NVML")), "unknown", id="gpus-unread"),
        pytest.param("mig-enabled", make.healthy(), "ok", id="whole"),
        pytest.param("mig-enabled", make.healthy(gpus=(SPLIT,)), "ok", id="one-instance"),
        pytest.param("mig-enabled", make.healthy(gpus=(SPLIT, make.gpu())), "warning", id="several-split"),
        pytest.param("mig-enabled", CPU, "not-applicable", id="none-to-split"),
        pytest.param("mig-enabled", make.healthy(gpus=(replace(SPLIT, mig=Unknown("x")),)), "unknown", id="mig-unread"),
        pytest.param("fabric-manager-not-ready", make.healthy(), "not-applicable", id="no-switches"),
        pytest.param("fabric-manager-not-ready", fabric(), "ok", id="completed"),
        pytest.param("fabric-manager-not-ready", fabric(active=False, state="not reported"), "error", id="stopped"),
        pytest.param("fabric-manager-not-ready", fabric(version="550.54.14"), "error", id="another-version"),
        pytest.param("fabric-manager-not-ready", fabric(state="in progress"), "error", id="never-completes"),
        pytest.param(
            "fabric-manager-not-ready",
            fabric(active=Unknown("outside"), version=Unknown("outside"), container=DOCKER),
            "ok",
            id="outside-the-container",
        ),
        pytest.param("fabric-manager-not-ready", fabric(state=Unknown("NVML")), "unknown", id="state-unread"),
        pytest.param("mixed-gpus", make.healthy(), "ok", id="alike"),
        pytest.param("mixed-gpus", make.healthy(gpus=RTX_3090 + L40S), "warning", id="two-kinds"),
        pytest.param(
            "mixed-gpus",
            make.variables(make.healthy(gpus=RTX_3090 + L40S), CUDA_VISIBLE_DEVICES="1"),
            "ok",
            id="one-visible",
        ),
        pytest.param("mixed-gpus", make.healthy(gpus=Unknown("NVML")), "unknown", id="kinds-unread"),
        pytest.param("vgpu-unsupported", make.healthy(), "ok", id="whole"),
        pytest.param(
            "vgpu-unsupported", make.healthy(gpus=(make.gpu("NVIDIA L40S-48C", "8.9"),)), "warning", id="a-part"
        ),
        pytest.param("vgpu-unsupported", make.healthy(gpus=(make.gpu("GRID A100-8C", "8.0"),)), "warning", id="grid"),
        pytest.param(
            "vgpu-unsupported", make.healthy(gpus=(make.gpu("NVIDIA A100-SXM4-40GB", "8.0"),)), "ok", id="sxm"
        ),
        pytest.param(
            "vgpu-unsupported",
            make.variables(make.healthy(gpus=(make.gpu("NVIDIA L40S-48C", "8.9"),)), NCCL_P2P_DISABLE="1"),
            "ok",
            id="nccl-was-told",
        ),
        pytest.param("vgpu-unsupported", make.healthy(gpus=Unknown("NVML")), "unknown", id="names-unread"),
    ],
)
def test_gpus(rule: str, facts: Facts, expected: str) -> None:
    assert make.said(rule, facts, LAUNCH) == expected


@pytest.mark.parametrize(
    ("archs", "gpu", "machine_code", "ptx"),
    [
        pytest.param(("8.0",), "8.6", True, False, id="higher-minor"),
        pytest.param(("8.6",), "8.0", False, False, id="lower-minor"),
        pytest.param(("8.0",), "9.0", False, False, id="other-major"),
        pytest.param(("9.0a",), "9.0", True, False, id="own-gpu"),
        pytest.param(("10.0a",), "10.3", False, False, id="not-its-gpu"),
        pytest.param(("10.0f",), "10.3", True, False, id="family"),
        pytest.param(("8.0+PTX",), "9.0", False, True, id="ptx"),
        pytest.param(("9.0+PTX",), "8.0", False, False, id="ptx-of-a-newer"),
    ],
)
def test_which_code_runs_where(archs: tuple[str, ...], gpu: str, *, machine_code: bool, ptx: bool) -> None:
    assert (runs_machine_code(archs, gpu), runs_ptx(archs, gpu)) == (machine_code, ptx)


def test_a_wheel_that_is_built_here_is_built_for_the_gpu() -> None:
    facts = make.changed(make.healthy(), "flash-attn", extensions=(Extension(path="/x.so", archs=("8.0",)),))
    assert make.outcomes("gpu-arch-not-built", facts, LAUNCH)[0].fix[0].commands == (
        "nox -s build-flash-attn -- --stack verl-sglang-cu124 --engine sglang --archs 9.0",
    )


@pytest.mark.parametrize(
    ("facts", "texts"),
    [
        pytest.param(
            make.healthy(gpus=RTX_5090),
            {"This stack has no build for this GPU; take a stack of CUDA >=12.8: sm_120 is known from CUDA 12.8 on"},
            id="newer-than-the-stacks-toolkit",
        ),
        pytest.param(
            make.healthy(gpus=V100),
            {
                "Use another GPU: FlashAttention 2 supports Ampere GPUs and newer only",
                "Use another GPU: sgl-kernel 0.1.0, which the stack pins, has no code for it",
            },
            id="older-than-the-kernels",
        ),
        pytest.param(
            make.having(make.healthy(), make.package("sgl-kernel", "0.0.9", archs=("8.0",))),
            {"Install the locked build"},
            id="another-version-than-the-locked-one",
        ),
    ],
)
def test_no_build_is_offered_that_cannot_be_made(facts: Facts, texts: set[str]) -> None:
    found = make.outcomes("gpu-arch-not-built", facts, LAUNCH)
    assert {fix.text for outcome in found for fix in outcome.fix} == texts


def test_mig_is_turned_off_where_this_is_the_machine() -> None:
    facts = make.healthy(gpus=(SPLIT, SPLIT))
    assert make.outcomes("mig-enabled", facts)[0].fix[0].commands == ("sudo nvidia-smi -mig 0",)
    assert make.outcomes("mig-enabled", replace(facts, container=DOCKER))[0].fix[0].commands == ()
    assert "2 x NVIDIA H100 80GB HBM3 (MIG)" in described(facts)
