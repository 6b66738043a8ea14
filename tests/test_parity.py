from __future__ import annotations

import json
import math
import random
import statistics
import sys
import time
import types
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import DataError, EnvcheckError, WorkError
from scripts import compare_runs, metrics_statistics, parity, parity_judge, parity_plots, parity_report, process
from scripts.metrics import Run
from scripts.metrics_console import from_lines
from scripts.metrics_statistics import Bootstrap, Interval
from scripts.parity import Side, run_sides
from scripts.parity_judge import Comparison, compare
from tests.parity_cases import LABEL, Simulated

TOLERANCES = parity_judge.load()


def _run(**parts: Any) -> Run:
    simulated = Simulated(**parts)
    return from_lines(simulated.log().splitlines(), "generated", f"seed {simulated.seed}")


def _compare(one: dict[str, Any], other: dict[str, Any], **options: Any) -> Comparison:
    return compare(_run(**one), _run(**other), TOLERANCES, **options)


def _answers(comparison: Comparison) -> dict[str, str]:
    return {item.metric.name: item.answer for item in comparison.judged}


def _verdicts(pairs: int, start: int = 0) -> Counter[str]:
    return Counter(_compare({"seed": start + 2 * i}, {"seed": start + 2 * i + 1}).verdict for i in range(pairs))


def test_false_alarms_are_rare_between_seeds_of_one_engine() -> None:
    found = _verdicts(30)
    assert found["differ"] == 0, found
    assert found["agree"] >= 28, found


@pytest.mark.slow
def test_false_alarm_rate() -> None:
    """Under the noise of tests/parity_cases.py at most 3 of 300 pairs are called different."""
    found = _verdicts(300, start=10_000)
    assert found["differ"] <= 3, found
    assert found["agree"] >= 285, found


@pytest.mark.slow
@pytest.mark.parametrize("steps", [30, 60, 100, 200])
@pytest.mark.parametrize("memory", [0.5, 0.9])
def test_false_alarm_rate_under_autocorrelated_noise(steps: int, memory: float) -> None:
    """The share of pairs of one engine that are called different stays below the declared level at every length."""
    same = {"steps": steps, "drift_memory": memory, "drift": 0.015 * math.sqrt(1 - memory**2), "gap_memory": memory}
    pairs = [_compare(same | {"seed": 2 * i}, same | {"seed": 2 * i + 1}).verdict for i in range(200)]
    assert pairs.count("differ") <= (1 - TOLERANCES.level) * len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("memory", [0.5, 0.8])
def test_growing_gap_is_caught(memory: float) -> None:
    """From 0.011 to 0.036 within 30 steps, against one that stays at 0.011: at least 95 of 100 pairs."""
    noise = {"gap_memory": memory, "gap_noise": 0.001}
    pairs = [
        _compare(noise | {"seed": 2 * i}, noise | {"seed": 2 * i + 1, "engine": "vllm", "gap_end": 0.036})
        for i in range(200)
    ]
    assert sum(_answers(pair)["gap"] == "differ" for pair in pairs) >= 190


@pytest.mark.parametrize(
    ("fault", "metric"),
    [
        pytest.param({"gap_end": 0.036}, "gap", id="growing-gap"),
        pytest.param({"gap_end": 0.036, "gap_noise": 0.003}, "gap", id="growing-gap-in-noise"),
        pytest.param({"gap": 0.025}, "gap", id="larger-gap"),
        pytest.param({"reward_shift": -0.15}, "reward", id="lower-reward"),
        pytest.param({"length": 320.0}, "response-length", id="longer-responses"),
    ],
)
def test_faults_are_caught(fault: dict[str, Any], metric: str) -> None:
    pairs = [_compare({"seed": 2 * i}, {"seed": 2 * i + 1, "engine": "vllm"} | fault) for i in range(8)]
    assert all(pair.verdict == "differ" for pair in pairs)
    assert all(_answers(pair)[metric] == "differ" for pair in pairs)


def test_growing_gap_is_said_in_words() -> None:
    found = _compare({"seed": 1}, {"seed": 2, "gap_end": 0.036})
    gap = next(item for item in found.judged if item.metric.name == "gap")
    assert "over the run, tolerance 0.006" in gap.words
    assert any("seed 2: gap between" in note and "grows by 0.02" in note for note in found.notes)
    assert not any(note.startswith("seed 1: gap") for note in found.notes)


def test_a_gap_that_grows_in_both_is_said_although_they_agree() -> None:
    found = _compare({"seed": 1, "gap_end": 0.036}, {"seed": 2, "gap_end": 0.036})
    assert found.verdict == "agree"
    assert sum("grows by" in note for note in found.notes) == 2


def test_a_gap_of_nothing_is_said_to_tell_little() -> None:
    """As a tiny random model's is: probabilities near 1/896 differ by less than a log's three decimals."""
    none = {"gap": 0.0, "gap_end": 0.0, "gap_noise": 0.0}
    found = _compare({"seed": 1} | none, {"seed": 2, "engine": "vllm"} | none)
    assert _answers(found)["gap"] == "agree"
    said = [note for note in found.notes if note.endswith("it tells little")]
    (note,) = said
    assert note.startswith("gap between the engine's and the trainer's probabilities: 0 at every step of both")
    assert not any("it tells little" in note for note in _compare({"seed": 1}, {"seed": 2}).notes)


def test_too_few_steps() -> None:
    found = _compare({"seed": 1, "steps": 6}, {"seed": 2, "steps": 6})
    assert found.verdict == "not-enough-data"
    assert next(item.words for item in found.judged) == "6 steps in common, 10 are needed"


def test_cut_off_run_is_compared_over_what_both_have() -> None:
    whole = Simulated(seed=1).log().splitlines()
    cut = from_lines(Simulated(seed=2).log().splitlines()[:-13], "generated", "cut")
    found = compare(from_lines(whole, "generated", "whole"), cut, TOLERANCES)
    assert found.verdict == "agree"
    assert "cut: cut off after step 18 of 30" in found.notes
    assert "compared over the 18 steps that both have" in found.notes
    assert parity_report.sentence(found) == "The runs agree over the 18 steps that both have (cut was cut off)."


def test_empty_run() -> None:
    empty = Run(label="empty", source="s", metrics={})
    found = compare(_run(seed=1), empty, TOLERANCES)
    assert found.verdict == "not-enough-data"
    assert "empty: no step was logged" in found.notes
    assert "empty: its config is not known: not compared" in found.notes
    assert compare(empty, empty, TOLERANCES).verdict == "not-enough-data"


def _with_nan(run: Run, name: str, steps: Sequence[int]) -> Run:
    series = dict(run.metrics[name]) | dict.fromkeys(steps, math.nan)
    return replace(run, metrics={**run.metrics, name: series})


def test_nan_rewards() -> None:
    broken = _with_nan(_run(seed=2), "critic/rewards/mean", [3, 5, 6, 7])
    found = compare(_run(seed=1), broken, TOLERANCES)
    assert found.verdict == "differ"
    assert found.judged[0].words == "seed 2: not a finite number at steps 3, 5-7"
    drawn = parity_plots.svg(found.judged[0], ("a", "b"))
    assert drawn.count("<polyline") == 4, "the line is broken at 3 and at 5 to 7"
    assert drawn.count("✗") == 4
    assert parity_report.sentence(found) == "The runs differ: reward."


def test_missing_gap_is_not_passed_over() -> None:
    first, second = _run(seed=1), _run(seed=2)
    silent = replace(first, metrics={k: v for k, v in first.metrics.items() if "rollout" not in k})
    found = compare(silent, second, TOLERANCES)
    assert found.verdict == "not-enough-data"
    assert _answers(found)["gap"] == "not-measured"
    assert any("calculate_log_probs=True" in note for note in found.notes)
    left_out = compare(silent, second, TOLERANCES, without=["gap"])
    assert left_out.verdict == "agree"
    assert "gap was left out of the verdict, as asked" in left_out.notes
    with pytest.raises(EnvcheckError, match="no metric gaps"):
        compare(silent, second, TOLERANCES, without=["gaps"])


def test_noise_that_hides_everything_is_not_agreement() -> None:
    found = _compare({"seed": 1, "reward_noise": 0.4}, {"seed": 2, "reward_noise": 0.4})
    assert _answers(found)["reward"] == "not-enough-data"
    assert "too uncertain to tell" in found.judged[0].words


def test_speed_is_shown_and_decides_nothing() -> None:
    found = _compare({"seed": 1}, {"seed": 2, "slower": 3.0})
    assert found.verdict == "agree"
    words = next(item.words for item in found.judged if item.metric.name == "step-time")
    assert "(x 3.0" in words
    steps = next(item.steps for item in found.judged if item.metric.name == "step-time")
    assert steps[0] == 2, "the first step compiles"


def test_validation_scores_are_averaged_over_the_sets() -> None:
    def run(label: str, shift: float) -> Run:
        sets = {
            f"val/test_score/{name}": dict.fromkeys((5, 10, 15), start + shift)
            for name, start in (("gsm8k", 0.8), ("math", 0.4))
        }
        return replace(_run(seed=1), label=label, metrics={**_run(seed=1).metrics, **sets})

    found = compare(run("a", 0.0), run("b", -0.2), TOLERANCES)
    validation = next(item for item in found.judged if item.metric.name == "validation")
    assert validation.answer == "differ"
    assert validation.first == pytest.approx((0.6, 0.6, 0.6))


def test_names_that_changed_between_versions_are_said() -> None:
    first, second = _run(seed=1), _run(seed=2)
    old = {k.replace("actor/reward_kl_penalty", "critic/kl"): v for k, v in first.metrics.items()}
    found = compare(replace(first, metrics=old), second, TOLERANCES)
    assert "KL divergence: logged as critic/kl and as actor/reward_kl_penalty" in found.notes


def test_config_differences() -> None:
    found = _compare({"seed": 1}, {"seed": 2, "engine": "vllm"})
    assert found.config == (), "engine, names and the folder of the same model may differ"
    second = _run(seed=2)
    other = replace(second, config={**second.config, "data.train_batch_size": 64, "data.new": 1})
    found = compare(_run(seed=1), other, TOLERANCES)
    assert found.config == (("data.new", "(absent)", 1), ("data.train_batch_size", 2048, 64))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        pytest.param(("version = 1", "version = 3"), "version", id="version"),
        pytest.param(("0.99", "1.5"), "level", id="level"),
    ],
)
def test_invalid_tolerances(tmp_path: Path, change: tuple[str, str], key: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(parity_judge.TOLERANCES.read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    with pytest.raises(DataError, match=f"t.toml: {key}"):
        parity_judge.load(path)


def test_every_tolerance_has_a_reason() -> None:
    assert all(metric.reason for metric in TOLERANCES.metric)
    assert [metric.name for metric in TOLERANCES.metric if metric.required] == ["reward", "gap"]


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_interval_of_the_mean_covers_the_truth(memory: float) -> None:
    """The 95 % interval of an AR(1) series of 60 steps holds the true mean in at least 80 of 100 draws."""
    draw = random.Random(7)  # noqa: S311  # not for secrets
    covered = 0
    for seed in range(100):
        value, series = 0.0, []
        for _ in range(60):
            value = memory * value + draw.gauss(0, 1)
            series.append(value)
        found = Bootstrap(level=0.95, resamples=400, seed=seed).mean(series)
        covered += found.low <= 0 <= found.high
    assert covered >= 80


def test_interval_of_the_slope_covers_the_truth() -> None:
    draw = random.Random(7)  # noqa: S311  # not for secrets
    steps = list(range(40))
    covered = 0
    for seed in range(100):
        series = [0.5 * step + draw.gauss(0, 2) for step in steps]
        found = Bootstrap(level=0.95, resamples=300, seed=seed).slope(steps, series)
        covered += found.low <= 0.5 <= found.high
    assert covered >= 82


def test_statistics_of_simple_series() -> None:
    assert metrics_statistics.line([1, 2, 3], [5.0, 7.0, 9.0]) == pytest.approx((2.0, 3.0))
    assert metrics_statistics.quantile([1.0, 2.0, 3.0, 4.0], 0.5) == statistics.median([1, 2, 3, 4])
    same = Bootstrap(resamples=50).mean([2.0] * 7)
    assert (same.value, same.low, same.high) == (2.0, 2.0, 2.0)
    assert Bootstrap(resamples=50).mean([3.0]) == Interval(value=3.0, low=3.0, high=3.0)
    assert Bootstrap(seed=1).mean([1.0, 2.0, 5.0]) == Bootstrap(seed=1).mean([1.0, 2.0, 5.0])


def test_intervals() -> None:
    found = Interval(value=2.0, low=1.0, high=3.0)
    assert found.beyond(0.5)
    assert not found.beyond(1.5)
    assert Interval(value=-2.0, low=-3.0, high=-1.0).beyond(0.5)
    assert found.within(3.0)
    assert not found.within(2.5)
    assert found.scaled(2).high == 6.0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        pytest.param(0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], id="unit"),
        pytest.param(0.011, 0.036, [0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04], id="gap"),
        pytest.param(3.0, 3.0, [2.6, 2.8, 3.0, 3.2, 3.4], id="flat"),
        pytest.param(0.0, 0.0, [-1.0, -0.5, 0.0, 0.5, 1.0], id="zero"),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert parity_plots.ticks(low, high) == pytest.approx(expected)


def test_plot_stays_inside_its_frame() -> None:
    judged = _compare({"seed": 1}, {"seed": 2}).judged[0]
    drawn = parity_plots.svg(judged, ("<a>", "b"))
    assert "&lt;a&gt;" in drawn
    for line in drawn.splitlines():
        if line.startswith("<polyline"):
            points = [tuple(map(float, point.split(","))) for point in line.split('points="')[1].split('"')[0].split()]
            assert len(points) == 30
            assert all(0 <= x <= parity_plots.WIDTH and 0 <= y <= parity_plots.HEIGHT for x, y in points)


def _files(tmp_path: Path, **second: Any) -> list[str]:
    for name, simulated in {"one": Simulated(seed=1), "two": Simulated(seed=2, engine="vllm", **second)}.items():
        (tmp_path / f"{name}.log").write_text(simulated.log(), encoding="utf-8")
    return [str(tmp_path / "one.log"), str(tmp_path / "two.log")]


@pytest.mark.parametrize(
    ("second", "code", "word"),
    [
        pytest.param({}, 0, "The runs agree.", id="agree"),
        pytest.param({"gap_end": 0.036}, 1, "The runs differ: gap between", id="differ"),
        pytest.param({"steps": 4}, 3, "There is not enough data", id="not-enough"),
    ],
)
def test_compare_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], second: dict[str, Any], code: int, word: str
) -> None:
    report = tmp_path / "report"
    assert compare_runs.main([*_files(tmp_path, **second), "--report", str(report)]) == code
    assert word in capsys.readouterr().out
    written = json.loads((report / "parity.json").read_text())
    assert (written["version"], written["exit_code"]) == (1, code)
    page = (report / "parity.html").read_text()
    assert word in page
    assert page.count("<polyline") == (16 if code != 3 else 2 * page.count("<svg"))
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_compare_three_runs_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = _files(tmp_path)
    (tmp_path / "three.log").write_text(Simulated(seed=3, gap_end=0.036).log(), encoding="utf-8")
    assert compare_runs.main([f"A={one}", f"B={two}", str(tmp_path / "three.log"), "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [item["verdict"] for item in document["comparisons"]] == ["agree", "differ"]
    assert [run["label"] for run in document["comparisons"][1]["runs"]] == ["A", "three"]
    gap = next(item for item in document["comparisons"][1]["metrics"] if item["name"] == "gap")
    assert gap["rise"]["low"] > gap["rise_tolerance"]


def test_nan_is_text_in_json(tmp_path: Path) -> None:
    broken = _with_nan(_run(seed=2), "perf/throughput", [2])
    comparison = compare(_run(seed=1), broken, TOLERANCES)
    assert comparison.verdict == "agree"
    data = parity_report.document([comparison], TOLERANCES)
    json.dumps(data, allow_nan=False)
    assert parity_report._number(math.inf) == "inf"


def test_two_runs_of_one_name_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, _ = _files(tmp_path)
    compare_runs.main([one, one])
    assert "one (1) against one (2)" in capsys.readouterr().out


def test_different_configs_are_refused_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = _files(tmp_path)
    text = Path(two).read_text(encoding="utf-8").replace("'train_batch_size': 2048", "'train_batch_size': 64")
    Path(two).write_text(text, encoding="utf-8")
    with pytest.raises(EnvcheckError, match=r"different configs:\n  data\.train_batch_size: 2048 against 64"):
        compare_runs.main([one, two])
    assert compare_runs.main([one, two, "--different-configs"]) == 0
    assert "config: data.train_batch_size: 2048 against 64" in capsys.readouterr().out


def test_one_run_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(EnvcheckError, match="one run cannot be compared"):
        compare_runs.main([_files(tmp_path)[0]])


def test_png_without_matplotlib_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = tmp_path / "report"
    assert compare_runs.main([*_files(tmp_path), "--report", str(report), "--png"]) == 0
    assert "warning: no PNG: matplotlib could not be imported" in capsys.readouterr().err


class _Axes:
    """Takes every call of matplotlib's axes."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def set_title(self, title: str, **_: Any) -> None:
        self.titles.append(title)

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_options: None


def test_png(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    axes = [_Axes() for _ in range(8)]
    saved: list[Path] = []
    figure = types.SimpleNamespace(tight_layout=lambda: None, savefig=lambda path, **_: saved.append(path))
    grid = types.SimpleNamespace(flat=axes)
    pyplot = types.SimpleNamespace(subplots=lambda *_a, **_k: (figure, grid), close=lambda _: None)
    monkeypatch.setitem(sys.modules, "matplotlib", types.SimpleNamespace(use=lambda _: None))
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", pyplot)
    comparisons = [_compare({"seed": 1}, {"seed": 2}), _compare({"seed": 1}, {"seed": 3})]
    written = parity_report.write(comparisons, TOLERANCES, tmp_path, png=True)
    assert [path.name for path in written] == ["parity.json", "parity.html", "parity-1.png", "parity-2.png"]
    assert saved == written[2:]
    assert axes[0].titles[0] == "reward: agree"
    with pytest.raises(WorkError, match="nothing to draw"):
        parity_plots.png(compare(Run(label="a", source="", metrics={}), _run(seed=1), TOLERANCES), tmp_path / "x.png")


def _ppo(
    monkeypatch: pytest.MonkeyPatch, fail: str = "", **second: Any
) -> list[tuple[tuple[str, ...], dict[str, str]]]:
    """Stand in for ``python -m scripts.ppo``: write a log of verl's format, marked as generated."""
    calls: list[tuple[tuple[str, ...], dict[str, str]]] = []

    def stream(argv: Sequence[str], **options: Any) -> process.Done:
        calls.append((tuple(argv), dict(options["environ"])))
        engine = argv[argv.index("--engine") + 1]
        place = Path(argv[argv.index("--out") + 1])
        place.mkdir(parents=True)
        simulated = Simulated(seed=1) if engine == "sglang" else Simulated(seed=2, engine="vllm", **second)
        (place / "train.log").write_text(simulated.log(), encoding="utf-8")
        options["each_line"]("step 1")
        return process.Done(argv=tuple(argv), returncode=int(engine == fail), tail=())

    monkeypatch.setattr(process, "stream", stream)
    monkeypatch.setattr(process, "output", lambda *_, **__: "")
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return calls


def _argv(tmp_path: Path, *more: str) -> list[str]:
    pythons = [_interpreter(tmp_path / name) for name in ("s", "v")]
    return ["--sglang-python", pythons[0], "--vllm-python", pythons[1], "--out", str(tmp_path / "out"), *more]


def _interpreter(folder: Path) -> str:
    python = folder / "bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.unlink(missing_ok=True)
    python.symlink_to(sys.executable)
    return str(python)


def test_parity_runs_both_and_judges(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = _ppo(monkeypatch, gap_end=0.036)
    assert parity.main(_argv(tmp_path, "--steps", "30", "--skip-doctor", "trainer.test_freq=-1")) == 1
    one, two = (argv for argv, _ in calls)
    assert one[3:9] == ("--profile", "parity-8gpu", "--engine", "sglang", "--python", str(tmp_path / "s/bin/python"))
    assert two[5:9] == ("--engine", "vllm", "--python", str(tmp_path / "v/bin/python"))
    assert one[-1] == two[-1] == "trainer.test_freq=-1"
    assert "--skip-doctor" in one
    assert one[one.index("--seed") + 1] == two[two.index("--seed") + 1] == "1"
    out = capsys.readouterr().out
    assert "sglang │ step 1" in out
    assert "sglang against vllm" in out
    assert (tmp_path / "out/parity.html").is_file()


def test_parity_composes_both_before_it_runs_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = _ppo(monkeypatch)

    def output(argv: Sequence[str], **_: Any) -> str:
        if argv[argv.index("--engine") + 1] == "vllm":
            raise WorkError("/v/python has no verl")
        assert argv[-1] == "--dry-run"
        return ""

    monkeypatch.setattr(process, "output", output)
    with pytest.raises(WorkError, match="has no verl"):
        parity.main(_argv(tmp_path))
    assert not calls


def test_parity_takes_the_environments_that_were_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    for engine in ("sglang", "vllm"):
        _interpreter(tmp_path / f"envs/verl-lts-cu124-{engine}-fsdp-py3.12")
    calls = _ppo(monkeypatch)
    argv = ["--profile", "one-gpu", "--stack", "verl-lts-cu124", "--out", str(tmp_path / "out")]
    assert parity.main(argv) == 0
    pythons = [argv[argv.index("--python") + 1] for argv, _ in calls]
    assert pythons == [
        str(tmp_path / f"envs/verl-lts-cu124-{engine}-fsdp-py3.12/bin/python") for engine in ("sglang", "vllm")
    ]


def test_parity_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = _ppo(monkeypatch)
    assert parity.main(_argv(tmp_path, "--side-by-side", "0,1/2,3", "--profile", "one-gpu")) == 0
    assert sorted(environ["CUDA_VISIBLE_DEVICES"] for _, environ in calls) == ["0,1", "2,3"]


@pytest.mark.parametrize("together", [[], ["--side-by-side", "0/1"]])
def test_parity_with_a_failed_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, together: list[str]) -> None:
    _ppo(monkeypatch, fail="sglang")
    with pytest.raises(WorkError, match="the run with sglang ended with exit code 1"):
        parity.main(_argv(tmp_path, *together))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param("0,1", "two lists", id="one-list"),
        pytest.param("0/1,2", "same length", id="lengths"),
        pytest.param("0,1/1,2", "both sides name GPU 1", id="shared"),
    ],
)
def test_side_by_side_that_cannot_be(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(EnvcheckError, match=word):
        parity.main(_argv(tmp_path, "--side-by-side", text))


def test_parity_dry_run_judges_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = _ppo(monkeypatch)
    assert parity.main(_argv(tmp_path, "--dry-run")) == 0
    assert all("--dry-run" in argv for argv, _ in calls)


@pytest.mark.process
def test_the_other_side_is_ended_where_one_fails(tmp_path: Path) -> None:
    def side(engine: str, script: str) -> Side:
        return Side(engine=engine, argv=(sys.executable, "-c", script), place=tmp_path, environ={})

    sides = [side("sglang", "raise SystemExit(4)"), side("vllm", "import time; time.sleep(300)")]
    started = time.monotonic()
    with pytest.raises(WorkError, match="sglang ended with exit code 4"):
        run_sides(sides, 60, together=True)
    assert time.monotonic() - started < 30


def test_simulated_runs_say_that_they_are() -> None:
    assert LABEL in Simulated(seed=1).log()
