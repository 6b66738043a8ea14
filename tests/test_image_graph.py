"""The Dockerfile's graph: what a change makes anew, read from its FROM, COPY --from and RUN --mount lines."""

from __future__ import annotations

import os
import re

import pytest

from scripts.cache import ROOT

TEXT = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
CONTEXT_BYTES = 5_000_000
COMPILERS = {f"wheel-{name}" for name in ("torch-memory-saver", "flashinfer", "flash-attn", "transformer-engine")}


def stages() -> dict[str, str]:
    """Stage -> its text, ARG defaults filled in."""
    defaults = dict(re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', TEXT.partition("\nFROM ")[0], re.MULTILINE))
    parts = re.split(r"^(?=FROM )", TEXT, flags=re.MULTILINE)[1:]
    filled = [re.sub(r"\$\{(\w+)\}", lambda found: defaults.get(found[1], found[0]), part, count=1) for part in parts]
    return {part.split()[3]: part for part in filled}


def reads(name: str) -> set[str]:
    """Stages that one stage is made from, itself left out."""
    text = stages()[name]
    found = {text.split()[1], *re.findall(r"from=([\w-]+)", text)}
    return found & set(stages())


def closure(name: str) -> set[str]:
    """All stages that one stage is made from."""
    out: set[str] = set()
    left = [name]
    while left:
        for item in reads(left.pop()) - out:
            out.add(item)
            left.append(item)
    return out


def test_only_the_last_stage_reads_verl() -> None:
    assert {name for name in stages() if "wheel-verl" in reads(name)} == {"train"}


@pytest.mark.parametrize("name", ["base", "toolchain", "slim", "jit", "runtime", "locked"])
def test_no_heavy_layer_depends_on_the_project_s_code(name: str) -> None:
    assert not {"source", "wheel-verl", "pyz", "wheelhouse"} & closure(name)


def test_the_system_s_layers_do_not_depend_on_the_python_lock() -> None:
    assert not {name for name in ("base", "toolchain", "slim", "jit", "runtime") if "lock" in closure(name)}
    assert {"lock"} <= reads("locked")


def test_wheel_stages_run_side_by_side() -> None:
    every = {name for name in stages() if name.startswith("wheel-")}
    assert every > COMPILERS
    for name in every:
        assert not every & closure(name), name


def test_the_doctor_s_image_holds_no_toolkit_and_no_lock() -> None:
    assert "COPY --from=pyz" in stages()["doctor"]
    assert not {"locked", "runtime", "builder"} & closure("doctor")


def test_asking_the_environment_leaves_no_bytecode() -> None:
    """A .pyc holds the time of its source: two builds would differ."""
    asking = [line for line in stages()["train"].splitlines() if "/opt/venv/bin/python" in line]
    assert asking
    assert all("export PYTHONDONTWRITEBYTECODE=1 &&" in line for line in asking)


def test_the_loader_s_cache_is_written_after_the_lock_is_installed() -> None:
    assert "sh /run/link-libraries /opt/venv" in stages()["compiled"]
    assert "locked" in reads("compiled")


def test_one_stage_at_a_time_fills_uv_s_cache() -> None:
    mounts = re.findall(r"target=/run/uv-cache\S*", TEXT)
    assert len(mounts) == 2
    assert set(mounts) == {"target=/run/uv-cache,sharing=locked"}


def test_the_context_is_small() -> None:
    """What .dockerignore lets through is under 5 MB."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line[1:] for line in lines if line.startswith("!")]
    assert "**" in lines
    size = 0
    for name in allowed:
        for place, folders, names in os.walk(ROOT / name):
            folders[:] = [folder for folder in folders if folder != "__pycache__"]
            size += sum(os.path.getsize(os.path.join(place, item)) for item in names)
    assert 100_000 < size < CONTEXT_BYTES
