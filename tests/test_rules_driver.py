"""The driver: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import STARTED_BY_OTHERS, Container, DriverLibrary, Extension, Facts
from tests import factories as make

BUILD = make.target(stage="build")
LAUNCH = make.target()
DOCKER = Container(runtime="docker")
RTX_3090 = (make.gpu("NVIDIA GeForce RTX 3090", "8.6", 24),)


def lib(path: str, version: str | Unknown, kind: Any, *, loads: bool = True) -> DriverLibrary:
    return DriverLibrary(name="libcuda.so.1", path=path, version=version, kind=kind, loads=loads)


OWN = lib("/usr/lib/x86_64-linux-gnu/libcuda.so.1", make.DRIVER, "driver", loads=False)
COMPAT = "/usr/local/cuda/compat/libcuda.so.1"
STUB = lib("/usr/local/cuda/lib64/stubs/libcuda.so.1", Unknown("no version"), "stub")


def driven(version: str | Unknown, cuda: str, **changes: Any) -> Facts:
    return make.healthy(driver=make.driver(version, cuda, **changes))


def loading(*found: DriverLibrary, **changes: Any) -> Facts:
    return make.healthy(driver=make.driver(libraries=found), **changes)


CPU = make.healthy(driver=make.no_driver(), gpus=())
TORCH_13 = make.package("torch", "2.11.0", cuda="13.0")
ONLY_PTX = (Extension(path="/x.so", archs=("8.0", "8.0+PTX")),)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("driver-missing", make.healthy(), LAUNCH, "ok", id="there"),
        pytest.param("driver-missing", CPU, BUILD, "not-applicable", id="building-needs-none"),
        pytest.param("driver-missing", CPU, LAUNCH, "error", id="none"),
        pytest.param("driver-missing", replace(CPU, container=DOCKER), LAUNCH, "not-applicable", id="not-given"),
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
            loading(lib("/usr/lib/x86_64-linux-gnu/libcuda.so.1", "555.42.02", "driver")),
            LAUNCH,
            "error",
            id="another-libcuda-loads",
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


def test_the_note_on_an_older_driver_says_what_does_not_run() -> None:
    outcome = make.outcomes("driver-too-old", driven("535.183.06", "12.2"), LAUNCH)[0]
    assert outcome.outcome == "ok"
    assert "PTX" in outcome.summary


def test_the_stacks_torch_is_offered_before_another_driver() -> None:
    facts = make.having(make.healthy(driver=make.driver("570.86.10", "12.8")), TORCH_13)
    assert "12.4" in make.outcomes("driver-too-old", facts, BUILD)[0].fix[0].text


def test_a_tegra_driver_is_judged_by_its_cuda() -> None:
    assert make.outcomes("driver-too-old", driven("540.4.0", "12.6"), LAUNCH)[0].found == ""
    assert "minor-version" in make.outcomes("driver-too-old", driven("535.183.06", "12.2"), LAUNCH)[0].summary


def test_a_host_without_a_gpu_is_not_told_to_install_a_driver() -> None:
    texts = " ".join(fix.text for fix in make.outcomes("driver-missing", CPU, LAUNCH)[0].fix)
    assert "has no NVIDIA GPU" in texts
    silent = make.healthy(driver=make.no_driver())
    assert "Install driver 550" in make.outcomes("driver-missing", silent, LAUNCH)[0].fix[0].text


@pytest.mark.parametrize("rule", ["driver-too-old", "nvcc-newer-than-driver"])
def test_an_image_is_built_without_a_driver_and_not_started_without(rule: str) -> None:
    image = make.bare(driver=STARTED_BY_OTHERS, gpus=())
    assert make.said(rule, image, BUILD) == "not-applicable"
    assert make.said(rule, image, LAUNCH) == "unknown"
