"""Stack files load, validate and say what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from envcheck import data, stack
from envcheck.errors import DataError, EnvcheckError

NAMES = ("verl-lts-cu124", "verl-sglang-cu124")


@pytest.mark.parametrize("name", NAMES)
def test_shipped_stacks_load(name: str) -> None:
    loaded = stack.load(name)
    assert loaded.name == name
    assert {item.name for item in loaded.wanted("sglang", "megatron")} >= {
        "torch",
        "sglang",
        "transformer-engine",
        "verl",
    }
    assert not any(item.name == "sglang" for item in loaded.wanted("vllm", "fsdp"))


def test_names_lists_what_is_shipped() -> None:
    assert set(NAMES) <= set(stack.names())


def test_component_of_an_engine() -> None:
    seed = stack.load("verl-sglang-cu124")
    assert seed.component("torch", "vllm").version == "2.4.0"
    assert seed.component("torch", "sglang").version == "2.5.1"
    assert seed.has("apex")
    with pytest.raises(KeyError):
        seed.component("no-such")


def test_every_exception_has_reason_source_and_end() -> None:
    for name in NAMES:
        for item in stack.load(name).components:
            for accepted in item.accepts:
                assert accepted.reason
                assert accepted.source.startswith("https://")
                assert accepted.until


def test_unknown_stack_lists_nearest_first() -> None:
    with pytest.raises(EnvcheckError, match="take one of: verl-lts-cu124") as caught:
        stack.load("verl-lts-cu12")
    assert caught.value.exit_code == 2


def test_stack_file_by_path(tmp_path: Path) -> None:
    text = data.read("stacks/verl-lts-cu124.toml")
    path = tmp_path / "mine.toml"
    path.write_text(text.replace('name = "verl-lts-cu124"', 'name = "mine"'), encoding="utf-8")
    assert stack.load(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "key", "expected"),
    [
        pytest.param("version = 1\n", "version = 7\n", "version", "1", id="version"),
        pytest.param(
            'needs = ["torch"]', 'needs = ["tourch"]', "components[1] (torchvision).needs", "torch", id="need"
        ),
        pytest.param('engines = ["sglang"]\nneeds', 'engines = ["slang"]\nneeds', "engines", "sglang", id="engine"),
        pytest.param('[gcc]\nrequires = ">=9,<14"', "[gcc]\nrequire = 9", "gcc.require", "one of the keys", id="key"),
        pytest.param('title = "veRL', 'title = veRL"', "", "TOML", id="syntax"),
    ],
)
def test_error_names_file_key_and_expectation(old: str, new: str, key: str, expected: str) -> None:
    text = data.read("stacks/verl-lts-cu124.toml")
    assert old in text
    with pytest.raises(DataError) as caught:
        stack.parse(text.replace(old, new, 1), "bad.toml")
    assert "bad.toml" in str(caught.value)
    assert key in str(caught.value)
    assert expected in str(caught.value)


def test_git_origin_needs_a_commit() -> None:
    text = data.read("stacks/verl-sglang-cu124.toml")
    commit = 'commit = "333e6d624a11cd971b6e1ce32eb7d48fa36890fd"\n'
    with pytest.raises(DataError, match=r"origin\.commit"):
        stack.parse(text.replace(commit, ""), "bad.toml")
