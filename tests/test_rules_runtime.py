"""What a run meets and asks for: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Container, Facts, Manifest, Ray, Wish
from tests import factories as make

LAUNCH = make.target()
VLLM = make.target(engine="vllm")
TRAIN = make.target(stage="train")
UNREAD = make.healthy(resources=Unknown("/proc"))
CPU = make.healthy(driver=make.no_driver(), gpus=())
VISIBLE = "CUDA_VISIBLE_DEVICES"


def limits(**changes: Any) -> Facts:
    return make.healthy(resources=make.resources(**changes))


def told(**values: str) -> Facts:
    return make.variables(make.healthy(), **values)


def disks(*found: Any) -> Facts:
    return limits(disks=found)


def ray(**changes: Any) -> Facts:
    return make.healthy(ray=Ray(**changes))


def wish(**changes: Any) -> Facts:
    return make.healthy(wish=Wish(**changes))


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param("process-limit-low", make.healthy(), "ok", id="many-processes"),
        pytest.param("process-limit-low", limits(max_processes=4096), "warning", id="rhels-4096"),
        pytest.param("process-limit-low", limits(max_processes="unlimited"), "ok", id="unlimited"),
        pytest.param("process-limit-low", limits(max_processes=Unknown("x")), "unknown", id="processes-unread"),
        pytest.param("open-files-low", make.healthy(), "ok", id="many-files"),
        pytest.param("open-files-low", limits(open_files=1024), "warning", id="1024"),
        pytest.param("open-files-low", limits(open_files=1024, open_files_hard=2048), "warning", id="hard-2048"),
        pytest.param("open-files-low", limits(open_files=1024, open_files_hard=1 << 20), "ok", id="ray-raises-it"),
        pytest.param(
            "open-files-low", limits(open_files=1024, open_files_hard=Unknown("x")), "warning", id="hard-unread"
        ),
        pytest.param("open-files-low", limits(open_files=Unknown("x")), "unknown", id="files-unread"),
        pytest.param("locked-memory-low", limits(locked_memory=8 << 20), "not-applicable", id="no-infiniband"),
        pytest.param(
            "locked-memory-low",
            make.variables(limits(locked_memory=8 << 20), NCCL_IB_HCA="mlx5"),
            "warning",
            id="infiniband",
        ),
        pytest.param("locked-memory-low", told(NCCL_IB_HCA="mlx5"), "ok", id="unlimited-locks"),
        pytest.param("locked-memory-low", make.variables(UNREAD, NCCL_IB_HCA="mlx5"), "unknown", id="locks-unread"),
        pytest.param("host-memory-low", make.healthy(), "ok", id="900-gib"),
        pytest.param("host-memory-low", limits(memory_available_bytes=12 << 30), "warning", id="12-gib"),
        pytest.param("host-memory-low", limits(memory_limit_bytes=4 << 30), "error", id="cgroup-of-4-gib"),
        pytest.param("host-memory-low", UNREAD, "unknown", id="memory-unread"),
        pytest.param("ray-cpus-too-few", make.healthy(), "ok", id="96-cpus"),
        pytest.param("ray-cpus-too-few", limits(cpus=8), "error", id="8-cpus-8-gpus"),
        pytest.param("ray-cpus-too-few", replace(CPU, resources=make.resources(cpus=1)), "not-applicable", id="no-gpu"),
        pytest.param("ray-cpus-too-few", limits(cpus=Unknown("cpuset")), "unknown", id="cpus-unread"),
        pytest.param("disk-full", make.healthy(), "ok", id="space"),
        pytest.param(
            "disk-full", disks(make.disk("tmp", "/tmp", 0.1), make.disk("home", "/h")), "error", id="tmp-full"
        ),
        pytest.param("disk-full", disks(make.disk("cache", "/c", free_inodes=12)), "error", id="no-inodes"),
        pytest.param(
            "disk-full", disks(make.disk("home", "/h", free_inodes=0)), "ok", id="a-file-system-without-inodes"
        ),
        pytest.param("disk-full", disks(make.disk("docker", "/var/lib/docker", 0.1)), "warning", id="docker-full"),
        pytest.param("disk-full", disks(make.disk("tmp", "/tmp", free_bytes=Unknown("x"))), "ok", id="one-disk-unread"),
        pytest.param("disk-full", UNREAD, "unknown", id="disks-unread"),
        pytest.param("cache-not-writable", make.healthy(), "ok", id="own"),
        pytest.param(
            "cache-not-writable", disks(make.disk("cache", "/tmp/triton", writable=False)), "error", id="others"
        ),
        pytest.param("cache-not-writable", disks(make.disk("home", "/root", writable=False)), "warning", id="home"),
        pytest.param("cache-not-writable", disks(make.disk("docker", "/d", writable=False)), "ok", id="dockers-own"),
        pytest.param("cache-not-writable", UNREAD, "unknown", id="caches-unread"),
        pytest.param("jit-lock-stale", make.healthy(), "ok", id="no-lock"),
        pytest.param("jit-lock-stale", limits(jit_locks=("/c/norm/lock",)), "error", id="left-behind"),
        pytest.param("jit-lock-stale", UNREAD, "unknown", id="locks-not-read"),
    ],
)
def test_limits_of_the_host(rule: str, facts: Facts, expected: str) -> None:
    assert make.said(rule, facts, LAUNCH) == expected


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("cuda-visible-devices-unsupported", make.healthy(), LAUNCH, "ok", id="not-set"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: "0,1,2,3"}), LAUNCH, "ok", id="from-0"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: "4,5,6,7"}), LAUNCH, "warning", id="from-4"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: "4,5"}), VLLM, "ok", id="vllm-maps"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: "MIG-377e"}), VLLM, "error", id="mig"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: "GPU-1a2b"}), LAUNCH, "warning", id="uuid"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: "GPU-1a2b"}), VLLM, "error", id="uuid-vllm"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: ""}), LAUNCH, "error", id="none"),
        pytest.param("cuda-visible-devices-unsupported", told(**{VISIBLE: "a"}), LAUNCH, "error", id="garbage"),
        pytest.param("rocm-visible-devices-set", make.healthy(), LAUNCH, "ok", id="no-rocr"),
        pytest.param(
            "rocm-visible-devices-set", told(HIP_VISIBLE_DEVICES="0,1"), LAUNCH, "ok", id="old-verl-ignores-it"
        ),
        pytest.param(
            "rocm-visible-devices-set",
            make.having(told(HIP_VISIBLE_DEVICES="0,1"), make.package("verl", "0.4.1")),
            LAUNCH,
            "error",
            id="verl-0.4-refuses-hip",
        ),
        pytest.param("rocm-visible-devices-set", told(ROCR_VISIBLE_DEVICES="0"), LAUNCH, "ok", id="ray-2.42-takes-it"),
        pytest.param(
            "rocm-visible-devices-set",
            make.variables(make.lts(), ROCR_VISIBLE_DEVICES="0"),
            make.target(make.LTS),
            "error",
            id="ray-2.47-refuses",
        ),
        pytest.param("tmpdir-too-long", told(TMPDIR="/tmp"), LAUNCH, "ok", id="short"),
        pytest.param("tmpdir-too-long", told(TMPDIR="/scratch/" + "x" * 50), LAUNCH, "error", id="long"),
        pytest.param(
            "tmpdir-too-long", told(TMPDIR="/scratch/" + "x" * 50, RAY_TMPDIR="/r"), LAUNCH, "ok", id="ray-has-its-own"
        ),
        pytest.param("nccl-environment-differs", make.healthy(), LAUNCH, "ok", id="sglang"),
        pytest.param("nccl-environment-differs", make.healthy(), VLLM, "ok", id="vllm-in-one-process"),
        pytest.param("nccl-environment-differs", told(NCCL_CUMEM_ENABLE="0"), VLLM, "ok", id="off-everywhere"),
        pytest.param("nccl-environment-differs", told(NCCL_CUMEM_ENABLE="1"), VLLM, "warning", id="on-in-the-trainer"),
        pytest.param("nccl-environment-differs", wish(nodes=2), VLLM, "warning", id="several-nodes"),
        pytest.param(
            "nccl-environment-differs",
            replace(
                told(NCCL_IB_DISABLE="1"), manifest=Manifest(stack=make.SEED, environment={"NCCL_IB_DISABLE": "0"})
            ),
            LAUNCH,
            "warning",
            id="not-as-the-image",
        ),
        pytest.param("network-interface-unresolved", make.healthy(), LAUNCH, "ok", id="an-address"),
        pytest.param(
            "network-interface-unresolved", told(NCCL_SOCKET_IFNAME="lo"), LAUNCH, "ok", id="loopback-of-one-node"
        ),
        pytest.param(
            "network-interface-unresolved",
            told(GLOO_SOCKET_IFNAME="docker0", SLURM_JOB_NUM_NODES="2"),
            LAUNCH,
            "error",
            id="docker0-of-two-nodes",
        ),
        pytest.param(
            "network-interface-unresolved", limits(hostname_resolves="127.0.1.1"), LAUNCH, "ok", id="one-node"
        ),
        pytest.param(
            "network-interface-unresolved",
            make.variables(limits(hostname_resolves="127.0.1.1"), SLURM_JOB_NUM_NODES="2"),
            LAUNCH,
            "error",
            id="two-nodes",
        ),
        pytest.param(
            "network-interface-unresolved",
            replace(limits(hostname_resolves=Unknown("nothing")), wish=Wish(nodes=2)),
            LAUNCH,
            "error",
            id="no-address-at-all",
        ),
        pytest.param(
            "network-interface-unresolved",
            replace(limits(hostname_resolves="127.0.0.1"), ray=Ray(address="10.1.2.3:6379", running=True)),
            LAUNCH,
            "error",
            id="rays-head-is-elsewhere",
        ),
        pytest.param(
            "network-interface-unresolved",
            make.variables(limits(hostname_resolves="127.0.0.1"), GLOO_SOCKET_IFNAME="eth0", WORLD_SIZE="2"),
            LAUNCH,
            "ok",
            id="the-interface-is-named",
        ),
        pytest.param("network-interface-unresolved", UNREAD, LAUNCH, "unknown", id="address-unread"),
        pytest.param("allocator-conf-unsupported", make.healthy(), LAUNCH, "ok", id="not-said"),
        pytest.param(
            "allocator-conf-unsupported",
            told(PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True"),
            LAUNCH,
            "warning",
            id="saver",
        ),
        pytest.param(
            "allocator-conf-unsupported",
            told(PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True"),
            VLLM,
            "error",
            id="vllm",
        ),
        pytest.param(
            "allocator-conf-unsupported",
            told(PYTORCH_CUDA_ALLOC_CONF="max_split_size_mb:128"),
            LAUNCH,
            "ok",
            id="something-else",
        ),
        pytest.param(
            "allocator-conf-unsupported",
            make.without(told(PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True"), "torch-memory-saver"),
            LAUNCH,
            "not-applicable",
            id="no-saver",
        ),
        pytest.param("version-check-disabled", make.healthy(), LAUNCH, "ok", id="checks-on"),
        pytest.param("version-check-disabled", told(SGLANG_DISABLE_CUDNN_CHECK="1"), LAUNCH, "warning", id="check-off"),
        pytest.param("ray-address-stale", make.healthy(), LAUNCH, "ok", id="no-ray"),
        pytest.param("ray-address-stale", ray(address="10.0.0.1:6379", running=True), LAUNCH, "ok", id="runs"),
        pytest.param("ray-address-stale", ray(address="10.0.0.1:6379"), LAUNCH, "warning", id="left-in-tmp"),
        pytest.param(
            "ray-address-stale",
            make.variables(ray(address="10.0.0.1:6379"), RAY_ADDRESS="10.0.0.1:6379"),
            LAUNCH,
            "error",
            id="left-in-the-shell",
        ),
        pytest.param("ray-address-stale", ray(address="a:1", running=Unknown("x")), LAUNCH, "unknown", id="ray-unread"),
        pytest.param("ray-versions-differ", make.healthy(), LAUNCH, "not-applicable", id="none-runs"),
        pytest.param(
            "ray-versions-differ", ray(running=True, version="2.42.1", python="3.10.13"), LAUNCH, "ok", id="same-ray"
        ),
        pytest.param("ray-versions-differ", ray(running=True, version="2.12.0"), LAUNCH, "error", id="another-ray"),
        pytest.param("ray-versions-differ", ray(running=True, python="3.11.11"), LAUNCH, "error", id="another-python"),
        pytest.param("ray-versions-differ", ray(running=True, python="3.10.12"), LAUNCH, "warning", id="another-patch"),
        pytest.param(
            "ray-versions-differ", make.healthy(ray=Unknown("/tmp/ray")), LAUNCH, "unknown", id="version-unread"
        ),
    ],
)
def test_environment(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


HUB = "Qwen/Qwen2-7B-Instruct"


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param("gpus-too-few", make.healthy(), "not-applicable", id="nothing-wished"),
        pytest.param("gpus-too-few", wish(gpus_per_node=8), "ok", id="8-of-8"),
        pytest.param("gpus-too-few", wish(gpus_per_node=16), "error", id="16-of-8"),
        pytest.param(
            "gpus-too-few", wish(gpus_per_node=8, nodes=2, cluster_gpus=8), "error", id="the-other-node-is-late"
        ),
        pytest.param("gpus-too-few", wish(cluster_gpus=Unknown("ray")), "unknown", id="cluster-unread"),
        pytest.param("gpus-too-few", told(SLURM_GPUS_ON_NODE="16"), "warning", id="slurm-granted-more"),
        pytest.param("gpus-too-few", told(SLURM_GPUS_PER_NODE="h100:1"), "ok", id="slurm-granted-less"),
        pytest.param("gpus-too-few", told(SLURM_GPUS_PER_NODE="h100"), "not-applicable", id="slurm-without-a-count"),
        pytest.param("model-or-data-missing", wish(files={"/d/train.parquet": True}), "ok", id="data"),
        pytest.param("model-or-data-missing", wish(files={"/d/train.parquet": False}), "error", id="no-data"),
        pytest.param("model-or-data-missing", wish(files={"/m/qwen": False}), "error", id="no-model"),
        pytest.param("model-or-data-missing", wish(files={"/m": Unknown("stat")}), "unknown", id="file-unread"),
        pytest.param("wandb-key-missing", wish(loggers=("console",)), "not-applicable", id="console"),
        pytest.param("wandb-key-missing", wish(loggers=("console", "wandb")), "error", id="no-key"),
        pytest.param(
            "wandb-key-missing", make.variables(wish(loggers=("wandb",)), WANDB_API_KEY="set"), "ok", id="a-key"
        ),
        pytest.param(
            "wandb-key-missing", make.variables(wish(loggers=("wandb",)), WANDB_MODE="offline"), "ok", id="offline"
        ),
        pytest.param("wandb-key-missing", told(), "not-applicable", id="no-run"),
        pytest.param("wandb-key-missing", told(WANDB_PROJECT="grpo"), "warning", id="meant-by-the-shell"),
        pytest.param("wandb-key-missing", told(WANDB_PROJECT="grpo", WANDB_API_KEY="set"), "ok", id="meant-with-key"),
        pytest.param("hub-not-reachable", told(), "not-applicable", id="no-run-no-hub"),
        pytest.param("hub-not-reachable", told(HF_ENDPOINT="hf-mirror.com"), "warning", id="no-scheme"),
        pytest.param("hub-not-reachable", told(HF_ENDPOINT="https://hf-mirror.com"), "ok", id="a-mirror"),
        pytest.param(
            "hub-not-reachable",
            make.variables(wish(model=HUB), HF_ENDPOINT="hf-mirror.com"),
            "error",
            id="asked-wrongly",
        ),
        pytest.param("hub-not-reachable", wish(model="/m/qwen"), "not-applicable", id="a-path"),
        pytest.param("hub-not-reachable", wish(model=HUB), "ok", id="answers"),
        pytest.param("hub-not-reachable", wish(model=HUB, hub_reachable=False), "error", id="does-not-answer"),
        pytest.param(
            "hub-not-reachable", make.variables(wish(model=HUB), HF_HUB_OFFLINE="1"), "error", id="told-not-to"
        ),
        pytest.param(
            "hub-not-reachable",
            make.variables(wish(model=HUB, files={HUB: True}), HF_HUB_OFFLINE="1"),
            "ok",
            id="in-the-cache",
        ),
        pytest.param("hub-not-reachable", wish(model=HUB, hub_reachable=Unknown("x")), "unknown", id="hub-unread"),
    ],
)
def test_wishes(rule: str, facts: Facts, expected: str) -> None:
    assert make.said(rule, facts, TRAIN) == expected


def test_a_limit_is_raised_where_the_process_runs() -> None:
    inside = replace(limits(open_files=1024), container=Container(runtime="docker"))
    assert "--ulimit nofile=65536" in make.outcomes("open-files-low", inside)[0].fix[0].commands[0]
    assert make.outcomes("open-files-low", limits(open_files=1024))[0].fix[0].commands == ("ulimit -n 65536",)
    in_pod = replace(limits(open_files=1024), container=Container(runtime="kubernetes"))
    assert make.outcomes("open-files-low", in_pod)[0].fix[0].text.startswith("On the node")


def test_a_full_disk_is_left_for_the_one_with_most_space() -> None:
    facts = disks(make.disk("cache", "/home/me/.cache", 0.1), make.disk("work", "/mnt/big", 900))
    commands = make.outcomes("disk-full", facts)[0].fix[0].commands
    assert "export PIP_CACHE_DIR=/mnt/big/cache" in commands


def test_no_place_is_named_that_is_as_full() -> None:
    facts = disks(make.disk("cache", "/home/me/.cache", 0.1), make.disk("work", "/mnt/small", 0.2))
    (cache, _) = make.outcomes("disk-full", facts)
    assert cache.fix[0].text == "Make space in /home/me/.cache"
