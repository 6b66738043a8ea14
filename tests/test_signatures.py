"""Every row of signatures.toml explains its own examples, and no pattern can blow up."""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from itertools import product

import pytest

from envcheck import data
from envcheck.errors import DataError
from envcheck.explain import explain, load
from envcheck.explain.finder import Finder
from envcheck.explain.matcher import CONTEXT_WIDTH, LEFT, RIGHT, Surroundings, values_of
from envcheck.explain.signatures import FILE, Signature, check, compiled, fill, parse
from envcheck.rules import RULES

ROWS = load().rows
ROW = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
HOSTILE = ("a", "a ", "/", "/a", ".", "(", " ", "_Z", "a.so: ", "0", "a1.", "'", '"', ", ", "::", "[", "-", "version ")
SLOWEST = 0.25
"""Seconds for one pattern on the worst line; measured 0.03 on two shared cores."""

NO_CAUSE = (
    "error: command '/usr/local/cuda/bin/nvcc' failed with exit code 1",
    "error: command '/opt/conda/bin/nvcc' failed with exit status 255",
    "subprocess.CalledProcessError: Command '['cmake', '--build', '.', '-j=8']' returned non-zero exit status 1.",
    "/usr/local/cuda/bin/nvcc -I/x/csrc/cutlass/include -I/usr/local/cuda/include -D_GLIBCXX_USE_CXX11_ABI=0",
    "/usr/bin/c++ -DNV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING -I/x/3rdparty/cudnn-frontend/include -lcudart -lcudnn -lnccl",
    "ninja: build stopped: subcommand failed.",
    "RuntimeError: Error building extension 'fused_adam'",
    "collect2: error: ld returned 1 exit status",
    "fatal: not a git repository (or any of the parent directories): .git",
    "-- Could NOT find OpenMP_CXX (missing: OpenMP_CXX_FLAGS OpenMP_CXX_LIB_NAMES)",
    "-- Performing Test CMAKE_HAVE_LIBC_PTHREAD - Failed",
    "-- USE_CUDNN is set to 0. Compiling without cuDNN support",
    "WARNING: Apex is not installed. Falling back to Torch Norm",
    "Cloning into '3rdparty/cutlass'...",
    "  Downloading outlines_core-0.1.26-cp310-cp310-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
)
"""Lines of builds that went well, and what only says that one did not."""

MINIMAL = """
version = {version}
[rules.a-rule]
summary = "s"
fix = []
[[rules.a-rule.row]]
find = [{find}]
pattern = '{pattern}'
examples = ["x"]
"""


@ROW
def test_a_row_explains_its_examples_first(row: Signature) -> None:
    for example in row.row.examples:
        first = explain(io.BytesIO(example.encode())).matches[0]
        assert (first.rule, first.harmless) == (row.rule, row.harmless), example


@ROW
def test_a_row_explains_its_examples_inside_other_output(row: Signature) -> None:
    noise = "Collecting torch\n  Downloading torch-2.6.0 (766.7 MB)\nNCCL INFO Bootstrap : Using eth0\n"
    for example in row.row.examples:
        text = noise * 40 + example + "\n" + "Cleaning up\n" * 40
        explained = explain(io.BytesIO(text.encode()))
        named = [rule for match in explained.matches for rule in (match.rule, *match.also)]
        assert row.rule in named, example


@ROW
def test_what_a_person_reads_is_whole(row: Signature) -> None:
    for fix in row.fixes({}):
        assert fix.text
        assert all(command.strip() for command in fix.commands)
    assert row.summary({}).strip()
    assert row.harmless or row.fixes({}), "a fault needs a way out"


@pytest.mark.parametrize("rule", ["apex-missing", "name-confusion"])
def test_apex_is_built_by_the_session_that_pins_it(rule: str) -> None:
    row = next(row for row in ROWS if row.rule == rule)
    commands = [command for fix in row.fixes({}) for command in fix.commands]
    assert "nox -s build-apex" in commands
    assert not any("git" in command or "pip install" in command for command in commands)


def test_a_text_without_a_pattern_stands_in_one_row_of_its_rule() -> None:
    plain = [(row.rule, {text.lower() for text in row.row.find}) for row in ROWS if not row.row.pattern]
    texts = Counter((rule, text) for rule, found in plain for text in found)
    assert [key for key, count in texts.items() if count > 1] == []


def test_the_rows_of_attention_say_different_things() -> None:
    said = [row.summary({}) for row in ROWS if row.rule == "attention-backend-missing"]
    assert len(set(said)) == len(said)


@ROW
def test_no_placeholder_is_left_for_a_person_to_read(row: Signature) -> None:
    for example in row.row.examples:
        first = explain(io.BytesIO(example.encode())).matches[0]
        commands = [command for fix in first.fix for command in fix.commands]
        for text in (first.summary, *(fix.text for fix in first.fix), *commands):
            assert not re.search(r"(?<!\$)\{[a-z_]+\d*[|}]|\}\}", text)


@pytest.mark.parametrize("line", NO_CAUSE)
def test_what_names_no_cause_is_none(line: str) -> None:
    assert explain(io.BytesIO(line.encode())).root is None


@ROW
def test_no_pattern_repeats_without_bound(row: Signature) -> None:
    for pattern in (row.row.pattern, row.row.near, row.row.absent):
        if pattern is None:
            continue
        plain = re.sub(r"\[(?:\\.|[^\]\\])*\]", "C", re.sub(r"\\.", "E", pattern.replace(r"\]", "E")))
        assert not re.search(r"[*+]", plain), pattern
        classes = re.findall(r"\[[^\]]*\]", re.sub(r"\\.", "E", pattern))
        assert not any(" " in item for item in classes), "a space stands for white space: write \\x20"


@ROW
def test_hostile_lines_cost_little(row: Signature) -> None:
    example = row.row.examples[0].replace("\n", " ")[:300]
    for find, unit in product(row.row.find[:4], HOSTILE):
        text = (unit * LEFT)[:LEFT] + find + (unit * RIGHT)[:RIGHT]
        _timed(row, text, find)
    _timed(row, (row.row.find[0] + " ") * 60, row.row.find[0])
    _timed(row, (example + " ") * 60, row.row.find[0])


def _timed(row: Signature, text: str, find: str) -> None:
    lines = [text.encode(), *[text.encode()[:CONTEXT_WIDTH]] * 90]
    place = Surroundings(lines=lines, index=0)
    start = time.process_time()
    values_of(row, text, find, place)
    for pattern in (row.near, row.absent):
        if pattern:
            pattern.search(place.around())
    assert time.process_time() - start < SLOWEST, (find, text[:40])


def test_every_pattern_compiles() -> None:
    check(load(), FILE)


def test_every_rule_that_is_referred_to_exists() -> None:
    known = {rule.id for rule in RULES} | set(load().document.rules)
    assert {rule for row in ROWS for rule in row.also} <= known


def test_every_rule_has_signatures_but_those_that_no_log_shows() -> None:
    silent = {"version-check-disabled", "container-start"}
    assert {rule.id for rule in RULES} - set(load().document.rules) == silent


def test_the_head_of_the_file_lists_what_only_logs_show() -> None:
    head = data.read(FILE).split("version = 1")[0]
    listed = set(re.findall(r"^#   ([a-z-]+)", head, re.MULTILINE))
    assert listed == set(load().document.rules) - {rule.id for rule in RULES}


@pytest.mark.parametrize(
    ("version", "find", "pattern", "key"),
    [
        (2, '"x"', "x", "version"),
        (1, "", "x", r"rules.a-rule.row\[0\]"),
        (1, '"x"', "(", r"rules.a-rule.row\[0\].pattern"),
    ],
)
def test_a_broken_file_is_named_with_its_key(version: int, find: str, pattern: str, key: str) -> None:
    with pytest.raises(DataError, match=key):
        check(parse(MINIMAL.format(version=version, find=find, pattern=pattern), "s.toml"), "s.toml")


def test_a_key_that_does_not_exist_is_named() -> None:
    with pytest.raises(DataError, match=r"rules.a-rule.colour"):
        parse(MINIMAL.format(version=1, find='"x"', pattern="x").replace("fix = []", "fix = []\ncolour = 1"), "s.toml")


@pytest.mark.parametrize(
    ("text", "values", "filled"),
    [
        ("{a}", {"a": "1"}, "1"),
        ("{a}", {}, "…"),
        ("{a|b c}", {}, "b c"),
        ("x{a|}", {}, "x"),
        ("x{a|}", {"a": "1"}, "x (1)"),
        ("$HOME {print $1}", {}, "$HOME {print $1}"),
    ],
)
def test_fill(text: str, values: dict[str, str], filled: str) -> None:
    assert fill(text, values) == filled


def test_a_space_of_a_pattern_is_any_white_space() -> None:
    pattern = compiled("a b ?c")
    assert pattern is not None
    assert pattern.search("A\n   bc")
    assert pattern.search("a b   c")
    assert not pattern.search("abc")


def test_the_finder_gives_every_text_of_a_line() -> None:
    finder = Finder(["error: x", "error", "No such file 12", "ünï"])
    assert set(finder.texts_in(b"ERROR: X no such FILE 12")) == {"error: x", "error", "No such file 12"}
    assert finder.texts_in(b"no such file 34") == []
    assert finder.texts_in("ünï".encode()) == ["ünï"]


def test_the_finder_looks_at_lines_that_differ_in_numbers_once() -> None:
    finder = Finder(["needle"])
    lines = [b"line %d" % number for number in range(50)] + [b"a NEEDLE here"]
    assert finder.candidates(lines) == [50]
    assert finder.candidates(lines[:50]) == []


def test_the_finder_knows_texts_without_a_rare_byte() -> None:
    finder = Finder(["error 803", "cannot install"])
    lines = [b"x", b"ERROR 803: y", b"it cannot", b"Cannot Install it"]
    assert finder.candidates(lines) == [1, 3]
    assert finder.texts_in(lines[3]) == ["cannot install"]
    assert finder.starts(b"  error 803, error 804") == [2, 13]


def test_the_finder_of_nothing() -> None:
    assert Finder([]).candidates([b"x"]) == []
