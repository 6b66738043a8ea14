"""What the bench measures of builds: an extension that the pipeline takes, and the verification of a wheel."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from envcheck import stack
from envcheck.errors import WorkError
from scripts import build, build_bench, build_cache, build_context, build_verify, toolchain, wheelhouse_store
from scripts.files import sha256
from tests import build_cases


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A host with ccache and a toolkit; what builds are asked for is listed."""
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ENVCHECK_WHEELHOUSE", str(tmp_path / "elsewhere"))
    found = build_cache.CompilerCache(kind="ccache", path="/usr/bin/ccache", directory=tmp_path)
    monkeypatch.setattr(build_cache, "find", lambda: found)
    monkeypatch.setattr(toolchain, "provisioned", lambda: tmp_path)
    asked: list[list[str]] = []

    def main(argv: list[str]) -> int:
        asked.append(argv)
        return 0

    monkeypatch.setattr(build, "main", main)
    return asked


def test_the_extension_is_a_component_of_a_stack_of_its_own(tmp_path: Path) -> None:
    wanted = stack.load(str(build_bench.stack_file(tmp_path)))
    component = wanted.component("bench", "sglang")
    archive = tmp_path / "envcheck_bench-1.0.tar.gz"
    assert component.origin.sha256 == sha256(archive)
    with tarfile.open(archive) as file:
        names = file.getnames()
    assert sum(name.endswith(".cu") for name in names) == build_bench.KERNELS
    assert build_bench.sdist(tmp_path) == archive


@pytest.mark.parametrize(("what", "rebuilt"), [("build", True), ("again", False)])
def test_it_is_built_with_a_cache_of_its_own(
    host: list[list[str]], tmp_path: Path, what: str, *, rebuilt: bool
) -> None:
    for _ in range(2):
        assert build_bench.main([what, "--python", "/env/bin/python", "--work", str(tmp_path / "work")]) == 0
        os.environ["ENVCHECK_CACHE"] = str(tmp_path / "cache")
    argv = host[-1]
    assert argv[0] == "bench"
    assert ("--rebuild" in argv) is rebuilt
    assert (tmp_path / "work/build-cache/toolchains").is_symlink()
    assert "ENVCHECK_WHEELHOUSE" not in os.environ


def test_without_a_compiler_cache_or_a_toolkit_it_is_not_measured(
    host: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toolchain, "provisioned", lambda: None)
    with pytest.raises(WorkError, match="nox -s toolchain"):
        build_bench.extension(tmp_path, "python", again=False)
    monkeypatch.setattr(build_cache, "find", lambda: None)
    with pytest.raises(WorkError, match="install ccache"):
        build_bench.extension(tmp_path, "python", again=False)
    assert not host


def test_the_newest_wheel_of_a_component_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    house = tmp_path / "house"
    for key, day in (("a" * 64, "2026-01-02"), ("b" * 64, "2026-01-01")):
        inputs = {"component": "flash-attn", "archs": ["9.0"]}
        receipt = build_cases.receipt(inputs=inputs, stack="verl-sglang-cu124", finished=day)
        wheelhouse_store.put(house, key, build_cases.wheel(tmp_path / key), receipt)
    monkeypatch.setenv("ENVCHECK_WHEELHOUSE", str(house))
    seen: list[Any] = []
    monkeypatch.setattr(build_context, "context", lambda *args: seen.append(args))

    def verify(_: object, wheel: Path) -> dict[str, Any]:
        seen.append(wheel)
        return {"seconds": 0.1, "archs": ["9.0"]}

    monkeypatch.setattr(build_verify, "verify", verify)
    assert build_bench.main(["verify", "--python", "/env", "--component", "flash-attn"]) == 0
    assert seen[0][2].archs == ("9.0",)
    assert seen[1].parent.name == "a" * 64
    assert "0.1 s, 9.0" in capsys.readouterr().out
    with pytest.raises(WorkError, match="holds no wheel of transformer-engine"):
        build_bench.main(["verify", "--python", "/env"])
