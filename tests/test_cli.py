"""The command line: subcommands, options, exit codes, and how each of them ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from envcheck import cli, codec, data, errors
from envcheck.__main__ import start
from envcheck.commands.source import default_stage
from envcheck.explain import Explanation
from envcheck.facts import Facts, Manifest, Package
from envcheck.host import Host
from envcheck.model import Target
from envcheck.report.steps import render
from envcheck.report.style import Style
from envcheck.stack import DEFAULT_STACK, load
from tests.report_cases import BY_ID, RULES, UNREAD, facts, target

Run = Callable[..., tuple[int, str, str]]
HOLDING = ("gcc-too-old", "shm-too-small")


class Composed:
    """Collects a composed host."""

    def __init__(self, _host: Host, python: str | None, *_more: object) -> None:
        self.python = python

    def facts(self) -> Facts:
        return facts(host=self.python or "this-host")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run the command line on a composed host with composed rules; give exit code, stdout, stderr."""

    def collect(_host: Host, *, python: str | None = None) -> Facts:
        return facts(host=python or "this-host")

    monkeypatch.setattr("envcheck.rules.RULES", RULES)
    monkeypatch.setattr("envcheck.probes.collection.collect", collect)
    monkeypatch.setattr("envcheck.probes.collection.Collection", Composed)
    monkeypatch.setattr("envcheck.probes.python.start", lambda _host, python: python)
    monkeypatch.setattr("envcheck.probes.binaries.of_target", lambda *_: None)

    def run_it(*argv: str) -> tuple[int, str, str]:
        code = cli.main(argv)
        out, err = capsysbinary.readouterr()
        return code, out.decode(), err.decode()

    return run_it


@pytest.fixture
def recorded(tmp_path: Path) -> str:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(codec.encode(facts(host="recorded"))), encoding="utf-8")
    return str(path)


# which command


def test_the_doctor_is_the_command_where_none_is_given(run: Run) -> None:
    assert run()[1] == run("doctor")[1]
    assert run("--stage", "build")[1] == run("doctor", "--stage", "build")[1]


@pytest.mark.parametrize("word", ["-h", "--help", "help", "-V", "--version"])
def test_help_and_version_of_the_whole(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([word])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert out.startswith("envcheck ") if "ersion" in word or word == "-V" else "explain" in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_the_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert "exit codes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        pytest.param(["docter"], "did you mean doctor", id="near"),
        pytest.param(["zzz"], "there are doctor, facts", id="far"),
        pytest.param(["fleet", "--address", "auto"], "not available yet", id="fleet"),
        pytest.param(["--stack", "verl-sglang"], "take one of: verl-sglang-cu124", id="stack"),
        pytest.param(["--only", "gcc-old"], "nearest: gcc-too-old", id="only"),
        pytest.param(["--skip", "nvcc"], "nearest: nvcc-missing", id="skip-part"),
        pytest.param(["--skip", "qqqqqq"], "`python -m envcheck rules` lists them", id="skip-far"),
        pytest.param(["--facts", "/none.json"], "/none.json could not be read", id="facts"),
        pytest.param(["--facts", "x", "--image", "y"], "--facts and --image exclude each other", id="facts-image"),
        pytest.param(["--facts", "x", "--python", "y"], "--facts and --python exclude each other", id="facts-python"),
        pytest.param(["--output", "/none/x"], "'/none/x' could not be written: No such file", id="output"),
        pytest.param(["--output", "/"], "could not be written: Is a directory", id="output-directory"),
        pytest.param(["rules", "gcc-old"], "nearest: gcc-too-old", id="rule"),
        pytest.param(["rules", "gcc-too-old", "--search", "x"], "exclude each other", id="rule-search"),
        pytest.param(["stacks", "none"], "there is no stack 'none'", id="stacks"),
        pytest.param(["stacks", "/none.toml"], "No such file", id="stack-file"),
        pytest.param(["diff", "/none.json"], "was given one", id="diff-one"),
        pytest.param(["diff", "-", "-"], "standard input was named twice", id="diff-stdin"),
        pytest.param(["explain", "/none.log"], "'/none.log' could not be read", id="log"),
        pytest.param(["explain", "/"], "is a directory", id="log-directory"),
        pytest.param(["explain", "-", "--facts", "-"], "cannot both be standard input", id="log-facts"),
    ],
)
def test_wrong_use_is_one_message_on_stderr_and_exit_2(run: Run, argv: list[str], said: str) -> None:
    code, out, err = run(*argv)
    assert code == errors.USAGE
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) <= 2


@pytest.mark.parametrize("argv", [["--stage", "run"], ["--nosuch"], ["facts", "x"], ["--stag", "build"], ["explain"]])
def test_argparse_ends_with_2_as_well(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(argv)
    assert end.value.code == errors.USAGE
    assert capsys.readouterr().out == ""


def test_an_old_python_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 6, 8, "final", 0))
    assert start() == errors.USAGE
    assert "needs Python 3.10 or newer, and this is 3.6" in capsys.readouterr().err


def test_interrupted_while_it_is_imported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", stop)
    assert start() == errors.INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"


# doctor


def test_exit_1_where_something_is_wrong(run: Run) -> None:
    code, out, err = run("--color", "never")
    assert (code, err) == (errors.FINDINGS, "")
    assert "✗ nvcc-missing: there is no nvcc" in out


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        pytest.param(["--only", *HOLDING], errors.OK, id="holds"),
        pytest.param(["--only", "pip-too-old"], errors.OK, id="warning"),
        pytest.param(["--only", "pip-too-old", "--strict"], errors.FINDINGS, id="strict"),
        pytest.param(["--skip", "nvcc-missing"], errors.OK, id="skipped"),
        pytest.param(["--skip", "nvcc-missing,pip-too-old", "--strict"], errors.OK, id="skipped-by-comma"),
        pytest.param(["--only", "driver-missing", "--stage", "train"], errors.UNJUDGED, id="unknown"),
        pytest.param(["--only", "driver-missing"], errors.UNJUDGED, id="no-rule-of-the-stage"),
    ],
)
def test_exit_codes_follow_the_verdict(run: Run, argv: list[str], code: int) -> None:
    assert run(*argv)[0] == code


def test_a_rule_of_another_stage_is_hinted_at(run: Run) -> None:
    _, out, err = run("--only", "driver-missing", "--format", "json")
    assert err == "note: driver-missing does not matter for build; add --stage launch or train\n"
    assert json.loads(out)["verdict"] == "unknown"


def test_the_document_is_on_stdout_and_can_be_judged_again(run: Run, tmp_path: Path) -> None:
    code, out, err = run("--format", "json", "--python", "/x/bin/python")
    report = json.loads(out)
    jsonschema.validate(report, json.loads(data.read("report/report.schema.json")))
    assert (code, err) == (1, "")
    assert report["facts"]["host"] == "/x/bin/python"
    (tmp_path / "facts.json").write_text(json.dumps(report["facts"]))
    again = json.loads(run("--format", "json", "--facts", str(tmp_path / "facts.json"))[1])
    assert again == report


def test_engine_and_trainer_are_the_stacks_first_or_those_given(run: Run) -> None:
    report = json.loads(run("--format", "json")[1])
    assert (report["stack"], report["engine"], report["trainer"]) == (DEFAULT_STACK, "sglang", "fsdp")
    report = json.loads(run("--format", "json", "--engine", "vllm", "--trainer", "megatron")[1])
    assert (report["engine"], report["trainer"]) == ("vllm", "megatron")


def test_an_engine_that_the_stack_lacks_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    text = data.read(f"stacks/{DEFAULT_STACK}.toml")
    path.write_text(text.replace('trainers = ["fsdp", "megatron"]', 'trainers = ["fsdp"]', 1))
    code, _, err = run("--stack", str(path), "--trainer", "megatron")
    assert code == errors.USAGE
    assert "has no trainer megatron" in err
    assert "take fsdp" in err


@pytest.mark.parametrize(
    ("packages", "stage"),
    [
        pytest.param((Package(name="torch", version="2.5.1"),), "build", id="no-engine"),
        pytest.param((Package(name="sglang", version="0.4.3.post3"),), "launch", id="engine"),
        pytest.param((Package(name="vllm", version="0.6.3"),), "build", id="other-engine"),
        pytest.param(UNREAD, "build", id="unknown"),
    ],
)
def test_default_stage(packages: Any, stage: str) -> None:
    assert default_stage(facts(packages=packages), load(), "sglang") == stage


def test_redacted_facts_are_judged_and_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envcheck.redact.redact", lambda _: facts(host="hidden"))
    assert json.loads(run("--redact", "--format", "json")[1])["facts"]["host"] == "hidden"
    assert json.loads(run("facts", "--redact")[1])["host"] == "hidden"


def test_an_image_is_opened_and_closed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def of(reference: str) -> Iterator[object]:
        seen.append(reference)
        yield object()
        seen.append("closed")

    monkeypatch.setattr("envcheck.image.ContainerHost.of", of)
    assert run("facts", "--image", "torch:2.5")[0] == errors.OK
    assert seen == ["torch:2.5", "closed"]


# output


def test_output_is_written_whole_and_stdout_stays_empty(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    path.chmod(0o640)
    code, out, _ = run("--format", "json", "--output", str(path))
    assert (code, out) == (1, "")
    assert json.loads(path.read_text())["version"] == 1
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_output_dash_is_stdout(run: Run) -> None:
    assert json.loads(run("--format", "json", "--output", "-")[1])


def test_a_text_file_has_no_colour_unless_asked_for(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    path = tmp_path / "report.txt"
    run("--output", str(path))
    assert "\x1b" not in path.read_text()
    run("--output", str(path), "--color", "always")
    assert "\x1b" in path.read_text()


@pytest.mark.parametrize(
    ("environ", "option", "painted"),
    [
        pytest.param({}, "auto", False, id="no-terminal"),
        pytest.param({"FORCE_COLOR": "1"}, "auto", True, id="force"),
        pytest.param({"FORCE_COLOR": "0"}, "auto", False, id="force-0"),
        pytest.param({"FORCE_COLOR": "1", "NO_COLOR": "1"}, "auto", False, id="no-beats-force"),
        pytest.param({"NO_COLOR": "1"}, "always", True, id="option-beats-no"),
        pytest.param({"FORCE_COLOR": "1"}, "never", False, id="option-beats-force"),
    ],
)
def test_colour(run: Run, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], option: str, painted: bool) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in run("--color", option)[1]) is painted


# facts, plan, env


def test_facts_are_written_as_they_were_read(run: Run, recorded: str) -> None:
    code, out, _ = run("facts", "--facts", recorded)
    assert code == errors.OK
    assert json.loads(out)["host"] == "recorded"


@pytest.mark.parametrize("form", ["text", "json", "mermaid"])
def test_plan_in_each_form(run: Run, recorded: str, form: str) -> None:
    code, out, err = run("plan", "--facts", recorded, "--format", form, "--trainer", "megatron")
    assert (code, err) == (errors.OK, "")
    if form == "json":
        plan = json.loads(out)
        jsonschema.validate(plan, json.loads(data.read("report/plan.schema.json")))
        before: set[str] = set()
        for step in plan["steps"]:
            assert set(step["needs"]) <= before
            before.add(step["name"])
    elif form == "mermaid":
        assert out.startswith("flowchart TD")
    else:
        assert "build transformer-engine" in out
        assert out.count("$ nox -s env -- ") == 2, "once before the builds, once to put their wheels in"
        assert "All at once: nox -s up -- --stack verl-sglang-cu124 --engine sglang --trainer megatron" in out
        assert out.splitlines()[-1].startswith("Next: ")


def test_a_plan_with_nothing_to_do_says_so() -> None:
    assert render([], target(), facts(), Style()).endswith("Nothing is left to do.\n")


@pytest.mark.parametrize(("shell", "start"), [("sh", "export "), ("fish", "set -gx "), ("json", "{")])
def test_env_lines(run: Run, recorded: str, shell: str, start: str) -> None:
    code, out, _ = run("env", "--facts", recorded, "--shell", shell)
    assert code == errors.OK
    assert out.startswith(start)


# explain


def test_explain_names_the_cause_and_checks_it(run: Run, tmp_path: Path, recorded: str) -> None:
    log = tmp_path / "build.log"
    log.write_text("OSError: CUDA_HOME environment variable is not set. Please set it to your CUDA install root.\n")
    code, out, _ = run("explain", str(log), "--format", "json")
    document = json.loads(out)
    jsonschema.validate(document, json.loads(data.read("report/explain.schema.json")))
    assert code == errors.FINDINGS
    assert document["matches"][0]["line"] == 1
    for source in (["--facts", recorded], ["--here"], []):
        code, out, _ = run("explain", str(log), *source)
        assert code == errors.FINDINGS
        assert "CUDA_HOME" in out


# rules, stacks


def test_rules_are_listed_by_group(run: Run) -> None:
    code, out, _ = run("rules", "--color", "never")
    assert code == errors.OK
    assert out.splitlines()[:3] == ["toolkit", "  nvcc-missing (build)", "      What nvcc-missing claims."]
    listed = json.loads(run("rules", "--format", "json")[1])["rules"]
    assert [item["rule"] for item in listed] == list(BY_ID)
    assert listed[0]["cause"] == "why nvcc-missing"


def test_the_page_of_a_rule(run: Run) -> None:
    code, out, _ = run("rules", "gcc-too-old")
    assert code == errors.OK
    assert "What gcc-too-old claims." in out
    page = json.loads(run("rules", "gcc-too-old", "--format", "json")[1])["rules"][0]
    assert page["page"] == out


def test_rules_are_found_by_words_and_by_an_error(run: Run) -> None:
    assert "gcc-too-old" in run("rules", "--search", "why gcc")[1]
    code, out, _ = run("rules", "--search", "zzzz qqqq")
    assert (code, out) == (errors.FINDINGS, "no rule says that\n")


def test_stacks_are_listed_and_shown(run: Run) -> None:
    assert f"{DEFAULT_STACK} (default): " in run("stacks")[1]
    page = run("stacks", DEFAULT_STACK)[1]
    for part in ("torch", "2.5.1+cu124", "Traps, and what to do", "https://github.com/", "needs", "550.54.14"):
        assert part in page
    stacks = json.loads(run("stacks", "--format", "json")[1])["stacks"]
    assert {stack["name"] for stack in stacks} >= {DEFAULT_STACK, "verl-lts-cu124"}


# how it ends


def test_interrupted_ends_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_args: object, **_kwargs: object) -> Facts:
        raise KeyboardInterrupt

    monkeypatch.setattr(Composed, "facts", stop)
    assert run() == (errors.INTERRUPTED, "", "interrupted\n")


def test_a_fault_of_the_program_is_no_verdict(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> Facts:
        raise ZeroDivisionError

    monkeypatch.setattr(Composed, "facts", fail)
    code, out, err = run()
    assert (code, out) == (errors.FAULT, "")
    assert "ZeroDivisionError" in err
    assert err.endswith("error: envcheck itself failed: please report the lines above\n")


def test_an_interpreter_that_lacks_a_module_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> Facts:
        raise ModuleNotFoundError(name="tomli")

    monkeypatch.setattr(Composed, "facts", fail)
    code, out, err = run()
    assert (code, out) == (errors.USAGE, "")
    assert "has no module tomli" in err


def test_facts_that_are_nested_without_end_are_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    code, out, err = run("--facts", str(path))
    assert (code, out) == (errors.USAGE, "")
    assert "expected a whole JSON document" in err


def test_a_failing_file_names_itself(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> Facts:
        raise PermissionError(13, "Permission denied", "/etc/secret")

    monkeypatch.setattr(Composed, "facts", fail)
    assert run()[2] == "error: /etc/secret: Permission denied\n"


def test_a_crashing_rule_hides_no_other(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_args: object) -> list[Any]:
        raise ZeroDivisionError

    monkeypatch.setattr("envcheck.rules.RULES", (replace(BY_ID["gcc-too-old"], check=crash), BY_ID["pip-too-old"]))
    code, out, _ = run("--format", "json")
    assert code == errors.UNJUDGED
    assert [item["outcome"] for item in json.loads(out)["outcomes"]] == ["crashed", "warning"]


def test_messages_cannot_steer_the_terminal(run: Run) -> None:
    assert "\x1b" not in run("--only", "\x1b[2J")[2]


# an image of ours


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Path of the facts of an image that was built for the lts stack, vLLM and Megatron."""
    made = Manifest(stack="verl-lts-cu124", values={"engine": "vllm", "trainer": "megatron"})
    path = tmp_path / "image.json"
    path.write_text(json.dumps(codec.encode(facts(manifest=made))), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        pytest.param([], ("verl-lts-cu124", "vllm", "megatron"), id="as-it-was-built"),
        pytest.param(["--trainer", "fsdp"], ("verl-lts-cu124", "vllm", "fsdp"), id="another-trainer"),
        pytest.param(["--stack", DEFAULT_STACK], (DEFAULT_STACK, "sglang", "fsdp"), id="another-stack"),
    ],
)
def test_an_image_is_judged_against_what_it_was_built_for(
    options: list[str], wanted: tuple[str, str, str], run: Run, image: str
) -> None:
    found = json.loads(run("--facts", image, "--format", "json", *options)[1])
    assert (found["stack"], found["engine"], found["trainer"]) == wanted


def test_plan_and_env_take_the_stack_of_an_image(run: Run, image: str) -> None:
    assert "--stack verl-lts-cu124 --engine vllm --trainer megatron" in run("plan", "--facts", image)[1]
    assert "verl-lts-cu124" not in run("plan", "--facts", image, "--stack", DEFAULT_STACK)[1]
    lts, seed = (run("env", "--facts", image, *more)[1] for more in ([], ["--stack", DEFAULT_STACK]))
    assert "NVTE_FLASH_ATTN" not in lts  # TransformerEngine 1.x of the other stack is told to leave flash-attn alone
    assert "NVTE_FLASH_ATTN=0" in seed


def test_explain_takes_the_stack_of_an_image(run: Run, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[Target] = []

    def explain(_log: object, *, target: Target, **_: object) -> Explanation:
        targets.append(target)
        return Explanation()

    monkeypatch.setattr("envcheck.explain.explain", explain)
    log = str(Path(__file__))
    run("explain", log, "--facts", image)
    run("explain", log, "--facts", image, "--stack", DEFAULT_STACK)
    found = [(target.stack.name, target.engine, target.trainer) for target in targets]
    assert found == [("verl-lts-cu124", "vllm", "megatron"), (DEFAULT_STACK, "sglang", "fsdp")]
