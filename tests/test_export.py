"""Locks in other tools' forms: PEP 751, a uv project, constraints."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.pylock import Pylock

from envcheck.errors import EnvcheckError, WorkError
from scripts import export, lock_remote, lock_uv
from scripts.index_files import IndexFile
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin
from tests import lock_cases
from tests.lock_cases import resolved

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["resolved"]
PINS = [
    Pin(name="torch", version="2.5.1", hashes=("a" * 64,)),
    Pin(name="ipython", version="8.34.0", marker="python_full_version < '3.11'", hashes=("b" * 64, "c" * 64)),
]


def listed(name: str) -> Sequence[IndexFile]:
    table = {
        "torch": [
            IndexFile(name="torch-2.5.1-cp310-cp310-linux_x86_64.whl", url="https://x/t.whl", sha256="a" * 64, size=7),
            IndexFile(name="torch-2.6.0-cp310-cp310-linux_x86_64.whl", url="https://x/u.whl", sha256="f" * 64),
        ],
        "ipython": [
            IndexFile(name="ipython-8.34.0.tar.gz", url="https://x/i.tar.gz", sha256="b" * 64, size=3),
            IndexFile(name="ipython-8.34.0-py3-none-any.whl", url="https://x/i.whl", sha256="c" * 64, size=2),
        ],
    }
    return table[name]


def test_pylock_is_valid_and_whole() -> None:
    text = export.pylock(lock_cases.tiny(), "sglang", PINS, listed=listed)
    document = tomllib.loads(text)
    pylock = Pylock.from_dict(document)
    found = {str(item.name): item for item in pylock.packages}
    assert set(found) == {"ipython", "torch", "verl"}
    assert [dict(wheel.hashes) for wheel in found["torch"].wheels or ()] == [{"sha256": "a" * 64}]
    assert found["ipython"].sdist is not None
    assert str(found["ipython"].marker) == 'python_full_version < "3.11"'
    vcs = found["verl"].vcs
    assert vcs is not None
    assert vcs.commit_id.startswith("333e6d62")
    assert document["requires-python"] in {"<3.13,>=3.10", ">=3.10,<3.13"}


def test_a_pin_of_which_no_file_is_left_is_named() -> None:
    gone = [*PINS, Pin(name="torch", version="0.1", hashes=("0" * 64,))]
    with pytest.raises(WorkError, match=r"gone from the package index: torch==0\.1") as caught:
        export.pylock(lock_cases.tiny(), "sglang", gone, listed=listed)
    assert "kit" in caught.value.fix


def test_hashes_of_another_version_are_not_exported() -> None:
    other = [Pin(name="torch", version="2.5.0", hashes=("a" * 64,))]
    with pytest.raises(WorkError, match=r"does not fit the files of the index: Version in 'torch-2\.5\.1"):
        export.pylock(lock_cases.tiny(), "sglang", other, listed=listed)


def test_the_index_is_asked_again_and_then_given_up() -> None:
    calls: list[str] = []

    def flaky(name: str) -> Sequence[IndexFile]:
        calls.append(name)
        if len(calls) < lock_remote.ATTEMPTS:
            raise WorkError("busy")
        return listed(name)

    assert lock_remote.files_of(PINS[:1], flaky)[PINS[0]][0].url == "https://x/t.whl"

    def down(_: str) -> Sequence[IndexFile]:
        raise WorkError("down")

    with pytest.raises(WorkError, match="down"):
        lock_remote.files_of(PINS[:1], down)


def test_of_an_index_that_is_slow_not_every_package_is_waited_for() -> None:
    asked: list[str] = []

    def slow(name: str) -> Sequence[IndexFile]:
        asked.append(name)
        time.sleep(0.01)
        raise WorkError("timed out")

    many = [Pin(name=f"p{number:03}", version="1", hashes=("a" * 64,)) for number in range(200)]
    with pytest.raises(WorkError, match="timed out"):
        lock_remote.files_of(many, slow)
    assert len(set(asked)) <= 2 * lock_remote.WORKERS


def test_constraints_need_no_network(tmp_path: Path, resolved: Resolved, capsys: pytest.CaptureFixture[str]) -> None:
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    stack = str(lock_cases.stack_file(tmp_path))
    words = ["--stack", stack, "--root", str(tmp_path), "--format", "constraints", "--engine", "vllm"]
    assert export.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "torch==2.4.0" in lines
    assert "backport==1.0 ; python_full_version < '3.11'" in lines
    assert export.main([*words, "--output", str(tmp_path / "constraints.txt")]) == 0
    assert (tmp_path / "constraints.txt").read_text(encoding="utf-8").splitlines() == lines


def test_pylock_is_written_by_the_command(tmp_path: Path, resolved: Resolved, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    hashes = {pin.name: pin for pin in resolved.pins["sglang"]}

    def every(name: str) -> Sequence[IndexFile]:
        pin = hashes[name]
        stem = f"{name.replace('-', '_')}-{pin.version}"
        return [IndexFile(name=f"{stem}-py3-none-any.whl", url="https://x/y.whl", sha256=pin.hashes[0])]

    monkeypatch.setattr(lock_remote, "index", lambda: every)
    stack, output = str(lock_cases.stack_file(tmp_path)), tmp_path / "pylock.toml"
    words = ["--stack", stack, "--root", str(tmp_path), "--format", "pylock", "--output", str(output)]
    assert export.main(words) == 0
    assert len(tomllib.loads(output.read_text(encoding="utf-8"))["packages"]) == 8


def test_a_uv_project_is_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lock(_: Sequence[str], *, cwd: Path, extra: dict[str, str]) -> str:
        assert extra["UV_CONFIG_FILE"] == str(cwd / "uv.toml")
        (cwd / "uv.lock").write_text("version = 1\n", encoding="utf-8")
        return ""

    monkeypatch.setattr(lock_uv, "run", lock)
    stack, output = str(lock_cases.stack_file(tmp_path)), tmp_path / "project"
    assert export.main(["--stack", stack, "--format", "uv", "--output", str(output)]) == 0
    assert {path.name for path in output.iterdir()} == {"pyproject.toml", "uv.toml", "uv.lock", "verl"}
    said = capsys.readouterr().out
    assert "--extra sglang --frozen --no-install-package flash-attn --no-install-package verl\n" in said
    assert "built from source: nox -s build-all" in said
    words = ["--stack", stack, "--format", "uv", "--output"]
    assert export.main([*words, str(output)]) == 0, "its own is replaced"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/pyproject.toml").write_text('[project]\nname = "thesis"\n', encoding="utf-8")
    with pytest.raises(WorkError, match="thesis is there and was not made by this command"):
        export.main([*words, str(tmp_path / "thesis")])
    with pytest.raises(EnvcheckError, match="several files"):
        export.main(["--stack", stack, "--format", "uv"])
    with pytest.raises(EnvcheckError, match="no engine 'tgi'"):
        export.main(["--stack", stack, "--format", "constraints", "--engine", "tgi"])
