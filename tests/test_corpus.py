"""Every public report is explained by its rule: in a log, and on a host that has its fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import DataError
from scripts import corpus
from scripts.corpus_reports import Report, edited, load

REPORTS = corpus.TESTS / "corpus.toml"
HOSTS = corpus.TESTS / "hosts"
CORPUS = load(REPORTS)
LATER = [load(corpus.TESTS / name) for name in ("corpus_runtime.toml", "corpus_kernels.toml", "corpus_packages.toml")]
EVERY = {name: each for each in (CORPUS, *LATER) for name in each.reports}


@pytest.mark.parametrize("name", EVERY)
def test_a_report_is_found_in_its_log_and_on_its_host(name: str) -> None:
    score = corpus.scored(name, EVERY[name].reports[name], EVERY[name], HOSTS)
    assert score.log_right, f"the log is explained by {score.logged or 'nothing'}"
    assert score.facts_right is not False, f"seen at {score.seen or 'no stage'}; found {score.wrong}"


def test_healthy_hosts_get_no_alarm() -> None:
    assert corpus.false_alarms(CORPUS, HOSTS) == []
    assert set(CORPUS.hosts) == {path.name for path in HOSTS.glob("healthy-*")}


def test_a_report_that_cannot_be_seen_says_why() -> None:
    unseen = [report for report in CORPUS.reports.values() if report.unseen]
    assert 0 < len(unseen) < 0.05 * len(CORPUS.reports)


SMALL = """
version = 1
[hosts]
healthy-ubuntu2204-h100 = { stack = "verl-sglang-cu124", trainer = "megatron", stages = ["launch"] }
[reports.A]
url = "https://example.org"
component = "driver"
symptom = "RuntimeError: The NVIDIA driver on your system is too old (found version 11040)."
phase = "run"
rule = "driver-too-old"
host = "healthy-ubuntu2204-h100"
[reports.A.set]
"driver.version" = "470.57.02"
"driver.cuda" = "11.4"
[reports.B]
url = "https://example.org"
component = "driver"
symptom = "nothing is wrong"
phase = "run"
rule = "driver-missing"
host = "healthy-ubuntu2204-h100"
[reports.C]
url = "https://example.org"
component = "ray"
symptom = "OSError: AF_UNIX path too long"
phase = "build"
rule = "tmpdir-too-long"
unseen = "for the test"
"""


def run(tmp_path: Path, *arguments: str, text: str = SMALL) -> int:
    (tmp_path / "reports.toml").write_text(text, encoding="utf-8")
    return corpus.main(["--reports", str(tmp_path / "reports.toml"), *arguments])


def test_the_scoreboard_names_what_was_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["driver", "1/2", "1/2"]
    assert lines[2].split() == ["ray", "0/0", "1/1"]
    assert lines[-3] == "missed B; log: harmless-message; facts: seen never; found nothing"
    assert lines[-1] == "other programs: not run; --peers PYTHON runs them"
    assert "not to be seen from facts: 1" in lines


def test_the_scoreboard_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--format", "json", "--minimum", "0.5") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["facts"], document["false_alarms"]) == (0.5, [])
    assert [report["seen"] for report in document["reports"]] == ["build", None, None]


def test_an_alarm_on_a_healthy_host_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = SMALL.replace('"verl-sglang-cu124", trainer', '"verl-lts-cu124", trainer')
    assert run(tmp_path, "--minimum", "0", text=other) == 1
    assert "healthy-ubuntu2204-h100 at launch: pin-differs" in capsys.readouterr().out


def test_a_host_that_is_not_in_the_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reports.A.host"):
        run(tmp_path, text=SMALL.replace('host = "healthy-ubuntu2204-h100"', 'host = "elsewhere"'))


def report(**changes: Any) -> Report:
    return Report(url="", component="", symptom="", phase="run", rule="", **changes)


def document() -> dict[str, Any]:
    return {
        "packages": [{"name": "torch", "version": "1"}, {"name": "ray", "version": "2"}],
        "gpus": [{"memory_bytes": 1}, {"memory_bytes": 2}],
    }


@pytest.mark.parametrize(
    ("changes", "path", "value"),
    [
        ({"set": {"packages[torch].version": "3"}}, ("packages", 0, "version"), "3"),
        ({"set": {"packages[new]": {"name": "new"}}}, ("packages", 2), {"name": "new"}),
        ({"set": {"packages[ray]": {"name": "ray"}}}, ("packages", 1), {"name": "ray"}),
        ({"set": {"gpus[1].memory_bytes": 9}}, ("gpus", 1, "memory_bytes"), 9),
        ({"set": {"wish.nodes": 2}}, ("wish",), {"nodes": 2}),
        ({"remove": ("packages[torch]",)}, ("packages",), [{"name": "ray", "version": "2"}]),
        ({"remove": ("packages[torch].version", "nothing")}, ("packages", 0), {"name": "torch"}),
    ],
)
def test_edits(changes: dict[str, Any], path: tuple[Any, ...], value: object) -> None:
    place: Any = edited(document(), report(**changes), "X")
    for step in path:
        place = place[step]
    assert place == value


@pytest.mark.parametrize(("path", "said"), [("packages[gone].version", r"\[gone\]"), ("packages[", "a path such as")])
def test_an_edit_that_leads_nowhere_is_named(path: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        edited(document(), report(set={path: 1}), "X")
