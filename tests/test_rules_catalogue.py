"""All rules together: what each says of itself, healthy hosts of every kind, facts that are missing."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields, replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.engine import judge
from envcheck.facts import Container, Docker, FabricManager, Facts, Manifest, Origin, Tool
from envcheck.model import STAGES, Outcome, OutcomeName, Rule, Target
from envcheck.rules import RULES, by_id
from tests import factories as make

GROUPS = {"compiler", "toolkit", "cudnn", "nccl", "driver", "container", "binary", "packages", "run time"}
PROMISED = re.findall(
    r"\S+",
    """
gcc-too-old gcc-too-new-for-nvcc host-compiler-differs nvcc-missing cuda-home-invalid nvcc-differs-from-torch
nvcc-too-old-for-gpu nvcc-newer-than-driver ptxas-too-old python-headers-missing build-tool-missing
build-isolation-hides-torch pip-too-old build-needs-more-memory build-needs-more-disk submodule-missing
libcuda-symlink-missing system-library-missing cudnn-headers-missing cudnn-symlink-missing
cudnn-header-differs-from-runtime cudnn-shadowed cudnn-mixed cudnn-too-old nccl-headers-missing nccl-shadowed
driver-missing driver-too-old driver-library-differs cuda-compat-shadows-driver fabric-manager-not-ready
gpu-arch-not-built nvidia-runtime-missing device-cgroup-reload shm-too-small image-drift
extension-built-for-other-torch cxx11-abi-differs private-torch-build glibc-too-old libstdcxx-too-old
extension-cuda-major-differs undefined-symbol pin-differs torch-cpu-build te-torch-extension-missing te-parts-differ
te-flash-attn-range te-torch-too-old megatron-te-missing megatron-not-importable megatron-bridge-differs
flashinfer-parts-differ flashinfer-torch-differs sgl-kernel-differs sglang-verl-engine-missing vllm-pin-conflict
vllm-torch-differs xformers-torch-differs transformers-range ray-click-conflict dependency-unsatisfied
metadata-damaged name-confusion ld-library-path-shadows-torch libnvrtc-not-found memory-saver-preload-missing
cuda-visible-devices-unsupported rocm-visible-devices-set process-limit-low open-files-low tmpdir-too-long
ray-address-stale ray-versions-differ host-memory-low cache-not-writable mixed-gpus nccl-environment-differs
model-or-data-missing wandb-key-missing
""",
)
"""Ids that programs outside the repository rely on: never renamed."""


def faults(facts: Facts, target: Target, *names: OutcomeName) -> list[Outcome]:
    return list(judge(facts, target, RULES).having(*(names or ("error", "warning", "unknown", "crashed"))))


def test_no_id_is_used_twice() -> None:
    assert not [name for name, count in Counter(rule.id for rule in RULES).items() if count > 1]


def test_every_promised_id_is_a_rule() -> None:
    assert set(PROMISED) <= set(by_id())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_what_it_claims_and_why(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", rule.id)
    assert rule.group in GROUPS
    assert rule.claim.endswith(".")
    assert "\n" not in rule.claim
    assert len(rule.cause) > 20
    assert rule.stages
    assert set(rule.stages) <= set(STAGES)
    assert rule.fix
    assert rule.sources
    assert all(source.startswith("https://") for source in rule.sources)


ROCKY_8 = make.system(id="rocky", version="8.10", like=("rhel", "centos"), glibc="2.28", libstdcxx="3.4.25")
ROCKY_9 = make.system(id="rocky", version="9.4", like=("rhel", "centos"), glibc="2.34", libstdcxx="3.4.29")
UBUNTU_20 = make.system(version="20.04", glibc="2.31", libstdcxx="3.4.28")
UBUNTU_24 = make.system(version="24.04", glibc="2.39", libstdcxx="3.4.33")
DEBIAN_12 = make.system(id="debian", version="12", like=(), glibc="2.36", libstdcxx="3.4.30")
A100 = make.gpu("NVIDIA A100-SXM4-80GB", "8.0")
H200 = make.gpu("NVIDIA H200", "9.0", 141)
L40S = make.gpu("NVIDIA L40S", "8.9", 48)
FABRIC = FabricManager(nvswitch=True, active=True, version="535.183.06", state="completed")
TOOLSET = "/opt/rh/gcc-toolset-13/root/usr/bin"
BUILT = Origin(url="file:///srv/wheels/flash_attn-2.7.4.post1-cp310-cp310-linux_x86_64.whl")
IN_DOCKER = Container(runtime="docker", nvidia_visible_devices="all")
POD = Container(runtime="kubernetes", nvidia_visible_devices="GPU-1")
ENGINE = Docker(engine="27.3.1", runtimes=("runc", "nvidia"), cgroup_driver="systemd", nvidia_ctk="1.17.4")
GCC_13 = (
    make.compiler("cc", f"{TOOLSET}/gcc", "13.3.1"),
    make.compiler("cxx", f"{TOOLSET}/g++", "13.3.1"),
    make.compiler("cuda-host", f"{TOOLSET}/g++", "13.3.1"),
    make.compiler("cmake-cxx", f"{TOOLSET}/c++", "13.3.1"),
    make.compiler("other", "/usr/bin/g++", "8.5.0", selected=False),
)
CONDA = make.python(environment="conda", conda_prefix="/opt/conda/envs/verl", prefix="/opt/conda/envs/verl")
IMAGE = Manifest(stack=make.SEED, packages={"torch": "2.5.1"}, environment={"NVTE_FLASH_ATTN": "0"})
CPU = {"driver": make.no_driver(), "gpus": ()}


@pytest.mark.parametrize("trainer", ["fsdp", "megatron"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("name", "facts"),
    [
        pytest.param(make.SEED, make.healthy(), id="ubuntu-22.04-h100-550"),
        pytest.param(make.LTS, make.lts(), id="lts"),
        pytest.param(make.LTS, make.lts(os=UBUNTU_24, compilers=make.compilers("13.3.0")), id="ubuntu-24.04"),
        pytest.param(
            make.SEED,
            make.healthy(os=UBUNTU_20, compilers=make.compilers("9.4.0"), gpus=(A100,) * 8),
            id="ubuntu-20.04-a100",
        ),
        pytest.param(make.SEED, make.healthy(os=DEBIAN_12, compilers=make.compilers("12.2.0")), id="debian-12"),
        pytest.param(
            make.SEED,
            make.changed(make.healthy(os=ROCKY_8, compilers=GCC_13), "flash-attn", origin=BUILT),
            id="rocky-8-with-gcc-toolset",
        ),
        pytest.param(make.SEED, make.healthy(os=ROCKY_9, compilers=make.compilers("11.5.0")), id="rocky-9"),
        pytest.param(
            make.SEED,
            make.healthy(driver=make.driver("535.183.06", "12.2", fabric_manager=FABRIC), gpus=(H200,) * 8),
            id="535-h200-nvswitch",
        ),
        pytest.param(make.SEED, make.healthy(driver=make.driver("570.133.20", "12.8")), id="570"),
        pytest.param(make.LTS, make.lts(driver=make.driver("580.95.05", "13.0")), id="580"),
        pytest.param(make.SEED, make.healthy(gpus=(L40S,), resources=make.resources(cpus=16)), id="one-l40s"),
        pytest.param(make.SEED, make.healthy(docker=ENGINE), id="with-docker"),
        pytest.param(make.SEED, make.healthy(container=IN_DOCKER, manifest=IMAGE), id="in-our-image"),
        pytest.param(make.SEED, make.healthy(container=POD, os=make.system(user_id=0)), id="in-a-pod"),
        pytest.param(make.SEED, make.healthy(python=CONDA), id="conda"),
        pytest.param(
            make.SEED,
            make.variables(
                make.healthy(toolkits=(make.toolkit(path="/apps/cuda/12.4", source="module"),)),
                CUDA_HOME="/apps/cuda/12.4",
                SLURM_JOB_NUM_NODES="1",
                CUDA_VISIBLE_DEVICES="0,1,2,3",
            ),
            id="hpc-module-under-slurm",
        ),
    ],
)
def test_a_healthy_host_gets_no_error_and_no_warning(name: str, facts: Facts, stage: Any, trainer: str) -> None:
    assert faults(facts, make.target(name, stage=stage, trainer=trainer)) == []


@pytest.mark.parametrize("trainer", ["fsdp", "megatron"])
@pytest.mark.parametrize("name", [make.SEED, make.LTS])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="with-gpus"),
        pytest.param(CPU, id="a-build-host-without-gpu"),
        pytest.param({"tools": (Tool(name="git", path="/usr/bin/git", version="2.40"),)}, id="few-tools"),
        pytest.param({"packages": ()}, id="not-even-pip"),
    ],
)
def test_a_host_where_nothing_is_installed_yet_can_build(name: str, changes: dict[str, Any], trainer: str) -> None:
    assert faults(make.bare(**changes), make.target(name, stage="build", trainer=trainer)) == []


EVERYTHING_UNKNOWN = {item.name: Unknown("not read") for item in fields(Facts) if "Unknown" in str(item.type)}


@pytest.mark.parametrize("trainer", ["fsdp", "megatron"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("missing", [*([name] for name in EVERYTHING_UNKNOWN), list(EVERYTHING_UNKNOWN)], ids="+".join)
def test_a_missing_fact_makes_no_error_and_no_crash(missing: list[str], stage: Any, trainer: str) -> None:
    unread: dict[str, Any] = {name: Unknown("not read") for name in missing}
    facts = replace(make.healthy(docker=ENGINE), **unread)
    found = faults(facts, make.target(stage=stage, trainer=trainer), "error", "crashed")
    assert found == []


@pytest.mark.parametrize("name", ["os", "resources", "driver", "python"])
def test_a_missing_detail_makes_no_crash(name: str) -> None:
    whole = make.healthy()
    part = getattr(whole, name)
    for item in fields(part):
        if "Unknown" in str(item.type):
            facts = replace(whole, **{name: replace(part, **{item.name: Unknown("not read")})})
            for stage in STAGES:
                assert faults(facts, make.target(stage=stage, trainer="megatron"), "crashed") == []


@pytest.mark.parametrize("field", ["version", "cuda", "cxx11_abi", "tag", "installer"])
def test_packages_that_do_not_tell_make_no_crash(field: str) -> None:
    whole = make.healthy()
    assert isinstance(whole.packages, tuple)
    unread: dict[str, Any] = {field: Unknown("not read")}
    facts = replace(whole, packages=tuple(replace(item, **unread) for item in whole.packages))
    for stage in STAGES:
        assert faults(facts, make.target(stage=stage, trainer="megatron"), "crashed") == []


def wreck() -> Facts:
    """A host on which nearly everything is wrong."""
    facts = make.healthy(
        os=make.system(glibc="2.41"),
        compilers=make.compilers("14.2.0"),
        toolkits=(make.toolkit("13.0.2", ptxas="11.8"),),
        driver=make.driver("470.57.02", "11.4", kernel_module="460.1", libcuda_symlink=False),
        gpus=(make.gpu("Tesla V100", "7.0"), L40S),
        resources=make.resources(
            shm_bytes=64 << 20, open_files=256, max_processes=1024, cpus=1, memory_limit_bytes=2 << 30,
            disks=(make.disk("tmp", "/tmp", 0.1), make.disk("cache", "/c", writable=False), make.disk("work", "/w", 1)),
        ),
        container=IN_DOCKER,
        python=make.python("3.13.1", include_dir=Unknown("no Python.h"), shadowed=("ray=/w/ray",)),
        manifest=Manifest(stack=make.LTS, packages={"torch": "2.6.0"}),
    )  # fmt: skip
    wrong = {"torch": "2.11.0", "numpy": "2.3", "click": "8.4", "sglang": "0.4.3.post2", "setuptools": "84.0"}
    facts = make.having(facts, *(make.package(name, version) for name, version in wrong.items()))
    return make.variables(facts, CUDA_HOME="\u201c/x\u201d", RAY_TMPDIR="/" + "x" * 60, TORCH_CUDA_ARCH_LIST="90")


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_found_says_what_was_expected_and_what_to_do(stage: Any) -> None:
    found = faults(wreck(), make.target(stage=stage, trainer="megatron"))
    assert len(found) > 15
    for outcome in found:
        if outcome.outcome in {"error", "warning"}:
            assert outcome.summary
            assert outcome.found
            assert outcome.expected
            assert outcome.fix
            assert outcome.sources
            assert all(text.text and all(text.commands) for text in outcome.fix)
            assert "Unknown(" not in f"{outcome.summary}{outcome.found}{outcome.expected}"
    assert not [outcome for outcome in found if outcome.outcome == "crashed"]
