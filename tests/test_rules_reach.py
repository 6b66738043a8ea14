"""What a process reaches: GPUs by number, device files, interfaces, tasks, shared memory that is not full."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.facts import Container, Driver, DriverLibrary, Facts, Gpu, Wish
from envcheck.rules.interfaces import GLOO, NCCL, chosen
from tests import factories as make

LAUNCH = make.target()
IN_DOCKER = Container(runtime="docker", nvidia_visible_devices="all")
POD = Container(runtime="kubernetes")
MANAGEMENT = DriverLibrary(
    name="libnvidia-ml.so.1",
    path="/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    version=make.DRIVER,
    kind="driver",
    loads=True,
)
SLICE = Gpu(name="NVIDIA A100-SXM4-80GB", compute_capability="8.0", memory_bytes=40 << 30, mig="3g.40gb")
HAVE = ("docker0", "eno1", "ib0", "lo")


def limits(**changes: Any) -> Facts:
    return make.healthy(resources=make.resources(**changes))


def on(facts: Facts, **values: str) -> Facts:
    return make.variables(facts, **values)


def saying(error: str, **changes: Any) -> Facts:
    return make.healthy(driver=make.driver(nvml_error=error), gpus=(), **changes)


def given(driver: Driver, **changes: Any) -> Facts:
    return make.healthy(driver=driver, container=IN_DOCKER, **changes)


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param(
            "cuda-visible-devices-unsupported",
            on(make.healthy(gpus=(make.gpu(), make.gpu())), CUDA_VISIBLE_DEVICES="0,1,2,3"),
            "error",
            id="four-of-two",
        ),
        pytest.param(
            "cuda-visible-devices-unsupported",
            on(make.healthy(gpus=()), CUDA_VISIBLE_DEVICES="0,1"),
            "ok",
            id="gpus-were-not-counted",
        ),
        pytest.param("driver-missing", given(make.driver(libraries=(MANAGEMENT,))), "error", id="utility-alone"),
        pytest.param(
            "driver-missing", make.healthy(driver=make.driver(libraries=(MANAGEMENT,))), "error", id="half-a-driver"
        ),
        pytest.param("driver-missing", make.healthy(driver=make.driver(libraries=())), "ok", id="libraries-unread"),
        pytest.param(
            "driver-library-differs", saying("NVML: Function Not Found"), "error", id="a-library-of-another-version"
        ),
        pytest.param(
            "device-cgroup-reload", saying("NVML: Unknown Error", container=IN_DOCKER), "error", id="gpus-lost"
        ),
        pytest.param(
            "device-cgroup-reload", make.healthy(container=IN_DOCKER), "not-applicable", id="a-container-with-gpus"
        ),
        pytest.param(
            "nvidia-runtime-missing",
            saying("NVML: Insufficient Permissions", container=IN_DOCKER),
            "error",
            id="device-files-of-others",
        ),
        pytest.param(
            "nvidia-runtime-missing",
            given(make.driver(device_nodes=("/dev/nvidia0", "/dev/nvidiactl"))),
            "error",
            id="no-unified-memory-device",
        ),
        pytest.param(
            "nvidia-runtime-missing",
            given(make.driver(device_nodes=("/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"))),
            "ok",
            id="all-devices",
        ),
        pytest.param(
            "mig-enabled",
            make.healthy(gpus=(SLICE, SLICE)),
            "warning",
            id="two-slices",
        ),
        pytest.param("mig-enabled", make.healthy(gpus=(SLICE,)), "ok", id="one-slice"),
        pytest.param("process-limit-low", limits(tasks_limit=4096), "warning", id="4096-tasks"),
        pytest.param("process-limit-low", limits(tasks_limit=100_000), "ok", id="many-tasks"),
        pytest.param("shm-too-small", limits(shm_free_bytes=1 << 20), "error", id="shm-full"),
        pytest.param("shm-too-small", limits(shm_free_bytes=None), "ok", id="shm-not-asked"),
        pytest.param("locked-memory-low", limits(locked_memory=1 << 16, interfaces=("ib0", "lo")), "warning", id="ib0"),
        pytest.param(
            "locked-memory-low",
            on(limits(locked_memory=1 << 16, interfaces=("ib0", "lo")), NCCL_IB_DISABLE="1"),
            "not-applicable",
            id="infiniband-switched-off",
        ),
        pytest.param(
            "network-interface-unresolved",
            on(limits(interfaces=HAVE), NCCL_SOCKET_IFNAME="eth0"),
            "error",
            id="no-such-interface",
        ),
        pytest.param(
            "network-interface-unresolved",
            on(limits(interfaces=HAVE), NCCL_SOCKET_IFNAME="en"),
            "ok",
            id="the-beginning-of-a-name",
        ),
        pytest.param(
            "network-interface-unresolved",
            on(limits(interfaces=()), NCCL_SOCKET_IFNAME="eth0"),
            "ok",
            id="interfaces-unread",
        ),
        pytest.param(
            "memory-saver-preload-missing",
            make.bare(wish=Wish(memory_saver=True)),
            "error",
            id="asked-for-and-not-installed",
        ),
    ],
)
def test_what_a_process_reaches(rule: str, facts: Facts, expected: str) -> None:
    assert make.said(rule, facts, LAUNCH) == expected


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        (NCCL, "eno,ib0", ("eno1", "ib0")),
        (NCCL, "=eno", ()),
        (NCCL, "=ib0:1", ("ib0",)),
        (NCCL, "^docker,lo", ("eno1", "ib0")),
        (GLOO, "eno", ()),
        (GLOO, "eno1", ("eno1",)),
    ],
)
def test_interfaces_that_a_value_selects(name: str, value: str, found: tuple[str, ...]) -> None:
    assert chosen(name, value, HAVE) == found


@pytest.mark.parametrize(
    ("container", "text"),
    [
        (None, "TasksMax=infinity"),
        (Container(runtime="apptainer"), "TasksMax=infinity"),
        (IN_DOCKER, "--pids-limit=-1"),
        (POD, "podPidsLimit"),
    ],
)
def test_more_tasks_are_given_where_this_runs(container: Container | None, text: str) -> None:
    facts = make.healthy(container=container, resources=make.resources(tasks_limit=1024))
    fix = make.outcomes("process-limit-low", facts, LAUNCH)[0].fix[0]
    assert text in f"{fix.text} {' '.join(fix.commands)}"
