"""Limits of a user and of a cgroup that a run meets: processes and threads, open files, locked memory."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envcheck.facts import Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.build_resources import threshold

INFINIBAND = re.compile(r"ib\d|ibs\d|ibp\d")
_UNIT = "systemctl set-property user-$(id -u).slice TasksMax=infinity"


def raise_limit(facts: Facts, option: str, item: str, value: int) -> tuple[Fix, ...]:
    """Raise a ulimit: in the container's start, or in the shell and limits.conf."""
    runtime = remedy.runtime(facts)
    if runtime == "kubernetes":
        return (Fix(text="On the node: raise the limit of its container runtime's service, a pod cannot"),)
    if runtime is not None:
        command = remedy.run_container(facts, f"--ulimit {item}={value}")
        return (Fix(text="Start the container with a higher limit", commands=(command,)),)
    line = f"sh -c 'echo \"* soft {item} {value}\" > /etc/security/limits.d/90-ray.conf'"
    return (
        Fix(text="In this shell", commands=(f"ulimit {option} {value}",)),
        Fix(text="For good", commands=remedy.as_root(facts, line)),
    )


@rule(
    "process-limit-low",
    group="run time",
    subject="ulimit -u",
    cause="ray starts many processes with many threads each; the limit counts threads.",
    stages=("launch", "train"),
    sources=("https://github.com/verl-project/verl/issues/719",),
    fix=("ulimit -u 65536",),
)
def process_limit_low(facts: Facts, target: Target) -> Iterator[Finding]:
    """The limit of processes is high enough for ray."""
    have, least = known(subjects.resources(facts).max_processes), int(threshold(target, "processes"))
    if isinstance(have, int) and have < least:
        yield Finding(
            summary=f"only {have} processes and threads are allowed",
            found=f"ulimit -u {have}",
            expected=f"{least} or more",
            fix=raise_limit(facts, "-u", "nproc", 4 * least),
            severity="warning",
        )
    yield from _too_few_tasks(facts, least)


def _too_few_tasks(facts: Facts, least: int) -> Iterator[Finding]:
    """Find a cgroup's own limit, which ``ulimit -u`` does not show."""
    have = subjects.resources(facts).tasks_limit
    if not isinstance(have, int) or have >= least:
        return
    yield Finding(
        summary=f"only {have} processes and threads are allowed in this cgroup",
        found=f"pids.max {have}",
        expected=f"{least} or more",
        fix=(_more_tasks(facts),),
        severity="warning",
        subject="pids.max",
    )


def _more_tasks(facts: Facts) -> Fix:
    runtime = remedy.runtime(facts)
    if runtime == "kubernetes":
        return Fix(text="Ask for a higher podPidsLimit of the node's kubelet")
    if runtime is None:
        return Fix(text="Lift it for this session's unit", commands=remedy.as_root(facts, _UNIT))
    return Fix(text="Start the container without the limit", commands=(remedy.run_container(facts, "--pids-limit=-1"),))


@rule(
    "open-files-low",
    group="run time",
    subject="ulimit -n",
    cause="Every worker holds sockets to every other, and data loaders hold files.",
    stages=("launch", "train"),
    sources=("https://docs.ray.io/en/latest/ray-core/miscellaneous.html",),
    fix=("ulimit -n 65536",),
)
def open_files_low(facts: Facts, target: Target) -> Iterator[Finding]:
    """The limit of open files is high enough for ray."""
    have, least = known(subjects.resources(facts).open_files), int(threshold(target, "open_files"))
    if isinstance(have, int) and have < least:
        if _may_be_raised(facts, least):
            yield subjects.note(
                f"ray.init raises the {have} open files of this shell by itself, `ray start` does not",
                found=f"ulimit -n {have}, hard limit {subjects.resources(facts).open_files_hard}",
                expected=f"{least} or more before `ray start`",
                fix=raise_limit(facts, "-n", "nofile", 65536),
                sources=("https://github.com/ray-project/ray/issues/12059",),
            )
            return
        yield Finding(
            summary=f"only {have} open files are allowed",
            found=f"ulimit -n {have}",
            expected=f"{least} or more, 65536 recommended",
            fix=raise_limit(facts, "-n", "nofile", 65536),
            severity="warning",
        )


def _may_be_raised(facts: Facts, least: int) -> bool:
    """Tell whether the hard limit lets ray raise the soft one, which it does where it starts the cluster itself."""
    most = subjects.resources(facts).open_files_hard
    return most == "unlimited" or (isinstance(most, int) and most >= least)


@rule(
    "locked-memory-low",
    group="run time",
    subject="ulimit -l",
    cause="InfiniBand registers memory by locking it; a few kilobytes are the default.",
    stages=("launch", "train"),
    sources=("https://github.com/NVIDIA/nccl-tests/issues/206",),
    fix=("ulimit -l unlimited, or docker run --ulimit memlock=-1.",),
)
def locked_memory_low(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Where InfiniBand is asked for, memory may be locked without limit."""
    asked = _asks_for_infiniband(facts)
    if not asked:
        raise NotApplicable("InfiniBand is not asked for")
    have = known(subjects.resources(facts).locked_memory)
    if isinstance(have, int) and have < subjects.GIB:
        yield Finding(
            summary=f"only {subjects.size(have)} of memory may be locked, and {asked} asks for InfiniBand",
            found=f"ulimit -l {have // 1024} KiB",
            expected="unlimited",
            fix=(Fix(text="Start with", commands=(_unlocked(facts),)),),
            severity="warning",
        )


def _unlocked(facts: Facts) -> str:
    return (
        "ulimit -l unlimited" if remedy.runtime(facts) is None else remedy.run_container(facts, "--ulimit memlock=-1")
    )


def _asks_for_infiniband(facts: Facts) -> str:
    """Name what makes NCCL use InfiniBand: a variable, or an interface, which it takes by itself."""
    if subjects.variable(facts, "NCCL_IB_DISABLE") not in {"", "0"}:
        return ""
    names = ("NCCL_IB_HCA", "NCCL_IB_GID_INDEX", "NCCL_IB_DISABLE")
    cards = [name for name in subjects.resources(facts).interfaces if INFINIBAND.match(name)]
    return next((name for name in (*names, *cards) if name in cards or subjects.variable(facts, name)), "")


RULES: tuple[Rule, ...] = (process_limit_low, open_files_low, locked_memory_low)
