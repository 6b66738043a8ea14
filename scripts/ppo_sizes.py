"""Check a composed config against itself: the sizes that verl's trainer and workers assert, most only after minutes."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.ppo_compose import Composed

ACTOR = "actor_rollout_ref.actor"
ROLLOUT = "actor_rollout_ref.rollout"
MICRO_BATCHES = (
    (ACTOR, "ppo_micro_batch_size"),
    ("actor_rollout_ref.ref", "log_prob_micro_batch_size"),
    (ROLLOUT, "log_prob_micro_batch_size"),
    ("critic", "ppo_micro_batch_size"),
)


def faults(config: Composed) -> Iterator[str]:
    """Say where a config contradicts itself, as verl's own trainer would only after its start."""
    gpus = int(config.get("trainer.n_gpus_per_node", 0)) * int(config.get("trainer.nnodes", 1))
    yield from _parallel_faults(config, gpus)
    yield from _train_batch_faults(config, gpus)
    yield from _mini_batch_faults(config, ACTOR, gpus, int(config.get(f"{ROLLOUT}.n", 1)))
    if has_critic(config):
        yield from _mini_batch_faults(config, "critic", gpus, int(config.get(f"{ROLLOUT}.n", 1)))
    for place, name in MICRO_BATCHES:
        yield from _micro_batch_faults(config, place, name)
    for place, model in ((ACTOR, "actor_rollout_ref.model"), ("critic", "critic.model")):
        if _sequence(config, place) > 1 and config.get(f"{model}.use_remove_padding") is False:
            yield f"{place}.ulysses_sequence_parallel_size needs {model}.use_remove_padding=True"


def has_critic(config: Composed) -> bool:
    """Tell whether this run trains a critic: only generalised advantages need one."""
    return bool(config.get("algorithm.adv_estimator", "gae") == "gae")


def _has_reference(config: Composed) -> bool:
    """Tell whether this run has a reference policy: verl before 0.4 always, since then where a KL term asks for it."""
    asked = config.get("algorithm.use_kl_in_reward")
    return asked is None or bool(asked) or bool(config.get(f"{ACTOR}.use_kl_loss"))


def _parallel_faults(config: Composed, gpus: int) -> Iterator[str]:
    tensor = int(config.get(f"{ROLLOUT}.tensor_model_parallel_size", 1))
    if tensor > gpus:
        yield f"the engine's tensor parallelism of {tensor} needs {tensor} GPUs, the run has {gpus}"
    elif gpus % tensor:
        yield f"{gpus} GPUs cannot be divided into groups of {tensor} (the engine's tensor parallelism)"
    if not _megatron(config):
        return
    for place in (ACTOR, "critic"):
        kinds = {kind: _parts(config, place, kind) for kind in ("tensor_model", "pipeline_model", "context")}
        if gpus % _group(config, place):
            listed = " x ".join(f"{kind.partition('_')[0]} {size}" for kind, size in kinds.items())
            yield f"{place}.megatron: {gpus} GPUs cannot be divided into {listed}"


def _megatron(config: Composed) -> bool:
    return bool(config.get(f"{ACTOR}.strategy") == "megatron")


def _parts(config: Composed, place: str, kind: str) -> int:
    return int(config.get(f"{place}.megatron.{kind}_parallel_size") or 1)


def _group(config: Composed, place: str) -> int:
    """Give the number of GPUs that hold one replica of a Megatron model."""
    tensor, pipeline, context = (_parts(config, place, kind) for kind in ("tensor_model", "pipeline_model", "context"))
    return tensor * pipeline * context


def _train_batch_faults(config: Composed, gpus: int) -> Iterator[str]:
    samples = int(config.get("data.train_batch_size", 0)) * int(config.get(f"{ROLLOUT}.n", 1))
    least, why = gpus, f"{gpus} GPUs"
    if _megatron(config) and gpus:
        micro = int(config.get(f"{ACTOR}.ppo_micro_batch_size_per_gpu") or 1)
        least = gpus // _group(config, ACTOR) * micro
        why = f"{least} ({gpus // _group(config, ACTOR)} replicas of the model x a micro batch of {micro})"
    if least and samples % least:
        yield f"a batch of {samples} responses cannot be divided by {why} (data.train_batch_size)"


def _sequence(config: Composed, place: str) -> int:
    return int(config.get(f"{place}.ulysses_sequence_parallel_size") or 1)


def _mini_batch_faults(config: Composed, place: str, gpus: int, responses: int) -> Iterator[str]:
    """Compare mini and micro batches; with dynamic batches tokens are counted instead."""
    mini = config.get(f"{place}.ppo_mini_batch_size")
    if config.get(f"{place}.use_dynamic_bsz") or mini is None or not gpus:
        return
    train = int(config.get("data.train_batch_size", 0))
    if int(mini) > train:
        yield f"{place}.ppo_mini_batch_size {mini} is larger than data.train_batch_size {train}"
    world = _group(config, place) if _megatron(config) else _sequence(config, place)
    ranks = max(1, gpus // world)
    per_rank = int(mini) * responses // ranks
    micro = config.get(f"{place}.ppo_micro_batch_size_per_gpu")
    if not per_rank:
        yield f"{place}.ppo_mini_batch_size {mini} leaves none of its samples for each of {ranks} ranks"
    elif micro and per_rank % int(micro):
        yield (
            f"{place}: {int(mini) * responses} samples of a mini batch on {ranks} ranks, {per_rank} each, cannot be"
            f" divided by a micro batch of {micro}"
        )
    all_ranks = config.get(f"{place}.ppo_micro_batch_size")
    if all_ranks and int(mini) % int(all_ranks):
        yield f"{place}.ppo_mini_batch_size {mini} cannot be divided by ppo_micro_batch_size {all_ranks}"
    if all_ranks and int(all_ranks) * _sequence(config, place) < gpus:
        yield f"{place}.ppo_micro_batch_size {all_ranks} is less than one sample for each of {gpus} GPUs"


def _micro_batch_faults(config: Composed, place: str, name: str) -> Iterator[str]:
    """Ask for one of the two sizes, and not both: the global one (deprecated) and the one of each GPU."""
    total, each = config.get(f"{place}.{name}"), config.get(f"{place}.{name}_per_gpu", "no such key")
    if total is not None and each not in {None, "no such key"}:
        yield f"{place}.{name} and {place}.{name}_per_gpu exclude each other"
    dynamic = config.get(f"{'critic' if place == 'critic' else ACTOR}.use_dynamic_bsz")
    used = has_critic(config) if place == "critic" else _has_reference(config) if place.endswith("ref") else True
    dynamic = dynamic and not (_megatron(config) and place == ACTOR)  # verl multiplies by it all the same
    if total is None and each is None and used and not dynamic:
        yield f"{place}.{name}_per_gpu is not set, and verl asks for it"
