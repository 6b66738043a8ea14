"""Containers: the NVIDIA runtime, devices that stay, shared memory, an image that is still what was built."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Docker, Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, package, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.build_resources import threshold
from envcheck.rules.driver_parts import lost


def need_engine(facts: Facts) -> Docker:
    """Give the Docker engine of a host with GPUs, or end the rule as not applicable."""
    if facts.docker is None or known(facts.docker).engine is None:
        msg = "there is no Docker engine"
        raise NotApplicable(msg)
    subjects.need_gpu(facts)
    return known(facts.docker)


@rule(
    "nvidia-runtime-missing",
    group="container",
    subject="docker",
    cause="The engine has no NVIDIA hook: the container toolkit is not installed or configured, or the engine was not "
    "restarted; a snap engine does not see it. Or the container was started without --gpus.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/NVIDIA/nvidia-container-toolkit/issues/871",
        "https://github.com/NVIDIA/nvidia-docker/issues/1591",
    ),
    fix=("Install nvidia-container-toolkit, run nvidia-ctk runtime configure --runtime=docker, restart docker.",),
)
def nvidia_runtime_missing(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Containers of this host see its GPUs."""
    if lost(facts):
        msg = "this container had GPUs and lost them: device-cgroup-reload"
        raise NotApplicable(msg)
    if facts.container is not None:
        yield from _started_without_gpus(facts)
        return
    docker = need_engine(facts)
    if docker.snap:
        yield Finding(
            summary="docker is a snap: it does not see the host's NVIDIA runtime",
            found="dockerd below /snap",
            expected="docker of the distribution or of docker.com",
            fix=(
                Fix(text="Replace the snap", commands=remedy.as_root(facts, "snap remove docker")),
                *_install_toolkit(facts),
            ),
            severity="warning",
        )
        return
    if "nvidia" in docker.runtimes or any("nvidia.com" in item for item in docker.cdi):
        return
    has_toolkit = isinstance(docker.nvidia_ctk, str)
    yield Finding(
        summary='containers do not see the GPUs: could not select device driver "" with capabilities: [[gpu]]',
        found=f"runtimes {', '.join(docker.runtimes) or 'none'}; nvidia-ctk {docker.nvidia_ctk or 'not installed'}",
        expected="the runtime nvidia, or CDI devices nvidia.com/gpu",
        fix=_configure(facts) if has_toolkit else (*_install_toolkit(facts), *_configure(facts)),
        severity="warning",
    )


def _configure(facts: Facts) -> tuple[Fix, ...]:
    commands = ("nvidia-ctk runtime configure --runtime=docker", "systemctl restart docker")
    return (Fix(text="Configure the engine and restart it", commands=remedy.as_root(facts, *commands)),)


def _install_toolkit(facts: Facts) -> tuple[Fix, ...]:
    names = dict.fromkeys(("apt", "dnf", "zypper"), "nvidia-container-toolkit")
    return remedy.system_packages(facts, "the NVIDIA container toolkit, from NVIDIA's repository", names)


def _started_without_gpus(facts: Facts) -> Iterator[Finding]:
    container = known(facts.container) if facts.container is not None else None
    driver = known(facts.driver)
    if container is None or (known(driver.present) and known(facts.gpus)):
        if container is not None and _lacks_memory_device(driver.device_nodes):
            yield _no_memory_device()
        return
    if "insufficient permissions" in (driver.nvml_error or "").lower():
        yield _not_permitted(driver.nvml_error or "")
        return
    said = container.nvidia_visible_devices
    yield Finding(
        summary="this container was started without the GPUs",
        found="; ".join(
            [f"NVIDIA_VISIBLE_DEVICES={said}" if said else "NVIDIA_VISIBLE_DEVICES not set", *container.start]
        ),
        expected="the driver's libraries and device nodes inside the container",
        fix=(remedy.with_gpus(facts),),
    )


def _lacks_memory_device(nodes: tuple[str, ...]) -> bool:
    """Tell whether the control device was given, and that of unified memory was not."""
    return "/dev/nvidiactl" in nodes and "/dev/nvidia-uvm" not in nodes


def _no_memory_device() -> Finding:
    return Finding(
        summary="nvidia-smi works here, CUDA will not (error 999): this container has no /dev/nvidia-uvm",
        found="/dev/nvidiactl, and no /dev/nvidia-uvm",
        expected="/dev/nvidia-uvm",
        fix=(
            Fix(
                text="On the host: load nvidia-uvm, then start the container anew",
                commands=("sudo nvidia-modprobe -u -c=0",),
            ),
        ),
    )


def _not_permitted(said: str) -> Finding:
    keep = "podman run --device nvidia.com/gpu=all --group-add keep-groups --security-opt=label=disable …"
    return Finding(
        summary="this container has the GPU's device files, and this user may not open them",
        found=said,
        expected="device files that this user may open",
        fix=(Fix(text="Keep the user's groups, and let SELinux pass devices", commands=(keep, "ls -lZ /dev/nvidia*")),),
    )


@rule(
    "device-cgroup-reload",
    group="container",
    subject="docker",
    cause="systemctl daemon-reload rewrites the containers' device rules and drops the NVIDIA devices, which have no "
    "links in /dev/char: running containers lose their GPUs.",
    stages=("launch", "train"),
    sources=("https://github.com/NVIDIA/nvidia-container-toolkit/issues/48",),
    fix=("nvidia-ctk system create-dev-char-symlinks, CDI, or the cgroupfs driver.",),
)
def device_cgroup_reload(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Containers keep their GPUs when systemd reloads."""
    if lost(facts):
        yield _lost(known(facts.driver).nvml_error or "")
        return
    docker = need_engine(facts)
    linked = known(known(facts.driver).char_symlinks)
    if known(docker.cgroup_driver or "") != "systemd" or linked or any("nvidia.com" in item for item in docker.cdi):
        return
    commands = ("nvidia-ctk system create-dev-char-symlinks --create-all",)
    yield Finding(
        summary="running containers will lose their GPUs at the next systemctl daemon-reload",
        found="cgroup driver systemd, no links to the NVIDIA devices in /dev/char",
        expected="links in /dev/char, CDI, or the cgroupfs driver",
        fix=(Fix(text="Make the links (again after each boot)", commands=remedy.as_root(facts, *commands)),),
        severity="warning",
    )


def _lost(said: str) -> Finding:
    """Say, in a container, that it has lost its GPUs already."""
    return Finding(
        summary="this container has lost its GPUs: the host's systemd rewrote its device rules",
        found=said,
        expected="an answer of NVML",
        fix=(
            Fix(
                text="On the host: make the links, then start the container anew",
                commands=("sudo nvidia-ctk system create-dev-char-symlinks --create-all", "docker restart …"),
            ),
        ),
    )


@rule(
    "shm-too-small",
    group="container",
    subject="shared memory",
    cause="Docker and Kubernetes give 64 MB of shared memory: NCCL and ray put their segments there.",
    stages=("launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/1710", "https://github.com/ray-project/ray/issues/14616"),
    fix=("docker run --ipc=host, or --shm-size above 30 % of the memory.",),
)
def shm_too_small(facts: Facts, target: Target) -> Iterator[Finding]:
    """The shared memory is large enough for NCCL and ray."""
    have = known(subjects.resources(facts).shm_bytes)
    several = len(facts.gpus) > 1 if isinstance(facts.gpus, tuple) else True
    memory, _ = subjects.memory(facts)
    wanted = min(threshold(target, "shm_wanted_bytes"), threshold(target, "shm_wanted_share") * memory)
    small = have < threshold(target, "shm_small_bytes")
    if not small:
        yield from _full(facts, have, threshold(target, "shm_small_bytes"))
    if not small and have >= wanted:
        return
    severity: Severity = "error" if small and (several or not have) else "warning"
    yield Finding(
        summary=f"the shared memory has {subjects.size(have)}: "
        + ("NCCL and ray cannot make their segments" if severity == "error" else "ray will use the disk instead"),
        found=subjects.size(have),
        expected=f"{subjects.size(wanted)} or more",
        fix=_more_shm(facts, wanted, mounted=have > 0),
        severity=severity,
    )


def _full(facts: Facts, have: float, least: float) -> Iterator[Finding]:
    """Find shared memory that is large enough, and full: a run that was killed leaves its segments there."""
    free = subjects.resources(facts).shm_free_bytes
    if isinstance(free, int) and free < least:
        yield Finding(
            summary=f"the shared memory is full: {subjects.size(free)} of {subjects.size(have)} are free",
            found=f"{subjects.size(free)} free in /dev/shm",
            expected=f"{subjects.size(least)} or more",
            fix=(
                Fix(
                    text="See what runs that ended left there, and remove that",
                    commands=("ls -ltS /dev/shm | head -20", "fuser -v /dev/shm/*"),
                ),
            ),
        )


def _more_shm(facts: Facts, wanted: float, *, mounted: bool) -> tuple[Fix, ...]:
    gigabytes = max(10, round(wanted / subjects.GIB))
    if remedy.runtime(facts) == "kubernetes":
        return (Fix(text="Mount an emptyDir with medium: Memory at /dev/shm in the pod"),)
    if remedy.runtime(facts) is None:
        size = f"size={gigabytes}G"
        new = ("mkdir -p /dev/shm", f"mount -t tmpfs -o {size},mode=1777 tmpfs /dev/shm")
        commands = (f"mount -o remount,{size} /dev/shm",) if mounted else new
        return (Fix(text="Make it larger", commands=remedy.as_root(facts, *commands)),)
    return (
        Fix(text="Share the host's", commands=(remedy.run_container(facts, "--ipc=host"),)),
        Fix(text="Or give it its own", commands=(remedy.run_container(facts, f"--shm-size={gigabytes}g"),)),
    )


@rule(
    "image-drift",
    group="container",
    subject="image",
    cause="Something was installed, removed or set in the container after the image was built.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/flashinfer-ai/flashinfer/pull/4284",),
    fix=("Start from the image again, or put the change into its build.",),
)
def image_drift(facts: Facts, target: Target) -> Iterator[Finding]:
    """The image is what its manifest says."""
    if facts.manifest is None:
        msg = "this is no image of this project"
        raise NotApplicable(msg)
    manifest = known(facts.manifest)
    if manifest.stack != target.stack.name:
        yield _drift("the image was built for another stack", manifest.stack, target.stack.name, "warning")
    wanted = {item.distribution for item in subjects.wanted(target)}
    for name, version in manifest.packages.items():
        there = package(facts, name)
        now = "not installed" if there is None else known(there.version)
        if now != version:
            weight: Severity = "error" if name in wanted else "warning"
            yield _drift(f"{name} is not the one that the image was built with", f"{name} {now}", version, weight)
    for name, value in manifest.environment.items():
        if facts.environment.get(name, "") != value:
            found = f"{name}={facts.environment.get(name, '')}"
            yield _drift(f"{name} is not what the image sets", found, f"{name}={value}", "warning")


def _drift(summary: str, found: str, expected: str, severity: Severity) -> Finding:
    fix = (Fix(text="Start from the image again, or build it again", commands=("nox -s image",)),)
    return Finding(summary=summary, found=found, expected=expected, fix=fix, severity=severity)


RULES: tuple[Rule, ...] = (nvidia_runtime_missing, device_cgroup_reload, shm_too_small, image_drift)
