from __future__ import annotations

import re
from pathlib import Path

import pytest

from envcheck.errors import DataError, EnvcheckError
from scripts import ppo_profiles
from scripts.ppo_profiles import Move, Override, fill, load, merged, moved, names, parse, parse_override

SEED_KEYS = [
    "actor_rollout_ref.rollout.name",
    "data.train_files",
    "data.val_files",
    "data.train_batch_size",
    "data.val_batch_size",
    "data.max_prompt_length",
    "data.max_response_length",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    "actor_rollout_ref.model.enable_gradient_checkpointing",
    "actor_rollout_ref.actor.fsdp_config.param_offload",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu",
    "actor_rollout_ref.rollout.tensor_model_parallel_size",
    "actor_rollout_ref.rollout.gpu_memory_utilization",
    "actor_rollout_ref.ref.log_prob_micro_batch_size",
    "actor_rollout_ref.ref.fsdp_config.param_offload",
    "critic.optim.lr",
    "critic.model.use_remove_padding",
    "critic.model.path",
    "critic.model.enable_gradient_checkpointing",
    "critic.ppo_micro_batch_size",
    "critic.model.fsdp_config.param_offload",
    "critic.model.fsdp_config.optimizer_offload",
    "algorithm.kl_ctrl.kl_coef",
    "trainer.critic_warmup",
    "trainer.logger",
    "trainer.val_before_train",
    "trainer.default_hdfs_dir",
    "trainer.n_gpus_per_node",
    "trainer.nnodes",
    "trainer.save_freq",
    "trainer.test_freq",
    "trainer.total_epochs",
]
VALUES = {"data": "/d", "model": "/m", "engine": "vllm", "engine_version": "0.7.2", "time": "now"}


def _text(name: str) -> str:
    return (ppo_profiles.DIRECTORY / f"{name}.toml").read_text(encoding="utf-8")


def test_shipped_profiles() -> None:
    assert names() == ["megatron", "one-gpu", "one-gpu-megatron", "parity-8gpu", "seed-4gpu"]
    for name in names():
        profile = load(name)
        assert profile.name == name
        assert profile.source.startswith("https://")
        assert profile.needs.reason
        keys = [parse_override(item).key for item in profile.overrides]
        assert len(keys) == len(set(keys)), "a key stands twice"


def test_seed_profile_has_the_keys_of_the_seed_in_its_order() -> None:
    assert [parse_override(item).key for item in load("seed-4gpu").overrides] == SEED_KEYS
    filled = {item.key: item for item in fill(load("seed-4gpu").overrides, VALUES)}
    assert str(filled["trainer.val_before_train"]) == "+trainer.val_before_train=False"
    assert str(filled["data.train_files"]) == "data.train_files=/d/gsm8k/train.parquet"
    assert filled["actor_rollout_ref.rollout.name"].value == "vllm"


def test_parity_profile_names_engine_and_version() -> None:
    filled = {item.key: item.value for item in fill(load("parity-8gpu").overrides, VALUES)}
    assert filled["trainer.experiment_name"] == "'qwen2-7b_vllm_0.7.2_function_rm_bsz8k_p4k_r4k_seq_packing-now'"
    assert filled["data.train_files"] == "['/d/gsm8k/train.parquet', '/d/math/train.parquet']"


def test_a_profile_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(_text("one-gpu").replace('"one-gpu"', '"mine"'), encoding="utf-8")
    assert load(str(path)).name == "mine"


def test_unknown_profile_names_the_others() -> None:
    with pytest.raises(EnvcheckError, match="take one of one-gpu, "):
        load("one_gpu")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        pytest.param(("version = 1", "version = 2"), "version: expected 1", id="version"),
        pytest.param(('"trainer.nnodes=1"', '"trainer.nnodes"'), "expected key=value", id="no-value"),
        pytest.param(("{engine}", "{motor}"), "expected one of data, model", id="placeholder"),
        pytest.param(("timeout_seconds = 1200", "timeout = 1200"), "timeout", id="unknown-key"),
    ],
)
def test_invalid_profiles(change: tuple[str, str], word: str) -> None:
    with pytest.raises(DataError, match=re.escape(word)):
        parse(_text("one-gpu").replace(*change), "one-gpu.toml")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("a.b=1", ("", "a.b", "1"), id="plain"),
        pytest.param("+a.b=x=y", ("+", "a.b", "x=y"), id="add"),
        pytest.param("++a=['b, c']", ("++", "a", "['b, c']"), id="force"),
        pytest.param("~a.b", ("~", "a.b", ""), id="delete"),
        pytest.param("a=", ("", "a", ""), id="empty"),
    ],
)
def test_parse_override(text: str, parts: tuple[str, str, str]) -> None:
    found = parse_override(text)
    assert (found.operator, found.key, found.value) == parts
    assert str(found) == text


@pytest.mark.parametrize("text", ["a.b", "", "=1", "a b=1", "--steps"])
def test_not_an_override(text: str) -> None:
    with pytest.raises(EnvcheckError, match="is not an override"):
        parse_override(text)


def test_interpolations_are_left_alone() -> None:
    (item,) = fill(["a=${trainer.nnodes}-{engine}"], VALUES)
    assert item.value == "${trainer.nnodes}-vllm"


def test_given_overrides_take_the_place_of_the_profiles() -> None:
    base = [parse_override(text) for text in ("a=1", "+b=2")]
    assert [str(item) for item in merged(base, [parse_override("b=3")])] == ["a=1", "b=3"]


def _moved(texts: list[str], verl: str) -> tuple[list[str], str]:
    result, said = moved([parse_override(text) for text in texts], verl)
    return [str(item) for item in result], "\n".join(said)


@pytest.mark.parametrize(
    ("verl", "texts", "after"),
    [
        pytest.param("0.2.0.dev0", ["+trainer.val_before_train=False"], ["+trainer.val_before_train=False"], id="seed"),
        pytest.param(
            "0.4.1", ["+trainer.val_before_train=False"], ["trainer.val_before_train=False"], id="plus-dropped"
        ),
        pytest.param(
            "0.4.1",
            ["algorithm.kl_ctrl.kl_coef=0.001"],
            ["algorithm.kl_ctrl.kl_coef=0.001", "algorithm.use_kl_in_reward=True"],
            id="needs",
        ),
        pytest.param(
            "0.4.1",
            ["algorithm.kl_ctrl.kl_coef=0.001", "algorithm.use_kl_in_reward=False"],
            ["algorithm.kl_ctrl.kl_coef=0.001", "algorithm.use_kl_in_reward=False"],
            id="needs-but-set",
        ),
        pytest.param("0.4.0", ["trainer.remove_previous_ckpt_in_save=True"], [], id="removed"),
        pytest.param(
            "0.4.1",
            ["trainer.val_generations_to_log_to_wandb=3"],
            ["trainer.log_val_generations=3"],
            id="renamed",
        ),
        pytest.param(
            "0.9.1",
            ["critic.model.fsdp_config.param_offload=True"],
            ["critic.fsdp.param_offload=True"],
            id="critic-fsdp",
        ),
        pytest.param("0.4.1", ["data.val_batch_size=1312"], ["data.val_batch_size=1312"], id="deprecated"),
    ],
)
def test_moved_keys(verl: str, texts: list[str], after: list[str]) -> None:
    result, said = _moved(texts, verl)
    assert result == after
    if result != texts or "deprecated" in said or texts[0].startswith("data.val"):
        assert parse_override(texts[0]).key in said


def test_every_kind_is_in_the_table_and_every_row_has_a_source() -> None:
    rows = ppo_profiles.moves()
    assert {row.kind for row in rows} == {"plain", "renamed", "removed", "needs", "deprecated", "note"}
    assert all(row.source.startswith("https://github.com/") and row.reason for row in rows)
    assert all(row.to for row in rows if row.kind in {"renamed", "needs"})


def test_a_key_without_plus_needs_no_word() -> None:
    row = Move(key="a", verl=">=1", kind="plain", reason="r", source="s")
    assert moved([Override(operator="", key="a", value="1")], "1.0", [row])[1] == ()
