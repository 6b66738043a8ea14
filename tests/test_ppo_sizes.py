from __future__ import annotations

from typing import Any

import pytest

from scripts.ppo_sizes import faults
from tests.ppo_cases import composed


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        pytest.param(
            {"actor_rollout_ref__rollout__tensor_model_parallel_size": 2}, "needs 2 GPUs, the run has 1", id="tp"
        ),
        pytest.param(
            {"actor_rollout_ref__rollout__tensor_model_parallel_size": 2, "trainer__n_gpus_per_node": 3},
            "3 GPUs cannot be divided into groups of 2",
            id="tp-groups",
        ),
        pytest.param({"trainer__n_gpus_per_node": 3}, "64 responses cannot be divided by 3", id="batch"),
        pytest.param(
            {"actor_rollout_ref__actor__ppo_mini_batch_size": 128},
            "128 is larger than data.train_batch_size 64",
            id="mini",
        ),
        pytest.param({"actor_rollout_ref__actor__ppo_micro_batch_size_per_gpu": 5}, "micro batch of 5", id="micro"),
        pytest.param({"critic__ppo_micro_batch_size": 16}, "exclude each other", id="both-sizes"),
        pytest.param(
            {"critic__ppo_micro_batch_size_per_gpu": None},
            "critic.ppo_micro_batch_size_per_gpu is not set",
            id="no-size",
        ),
        pytest.param(
            {
                "actor_rollout_ref__ref__log_prob_micro_batch_size_per_gpu": None,
                "algorithm__use_kl_in_reward": False,
                "actor_rollout_ref__actor__use_kl_loss": True,
            },
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu is not set",
            id="no-size-for-the-reference",
        ),
        pytest.param({"critic__ppo_mini_batch_size": 4096}, "critic.ppo_mini_batch_size 4096 is larger", id="critic"),
        pytest.param(
            {"trainer__n_gpus_per_node": 64, "trainer__nnodes": 1},
            "leaves none of its samples for each of 64 ranks",
            id="mini-of-none",
        ),
        pytest.param(
            {"critic__ppo_mini_batch_size": 32, "critic__ppo_micro_batch_size": 12},
            "32 cannot be divided by ppo_micro_batch_size 12",
            id="all-ranks",
        ),
        pytest.param(
            {"critic__ppo_mini_batch_size": 32, "critic__ppo_micro_batch_size": 1, "trainer__n_gpus_per_node": 2},
            "is less than one sample for each of 2 GPUs",
            id="all-ranks-too-few",
        ),
        pytest.param(
            {
                "actor_rollout_ref__actor__ulysses_sequence_parallel_size": 2,
                "actor_rollout_ref__model__use_remove_padding": False,
            },
            "needs actor_rollout_ref.model.use_remove_padding=True",
            id="sequence-parallel",
        ),
        pytest.param(
            {
                "actor_rollout_ref__actor__strategy": "megatron",
                "actor_rollout_ref__actor__use_dynamic_bsz": True,
                "actor_rollout_ref__actor__ppo_micro_batch_size_per_gpu": None,
            },
            "actor.ppo_micro_batch_size_per_gpu is not set",
            id="megatron-dynamic",
        ),
        pytest.param(
            {
                "actor_rollout_ref__actor__strategy": "megatron",
                "trainer__n_gpus_per_node": 8,
                "data__train_batch_size": 40,
            },
            "64 (8 replicas of the model x a micro batch of 8)",
            id="megatron-batch",
        ),
        pytest.param(
            {
                "actor_rollout_ref__actor__strategy": "megatron",
                "actor_rollout_ref__actor__megatron": {
                    "tensor_model_parallel_size": 2,
                    "pipeline_model_parallel_size": 2,
                },
            },
            "tensor 2 x pipeline 2",
            id="megatron",
        ),
    ],
)
def test_contradictions(changes: dict[str, Any], word: str) -> None:
    assert any(word in fault for fault in faults(composed(**changes))), list(faults(composed(**changes)))


def test_a_right_config_has_no_faults() -> None:
    assert list(faults(composed())) == []
    assert list(faults(composed(actor_rollout_ref__actor__use_dynamic_bsz=True, data__train_batch_size=1))) == []


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(
            {"critic__ppo_micro_batch_size_per_gpu": None, "algorithm__adv_estimator": "grpo"}, id="no-critic"
        ),
        pytest.param(
            {
                "actor_rollout_ref__ref__log_prob_micro_batch_size_per_gpu": None,
                "algorithm__use_kl_in_reward": False,
            },
            id="no-reference",
        ),
        pytest.param(
            {"trainer__n_gpus_per_node": 0, "actor_rollout_ref__rollout__tensor_model_parallel_size": 1}, id="0"
        ),
    ],
)
def test_what_is_not_used_is_not_asked_for(changes: dict[str, Any]) -> None:
    assert [fault for fault in faults(composed(**changes)) if "needs 1 GPUs" not in fault] == []
