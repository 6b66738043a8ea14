from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import EnvcheckError, WorkError
from envcheck.host import Completed, RecordedHost
from scripts import make_tiny_model, ppo, ppo_compose, ppo_environment, ppo_preflight, ppo_processes, ppo_run, process
from scripts.metrics_console import StepLine
from scripts.ppo_plan import Request, plan, resumed
from scripts.ppo_run import Launch, Watch, failure, gpu_memory, live
from tests.ppo_cases import composed, facts, installed

STEP = (
    "(TaskRunner pid=71) step:{step} - critic/score/mean:0.016 - critic/rewards/mean:{reward}"
    " - perf/throughput:2345.678 - perf/time_per_step:1.800 - perf/max_memory_allocated_gb:3.012"
)
MEMORY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")


def _watch(*steps: tuple[int, str], finished: bool = False) -> Watch:
    watch = Watch()
    watch.line("(TaskRunner pid=71) 'Final validation metrics: None'" if finished else "")
    for step, reward in steps:
        watch.line(STEP.format(step=step, reward=reward))
    return watch


def test_live_line() -> None:
    watch = Watch(peak_mib=34700)
    assert watch.line("loading weights") is None
    assert watch.line(STEP.format(step=3, reward="0.016")) == (
        "step 3 · reward 0.016 · score 0.016 · 2,346 tokens/s/GPU · 1.8 s · 3.0 GB allocated · GPU peak 34,700 MiB"
    )
    assert watch.first_step_seconds is not None
    assert live(StepLine(step=1, metrics={"other": 1.0}), 0) == "step 1"


@pytest.mark.parametrize(
    ("watch", "returncode", "wanted", "word"),
    [
        pytest.param(_watch((1, "0"), (2, "0"), (3, "0")), 0, 3, None, id="right"),
        pytest.param(_watch((1, "0"), (2, "0"), finished=True), 0, 3, None, id="ends-before-the-last"),
        pytest.param(_watch((1, "0"), (2, "0")), 0, 3, "after step 2 of 3", id="one-step-short"),
        pytest.param(_watch((1, "0")), 0, 3, "after step 1 of 3", id="too-short"),
        pytest.param(_watch(), 0, 3, "logged no step", id="no-step"),
        pytest.param(_watch((1, "0")), 1, None, "exit code 1", id="failed"),
        pytest.param(_watch((1, "0")), -9, None, "out-of-memory killer", id="killed"),
        pytest.param(_watch((1, "0")), None, None, "was stopped", id="stopped"),
        pytest.param(_watch((1, "nan"), (2, "0")), 0, 2, "critic/rewards/mean is nan at step 1", id="nan"),
    ],
)
def test_failure(watch: Watch, returncode: int | None, wanted: int | None, word: str | None) -> None:
    found = failure(watch, returncode, wanted)
    assert found is None if word is None else found is not None and word in found


def test_gpu_memory() -> None:
    host = RecordedHost(
        commands={MEMORY: Completed(stdout="14\n34700\n[N/A]\n"), (*MEMORY, "--id=1"): Completed(stdout="7\n")}
    )
    assert gpu_memory(host, None) == 34700
    assert gpu_memory(host, "1") == 7
    assert gpu_memory(RecordedHost(), None) is None


def test_peak_is_sampled() -> None:
    watch = Watch()
    values = iter(range(0, 100_000, 100))  # an idle GPU has nothing in use

    class Rising(RecordedHost):
        def run(self, argv: Sequence[str], *, timeout: float = 1.0) -> Completed:
            return Completed(stdout=f"{next(values)}\n")

    with ppo_run.sampling(watch, Rising(), None, every=0.001):
        deadline = time.monotonic() + 5
        while watch.peak_mib < 300 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert watch.peak_mib >= 300


def _launch(place: Path, script: str, **changes: Any) -> Launch:
    values: dict[str, Any] = {
        "argv": (sys.executable, "-u", "-c", textwrap.dedent(script)),
        "environ": dict(os.environ),
        "place": place,
        "stack": "verl-lts-cu124",
        "timeout": 60.0,
        "quiet": True,
    }
    return Launch(**(values | changes))


GOOD = """
import os, pathlib
assert os.environ["RAY_TMPDIR"].startswith("/tmp/ec-")
pathlib.Path("here").touch()
for step in (1, 2, 3):
    print(f"(TaskRunner pid=7) step:{step} - critic/rewards/mean:0.5 - perf/throughput:100.0")
"""
DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for handle in (0, 1, 2):
            os.close(handle)
        time.sleep(300)
    os._exit(0)
os.wait()
time.sleep(0.3)
print("step:1 - critic/rewards/mean:nan")
"""


@pytest.mark.process
def test_a_run_writes_log_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = ppo_run.run(_launch(tmp_path, GOOD, wanted_steps=3, record={"profile": "p"}, quiet=False), RecordedHost())
    assert len(watch.steps) == 3
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["profile"], record["returncode"], record["steps"]) == ("p", 0, 3)
    assert record["last_metrics"] == {"critic/rewards/mean": 0.5, "perf/throughput": 100.0}
    assert (tmp_path / "here").exists(), "it runs in its own folder"
    log = (tmp_path / "train.log").read_text()
    assert log.startswith(f"# {sys.executable} -u -c ")
    assert log.count("step:") == 4  # three, and the command itself
    assert "── step 3 · reward 0.500 · 100 tokens/s/GPU" in capsys.readouterr().out


@pytest.mark.process
def test_a_failed_run_is_explained_and_its_daemons_are_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ppo_processes, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(ppo_run, "end_descendants", lambda: ppo_processes.end_descendants(grace=0.2))
    with pytest.raises(WorkError, match=r"critic/rewards/mean is nan at step 1(.|\n)*the whole log: .*train\.log"):
        ppo_run.run(_launch(tmp_path, DAEMON), RecordedHost())
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["processes_ended_afterwards"] >= 1
    assert record["not_finite"] == ["critic/rewards/mean is nan at step 1"]
    assert ppo_processes.descendants(os.getpid(), ppo_processes.parents()) == set()


@pytest.mark.process
def test_an_interrupted_run_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(_: str) -> str | None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "line", lambda _watch, text: interrupt(text))
    with pytest.raises(KeyboardInterrupt):
        ppo_run.run(_launch(tmp_path, "print('x'); import time; time.sleep(300)"), RecordedHost())
    assert json.loads((tmp_path / "run.json").read_text())["returncode"] is None
    assert ppo_processes.descendants(os.getpid(), ppo_processes.parents()) == set()


@pytest.mark.process
def test_a_run_that_hangs_is_stopped_and_explained(tmp_path: Path) -> None:
    script = "print('CUDA error: out of memory'); import time; time.sleep(300)"
    with pytest.raises(WorkError, match=r"did not end within 1 s(.|\n)*gpu-out-of-memory"):
        ppo_run.run(_launch(tmp_path, script, timeout=1.0), RecordedHost())
    assert json.loads((tmp_path / "run.json").read_text())["returncode"] is None


def test_explanation_that_fails_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def late(argv: Sequence[str], **_: Any) -> Any:
        raise subprocess.TimeoutExpired(list(argv), 1)

    monkeypatch.setattr(subprocess, "run", late)
    assert "could not be explained" in str(ppo_run._explained("it failed", tmp_path / "l", "s"))


def test_ray_logs_are_kept(tmp_path: Path) -> None:
    logs = tmp_path / "ec-1/ray/session_2026/logs"
    logs.mkdir(parents=True)
    said = "The raylet exited immediately because the runtime env agent timed out when Raylet try to connect to it.\n"
    (logs / "raylet.err").write_text("x\n" * 50 + said)
    (logs / "gcs_server.err").write_text("")
    log = tmp_path / "train.log"
    log.write_text("the run's own\n")
    ppo_run._keep_ray_logs(tmp_path / "ec-1", tmp_path, log)
    assert (tmp_path / "ray-logs/raylet.err").read_text().endswith(said)
    assert log.read_text() == "the run's own\n# ray-logs/raylet.err\n" + "x\n" * 19 + f"{said}"


def test_descendants() -> None:
    assert ppo_processes.descendants(1, {2: 1, 3: 2, 4: 9, 5: 3}) == {2, 3, 5}


def test_parents_of_a_recorded_proc(tmp_path: Path) -> None:
    for name, text in {"7": "7 (a (b) c) S 3 1", "8": "8 (z) Z 7 1", "9": "garbage", "self": ""}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_text(text)
    assert ppo_processes.parents(tmp_path) == {7: 3}


def _target(monkeypatch: pytest.MonkeyPatch, verl: str = "0.4.1", **changes: Any) -> list[Launch]:
    """Stand in for everything that looks at the target interpreter or the host."""
    launches: list[Launch] = []

    def remember(launch: Launch) -> Watch:
        launches.append(launch)
        return _watch((1, "0"))

    def ask(_python: str, _config: str, **_options: Any) -> dict[str, Any]:
        types = {"prompt": "list<element: string>", "data_source": "string", "reward_model": "struct<style: string>"}
        seen = {"rows": 512, "columns": list(types), "types": types}
        return {"parquet": dict.fromkeys([__file__], seen)}

    monkeypatch.setattr(ppo_compose, "installed", lambda *_: installed(verl))
    monkeypatch.setattr(ppo_compose, "compose", lambda *_: composed(data__train_files=__file__, **changes))
    monkeypatch.setattr(ppo_compose, "ask", ask)
    monkeypatch.setattr(ppo_environment, "exports", lambda *_: {})
    monkeypatch.setattr(ppo_preflight, "busy_problems", lambda _: iter(()))
    monkeypatch.setattr(ppo_preflight, "disk_problems", lambda *_: iter(()))
    monkeypatch.setattr(ppo_preflight, "port_problems", lambda _: iter(()))
    monkeypatch.setattr(ppo_preflight, "model_problems", lambda *_: iter(()))
    monkeypatch.setattr(ppo, "run", remember)
    return launches


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _argv(home: Path, *more: str) -> list[str]:
    return ["--profile", "seed-4gpu", "--skip-doctor", "--out", str(home / "run"), *more]


def test_ppo_launches_what_it_planned(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    launches = _target(monkeypatch)
    assert ppo.main(_argv(home, "--engine", "vllm", "--steps", "3", "--seed", "5", "trainer.save_freq=-1")) == 0
    (launch,) = launches
    assert launch.argv[:3] == (sys.executable, "-m", "verl.trainer.main_ppo")
    assert {"actor_rollout_ref.rollout.name=vllm", "trainer.total_training_steps=3", "+data.seed=5"} <= set(launch.argv)
    assert launch.wanted_steps == 3
    assert launch.record["request"]["engine"] == "vllm"
    assert "steps" in launch.record["request"]
    assert json.loads((home / "run/config.json").read_text())["trainer"]["nnodes"] == 1


def test_dry_run_starts_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches = _target(monkeypatch, verl="0.2.0.dev0")
    assert ppo.main(["--profile", "megatron", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "-m verl.trainer.main_ppo --config-path=config --config-name=ppo_megatron_trainer" in out
    assert '"n_gpus_per_node": 1' in out
    assert "warning: verl 0.2.0.dev0 cannot run megatron" in out
    assert not launches
    assert list(home.iterdir()) == []


def test_problems_stop_the_run_unless_forced(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches = _target(monkeypatch, trainer__n_gpus_per_node=4)
    seen = ppo_preflight.Diagnosis(exit_code=0, problems=(), facts=facts(gpus=1))
    monkeypatch.setattr(ppo_preflight, "doctor", lambda *_, **__: seen)
    argv = [item for item in _argv(home) if item != "--skip-doctor"]
    with pytest.raises(WorkError, match="2 things must be mended"):
        ppo.main(argv)
    said = capsys.readouterr().err
    assert "problem: the run needs 4 GPUs, this host shows 1" in said
    assert "problem: the host has 139.6 GB of memory, the run needs 200.0 GB" in said
    assert not launches
    assert ppo.main([*argv, "--force"]) == 0
    assert len(launches) == 1


def test_the_doctor_judges_what_the_run_will_see(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (launches, asked) = _target(monkeypatch), []

    def doctor(*_: str, environ: dict[str, str] | None = None) -> ppo_preflight.Diagnosis:
        asked.append(environ)
        mixed = () if environ else (ppo_preflight.Problem(text="cudnn-mixed: parts of cuDNN come from two places"),)
        return ppo_preflight.Diagnosis(exit_code=0, problems=mixed, facts=facts(gpus=4))

    monkeypatch.setattr(ppo_environment, "exports", lambda *_: {"LD_LIBRARY_PATH": "/wheel/lib"})
    monkeypatch.setattr(ppo_preflight, "doctor", doctor)
    monkeypatch.setattr(ppo_preflight, "memory_problems", lambda *_: iter(()))
    assert ppo.main([item for item in _argv(home) if item != "--skip-doctor"]) == 0
    assert asked[0] is None
    assert asked[1] == launches[0].environ
    assert asked[1] is not None
    assert asked[1]["LD_LIBRARY_PATH"].endswith("/wheel/lib")


def test_data_that_the_environment_cannot_load_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launches = _target(monkeypatch)
    seen = ppo_compose.ask("", "")["parquet"]
    monkeypatch.setattr(ppo_compose, "ask", lambda *_, **__: {"parquet": seen, "load": "NotImplementedError: no"})
    with pytest.raises(WorkError, match="1 thing must be mended"):
        ppo.main(_argv(home))
    assert f"cannot load {__file__}: NotImplementedError: no" in capsys.readouterr().err
    assert not launches


def test_one_gpu_profile_makes_model_and_data(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    _target(monkeypatch)
    made: list[list[str]] = []

    def make(argv: Sequence[str]) -> int:
        made.append(list(argv))
        return 0

    monkeypatch.setattr(make_tiny_model, "main", make)

    def output(argv: Sequence[str], **_: Any) -> str:
        made.append(list(argv))
        return "sample: written\n"

    monkeypatch.setattr(process, "output", output)
    assert ppo.main(["--skip-doctor", "--out", str(home / "run"), "--data", str(home / "data")]) == 0
    assert made == [
        ["--python", sys.executable, "--out", str(home / "cache/models/tiny-qwen2")],
        [sys.executable, "-m", "scripts.prepare_data", "--sample", "--out", str(home / "data")],
    ]


def test_logger_is_reduced_where_there_is_no_key(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    _target(monkeypatch, trainer__logger=["console", "wandb"])
    request = Request(profile="parity-8gpu", python="/t/python", data="/d")
    assert "trainer.logger=['console']" in plan(request, {}).argv
    assert "trainer.logger=['console','wandb']" in plan(request, {"WANDB_API_KEY": "k"}).argv
    _target(monkeypatch, trainer__logger=["wandb"])
    assert "trainer.logger=['console']" in plan(request, {}).argv


def test_profile_adds_what_the_verl_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed()
    found.base["actor_rollout_ref.rollout.calculate_log_probs"] = {"type": "bool"}
    _target(monkeypatch)
    monkeypatch.setattr(ppo_compose, "installed", lambda *_: found)
    ready = plan(Request(profile="one-gpu", python="/t/python", data="/d"), {})
    assert ready.argv[-1] == "actor_rollout_ref.rollout.calculate_log_probs=True"
    given = ("actor_rollout_ref.rollout.calculate_log_probs=False",)
    ready = plan(Request(profile="one-gpu", python="/t/python", data="/d", overrides=given), {})
    assert ready.argv[-1] == given[0]


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        pytest.param(["--engine", "hf"], "does not run hf", id="engine"),
        pytest.param(["--python", "/no/python"], "no interpreter /no/python", id="python"),
        pytest.param(["--resume", "x", "--out", "y"], "exclude each other", id="resume-and-out"),
        pytest.param(["--resume", "x"], "not the folder of a run", id="resume-nothing"),
    ],
)
def test_usage_errors(monkeypatch: pytest.MonkeyPatch, home: Path, argv: list[str], word: str) -> None:
    _target(monkeypatch)
    with pytest.raises(EnvcheckError, match=word):
        ppo.main(argv)


def test_contradiction_is_said_before_the_start(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    _target(monkeypatch, actor_rollout_ref__rollout__tensor_model_parallel_size=2)
    with pytest.raises(EnvcheckError, match="contradicts itself:\n  the engine's tensor parallelism of 2 needs 2 GPUs"):
        ppo.main(["--dry-run"])


def test_resume_asks_for_the_same_run(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    launches = _target(monkeypatch)
    place = home / "run"
    assert ppo.main(_argv(home, "--engine", "vllm", "trainer.save_freq=1")) == 0
    (place / "run.json").write_text(json.dumps(dict(launches[0].record)))
    with pytest.raises(EnvcheckError, match="holds no checkpoint"):
        ppo.main(["--resume", str(place), "--skip-doctor"])
    checkpoint = place / "checkpoints/verl_examples/gsm8k"
    checkpoint.mkdir(parents=True)
    (checkpoint / "latest_checkpointed_iteration.txt").write_text("2")
    assert ppo.main(["--resume", str(place), "--skip-doctor", "--force"]) == 0
    first, again = (set(launch.argv) for launch in launches)
    assert again - first == {"+trainer.resume_mode=auto"}
    assert first - again == set()
    assert launches[1].place == place


def test_environment_that_was_made_is_taken(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    launches = _target(monkeypatch)
    python = home / "cache/envs/verl-lts-cu124-vllm-fsdp-py3.12/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    asked = ["--stack", "verl-lts-cu124", "--profile", "seed-4gpu", "--skip-doctor", "--force"]
    assert ppo.main([*asked, "--engine", "vllm", "--out", str(home / "run"), "--steps", "30"]) == 0
    assert launches[0].argv[0] == str(python)
    assert launches[0].record["stack"] == "verl-lts-cu124"
    (home / "run/run.json").write_text(json.dumps(dict(launches[0].record)))
    checkpoint = home / "run/checkpoints/verl_examples/gsm8k"
    checkpoint.mkdir(parents=True)
    (checkpoint / "latest_checkpointed_iteration.txt").write_text("2")
    assert ppo.main(["--resume", str(home / "run"), "--skip-doctor", "--force"]) == 0
    assert launches[1].argv[0] == str(python)
    assert launches[1].stack == "verl-lts-cu124"
    assert "trainer.total_training_steps=30" in launches[1].argv


def test_resumed_without_a_record_keeps_the_request() -> None:
    request = Request(profile="one-gpu", python="/t/python", data="/d", time="now")
    assert resumed(request, {}).profile == "one-gpu"
