"""The deployment recipes parse and ask for what a training run needs."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from scripts.cache import ROOT

DEPLOY = ROOT / "docker" / "deploy"


def document(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_compose_gives_gpus_memory_and_limits() -> None:
    train = document("compose.yaml")["services"]["train"]
    assert train["shm_size"] == "32gb"
    assert train["ulimits"]["memlock"] == -1
    assert train["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert not any("KEY" in name or "TOKEN" in name for name in train["environment"])


def test_kubernetes_job_runs_without_root_and_with_shared_memory() -> None:
    pod = document("kubernetes.yaml")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["volumes"][0]["emptyDir"]["medium"] == "Memory"
    container = pod["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_ray_head_and_workers_run_one_image() -> None:
    spec = document("ray-cluster.yaml")["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups}
    assert len(images) == 1


def test_apptainer_definition_has_its_sections() -> None:
    text = (DEPLOY / "apptainer.def").read_text(encoding="utf-8")
    assert text.startswith("Bootstrap: docker-daemon\nFrom: envcheck/train:")
    assert re.findall(r"^%(\w+)", text, re.MULTILINE) == ["environment", "runscript", "test"]


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY"])
def test_example_environment_holds_no_secret(name: str) -> None:
    lines = (DEPLOY / "run.env.example").read_text(encoding="utf-8").splitlines()
    assert f"{name}=" in lines
