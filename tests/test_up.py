"""One command for all: each step done once, what the host cannot take skipped with the reason and the next command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envcheck import stack
from envcheck.errors import WorkError
from envcheck.facts import Facts
from scripts import build_context, build_key, build_steps, env, env_plan, toolchain, toolchain_gcc, up, wheelhouse_store
from scripts.build_context import Wishes
from scripts.build_steps import Order
from scripts.env_plan import Selection
from scripts.git_mirror import UnreachableError
from scripts.up import Result, Run
from scripts.wheelhouse_store import Entry
from tests import build_cases, factories

STACK = stack.load(factories.SEED)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the steps call, replaced; `log` says in which order."""
    log: list[str] = []
    prefix = tmp_path / "env"

    def make(*_: Any, **__: Any) -> str:
        log.append("env")
        (prefix / "bin").mkdir(parents=True, exist_ok=True)
        (prefix / "bin/python").touch()
        return f"{prefix}: made, 190 packages"

    def build(context: Any, _: Order) -> Entry:
        log.append(context)
        if context in unreachable:
            raise UnreachableError(f"{context}: no mirror", fix="name one")
        if context in faults:
            raise WorkError(f"building {context} failed", fix="read the log")
        return Entry(key="k", wheel=Path(f"{context}.whl"), receipt={})

    def provision(argv: list[str]) -> int:
        log.append(f"toolchain {argv[-1]}")
        return 0

    def compiler(_: Any) -> str:
        log.append("gcc")
        return "/cache/g++"

    faults: set[str] = set()
    unreachable: set[str] = set()
    monkeypatch.setattr(env, "make", make)
    monkeypatch.setattr(env_plan, "release", lambda *_: None)
    monkeypatch.setattr(build_context, "context", lambda _stack, name, _wishes: name)
    monkeypatch.setattr(build_steps, "build", build)
    monkeypatch.setattr(toolchain, "provisioned", lambda _: None)
    monkeypatch.setattr(toolchain, "main", provision)
    monkeypatch.setattr(toolchain, "compiler", compiler)
    monkeypatch.setattr(toolchain_gcc, "provisioned", lambda: None)
    monkeypatch.setattr(build_key, "inputs", lambda _: type("Inputs", (), {"key": "k"}))
    monkeypatch.setattr(wheelhouse_store, "get", lambda *_: None)
    return {"log": log, "prefix": prefix, "faults": faults, "unreachable": unreachable}


def run_for(world: dict[str, Any], **changes: Any) -> Run:
    given = {
        "selection": Selection(stack=STACK, engine="sglang", trainer="megatron", version="3.10.13"),
        "prefix": world["prefix"],
        "python": "python3.10",
        "order": Order(wheelhouse=world["prefix"].parent / "house"),
        "wishes": Wishes(engine="sglang", trainer="megatron"),
        "build": "auto",
        "dry_run": False,
    }
    return Run(**{**given, **changes})


def results(run: Run, facts: Facts | None = None) -> dict[str, Result]:
    """The last result of each step."""
    return {result.step: result for result in up.steps(run, facts or build_cases.healthy())}


def test_on_a_gpu_host_everything_is_built_in_order(world: dict[str, Any]) -> None:
    found = results(run_for(world))
    assert {result.state for result in found.values()} == {"done"}
    log = world["log"]
    assert log[0] == "env"
    assert log[-1] == "env"
    assert log.index("flash-attn") < log.index("transformer-engine") < log.index("megatron")
    assert "CUDA 12.4 is at /usr/local/cuda-12.4" in found["toolchain"].said


def test_without_a_gpu_long_builds_are_left_with_the_reason_and_the_command(world: dict[str, Any]) -> None:
    found = results(run_for(world), replace(build_cases.healthy(), gpus=()))
    assert found["flash-attn"].state == "skipped"
    assert "6.0 CPU hours" in found["flash-attn"].said
    options = "--stack verl-sglang-cu124 --engine sglang --python"
    assert found["flash-attn"].then.startswith(f"nox -s build-flash-attn -- {options}")
    assert found["flashinfer"].state == "done"
    assert found["megatron"].state == "done"
    assert "toolchain" not in found


def test_all_builds_them_nonetheless(world: dict[str, Any]) -> None:
    found = results(run_for(world, build="all"), replace(build_cases.healthy(), gpus=()))
    assert found["flash-attn"].state == "done"
    found = results(run_for(world, build="none"))
    assert found["verl"].said == "--build none was asked for"


def test_a_failed_build_stops_what_needs_it_and_nothing_else(world: dict[str, Any]) -> None:
    world["faults"].add("flash-attn")
    found = results(run_for(world))
    assert found["flash-attn"].state == "failed"
    assert found["transformer-engine"].said == "it needs flash-attn"
    assert found["flashinfer"].state == "done"
    assert found["verl"].state == "done"


def test_a_source_out_of_reach_is_left_for_later(world: dict[str, Any]) -> None:
    world["unreachable"].add("verl")
    found = results(run_for(world))["verl"]
    assert found.state == "skipped"
    assert found.then.startswith("nox -s build-verl")


def test_a_host_without_a_toolkit_gets_one(world: dict[str, Any]) -> None:
    found = results(run_for(world), replace(build_cases.healthy(), toolkits=()))
    assert world["log"][:2] == ["gcc", "toolchain verl-sglang-cu124"]
    assert found["toolchain"].state == "done"


def test_a_host_without_a_fitting_compiler_gets_one(world: dict[str, Any]) -> None:
    found = results(run_for(world), replace(build_cases.healthy(), compilers=factories.compilers("7.5.0")))
    assert world["log"][0] == "gcc"
    assert found["toolchain"].said == "compiling with /cache/g++"


def test_a_toolkit_that_cannot_be_had_is_a_failed_step(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: list[str]) -> int:
        raise WorkError("this host's apt names no Debian mirror", fix="name one with --mirror")

    monkeypatch.setattr(toolchain, "main", refuse)
    found = results(run_for(world), replace(build_cases.healthy(), toolkits=()))
    assert found["toolchain"].state == "failed"
    assert found["toolchain"].then == "nox -s toolchain -- --stack verl-sglang-cu124"


def test_an_environment_that_cannot_be_made_leaves_nothing_to_build_for(
    world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise WorkError("the index is down")

    monkeypatch.setattr(env, "make", refuse)
    found = results(run_for(world))
    assert found["environment"].state == "failed"
    assert "is not there" in found["verl"].said


def test_a_dry_run_does_nothing(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(build_cases.healthy(), toolkits=())
    found = results(run_for(world, dry_run=True), bare)
    assert world["log"] == []
    assert found["toolchain"].said == "would be provisioned"
    assert "is not there" in found["verl"].said
    world["prefix"].joinpath("bin").mkdir(parents=True)
    world["prefix"].joinpath("bin/python").touch()
    monkeypatch.setattr(wheelhouse_store, "get", lambda *_: Entry(key="k", wheel=Path("v.whl"), receipt={}))
    assert results(run_for(world, dry_run=True), bare)["verl"].said == "v.whl is in the wheelhouse"

    def refuse(*_: Any) -> None:
        raise WorkError("no torch")

    monkeypatch.setattr(build_context, "context", refuse)
    assert results(run_for(world, dry_run=True), bare)["verl"].said == "would be built"


def test_release_wheels_are_taken_first(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_plan, "release", lambda *_: object())
    assert "a release wheel" in results(run_for(world))["flash-attn"].said
    assert world["log"] == ["env", "env"]


def test_results_are_written_for_people() -> None:
    result = Result(step="verl", state="failed", said="first\nsecond", then="nox -s build-verl")
    assert up.shown(result) == "✗ verl: first\n    second\n    next: nox -s build-verl"
    assert up.shown(Result(step="x", state="done", said="")) == "✓ x: "


@pytest.fixture
def command(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The command line, on a healthy host, with a verdict."""
    selection = Selection(stack=STACK, engine="sglang", trainer="fsdp", version="3.10.13")
    monkeypatch.setattr(env, "selection", lambda *_: selection)
    monkeypatch.setattr(env, "interpreter", lambda *_: "python3.10")
    monkeypatch.setattr(up, "collect", lambda *_, **__: build_cases.healthy())
    world["verdict"] = 0
    monkeypatch.setattr(env, "ask", lambda name, *_: world["log"].append(name) or world["verdict"])
    return world


def test_the_exit_code_is_the_doctors(command: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--prefix", str(command["prefix"]), "--archs", "9.0"]
    assert up.main(argv) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith("✓ doctor")
    assert "✓ verl: verl.whl" in out
    command["verdict"] = 3
    assert up.main(argv) == 3
    command["faults"].add("verl")
    command["verdict"] = 0
    assert up.main(argv) == 1


def test_the_verdict_is_followed_by_the_plan(command: dict[str, Any]) -> None:
    assert up.main(["--prefix", str(command["prefix"]), "--archs", "9.0"]) == 0
    assert command["log"][-2:] == ["doctor", "plan"]


def test_without_a_gpu_steps_that_are_done_are_a_success(
    command: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "collect", lambda *_, **__: replace(build_cases.healthy(), gpus=()))
    command["verdict"] = 1
    assert up.main(["--prefix", str(command["prefix"]), "--archs", "9.0"]) == 0


def test_a_dry_run_ends_well(command: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert up.main(["--dry-run", "--prefix", str(command["prefix"])]) == 0
    assert "would be made at" in capsys.readouterr().out


def test_without_an_environment_there_is_no_verdict(
    command: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise WorkError("the index is down")

    monkeypatch.setattr(env, "make", refuse)
    assert up.main(["--prefix", str(command["prefix"])]) == 1
    assert "no environment to judge" in capsys.readouterr().err
