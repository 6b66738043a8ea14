"""The GPUs: code for them is there, they are alike, visible under numbers that work, and the fabric is up."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from envcheck.facts import Facts, Package
from envcheck.limits import satisfies
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.driver import need_driver

VGPU = re.compile(r"^(GRID|NVIDIA GRID)\b|-\d+[ABCQ]$")
BLACKWELL = 10
ALSO = {"torch", "torchvision", "xformers", "apex", "sglang-kernel", "flashinfer-jit-cache"}
"""Judged wherever they are installed, beside what the stack wants."""
READY = {"completed", "not supported", "not reported", "n/a"}


def runs_machine_code(archs: tuple[str, ...], gpu: str) -> bool:
    """Tell whether one of the archs (``8.0``, ``9.0a``, ``10.0f``) is machine code for the GPU.

    Machine code runs on the same major and the same or a higher minor; with the suffix a on its own GPU only.
    https://docs.nvidia.com/cuda/blackwell-compatibility-guide
    """
    wanted = subjects.ordinal(gpu)
    for arch in archs:
        if arch.endswith("+PTX"):
            continue
        own = subjects.ordinal(arch.rstrip("af"))
        if arch.endswith("a"):
            if own == wanted:
                return True
        elif own[:1] == wanted[:1] and own <= wanted:
            return True
    return False


def runs_ptx(archs: tuple[str, ...], gpu: str) -> bool:
    """Tell whether one of the archs is PTX that the driver can compile for the GPU."""
    wanted = subjects.ordinal(gpu)
    return any(arch.endswith("+PTX") and subjects.ordinal(arch.removesuffix("+PTX")) <= wanted for arch in archs)


@rule(
    "gpu-arch-not-built",
    group="driver",
    subject="GPU code",
    cause="A wheel was compiled for other GPUs: no kernel image is available for execution on the device.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/vllm-project/vllm/issues/16901",
        "https://github.com/sgl-project/sglang/issues/7249",
        "https://github.com/ypwang61/One-Shot-RLVR/issues/22",
    ),
    fix=("Install a build for the GPU, or build it with the GPU's compute capability in the list.",),
)
def gpu_arch_not_built(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every package with GPU code has code for every visible GPU."""
    subjects.need_gpu(facts)
    named = {item.distribution: item.name for item in subjects.wanted(target)}
    for item in known(facts.packages):
        if item.name not in named and item.name not in ALSO:
            continue
        archs = item.archs or tuple(sorted({arch for part in item.extensions for arch in part.archs}))
        for gpu in subjects.capabilities(facts):
            fault = _no_code(item, archs, gpu, target)
            if fault:
                yield Finding(
                    summary=f"{item.name} {item.version} has no code for a GPU of compute capability {gpu}",
                    found=fault,
                    expected=f"code for {gpu}",
                    fix=_rebuild(target, item, named.get(item.name), gpu),
                    subject=item.name,
                    severity="error" if item.name in named or item.name == "torch" else "warning",
                )
            elif older := _older_parts(item, gpu):
                yield Finding(
                    summary=f"{', '.join(older)} of {item.name} has no code for a GPU of compute capability {gpu}",
                    found=f"{item.name} {item.version}: {', '.join(older)} is built for older GPUs",
                    expected="another backend than the one that uses them, or a build for this GPU",
                    fix=_rebuild(target, item, named.get(item.name), gpu),
                    subject=item.name,
                    severity="warning",
                    sources=("https://github.com/sgl-project/sglang/issues/14700",),
                )


def _no_code(item: Package, archs: tuple[str, ...], gpu: str, target: Target) -> str:
    if archs:
        fits = runs_machine_code(archs, gpu) or runs_ptx(archs, gpu)
        return "" if fits else f"built for {', '.join(archs)}"
    if subjects.major(gpu) < BLACKWELL:  # for older GPUs every CUDA that is still met has code
        return ""
    row = target.limits.first("gpu-arch", gpu=gpu)
    cuda = _built_with(item, gpu, target)
    if row is None or not cuda or subjects.holds(row, "cuda", subjects.minor(cuda)):
        return ""
    return f"built with CUDA {cuda}: {row.why}"


def _built_with(item: Package, gpu: str, target: Target) -> str:
    """CUDA that a package was built with: torch's own, a label's, or by its release."""
    said = item.cuda if isinstance(item.cuda, str) else item.built_for.get("cuda", "")
    if said or item.name != "sgl-kernel" or "+cu" in str(item.version):
        return said
    rows = target.limits.rows("sgl-kernel", **{item.name: subjects.public(str(item.version)), "gpu": gpu})
    return next((row.give["cuda"] for row in rows if "cuda" in row.give), "")


def _older_parts(item: Package, gpu: str) -> list[str]:
    """Extensions of a package whose newest code is for older GPUs than this one, and does not run on it."""
    return [
        posixpath.basename(part.path)
        for part in item.extensions
        if part.archs
        and not runs_machine_code(part.archs, gpu)
        and not runs_ptx(part.archs, gpu)
        and max(subjects.ordinal(arch.removesuffix("+PTX").rstrip("af")) for arch in part.archs) < subjects.ordinal(gpu)
    ]


def _rebuild(target: Target, item: Package, component: str | None, gpu: str) -> tuple[Fix, ...]:
    """A build where the stack can make one for this GPU, the locked one where another is installed, else the GPU."""
    limit = target.limits.first("gpu-arch", gpu=gpu)
    if limit is not None and not subjects.holds(limit, "cuda", target.stack.cuda.default):
        wanted = limit.need["cuda"]
        return (Fix(text=f"This stack has no build for this GPU; take a stack of CUDA {wanted}: {limit.why}"),)
    too_old = next(subjects.broken(target, "gpu-floor", {item.name: subjects.version(item), "gpu": gpu}), None)
    if too_old is not None:
        return (Fix(text=f"Use another GPU: {too_old[0].why}"),)
    pinned = subjects.wanted_component(target, component) if component else None
    if pinned is not None and pinned.recipe is not None and pinned.recipe.compiles:
        return (remedy.build(target, pinned.name, "Build it for this GPU", archs=gpu),)
    if pinned is not None and satisfies(subjects.version(item), f"=={pinned.version}"):
        return (Fix(text=f"Use another GPU: {item.name} {pinned.version}, which the stack pins, has no code for it"),)
    return (remedy.locked(target, "Install the locked build"),)


@rule(
    "gpu-too-old",
    group="driver",
    subject="GPU",
    cause="FlashAttention 2 and the kernels of the engines need tensor cores of Ampere or newer.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/1514",
        "https://github.com/microsoft/MInference/issues/51",
    ),
    fix=("Use an A100, H100, L40S or newer GPU; or another attention implementation where a model allows it.",),
)
def gpu_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every visible GPU is one that the stack's kernels support."""
    subjects.need_gpu(facts)
    wanted = {item.distribution: item.version for item in subjects.wanted(target)}
    names = {known(gpu.compute_capability): known(gpu.name) for gpu in subjects.gpus(facts)}
    for gpu in subjects.capabilities(facts):
        for row, _ in subjects.broken(target, "gpu-floor", {**wanted, "gpu": gpu}):
            yield Finding(
                summary=f"{names[gpu]} is too old: {row.why}",
                found=f"{names[gpu]}, compute capability {gpu}",
                expected=f"compute capability {row.need['gpu']}",
                fix=(Fix(text="Use another GPU, or leave this one out through CUDA_VISIBLE_DEVICES"),),
                subject=names[gpu],
                sources=(row.source,),
            )
            break


@rule(
    "fabric-manager-not-ready",
    group="driver",
    subject="fabric manager",
    cause="GPUs behind NVSwitches wait for the fabric manager, which must have the driver's very version: error 802, "
    "system not yet initialized, although nvidia-smi lists the GPUs.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/pytorch/pytorch/issues/35710",
        "https://github.com/huggingface/huggingface_hub/issues/4134",
        "https://github.com/ollama/ollama/issues/12136",
    ),
    fix=("Install nvidia-fabricmanager of the driver's exact version and start it.",),
)
def fabric_manager_not_ready(facts: Facts, _target: Target) -> Iterator[Finding]:
    """On an NVSwitch system the fabric manager runs, at the driver's version."""
    driver = need_driver(facts)
    fabric = driver.fabric_manager
    if fabric is None:
        msg = "this is no NVSwitch system"
        raise NotApplicable(msg)
    state = known(fabric.state).lower()
    branch = str(driver.version).partition(".")[0]
    faults = []
    if state not in READY:
        faults.append(f"the fabric's state is {fabric.state}")
    if state != "completed" and fabric.nvswitch is True and fabric.active is False:
        faults.append("the fabric manager does not run")
    if fabric.nvswitch is True and isinstance(fabric.version, str) and fabric.version not in {driver.version, ""}:
        faults.append(f"the fabric manager has version {fabric.version}, the driver {driver.version}")
    if faults:
        commands = remedy.as_root(
            facts,
            f"apt-get install -y nvidia-fabricmanager-{branch}={driver.version}-1",
            "systemctl enable --now nvidia-fabricmanager",
        )
        yield Finding(
            summary=faults[0],
            found="; ".join(faults),
            expected=f"an active fabric manager {driver.version}, fabric state completed",
            fix=(Fix(text="Install the one of the driver's version and start it", commands=commands),)
            if facts.container is None
            else (Fix(text="On the machine below: restart the fabric manager, or take another node"),),
        )


@rule(
    "mixed-gpus",
    group="run time",
    subject="GPUs",
    cause="Just-in-time compilers build for the first GPU and run on all of them.",
    stages=("launch", "train"),
    sources=("https://github.com/flashinfer-ai/flashinfer/issues/5355",),
    fix=("Leave one kind of GPU visible through CUDA_VISIBLE_DEVICES.",),
)
def mixed_gpus(facts: Facts, _target: Target) -> Iterator[Finding]:
    """All visible GPUs have one compute capability."""
    found = subjects.need_gpu(facts)
    kinds = subjects.capabilities(facts)
    if len(kinds) > 1:
        first = max(kinds, key=lambda kind: sum(gpu.compute_capability == kind for gpu in found))
        alike = ",".join(str(index) for index, gpu in enumerate(known(facts.gpus)) if gpu.compute_capability == first)
        yield Finding(
            summary=f"GPUs of {len(kinds)} kinds are visible: kernels compiled for one do not run on the other",
            found=", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in found),
            expected="GPUs of one compute capability",
            fix=(remedy.exports("Leave one kind visible", CUDA_VISIBLE_DEVICES=alike, CUDA_DEVICE_ORDER="PCI_BUS_ID"),),
            severity="warning",
        )


@rule(
    "vgpu-unsupported",
    group="run time",
    subject="GPU",
    cause="vGPU profiles lack the peer access and memory mapping that NCCL tries to use.",
    stages=("launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/20226",),
    fix=("Pass whole GPUs through, or set NCCL_CUMEM_ENABLE=0 and NCCL_P2P_DISABLE=1.",),
)
def vgpu_unsupported(facts: Facts, _target: Target) -> Iterator[Finding]:
    """The GPUs are whole ones, or NCCL was told what a virtual one lacks."""
    gpus = subjects.need_gpu(facts)
    virtual = [known(gpu.name) for gpu in gpus if VGPU.search(known(gpu.name))]
    told = subjects.variable(facts, "NCCL_CUMEM_ENABLE") == "0" or subjects.variable(facts, "NCCL_P2P_DISABLE") == "1"
    if virtual and not told:
        yield Finding(
            summary=f"{virtual[0]} is a virtual GPU: NCCL fails on it with unhandled cuda error",
            found=", ".join(virtual),
            expected="whole GPUs, or NCCL_CUMEM_ENABLE=0 and NCCL_P2P_DISABLE=1",
            fix=(remedy.exports("Tell NCCL", NCCL_CUMEM_ENABLE="0", NCCL_P2P_DISABLE="1"),),
            severity="warning",
        )


RULES: tuple[Rule, ...] = (
    gpu_too_old,
    gpu_arch_not_built,
    fabric_manager_not_ready,
    mixed_gpus,
    vgpu_unsupported,
)
