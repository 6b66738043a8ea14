"""What is said of a build that failed: killed for memory, or the object, the cause and the lines that tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from envcheck.errors import WorkError
from scripts import build_memory, build_run
from scripts.build_run import KilledError
from scripts.process import Done
from tests import build_cases

COMMAND = "  /cache/wrappers/x/g++ -MMD -MF x.o.d -c x.cpp -o x.o"
SILENT = f"  [1/2] g++ x\n  FAILED: [code=255] /tree/x.o\n{COMMAND}\n  [2/2] nvcc y\n  ninja: build stopped"
CRASHED = f"  FAILED: [code=1] /tree/x.o\n{COMMAND}\n  x.cpp:1: internal compiler error: Segmentation fault\n"


def failure(tmp_path: Path, text: str, *, code: int = 1, before: str = "", kills: int = 0) -> WorkError:
    """What is said of a build that printed `text`, after an attempt that printed `before`."""
    log = tmp_path / "x.log"
    log.write_text(before + text, encoding="utf-8")
    done = Done(argv=("pip",), returncode=code, tail=tuple(text.splitlines()[-40:]), log=log)
    return build_run.failure(build_cases.context(), done, log, began=len(before.encode()), kills=kills)


@pytest.mark.parametrize(
    "text",
    [
        "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
        "g++: fatal error: Killed signal terminated program cc1plus",
        "c++: internal compiler error: Killed (program cc1plus)",
        "cc1plus: out of memory allocating 65536 bytes after a total of 1 byte",
        "virtual memory exhausted: Cannot allocate memory",
        "  FAILED: [code=137] /tree/x.o\n  nvcc -c x.cu\n  Killed\n",
        "  error: command '/usr/bin/g++' failed with exit code -9",
        SILENT,
        SILENT.replace("[code=255] ", ""),
    ],
)
def test_a_killed_compiler_is_told_by_what_was_printed(tmp_path: Path, text: str) -> None:
    error = failure(tmp_path, f"a\n{text}\nERROR: Failed to build one or more wheels\n")
    assert isinstance(error, KilledError)
    assert "a compiler was killed, as the kernel does it, for want of memory (8 jobs" in error.what
    assert "--jobs 1" in error.fix


def test_the_kernels_own_count_tells_where_nothing_was_printed(tmp_path: Path) -> None:
    error = failure(tmp_path, "make: *** [all] Error 1\n", kills=1)
    assert isinstance(error, KilledError)
    assert "the kernel killed a compiler for want of memory" in error.what


def test_a_cause_that_the_log_names_is_not_blamed_on_memory(tmp_path: Path) -> None:
    error = failure(tmp_path, "ModuleNotFoundError: No module named 'torch'\n", kills=1)
    assert not isinstance(error, KilledError)
    assert "No module named 'torch'" in error.what


def test_a_compiler_that_crashes_is_shown_with_its_words(tmp_path: Path) -> None:
    noise = "".join(f"Traceback line {number}\n" for number in range(60))
    error = failure(tmp_path, f"  [1/2] cc\n{CRASHED}{noise}")
    assert not isinstance(error, KilledError)
    assert "internal compiler error: Segmentation fault" in error.what
    assert "FAILED: [code=1] /tree/x.o" in error.what
    assert "Traceback line 59" not in error.what


@pytest.mark.parametrize("code", ["1", "-11"])
def test_a_compiler_that_setuptools_started_is_shown_without_what_pip_says_after_it(tmp_path: Path, code: str) -> None:
    noise = "".join(f"  removing line {number}\n" for number in range(60))
    text = f"  x.cpp:1: error: 'f' is no type\n  error: command '/usr/bin/g++' failed with exit code {code}\n{noise}"
    error = failure(tmp_path, text)
    assert not isinstance(error, KilledError)
    assert "x.cpp:1: error: 'f' is no type" in error.what
    assert error.what.endswith(f"error: command '/usr/bin/g++' failed with exit code {code}")


def test_an_object_that_failed_with_words_and_255_was_not_killed(tmp_path: Path) -> None:
    text = (
        f"  FAILED: [code=255] /tree/x.o\n{COMMAND}\n  ptxas fatal   : Unresolved extern function 'f'\n  ninja: stop\n"
    )
    assert not isinstance(failure(tmp_path, text), KilledError)


def test_what_an_earlier_attempt_printed_does_not_count(tmp_path: Path) -> None:
    error = failure(tmp_path, "error: frobnication refused\n", before=f"{SILENT}\n")
    assert not isinstance(error, KilledError)
    assert "frobnication refused" in error.what


def test_long_lines_are_cut() -> None:
    assert build_run.telling("x" * 1000) == ["x" * build_run.LINE_WIDTH + " …"]


def test_the_kernels_count_is_read(tmp_path: Path) -> None:
    assert build_memory.kills(tmp_path) == 0
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 12\ndrop_pagecache 0\n", encoding="ascii")
    assert build_memory.kills(tmp_path) == 12
    (tmp_path / "vmstat").write_text("nr_free_pages 1\n", encoding="ascii")
    assert build_memory.kills(tmp_path) == 0


def test_another_interpreter_of_the_same_key_starts_clean(tmp_path: Path) -> None:
    source, tree = tmp_path / "source", tmp_path / "tree"
    source.mkdir()
    context = build_cases.context()
    assert not build_run.prepare_tree(context, "k", tree, source)
    assert build_run.prepare_tree(context, "k", tree, source)
    (tree / build_run.MARK).write_text(f"k {context.python}2\n", encoding="ascii")
    assert not build_run.prepare_tree(context, "k", tree, source)
