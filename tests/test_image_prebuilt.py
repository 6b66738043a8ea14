"""An injected wheelhouse: taken, not concerned, or refused with what differs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from envcheck.errors import EnvcheckError
from scripts import build_context, build_key, image_prebuilt, wheelhouse_store
from scripts.build_key import Inputs
from scripts.wheelhouse_store import Entry
from tests.build_cases import context


def entry(inputs: Inputs) -> Entry:
    document = asdict(inputs)
    document["archs"] = list(inputs.archs)
    return Entry(key=inputs.key, wheel=Path(f"/prebuilt/{inputs.component}.whl"), receipt={"inputs": document})


@pytest.fixture
def wanted() -> Inputs:
    return build_key.inputs(context("flash-attn"))


def test_a_wheel_of_these_inputs_or_of_another_component_is_no_objection(wanted: Inputs) -> None:
    other = replace(wanted, component="apex", python="cp39")
    image_prebuilt.check(wanted, [])
    image_prebuilt.check(wanted, [entry(other)])
    image_prebuilt.check(wanted, [entry(replace(wanted, python="cp39")), entry(wanted)])


def test_wheels_of_other_inputs_are_refused_and_told_apart(wanted: Inputs) -> None:
    there = replace(wanted, python="cp39", archs=("8.0",))
    with pytest.raises(EnvcheckError) as caught:
        image_prebuilt.check(wanted, [entry(there)])
    assert f"python cp39, wanted {wanted.python}" in caught.value.what
    assert f"archs ['8.0'], wanted {list(wanted.archs)}" in caught.value.what
    assert "torch" not in caught.value.what.partition("\n")[2]
    assert "--compile flash-attn" in caught.value.fix


@pytest.mark.parametrize(("name", "refused"), [("flash-attn", True), ("flashinfer", False)])
def test_only_what_a_compiler_makes_is_refused(name: str, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    it = context(name)
    stale = entry(replace(build_key.inputs(it), python="cp39"))
    monkeypatch.setattr(build_context, "context", lambda *_: it)
    monkeypatch.setattr(wheelhouse_store, "entries", lambda _: iter([stale]))
    line = [name, "--pull", "/prebuilt"]
    if refused:
        with pytest.raises(EnvcheckError, match="not for this image"):
            image_prebuilt.main(line)
    else:
        assert image_prebuilt.main(line) == 0


def test_what_the_lock_takes_as_a_wheel_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise build_context.NothingToBuildError("comes as a wheel of the lock", fix="")

    monkeypatch.setattr(build_context, "context", nothing)
    assert image_prebuilt.main(["sgl-kernel", "--pull", "/nowhere"]) == 0
