"""Whole processes measured side by side, held against budgets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import DataError, EnvcheckError, WorkError
from scripts import bench, bench_plan
from scripts.bench_measure import Measured, Runner, Sample, Verdict, judge, measure, ratio
from scripts.bench_plan import Bench, Budget, Program

BARE = Program(name="bare", title="nothing", argv=("{python}", "-c", "pass"))
SLOW = Program(name="slow", title="more", argv=("{python}", "-c", "pass"))


def taken(program: Program, *seconds: float, memory: int = 10) -> Measured:
    return Measured(
        program=program, argv=program.argv, samples=tuple(Sample(seconds=s, memory_bytes=memory) for s in seconds)
    )


def budget(**changed: Any) -> Budget:
    return Budget(**{"name": "b", "program": "slow", "against": "bare", "at_most": 12.0, "why": "said", **changed})


class Scripted(Runner):
    """Gives samples that were written down."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        super().__init__(values={"python": "p", "target": "t", "work": "w", "root": "r"})
        self.seconds = seconds
        self.order: list[str] = []

    def once(self, program: Program) -> Sample:
        self.order.append(program.name)
        given = self.seconds[program.name]
        if not given:
            raise WorkError(f"{program.name} ended with exit code 9")
        return Sample(seconds=given.pop(0), memory_bytes=len(program.name))


def test_the_shipped_plan_is_valid_and_states_the_budgets_of_the_design() -> None:
    plan = bench_plan.load()
    limits = {item.name: item.at_most for item in plan.budget}
    assert limits["doctor-start"] == limits["doctor-target-start"] == 12.0
    assert limits["doctor-collect-env"] == pytest.approx(1 / 15, abs=1e-3)
    assert limits["doctor-memory"] == 80e6
    assert {"bare", "doctor", "collect-env", "pip-check"} <= {item.name for item in plan.program}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 2\nprogram = []\nbudget = []", "version: expected 1, found 2"),
        ("version = 1\nprogram = []\nbudgets = []", "budgets"),
        ("version = ", "expected TOML"),
        (
            'version = 1\nprogram = []\n[[budget]]\nname = "a"\nprogram = "b"\nat_most = 1.0\nwhy = "c"',
            "budget[0].program",
        ),
        (
            'version=1\nbudget=[]\nprogram=[{name="a",title="a",argv=[]},{name="a",title="a",argv=[]}]',
            "a name of its own",
        ),
    ],
)
def test_a_wrong_plan_names_its_fault(text: str, said: str) -> None:
    with pytest.raises(DataError, match=r"bench\.toml") as caught:
        bench_plan.load(text)
    assert said in str(caught.value)


def test_only_keeps_what_is_named_and_its_counterpart() -> None:
    plan = bench_plan.load()
    chosen = plan.only(("doctor-start",))
    assert {item.name for item in chosen.program} == {"doctor", "bare"}
    assert {item.name for item in plan.only(("pip-check",)).program} == {"pip-check"}
    assert plan.only(()) is plan
    with pytest.raises(DataError, match="no such name"):
        plan.only(("nothing",))


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    runner = Scripted({"bare": [9.0, 1.0, 1.0], "slow": [9.0, 3.0, 5.0]})
    plan = Bench(version=1, program=(BARE, SLOW), budget=())
    found = measure(plan, runner, 2, lambda _: None)
    assert runner.order == ["bare", "slow", "slow", "bare", "bare", "slow"]
    assert [sample.seconds for sample in found["slow"].samples] == [3.0, 5.0]
    assert ratio(found["slow"], found["bare"]) == 4.0


def test_a_program_that_fails_is_left_out_with_its_reason() -> None:
    runner = Scripted({"bare": [1.0] * 3, "slow": [1.0]})
    found = measure(Bench(version=1, program=(BARE, SLOW), budget=()), runner, 2, lambda _: None)
    assert found["slow"].samples == ()
    assert "exit code 9" in found["slow"].why
    assert len(found["bare"].samples) == 2


def test_a_long_program_has_its_own_number_of_rounds() -> None:
    once = Program(name="slow", title="", argv=(), rounds=1)
    runner = Scripted({"bare": [1.0] * 4, "slow": [1.0] * 4})
    found = measure(Bench(version=1, program=(BARE, once), budget=()), runner, 3, lambda _: None)
    assert len(found["slow"].samples) == 1


@pytest.mark.parametrize(
    ("changed", "value", "met"),
    [
        pytest.param({}, 4.0, True, id="ratio"),
        pytest.param({"at_most": 3.9}, 4.0, False, id="missed"),
        pytest.param({"against": None, "at_most": 1.0}, 4.0, False, id="seconds"),
        pytest.param({"against": None, "measure": "memory", "at_most": 10}, 10.0, True, id="memory"),
    ],
)
def test_budgets(changed: dict[str, Any], value: float, met: bool) -> None:
    measured = {"bare": taken(BARE, 1.0, 1.0), "slow": taken(SLOW, 3.0, 5.0)}
    (verdict,) = judge(Bench(version=1, program=(), budget=(budget(**changed),)), measured)
    assert (verdict.value, verdict.met) == (value, met)


def test_a_budget_without_a_measurement_says_why() -> None:
    absent = Measured(program=SLOW, argv=(), why="no torch")
    (verdict,) = judge(Bench(version=1, program=(), budget=(budget(),)), {"bare": taken(BARE, 1.0), "slow": absent})
    assert (verdict.value, verdict.met, verdict.reason) == (None, None, "no torch")


def test_table_and_document_show_the_same() -> None:
    gone = Measured(program=SLOW, argv=(), why="gone")
    measured = {"bare": taken(BARE, 0.01), "slow": taken(SLOW, 0.03, memory=50_000_000), "none": gone}
    verdicts = [
        Verdict(budget=budget(), value=3.0),
        Verdict(budget=budget(against=None, at_most=0.01), value=0.03),
        Verdict(budget=budget(measure="memory", against=None, at_most=80e6), value=50e6),
        Verdict(budget=budget(), value=None, reason="gone\nand more"),
    ]
    text = bench.table(measured, verdicts)
    assert "met: b 3.000 x bare, at most 12 x bare" in text
    assert "MISSED: b 0.030 s, at most 0.01 s" in text
    assert "met: b 50.0 MB, at most 80 MB" in text
    assert "not measured: b (gone)" in text
    assert "not measured: gone" in text
    document = bench.document(measured, verdicts, 1)
    assert document["programs"][1]["peak_memory_bytes"] == 50_000_000
    assert document["programs"][2]["unknown"] == "gone"
    assert [item.get("met") for item in document["budgets"]] == [True, False, True, None]
    json.dumps(document)


def test_the_list_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--list"]) == 0
    assert "collect-env" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--python", "/none"], ["no-such-bench"]])
def test_wrong_use(argv: list[str]) -> None:
    with pytest.raises(EnvcheckError):
        bench.main(argv)


# real processes


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(values={"python": sys.executable, "target": sys.executable, "work": str(tmp_path), "root": "."})


@pytest.mark.process
def test_time_and_memory_of_a_real_process(runner: Runner) -> None:
    """What is held is far above what the tests themselves hold, which a child's peak is never below."""
    held = 600_000_000
    code = f"import time; held = bytearray({held}); time.sleep(0.2)"
    heavy = Program(name="heavy", title="", argv=("{python}", "-c", code))
    sample = runner.once(heavy)
    assert sample.seconds > 0.2
    assert sample.memory_bytes > held
    assert runner.once(BARE).memory_bytes < held


@pytest.mark.process
def test_an_exit_code_that_is_no_success_is_an_error(runner: Runner) -> None:
    code = "import sys; sys.exit('it broke')"
    with pytest.raises(WorkError, match="it broke"):
        runner.once(Program(name="x", title="", argv=("{python}", "-c", code)))
    runner.once(Program(name="x", title="", argv=("{python}", "-c", code), exit_codes=(1,)))


@pytest.mark.process
def test_a_program_that_hangs_is_ended(runner: Runner) -> None:
    hanging = Program(name="x", title="", argv=("{python}", "-c", "import time; time.sleep(60)"), timeout_seconds=0.3)
    with pytest.raises(WorkError, match="exit code -9"):
        runner.once(hanging)


@pytest.mark.process
def test_main_measures_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bench.json"
    assert bench.main(["bare", "--rounds", "1", "--check", "--json", str(path), "--python", sys.prefix]) == 0
    assert "a bare interpreter" in capsys.readouterr().out
    assert json.loads(path.read_text())["programs"][0]["median_seconds"] > 0


@pytest.mark.process
def test_what_the_target_lacks_is_said(runner: Runner) -> None:
    assert runner.lacks(Program(name="x", title="", argv=(), needs=("json",))) == ""
    assert "has no nosuchmodule" in runner.lacks(Program(name="x", title="", argv=(), needs=("nosuchmodule",)))
