"""The bench of the locked environment against pip: what it needs, and that each run starts from nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from envcheck.errors import DataError, HostError
from scripts import bench_kit, bench_plan, env
from scripts.bench_measure import Runner, measure
from scripts.bench_plan import Bench, Program


def kit(place: Path, text: str) -> Path:
    (place / "kit.json").write_text(text, encoding="utf-8")
    return place


def test_a_kit_gives_its_lock_and_a_python_of_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"engine": "sglang", "python": "3.10", "lock": "locks/sglang-py3.10.txt"}
    place = kit(tmp_path, json.dumps({"stack": "verl-sglang-cu124", "environments": [row]}))
    monkeypatch.setattr(env, "found", {"3.10": "/usr/bin/python3.10"}.get)
    found = bench_kit.values(place)
    assert found["kit_lock"] == f"{place}/locks/sglang-py3.10.txt"
    assert found["kit_python"] == "/usr/bin/python3.10"
    assert (found["kit_stack"], found["kit_engine"]) == ("verl-sglang-cu124", "sglang")
    kit(tmp_path, json.dumps({"stack": "s", "environments": [row | {"python": "3.12"}]}))
    with pytest.raises(HostError, match=r"for Python 3\.12, of which there is none"):
        bench_kit.values(place)


@pytest.mark.parametrize("text", ["[", "{}", '{"stack": "s", "environments": []}', '{"environments": 3, "stack": 1}'])
def test_what_is_no_kit_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="expected a kit"):
        bench_kit.values(kit(tmp_path, text))


def test_without_a_kit_its_rows_are_not_measured(tmp_path: Path) -> None:
    plan = bench_plan.load().only(("env-cached-pip",))
    assert {item.name for item in plan.program} == {"env-cached", "pip-wheels"}
    assert [item.at_most for item in plan.budget] == [1 / 20]
    places = {"python": sys.executable, "target": sys.executable, "work": str(tmp_path), "root": "."}
    found = measure(plan, Runner(values=places | bench_kit.values(None)), 1, lambda _: None)
    assert {item.why for item in found.values()} == {"no kit was named: nox -s kit -- --output DIR, then --kit DIR"}


@pytest.mark.process
def test_every_run_starts_from_what_before_leaves(tmp_path: Path) -> None:
    code = "import pathlib; pathlib.Path('{work}/made').mkdir()"
    remake = Program(
        name="remake", title="", argv=("{python}", "-c", code), before=("rm", "-rf", "{work}/made"), rounds=2
    )
    places = {"python": sys.executable, "target": sys.executable, "work": str(tmp_path), "root": "."}
    found = measure(Bench(version=1, program=(remake,), budget=()), Runner(values=places), 2, lambda _: None)
    assert len(found["remake"].samples) == 2
