"""Whether this process runs in a container, which kind, and what its start gave it of the GPU."""

from __future__ import annotations

import re

from envcheck.facts import Container
from envcheck.host import Host

CGROUP_RUNTIMES = (
    ("kubepods", "kubernetes"),
    ("libpod", "podman"),
    ("docker", "docker"),
    ("containerd", "containerd"),
    ("lxc", "lxc"),
)


def probe(host: Host) -> Container | None:
    """Read in which container this is; None on a bare or virtual machine."""
    runtime = which(host)
    if runtime is None:
        return None
    return Container(
        runtime=runtime,
        image=image(host),
        nvidia_visible_devices=host.environ.get("NVIDIA_VISIBLE_DEVICES"),
        start=start(host),
    )


def which(host: Host) -> str | None:
    """Name the runtime by its marks: files, variables, then the cgroup of the first process."""
    environ = host.environ
    if "KUBERNETES_SERVICE_HOST" in environ or host.exists("/var/run/secrets/kubernetes.io"):
        return "kubernetes"
    if "APPTAINER_CONTAINER" in environ or "SINGULARITY_CONTAINER" in environ:
        return "apptainer"
    if host.exists("/run/.containerenv"):
        return "podman"
    named = next((name for mark, name in CGROUP_RUNTIMES if mark in _first_process(host)), None)
    if named is None and host.exists("/.dockerenv"):
        return "docker"
    return named or environ.get("container") or None


def _first_process(host: Host) -> str:
    try:
        return host.read("/proc/1/cgroup", 16 << 10)
    except OSError:
        return ""


def image(host: Host) -> str | None:
    """Name of the image, where the runtime tells it: ``image="docker.io/library/x"`` of /run/.containerenv."""
    try:
        found = re.search(r'^image="([^"]+)"', host.read("/run/.containerenv", 4096), re.MULTILINE)
    except OSError:
        found = None
    names = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
    return found[1] if found else next((host.environ[name] for name in names if name in host.environ), None)


def start(host: Host) -> tuple[str, ...]:
    """List what the start gave or did not give: device nodes, the driver's library, the host's driver."""
    nodes = [path for path in host.glob("/dev/nvidia*") if re.search(r"/nvidia(\d+|ctl)$", path)]
    found = [f"device nodes: {', '.join(nodes)}" if nodes else "no NVIDIA device nodes"]
    if host.exists("/proc/driver/nvidia/version"):
        found.append("the host's kernel module is loaded")
    if host.environ.get("NVIDIA_DRIVER_CAPABILITIES"):
        found.append(f"NVIDIA_DRIVER_CAPABILITIES={host.environ['NVIDIA_DRIVER_CAPABILITIES']}")
    return tuple(found)
