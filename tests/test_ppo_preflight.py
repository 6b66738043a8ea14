from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from envcheck.codec import Unknown, encode
from envcheck.errors import WorkError
from envcheck.host import Completed, RecordedHost
from scripts import ppo_preflight
from scripts.ppo_preflight import (
    Problem,
    busy_problems,
    cached,
    diagnosis,
    disk_problems,
    doctor,
    gpu_problems,
    memory_problems,
    model_problems,
    owner,
    port_problems,
    refusals,
    visible,
    wandb_key,
)
from scripts.ppo_profiles import Needs, load
from tests.ppo_cases import composed, facts

NEEDS = Needs(
    gpu_memory_bytes=79_000_000_000,
    host_memory_bytes=100_000_000_000,
    disk_bytes=20_000_000_000,
    checkpoint_bytes=180_000_000_000,
    reason="7.6 B parameters",
)


def _texts(problems: Iterator[Problem]) -> list[str]:
    return [problem.text for problem in problems]


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        pytest.param({}, 4, id="all"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "0,2"}, 2, id="two"),
        pytest.param({"CUDA_VISIBLE_DEVICES": ""}, 0, id="none"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "-1"}, 0, id="minus-one"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5"}, 4, id="more-than-there-are"),
    ],
)
def test_visible(environ: dict[str, str], count: int) -> None:
    assert visible(facts(gpus=4), environ) == count


def test_unknown_gpus_are_not_there() -> None:
    assert visible(facts(gpus=0), {}) == 0
    unknown = facts().__class__(**{**facts().__dict__, "gpus": Unknown("no driver")})
    assert visible(unknown, {}) == 0
    (problem,) = gpu_problems(unknown, composed(), NEEDS, {})
    assert problem.text == "the run needs 1 GPU, this host shows 0"


def test_too_few_gpus() -> None:
    config = composed(trainer__n_gpus_per_node=4)
    (problem,) = gpu_problems(facts(gpus=8), config, NEEDS, {"CUDA_VISIBLE_DEVICES": "1,2"})
    assert problem.text == "the run needs 4 GPUs, this host shows 2 (CUDA_VISIBLE_DEVICES=1,2)"
    assert "one-gpu" in problem.fix


def test_small_gpu_and_right_one() -> None:
    (problem,) = gpu_problems(facts(gpu_bytes=24_000_000_000), composed(), NEEDS, {})
    assert problem.text == "NVIDIA H100 has 24.0 GB, the run needs 79.0 GB: 7.6 B parameters"
    assert list(gpu_problems(facts(gpu_bytes=79 * 10**9 * 98 // 100), composed(), NEEDS, {})) == []


def test_host_memory() -> None:
    (problem,) = memory_problems(facts(memory=64 << 30), NEEDS)
    assert problem.text.startswith("the host has 68.7 GB of memory, the run needs 100.0 GB")
    assert list(memory_problems(facts(), NEEDS)) == []
    assert list(memory_problems(facts(resources=Unknown("no /proc")), NEEDS)) == []


def test_disk() -> None:
    place = Path("/runs/x")
    assert list(disk_problems(RecordedHost(free_bytes=21 * 10**9), place, composed(), NEEDS)) == []
    (problem,) = disk_problems(RecordedHost(free_bytes=10**9), place, composed(), NEEDS)
    assert problem.text == "/runs/x has 1.0 GB free, the run needs 20.0 GB: logs and caches"
    saving = composed(trainer__save_freq=10)
    (problem,) = disk_problems(RecordedHost(free_bytes=21 * 10**9), place, saving, NEEDS)
    assert "needs 380.0 GB: two checkpoints of 180.0 GB each" in problem.text
    (problem,) = disk_problems(RecordedHost(readonly=("/runs",)), place, composed(), NEEDS)
    assert problem.text == "/runs/x is not writable"


def test_busy_gpus_are_a_warning() -> None:
    argv = ("nvidia-smi", "--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits")
    host = RecordedHost(commands={argv: Completed(stdout="0, 14, 81559\n1, 60000, 81559\ngarbage\n")})
    (problem,) = busy_problems(host)
    assert problem.warning
    assert problem.text == "GPU 1: 60000 of 81559 MiB are in use already"
    assert list(busy_problems(RecordedHost())) == []


def test_local_model(tmp_path: Path) -> None:
    assert _texts(model_problems(str(tmp_path), {})) == [f"{tmp_path} holds no model (no config.json)"]
    (tmp_path / "config.json").write_text("{}")
    assert "holds no weights" in _texts(model_problems(str(tmp_path), {}))[0]
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert _texts(model_problems(str(tmp_path), {})) == []


def test_hub_model(tmp_path: Path) -> None:
    environ = {"HF_HOME": str(tmp_path)}
    (online,) = model_problems("Qwen/Qwen2-7B-Instruct", environ)
    assert online.warning
    (offline,) = model_problems("Qwen/Qwen2-7B-Instruct", environ | {"HF_HUB_OFFLINE": "1"})
    assert not offline.warning
    assert "HF_HUB_OFFLINE is set" in offline.text
    snapshot = tmp_path / "hub/models--Qwen--Qwen2-7B-Instruct/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert cached("Qwen/Qwen2-7B-Instruct", environ)
    assert cached("Qwen/Qwen2-7B-Instruct", {"HF_HUB_CACHE": str(tmp_path / "hub")})
    assert not cached("Qwen/Qwen2-7B", {"XDG_CACHE_HOME": str(tmp_path)})


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


def test_port_in_use_names_its_process(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo_preflight, "DASHBOARD_PORT", 0)  # always free
    (problem,) = port_problems({"MASTER_PORT": str(taken), "RAY_PORT": "garbage"})
    assert problem.text.startswith(f"port {taken} (MASTER_PORT) is in use by {os.getpid()} (")
    assert list(port_problems({})) == []


def test_dashboard_port_is_a_warning(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo_preflight, "DASHBOARD_PORT", taken)
    (problem,) = port_problems({})
    assert problem.warning


def test_owner_that_cannot_be_seen(tmp_path: Path) -> None:
    assert owner(8265, tmp_path) == ""


def test_wandb_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_key({"WANDB_API_KEY": "k"})
    assert wandb_key({"WANDB_MODE": "offline"})
    assert not wandb_key({})
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_key({})
    (tmp_path / ".netrc").write_text("broken {")
    assert not wandb_key({})


@pytest.mark.parametrize(
    ("engine", "versions", "refused"),
    [
        pytest.param("sglang", {"verl": "0.2.0.dev0", "sglang": "0.4.3.post3"}, True, id="sglang-seed"),
        pytest.param("vllm", {"verl": "0.2.0.dev0", "vllm": "0.6.3"}, False, id="vllm-0.6"),
        pytest.param("vllm", {"verl": "0.2.0.dev0", "vllm": "0.7.2"}, True, id="vllm-0.7"),
        pytest.param("sglang", {"verl": "0.4.1", "sglang": "0.4.6.post5"}, False, id="sglang-lts"),
    ],
)
def test_refusals(engine: str, versions: dict[str, str], refused: bool) -> None:
    found = list(refusals(load("megatron"), engine, versions))
    assert bool(found) is refused
    assert all(problem.fix.endswith("megatron_workers.py") for problem in found)


def test_an_engine_that_is_not_installed() -> None:
    (problem,) = refusals(load("one-gpu"), "sglang", {"verl": "0.4.1", "vllm": "0.8.5"})
    assert problem.text == "sglang is not installed in this environment"
    assert not problem.warning


DOCUMENT = {
    "outcomes": [
        {
            "rule": "driver-too-old",
            "summary": "the driver is too old",
            "outcome": "error",
            "fix": [{"text": "install it", "commands": ["apt install x"]}],
        },
        {"rule": "shm-too-small", "summary": "could not be judged", "outcome": "unknown"},
        {"rule": "gcc-too-old", "summary": "fine", "outcome": "ok"},
        {"rule": "open-files-low", "summary": "low", "outcome": "warning"},
    ],
    "facts": encode(facts()),
}


def test_diagnosis() -> None:
    seen = diagnosis(DOCUMENT, 1)
    assert [(str(problem), problem.warning) for problem in seen.problems] == [
        ("driver-too-old: the driver is too old\n      → apt install x", False),
        ("shm-too-small: could not be judged", True),
    ]
    assert seen.facts == facts()


def _doctor(monkeypatch: pytest.MonkeyPatch, stdout: str, stderr: str = "") -> list[list[str]]:
    calls: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(list(argv))
        if stdout == "timeout":
            raise subprocess.TimeoutExpired(argv, 1)
        return subprocess.CompletedProcess(argv, 1, stdout=stdout, stderr=stderr)

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_doctor_is_asked_for_the_training_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _doctor(monkeypatch, json.dumps(DOCUMENT))
    assert doctor("/t/python", "verl-lts-cu124", "vllm", "megatron").exit_code == 1
    assert calls[0][3:6] == ["doctor", "--stage", "train"]
    assert calls[0][-6:] == ["--engine", "vllm", "--trainer", "megatron", "--format", "json"]


def test_doctor_without_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    _doctor(monkeypatch, "", "error: there is no stack")
    with pytest.raises(WorkError, match=r"no verdict \(exit code 1\):\nerror: there is no stack"):
        doctor("/t/python", "x", "vllm", "fsdp")
    _doctor(monkeypatch, "timeout")
    with pytest.raises(WorkError, match="did not end within"):
        doctor("/t/python", "x", "vllm", "fsdp")
