"""Limits of the host that a run meets: memory, CPUs, disks, caches."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Disk, Facts
from envcheck.model import Finding, Fix, Rule, Severity, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.build_resources import threshold

CACHES = {"cache": "XDG_CACHE_HOME", "tmp": "TMPDIR", "home": "HOME"}
FEW_INODES = 10_000


@rule(
    "host-memory-low",
    group="run time",
    subject="memory",
    cause="Weights pass through the host's memory, offloaded parameters and optimizer states stay there, and ray ends "
    "workers when memory runs out.",
    stages=("launch", "train"),
    sources=("https://docs.ray.io/en/latest/ray-core/scheduling/ray-oom-prevention.html",),
    fix=("Raise the container's memory limit, or offload less.",),
)
def host_memory_low(facts: Facts, target: Target) -> Iterator[Finding]:
    """The host has memory for the weights and for ray."""
    available, limit = subjects.memory(facts)
    wanted = threshold(target, "memory_wanted_bytes")
    if available >= wanted:
        return
    small = available < threshold(target, "memory_small_bytes")
    yield Finding(
        summary=f"{subjects.size(available)} of memory are available",
        found=f"{subjects.size(available)} available" + (f", cgroup limit {subjects.size(limit)}" if limit else ""),
        expected=f"{subjects.size(wanted)} or more",
        fix=(Fix(text="Raise the limit of the container" if limit else "End other programs, or take a larger host"),),
        severity="error" if small else "warning",
    )


@rule(
    "ray-cpus-too-few",
    group="run time",
    subject="CPUs",
    cause="verl asks ray for CPUs beside each GPU; where there are fewer, ray waits for ever without a word.",
    stages=("launch", "train"),
    sources=("https://github.com/verl-project/verl/pull/6663",),
    fix=("Give the container more CPUs, or start ray with a higher --num-cpus.",),
)
def cpus_too_few(facts: Facts, target: Target) -> Iterator[Finding]:
    """There are as many CPUs as verl asks for beside the GPUs."""
    gpus = len(subjects.need_gpu(facts))
    cpus = known(subjects.resources(facts).cpus)
    verl = subjects.wanted_version(facts, target, "verl") or "0"
    row = next(row for row in target.limits.rows("verl", verl=verl) if "cpus_per_gpu" in row.give)
    # One more than the bundles: ray's own task runner of verl takes a CPU as well.
    need = gpus * int(row.give["cpus_per_gpu"]) + 1
    if cpus < need:
        yield Finding(
            summary=f"{cpus} CPUs are too few for {gpus} GPUs: {row.why}",
            found=f"{cpus} CPUs, {gpus} GPUs",
            expected=f"{need} CPUs",
            fix=(Fix(text="Give more CPUs", commands=(f"ray start --head --num-cpus={need}",)),),
            sources=(row.source,),
        )


@rule(
    "disk-full",
    group="run time",
    subject="disk",
    cause="Downloads, caches and unpacked wheels go to other file systems than the one with space.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/7025",),
    fix=("Point TMPDIR, PIP_CACHE_DIR, UV_CACHE_DIR and XDG_CACHE_HOME at a file system with space.",),
)
def disk_full(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every file system that is written to has space and inodes."""
    full = threshold(target, "disk_full_bytes")
    for disk in subjects.resources(facts).disks:
        # The space of the cache and the work directory is judged for builds by its own rule.
        inodes = disk.free_inodes if isinstance(disk.free_inodes, int) else FEW_INODES
        if not isinstance(disk.free_bytes, int) or (disk.free_bytes >= full and (inodes == 0 or inodes >= FEW_INODES)):
            continue
        by_inodes = disk.free_bytes >= full
        what = f"{inodes} inodes" if by_inodes else subjects.size(disk.free_bytes)
        yield Finding(
            summary=f"{disk.path} has {what} left",
            found=f"{what} free in {disk.path} ({disk.role})",
            expected=f"{FEW_INODES} inodes" if by_inodes else f"{subjects.size(full)} or more",
            fix=(_elsewhere(facts, disk, full),),
            subject=disk.path,
            severity="warning" if disk.role == "docker" else "error",
        )


def _elsewhere(facts: Facts, disk: Disk, least: float) -> Fix:
    """Point the variable of a place at the file system with the most space, where one has enough."""
    disks = subjects.resources(facts).disks
    roomy = {item.path: item.free_bytes for item in disks if isinstance(item.free_bytes, int) and item is not disk}
    best = max(roomy, key=lambda path: roomy[path], default=None)
    if best is None or roomy[best] < least or disk.role not in CACHES or disk.role == "home":
        return Fix(text=f"Make space in {disk.path}")
    path = f"{best.rstrip('/')}/{disk.role}"
    names = (CACHES[disk.role], "PIP_CACHE_DIR", "UV_CACHE_DIR") if disk.role == "cache" else (CACHES[disk.role],)
    return remedy.exports(f"Use {best}, which has space", **dict.fromkeys(names, path))


@rule(
    "cache-not-writable",
    group="run time",
    subject="caches",
    cause="A cache of a just-in-time compiler has a fixed place that another user of the host owns.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/triton-lang/triton/issues/518", "https://github.com/vllm-project/vllm/issues/41410"),
    fix=("Give every user a TMPDIR and caches of their own.",),
)
def cache_not_writable(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Temporary directory, home and caches can be written to."""
    for disk in subjects.resources(facts).disks:
        if disk.writable is False and disk.role != "docker":
            mine = "$HOME/.cache" if disk.role != "home" else "$PWD/.cache"
            values = {"TRITON_CACHE_DIR": f"{mine}/triton", "TMPDIR": f"{mine}/temporary"}
            names = (CACHES.get(disk.role, "XDG_CACHE_HOME"), "TRITON_CACHE_DIR")
            severity: Severity = "error" if disk.role in {"tmp", "cache"} else "warning"
            yield Finding(
                summary=f"{disk.path} cannot be written to",
                found=f"{disk.path} ({disk.role}) belongs to another user or is read-only",
                expected="a directory of one's own",
                fix=(
                    Fix(
                        text="Name others",
                        commands=tuple(f'export {name}="{values.get(name, mine)}"' for name in names),
                    ),
                ),
                subject=disk.path,
                severity=severity,
            )


@rule(
    "jit-lock-stale",
    group="run time",
    subject="flashinfer",
    cause="A just-in-time build that was killed midway left its lock; the next one waits for it for ever.",
    stages=("launch", "train"),
    sources=("https://github.com/flashinfer-ai/flashinfer",),
    fix=("Delete the lock files below ~/.cache/flashinfer.",),
)
def jit_cache_locked(facts: Facts, _target: Target) -> Iterator[Finding]:
    """No lock of a just-in-time build was left behind."""
    locks = subjects.resources(facts).jit_locks
    if locks:
        yield Finding(
            summary=f"{len(locks)} just-in-time builds left a lock: loading their kernels will hang",
            found=", ".join(locks),
            expected="no lock without a process that holds it",
            fix=(Fix(text="Delete them", commands=(f"rm -f {' '.join(locks)}",)),),
        )


RULES: tuple[Rule, ...] = (
    host_memory_low,
    cpus_too_few,
    disk_full,
    cache_not_writable,
    jit_cache_locked,
)
