from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck import documents
from envcheck.engine import judge
from envcheck.facts import Facts
from envcheck.model import Judgement
from envcheck.report.words import next_command
from envcheck.rules import RULES
from tests import factories
from tests.hosts.compose import DIRECTORY, HOSTS, Composed

HEALTHY = [host for host in HOSTS if host.name.startswith("healthy-")]
BROKEN = [host for host in HOSTS if host.name.startswith("broken-")]
RECORDED = sorted(path.parent.name for path in DIRECTORY.glob("*/facts.json"))


def judged(host: Composed) -> list[Judgement]:
    return [
        judge(
            host.facts,
            factories.target(host.stack, stage=stage, engine=host.engine, trainer=host.trainer),
            RULES,
        )
        for stage in host.stages
    ]


@pytest.mark.parametrize("host", HEALTHY, ids=lambda host: host.name)
def test_a_healthy_host_gets_no_error_and_no_warning(host: Composed) -> None:
    for judgement in judged(host):
        said = [(item.rule, item.summary) for item in judgement.having("error", "warning", "unknown", "crashed")]
        assert said == [], judgement.target.stage
        assert judgement.having("ok")


@pytest.mark.parametrize("host", BROKEN, ids=lambda host: host.name)
def test_a_broken_host_is_told_its_fault(host: Composed) -> None:
    found = {item.rule for judgement in judged(host) for item in judgement.having("error", "warning")}
    assert set(host.finds) <= found
    assert not {item.rule for judgement in judged(host) for item in judgement.having("crashed")}


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("broken-driver-470", "sudo apt-get update && sudo apt-get install -y nvidia-driver-550-server"),
        (
            "broken-login-node",
            "python -m envcheck doctor --stack verl-lts-cu124 --engine sglang --trainer fsdp --stage build",
        ),
        ("broken-docker-without-gpus", "docker run --gpus all --ipc=host"),
        ("broken-v100", "python -m envcheck rules gpu-too-old"),
        ("broken-b200", "python -m envcheck rules gpu-arch-not-built"),
    ],
)
def test_what_is_to_be_typed_next_mends_it(name: str, start: str) -> None:
    host = next(host for host in BROKEN if host.name == name)
    assert next_command(judged(host)[0]).startswith(start)


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_the_file_is_what_the_function_gives(host: Composed) -> None:
    path = DIRECTORY / host.name / "facts.json"
    assert path.read_text(encoding="utf-8") == documents.dumps(host.facts), "write it: python -m tests.hosts.compose"


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_host_is_judged_without_a_crash(name: str) -> None:
    facts = documents.load(str(DIRECTORY / name / "facts.json"))
    for stack in (factories.SEED, factories.LTS):
        for stage in ("build", "launch", "train"):
            judgement = judge(facts, factories.target(stack, stage=stage, trainer="megatron"), RULES)
            assert judgement.having("crashed") == ()
            assert judgement.outcomes


@pytest.mark.parametrize(
    ("name", "stage", "rule", "subjects"),
    [
        ("recorded-debian12-cuda13-no-gpu", "build", "nvcc-differs-from-torch", {"CUDA 13.0"}),
        ("recorded-debian12-cuda13-no-gpu", "train", "nvidia-runtime-missing", {"without the GPUs"}),
        ("recorded-h200-cuda13", "build", "nvcc-differs-from-torch", {"CUDA 13.0"}),
        ("recorded-h100-cuda13", "build", "nvcc-differs-from-torch", {"CUDA 13.0"}),
        ("recorded-h100-cuda13", "build", "cudnn-header-differs-from-runtime", {"9.14.0", "9.19.0.56"}),
        ("recorded-venv-seed-py310", "launch", "libnvrtc-not-found", {"libnvrtc.so.12"}),
        ("recorded-venv-broken-py310", "launch", "metadata-damaged", {"ray is damaged", "torch is damaged", "~umpy"}),
    ],
)
def test_recorded_hosts_are_told_their_faults(name: str, stage: Any, rule: str, subjects: set[str]) -> None:
    facts = documents.load(str(DIRECTORY / name / "facts.json"))
    judgement = judge(facts, factories.target(factories.SEED, stage=stage), RULES)
    said = " ".join(item.summary for item in judgement.having("error", "warning") if item.rule == rule)
    assert [word for word in subjects if word not in said] == []


def grafted(name: str, stack: str) -> Facts:
    """The packages of a real environment, on a healthy H100 node; flash-attn, which a node builds, added."""
    real = documents.load(str(DIRECTORY / name / "facts.json"))
    node = factories.healthy() if stack == factories.SEED else factories.lts()
    assert isinstance(real.loader, tuple)
    assert isinstance(node.loader, tuple)
    of_node = {"libcuda.so.1", "libnvrtc.so.12", "libcublas.so.12", "libstdc++.so.6", "libnuma.so.1"}
    loader = tuple(item for item in real.loader if item.library not in of_node)
    loader += tuple(item for item in node.loader if item.library in of_node)
    assert isinstance(real.packages, tuple)
    on_node = {item.library for item in loader}
    packages = tuple(
        replace(
            item,
            extensions=tuple(
                replace(part, missing=tuple(name for name in part.missing if name not in on_node))
                for part in item.extensions
            ),
        )
        for item in real.packages
    )
    facts = replace(node, packages=packages, python=real.python, cudnn=real.cudnn, nccl=real.nccl, loader=loader)
    label = f"cu12torch{'2.5' if stack == factories.SEED else '2.6'}cxx11abiFALSE"
    return factories.having(facts, factories.package("flash-attn", "2.7.4.post1", build=label, archs=("8.0", "9.0")))


@pytest.mark.parametrize("stage", ["build", "launch", "train"])
@pytest.mark.parametrize(
    ("name", "stack", "engine"),
    [
        ("recorded-venv-seed-py310", factories.SEED, "sglang"),
        ("recorded-venv-lts-py312", factories.LTS, "sglang"),
        ("recorded-venv-lts-vllm-py312", factories.LTS, "vllm"),
    ],
)
def test_real_packages_on_a_healthy_node_get_no_error_and_no_warning(
    name: str, stack: str, engine: str, stage: Any
) -> None:
    judgement = judge(grafted(name, stack), factories.target(stack, stage=stage, engine=engine), RULES)
    said = [(item.rule, item.summary) for item in judgement.having("error", "warning", "unknown", "crashed")]
    assert said == []


def test_half_of_the_hosts_are_healthy() -> None:
    assert len(HOSTS) >= 18
    assert len(HEALTHY) * 2 >= len(HOSTS)
