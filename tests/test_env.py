"""Environments for real: uv, an index on the loopback, tiny wheels."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from envcheck.errors import EnvcheckError, HostError, WorkError
from scripts import download, env, env_plan, lock, lock_uv
from tests import lock_cases
from tests.lock_index import Index, serve, wheel

pytestmark = pytest.mark.process
HERE = ".".join(platform.python_version_tuple()[:2])


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Path, Index]]:
    if HERE not in env_plan.covered():
        pytest.skip(f"the locks are not for Python {HERE}")
    with serve(lock_cases.fill(Index())) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index.url}/simple")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
        monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(lock_uv, "PAUSE_SECONDS", 0.0)
        monkeypatch.setattr(lock_uv, "RETRIES", 1)
        index.projects["purelib"] = []
        index.add(wheel("purelib", "1.0"))
        text = lock_cases.STACK.replace(lock_cases.PURE_ROW, "\n")
        stack = lock_cases.stack_file(tmp_path, text)
        assert lock.main(["--stack", str(stack), "--root", str(tmp_path)]) == 0
        monkeypatch.setattr(env_plan, "make", lambda wanted, **given: MAKE(wanted, root=tmp_path, **given))
        yield tmp_path, index


MAKE = env_plan.make


def make(root: Path, *arguments: str) -> int:
    prefix = ["--prefix", str(root / "env"), "--python", sys.executable]
    return env.main(["--stack", str(root / "tiny.toml"), *prefix, "--no-verdict", *arguments])


def test_it_is_made_and_a_second_run_changes_nothing(
    root: tuple[Path, Index], capsys: pytest.CaptureFixture[str]
) -> None:
    place, index = root
    assert make(place) == 0
    out = capsys.readouterr().out
    assert "made, " in out
    assert "no wheel of flash-attn yet: nox -s build-flash-attn -- --stack tiny --engine sglang, then" in out
    mark = json.loads((place / "env" / env.MARK).read_text(encoding="utf-8"))
    assert (mark["engine"], mark["trainer"]) == ("sglang", "fsdp")
    asked = len(index.asked)
    assert make(place) == 0
    assert "is there already" in capsys.readouterr().out
    assert len(index.asked) == asked, "nothing was asked of the index"


def test_its_programs_run_at_its_final_place(root: tuple[Path, Index]) -> None:
    place, _ = root
    make(place)
    code = "import torch, sys; print(torch.version, sys.prefix)"
    out = subprocess.run([str(place / "env/bin/python"), "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["2.5.1", str(place / "env")]


def test_what_a_killed_run_left_is_removed(root: tuple[Path, Index]) -> None:
    place, _ = root
    for said in ("it is made", "it is there already"):
        for name in (".env.k1ll3d__/lib", ".env.someones"):
            (place / name).mkdir(parents=True, exist_ok=True)
        make(place)
        left = sorted(path.name for path in place.glob(".env.*"))
        assert left == [".env.lock", ".env.someones"], f"{said}; what is no environment is not touched"


def test_a_changed_environment_is_made_again(root: tuple[Path, Index], capsys: pytest.CaptureFixture[str]) -> None:
    place, _ = root
    make(place)
    next((place / "env").glob("lib/python3*/site-packages/helper-1.0.dist-info")).rename(place / "elsewhere")
    capsys.readouterr()
    make(place)
    assert "made, " in capsys.readouterr().out


def test_a_tampered_wheel_is_refused_and_the_old_environment_stays(
    root: tuple[Path, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, index = root
    make(place)
    before = env.installed(place / "env")
    name, other = wheel("megatron-core", "0.4.0", files={"megatron_core/__init__.py": "evil = True\n"})
    index.tampered[name] = other
    monkeypatch.setenv("UV_CACHE_DIR", str(place / "fresh-cache"))
    with pytest.raises(WorkError, match="is not the one that was locked") as caught:
        make(place, "--trainer", "megatron")
    said = caught.value.what
    assert "megatron-core" in said
    assert index.sha256(name) in said, "what was expected"
    assert hashlib.sha256(other).hexdigest() in said, "what was got"
    assert env.installed(place / "env") == before
    assert sorted(path.name for path in place.glob(".env.*")) == [".env.lock"], "nothing half-made is left"


def test_an_interruption_leaves_the_old_environment(root: tuple[Path, Index], monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = root
    make(place)
    before = env.installed(place / "env")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(env, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(place, "--trainer", "megatron")
    assert env.installed(place / "env") == before


def test_a_directory_that_is_not_ours_is_not_touched(root: tuple[Path, Index]) -> None:
    place, _ = root
    (place / "env").mkdir()
    (place / "env" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(WorkError, match="was not made by this command"):
        make(place)
    assert (place / "env" / "thesis.txt").exists()


def test_the_verdict_is_the_doctors(root: tuple[Path, Index], monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = root
    asked: list[list[str]] = []

    def doctor(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(argv)
        return subprocess.CompletedProcess(argv, 3)

    make(place)
    wanted = env.selection(str(place / "tiny.toml"), None, None, sys.executable)
    monkeypatch.setattr(subprocess, "run", doctor)
    assert env.verdict(wanted, place / "env", "launch") == 3
    assert asked[0][1:5] == ["-m", "envcheck", "doctor", "--python"]
    assert asked[0][-2:] == ["--stage", "launch"]


def test_a_doctor_that_hangs_is_said_to(root: tuple[Path, Index], monkeypatch: pytest.MonkeyPatch) -> None:
    place, _ = root
    wanted = env.selection(str(place / "tiny.toml"), None, None, sys.executable)

    def hanging(argv: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(argv, 1)

    monkeypatch.setattr(subprocess, "run", hanging)
    with pytest.raises(WorkError, match="did not end within"):
        env.verdict(wanted, place / "env", None)


@pytest.mark.parametrize(
    ("argument", "said"), [("--engine", "has no engine 'tgi'"), ("--trainer", "has no trainer 'tgi'")]
)
def test_an_unknown_engine_or_trainer_is_named(root: tuple[Path, Index], argument: str, said: str) -> None:
    place, _ = root
    with pytest.raises(EnvcheckError, match=said):
        make(place, argument, "tgi")


def test_a_python_that_is_not_there_or_not_covered_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    stack = lock_cases.tiny()
    with pytest.raises(HostError, match="there is no interpreter /nonexistent/python"):
        env.interpreter("/nonexistent/python", stack)

    def none(*_: object, **__: object) -> str:
        raise WorkError("No interpreter found")

    monkeypatch.setattr(lock_uv, "run", none)
    with pytest.raises(HostError, match=r"no Python \S+ was found") as caught:
        env.interpreter(None, stack)
    assert "none is downloaded" in caught.value.fix
    monkeypatch.setattr(env, "version_of", lambda _: "3.8.18")
    with pytest.raises(EnvcheckError, match=r"not 3.8.18"):
        env.selection("verl-sglang-cu124", None, None, sys.executable)


def test_pyenv_has_pythons_that_its_shims_do_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none(*_: object, **__: object) -> str:
        raise WorkError("pyenv: python3.10: command not found")

    monkeypatch.setattr(lock_uv, "run", none)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert env.found("3.11") is None
    for version in ("3.11.4", "3.11.13", "3.1.9"):
        (tmp_path / "versions" / version / "bin").mkdir(parents=True)
        (tmp_path / "versions" / version / "bin" / "python").touch()
    assert env.found("3.11") == str(tmp_path / "versions" / "3.11.13" / "bin" / "python")


def test_another_python_of_the_range_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_312(argv: Sequence[str], **_: object) -> str:
        if argv[-1] != "3.12":
            raise WorkError("No interpreter found")
        return "/usr/bin/python3.12\n"

    monkeypatch.setattr(lock_uv, "run", only_312)
    monkeypatch.setenv("PYENV_ROOT", "/nonexistent")
    assert env.interpreter(None, lock_cases.tiny()) == "/usr/bin/python3.12"


def test_an_environment_directory_names_its_python(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert env.interpreter(str(tmp_path), lock_cases.tiny()) == str(tmp_path / "bin" / "python")


def test_the_default_place_is_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path))
    wanted = env_plan.Selection(stack=lock_cases.tiny(), engine="vllm", trainer="fsdp", version="3.12.1")
    assert env.default_prefix(wanted) == tmp_path / "envs" / "tiny-vllm-fsdp-py3.12"


def test_wheels_of_the_wheelhouse_are_installed_by_hash(root: tuple[Path, Index]) -> None:
    place, _ = root
    file, content = wheel("verl", "0.2.0.dev0")
    digest = hashlib.sha256(content).hexdigest()
    entry = place / "house" / "wheels" / ("0" * 64)
    entry.mkdir(parents=True)
    (entry / file).write_bytes(content)
    receipt = {
        "inputs": {"component": "verl", "version": "0.2.0.dev0"},
        "wheel": {"file": file, "sha256": digest, "size": len(content)},
    }
    (entry / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    make(place, "--wheelhouse", str(place / "house"))
    assert "verl-0.2.0.dev0.dist-info" in env.installed(place / "env")


def test_a_release_wheel_is_downloaded_by_hash_under_its_own_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stored = tmp_path / "digest"
    stored.write_bytes(b"wheel")
    monkeypatch.setattr(download, "fetch", lambda urls, digest: stored if urls == ["https://x/y.whl"] else digest)
    item = env_plan.Extra(component="flash-attn", file="y.whl", sha256="digest", url="https://x/y.whl")
    for _ in range(2):
        found = env._place(item)
        assert (found.name, found.read_bytes()) == ("y.whl", b"wheel")


def test_a_directory_of_wheels_can_stand_in_for_the_index(root: tuple[Path, Index]) -> None:
    place, index = root
    links = place / "links"
    links.mkdir()
    for rows in index.projects.values():
        for name, content, _ in rows:
            (links / name).write_bytes(content)
    asked = len(index.asked)
    assert make(place, "--find-links", str(links)) == 0
    assert len(index.asked) == asked
