"""Variables that a run inherits: which GPUs, which allocator, which temporary directory, NCCL's switches."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, package, rule
from envcheck.rules import interfaces, remedy, subjects
from envcheck.rules.build_resources import threshold

VISIBLE = "CUDA_VISIBLE_DEVICES"


@rule(
    "cuda-visible-devices-unsupported",
    group="run time",
    subject=VISIBLE,
    cause="The engines read the list as numbers that start at 0: UUIDs break vLLM, numbers from the middle break "
    "sglang's engine inside verl.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/vllm-project/vllm/issues/41848",
        "https://github.com/sgl-project/sglang/issues/4657",
        "https://github.com/THUDM/slime/issues/1326",
    ),
    fix=("Start without it, with 0..N-1, or give the container only the GPUs that are meant.",),
)
def cuda_visible_devices_unsupported(facts: Facts, target: Target) -> Iterator[Finding]:
    """CUDA_VISIBLE_DEVICES is not set, or lists 0, 1, 2 and so on."""
    value = facts.environment.get(VISIBLE)
    if value is None:
        return
    parts = [part.strip() for part in value.split(",")]
    uuids = [part for part in parts if part.startswith(("GPU-", "MIG-"))]
    severity: Severity | None = None
    if parts in ([""], ["-1"], ["NoDevFiles"]):
        what, severity = "hides every GPU", "error"
    elif uuids:
        what = f"has UUIDs, which {target.engine} reads as numbers"
        severity = "error" if target.engine == "vllm" or uuids[0].startswith("MIG-") else "warning"
    elif not all(part.isdigit() for part in parts):
        what, severity = "is no list of numbers", "error"
    elif max(int(part) for part in parts) >= (have := _gpus(facts, parts)):
        what, severity = f"names a GPU that is not there ({have} are), and CUDA drops the rest of the list", "error"
    elif [int(part) for part in parts] != list(range(len(parts))) and target.engine == "sglang":
        what, severity = "does not start at 0 and count up: sglang's engine takes the numbers as they are", "warning"
    if severity:
        yield Finding(
            summary=f"{VISIBLE} {what}",
            found=f"{VISIBLE}={value}",
            expected="not set, or 0,1,… without gaps",
            fix=(
                remedy.unset(VISIBLE),
                Fix(
                    text="Or give the container only these GPUs",
                    commands=(remedy.run_container(facts, f"--gpus '\"device={value}\"'"),),
                ),
            ),
            severity=severity,
        )


def _gpus(facts: Facts, parts: list[str]) -> int:
    """Count the GPUs of the host; as many as are named where they could not be counted."""
    counted = len(facts.gpus) if isinstance(facts.gpus, tuple) else 0
    return counted or max(int(part) for part in parts) + 1


@rule(
    "rocm-visible-devices-set",
    group="run time",
    subject="ROCR_VISIBLE_DEVICES",
    cause="Slurm sets ROCR_VISIBLE_DEVICES on NVIDIA nodes too, and ray 2.45 and newer refuse it at import; verl 0.4 "
    "and newer refuse it, and HIP_VISIBLE_DEVICES, beside the CUDA_VISIBLE_DEVICES that ray sets.",
    stages=("launch", "train"),
    sources=("https://github.com/ray-project/ray/issues/53737",),
    fix=("unset ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES",),
)
def rocm_visible_devices_set(facts: Facts, target: Target) -> Iterator[Finding]:
    """No variable of AMD GPUs is set that ray or verl refuses."""
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if name not in facts.environment:
            continue
        who = [*_refusing(facts, target, "ray", name), *_refusing(facts, target, "verl", name)]
        yield Finding(
            summary=f"{name} is set: " + (f"{' and '.join(who)} refuse it" if who else "newer ray and verl refuse it"),
            found=f"{name}={subjects.variable(facts, name)}",
            expected="not set",
            fix=(remedy.unset(name),),
            severity="error" if who else "ok",
        )


def _refusing(facts: Facts, target: Target, package: str, name: str) -> list[str]:
    """Name a package with its version where that refuses a variable."""
    version = subjects.wanted_version(facts, target, package) or "0"
    rows = target.limits.rows(package, **{package: version})
    return (
        [f"{package} {version}"] if any(name in row.give.get("refuses_variables", "").split() for row in rows) else []
    )


@rule(
    "tmpdir-too-long",
    group="run time",
    subject="TMPDIR",
    cause="ray puts Unix sockets below its temporary directory, and a socket's path has 107 bytes.",
    stages=("launch", "train"),
    sources=("https://github.com/ray-project/ray/issues/7945",),
    fix=("Set RAY_TMPDIR to a short path.",),
)
def tmpdir_too_long(facts: Facts, target: Target) -> Iterator[Finding]:
    """The temporary directory's path is short enough for ray's sockets."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if subjects.variable(facts, name)), None)
    value, longest = subjects.variable(facts, name or "").rstrip("/"), int(threshold(target, "temporary_directory"))
    if name and len(value) > longest:
        yield Finding(
            summary=f"{name} is too long for ray's sockets: {len(value)} characters",
            found=f"{name}={value}",
            expected=f"{longest} characters or fewer",
            fix=(Fix(text="Give ray a short one", commands=("mkdir -p ~/r && export RAY_TMPDIR=~/r",)),),
        )


@rule(
    "nccl-environment-differs",
    group="run time",
    subject="NCCL_*",
    cause="The ranks of one communicator must agree on NCCL's switches: vLLM turns NCCL_CUMEM_ENABLE off in its own "
    "processes, and an image, a shell and ray's workers may each set others.",
    stages=("launch", "train"),
    sources=("https://github.com/NovaSky-AI/SkyRL/pull/143",),
    fix=("export NCCL_CUMEM_ENABLE=0 in every process of the group.",),
)
def nccl_environment_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """NCCL's switches are the same in every process of a run."""
    value = subjects.variable(facts, "NCCL_CUMEM_ENABLE")
    if target.engine == "vllm" and value != "0":
        yield Finding(
            summary="vLLM's processes run with NCCL_CUMEM_ENABLE=0, the trainer's "
            + (f"with {value}" if value else "with NCCL's default"),
            found=f"NCCL_CUMEM_ENABLE={value or 'not set'}",
            expected="NCCL_CUMEM_ENABLE=0 everywhere, where trainer and rollout are separate processes",
            fix=(remedy.exports("Set it for all", NCCL_CUMEM_ENABLE="0"),),
            severity="warning" if value or _is_disaggregated(facts) else "ok",
        )
    set_by_image = facts.manifest.environment if facts.manifest and not isinstance(facts.manifest, Unknown) else {}
    for name, said in set_by_image.items():
        if name.startswith("NCCL_") and facts.environment.get(name, said) != said:
            yield Finding(
                summary=f"{name} is not what the other nodes' image sets",
                found=f"{name}={facts.environment[name]}",
                expected=f"{name}={said}",
                fix=(remedy.exports("Set it as the image does", **{name: said}),),
                severity="warning",
            )


def _is_disaggregated(facts: Facts) -> bool:
    return facts.wish is not None and facts.wish.nodes > 1


@rule(
    "network-interface-unresolved",
    group="run time",
    subject="hostname",
    cause="The host's own name resolves to the loopback address: Gloo tells the other nodes to connect to 127.0.0.1.",
    stages=("launch", "train"),
    sources=("https://github.com/aws-samples/aws-do-eks/pull/50",),
    fix=("export GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME, or mend /etc/hosts.",),
)
def network_interface_unresolved(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Where a run has several nodes, this host's name leads the others to it."""
    yield from interfaces.named_wrongly(facts, _nodes(facts))
    if subjects.variable(facts, "GLOO_SOCKET_IFNAME"):
        return
    address = subjects.resources(facts).hostname_resolves
    nodes = _nodes(facts)
    loopback = isinstance(address, Unknown) or address.startswith("127.") or address in {"", "::1"}
    if loopback and address != "unknown":
        shown = address.unknown if isinstance(address, Unknown) else address
        yield Finding(
            summary="this host's own name leads to itself only"
            + (f", and the run has {nodes} nodes" if nodes > 1 else ""),
            found=f"the hostname resolves to {shown or 'nothing'}",
            expected="the address of the network between the nodes, or GLOO_SOCKET_IFNAME",
            fix=(remedy.exports("Name the interface", GLOO_SOCKET_IFNAME="eth0", NCCL_SOCKET_IFNAME="eth0"),),
            severity="error" if nodes > 1 else "ok",
        )


def _nodes(facts: Facts) -> int:
    """Count of nodes of the run: as wished, as Slurm or torchrun say, or two where ray's head is elsewhere."""
    if facts.wish is not None and facts.wish.nodes > 1:
        return facts.wish.nodes
    said = [subjects.variable(facts, name) for name in ("SLURM_JOB_NUM_NODES", "SLURM_NNODES", "NNODES", "RAY_NNODES")]
    counts = [int(item) for item in said if item.isdigit()]
    ray = facts.ray.address if facts.ray is not None and not isinstance(facts.ray, Unknown) else None
    master = subjects.variable(facts, "MASTER_ADDR") or ray or ""
    elsewhere = master.partition(":")[0] not in {"", "auto", "local", "localhost", "127.0.0.1"}
    return max([*counts, 2 if elsewhere else 1])


@rule(
    "allocator-conf-unsupported",
    group="run time",
    subject="PYTORCH_CUDA_ALLOC_CONF",
    cause="vLLM's sleep mode and torch_memory_saver replace torch's allocator; they refuse expandable segments.",
    stages=("launch", "train"),
    sources=("https://github.com/vllm-project/vllm/pull/40812", "https://github.com/OpenRLHF/OpenRLHF/pull/1274"),
    fix=("Take expandable_segments:True out of PYTORCH_CUDA_ALLOC_CONF.",),
)
def alloc_conf_conflict(facts: Facts, target: Target) -> Iterator[Finding]:
    """The allocator's settings go with releasing memory between rollout and training."""
    name = "PYTORCH_CUDA_ALLOC_CONF"
    value = subjects.variable(facts, name) or subjects.variable(facts, "PYTORCH_ALLOC_CONF")
    if "expandable_segments:true" not in value.lower().replace(" ", ""):
        return
    saver = target.engine == "sglang" and package(facts, "torch-memory-saver") is not None
    if target.engine == "sglang" and not saver:
        raise NotApplicable("torch-memory-saver is not installed")
    rest = ",".join(part for part in value.split(",") if "expandable_segments" not in part)
    yield Finding(
        summary="expandable segments break "
        + ("vLLM's sleep mode" if target.engine == "vllm" else "torch-memory-saver"),
        found=f"{name}={value}",
        expected="no expandable_segments:True",
        fix=(remedy.exports("Take it out", **{name: rest}) if rest else remedy.unset(name),),
        severity="error" if target.engine == "vllm" else "warning",
    )


@rule(
    "version-check-disabled",
    group="run time",
    subject="environment",
    cause="A check was turned off to get past a clear error; what it guards against then crashes later.",
    stages=("launch", "train"),
    sources=("https://github.com/lightseekorg/tokenspeed/pull/284",),
    fix=("unset it and mend what the check says.",),
)
def version_check_disabled(facts: Facts, _target: Target) -> Iterator[Finding]:
    """No version check of the kernels is turned off."""
    for name in ("FLASHINFER_DISABLE_VERSION_CHECK", "SGLANG_DISABLE_CUDNN_CHECK"):
        if subjects.variable(facts, name) not in {"", "0", "false", "False"}:
            yield Finding(
                summary=f"{name} turns a check off",
                found=f"{name}={subjects.variable(facts, name)}",
                expected="not set",
                fix=(remedy.unset(name),),
                severity="warning",
            )


RULES: tuple[Rule, ...] = (
    cuda_visible_devices_unsupported,
    rocm_visible_devices_set,
    tmpdir_too_long,
    nccl_environment_differs,
    network_interface_unresolved,
    alloc_conf_conflict,
    version_check_disabled,
)
