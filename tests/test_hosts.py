from __future__ import annotations

from typing import Any

import pytest

from envcheck import documents
from envcheck.engine import judge
from envcheck.model import Judgement
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
        ("recorded-debian12-cuda13-no-gpu", "train", "driver-missing", {"driver"}),
        ("recorded-venv-seed-py310", "launch", "libnvrtc-not-found", {"libnvrtc.so.12"}),
        ("recorded-venv-broken-py310", "launch", "metadata-damaged", {"ray is damaged", "torch is damaged", "~umpy"}),
    ],
)
def test_recorded_hosts_are_told_their_faults(name: str, stage: Any, rule: str, subjects: set[str]) -> None:
    facts = documents.load(str(DIRECTORY / name / "facts.json"))
    judgement = judge(facts, factories.target(factories.SEED, stage=stage), RULES)
    said = " ".join(item.summary for item in judgement.having("error", "warning") if item.rule == rule)
    assert [word for word in subjects if word not in said] == []


def test_half_of_the_hosts_are_healthy() -> None:
    assert len(HOSTS) >= 18
    assert len(HEALTHY) * 2 >= len(HOSTS)
