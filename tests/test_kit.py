"""Air-gap kits: made from an index, verified, and installed in a network namespace without any network."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from envcheck.errors import DataError, EnvcheckError, WorkError
from scripts import (
    download,
    env_plan,
    git_mirror,
    index_files,
    kit,
    kit_check,
    kit_files,
    kit_install,
    lock,
    lock_text,
    lock_uv,
    pyz,
    sources_lock,
)
from scripts.index_files import IndexFile
from scripts.lock_text import Pin
from tests import lock_cases
from tests.lock_index import Index, serve, wheel

HERE = ".".join(platform.python_version_tuple()[:2])
UV_VERSION = "9.9.9"


def small(root: Path) -> Path:
    """Write a kit of three files by hand."""
    place = root / "kit"
    (place / "wheels").mkdir(parents=True)
    (place / "locks").mkdir()
    (place / "wheels" / "torch-2.5.1-py3-none-any.whl").write_bytes(b"wheel")
    lock_cases.lock_of(place / "locks" / "sglang-py3.11.txt", [Pin(name="torch", version="2.5.1", hashes=("a" * 64,))])
    rows = [{"engine": "sglang", "python": "3.11", "lock": "locks/sglang-py3.11.txt"}]
    (place / "kit.json").write_text(json.dumps({"environments": rows}), encoding="utf-8")
    (place / "SHA256SUMS").write_text(kit_check.sums(place), encoding="utf-8")
    return place


def test_a_whole_kit_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = small(tmp_path)
    assert kit.main(["--verify", str(place)]) == 0
    assert "all as they were when the kit was made" in capsys.readouterr().out


def test_every_fault_of_a_kit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = small(tmp_path)
    (place / "wheels" / "torch-2.5.1-py3-none-any.whl").unlink()
    (place / "kit.json").write_text('{"environments": []}', encoding="utf-8")
    (place / "extra.txt").write_text("x", encoding="utf-8")
    assert kit.main(["--verify", str(place)]) == 1
    out = capsys.readouterr().out
    assert "wheels/torch-2.5.1-py3-none-any.whl: is gone" in out
    assert "kit.json: sha256 expected" in out
    assert "extra.txt: is not of this kit" in out
    assert "3 fault(s)" in out


def test_a_lock_without_its_files_and_a_damaged_kit_are_named(tmp_path: Path) -> None:
    place = small(tmp_path)
    (place / "wheels" / "torch-2.5.1-py3-none-any.whl").unlink()
    assert list(kit_check.incomplete(place)) == ["locks/sglang-py3.11.txt: no file of torch==2.5.1"]
    (place / "kit.json").write_text("[", encoding="utf-8")
    assert "cannot be read" in next(iter(kit_check.incomplete(place)))
    (place / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match="the checksums of a kit"):
        kit_check.verify(place)


@pytest.mark.parametrize(
    ("names", "best"),
    [
        (["x-1.tar.gz", "x-1-py3-none-any.whl", "x-1-cp311-cp311-manylinux_2_17_x86_64.whl"], 2),
        (["x-1.tar.gz", "x-1-cp312-cp312-manylinux_2_17_x86_64.whl"], 0),
        (["x-1-cp38-abi3-manylinux1_x86_64.whl", "x-1-py3-none-any.whl"], 0),
        (["x-1-cp312-cp312-win_amd64.whl"], None),
    ],
)
def test_the_best_file_for_a_python_is_chosen(names: list[str], best: int | None) -> None:
    items = [IndexFile(name=name, url="", sha256="") for name in names]
    assert kit_files.best_of(items, "3.11") == (None if best is None else items[best])


def test_an_unknown_engine_or_python_is_refused(tmp_path: Path) -> None:
    stack = str(lock_cases.stack_file(tmp_path))
    for words in (["--engine", "tgi"], ["--python-version", "3.8"]):
        with pytest.raises(EnvcheckError, match=r"it has|has no"):
            kit.main(["--stack", stack, "--output", str(tmp_path / "kit"), *words])


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Index]]:
    """Give a kit of the tiny stack with the real uv in a wheel, and the index that it was made from."""
    if HERE not in env_plan.covered():
        pytest.skip(f"the locks are not for Python {HERE}")
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setattr(lock_uv, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(pyz, "main", lambda argv: Path(argv[1]).write_text("import sys; sys.exit(3)", encoding="utf-8"))
    with serve(lock_cases.fill(Index())) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index.url}/simple")
        index.projects["purelib"] = []
        index.add(wheel("purelib", "1.0"))
        program = Path(lock_uv.program()).read_bytes()
        index.add(wheel("uv", UV_VERSION, files={f"uv-{UV_VERSION}.data/scripts/uv": program}))
        stack = lock_cases.stack_file(tmp_path, lock_cases.STACK.replace(lock_cases.PURE_ROW, "\n"))
        lock.main(["--stack", str(stack), "--root", str(tmp_path)])
        tools = [Pin(name="uv", version=UV_VERSION, hashes=(index.sha256(f"uv-{UV_VERSION}-py3-none-any.whl"),))]
        lock_cases.lock_of(tmp_path / "lockfiles" / "tools.txt", tools)
        yield tmp_path, index


def make(root: Path, *arguments: str, name: str = "kit") -> Path:
    output = root / name
    words = ["--stack", str(root / "tiny.toml"), "--root", str(root), "--output", str(output), "--python-version", HERE]
    assert kit.main([*words, "--no-sources", *arguments]) == 0
    return output


@pytest.mark.process
def test_a_kit_installs_with_no_network_and_no_uv(made: tuple[Path, Index], capsys: pytest.CaptureFixture[str]) -> None:
    root, index = made
    place = make(root)
    builds = "nox -s build-flash-attn -- --stack tiny --engine sglang"
    assert f"no wheel of flash-attn is in the kit: {builds} first" in capsys.readouterr().out
    assert kit_check.verify(place) == 0
    asked = len(index.asked)
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(root / "home"), "UV_DEFAULT_INDEX": f"{index.url}/simple"}
    argv = [sys.executable, str(place / "install"), "--prefix", str(root / "env"), "--python", sys.executable]
    isolated = ["unshare", "--net", "--map-root-user"] if shutil.which("unshare") else []
    if isolated and subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode:
        isolated = []
    done = subprocess.run([*isolated, *argv], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 3, f"the doctor's own exit code is passed on: {done.stdout}{done.stderr}"
    assert "installed for tiny, engine sglang" in done.stdout
    code = "import torch, sglang, helper; print(torch.version)"
    out = subprocess.run([str(root / "env/bin/python"), "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "2.5.1\n"
    assert len(index.asked) == asked, "nothing was asked of the index"
    again = subprocess.run([*argv, "--no-verdict"], env=environ, capture_output=True, text=True, check=False)
    assert again.returncode == 0, "a kit's own environment may be replaced"


@pytest.mark.process
def test_a_tampered_kit_is_refused_and_leaves_nothing(made: tuple[Path, Index]) -> None:
    root, _ = made
    place = make(root)
    (place / "wheels" / "torch-2.5.1-py3-none-any.whl").unlink()
    name, other = wheel("torch", "2.5.1", files={"torch/__init__.py": "evil = True\n"})
    (place / "wheels" / name).write_bytes(other)
    argv = [sys.executable, str(place / "install"), "--prefix", str(root / "env"), "--python", sys.executable]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    there = kit_install.sha256(place / "wheels" / name)
    assert f"{name}: sha256 expected " in done.stderr
    assert f", got {there}; it was refused" in done.stderr
    (place / "wheels" / name).unlink()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert f"wheels/{name}: is gone from the kit" in done.stderr
    assert not [path.name for path in root.glob(".env*")] + [path for path in [root / "env"] if path.exists()]
    (place / "kit.json").write_text("{}", encoding="utf-8")
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "kit.json: sha256 expected" in done.stderr
    (place / "SHA256SUMS").unlink()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, "SHA256SUMS is gone from the kit" in done.stderr) == (1, True)


@pytest.mark.process
def test_a_package_that_is_gone_is_taken_from_an_earlier_kit(made: tuple[Path, Index]) -> None:
    root, index = made
    older = make(root)
    del index.projects["kernel"]
    shutil.rmtree(root / "cache")
    with pytest.raises(WorkError, match="kernel"):
        make(root, name="without")
    newer = make(root, "--from", str(older), name="with")
    assert (newer / "wheels" / "kernel-0.1.0-py3-none-any.whl").exists()


def shim(name: str) -> str:
    """A pyenv shim on PATH whose version is not chosen."""
    raise kit_install.KitError(f"{name} does not answer: exit code 127")


def test_the_installer_chooses_engine_and_python(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"engine": "sglang", "python": "3.10"}, {"engine": "vllm", "python": "3.12"}]
    monkeypatch.setattr(kit_install, "version_of", lambda name: "3.12" if "3.12" in name else "3.11")
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert kit_install.chosen(rows, None, None) == (rows[1], "python3.12")
    with pytest.raises(kit_install.KitError, match="no engine tgi; it has: sglang, vllm"):
        kit_install.chosen(rows, "tgi", None)
    monkeypatch.setattr(kit_install, "version_of", shim)
    with pytest.raises(kit_install.KitError, match=r"is for Python 3.10, of which none is on PATH"):
        kit_install.chosen(rows, "sglang", None)
    with pytest.raises(kit_install.KitError, match="does not answer"):
        kit_install.chosen(rows, "sglang", "python3.10")
    monkeypatch.setattr(kit_install, "version_of", lambda _: "3.11")
    with pytest.raises(kit_install.KitError, match=r"is for Python 3.10, /usr/bin/python3 is another"):
        kit_install.chosen(rows, "sglang", "/usr/bin/python3")


def test_the_installer_refuses_foreign_places_and_missing_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = small(tmp_path)
    monkeypatch.setattr(kit_install, "KIT", place)
    sums = kit_install.expected()
    with pytest.raises(kit_install.KitError, match="has no uv"):
        kit_install.uv(sums, tmp_path)
    with pytest.raises(kit_install.KitError, match="is gone from the kit"):
        kit_install.checked("wheels/absent.whl", sums)
    document = {"stack": "tiny", "environments": [{"engine": "sglang", "python": HERE}]}
    (place / "kit.json").write_text(json.dumps(document), encoding="utf-8")
    (place / "SHA256SUMS").write_text(kit_check.sums(place), encoding="utf-8")
    monkeypatch.setattr(kit_install, "version_of", lambda _: HERE)
    monkeypatch.setattr(sys, "argv", ["install", "--prefix", str(place)])
    with pytest.raises(kit_install.KitError, match="was not made by a kit"):
        kit_install.main()


@pytest.mark.process
def test_the_installer_explains_what_uv_says(tmp_path: Path) -> None:
    full = ["/bin/sh", "-c", "echo 'No space left on device' >&2; exit 2"]
    with pytest.raises(kit_install.KitError, match="free space"):
        kit_install.run(full, tmp_path)
    with pytest.raises(kit_install.KitError, match="does not answer"):
        kit_install.version_of("/nonexistent/python")
    assert kit_install.version_of(sys.executable) == HERE


@pytest.mark.process
def test_a_commit_is_copied_without_its_history(tmp_path: Path) -> None:
    work = tmp_path / "mirror" / "volcengine" / "verl"
    work.mkdir(parents=True)

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(work), *words], capture_output=True, text=True, check=True, env=GIT)
        return done.stdout.strip()

    git("init", "--quiet")
    for number in (1, 2):
        (work / "file").write_text(str(number), encoding="utf-8")
        git("add", "file")
        git("commit", "--quiet", "-m", str(number))
    commit = git("rev-parse", "HEAD")
    place = tmp_path / "sources"
    place.mkdir()
    kit_files.commit(place, commit, ["https://github.com/volcengine/verl.git"], [tmp_path / "mirror"])
    bare = place / "volcengine+verl.git"
    done = subprocess.run(["git", f"--git-dir={bare}", "rev-list", "--all"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [commit]


GIT = os.environ | {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def test_a_kit_says_what_it_holds() -> None:
    pin = Pin(name="torch", version="2.5.1")
    job = kit_files.Job(engine="sglang", version="3.11", pins=(pin,), extras=(), sdists=("purelib",), missing=("verl",))
    rows = kit.manifest(lock_cases.tiny(), [job])["environments"]
    assert isinstance(rows, list)
    assert rows[0]["build"] == "lockfiles/tiny/build.txt"
    assert rows[0]["missing"] == ["verl"]
    assert dataclasses.replace(job, missing=()).missing == ()
    assert lock_text.FIRST


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("antlr4-python3-runtime-4.9.3.tar.gz", "antlr4-python3-runtime-4.9.3"),
        ("Ruamel.Yaml-0.18-py3-none-any.whl", "ruamel-yaml-0.18"),
        ("verl-0.2.0.dev0+cu124-py3-none-any.whl", "verl-0.2.0.dev0+cu124"),
    ],
)
def test_file_names_and_pins_compare(file: str, name: str) -> None:
    assert kit_check.flat(file).startswith(kit_check.flat(name) + "-")


def test_only_an_optional_source_may_be_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_: object) -> None:
        raise git_mirror.UnreachableError("commit 333e6d62 was not to be had")

    rows = sources_lock.parse(lock_cases.SOURCES, "sources.toml").source
    parsed = sources_lock.Sources(version=1, stack="tiny", source=rows[1:])
    monkeypatch.setattr(sources_lock, "load", lambda _: parsed)
    monkeypatch.setattr(git_mirror, "find", unreachable)
    with pytest.raises(git_mirror.UnreachableError):
        kit_files.sources(tmp_path / "needed", lock_cases.tiny(), [])
    text = lock_cases.STACK.replace('distribution = "verl"\n', 'distribution = "verl"\noptional = true\n')
    kit_files.sources(tmp_path / "optional", lock_cases.tiny(text), [])
    assert "the source of verl is not in the kit, which is optional: commit 333e6d62" in capsys.readouterr().out


def test_sources_are_copied_as_a_local_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = sources_lock.parse(lock_cases.SOURCES, "sources.toml")
    archive = tmp_path / "archive"
    archive.write_bytes(b"sdist")
    copied: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(sources_lock, "load", lambda _: parsed)
    monkeypatch.setattr(kit_files, "commit", lambda _place, wanted, urls, _places: copied.append((wanted[:8], urls)))
    monkeypatch.setattr(
        index_files, "sdist_of", lambda *_: IndexFile(name="f.tar.gz", url="https://x/f.tar.gz", sha256=None)
    )
    monkeypatch.setattr(download, "fetch", lambda *_, **__: archive)
    kit_files.sources(tmp_path / "sources", lock_cases.tiny(), [])
    assert (tmp_path / "sources" / "flash_attn-2.7.4.tar.gz").read_bytes() == b"sdist"
    assert copied == [("333e6d62", ["https://github.com/volcengine/verl.git"])]


def test_built_wheels_go_beside_those_of_the_lock(tmp_path: Path) -> None:
    built = tmp_path / "verl-0.2.0.dev0-py3-none-any.whl"
    built.write_bytes(b"built")
    extra = env_plan.Extra(component="verl", file=built.name, sha256="f" * 64, path=built)
    job = kit_files.Job(engine="sglang", version="3.11", pins=(), extras=(extra,), sdists=(), missing=())
    kit_files.wheels(tmp_path / "kit" / "wheels", [job], [], [], lambda _: [])
    assert (tmp_path / "kit" / "built" / ("f" * 12) / built.name).read_bytes() == b"built"


def test_a_package_without_a_file_for_the_python_is_named(tmp_path: Path) -> None:
    pin = Pin(name="x", version="1", hashes=("a" * 64,))
    job = kit_files.Job(engine="sglang", version="3.11", pins=(pin,), extras=(), sdists=(), missing=())
    only = IndexFile(name="x-1-cp312-cp312-win_amd64.whl", url="", sha256="a" * 64)
    with pytest.raises(WorkError, match=r"no file of x==1 for Python 3\.11"):
        kit_files.wheels(tmp_path / "wheels", [job], [], [], lambda _: [only])


def test_a_file_that_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"x")
    kit_files._copy(tmp_path / "a", tmp_path / "b" / "c")
    assert (tmp_path / "b" / "c").read_bytes() == b"x"


def test_the_installer_makes_replaces_and_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = small(tmp_path)
    (place / "built").mkdir()
    (place / "built" / "verl.whl").write_bytes(b"v")
    (place / "build.txt").write_text("", encoding="utf-8")
    (place / "envcheck.pyz").write_text("", encoding="utf-8")
    file, content = wheel("uv", UV_VERSION, files={f"uv-{UV_VERSION}.data/scripts/uv": b"#!/bin/sh\n"})
    (place / "wheels" / file).write_bytes(content)
    row = {
        "engine": "sglang",
        "python": HERE,
        "lock": "locks/sglang-py3.11.txt",
        "build": "build.txt",
        "wheels": [{"file": "built/verl.whl", "sha256": "f" * 64}],
        "sdists": ["purelib"],
        "missing": ["flash-attn"],
    }
    (place / "kit.json").write_text(json.dumps({"stack": "tiny", "environments": [row]}), encoding="utf-8")
    (place / "SHA256SUMS").write_text(kit_check.sums(place), encoding="utf-8")
    runs: list[list[str]] = []
    monkeypatch.setattr(kit_install, "KIT", place)
    monkeypatch.setattr(kit_install, "version_of", lambda _: HERE)
    monkeypatch.setattr(kit_install, "run", lambda argv, _home: runs.append(argv))
    monkeypatch.setattr(sys, "argv", ["install", "--prefix", str(tmp_path / "env"), "--no-verdict"])
    assert kit_install.main() == 0
    assert "the kit has no wheel of flash-attn" in capsys.readouterr().out
    assert [words[1:3] for words in runs] == [["venv", "--quiet"], ["pip", "install"], ["pip", "install"]]
    assert {"--no-index", "--require-hashes", "--no-binary", "purelib"} < set(runs[1])
    monkeypatch.setattr(subprocess, "run", lambda argv, **_: subprocess.CompletedProcess(argv, 3))
    monkeypatch.setattr(sys, "argv", ["install", "--prefix", str(tmp_path / "env")])
    assert kit_install.main() == 3, "its own environment is replaced; the doctor's exit code is passed on"
    assert not list(tmp_path.glob(".env*"))
