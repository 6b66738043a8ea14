"""Containers and libraries that have to be found: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Container, Docker, Extension, Facts, LoaderEntry, Manifest, Wish
from tests import factories as make

LAUNCH = make.target()
BUILD = make.target(stage="build")
CTK = "1.17.4"
IN_DOCKER = Container(runtime="docker", nvidia_visible_devices="all")
POD = Container(runtime="kubernetes")
NO_GPU = make.healthy(driver=make.no_driver(), gpus=())


def engine(*runtimes: str, **changes: Any) -> Facts:
    given = {"engine": "27.3.1", "runtimes": runtimes, "cgroup_driver": "systemd", "nvidia_ctk": CTK}
    return make.healthy(docker=Docker(**{**given, **changes}))


def shm(megabytes: int, **changes: Any) -> Facts:
    return make.healthy(resources=make.resources(shm_bytes=megabytes << 20), **changes)


def image(
    packages: dict[str, str] | None = None, environment: dict[str, str] | None = None, stack: str = make.SEED
) -> Facts:
    return make.healthy(manifest=Manifest(stack=stack, packages=packages or {}, environment=environment or {}))


NO_LINKS = make.driver(char_symlinks=False)


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param("nvidia-runtime-missing", make.healthy(), "not-applicable", id="no-docker"),
        pytest.param("nvidia-runtime-missing", engine("runc", "nvidia"), "ok", id="configured"),
        pytest.param("nvidia-runtime-missing", engine("runc", cdi=("nvidia.com/gpu=all",)), "ok", id="cdi"),
        pytest.param(
            "nvidia-runtime-missing", engine("docker-runc", "runc", nvidia_ctk=None), "warning", id="no-toolkit"
        ),
        pytest.param("nvidia-runtime-missing", engine("runc"), "warning", id="not-configured"),
        pytest.param("nvidia-runtime-missing", engine("runc", "nvidia", snap=True), "warning", id="snap"),
        pytest.param("nvidia-runtime-missing", make.healthy(container=IN_DOCKER), "ok", id="in-a-container"),
        pytest.param(
            "nvidia-runtime-missing", replace(NO_GPU, container=IN_DOCKER), "error", id="started-without-gpus"
        ),
        pytest.param("nvidia-runtime-missing", replace(NO_GPU, container=POD), "error", id="pod-without-gpus"),
        pytest.param("nvidia-runtime-missing", make.healthy(docker=Unknown("socket")), "unknown", id="unread"),
        pytest.param("device-cgroup-reload", engine("nvidia"), "ok", id="links"),
        pytest.param("device-cgroup-reload", replace(engine("nvidia"), driver=NO_LINKS), "warning", id="no-links"),
        pytest.param(
            "device-cgroup-reload",
            replace(engine("nvidia", cgroup_driver="cgroupfs"), driver=NO_LINKS),
            "ok",
            id="cgroupfs",
        ),
        pytest.param(
            "device-cgroup-reload", replace(engine("nvidia", cgroup_driver=Unknown("x"))), "unknown", id="driver-unread"
        ),
        pytest.param("shm-too-small", make.healthy(), "ok", id="bare-metal"),
        pytest.param("shm-too-small", shm(64), "error", id="dockers-64-mb"),
        pytest.param("shm-too-small", shm(64, gpus=(make.gpu(),)), "warning", id="one-gpu"),
        pytest.param("shm-too-small", shm(0, gpus=(make.gpu(),)), "error", id="none-at-all"),
        pytest.param("shm-too-small", shm(4096, container=IN_DOCKER), "warning", id="4-gb"),
        pytest.param("shm-too-small", shm(16384), "ok", id="16-gb"),
        pytest.param(
            "shm-too-small",
            make.healthy(resources=make.resources(shm_bytes=Unknown("mounts"))),
            "unknown",
            id="shm-unread",
        ),
        pytest.param("image-drift", make.healthy(), "not-applicable", id="no-image-of-ours"),
        pytest.param("image-drift", image({"torch": "2.5.1"}, {"NVTE_FLASH_ATTN": "0"}), "ok", id="as-built"),
        pytest.param("image-drift", image({"torch": "2.4.0"}), "error", id="another-torch"),
        pytest.param("image-drift", image({"colorama": "1"}), "warning", id="another-package"),
        pytest.param("image-drift", image(environment={"CUDA_HOME": "/x"}), "warning", id="another-variable"),
        pytest.param("image-drift", image(stack=make.LTS), "warning", id="another-stack"),
        pytest.param("image-drift", make.healthy(manifest=Unknown("json")), "unknown", id="manifest-unread"),
    ],
)
def test_containers(rule: str, facts: Facts, expected: str) -> None:
    assert make.said(rule, facts, LAUNCH) == expected


@pytest.mark.parametrize(
    ("container", "text"),
    [
        pytest.param(None, "sudo mount -o remount,size=10G /dev/shm", id="bare-metal"),
        pytest.param(IN_DOCKER, "--shm-size=10g", id="docker"),
        pytest.param(POD, "emptyDir", id="kubernetes"),
        pytest.param(Container(runtime="podman"), "podman run --ipc=host", id="podman"),
        pytest.param(Container(runtime="apptainer"), "sudo mount -o remount,size=10G /dev/shm", id="apptainer"),
    ],
)
def test_more_shared_memory_is_given_where_this_runs(container: Container | None, text: str) -> None:
    ways = make.outcomes("shm-too-small", shm(64, container=container), LAUNCH)[0].fix
    assert text in " ".join(f"{fix.text} {' '.join(fix.commands)}" for fix in ways)


@pytest.mark.parametrize(
    ("container", "text"),
    [
        pytest.param(IN_DOCKER, "docker run --gpus all --ipc=host …", id="docker"),
        pytest.param(Container(runtime="podman"), "podman run --device nvidia.com/gpu=all --ipc=host …", id="podman"),
        pytest.param(
            Container(runtime="apptainer", image="/home/me/v.sif"),
            "apptainer exec --nv /home/me/v.sif …",
            id="apptainer",
        ),
        pytest.param(POD, "Ask for nvidia.com/gpu in the pod's resources", id="kubernetes"),
    ],
)
def test_a_container_gets_the_gpus_in_its_runtimes_words(container: Container, text: str) -> None:
    facts = make.healthy(driver=make.no_driver(), gpus=(), container=container)
    (fix,) = make.outcomes("nvidia-runtime-missing", facts, LAUNCH)[0].fix
    assert text in (fix.text, *fix.commands)


NOT_GIVEN = make.healthy(driver=make.no_driver(), gpus=(), container=IN_DOCKER)
HIDDEN = make.healthy(gpus=(), container=IN_DOCKER)
LOST = make.healthy(driver=make.driver(nvml_error="NVML: Unknown Error"), gpus=(), container=IN_DOCKER)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        pytest.param(NOT_GIVEN, "nvidia-runtime-missing", id="started-without-them"),
        pytest.param(HIDDEN, "nvidia-runtime-missing", id="only-the-driver"),
        pytest.param(LOST, "device-cgroup-reload", id="lost-at-a-reload"),
        pytest.param(replace(NOT_GIVEN, container=None), "driver-missing", id="no-container"),
        pytest.param(replace(HIDDEN, container=None), "no-gpu-visible", id="no-container-but-a-driver"),
    ],
)
def test_one_rule_says_why_there_is_no_gpu(facts: Facts, told: str) -> None:
    rules = ("driver-missing", "no-gpu-visible", "nvidia-runtime-missing", "device-cgroup-reload")
    assert [rule for rule in rules if make.said(rule, facts, LAUNCH) == "error"] == [told]


def test_whether_this_is_a_container_decides_which_rule_says_it() -> None:
    facts = replace(NOT_GIVEN, container=Unknown("/proc/1"))
    assert {make.said(rule, facts, LAUNCH) for rule in ("driver-missing", "nvidia-runtime-missing")} == {"unknown"}


def missing(package: str, *names: str) -> Facts:
    return make.changed(make.healthy(), package, extensions=(Extension(path="/x.so", needed=names, missing=names),))


NO_NUMA = LoaderEntry(library="libnuma.so.1", path=Unknown("libnuma.so.1 is not on the loader's path"))
NO_NVRTC = LoaderEntry(
    library="libnvrtc.so.12", path=Unknown("not on the path"), wanted="/s/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"
)
UNREAD_KERNEL = make.changed(make.healthy(loader=(NO_NVRTC,)), "sgl-kernel", extensions=())
NO_LINK = make.driver(libcuda_symlink=False)
CU13 = make.having(make.healthy(), make.package("torch", "2.11.0", cuda="13.0"))


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param("system-library-missing", make.healthy(), "ok", id="all-there"),
        pytest.param("system-library-missing", missing("sgl-kernel", "libnuma.so.1"), "error", id="libnuma"),
        pytest.param("system-library-missing", make.healthy(loader=(NO_NUMA,)), "error", id="libnuma-by-the-loader"),
        pytest.param("system-library-missing", missing("psutil", "libGL.so.1"), "warning", id="a-package-beside"),
        pytest.param("system-library-missing", missing("sgl-kernel", "libcuda.so.1"), "ok", id="not-the-systems"),
        pytest.param("system-library-missing", make.healthy(packages=Unknown("x")), "unknown", id="unread"),
        pytest.param("libnvrtc-not-found", make.healthy(), "ok", id="nvrtc-found"),
        pytest.param("libnvrtc-not-found", missing("sgl-kernel", "libnvrtc.so.12"), "error", id="by-the-bytes"),
        pytest.param("libnvrtc-not-found", UNREAD_KERNEL, "error", id="by-the-loader"),
        pytest.param(
            "libnvrtc-not-found",
            make.having(missing("sgl-kernel", "libnvrtc.so.12"), make.package("torch", "2.6.0", cuda="12.4")),
            "ok",
            id="torch-2.6-loads-it-first",
        ),
        pytest.param("libnvrtc-not-found", make.bare(), "not-applicable", id="no-user"),
        pytest.param("libnvrtc-not-found", replace(UNREAD_KERNEL, loader=Unknown("x")), "unknown", id="loader-unread"),
        pytest.param("libcuda-symlink-missing", make.healthy(), "ok", id="link"),
        pytest.param("libcuda-symlink-missing", make.healthy(driver=NO_LINK), "error", id="no-link"),
        pytest.param(
            "libcuda-symlink-missing",
            make.variables(make.healthy(driver=NO_LINK), TRITON_LIBCUDA_PATH="/x"),
            "ok",
            id="triton-was-told",
        ),
        pytest.param(
            "libcuda-symlink-missing", make.without(make.healthy(), "triton"), "not-applicable", id="no-triton"
        ),
        pytest.param("libcuda-symlink-missing", NO_GPU, "not-applicable", id="no-driver"),
        pytest.param("libcuda-symlink-missing", make.healthy(driver=Unknown("x")), "unknown", id="driver-not-read"),
        pytest.param("memory-saver-preload-missing", make.healthy(), "ok", id="sglang-preloads"),
        pytest.param(
            "memory-saver-preload-missing", make.variables(make.healthy(), LD_PRELOAD=""), "error", id="emptied"
        ),
        pytest.param(
            "memory-saver-preload-missing",
            make.variables(make.healthy(), LD_PRELOAD="/usr/lib/libjemalloc.so"),
            "ok",
            id="je",
        ),
        pytest.param(
            "memory-saver-preload-missing",
            make.variables(make.healthy(wish=Wish(memory_saver=True)), LD_PRELOAD="/usr/lib/libjemalloc.so"),
            "error",
            id="asked-for",
        ),
        pytest.param(
            "memory-saver-preload-missing",
            make.variables(CU13, LD_PRELOAD="/s/torch_memory_saver_hook_mode_preload_cu12.abi3.so"),
            "error",
            id="the-hook-of-another-cuda",
        ),
        pytest.param("memory-saver-preload-missing", CU13, "warning", id="libcudart-13-in-the-wheel-alone"),
        pytest.param(
            "memory-saver-preload-missing",
            make.variables(CU13, LD_LIBRARY_PATH="/s/nvidia/cu13/lib"),
            "ok",
            id="libcudart-13-named",
        ),
        pytest.param("memory-saver-preload-missing", make.bare(), "not-applicable", id="no-saver"),
        pytest.param(
            "memory-saver-preload-missing",
            make.variables(make.bare(), LD_PRELOAD="/opt/old/torch_memory_saver_cpp.abi3.so"),
            "error",
            id="the-hook-of-a-saver-that-is-gone",
        ),
        pytest.param("memory-saver-preload-missing", replace(CU13, loader=Unknown("x")), "unknown", id="saver-unread"),
    ],
)
def test_libraries(rule: str, facts: Facts, expected: str) -> None:
    assert make.said(rule, facts, LAUNCH) == expected


def test_the_package_of_the_distribution_is_named() -> None:
    facts = replace(missing("sgl-kernel", "libnuma.so.1"), os=make.system(id="rocky", like=("rhel",)))
    assert "sudo dnf install -y numactl-libs" in make.outcomes("system-library-missing", facts)[0].fix[0].commands
