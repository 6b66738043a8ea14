from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envcheck.errors import EnvcheckError, HostError, WorkError
from scripts import ppo_child, ppo_compose, process
from scripts.ppo_compose import Composed, as_override, data_faults, key_faults, nearest
from scripts.ppo_plan import Request, plan
from scripts.ppo_profiles import names, parse_override
from tests.ppo_cases import composed, installed
from tests.verl_environments import VERL_PYTHONS

BASE = installed().base
TYPES = {
    "prompt": "list<element: struct<role: string>>",
    "data_source": "string",
    "reward_model": "struct<style: string>",
}


def _faults(text: str, kind: str = "int", value: object = 1) -> list[str]:
    return list(key_faults([parse_override(text)], [{"type": kind, "value": value}], BASE))


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        pytest.param("data.train_batch_size=8", "int", 8, id="int"),
        pytest.param("actor_rollout_ref.actor.optim.lr=1", "int", 1, id="int-for-float"),
        pytest.param("data.val_batch_size=8", "int", 8, id="none-takes-all"),
        pytest.param("data.train_batch_size=null", "NoneType", None, id="none-fits"),
        pytest.param("data.train_files=[a]", "list", ["a"], id="list-for-text"),
        pytest.param("trainer.logger=console", "str", "console", id="name-for-list"),
        pytest.param("data.train_batch_size=${trainer.nnodes}", "str", "${trainer.nnodes}", id="interpolation"),
        pytest.param("actor_rollout_ref.model.override_config={a:1}", "dict", {"a": 1}, id="table"),
        pytest.param("+data.seed=1", "int", 1, id="added"),
        pytest.param("++data.shuffle=False", "bool", False, id="forced"),
        pytest.param("~data.shuffle", "NoneType", None, id="deleted"),
        pytest.param("+actor_rollout_ref.model.override_config.x.y=1", "int", 1, id="added-below-a-table"),
    ],
)
def test_right_overrides(text: str, kind: str, value: object) -> None:
    assert _faults(text, kind, value) == []


@pytest.mark.parametrize(
    ("text", "kind", "value", "word"),
    [
        pytest.param("data.train_batchsize=8", "int", 8, "nearest: data.train_batch_size", id="nearest"),
        pytest.param("lr=1", "int", 1, "nearest: actor_rollout_ref.actor.optim.lr", id="same-last-part"),
        pytest.param("zzz=1", "int", 1, "no such key; +zzz would add it", id="nothing-near"),
        pytest.param("~data.shufle", "NoneType", None, "no such key (nearest: data.shuffle)", id="delete-unknown"),
        pytest.param("+data.shuffle=True", "bool", True, "in the config already", id="plus-known"),
        pytest.param("+data.shuffle.x=True", "bool", True, "needs a table", id="below-a-value"),
        pytest.param("data.train_batch_size=many", "str", "many", "a number (int)", id="text-for-int"),
        pytest.param("data.train_batch_size=1.5", "float", 1.5, "a number (int)", id="float-for-int"),
        pytest.param("data.shuffle=1", "int", 1, "true or false", id="int-for-bool"),
        pytest.param("trainer.logger=1", "int", 1, "a list", id="int-for-list"),
        pytest.param("data=1", "int", 1, "a table", id="int-for-table"),
    ],
)
def test_wrong_overrides(text: str, kind: str, value: object, word: str) -> None:
    (fault,) = _faults(text, kind, value)
    assert fault.startswith(f"{text}: ")
    assert word in fault


def test_unreadable_override() -> None:
    (fault,) = key_faults([parse_override("a=[1")], [{"error": "mismatched input"}], BASE)
    assert fault == "a=[1: hydra cannot read it: mismatched input"


def test_nearest_orders_by_likeness() -> None:
    found = nearest("critic.ppo_micro_batch_size_per_gp", BASE)
    assert found.startswith(" (nearest: critic.ppo_micro_batch_size_per_gpu")


def test_get() -> None:
    assert composed().get("trainer.nnodes") == 1
    assert composed().get("trainer.nnodes.x", 7) == 7
    assert composed().get("nothing") is None


def test_as_override_adds_plus_where_the_key_is_new() -> None:
    assert str(as_override("data.seed", "1", installed())) == "+data.seed=1"
    assert str(as_override("data.shuffle", "1", installed())) == "data.shuffle=1"


def test_columns_of_other_types(tmp_path: Path) -> None:
    path = tmp_path / "flat.parquet"
    path.write_bytes(b"PAR1")
    config = composed(data__train_files=str(path)).config
    for types, word in ((TYPES | {"prompt": "string"}, "prompt (string)"), (TYPES | {"prompt": "large_list<x>"}, "")):
        seen = {str(path): {"rows": 300, "columns": list(types), "types": types}}
        said = [text for text, _ in data_faults(Composed(config=config, parquet=seen))]
        assert said == ([f"{path} has columns of other types than verl unpacks: {word}"] if word else [])


def test_data_faults(tmp_path: Path) -> None:
    names_ = {name: tmp_path / f"{name}.parquet" for name in ("whole", "cut", "other", "missing")}
    for name in ("whole", "cut", "other"):
        names_[name].write_bytes(b"PAR1")
    config = composed(data__train_files=[str(names_["whole"])], data__val_files=str(names_["cut"])).config
    seen: dict[str, dict[str, Any]] = {
        str(names_["whole"]): {"rows": 20, "columns": [*TYPES, "ability"], "types": TYPES},
        str(names_["cut"]): {"error": "ArrowInvalid: magic bytes not found"},
        str(names_["other"]): {"rows": 3, "columns": ["question", "answer"]},
        str(names_["missing"]): {"error": "FileNotFoundError"},
    }
    said = [text for text, _ in data_faults(Composed(config=config, parquet=seen))]
    assert said == [
        f"{names_['cut']} (4 bytes) is not a whole parquet file: ArrowInvalid: magic bytes not found",
        f"{names_['other']} has no column prompt, data_source, reward_model (it has question, answer)",
        f"{names_['missing']} is missing",
        "20 rows are less than one batch of 64: no step would be made",
    ]
    assert ppo_compose.files_of(Composed(config=config)) == [str(names_["whole"]), str(names_["cut"])]


@pytest.mark.parametrize(
    ("epochs", "steps", "word"),
    [
        pytest.param(3, 12, None, id="enough"),
        pytest.param(2, None, None, id="by-epochs"),
        pytest.param(2, 12, "2 epochs of 4 batches make 8 steps, not the 12 asked for", id="too-few"),
    ],
)
def test_epochs_hold_the_steps(tmp_path: Path, epochs: int, steps: int | None, word: str | None) -> None:
    path = tmp_path / "whole.parquet"
    path.write_bytes(b"PAR1")
    changes = {"data__train_files": str(path), "trainer__total_epochs": epochs, "trainer__total_training_steps": steps}
    seen = {str(path): {"rows": 300, "columns": list(TYPES), "types": TYPES}}
    found = list(data_faults(Composed(config=composed(**changes).config, parquet=seen)))
    assert found == ([(word, "trainer.total_epochs=3")] if word else [])


def _reply(monkeypatch: pytest.MonkeyPatch, **reply: Any) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = []

    def output(argv: Sequence[str], **_: Any) -> str:
        requests.append(json.loads(argv[2]))
        return "a warning\n" + json.dumps({"python": "3.12.3", "versions": {"verl": "0.4.1"}} | reply)

    monkeypatch.setattr(process, "output", output)
    return requests


def test_interpreter_without_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    _reply(monkeypatch, versions={}, error="ModuleNotFoundError: verl")
    with pytest.raises(HostError, match="/t/python has no verl"):
        ppo_compose.installed("/t/python", "ppo_trainer")


def test_config_that_hydra_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    _reply(monkeypatch, error="MissingConfigException: no ppo_x")
    with pytest.raises(WorkError, match=r"verl 0\.4\.1 does not take this config: MissingConfigException"):
        ppo_compose.installed("/t/python", "ppo_x")


def test_compose_names_all_faults_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _reply(monkeypatch, parsed=[{"type": "int", "value": 1}] * 2, base=BASE, directory="/v")
    wrong = [parse_override("data.x=1"), parse_override("data.y=1")]
    with pytest.raises(EnvcheckError, match=r"take 2 of the overrides:\n  data\.x=1: no such key(.|\n)*data\.y"):
        ppo_compose.compose("/t/python", "ppo_trainer", wrong, installed())


def test_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = _reply(monkeypatch, parsed=[{"type": "int", "value": 1}], base=BASE, directory="/v", composed={"a": 1})
    found = ppo_compose.installed("/t/python", "ppo_trainer")
    result = ppo_compose.compose("/t/python", "ppo_trainer", [parse_override("data.train_batch_size=1")], found)
    assert result.config == {"a": 1}
    assert [request["compose"] for request in requests] == [False, False, True]


def test_child_parts_that_need_no_verl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ppo_child.flat({"a": {"b": 1, "c": {}}}) == {
        "a": {"table": True},
        "a.b": {"type": "int"},
        "a.c": {"table": True},
    }
    missing = str(tmp_path / "no")
    reply = ppo_child.answer({"config": "ppo_trainer", "overrides": [], "parquet": [missing], "compose": False})
    assert reply["error"] == "ModuleNotFoundError: verl is not installed"
    assert "error" in reply["parquet"][missing]
    package = tmp_path / "verl"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('verl must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ppo_child.config_directory() == str(package / "trainer/config")
    assert "verl" not in sys.modules


REFUSED = {
    ("0.9.1", "seed-4gpu"): "critic.ppo_micro_batch_size and .* exclude each other",
    ("0.2.0.post2", "megatron"): "data.filter_overlong_prompts=True: no such key",
}
"""Versions outside the stacks that rightly refuse a profile."""


@pytest.mark.process
@pytest.mark.parametrize("python", VERL_PYTHONS)
@pytest.mark.parametrize("profile", names())
def test_profiles_compose_with_the_installed_verl(python: str, profile: str) -> None:
    found = ppo_compose.installed(python, "ppo_trainer")
    if (found.verl, profile) in REFUSED:
        with pytest.raises(EnvcheckError, match=REFUSED[found.verl, profile]):
            plan(Request(profile=profile, python=python, data="/d"))
        return
    for engine in ("sglang", "vllm"):
        ready = plan(Request(profile=profile, python=python, data="/d", engine=engine, seed=7, steps=5), {})
        assert ready.composed.get("actor_rollout_ref.rollout.name") == engine
        assert ready.composed.get("trainer.val_before_train") is False
        assert ready.composed.get("trainer.total_training_steps") == 5
        assert ready.composed.get("data.seed") == 7
        assert ready.composed.get("trainer.logger") == ["console"]
        assert ready.argv[:3] == (python, "-m", "verl.trainer.main_ppo")


@pytest.mark.process
@pytest.mark.parametrize("python", VERL_PYTHONS)
def test_wrong_keys_against_the_installed_verl(python: str) -> None:
    overrides = ("data.train_batchsize=3", "trainer.nnodes=two", "trainer.logger=[a")
    with pytest.raises(EnvcheckError, match=r"data\.train_batch_size(.|\n)*a number(.|\n)*hydra cannot read"):
        plan(Request(profile="one-gpu", python=python, data="/d", overrides=overrides))


@pytest.mark.process
@pytest.mark.parametrize("python", VERL_PYTHONS)
def test_parquet_is_looked_at_by_the_target(python: str, tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    paths = [str(tmp_path / "cut.parquet"), str(tmp_path / "no.parquet")]
    reply = ppo_compose.ask(python, "ppo_trainer", parquet=paths)["parquet"]
    assert "ArrowInvalid" in reply[paths[0]]["error"]
    assert "FileNotFoundError" in reply[paths[1]]["error"]


FITS = "assert kind == 'parquet' and data_files and cache_dir\n"
MISFIT = "raise NotImplementedError('Loading a dataset cached in a LocalFileSystem is not supported.\\nsecond line')\n"


@pytest.mark.parametrize(
    ("reader", "package", "why"),
    [
        pytest.param("pd.read_parquet(path)", MISFIT, None, id="pandas-reads-it"),
        pytest.param("datasets.load_dataset(path)", FITS, None, id="fits"),
        pytest.param(
            "datasets.load_dataset(path)", MISFIT, "NotImplementedError: Loading a dataset", id="does-not-fit"
        ),
    ],
)
def test_a_file_is_loaded_as_verl_loads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: str, package: str, why: str | None
) -> None:
    place = tmp_path / "verl/utils/dataset"
    place.mkdir(parents=True)
    (place / "rl_dataset.py").write_text(reader)
    (tmp_path / "verl/__init__.py").touch()
    (tmp_path / "verl/trainer/config").mkdir(parents=True)
    (tmp_path / "datasets.py").write_text(f"def load_dataset(kind, *, data_files, cache_dir):\n    {package}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    found = ppo_child.unloadable("/d/train.parquet")
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    if why is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(why)
        assert "second line" not in found
