"""What goes into an environment: pins that apply, wheels beside the lock, nothing that was edited."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from envcheck import choices
from envcheck import stack as stacks
from envcheck.errors import DataError, WorkError
from scripts import env_plan
from scripts.env_plan import Selection
from scripts.lock_resolve import Resolved
from tests import lock_cases
from tests.lock_cases import resolved

__all__ = ["resolved"]


def wanted(version: str = "3.11.7", *, trainer: str = "fsdp") -> Selection:
    return Selection(stack=lock_cases.tiny(), engine="sglang", trainer=trainer, version=version)


def house(
    root: Path, component: str, file: str, *, torch: str = "", version: str = "0.2.0.dev0", content: bytes = b"w"
) -> Path:
    place = root / "wheels" / hashlib.sha256(file.encode()).hexdigest()
    place.mkdir(parents=True)
    (place / file).write_bytes(content)
    receipt = {
        "inputs": {"component": component, "version": version, "torch": torch},
        "wheel": {"file": file, "sha256": hashlib.sha256(b"w").hexdigest(), "size": 1},
        "finished": file,
    }
    (place / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    return root


def test_markers_and_trainers_choose_the_pins(tmp_path: Path, resolved: Resolved) -> None:
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    plan = env_plan.make(wanted(), wheelhouse=tmp_path / "none", root=tmp_path)
    assert {pin.name for pin in plan.pins} == {"helper", "kernel", "purelib", "sglang", "torch"}
    assert plan.sdists == ("purelib",)
    assert plan.missing == ("flash-attn", "verl")
    older = env_plan.make(wanted("3.10.1", trainer="megatron"), wheelhouse=tmp_path / "none", root=tmp_path)
    assert {"backport", "megatron-core"} < {pin.name for pin in older.pins}
    assert plan.digest("x") != older.digest("x")
    assert plan.digest("x") != plan.digest("y")


def test_a_wheel_of_the_wheelhouse_must_fit_python_and_torch(tmp_path: Path, resolved: Resolved) -> None:
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    place = tmp_path / "house"
    house(place, "verl", "verl-0.2.0.dev0-py3-none-any.whl")
    house(place, "flash-attn", "flash_attn-2.7.4-cp311-cp311-linux_x86_64.whl", torch="2.4.0+cu121", version="2.7.4")
    house(place, "flash-attn", "flash_attn-2.7.4-cp310-cp310-linux_x86_64.whl", torch="2.5.1+cu124", version="2.7.4")
    plan = env_plan.make(wanted(), wheelhouse=place, root=tmp_path)
    assert [extra.component for extra in plan.extras] == ["verl"]
    house(place, "flash-attn", "flash_attn-2.7.4-1-cp311-cp311-linux_x86_64.whl", torch="2.5.1+cu124", version="2.7.4")
    plan = env_plan.make(wanted(), wheelhouse=place, root=tmp_path)
    assert [extra.component for extra in plan.extras] == ["flash-attn", "verl"]
    assert plan.missing == ()


def test_a_tampered_wheel_of_the_wheelhouse_is_refused(tmp_path: Path, resolved: Resolved) -> None:
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    place = house(tmp_path / "house", "verl", "verl-0.2.0.dev0-py3-none-any.whl", content=b"x")
    with pytest.raises(WorkError, match=r"receipt says .* it was changed; it was refused"):
        env_plan.make(wanted(), wheelhouse=place, root=tmp_path)


def test_a_release_wheel_is_taken_only_with_a_hash_and_for_its_python(tmp_path: Path, resolved: Resolved) -> None:
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    stack = lock_cases.tiny()
    row = dataclasses.replace(stack.lock.wheels[0], sha256="f" * 64)
    known = dataclasses.replace(stack, lock=dataclasses.replace(stack.lock, wheels=(row,)))
    item = stack.component("flash-attn")
    assert env_plan.release(stack, item, "3.11.7") is None
    found = env_plan.release(known, item, "3.11.7")
    assert found is not None
    assert (found.sha256, found.url) == ("f" * 64, row.url)
    assert env_plan.release(known, item, "3.10.7") is None


def test_a_lock_that_was_edited_or_is_absent_is_refused(tmp_path: Path, resolved: Resolved) -> None:
    place = lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    path = place / "requirements-sglang.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("2" * 64, "8" * 64), encoding="utf-8")
    with pytest.raises(DataError, match="a lock that was edited") as caught:
        env_plan.make(wanted(), wheelhouse=tmp_path / "none", root=tmp_path)
    assert "nox -s lock_check names the line" in caught.value.fix
    path.unlink()
    with pytest.raises(DataError, match="expected a lock"):
        env_plan.make(wanted(), wheelhouse=tmp_path / "none", root=tmp_path)


@pytest.mark.parametrize(
    ("file", "fit"),
    [
        ("x-1-py3-none-any.whl", True),
        ("x-1-cp38-abi3-manylinux1_x86_64.whl", True),
        ("x-1-cp311-cp311-linux_x86_64.whl", True),
        ("x-1-cp312-cp312-linux_x86_64.whl", False),
        ("x-1-py3-none-win_amd64.whl", False),
        ("nonsense.whl", False),
    ],
)
def test_wheel_names_fit_or_not(file: str, fit: bool) -> None:
    assert env_plan.fits(file, "3.11.7") is fit


def test_the_command_that_builds_a_component_names_a_session_that_is_there() -> None:
    stack, options = stacks.load("verl-sglang-cu124"), "--stack verl-sglang-cu124 --engine sglang"
    assert choices.command(stack, "sglang", "transformer-engine") == f"nox -s build-te -- {options}"
    assert choices.command(stack, "sglang", "verl") == f"nox -s build-verl -- {options}"
