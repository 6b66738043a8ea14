"""The locks of the project's own tools, and what pip and pip-compile are asked."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from envcheck.errors import WorkError
from scripts import (
    env,
    lock,
    lock_check,
    lock_check_network,
    lock_reasons,
    lock_remote,
    lock_resolve,
    lock_text,
    lock_uv,
    process,
)
from scripts.lock_resolve import Resolved
from tests import lock_cases
from tests.lock_cases import resolved
from tests.lock_index import LONG_AGO, Index, serve, wheel

__all__ = ["resolved"]
PROJECT = """\
[project]
name = "x"
dependencies = ["helper"]
[project.optional-dependencies]
scripts = ["tool>=1"]
[dependency-groups]
test = ["tester", { include-group = "lint" }]
lint = ["linter"]
[tool.envcheck]
tools-cutoff = "2026-01-01T00:00:00Z"
"""


@pytest.mark.process
def test_tools_and_dev_are_locked_for_every_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index()
    index.add(wheel("helper", "1.0", requires=["backport; python_version < '3.11'"]))
    for name in ("tool", "tester", "linter", "backport"):
        index.add(wheel(name, "1.5"), uploaded=LONG_AGO)
    index.add(wheel("tool", "2.0"), uploaded="2026-02-01T00:00:00.000000Z")
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    with serve(index):
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index.url}/simple")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
        monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
        assert lock.main(["--tools", "--root", str(tmp_path)]) == 0
    texts = {name: (tmp_path / "lockfiles" / name).read_text(encoding="utf-8") for name in ("tools.txt", "dev.txt")}
    tools = {pin.name: pin for pin in lock_text.parse(texts["tools.txt"], "tools.txt")}
    assert {name: pin.version for name, pin in tools.items()} == {"helper": "1.0", "tool": "1.5", "backport": "1.5"}
    assert tools["backport"].marker == "python_full_version < '3.11'"
    assert tools["tool"].via == ("pyproject.toml",)
    assert {pin.name for pin in lock_text.parse(texts["dev.txt"], "dev.txt")} == {*tools, "tester", "linter"}
    assert list(lock_check.tools(tmp_path)) == []


class Started:
    """What would have been started, with which environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: str = "") -> None:
        self.rows: list[tuple[list[str], Mapping[str, str]]] = []
        self.fail = fail
        monkeypatch.setattr(process, "output", self.output)
        monkeypatch.setattr(lock_uv, "run", self.uv)
        monkeypatch.setattr(lock_uv, "environment", lambda: {"PATH": "/bin"})
        monkeypatch.setattr(lock_uv, "default_index", lambda _: "https://mirror/simple")

    def uv(self, argv: Sequence[str]) -> str:
        self.rows.append((list(argv), {}))
        return ""

    def output(
        self, argv: Sequence[str], *, timeout: float, environ: Mapping[str, str], cwd: Path | None = None
    ) -> str:
        assert timeout > 60
        self.rows.append((list(argv), environ))
        if self.fail:
            raise WorkError(self.fail)
        if cwd:
            (cwd / "out.txt").write_text("torch==2.5.1\n", encoding="utf-8")
        return ""


def test_pip_is_asked_with_hashes_and_only_the_default_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch)
    assert lock_check_network.accepted(tmp_path / "requirements-sglang.txt", "/usr/bin/python3.10") == []
    argv, environ = started.rows[0]
    assert {"--dry-run", "--require-hashes", "--no-deps"} < set(argv)
    assert environ["PIP_INDEX_URL"] == "https://mirror/simple"
    assert environ["PIP_CONFIG_FILE"] == os.devnull
    assert not Path(environ["TMPDIR"]).exists(), "gigabytes would stay there where pip is ended"
    Started(monkeypatch, fail="hashes are required")
    found = lock_check_network.accepted(tmp_path / "requirements-sglang.txt", "/usr/bin/python3.10")
    assert found == ["requirements-sglang.txt: pip does not take it: hashes are required"]


@pytest.mark.parametrize(
    "said", ["connection broken by 'NewConnectionError'", "Read timed out.", "did not end within 540 s"]
)
def test_an_index_that_does_not_answer_pip_is_no_fault_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    Started(monkeypatch, fail=said)
    with pytest.raises(WorkError, match="the package index did not answer pip") as caught:
        lock_check_network.accepted(tmp_path / "requirements-sglang.txt", "python3.10")
    assert "later" in caught.value.fix


def test_a_version_that_is_gone_is_said_to_be_with_the_kit_as_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Started(monkeypatch, fail="ERROR: No matching distribution found for ray==2.9")
    (found,) = lock_check_network.accepted(tmp_path / "requirements-sglang.txt", "python3.10")
    assert found.endswith("ray==2.9 is gone from the package index: a kit has its file")


def test_pip_compile_resolves_as_of_the_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch)
    assert lock_check_network.compiled(lock_cases.tiny(), ["torch"], "python3.10") == {"torch": "2.5.1"}
    argv, environ = started.rows[-1]
    assert {"--allow-unsafe", "--strip-extras"} < set(argv)
    assert environ["PIP_UPLOADED_PRIOR_TO"] == "2025-03-01T00:00:00Z"
    assert [row[0][0] for row in started.rows[:2]] == ["venv", "pip"]


def test_each_online_check_runs_only_where_it_is_asked_for(
    tmp_path: Path, resolved: Resolved, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = lock_cases.tiny()
    place = lock_cases.lay(tmp_path, stack, resolved)
    monkeypatch.setattr(lock_resolve, "resolve", lambda _: resolved)
    given = {"root": tmp_path, "python": sys.executable, "network": False, "pip": False, "pip_compile": False}
    assert lock_check.online(stack, argparse.Namespace(**given)) == []
    assert lock_check.online(stack, argparse.Namespace(**given | {"network": True})) == []
    (place / "build.txt").unlink()
    found = lock_check.online(stack, argparse.Namespace(**given | {"network": True}))
    assert found == ["build.txt: resolving again gives other bytes, see nox -s lock -- --stack tiny --dry-run"]
    Started(monkeypatch, fail="no")
    assert len(lock_check.online(stack, argparse.Namespace(**given | {"pip": True}))) == 2
    monkeypatch.setattr(lock_check_network, "compiled", lambda *_: {"torch": "2.5.1"})
    monkeypatch.setattr(env, "version_of", lambda _: "3.11.7")
    monkeypatch.setattr(lock_remote, "index", lambda: None)
    monkeypatch.setattr(lock_reasons, "asks", lambda *_: lambda name, version: [])
    assert lock_check.online(stack, argparse.Namespace(**given | {"pip_compile": True})) == []
    assert "pip-compile agrees on" in capsys.readouterr().out
