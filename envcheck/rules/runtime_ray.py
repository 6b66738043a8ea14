"""The ray cluster that a new run would meet."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Facts
from envcheck.limits import satisfies
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, rule
from envcheck.rules import subjects


def python_patch(version: str) -> str:
    """Major, minor and patch of an interpreter's version."""
    return ".".join(version.split(".")[:3])


@rule(
    "ray-address-stale",
    group="run time",
    subject="ray",
    cause="RAY_ADDRESS or /tmp/ray/ray_current_cluster names a cluster that has ended, or somebody else's.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/Unakar/Logic-RL/issues/30",
        "https://github.com/verl-project/verl/issues/3972",
    ),
    fix=("ray stop --force, unset RAY_ADDRESS, remove /tmp/ray/ray_current_cluster.",),
)
def ray_address_stale(facts: Facts, _target: Target) -> Iterator[Finding]:
    """ray will not try to join a cluster that is not there."""
    if facts.ray is None:
        return
    ray = known(facts.ray)
    said = subjects.variable(facts, "RAY_ADDRESS")
    address = said or ray.address
    if not address or address in {"auto", "local"} or known(ray.running):
        return
    commands = ("ray stop --force", "unset RAY_ADDRESS" if said else "rm -f /tmp/ray/ray_current_cluster")
    yield Finding(
        summary=f"no ray cluster answers at {address}, which a new run would join",
        found=f"{'RAY_ADDRESS' if said else '/tmp/ray/ray_current_cluster'} names {address}",  # noqa: S108  # only shown
        expected="a running cluster, or no address",
        fix=(Fix(text="Forget it", commands=commands),),
        severity="error" if said else "warning",
    )


@rule(
    "ray-versions-differ",
    group="run time",
    subject="ray",
    cause="The running cluster was started with another ray or Python than this environment's.",
    stages=("launch", "train"),
    sources=("https://github.com/Unakar/Logic-RL/issues/30", "https://github.com/ray-project/ray/issues/44063"),
    fix=("Stop the cluster and start it from this environment on every node.",),
)
def ray_versions_differ(facts: Facts, _target: Target) -> Iterator[Finding]:
    """The running ray cluster has this environment's ray and Python."""
    if facts.ray is None or known(facts.ray).running is not True:
        raise NotApplicable("no ray cluster runs here")
    ray = known(facts.ray)
    mine, python = subjects.installed_version(facts, "ray"), known(subjects.python(facts).version)
    pairs: list[tuple[str, str, str, Severity]] = []
    if isinstance(ray.version, str) and mine and not satisfies(ray.version, f"=={mine}"):
        pairs.append(("ray", ray.version, mine, "error"))
    if isinstance(ray.python, str) and python_patch(ray.python) != python_patch(python):
        other_minor = subjects.minor(ray.python) != subjects.minor(python)
        pairs.append(("Python", ray.python, python, "error" if other_minor else "warning"))
    for name, theirs, ours, severity in pairs:
        yield Finding(
            summary=f"the running cluster has {name} {theirs}, this environment {ours}",
            found=f"cluster: {name} {theirs}",
            expected=f"{name} {ours}",
            fix=(Fix(text="Start it anew from this environment", commands=("ray stop --force", "ray start --head")),),
            subject=name,
            severity=severity,
        )


RULES: tuple[Rule, ...] = (ray_address_stale, ray_versions_differ)
