"""The single file that runs with a bare python3."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import envcheck
from envcheck import cli, data
from envcheck.errors import WorkError
from scripts import pyz
from scripts.cache import ROOT

HASH = "a" * 64


def lock(*names: str) -> str:
    return "".join(f"{name}==1.0 \\\n    --hash=sha256:{HASH}\n" for name in names)


def test_what_envcheck_imports_is_bundled() -> None:
    own = {"envcheck", "tomllib", *pyz.BUNDLED}  # tomllib: in the standard library from 3.11 on, tomli before
    for path in Path(envcheck.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [(node.module or "").split(".")[0]]
            else:
                continue
            if "gpu" in path.parts:
                continue  # runs in the target interpreter, with the target's packages
            for name in names:
                assert name in own or name in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_no_module_reads_its_files_by_their_path() -> None:
    allowed = {"data.py"}
    for path in Path(envcheck.__file__).parent.rglob("*.py"):
        if path.name not in allowed:
            assert "__file__" not in path.read_text(encoding="utf-8"), f"{path}: use envcheck.data, a zip has no paths"


def test_the_same_entries_give_the_same_bytes() -> None:
    one = pyz.archive({"b/x.py": b"1", "a.py": b"2"})
    assert one == pyz.archive({"a.py": b"2", "b/x.py": b"1"})
    assert one.startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(BytesIO(one)) as file:
        assert file.namelist() == ["__main__.py", "a.py", "b/x.py"]
        assert file.testzip() is None
        assert {info.date_time[0] for info in file.infolist()} == {1980}


def test_own_files_are_code_and_data_and_a_version() -> None:
    entries = pyz.own(Path(envcheck.__file__).parent)
    for name in ("cli.py", "stacks/verl-sglang-cu124.toml", "report/report.html.j2", "report/report.schema.json"):
        assert f"envcheck/{name}" in entries
    assert not any("__pycache__" in name for name in entries)
    assert any(b"Name: envcheck\nVersion: " in content for content in entries.values())


def test_bundled_files_are_python_and_licences_only(tmp_path: Path) -> None:
    files = [
        "jinja2/a.py",
        "markupsafe/_speedups.so",
        "jinja2/__pycache__/a.pyc",
        "bin/tool",
        "other/b.py",
        "pynvml.py",
    ]
    files += ["jinja2-3.dist-info/METADATA", "jinja2-3.dist-info/RECORD", "jinja2-3.dist-info/licenses/LICENSE"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    kept = {"jinja2/a.py", "pynvml.py", "jinja2-3.dist-info/METADATA", "jinja2-3.dist-info/licenses/LICENSE"}
    assert set(pyz.bundled(tmp_path)) == kept


def test_requirements_come_from_the_lock_with_hashes() -> None:
    text = pyz.requirements(lock("nox", *pyz.BUNDLED.values()), "tools.txt")
    assert f"jinja2==1.0 --hash=sha256:{HASH}\n" in text
    assert "nox" not in text
    assert len(text.splitlines()) == len(pyz.BUNDLED)


def test_of_two_versions_of_a_lock_the_newer_is_taken() -> None:
    old = f"packaging==0.9 ; python_full_version < '3.11' \\\n    --hash=sha256:{HASH}\n"
    text = pyz.requirements(lock(*pyz.BUNDLED.values()) + old, "tools.txt")
    assert "packaging==1.0 " in text


def test_a_lock_that_lacks_a_dependency_is_refused() -> None:
    with pytest.raises(WorkError, match="does not hold jinja2"):
        pyz.requirements(lock(*(name for name in pyz.BUNDLED.values() if name != "jinja2")), "tools.txt")


def test_commands_are_written_as_the_archive_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert data.started() == "python -m envcheck"
    (tmp_path / "envcheck.pyz").write_bytes(b"")
    monkeypatch.setattr(data, "ROOT", str(tmp_path / "envcheck.pyz" / "envcheck"))
    assert data.started() == f"python3 {tmp_path / 'envcheck.pyz'}"
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert f"`python3 {tmp_path / 'envcheck.pyz'} COMMAND --help`" in capsys.readouterr().out
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "x.pyz").write_bytes(b"")
    monkeypatch.setattr(data, "ROOT", str(tmp_path / "a b" / "x.pyz" / "envcheck"))
    assert data.as_started("see `python -m envcheck plan`") == f"see `python3 '{tmp_path}/a b/x.pyz' plan`"


def test_data_is_listed_from_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "ROOT", str(tmp_path / "x.pyz" / "envcheck"))
    assert "verl-sglang-cu124.toml" in data.names("stacks", ".toml")
    assert data.names("nothing", ".toml") == []


def test_main_installs_once_and_writes_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def install(arguments: list[str]) -> str:
        asked.append(arguments)
        (Path(arguments[arguments.index("--target") + 1]) / "pynvml.py").write_text("x = 1")
        return ""

    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("scripts.lock_uv.run", install)
    path = tmp_path / "dist" / "envcheck.pyz"
    assert pyz.main(["--output", str(path)]) == 0
    assert pyz.main(["--output", str(path)]) == 0
    assert len(asked) == 1
    assert {"--require-hashes", "--no-deps"} <= set(asked[0])
    assert os.access(path, os.X_OK)
    assert zipfile.ZipFile(path).read("pynvml.py") == b"x = 1"
    assert "sha256:" in capsys.readouterr().out


# real interpreters


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build with what this interpreter has installed: the same code as from the index, without the network."""
    place = tmp_path_factory.mktemp("pyz")
    site = place / "site"
    for module in pyz.BUNDLED:
        spec = __import__("importlib.util").util.find_spec(module)
        if spec is None or spec.origin is None:
            continue
        found = Path(spec.origin)
        if found.name == "__init__.py":
            shutil.copytree(found.parent, site / module)
        else:
            site.mkdir(exist_ok=True)
            shutil.copy(found, site)
    path = place / "envcheck.pyz"
    path.write_bytes(pyz.archive({**pyz.own(ROOT / "envcheck"), **pyz.bundled(site)}))
    return path


def run(path: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(path), *argv],
        capture_output=True, text=True, cwd=path.parent, timeout=60, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        pytest.param(["--version"], 0, "envcheck ", id="version"),
        pytest.param(["stacks"], 0, "verl-lts-cu124", id="stacks"),
        pytest.param(["--format", "html"], None, "<!DOCTYPE html>", id="html"),
        pytest.param(["--format", "sarif"], None, '"semanticVersion"', id="sarif"),
        pytest.param(["plan", "--format", "json"], 0, '"steps"', id="plan"),
        pytest.param(["rules", "gcc-too-old"], 0, "gcc-too-old", id="page"),
    ],
)
def test_a_copied_file_runs_with_a_bare_python(built: Path, argv: list[str], code: int | None, said: str) -> None:
    done = run(built, *argv)
    assert done.stderr == ""
    assert said in done.stdout
    assert done.returncode in ({code} if code is not None else {0, 1, 3})


@pytest.mark.process
def test_a_copied_file_names_itself_in_what_to_type(built: Path) -> None:
    facts = ROOT / "tests" / "hosts" / "healthy-docker-h100" / "facts.json"
    done = run(built, "--stack", "verl-lts-cu124", "--facts", str(facts), "--stage", "launch")
    assert f"Next: python3 {built} doctor --stack verl-lts-cu124" in done.stdout
    assert f"`python3 {built} rules` lists them" in run(built, "--only", "no-such-rule").stderr


@pytest.mark.process
def test_an_unpacked_file_runs_as_well(built: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(built) as file:
        file.extractall(tmp_path)  # our own archive
    assert run(tmp_path, "--version").returncode == 0


@pytest.mark.network
def test_two_builds_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "one"))
    assert pyz.main(["--output", str(tmp_path / "a.pyz")]) == 0
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "two"))
    assert pyz.main(["--output", str(tmp_path / "b.pyz")]) == 0
    assert (tmp_path / "a.pyz").read_bytes() == (tmp_path / "b.pyz").read_bytes()
    assert run(tmp_path / "a.pyz", "--version").returncode == 0
