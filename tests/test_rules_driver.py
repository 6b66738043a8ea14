"""Driver and GPUs: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Container, DriverLibrary, Extension, FabricManager, Facts
from envcheck.rules.gpu import runs_machine_code, runs_ptx
from tests import factories as make

BUILD = make.target(stage="build")
LAUNCH = make.target()
DOCKER = Container(runtime="docker")
RTX_3090 = (make.gpu("NVIDIA GeForce RTX 3090", "8.6", 24),)
RTX_5090 = (make.gpu("NVIDIA GeForce RTX 5090", "12.0", 32),)
V100 = (make.gpu("Tesla V100S-PCIE-32GB", "7.0", 32),)
L40S = (make.gpu("NVIDIA L40S", "8.9", 48),)


def lib(path: str, version: str | Unknown, kind: Any, *, loads: bool = True) -> DriverLibrary:
    return DriverLibrary(name="libcuda.so.1", path=path, version=version, kind=kind, loads=loads)


OWN = lib("/usr/lib/x86_64-linux-gnu/libcuda.so.1", make.DRIVER, "driver", loads=False)
COMPAT = "/usr/local/cuda/compat/libcuda.so.1"
STUB = lib("/usr/local/cuda/lib64/stubs/libcuda.so.1", Unknown("no version"), "stub")


def driven(version: str | Unknown, cuda: str, **changes: Any) -> Facts:
    return make.healthy(driver=make.driver(version, cuda, **changes))


def loading(*found: DriverLibrary, **changes: Any) -> Facts:
    return make.healthy(driver=make.driver(libraries=found), **changes)


def fabric(active: Any = True, version: Any = make.DRIVER, state: Any = "completed", **changes: Any) -> Facts:
    found = FabricManager(nvswitch=True, active=active, version=version, state=state)
    return make.healthy(driver=make.driver(fabric_manager=found), **changes)


CPU = make.healthy(driver=make.no_driver(), gpus=())
TORCH_13 = make.package("torch", "2.11.0", cuda="13.0")
ONLY_PTX = (Extension(path="/x.so", archs=("8.0", "8.0+PTX")),)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("driver-missing", make.healthy(), LAUNCH, "ok", id="there"),
        pytest.param("driver-missing", CPU, BUILD, "not-applicable", id="building-needs-none"),
        pytest.param("driver-missing", CPU, LAUNCH, "error", id="none"),
        pytest.param("driver-missing", replace(CPU, container=DOCKER), LAUNCH, "error", id="none-in-the-container"),
        pytest.param("driver-missing", make.healthy(gpus=()), LAUNCH, "ok", id="hidden-gpus"),
        pytest.param("no-gpu-visible", make.healthy(), LAUNCH, "ok", id="eight"),
        pytest.param("no-gpu-visible", make.healthy(gpus=()), LAUNCH, "error", id="hidden"),
        pytest.param("no-gpu-visible", CPU, LAUNCH, "not-applicable", id="no-driver-for-one"),
        pytest.param("no-gpu-visible", make.healthy(gpus=Unknown("NVML")), LAUNCH, "unknown", id="count-unread"),
        pytest.param(
            "driver-missing",
            make.healthy(driver=replace(make.no_driver(), present=True, libraries=(STUB,))),
            LAUNCH,
            "error",
            id="a-stub-alone",
        ),
        pytest.param("driver-missing", make.healthy(driver=Unknown("NVML")), LAUNCH, "unknown", id="unread"),
        pytest.param("driver-too-old", make.healthy(), LAUNCH, "ok", id="native"),
        pytest.param("driver-too-old", driven("550.54.14", "12.4"), LAUNCH, "ok", id="550.54.14"),
        pytest.param(
            "driver-too-old", driven("535.183.06", "12.2"), LAUNCH, "ok", id="535-by-minor-version-compatibility"
        ),
        pytest.param("driver-too-old", driven("525.60.13", "12.0"), LAUNCH, "ok", id="525.60.13"),
        pytest.param("driver-too-old", driven("525.60.11", "12.0"), LAUNCH, "error", id="525.60.11"),
        pytest.param("driver-too-old", driven("470.57.02", "11.4"), LAUNCH, "error", id="470"),
        pytest.param("driver-too-old", driven("470.57.02", "11.4"), BUILD, "error", id="470-at-build"),
        pytest.param(
            "driver-too-old", make.bare(driver=make.driver("470.57.02", "11.4")), BUILD, "error", id="470-bare"
        ),
        pytest.param("driver-too-old", driven("580.95.05", "13.0"), LAUNCH, "ok", id="580"),
        pytest.param(
            "driver-too-old",
            make.having(make.healthy(driver=make.driver("570.86.10", "12.8")), TORCH_13),
            BUILD,
            "error",
            id="unpinned-torch-of-cuda-13",
        ),
        pytest.param(
            "driver-too-old",
            make.changed(make.healthy(driver=make.driver("535.183.06", "12.2")), "flash-attn", extensions=ONLY_PTX),
            LAUNCH,
            "warning",
            id="ptx-alone-for-this-gpu",
        ),
        pytest.param(
            "driver-too-old",
            driven(Unknown("NVML"), "11.4"),
            LAUNCH,
            "error",
            id="cuda-of-the-driver-alone",
        ),
        pytest.param(
            "driver-too-old",
            make.healthy(
                driver=make.driver("470.57.02", "11.4", libraries=(lib(COMPAT, "550.54.15", "compat"),)),
            ),
            LAUNCH,
            "ok",
            id="forward-compatibility",
        ),
        pytest.param(
            "driver-too-old",
            make.having(make.healthy(), make.package("sglang", "0.4.9.post2")),
            LAUNCH,
            "error",
            id="green-contexts-are-newer",
        ),
        pytest.param("driver-too-old", CPU, LAUNCH, "not-applicable", id="no-driver"),
        pytest.param("driver-too-old", make.healthy(driver=Unknown("NVML")), LAUNCH, "unknown", id="driver-unread"),
        pytest.param("driver-library-differs", make.healthy(), LAUNCH, "ok", id="same"),
        pytest.param(
            "driver-library-differs", driven("460.73.01", "11.2", kernel_module="460.56"), LAUNCH, "error", id="updated"
        ),
        pytest.param(
            "driver-library-differs",
            make.healthy(driver=make.driver(nvml_error="Driver/library version mismatch", kernel_module=None)),
            LAUNCH,
            "error",
            id="nvml-says-so",
        ),
        pytest.param(
            "driver-library-differs", loading(lib(COMPAT, "570.86.10", "compat")), LAUNCH, "ok", id="compat-may-differ"
        ),
        pytest.param(
            "driver-library-differs",
            driven("550.54.15", "12.4", kernel_module=Unknown("x")),
            LAUNCH,
            "unknown",
            id="module",
        ),
        pytest.param("cuda-compat-shadows-driver", make.healthy(), LAUNCH, "ok", id="own"),
        pytest.param("cuda-compat-shadows-driver", loading(OWN, STUB), LAUNCH, "error", id="stub"),
        pytest.param(
            "cuda-compat-shadows-driver", loading(OWN, lib(COMPAT, "535.54.03", "compat")), LAUNCH, "error", id="older"
        ),
        pytest.param(
            "cuda-compat-shadows-driver",
            loading(OWN, lib(COMPAT, "570.86.10", "compat")),
            LAUNCH,
            "ok",
            id="newer-on-h100",
        ),
        pytest.param(
            "cuda-compat-shadows-driver",
            loading(OWN, lib(COMPAT, "570.86.10", "compat"), gpus=RTX_3090),
            LAUNCH,
            "error",
            id="geforce",
        ),
        pytest.param(
            "cuda-compat-shadows-driver",
            make.variables(loading(loader=()), LD_LIBRARY_PATH="/usr/local/cuda/lib64/stubs"),
            LAUNCH,
            "error",
            id="by-ld-library-path",
        ),
        pytest.param("cuda-compat-shadows-driver", CPU, LAUNCH, "not-applicable", id="no-driver-to-hide"),
        pytest.param(
            "cuda-compat-shadows-driver", make.healthy(driver=Unknown("x")), LAUNCH, "unknown", id="compat-unread"
        ),
    ],
)
def test_driver(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


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
            make.having(
                make.healthy(gpus=RTX_5090),
                make.package("torch", "2.7.0", cuda="12.8", archs=("9.0", "12.0")),
                make.package("flash-attn", "2.7.4.post1", archs=("12.0",)),
                make.package("sgl-kernel", "0.1.4", built_for={"cuda": "12.4"}),
            ),
            "error",
            id="sgl-kernel-by-its-label",
        ),
        pytest.param("gpu-arch-not-built", CPU, "not-applicable", id="no-gpu"),
        pytest.param("gpu-arch-not-built", make.healthy(packages=Unknown("x")), "unknown", id="packages-unread"),
        pytest.param("gpu-too-old", make.healthy(), "ok", id="hopper-is-new"),
        pytest.param("gpu-too-old", make.healthy(gpus=V100), "error", id="volta"),
        pytest.param("gpu-too-old", CPU, "not-applicable", id="no-gpu-to-judge"),
        pytest.param("gpu-too-old", make.healthy(gpus=Unknown("NVML")), "unknown", id="gpus-unread"),
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


def test_the_note_on_an_older_driver_says_what_does_not_run() -> None:
    outcome = make.outcomes("driver-too-old", driven("535.183.06", "12.2"), LAUNCH)[0]
    assert outcome.outcome == "ok"
    assert "PTX" in outcome.summary


def test_the_stacks_torch_is_offered_before_another_driver() -> None:
    facts = make.having(make.healthy(driver=make.driver("570.86.10", "12.8")), TORCH_13)
    assert "12.4" in make.outcomes("driver-too-old", facts, BUILD)[0].fix[0].text


def test_a_wheel_that_is_built_here_is_built_for_the_gpu() -> None:
    facts = make.changed(make.healthy(), "flash-attn", extensions=(Extension(path="/x.so", archs=("8.0",)),))
    assert make.outcomes("gpu-arch-not-built", facts, LAUNCH)[0].fix[0].commands == (
        "nox -s build-flash-attn -- --archs 9.0",
    )
