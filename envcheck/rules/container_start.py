"""How a container of an image has to be started: what no Dockerfile can set."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import STARTED_BY_OTHERS, Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, rule
from envcheck.rules import subjects

ALWAYS = (
    "--gpus all",
    "--ipc=host",
    "--ulimit memlock=-1",
    "--ulimit stack=67108864",
    "--ulimit nofile=65536",
)
"""The driver, shared memory for NCCL and ray, locked memory for InfiniBand, threads' stacks, ray's sockets."""


@rule(
    "container-start",
    group="container",
    subject="docker run",
    cause="GPUs, shared memory and limits are given when a container is started: no image can hold them.",
    stages=("build", "launch", "train"),
    sources=(
        "https://docs.docker.com/reference/cli/docker/container/run/",
        "https://github.com/NVIDIA/nvidia-container-toolkit/issues/871",
    ),
    fix=("docker run --gpus all --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 --ulimit nofile=65536 …",),
)
def container_start(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Containers of this image are started with what an image cannot hold."""
    if facts.driver != STARTED_BY_OTHERS:
        msg = "this is no image at rest"
        raise NotApplicable(msg)
    command = f"docker run {' '.join([*ALWAYS, *needed(facts)])}"
    yield subjects.note(
        f"start it with {command}",
        found="an image, of which no container was started",
        expected=command,
        fix=(Fix(text="Start it so", commands=(f"{command} IMAGE …",)),),
    )


def needed(facts: Facts) -> Iterator[str]:
    """Give the options that this image needs besides: what its own variables would otherwise keep away."""
    devices = facts.environment.get("NVIDIA_VISIBLE_DEVICES")
    if devices is not None and devices in {"", "none", "void"}:
        yield "-e NVIDIA_VISIBLE_DEVICES=all"
    given = facts.environment.get("NVIDIA_DRIVER_CAPABILITIES", "all").split(",")
    if "all" not in given and not {"compute", "utility"} <= set(given):
        yield "-e NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    if facts.manifest is not None:  # our images run as any uid of group 0
        yield '--user "$(id -u):0"'


RULES: tuple[Rule, ...] = (container_start,)
