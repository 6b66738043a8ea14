"""TransformerEngine: all parts there, of one version, fit for torch and flash-attn."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts, Package
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, installed, package, rule
from envcheck.rules import remedy, subjects

CORES = ("transformer-engine-cu12", "transformer-engine-cu13")
PARTS = ("transformer-engine", *CORES, "transformer-engine-torch")
EXTENSIONS = ("transformer_engine_torch", "transformer_engine_extensions")
FIRST_ON_INDEX = "1.9"
CUBLAS = ("nvidia-cublas-cu12", "nvidia-cublas")


def transformer_engine(facts: Facts) -> Package:
    """Give an installed part of TransformerEngine, the Python one first, or end the rule as not applicable."""
    found = next((item for name in PARTS if (item := package(facts, name))), None)
    if found is None:
        msg = "TransformerEngine is not installed"
        raise NotApplicable(msg)
    return found


def weight(target: Target) -> Severity:
    """How much a fault of TransformerEngine or Megatron weighs: only their trainer stops at it."""
    return "error" if target.trainer == "megatron" else "warning"


def build_te(target: Target, text: str) -> Fix:
    """Build TransformerEngine from its pinned source."""
    return remedy.build(target, "transformer-engine", text)


@rule(
    "te-torch-extension-missing",
    group="packages",
    subject="TransformerEngine",
    cause="pip install transformer-engine, without the extra [pytorch], leaves the torch extension out; importing ends "
    "in StopIteration, or later in: module 'transformer_engine' has no attribute 'pytorch'.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/NVIDIA/TransformerEngine/issues/1147",
        "https://github.com/NVIDIA/TransformerEngine/issues/1541",
        "https://github.com/nvidia-cosmos/cosmos-transfer1/issues/230",
    ),
    fix=("pip install --no-build-isolation transformer-engine[pytorch], with nvcc and CUDNN_PATH.",),
)
def te_torch_extension_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """TransformerEngine's torch extension is installed."""
    found = transformer_engine(facts)
    if package(facts, "transformer-engine-torch") is not None:
        return
    if any(name in extension.path for extension in found.extensions for name in EXTENSIONS):
        return
    version = subjects.public(subjects.version(found))
    from_source = found.origin is not None or subjects.older(version, FIRST_ON_INDEX)
    if from_source and not found.extensions:
        raise NotApplicable("built from source; its binaries were not read")
    yield Finding(
        summary=f"TransformerEngine {version} has no torch extension",
        found=f"{found.name} {found.version} without transformer_engine_torch",
        expected=f"transformer-engine-torch {version}",
        fix=(
            build_te(target, "Build it with the stack's recipe"),
            remedy.install(
                facts, "Or from the index", "--no-build-isolation", f"transformer-engine[pytorch]=={version}"
            ),
        ),
        severity="ok" if _of_the_lock(target, version) else weight(target),
    )


def _of_the_lock(target: Target, version: str) -> bool:
    """The lock installs the parts that are wheels for every trainer; the extension is built where it is needed."""
    pinned = {item.version for item in target.stack.components if item.distribution.startswith("transformer-engine-")}
    return target.trainer != "megatron" and version in pinned


@rule(
    "te-parts-differ",
    group="packages",
    subject="TransformerEngine",
    cause="The Python part, the core of one CUDA major and the torch extension are three packages; the default extra "
    "takes the core of CUDA 12 whatever torch is.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/NVIDIA/TransformerEngine/issues/1541",
        "https://github.com/awslabs/agentcore-rl-toolkit/pull/86",
    ),
    fix=("Install all parts in one version, with the core of torch's CUDA major.",),
)
def te_parts_differ(facts: Facts, target: Target) -> Iterator[Finding]:
    """The parts of TransformerEngine have one version and torch's CUDA major."""
    transformer_engine(facts)
    parts = {name: version for name in PARTS if (version := subjects.installed_version(facts, name))}
    if len(set(parts.values())) > 1:
        yield _parts(target, "the parts of TransformerEngine have different versions", parts)
    cores = [name for name in CORES if name in parts]
    torch = subjects.torch(facts)
    cuda = torch.cuda if torch is not None else None
    major = f"cu{subjects.major(cuda)}" if isinstance(cuda, str) else ""
    if len(cores) > 1:
        yield _parts(target, "the cores of two CUDA majors are installed over each other", parts)
    elif cores and major and not cores[0].endswith(major):
        yield _parts(target, f"{cores[0]} is not for torch's CUDA {cuda}", parts)


def _parts(target: Target, summary: str, parts: dict[str, str]) -> Finding:
    return Finding(
        summary=summary,
        found=", ".join(f"{name} {version}" for name, version in parts.items()),
        expected="one version of all parts, and one core, of torch's CUDA major",
        fix=(build_te(target, "Build it with the stack's recipe"), remedy.locked(target)),
        severity=weight(target),
    )


@rule(
    "te-flash-attn-range",
    group="packages",
    subject="TransformerEngine",
    cause="Each TransformerEngine release knows the flash-attn of its day and refuses newer ones.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/NVIDIA/TransformerEngine/issues/1123",
        "https://github.com/NVIDIA/Megatron-LM/issues/3984",
    ),
    fix=("Install a flash-attn in the range, or set NVTE_FLASH_ATTN=0: cuDNN's fused attention is then used.",),
)
def te_flash_attn_range(facts: Facts, target: Target) -> Iterator[Finding]:
    """flash-attn is in the range that TransformerEngine accepts, or TransformerEngine does not use it."""
    version = subjects.public(subjects.version(transformer_engine(facts)))
    flash = subjects.public(subjects.version(installed(facts, "flash-attn")))
    row = target.limits.first("transformer-engine", **{"transformer-engine": version})
    if row is None or subjects.holds(row, "flash-attn", flash):
        return
    off = subjects.variable(facts, "NVTE_FLASH_ATTN") == "0"
    yield Finding(
        summary=f"TransformerEngine {version} refuses flash-attn {flash}"
        + ("; NVTE_FLASH_ATTN=0 keeps it from asking" if off else ""),
        found=f"flash-attn {flash}",
        expected=f"flash-attn {row.need['flash-attn']}, or NVTE_FLASH_ATTN=0",
        fix=() if off else (remedy.exports("Use cuDNN's fused attention", NVTE_FLASH_ATTN="0"),),
        severity="ok" if off else weight(target),
        sources=(row.source,),
    )


@rule(
    "te-torch-too-old",
    group="packages",
    subject="TransformerEngine",
    cause="TransformerEngine 2.x uses functions that torch has from 2.1 on.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/NVIDIA/TransformerEngine/blob/v2.2/README.rst",),
    fix=("Install the torch that the stack pins.",),
)
def te_torch_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """torch, CUDA and Python are new enough for TransformerEngine."""
    version = subjects.wanted_version(facts, target, "transformer-engine")
    torch = subjects.torch(facts)
    if version is None or torch is None:
        raise NotApplicable("there is no torch, or no TransformerEngine to judge it by")
    found = {"transformer-engine": version, "torch": subjects.public(subjects.version(torch))}
    if isinstance(torch.cuda, str):
        found["cuda"] = subjects.minor(torch.cuda)
    if not isinstance(facts.python, Unknown) and isinstance(facts.python.version, str):
        found["python"] = facts.python.version
    for row, subject in subjects.broken(target, "transformer-engine", found):
        yield Finding(
            summary=f"{subject} {found[subject]} is outside what TransformerEngine {version} supports",
            found=f"{subject} {found[subject]}",
            expected=f"{subject} {row.need[subject]}",
            fix=(remedy.locked(target),),
            severity=weight(target),
            sources=(row.source,),
        )


@rule(
    "te-cublas-too-old",
    group="packages",
    subject="TransformerEngine",
    cause="A core library that was compiled with CUDA 12.8 sets scale modes of fp8 products; an older cuBLAS refuses "
    "them: `an unsupported value or parameter was passed to the function` in cublaslt_gemm.cu. bfloat16 works.",
    stages=("launch", "train"),
    sources=("https://github.com/NVIDIA/TransformerEngine/blob/v2.2/transformer_engine/common/gemm/cublaslt_gemm.cu",),
    fix=("Train in bfloat16, or compile the core library with torch's own CUDA.",),
)
def te_cublas_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """The cuBLAS that torch loads is as new as the CUDA that TransformerEngine's core was compiled with."""
    transformer_engine(facts)
    have = next((version for name in CUBLAS if (version := subjects.installed_version(facts, name))), None)
    archs = _core_archs(facts)
    if have is None or not archs:
        raise NotApplicable("no cuBLAS wheel, or a core whose architectures were not read")
    rows = [row for arch in archs for row in target.limits.rows("gpu-arch", gpu=arch)]
    unmet = [row for row in rows if not subjects.holds(row, "cuda", subjects.minor(have))]
    if unmet:
        yield subjects.note(
            f"fp8 layers of TransformerEngine do not run: its core was compiled with CUDA {unmet[0].need['cuda']}",
            found=f"cuBLAS {have}, and code for {', '.join(archs)} in libtransformer_engine.so",
            expected=f"cuBLAS {unmet[0].need['cuda']} for fp8; bfloat16 trains with this one",
            fix=(Fix(text="Leave fp8 off; a core compiled from source with torch's CUDA has it"),),
            sources=(unmet[0].source,),
        )


def _core_archs(facts: Facts) -> list[str]:
    """Architectures in libtransformer_engine.so; they tell the least CUDA that it was compiled with."""
    parts = [item for name in PARTS if (item := package(facts, name))]
    cores = (part for item in parts for part in item.extensions if part.path.endswith("libtransformer_engine.so"))
    return list(dict.fromkeys(arch for part in cores for arch in part.archs if not arch.endswith("+PTX")))


RULES: tuple[Rule, ...] = (
    te_torch_extension_missing,
    te_parts_differ,
    te_flash_attn_range,
    te_torch_too_old,
    te_cublas_too_old,
)
