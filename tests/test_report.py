"""Seven forms of the same outcomes."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest

from envcheck import data, engine
from envcheck.facts import Container, Gpu
from envcheck.model import Fix, Judgement
from envcheck.report import FORMATS, Report, machine, render
from envcheck.report.style import Style
from envcheck.report.words import counted, next_command
from tests.report_cases import BY_ID, HOSTILE, NVCC, UNREAD, facts, hostile, judgement, outcome


def shown(form: str, judged: Judgement | None = None, **style: Any) -> str:
    return render(Report(judgement=judged or judgement(), rules=BY_ID, style=Style(**style)), form)


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_carries_the_finding_with_what_to_do(form: str) -> None:
    text = shown(form).replace("\\", "").replace("&#39;", "'")
    for part in ("nvcc-missing", "there is no nvcc", "nothing on PATH", "nvcc 12.4", "nox -s toolchain"):
        assert part in text
    assert "https://example.org/nvcc" in text.replace("%3A", ":")


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_bears_hostile_text(form: str) -> None:
    text = shown(form, hostile(), color=True)
    assert text.endswith("\n")
    assert "\x00" not in text
    assert "\u202e" not in text
    assert "\x1b[31mred" not in text
    text.encode("utf-8")


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_bears_a_judgement_without_outcomes(form: str) -> None:
    assert shown(form, judgement([]))


# text


def test_text_puts_groups_with_errors_first_and_ends_with_the_next_command() -> None:
    text = shown("text")
    lines = text.splitlines()
    assert lines[0] == "envcheck: stack verl-sglang-cu124, stage build, engine sglang, trainer fsdp"
    assert lines[1] == "node-1, Ubuntu 22.04, driver 550.54.15, 2 x NVIDIA H100, Python 3.10.13 (/venv/bin/python)"
    assert lines.index("toolkit") < lines.index("compiler")
    assert "  ✗ nvcc-missing: there is no nvcc" in lines
    assert "      found     nothing on PATH" in lines
    assert lines[-1] == "Next: nox -s toolchain && export A='b c'"
    assert "1 error, 1 rule crashed, 1 warning, 2 rules could not be judged, 2 rules hold" in " ".join(lines)


def test_text_groups_what_could_not_be_judged_by_its_reason() -> None:
    assert "? driver-missing, driver-too-old: could not be judged: NVML did not answer" in shown("text")


def test_text_says_in_one_line_what_holds_and_shows_notes() -> None:
    text = shown("text")
    assert "✓ what holds: other 2" in text
    assert "· gpu-arch-not-built: sm_90 is covered" in text


def test_text_says_once_what_findings_of_one_rule_share() -> None:
    fix, other = (Fix(text="Install the lock"),), (Fix(text="Build it"),)
    pins = [outcome("pin-differs", "error", summary=f"{name} differs", fix=fix, sources=("s",)) for name in "abc"]
    pins.append(outcome("pin-differs", "warning", summary="d differs", fix=other, sources=("s",)))
    text = shown("text", judgement(pins))
    assert text.count("Install the lock") == text.count("Build it") == text.count("source") == 1
    assert text.index("c differs") < text.index("Install the lock") < text.index("d differs")


def test_text_folds_sentences_and_never_commands() -> None:
    long = "word " * 60
    command = "pip install " + "a-package " * 30
    fix = Fix(text=long, commands=(command,))
    judged = judgement([outcome("pip-too-old", "error", summary=long, found=long, fix=(fix,))])
    lines = shown("text", judged, width=60).splitlines()
    assert any(line.strip() == command.strip() for line in lines)
    assert all(len(line) <= 60 for line in lines if "a-package" not in line)


def test_text_is_plain_without_colour_and_painted_with_it() -> None:
    assert "\x1b" not in shown("text")
    painted = shown("text", color=True)
    assert "\x1b[31;1m✗ nvcc-missing\x1b[0m" in painted
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == shown("text")


def test_text_is_ascii_where_the_terminal_is() -> None:
    assert shown("text", unicode=False).isascii()


@pytest.mark.parametrize(
    ("judged", "command"),
    [
        pytest.param(judgement(), "nox -s toolchain", id="first-fix"),
        pytest.param(judgement([outcome("gcc-too-old", "error")]), "python -m envcheck rules gcc-too-old", id="no-fix"),
        pytest.param(judgement([outcome("gcc-too-old", "ok")]), "python -m envcheck plan", id="build"),
        pytest.param(
            judgement([outcome("gcc-too-old", "ok")], "launch"), "--python /venv/bin/python --stage train", id="launch"
        ),
        pytest.param(judgement([outcome("a", "warning")], "train"), "python -m envcheck gpu", id="train"),
        pytest.param(judgement([outcome("a", "ok")], "train", python=UNREAD), "python -m envcheck gpu", id="no-python"),
    ],
)
def test_next_command(judged: Judgement, command: str) -> None:
    assert command in next_command(judged)


def test_nothing_to_judge_is_said() -> None:
    assert counted(judgement([])) == "no rule matters for this stage"
    assert "not everything that matters for build could be judged" in shown("text", judgement([]))


def test_machine_bears_unknown_facts() -> None:
    silent = facts(host="", os=UNREAD, driver=UNREAD, gpus=UNREAD, python=UNREAD)
    assert machine.described(silent) == ""
    mixed = facts(
        gpus=(Gpu(name=UNREAD, compute_capability=UNREAD, memory_bytes=UNREAD),), container=Container(runtime="docker")
    )
    assert "in a container (docker)" in machine.described(mixed)
    assert "1 x GPU" in machine.described(mixed)
    assert "no GPU" in machine.described(facts(gpus=()))


# json


@pytest.mark.parametrize("judged", [judgement(), hostile(), judgement([]), judgement(driver=UNREAD)])
def test_json_follows_the_shipped_schema(judged: Judgement) -> None:
    schema = json.loads(data.read("report/report.schema.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    found = json.loads(shown("json", judged))
    jsonschema.validate(found, schema)
    assert found["verdict"] == engine.verdict(judged)
    assert found["counts"] == engine.counts(judged.outcomes)


def test_json_keeps_every_word_and_is_ascii() -> None:
    text = shown("json", hostile())
    assert text.isascii()
    assert json.loads(text)["outcomes"][0]["found"] == HOSTILE
    assert json.loads(shown("json"))["outcomes"][0]["fix"][0] == {
        "text": "Provide the toolchain",
        "commands": ["nox -s toolchain", "export A='b c'"],
    }


# junit


def parsed(text: bytes) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314  # the report's own text


def test_junit_counts_and_keeps_all_outcomes() -> None:
    root = parsed(shown("junit").encode())
    suites = {suite.get("name"): suite for suite in root}
    assert sum(int(suite.get("tests", "")) for suite in root) == len(judgement().outcomes)
    assert suites["toolkit"].get("failures") == "1"
    assert suites["compiler"].get("errors") == "1"
    assert suites["driver"].get("skipped") == "1"
    failure = suites["toolkit"].find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "there is no nvcc"
    assert "nox -s toolchain" in (failure.text or "")
    warning = suites["toolkit"].find("testcase/system-out")
    assert warning is not None
    assert (warning.text or "").startswith("warning: ")


def test_junit_of_hostile_text_parses() -> None:
    assert "<script>" in "".join(parsed(shown("junit", hostile()).encode()).itertext())


# sarif


def test_sarif_has_what_version_2_1_0_asks_for() -> None:
    log = json.loads(shown("sarif"))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    run = log["runs"][0]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(rules) == len(set(rules))
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["kind"] in {"notApplicable", "pass", "fail", "review", "open", "informational"}
        assert result["kind"] == "fail" or result["level"] == "none"
        assert result["message"]["text"]
    described = next(rule for rule in run["tool"]["driver"]["rules"] if rule["id"] == "nvcc-missing")
    assert described["helpUri"] == "https://example.org/a"
    assert described["shortDescription"]["text"] == "What nvcc-missing claims."


# github


def test_github_annotations_are_one_line_each() -> None:
    lines = shown("github").splitlines()
    assert lines[0].startswith("::error title=nvcc-missing (nvcc)::there is no nvcc%0Afound: nothing on PATH")
    assert [line.split(" ")[0] for line in lines] == [
        "::error",
        "::error",
        "::warning",
        "::notice",
        "::notice",
        "::notice",
    ]


def test_github_escapes_what_would_be_a_command() -> None:
    text = shown("github", judgement([outcome("a", "error", subject="x,y:z%", summary="1\n::error::2 100%")]))
    assert text.splitlines()[0] == "::error title=a (x%2Cy%3Az%25)::1%0A::error::2 100%25"


# markdown


def test_markdown_folds_the_rest_and_fences_commands() -> None:
    text = shown("markdown")
    assert "#### Error: nvcc\\-missing" in text
    assert "```bash\nnox -s toolchain\nexport A='b c'\n```" in text
    assert "Source: <https://example.org/nvcc>" in text
    assert "Source: a book" in text
    assert "<summary>5 other outcomes</summary>" in text


def test_markdown_fence_is_longer_than_what_it_holds() -> None:
    text = shown("markdown", hostile())
    assert "````bash\n" in text
    assert "<script>" not in re.sub(r"(?s)````bash.*?````", "", text)


# html


class _Checker(HTMLParser):
    """Notes tags, and the links and resources that a page names."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.links += [value for name in ("href", "src") if (value := given.get(name))]
        self.ids += [value for name, value in given.items() if name == "id" and value]
        assert not any(name.startswith("on") for name in given)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _checked(text: str) -> _Checker:
    checker = _Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


def test_html_is_whole_and_needs_nothing_else() -> None:
    text = shown("html")
    page = _checked(text)
    assert page.tags.count("h1") == 1
    assert not {"script", "img", "iframe", "link"} & set(page.tags)
    assert page.links == ["https://example.org/nvcc"]
    assert len(page.ids) == len(set(page.ids))
    assert '<html lang="en">' in text
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text


def test_html_of_hostile_text_has_no_tag_of_the_host() -> None:
    page = _checked(shown("html", hostile()))
    assert "script" not in page.tags
    assert page.links == []


def test_details_show_subjects() -> None:
    assert NVCC.subject in shown("markdown")


def test_the_next_command_is_a_whole_fix_without_its_comments() -> None:
    fix = Fix(text="Install it", commands=("# as root", "apt-get update", "apt-get install -y libnuma1"))
    judged = judgement([outcome("system-library-missing", "error", fix=(fix,))])
    assert next_command(judged) == "apt-get update && apt-get install -y libnuma1"
