"""Proofs: what a child process does with modules and extensions, and how that is sorted and recorded."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from envcheck.errors import DataError, WorkError
from envcheck.stack import Fault
from scripts import (
    build_context,
    build_steps,
    env,
    env_plan,
    prove,
    prove_build,
    prove_record,
    prove_run,
    prove_stub,
    toolchain,
)
from scripts.env_plan import Plan, Selection
from scripts.lock_resolve import Resolved
from scripts.prove_run import Result
from tests import lock_cases
from tests.lock_cases import resolved

__all__ = ["resolved"]

MODULES = {
    "good.py": "value = 1\n",
    "bad.py": "import absent_module\n",
    "leaves.py": "raise SystemExit(3)\n",
    "dies.py": "import os\nos.kill(os.getpid(), 9)\n",
    "loud.py": "print('noise on standard output')\n",
    "asks.py": "import torch\nif not torch.cuda.is_available():\n    raise ImportError('no GPU')\n",
    "torch/__init__.py": "from torch import cuda\n",
    "torch/cuda.py": "def is_available():\n    return False\n",
}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Give an environment of a few modules, whose Python is this one."""
    site = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    (site / "torch").mkdir(parents=True)
    for name, text in MODULES.items():
        (site / name).write_text(text, encoding="utf-8")
    (tmp_path / "env" / "bin").mkdir()
    wrapper = tmp_path / "env" / "bin" / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} -S "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    return tmp_path / "env"


def environ(prefix: Path) -> dict[str, str]:
    site = next(prefix.glob("lib/python3*/site-packages"))
    return prove_run.environment(site, prefix.parent)


@pytest.mark.process
def test_each_module_is_tried_whatever_the_others_do(prefix: Path) -> None:
    faults = prove_run.imports(prefix, ["good", "dies", "bad", "loud", "leaves", "asks"], environ(prefix))
    assert set(faults) == {"dies", "bad", "leaves", "asks"}
    assert faults["dies"] == "the interpreter died while it was imported"
    assert faults["bad"] == "ModuleNotFoundError: No module named 'absent_module'"
    assert faults["leaves"] == "SystemExit: 3"


@pytest.mark.process
def test_torch_can_answer_as_on_a_gpu_host(prefix: Path) -> None:
    assert prove_run.imports(prefix, ["asks"], environ(prefix), pretend=True) == {}


@pytest.mark.process
def test_extensions_are_loaded_each_on_its_own(prefix: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    site = next(prefix.glob("lib/python3*/site-packages"))
    (site / "beside").mkdir()
    code = {
        "whole": "int whole(void) { return 1; }",
        "lacking": "int absent(void); int lacking(void) { return absent(); }",
        "dying": "__attribute__((constructor)) void end(void) { __builtin_trap(); }",
        "beside/libpart": "int part(void) { return 1; }",
        "beside/user": "int part(void); int user(void) { return part(); }",
        "late": "int common(void); int late(void) { return common(); }",
        "nvidia/libcommon": "int common(void) { return 1; }",
    }
    (site / "nvidia").mkdir()
    common = f"import ctypes\nctypes.CDLL('{site}/nvidia/libcommon.so', mode=ctypes.RTLD_GLOBAL)\n"
    (site / "package.py").write_text(common, encoding="utf-8")
    for name, text in code.items():
        source = prefix.parent / "x.c"
        source.write_text(text, encoding="ascii")
        links = ["-L", str(site / "beside"), "-l:libpart.so"] if name == "beside/user" else []
        soname = ["-Wl,-soname,libpart.so"] if name == "beside/libpart" else []
        argv = ["gcc", "-shared", "-fPIC", "-w", *soname, "-o", str(site / f"{name}.so"), str(source), *links]
        subprocess.run(argv, check=True)
    (site / "garbage.so").write_bytes(b"\x7fELFgarbage")
    found = prove_run.loads(prefix, prove_run.extensions(site), environ(prefix), site)
    assert "undefined symbol: common" in found[str(site / "late.so")], "what its package loads is not there"
    found = prove_run.loads(prefix, prove_run.extensions(site), environ(prefix), site, ["absent", "bad", "package"])
    shown = {Path(path).stem: text for path, text in found.items()}
    assert set(shown) == {"lacking", "dying", "garbage"}
    assert "undefined symbol: absent" in shown["lacking"]
    assert "died of signal" in shown["dying"]


def test_a_toolkit_is_named_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(toolchain, "provisioned", {"12.4": Path("/cache/cuda-12.4")}.get)
    assert "CUDA_HOME" not in prove_run.environment(tmp_path, tmp_path, "13.0")
    assert prove_run.environment(tmp_path, tmp_path, "12.4")["CUDA_HOME"] == "/cache/cuda-12.4"
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    assert prove_run.environment(tmp_path, tmp_path, "12.4")["CUDA_HOME"] == "/usr/local/cuda"


@pytest.mark.process
def test_a_child_that_hangs_is_ended(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = next(prefix.glob("lib/python3*/site-packages"))
    (site / "hangs.py").write_text("import time\ntime.sleep(60)\n", encoding="utf-8")
    monkeypatch.setattr(prove_run, "CHILD_SECONDS", 1.5)
    faults = prove_run.imports(prefix, ["good", "hangs"], environ(prefix))
    assert set(faults) == {"hangs"}


@pytest.mark.process
def test_the_stand_in_driver_has_what_extensions_name(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    first = prove_stub.build(tmp_path, ["cuInit", "cuMemMap"])
    user = tmp_path / "user.c"
    user.write_text(
        "int cuMemMap(void); int other(void); int f(void) { return cuMemMap() + other(); }", encoding="ascii"
    )
    library = tmp_path / "user.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(user), str(first)], check=True)
    (tmp_path / "text.so").write_text("not ELF", encoding="ascii")
    assert prove_stub.wanted([library, tmp_path / "text.so", tmp_path / "absent.so"]) == {
        *prove_stub.ALWAYS,
        "cuMemMap",
    }
    code = f"import ctypes; print(ctypes.CDLL({str(first)!r}).cuMemMap())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == prove_stub.NO_DEVICE


def test_without_a_compiler_there_is_no_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(WorkError, match="no C compiler"):
        prove_stub.build(tmp_path, ["cuInit"])


def test_libraries_of_others_are_not_tried(tmp_path: Path) -> None:
    for name in ("a.so", "nvidia/cudnn/lib/libcudnn.so", "torch/lib/libtorch.so", "x.libs/liby.so", "torch/_C.so"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert [path.name for path in prove_run.extensions(tmp_path)] == ["a.so", "_C.so"]


def selection() -> Selection:
    return Selection(stack=lock_cases.tiny(), engine="sglang", trainer="fsdp", version="3.11.7")


def test_failures_are_sorted_into_known_waiting_and_real(tmp_path: Path) -> None:
    result = Result(
        modules={"sglang"},
        extensions=2,
        faults={
            "torchao/_C.abi3.so": "undefined symbol: _ZN3c10",
            "verl.workers.actor": "ModuleNotFoundError: No module named 'flash_attn'",
            "verl": "ModuleNotFoundError: No module named 'verl'",
            "helper": "ImportError: broken",
        },
    )
    lock = tmp_path / "requirements-sglang.txt"
    lock.write_text("x", encoding="utf-8")
    (tmp_path / "sources.toml").write_text(lock_cases.SOURCES, encoding="utf-8")
    proof = prove.record(selection(), lock, 5, ["flash-attn", "verl"], result)
    assert proof.known_faults == ("torchao/_C.abi3.so: undefined symbol: _ZN3c10 (optional)",)
    assert proof.waiting == (
        "verl: needs verl, without a wheel",
        "verl.workers.actor: needs flash-attn, which is compiled and not built here",
    )
    assert [prove_record.lacking(line) for line in proof.waiting] == ["verl", "flash-attn"]
    quiet = prove.record(selection(), lock, 5, ["flash-attn"], Result(modules={"sglang"}))
    assert quiet.waiting == ("flash_attn: needs flash-attn, which is compiled and not built here",), (
        "nothing asked for it"
    )
    assert proof.tried == {"sglang", "torchao/_C.abi3.so", "verl", "verl.workers.actor", "helper"}
    assert proof.failed == ("helper: ImportError: broken",)
    assert (proof.packages, proof.extensions, proof.modules) == (5, 2, ("sglang",))


@pytest.mark.parametrize(
    ("subject", "text", "known"),
    [
        ("torchao/_C.so", "undefined symbol: x", True),
        ("verl.x", "torchao: undefined symbol", True),
        ("vllm/_C.so", "undefined symbol: x", False),
        ("torchao/_C.so", "no such file", False),
    ],
)
def test_a_fault_is_known_by_package_and_text(subject: str, text: str, known: bool) -> None:
    fault = Fault(package="torchao", text="undefined symbol", reason="optional")
    assert prove_run.is_known(fault, subject, text) is known


def test_a_run_makes_the_environment_tries_twice_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "env/lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (site / "a.so").touch()
    answers = [{"torch": "no GPU", "helper": "broken"}, {"helper": f"broken in {site}/helper.py"}]
    monkeypatch.setattr(prove_stub, "build", lambda *_: tmp_path)
    monkeypatch.setattr(prove_run, "imports", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(prove_run, "loads", lambda *_: {str(site / "a.so"): "undefined"})
    result = prove_run.run(selection(), tmp_path / "env", tmp_path)
    assert (result.modules, result.pretended, result.extensions) == ({"sglang"}, {"torch"}, 0)
    assert result.faults == {"helper": "broken in helper.py", "a.so": "undefined"}
    with pytest.raises(WorkError, match="is no environment"):
        prove_run.run(selection(), tmp_path / "nothing", tmp_path)


def test_the_command_records_each_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolved: Resolved, capsys: pytest.CaptureFixture[str]
) -> None:
    place = lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    stack = lock_cases.stack_file(tmp_path)
    plan = Plan(pins=(), constraints=place / "build.txt", extras=(), missing=(), sdists=())
    monkeypatch.setattr(env, "version_of", lambda _: "3.11.7")
    monkeypatch.setattr(env, "make", lambda *_, **__: "made")
    monkeypatch.setattr(env_plan, "make", lambda *_, **__: plan)
    results = [Result(modules={"sglang"}), Result(faults={"helper": "broken"})]
    monkeypatch.setattr(prove_run, "run", lambda *_: results.pop(0))
    monkeypatch.setattr(prove_build, "build", lambda *_: [])
    code = prove.main(["--stack", str(stack), "--root", str(tmp_path), "--python", sys.executable])
    assert code == 1
    assert "FAILED       helper: broken" in capsys.readouterr().out
    rows = json.loads((place / "proof.json").read_text(encoding="utf-8"))["proofs"]
    assert [row["engine"] for row in rows] == ["sglang", "vllm"]
    assert rows[0]["lock_sha256"] == prove_record.sha256(place / "requirements-sglang.txt")


def test_what_no_nvcc_compiles_is_built_and_what_cannot_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(build_context, "context", lambda stack, name, wishes: f"{name} {wishes.python}")
    monkeypatch.setattr(build_steps, "build", lambda context, _: asked.append(context))
    assert prove_build.build(selection(), ["flash-attn", "verl"], tmp_path, tmp_path) == ["verl"]
    assert asked == [f"verl {tmp_path}/bin/python"], "flash-attn takes nvcc and hours"

    def refuse(*_: object) -> None:
        raise WorkError("commit 333e6d62 was not to be had")

    monkeypatch.setattr(build_steps, "build", refuse)
    assert prove_build.build(selection(), ["verl"], tmp_path, tmp_path) == []
    assert "verl could not be built for the proof: commit 333e6d62" in capsys.readouterr().err


def test_what_is_built_is_put_in_before_it_is_tried_and_what_waits_gives_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resolved: Resolved
) -> None:
    place = lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    lacking, made = [("flash-attn", "verl"), ("flash-attn",)], []
    plan = Plan(pins=(), constraints=place / "build.txt", extras=(), missing=(), sdists=())
    monkeypatch.setattr(env, "version_of", lambda _: "3.11.7")
    monkeypatch.setattr(env, "make", lambda *given, **_: made.append(given[2]))
    monkeypatch.setattr(env_plan, "make", lambda *_, **__: dataclasses.replace(plan, missing=lacking.pop(0)))
    monkeypatch.setattr(prove_build, "build", lambda *_: ["verl"])
    faults = {"verl.workers.actor": "ModuleNotFoundError: No module named 'flash_attn'"}
    monkeypatch.setattr(prove_run, "run", lambda *_: Result(modules={"sglang"}, faults=faults))
    words = ["--stack", str(lock_cases.stack_file(tmp_path)), "--root", str(tmp_path), "--engine", "sglang"]
    words += ["--python", sys.executable]
    assert (prove.main(words), len(made)) == (3, 2)


def test_a_damaged_record_is_refused_before_the_work(tmp_path: Path, resolved: Resolved) -> None:
    place = lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    (place / "proof.json").write_text("[", encoding="utf-8")
    with pytest.raises(DataError, match="expected JSON") as caught:
        prove.main(["--stack", str(lock_cases.stack_file(tmp_path)), "--root", str(tmp_path)])
    assert "git restore it" in caught.value.fix


def test_one_prefix_is_for_one_proof(tmp_path: Path) -> None:
    stack = lock_cases.stack_file(tmp_path)
    with pytest.raises(WorkError, match="one engine and one Python"):
        prove.main(["--stack", str(stack), "--prefix", str(tmp_path / "env")])
    assert isinstance(prove.parser(), argparse.ArgumentParser)
