from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.errors import WorkError
from envcheck.facts import Driver
from scripts import process
from scripts.ppo_environment import build, exports, libcuda
from tests.ppo_cases import facts


def _exports(monkeypatch: pytest.MonkeyPatch, text: str) -> list[list[str]]:
    calls: list[list[str]] = []

    def output(argv: Sequence[str], **_: Any) -> str:
        calls.append(list(argv))
        return text

    monkeypatch.setattr(process, "output", output)
    return calls


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))


def test_variables_of_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = _exports(monkeypatch, json.dumps({"CUDA_HOME": "/cuda", "PATH": "/cuda/bin:/usr/bin"}))
    start = {
        "PATH": "/usr/bin",
        "RAY_ADDRESS": "auto",
        "ROCR_VISIBLE_DEVICES": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": "/old",
        "X": "1",
    }
    found = build(
        stack="verl-lts-cu124", python="/t/bin/python", facts=facts(), profile={"HF_HUB_OFFLINE": "1"}, start=start
    )
    values = found.variables
    assert calls[0][2:] == [
        "envcheck",
        "env",
        "--stack",
        "verl-lts-cu124",
        "--python",
        "/t/bin/python",
        "--shell",
        "json",
    ]
    assert values["PATH"] == "/t/bin:/cuda/bin:/usr/bin"
    assert values["CUDA_HOME"] == "/cuda"
    assert values["HF_HUB_OFFLINE"] == "1"
    assert values["NCCL_NVLS_ENABLE"] == "0"
    assert values["X"] == "1"
    assert not {"RAY_ADDRESS", "ROCR_VISIBLE_DEVICES", "PYTHONDONTWRITEBYTECODE"} & set(values)
    assert values["TRITON_LIBCUDA_PATH"] == str(tmp_path / "libcuda")
    assert values["LD_LIBRARY_PATH"] == f"{tmp_path / 'libcuda'}:/old"
    assert os.readlink(tmp_path / "libcuda/libcuda.so") == "/nv/libcuda.so.1"
    assert any(line.startswith("RAY_ADDRESS is left out: ") for line in found.said)
    assert "CUDA_HOME=/cuda" in found.said
    assert not any(line.startswith("X=") for line in found.said)


def test_what_the_person_chose_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _exports(monkeypatch, "{}")
    found = build(
        stack="s",
        python="/t/bin/python",
        facts=None,
        profile={},
        cuda_home="/mine",
        ray_address="10.0.0.1:6379",
        start={"NCCL_NVLS_ENABLE": "1", "PATH": "/usr/bin"},
    ).variables
    assert found["NCCL_NVLS_ENABLE"] == "1"
    assert found["RAY_ADDRESS"] == "10.0.0.1:6379"
    assert found["CUDA_HOME"] == "/mine"
    assert found["PATH"] == "/t/bin:/mine/bin:/usr/bin"
    assert "TRITON_LIBCUDA_PATH" not in found


@pytest.mark.parametrize("made", [True, False])
def test_toolkit_of_the_project_where_the_host_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: bool
) -> None:
    _exports(monkeypatch, "{}")
    prefix = tmp_path / "toolchains/cuda-12.4"
    if made:
        (prefix / "share/envcheck").mkdir(parents=True)
        (prefix / "share/envcheck/toolchain.json").write_text("{}")
    start = {"PATH": "/usr/bin", "CUDA_HOME": "/usr/local/cuda-13.0"}
    found = build(stack="verl-lts-cu124", python="/t/bin/python", facts=None, profile={}, start=start)
    assert found.variables["CUDA_HOME"] == (str(prefix) if made else "/usr/local/cuda-13.0")
    assert (f"{prefix}/bin" in found.variables["PATH"]) is made
    assert any("is here (/usr/local/cuda-13.0): kernels" in line for line in found.said) is not made


def test_exports_that_are_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    _exports(monkeypatch, "oops")
    with pytest.raises(WorkError, match="did not answer with JSON: 'oops'"):
        exports("s", "/t/python")


def test_libcuda_link_follows_the_driver(tmp_path: Path) -> None:
    folder = tmp_path / "libcuda"
    folder.mkdir()
    (folder / "libcuda.so").symlink_to("/older/libcuda.so.1")
    assert libcuda(facts(), {})["LIBRARY_PATH"] == str(folder)
    assert os.readlink(folder / "libcuda.so") == "/nv/libcuda.so.1"
    assert libcuda(facts(), {"LIBRARY_PATH": "/l"})["LIBRARY_PATH"] == f"{folder}:/l"


def test_no_libcuda_link_is_needed_or_possible() -> None:
    assert libcuda(facts(driver=Driver(present=True, libcuda_symlink=True)), {}) == {}
    assert libcuda(facts(driver=Driver(present=False)), {}) == {}
    assert libcuda(facts(driver=Unknown("no /proc")), {}) == {}
    assert libcuda(None, {}) == {}
