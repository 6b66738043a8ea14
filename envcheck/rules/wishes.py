"""What a run that is about to start asks for: GPUs, files, the hub, a logger."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Facts, Wish
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
LOGGED = ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_NAME", "WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_BASE_URL")
"""Variables that are set for the sake of wandb only."""
GRANTED = ("SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_NODE")
"""What Slurm says of this node's share: ``8``, or ``h100:8``."""


def need_wish(facts: Facts) -> Wish:
    """Give what the run asks for, or end the rule as not applicable."""
    if facts.wish is None:
        msg = "no run was named"
        raise NotApplicable(msg)
    return facts.wish


@rule(
    "gpus-too-few",
    group="run time",
    subject="GPUs",
    cause="The run asks for more GPUs than are visible; on several nodes, the others have not joined ray yet.",
    stages=("launch", "train"),
    sources=("https://github.com/verl-project/verl/issues/2515",),
    fix=("Ask for fewer (trainer.n_gpus_per_node, trainer.nnodes), or wait until ray status shows all nodes.",),
)
def gpus_too_few(facts: Facts, _target: Target) -> Iterator[Finding]:
    """There are as many GPUs as the run asks for, and as the scheduler granted."""
    if facts.wish is None and (granted := _granted(facts)):
        yield from _fewer_than_granted(facts, *granted)
        return
    wish = need_wish(facts)
    have = len(subjects.gpus(facts))
    asked = wish.gpus_per_node or wish.tensor_parallel
    if asked > have:
        yield Finding(
            summary=f"the run asks for {asked} GPUs on this node, {have} are visible",
            found=f"{have} GPUs",
            expected=f"{asked} GPUs",
            fix=(Fix(text=f"Ask for {have}", commands=(f"trainer.n_gpus_per_node={have}",)),),
        )
    if wish.cluster_gpus is not None and known(wish.cluster_gpus) < asked * wish.nodes:
        yield Finding(
            summary=f"the ray cluster has {wish.cluster_gpus} GPUs, the run asks for {asked * wish.nodes}",
            found=f"{wish.cluster_gpus} GPUs in the cluster",
            expected=f"{wish.nodes} nodes with {asked} GPUs each",
            fix=(Fix(text="Wait until all nodes have joined", commands=("ray status",)),),
            subject="ray",
        )


def _granted(facts: Facts) -> tuple[str, int] | None:
    """Give the variable with which the scheduler tells of GPUs, and their count."""
    for name in GRANTED:
        count = subjects.variable(facts, name).rpartition(":")[2]
        if count.isdigit():
            return name, int(count)
    return None


def _fewer_than_granted(facts: Facts, name: str, count: int) -> Iterator[Finding]:
    have = len(known(facts.gpus))
    if 0 < have < count:
        yield Finding(
            summary=f"the scheduler granted {count} GPUs on this node, {have} are there",
            found=f"{have} GPUs, {name}={subjects.variable(facts, name)}",
            expected=f"{count} GPUs",
            fix=(
                Fix(
                    text="Look whether GPUs fell off the bus, or the step was given a part", commands=("nvidia-smi -L",)
                ),
            ),
            severity="warning",
        )


@rule(
    "model-or-data-missing",
    group="run time",
    subject="model and data",
    cause="The model or the data files that the run names are not there, or cannot be read.",
    stages=("launch", "train"),
    sources=("https://github.com/volcengine/verl/blob/main/docs/preparation/prepare_data.rst",),
    fix=("Prepare the data: nox -s data. Name the model by the path of its directory.",),
)
def model_or_data_missing(facts: Facts, _target: Target) -> Iterator[Finding]:
    """The model and the data that the run names are there."""
    for path, there in need_wish(facts).files.items():
        if not known(there):
            is_data = path.endswith((".parquet", ".json", ".jsonl"))
            yield Finding(
                summary=f"{path} is not there, or cannot be read",
                found=f"no {path}",
                expected="a readable file" if is_data else "a model's directory",
                fix=(Fix(text="Prepare the data", commands=("nox -s data",)),)
                if is_data
                else (Fix(text="Download the model, then name its directory"),),
                subject=path,
            )


@rule(
    "wandb-key-missing",
    group="run time",
    subject="WANDB_API_KEY",
    cause="trainer.logger has wandb, which asks for a key and ends the run where it cannot.",
    stages=("train",),
    sources=("https://docs.wandb.ai/guides/track/environment-variables/",),
    fix=("Set WANDB_API_KEY or WANDB_MODE=offline, or take wandb out of trainer.logger.",),
)
def wandb_key_missing(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Where wandb is asked for, it has a key or is offline."""
    meant = [name for name in LOGGED if subjects.variable(facts, name)]
    if facts.wish is None and not meant:
        raise NotApplicable("no run was named")
    if facts.wish is not None and "wandb" not in facts.wish.loggers:
        raise NotApplicable("wandb is not asked for")
    mode = subjects.variable(facts, "WANDB_MODE")
    if subjects.variable(facts, "WANDB_API_KEY") or mode in {"offline", "disabled", "dryrun"}:
        return
    yield Finding(
        summary="the logger wandb has no key",
        found="WANDB_API_KEY not set" + (f", WANDB_MODE={mode}" if mode else ""),
        expected="WANDB_API_KEY, or WANDB_MODE=offline",
        fix=(
            remedy.exports("Log to disk", WANDB_MODE="offline"),
            Fix(text="Or log to the console alone", commands=("trainer.logger=['console']",)),
        ),
        severity="error" if facts.wish is not None else "warning",
    )


@rule(
    "hub-not-reachable",
    group="run time",
    subject="model hub",
    cause="The model is named as on the hub, and the hub cannot be asked; even files that are here are asked about.",
    stages=("launch", "train"),
    sources=("https://github.com/runpod-workers/worker-vllm/issues/46",),
    fix=("Name the model by its path, with HF_HUB_OFFLINE=1.",),
)
def hub_not_reachable(facts: Facts, _target: Target) -> Iterator[Finding]:
    """A model that is named as on the hub can be asked for there."""
    endpoint = subjects.variable(facts, "HF_ENDPOINT")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        yield Finding(
            summary="HF_ENDPOINT is no address: it lacks https://",
            found=f"HF_ENDPOINT={endpoint}",
            expected="https:// and a host",
            fix=(remedy.exports("Write it whole", HF_ENDPOINT=f"https://{endpoint}"),),
            severity="warning" if facts.wish is None else "error",
        )
    if facts.wish is None and endpoint:
        return
    wish = need_wish(facts)
    if wish.model is None or wish.model.startswith(("/", "~", ".")):
        raise NotApplicable("the model is named by its path")
    offline = [name for name in OFFLINE if subjects.variable(facts, name) not in {"", "0"}]
    if offline or not known(wish.hub_reachable):
        cached = wish.files.get(wish.model)
        yield Finding(
            summary=f"{wish.model} is a name on the hub, which cannot be reached",
            found=f"{offline[0]} is set" if offline else "the hub does not answer",
            expected="the path of the model's directory, or a reachable hub",
            fix=(
                remedy.exports(
                    "Name the model by its path, and do not ask", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1"
                ),
            ),
            severity="ok" if offline and cached is True else "error",
        )


RULES: tuple[Rule, ...] = (gpus_too_few, model_or_data_missing, wandb_key_missing, hub_not_reachable)
