"""Building: preflight before any compiler, one retry when memory runs out, receipts, and never twice the same."""

from __future__ import annotations

import json
import signal
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envcheck import choices, stack
from envcheck.codec import Unknown
from envcheck.errors import EnvcheckError, WorkError
from envcheck.facts import Facts, LibraryCopy
from envcheck.model import Finding, Fix, Outcome
from scripts import (
    build,
    build_cache,
    build_context,
    build_release,
    build_run,
    build_sdist,
    build_steps,
    build_tools,
    build_verify,
    download,
    env_plan,
    process,
    sources,
    toolchain,
    toolchain_gcc,
    wheelhouse_store,
)
from scripts.build_context import Context
from scripts.build_run import KilledError, Made
from scripts.build_steps import Order
from scripts.env_plan import Extra
from scripts.process import Done
from tests import build_cases, factories

WHEEL = "flash_attn-2.7.4.post1-py3-none-any.whl"


@pytest.fixture(autouse=True)
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, no compiler cache, no mounts, no verification of what is no real wheel."""
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build_cache, "find", lambda: None)
    monkeypatch.setattr(build_run, "can_mount", lambda: False)
    monkeypatch.setattr(toolchain_gcc, "provisioned", lambda: None)
    overlay = tmp_path / "tools"
    (overlay / "ninja-1.11.dist-info").mkdir(parents=True)
    monkeypatch.setattr(build_tools, "overlay", lambda *_, **__: overlay)
    source = tmp_path / "source"
    source.mkdir()
    (source / "setup.py").write_text("print(1)\n", encoding="ascii")
    prepared = sources.Prepared(name="flash-attn", path=source, digest="d")
    monkeypatch.setattr(sources, "prepare", lambda *_, **__: prepared)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the build command does, run after run: a wheel, or an exit code with a line of output."""
    behaviour: list[Any] = []
    seen: list[dict[str, str]] = []

    def stream(argv: list[str], *, environ: dict[str, str], cwd: Path, log: Path, each_line: Any, **_: Any) -> Done:
        seen.append(environ)
        said, code = behaviour.pop(0) if behaviour else ("", 0)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{said}\n")
        each_line(said)
        if code == 0:
            build_cases.wheel(Path(argv[argv.index("--wheel-dir") + 1]), WHEEL)
        assert (cwd / "setup.py").exists()
        return Done(argv=tuple(argv), returncode=code, tail=(said,), log=log)

    monkeypatch.setattr(process, "stream", stream)
    # These wheels hold no code; what the verifier says of real ones is its own tests' business.
    monkeypatch.setattr("scripts.build_verify.wheels.verify", lambda *_, **__: ())
    behaviour_and_seen: list[Any] = [behaviour, seen]
    return behaviour_and_seen


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(wheelhouse=tmp_path / "house")


def context(**changes: Any) -> Context:
    return replace(build_cases.context(), **changes)


def test_a_wheel_is_built_once(pip: list[Any], order: Order, capsys: pytest.CaptureFixture[str]) -> None:
    entry = build_steps.build(context(), order)
    assert entry.wheel.name == WHEEL
    assert "building flash-attn 2.7.4.post1 for 9.0: 8 jobs" in capsys.readouterr().out
    again = build_steps.build(context(), order)
    assert again.key == entry.key
    assert "nothing was compiled" in capsys.readouterr().out
    assert len(pip[1]) == 1


def test_two_runs_at_once_build_once(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = build_steps.build(context(), order)
    real, asked = wheelhouse_store.get, iter([True])
    monkeypatch.setattr(wheelhouse_store, "get", lambda *args: None if next(asked, False) else real(*args))
    capsys.readouterr()
    assert build_steps.build(context(), order).key == entry.key
    assert "is there already" in capsys.readouterr().out
    assert len(pip[1]) == 1


def test_nothing_is_compiled_for_a_wheelhouse_that_cannot_be_written(
    pip: list[Any], order: Order, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WorkError, match=r"(?s)the wheelhouse .* cannot be written: .*--wheelhouse"):
        build_steps.build(context(), replace(order, wheelhouse=tmp_path / "file"))
    assert not pip[1]


def test_the_receipt_says_what_went_in_and_keeps_the_hosts_secrets_out(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    receipt = build_steps.build(context(), order).receipt
    assert pip[1][0]["HF_TOKEN"] == "hf_secret"  # noqa: S105  # a made-up one
    assert "hf_secret" not in json.dumps(receipt)
    assert "PATH" not in receipt["environment"]
    assert receipt["inputs"]["torch"] == "2.5.1+cu124"
    assert receipt["tools"] == {"ninja": "1.11"}
    assert receipt["jobs"] == 8
    assert receipt["planned_memory_bytes"] == 8 * (7 << 30) + (512 << 20)
    assert receipt["wheel"]["sha256"]
    assert receipt["path_independent"] is False


def test_the_build_sees_the_chosen_tools_and_nothing_that_misleads(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPATH", "/opt/cudnn8/include")
    monkeypatch.setenv("NVCC_APPEND_FLAGS", "-allow-unsupported-compiler")
    build_steps.build(context(), order)
    environ = pip[1][0]
    assert "CPATH" not in environ
    assert "unsupported" not in environ["NVCC_APPEND_FLAGS"]
    assert environ["CUDA_HOME"] == "/usr/local/cuda-12.4"
    assert environ["MAX_JOBS"] == "8"
    assert environ["PATH"].split(":")[1] == "/usr/local/cuda-12.4/bin"
    overlay = environ["PYTHONPATH"]
    assert f"-ffile-prefix-map={overlay}=build-tools" in environ["CFLAGS"]
    assert environ["SOURCE_DATE_EPOCH"] == str(build_run.epoch_of(context()))


def test_a_pure_build_starts_no_compiler_cache(pip: list[Any], order: Order, tmp_path: Path) -> None:
    pure = build_cases.context("verl")
    build_run.prepare_tree(pure, "k", tmp_path / "tree", sources.prepare(pure.stack, pure.source).path)
    made = build_run.run(pure, tree=tmp_path / "tree", log=tmp_path / "x.log")
    assert "CFLAGS" not in made.environment
    assert order.variant == {}
    assert len(pip[1]) == 1


def test_the_compiler_cache_is_used_where_there_is_one(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = build_cache.CompilerCache(kind="ccache", path="/usr/bin/ccache", directory=tmp_path)
    monkeypatch.setattr(build_cache, "find", lambda: found)
    counts = iter([build_cache.Counts(hits=5, misses=1), build_cache.Counts(hits=12, misses=2)])
    monkeypatch.setattr(build_cache, "counts", lambda _: next(counts))
    receipt = build_steps.build(context(), order).receipt
    assert receipt["compiler_cache"] == {"hits": 7, "misses": 1}
    assert pip[1][0]["PYTORCH_NVCC"].endswith("/wrappers/flash-attn/nvcc")


@pytest.mark.parametrize(
    "said",
    [
        "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
        "g++: fatal error: Killed signal terminated program cc1plus",
        "Killed",
    ],
)
def test_memory_that_runs_out_is_said_and_tried_again_with_half_the_jobs(
    pip: list[Any], order: Order, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pip[0].append((said, 1))
    entry = build_steps.build(context(), order)
    out = capsys.readouterr().out
    assert "for want of memory (8 jobs, 7 GiB planned for each)" in out
    assert "trying once more with 4 instead of 8 jobs" in out
    assert entry.receipt["jobs"] == 4
    assert [environ["MAX_JOBS"] for environ in pip[1]] == ["8", "4"]


def test_memory_that_runs_out_twice_is_given_up(pip: list[Any], order: Order) -> None:
    pip[0] += [("", -signal.SIGKILL), ("", -signal.SIGKILL)]
    with pytest.raises(KilledError, match=r"(?s)4 jobs.*--jobs 1; the log is"):
        build_steps.build(context(), order)
    assert len(pip[1]) == 2


def test_one_job_is_not_halved(pip: list[Any], order: Order) -> None:
    pip[0] += [("", 137)]
    with pytest.raises(KilledError, match="1 jobs"):
        build_steps.build(context().with_jobs(1), order)


def test_a_failure_names_its_cause_the_last_lines_and_the_log(pip: list[Any], order: Order) -> None:
    pip[0].append(("ModuleNotFoundError: No module named 'torch'", 1))
    with pytest.raises(
        WorkError, match=r"(?s)ended with exit code 1\ncause: .*No module named 'torch'.*the whole log is"
    ):
        build_steps.build(context(), order)
    assert wheelhouse_store.get(order.wheelhouse, "x") is None


def test_a_failure_that_nobody_knows(pip: list[Any], order: Order) -> None:
    pip[0].append(("frobnication refused", 3))
    with pytest.raises(WorkError, match=r"(?s)exit code 3\n    frobnication refused"):
        build_steps.build(context(), order)


def test_a_stopped_build_goes_on_and_another_key_starts_clean(tmp_path: Path) -> None:
    tree, source = tmp_path / "tree", tmp_path / "source"
    assert build_run.prepare_tree(context(), "key1", tree, source) is False
    (tree / "build").mkdir()
    assert build_run.prepare_tree(context(), "key1", tree, source) is True
    assert (tree / "build").exists()
    assert build_run.prepare_tree(context(), "key2", tree, source) is False
    assert not (tree / "build").exists()


def test_an_interrupted_build_keeps_its_tree(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = process.stream

    def interrupted(*_: Any, **__: Any) -> Done:
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_steps.build(context(), order)
    monkeypatch.setattr(process, "stream", real)
    capsys.readouterr()
    build_steps.build(context(), order)
    assert "going on with flash-attn" in capsys.readouterr().out
    assert len(pip[1]) == 1


def test_no_wheel_and_two_wheels(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="left 0 wheels"):
        build_run._only_wheel(tmp_path)


def test_the_command_runs_at_one_place_where_mounts_are_allowed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build_run, "CANONICAL", tmp_path / "place")
    argv = build_run.at_canonical_place(["python", "-V"], tmp_path / "te")
    assert argv[0] == "unshare"
    assert argv[-4:] == [str(tmp_path / "te"), str(tmp_path / "place/te"), "python", "-V"]


def test_a_host_without_unshare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("unshare")

    monkeypatch.setattr(subprocess, "run", missing)
    assert build_run.can_mount() is False


def judged(monkeypatch: pytest.MonkeyPatch, *outcomes: Outcome) -> None:
    monkeypatch.setattr(build_context, "preflight", lambda *_, **__: list(outcomes))


def test_an_error_of_the_preflight_stops_before_a_compiler_starts(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    fix = Fix(text="Install it", commands=("nox -s toolchain",))
    judged(
        monkeypatch,
        Outcome(rule="gcc-too-old", subject="g++", outcome="ok", summary="fits"),
        Outcome(
            rule="nvcc-missing",
            subject="nvcc",
            outcome="error",
            summary="no nvcc",
            found="none",
            expected="12.4",
            fix=(fix,),
        ),
    )
    with pytest.raises(
        WorkError, match=r"(?s)nvcc-missing: no nvcc\n.*found     none.*→ Install it\n +nox -s toolchain"
    ):
        build_steps.build(context(), order)
    assert pip[1] == []


def test_the_real_rules_stop_a_host_without_cudnn_headers() -> None:
    facts = replace(build_cases.healthy(), cudnn=())
    outcomes = build_context.preflight(build_te(facts))
    assert "cudnn-headers-missing" in build_context.refusal(outcomes)


def test_the_real_rules_stop_an_old_compiler() -> None:
    facts = replace(build_cases.healthy(), compilers=factories.compilers("7.5.0"))
    why = build_context.refusal(build_context.preflight(build_te(facts)))
    assert "gcc-too-old" in why
    assert "nox -s toolchain -- --gcc" in why


def test_the_real_rules_stop_another_cuda() -> None:
    facts = replace(build_cases.healthy(), toolkits=(factories.toolkit("11.8.0"),))
    assert "nvcc-differs-from-torch" in build_context.refusal(build_context.preflight(build_te(facts)))


def test_an_architecture_that_nvcc_does_not_know_stops_without_a_gpu() -> None:
    facts = replace(build_cases.healthy(), gpus=())
    asked = build_cases.context("flash-attn", facts, archs=("9.0a", "12.0"))
    asked = replace(asked, wishes=replace(asked.wishes, archs=("9.0a", "12.0")))
    why = build_context.refusal(build_context.preflight(asked))
    assert "nvcc-too-old-for-gpu" in why
    assert "compute capability 12.0" in why
    assert "Leave it out of --archs 9.0a;12.0" in why
    assert "compute capability 9.0" not in why


@pytest.mark.parametrize(
    ("name", "archs", "rule", "why"),
    [
        ("flash-attn", ("7.0", "9.0"), "gpu-too-old", "sm_70 is too old: FlashAttention 2 supports Ampere"),
        ("transformer-engine", ("6.1",), "gpu-too-old", "sm_61 is too old: TransformerEngine's sources"),
        ("transformer-engine", ("10.0",), "nvcc-too-old-for-gpu", "compute capability 10.0 needs: sm_100 is known"),
        ("apex", ("10.0",), "nvcc-too-old-for-gpu", "compute capability 10.0 needs: sm_100 is known"),
    ],
)
def test_an_architecture_that_cannot_be_compiled_for_stops_without_a_gpu(
    name: str, archs: tuple[str, ...], rule: str, why: str
) -> None:
    asked = build_cases.context(name, replace(build_cases.healthy(), gpus=()), archs=archs)
    asked = replace(asked, wishes=replace(asked.wishes, archs=archs, trainer="megatron"))
    said = build_context.refusal(build_context.preflight(asked))
    assert said.startswith(f"{rule}: ")
    assert why in said
    assert f"Leave it out of --archs {';'.join(archs)}" in said


def test_transformer_engine_is_compiled_for_volta() -> None:
    asked = build_cases.context("transformer-engine", archs=("7.0",))
    asked = replace(asked, wishes=replace(asked.wishes, archs=("7.0",), trainer="megatron"))
    assert build_context.refusal(build_context.preflight(asked)) == ""


def test_an_optional_component_is_judged_where_it_is_built() -> None:
    facts = build_cases.healthy(resources={"memory_available_bytes": 2 << 30, "memory_limit_bytes": None})
    facts = replace(facts, toolkits=(factories.toolkit("12.6.1"),))
    apex = build_cases.context("apex", facts)
    why = build_context.refusal(build_context.preflight(replace(apex, wishes=replace(apex.wishes, trainer="megatron"))))
    assert "build-needs-more-memory: apex needs 3.0 GiB" in why
    assert "apex refuses to build" in why


def test_the_real_rules_stop_cudnn_headers_of_another_major() -> None:
    base = build_cases.healthy()
    assert isinstance(base.cudnn, tuple)
    libraries = [item for item in base.cudnn if item.kind == "library"]
    place = "/opt/cudnn8/include/cudnn.h"
    old = LibraryCopy(kind="header", path=place, version="8.9.7", source="env", selected=True)
    facts = replace(base, cudnn=(*libraries, old))
    assert "cudnn-header-differs-from-runtime" in build_context.refusal(build_context.preflight(build_te(facts)))


def test_a_healthy_host_is_not_refused() -> None:
    assert build_context.refusal(build_context.preflight(build_te(build_cases.healthy()))) == ""


def test_the_needs_of_other_components_stop_nothing() -> None:
    disks = tuple(factories.disk(role, f"/{role}", 2.5) for role in ("tmp", "cache", "home", "work"))
    facts = build_cases.healthy(resources={"disks": disks})
    assert "build-needs-more-disk" not in build_context.refusal(build_context.preflight(build_te(facts)))
    assert "build-needs-more-disk" in build_context.refusal(build_context.preflight(build_cases.context(facts=facts)))


def test_force_overrides_one_rule_by_name() -> None:
    facts = replace(build_cases.healthy(), cudnn=())
    outcomes = build_context.preflight(build_te(facts), force=["cudnn-headers-missing", "cudnn-too-old"])
    assert "cudnn-headers-missing" not in build_context.refusal(outcomes)
    with pytest.raises(EnvcheckError, match="--force shm-too-small: no rule of this build"):
        build_context.preflight(build_te(facts), force=["shm-too-small"])


def build_te(facts: Facts) -> Context:
    wishes = replace(build_cases.WISHES, trainer="megatron")
    return replace(build_cases.context("transformer-engine", facts), wishes=wishes)


def test_the_made_environment_is_taken_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    python = tmp_path / "cache/envs/verl-sglang-cu124-sglang-fsdp-py3.10/bin/python"
    options, wanted = build.parser().parse_args(["flash-attn"]), stack.load(factories.SEED)
    assert build.wishes_of(options, wanted).python is None
    python.parent.mkdir(parents=True)
    python.touch()
    assert build.wishes_of(options, wanted).python == str(python)
    named = build.parser().parse_args(["flash-attn", "--python", "/mine"])
    assert build.wishes_of(named, wanted).python == "/mine"
    monkeypatch.setenv("VIRTUAL_ENV", "/venv")
    assert build.wishes_of(options, wanted).python is None


def test_no_torch_says_how_to_get_one() -> None:
    bare = context(facts=factories.without(build_cases.healthy(), "torch"))
    with pytest.raises(WorkError, match=r"has no torch; 2.5.1 is to be built against\n.*nox -s env"):
        _ = bare.torch


def test_an_interpreter_that_cannot_be_read() -> None:
    with pytest.raises(WorkError, match="could not be read: no such file"):
        _ = context(facts=replace(build_cases.healthy(), python=Unknown("no such file"))).python


def test_a_value_that_the_host_lacks_is_named() -> None:
    base = build_te(build_cases.healthy())
    without = replace(base, choices=replace(base.choices, cudnn_path=None))
    with pytest.raises(WorkError, match="no value for CUDNN_PATH"):
        build_context.environment(without)


def test_the_verdict_of_the_verifier_is_obeyed(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding(summary="a path of the build", found="/home/me", expected="none", severity="warning")]
    monkeypatch.setattr("scripts.build_verify.wheels.verify", lambda *_, **__: tuple(found))
    receipt = build_steps.build(context(), order).receipt
    assert receipt["verification"]["warnings"] == ["a path of the build: found /home/me, expected none"]
    assert "warning: a path of the build" in capsys.readouterr().out
    found.append(Finding(summary="the C++ ABI is not torch's", found="new", expected="old"))
    with pytest.raises(WorkError, match=r"(?s)not what was asked for:\n.*C\+\+ ABI.*not put into the wheelhouse"):
        build_steps.build(context(), replace(order, rebuild=True))
    assert len(pip[1]) == 2


def test_what_is_asked_of_a_wheel() -> None:
    asked = build_verify.asked(context())
    assert asked["archs"] == ("9.0",)
    assert asked["cxx11_abi"] is False
    assert asked["python_tag"] == "cp310"
    assert asked["glibc_max"] == "2.35"
    assert "archs" not in build_verify.asked(build_cases.context("verl"))
    assert "cxx11_abi" not in build_verify.asked(build_cases.context("megatron"))


def collected(monkeypatch: pytest.MonkeyPatch, *answers: Facts) -> list[dict[str, str]]:
    """Let collect() give these facts; give the environments that it was asked in."""
    given, environs = list(answers), []

    def collect(host: Any, **_: Any) -> Facts:
        environs.append(dict(host.environ))
        return given.pop(0) if len(given) > 1 else given[0]

    monkeypatch.setattr(build_context, "collect", collect)
    return environs


def test_the_context_is_read_as_the_build_will_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environs = collected(monkeypatch, build_cases.healthy())
    found = build_context.context(stack.load(), "transformer-engine", build_cases.WISHES)
    assert environs[1]["CUDA_HOME"] == "/usr/local/cuda-12.4"
    assert environs[1]["PATH"].startswith("/usr/local/cuda-12.4/bin:")
    assert found.wishes.trainer == "megatron"
    assert found.source.commit == "4e7caa1c35e301c31e563e19a75bd51e220b0b2c"


def test_cudnn_is_judged_as_the_recipe_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDNN_PATH", "/opt/cudnn8")
    environs = collected(monkeypatch, build_cases.healthy())
    found = build_context.context(stack.load(), "transformer-engine", build_cases.WISHES)
    assert environs[1]["CUDNN_PATH"] == found.choices.cudnn_path != "/opt/cudnn8"
    build_context.context(stack.load(), "flash-attn", build_cases.WISHES)
    assert environs[-1]["CUDNN_PATH"] == "/opt/cudnn8"


def test_the_provisioned_compiler_serves_what_needs_no_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(build_cases.healthy(), compilers=())
    environs = collected(monkeypatch, bare, build_cases.healthy())
    monkeypatch.setattr(toolchain_gcc, "provisioned", lambda: "/cache/gcc/bin/g++")
    found = build_context.context(stack.load(), "megatron", build_cases.WISHES)
    assert environs[1]["CXX"] == "/cache/gcc/bin/g++"
    assert build_context.refusal(build_context.preflight(found)) == ""


def test_without_a_toolkit_the_provisioned_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(build_cases.healthy(), toolkits=())
    provided = replace(build_cases.healthy(), toolkits=(factories.toolkit(path="/cache/cuda-12.4"),))
    environs = collected(monkeypatch, bare, provided)
    monkeypatch.setattr(toolchain, "provisioned", lambda _: Path("/cache/cuda-12.4"))
    found = build_context.context(stack.load(), "flash-attn", build_cases.WISHES)
    assert environs[1]["CUDA_HOME"] == "/cache/cuda-12.4"
    assert found.choices.cuda_home == "/cache/cuda-12.4"


def test_without_a_fitting_compiler_the_packaged_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    environs = collected(monkeypatch, replace(build_cases.healthy(), compilers=factories.compilers("7.5.0")))
    monkeypatch.setattr(toolchain_gcc, "provisioned", lambda: "/cache/gcc/bin/g++")
    build_context.context(stack.load(), "flash-attn", build_cases.WISHES)
    assert environs[1]["CXX"] == "/cache/gcc/bin/g++"
    assert environs[1]["CUDAHOSTCXX"] == "/cache/gcc/bin/g++"


def test_wishes_win_over_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    collected(monkeypatch, build_cases.healthy())
    wishes = replace(build_cases.WISHES, archs=("8.0",), jobs=3)
    found = build_context.context(stack.load(), "flash-attn", wishes)
    assert (found.choices.archs, found.jobs) == (("8.0",), 3)


@pytest.mark.parametrize(
    ("name", "asked", "compiled"),
    [
        ("flash-attn", ("8.6", "8.9", "9.0a"), ("8.0", "9.0")),
        ("flash-attn", ("7.5", "10.0", "12.1"), ("7.5", "10.0", "12.0")),
        ("transformer-engine", ("8.6", "8.9"), ("8.6", "8.9")),
    ],
)
def test_the_architectures_are_those_that_the_sources_know(
    name: str, asked: tuple[str, ...], compiled: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    collected(monkeypatch, build_cases.healthy())
    found = build_context.context(stack.load(), name, replace(build_cases.WISHES, archs=asked))
    assert found.choices.archs == compiled
    present = tuple(factories.gpu("some GPU", arch.rstrip("a")) for arch in asked)
    collected(monkeypatch, replace(build_cases.healthy(), gpus=present))
    assert build_context.context(stack.load(), name, build_cases.WISHES).choices.archs == compiled


def test_jobs_are_bounded_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    collected(monkeypatch, build_cases.healthy(resources={"cpus": 16, "memory_limit_bytes": 4 << 30}))
    found = build_context.context(stack.load(), "flash-attn", build_cases.WISHES)
    assert found.jobs == 1
    assert choices.jobs(found.choices, replace(found.recipe, memory_per_job_bytes=1 << 30)) == 3


def test_names_that_are_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    collected(monkeypatch, build_cases.healthy())
    with pytest.raises(EnvcheckError, match=r"no component 'flash'\n.*flash-attn"):
        build_context.context(stack.load(), "flash", build_cases.WISHES)
    with pytest.raises(build_context.NothingToBuildError, match="comes as a wheel of the lock"):
        build_context.context(stack.load(), "sglang", build_cases.WISHES)


@pytest.mark.parametrize(
    ("text", "archs"),
    [(None, ()), ("9.0", ("9.0",)), ("8.0;9.0", ("8.0", "9.0")), ("80,90a 90a", ("8.0", "9.0a")), ("120", ("12.0",))],
)
def test_architectures(text: str | None, archs: tuple[str, ...]) -> None:
    assert build.archs_of(text) == archs


@pytest.mark.parametrize("text", ["hopper", "9.x", "sm_90"])
def test_architectures_that_are_none(text: str) -> None:
    with pytest.raises(EnvcheckError, match="is no architecture"):
        build.archs_of(text)


def test_numbers_of_jobs() -> None:
    assert build.jobs_of("auto") is None
    assert build.jobs_of("3") == 3
    for wrong in ("0", "-1", "many"):
        with pytest.raises(EnvcheckError, match="is not a number of jobs"):
            build.jobs_of(wrong)


def test_a_dry_run_says_what_would_be_done(
    monkeypatch: pytest.MonkeyPatch, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    collected(monkeypatch, build_cases.healthy())
    argv = ["transformer-engine", "--dry-run", "--archs", "9.0", "--wheelhouse", str(order.wheelhouse)]
    assert build.main(argv) == 0
    out = capsys.readouterr().out
    assert "NVTE_CUDA_ARCHS=90" in out
    assert "wheel     not there yet" in out
    assert build.main([*argv, "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["preflight"]["gcc-too-old"] == "ok"
    assert document["refusal"] == ""


def test_a_dry_run_on_a_host_that_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = replace(build_cases.healthy(), compilers=factories.compilers("7.5.0"))
    collected(monkeypatch, facts)
    assert build.main(["flash-attn", "--dry-run", "--wheelhouse", str(order.wheelhouse)]) == 0
    assert "would stop here:\ngcc-too-old" in capsys.readouterr().out


def test_all_builds_what_the_stack_needs_in_order(
    monkeypatch: pytest.MonkeyPatch, order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    collected(monkeypatch, build_cases.healthy())
    built: list[str] = []
    monkeypatch.setattr(build_steps, "build", lambda found, _: built.append(found.component.name))
    assert build.main(["all", "--wheelhouse", str(order.wheelhouse)]) == 0
    assert built == ["flash-attn", "flashinfer", "transformer-engine", "megatron", "verl"] or built.index(
        "flash-attn"
    ) < built.index("transformer-engine")
    built.clear()
    assert build.main(["all", "--trainer", "fsdp", "--wheelhouse", str(order.wheelhouse)]) == 0
    assert "megatron" not in built
    assert build.main(["sglang"]) == 0
    assert "--from-sdist compiles it" in capsys.readouterr().out


def test_slim_options_are_for_flash_attn_only() -> None:
    with pytest.raises(EnvcheckError, match="are for flash-attn, not for verl"):
        build.main(["verl", "--head-dims", "64"])


def test_a_release_wheel_is_taken_first_and_verified(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = build_cases.wheel(tmp_path / "release", WHEEL)
    release = Extra(component="flash-attn", file=WHEEL, sha256="a" * 64, url="https://example.org/x.whl")
    monkeypatch.setattr(env_plan, "release", lambda *_: release)
    asked: list[str] = []

    def fetch(urls: list[str], **_: Any) -> Path:
        asked.append(urls[0])
        return wheel

    monkeypatch.setattr(download, "fetch", fetch)
    entry = build_steps.build(context(), order)
    assert entry.receipt["release"] == "https://example.org/x.whl"
    assert "is the release wheel that the stack pins" in capsys.readouterr().out
    build_steps.build(context(), order)
    assert asked == ["https://example.org/x.whl"]
    assert build_steps.build(context(), replace(order, rebuild=True)).key != entry.key
    assert len(pip[1]) == 1


def test_a_release_wheel_whose_name_lies_is_refused(
    order: Order, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = build_cases.wheel(tmp_path / "release", WHEEL)
    release = Extra(component="flash-attn", file=WHEEL, sha256="a" * 64, url="https://example.org/x.whl")
    monkeypatch.setattr(env_plan, "release", lambda *_: release)
    monkeypatch.setattr(download, "fetch", lambda *_, **__: wheel)
    with pytest.raises(WorkError, match=r"(?s)is not what was asked for:.*no GPU code for 9.0"):
        build_steps.build(context(), order)
    assert list(wheelhouse_store.entries(order.wheelhouse)) == []


def test_without_a_python_version_no_release_wheel_fits() -> None:
    assert build_release.find(context(facts=build_cases.healthy(python={"version": Unknown("no")}))) is None


def test_a_slim_build_is_marked(pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    slimmed = []
    monkeypatch.setattr(build_steps.build_flash_attn, "slim", lambda *given: slimmed.append(given))  # type: ignore[attr-defined]
    wanted = replace(order, variant={"head_dims": "64", "dtypes": "bf16"})
    entry = build_steps.build(context(), wanted)
    assert "-2.7.4.post1-0slim.d64.bf16-py3-" in entry.wheel.name
    with zipfile.ZipFile(entry.wheel) as wheel:
        (name,) = (item for item in wheel.namelist() if item.endswith(".dist-info/WHEEL"))
        assert b"\nBuild: 0slim.d64.bf16\n" in wheel.read(name)
    assert entry.receipt["inputs"]["variant"] == {"head_dims": "64", "dtypes": "bf16"}
    assert len(slimmed) == 1


def test_a_wheel_of_another_wheelhouse_is_taken_first(pip: list[Any], order: Order, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    entry = build_steps.build(context(), order)
    mine = replace(order, wheelhouse=tmp_path / "mine", pull=str(order.wheelhouse))
    assert build_steps.build(context(), mine).sha256 == entry.sha256
    assert len(pip[1]) == 1


def test_a_pulled_wheel_is_verified_from_its_bytes_before_it_is_taken(
    pip: list[Any], order: Order, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("fsspec")
    build_steps.build(context(), order)
    mine = replace(order, wheelhouse=tmp_path / "mine", pull=str(order.wheelhouse))
    found = [Finding(summary="the C++ ABI is not torch's", found="new", expected="old")]
    monkeypatch.setattr("scripts.build_verify.wheels.verify", lambda *_, **__: tuple(found))
    with pytest.raises(WorkError, match=r"(?s)not what was asked for:\n.*C\+\+ ABI.*not put into the wheelhouse$"):
        build_steps.build(context(), mine)
    assert list(wheelhouse_store.entries(mine.wheelhouse)) == []
    assert len(pip[1]) == 1


def test_gpu_code_of_an_sdist_has_the_architectures_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def verified(_: Path, **wanted: Any) -> tuple[Finding, ...]:
        seen.append(wanted)
        return ()

    base = context()
    sdist = replace(base, component=replace(base.component, recipe=build_sdist.RECIPE))
    monkeypatch.setattr("scripts.build_verify.wheels.verify", verified)
    for archs in (("8.0",), ()):
        monkeypatch.setattr("scripts.build_verify.wheels.archs_of", lambda _, archs=archs: archs)
        build_verify.verify(sdist, tmp_path / WHEEL)
    assert [asked["archs"] for asked in seen] == [("9.0",), ()]


def test_the_planned_time_and_the_closing_line() -> None:
    made = Made(
        wheel=Path("x"),
        seconds=61.0,
        peak_bytes=3 << 30,
        peak_of_one_bytes=1 << 30,
        jobs=2,
        log=Path("log"),
        environment={},
        canonical=True,
        hits=9,
        misses=1,
    )
    entry = wheelhouse_store.Entry(key="k", wheel=Path("w"), receipt={"wheel": {"sha256": "s", "size": 5_000_000}})
    said = build_steps._closing(entry, made)
    assert "5.0 MB in 61 s, peak memory 3.0 GiB (1.0 GiB one process), compiler cache 9 of 10" in said
