"""The project that uv resolves is what the stack file says."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from pathlib import Path

import pytest

from envcheck import stack as stacks
from envcheck.errors import DataError, WorkError
from scripts import lock, lock_files, lock_inputs, lock_resolve
from scripts.lock_resolve import Resolved
from tests import lock_cases
from tests.lock_cases import resolved

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["resolved"]


def test_engines_are_extras_that_exclude_each_other() -> None:
    inputs = lock_inputs.make(lock_cases.tiny())
    project = tomllib.loads(inputs.files["pyproject.toml"])
    assert project["project"]["dependencies"] == [
        "flash-attn==2.7.4",
        "helper[fast]",
        "megatron-core==0.4.0",
        "verl==0.2.0.dev0",
    ]
    assert project["project"]["optional-dependencies"] == {
        "sglang": ["sglang[srt]==0.4.3", "torch==2.5.1"],
        "vllm": ["torch==2.4.0"],
    }
    assert project["tool"]["uv"]["conflicts"] == [[{"extra": "sglang"}, {"extra": "vllm"}]]
    assert project["tool"]["uv"]["override-dependencies"] == ["kernel==0.1.0"]
    assert project["tool"]["uv"]["sources"] == {"verl": {"path": "verl"}}


def test_what_no_index_has_is_a_stub_with_the_stated_metadata() -> None:
    inputs = lock_inputs.make(lock_cases.tiny())
    stub = tomllib.loads(inputs.files["verl/pyproject.toml"])["project"]
    assert stub == {"name": "verl", "version": "0.2.0.dev0", "dependencies": ["helper", "purelib"]}
    assert inputs.left_out == ("flash-attn", "verl")


def test_nothing_is_ever_built_and_dates_are_instants() -> None:
    settings = tomllib.loads(lock_inputs.make(lock_cases.tiny()).files["uv.toml"])
    assert settings["no-build"] is True
    assert settings["no-binary-package"] == ["flash-attn", "purelib"]
    assert settings["exclude-newer"] == "2025-03-01T00:00:00Z"
    assert settings["exclude-newer-package"] == {"kernel": "2025-05-01T00:00:00Z"}
    assert [row["name"] for row in settings["dependency-metadata"]] == ["flash-attn", "purelib"]
    assert lock_inputs.cutoff("2025-03-01T12:00:00Z") == "2025-03-01T12:00:00Z"


def test_an_sdist_without_metadata_is_refused() -> None:
    stack = lock_cases.tiny()
    rows = tuple(row for row in stack.lock.metadata if row.name != "flash-attn")
    bare = dataclasses.replace(stack, lock=dataclasses.replace(stack.lock, metadata=rows))
    with pytest.raises(DataError, match=r"flash-attn 2\.7\.4") as caught:
        lock_inputs.make(bare)
    assert "no setup.py is run" in caught.value.fix


def test_a_commit_without_metadata_is_left_out() -> None:
    stack = lock_cases.tiny()
    rows = tuple(row for row in stack.lock.metadata if row.name != "verl")
    bare = dataclasses.replace(stack, lock=dataclasses.replace(stack.lock, metadata=rows))
    assert "verl/pyproject.toml" not in lock_inputs.make(bare).files


@pytest.mark.parametrize("name", stacks.names())
def test_the_shipped_stacks_make_projects(name: str) -> None:
    inputs = lock_inputs.make(stacks.load(name))
    for text in inputs.files.values():
        tomllib.loads(text)


@pytest.mark.parametrize(
    ("marker", "left"),
    [
        ("", ""),
        ("platform_machine == 'x86_64' and sys_platform == 'linux'", ""),
        ("python_full_version < '3.11' and sys_platform == 'linux'", "python_full_version < '3.11'"),
        ("sys_platform == 'win32' and python_version < '3.11'", "sys_platform == 'win32' and python_version < '3.11'"),
        ("sys_platform == 'linux' or os_name == 'nt'", "sys_platform == 'linux' or os_name == 'nt'"),
    ],
)
def test_markers_lose_what_always_holds(marker: str, left: str) -> None:
    assert lock_resolve.narrow(marker) == left


def test_system_packages_have_a_version_or_a_snapshot() -> None:
    assert lock_files.apt(lock_cases.tiny()).splitlines()[1:] == [
        "debian-bookworm gcc=4:12.2.0-3",
        "# ubuntu-22.04: of the archive's snapshot 20250301T000000Z (build argument APT_SNAPSHOT)",
        "ubuntu-22.04 gcc",
    ]


def test_images_are_written_by_digest() -> None:
    found = tomllib.loads(lock_files.images(lock_cases.tiny()))
    assert found["images"][0]["digest"].startswith("sha256:622e78a1")
    assert set(found["images"][0]["platforms"]) == {"linux/amd64"}


def test_a_wheel_without_a_hash_is_refused_in_its_row() -> None:
    stack = lock_cases.tiny()
    row = tomllib.loads(lock_files.wheels(stack))["wheels"][0]
    assert row["refused"].endswith("nox -s lock -- --stack tiny --pin-url flash-attn")
    pinned = dataclasses.replace(stack.lock.wheels[0], sha256="f" * 64)
    known = dataclasses.replace(stack, lock=dataclasses.replace(stack.lock, wheels=(pinned,)))
    assert tomllib.loads(lock_files.wheels(known))["wheels"][0]["sha256"] == "f" * 64


def test_the_digest_of_the_inputs_follows_the_stack_file() -> None:
    stack = lock_cases.tiny()
    other = dataclasses.replace(stack, lock=dataclasses.replace(stack.lock, cutoff="2025-04-01"))
    assert lock_files.inputs_digest(stack) != lock_files.inputs_digest(other)
    titled = dataclasses.replace(stack, title="Another title")
    assert lock_files.inputs_digest(stack) == lock_files.inputs_digest(titled)


def test_source_faults_are_named(tmp_path: Path, resolved: Resolved) -> None:
    stack = lock_cases.tiny()
    path = lock_cases.lay(tmp_path, stack, resolved) / "sources.toml"
    assert lock_files.source_faults(stack, path) == []
    path.write_text(lock_cases.SOURCES.replace("333e6d62", "00000000").replace('name = "flash-attn"', 'name = "other"'))
    faults = " ".join(lock_files.source_faults(stack, path))
    assert "flash-attn is missing" in faults
    assert "other is not in the stack file" in faults
    assert "verl: commit is '00000000" in faults
    path.unlink()
    assert "sources.toml" in lock_files.source_faults(stack, path)[0]


def test_a_cutoff_that_an_index_may_still_fill_is_refused() -> None:
    now = dt.datetime(2026, 11, 24, 12, tzinfo=dt.timezone.utc)
    for final in ("2025-06-28", "2026-11-10", "2026-11-10T12:00:00Z"):
        lock_inputs.check_settled(final, where="stack tiny", now=now)
    for recent in ("2026-11-10T12:00:01Z", "2026-11-20", "2027-01-01"):
        with pytest.raises(WorkError, match=f"{recent} of stack tiny is less than 14 days old.* take 2026-11-10"):
            lock_inputs.check_settled(recent, where="stack tiny", now=now)


def test_locking_refuses_it_before_resolving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tomorrow = (dt.datetime.now(tz=dt.timezone.utc) + dt.timedelta(days=1)).date().isoformat()
    monkeypatch.setattr(lock_resolve, "resolve", lambda *_, **__: pytest.fail("it resolved"))
    path = tmp_path / "tiny.toml"
    path.write_text(lock_cases.STACK.replace("2025-03-01", tomorrow), encoding="utf-8")
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WorkError, match=tomorrow):
        lock.main(["--stack", str(path), "--root", str(tmp_path)])
    assert sorted(item.name for item in tmp_path.iterdir() if item.name != "cache") == ["tiny.toml"]
