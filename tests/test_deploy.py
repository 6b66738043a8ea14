"""The deployment recipes parse and ask for what a training run needs."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

import pytest
import yaml

from envcheck import stack as stacks
from envcheck.rules import container_start
from scripts import image
from scripts.cache import ROOT

DEPLOY = ROOT / "docker" / "deploy"


def document(name: str) -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_compose_gives_gpus_memory_and_limits() -> None:
    train = document("compose.yaml")["services"]["train"]
    assert train["ipc"] == "host"
    assert train["user"] == "${TRAINER_UID:-1000}:0"  # bash has a read-only UID
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
    ray = next(item for item in stacks.load().components if item.name == "ray")
    assert spec["rayVersion"] == ray.version


def test_ray_s_probes_need_no_program_that_the_image_has_not() -> None:
    spec = document("ray-cluster.yaml")["spec"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        container = group["template"]["spec"]["containers"][0]
        command = container["livenessProbe"]["exec"]["command"]
        assert command[:2] == ["python", "-c"]
        ast.parse(command[2])
        assert command[3].endswith(":52365/api/local_raylet_healthz")
        assert container["readinessProbe"] == container["livenessProbe"]


def test_secrets_beside_the_recipes_reach_neither_git_nor_a_build() -> None:
    assert "run.env" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines.index("docker/deploy") > lines.index("!docker")


def test_apptainer_definition_has_its_sections() -> None:
    text = (DEPLOY / "apptainer.def").read_text(encoding="utf-8")
    assert text.startswith("Bootstrap: docker-daemon\nFrom: envcheck/train:")
    assert re.findall(r"^%(\w+)", text, re.MULTILINE) == ["environment", "runscript", "test"]


def test_the_readme_starts_containers_as_the_doctor_says() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^docker run .*$", text, re.MULTILINE)
    words = shlex.split(command.replace("…", ""))
    assert all(option in command for option in container_start.ALWAYS)
    volumes = [words[index + 1] for index, word in enumerate(words) if word == "-v"]
    assert [volume.split(":")[1] for volume in volumes] == ["/data/huggingface", "/data/train", "/home/trainer/outputs"]
    assert words[words.index("--env-file") + 1] == "run.env"


def test_the_readme_s_image_options_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"`nox -s image -- ([^`]*)`", text)
    assert len(lines) > 5
    for line in lines:
        names = line.replace("DIR", "/d").replace("FILE", "/f").replace("NAME", "apex")
        if "…" not in line and "|" not in line and " S " not in line:
            image.parser().parse_args(shlex.split(names))


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY"])
def test_example_environment_holds_no_secret(name: str) -> None:
    lines = (DEPLOY / "run.env.example").read_text(encoding="utf-8").splitlines()
    assert f"{name}=" in lines
