"""Kernel packages: parts of one version, built for the torch that is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts, Package
from envcheck.limits import satisfies
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, installed, known, package, rule
from envcheck.rules import remedy, subjects

FLASHINFER = ("flashinfer-python", "flashinfer")
BUILD = re.compile(r"cu(\d+)\.?torch(\d+\.\d+)")
INDEX = "https://flashinfer.ai/whl"


def flashinfer(facts: Facts) -> Package:
    """Give the installed flashinfer, or end the rule as not applicable."""
    found = next((item for name in FLASHINFER if (item := package(facts, name))), None)
    if found is None:
        msg = "flashinfer is not installed"
        raise NotApplicable(msg)
    return found


def need_torch(facts: Facts) -> Package:
    """Give the installed torch, or end the rule as not applicable."""
    return installed(facts, "torch")


def torch_abi(facts: Facts, target: Target) -> bool | None:
    """C++ ABI of the installed torch, as read or by its version and CUDA; None where neither tells."""
    found = need_torch(facts)
    if isinstance(found.cxx11_abi, bool):
        return found.cxx11_abi
    cuda = found.cuda if isinstance(found.cuda, str) else "0"
    row = target.limits.first("torch-abi", torch=subjects.public(subjects.version(found)), cuda=subjects.minor(cuda))
    return row.give["cxx11_abi"] == "true" if row else None


@rule(
    "flashinfer-parts-differ",
    group="packages",
    subject="flashinfer",
    cause="flashinfer-cubin or flashinfer-jit-cache was updated without flashinfer-python; "
    "FLASHINFER_DISABLE_VERSION_CHECK turns the clear error into illegal memory accesses.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/vllm-project/vllm/issues/49804",
        "https://github.com/lightseekorg/tokenspeed/pull/284",
    ),
    fix=("Install equal versions; never turn the check off.",),
)
def flashinfer_parts_differ(facts: Facts, _target: Target) -> Iterator[Finding]:
    """All parts of flashinfer have one version."""
    main = flashinfer(facts)
    version = subjects.public(subjects.version(main))
    for name in ("flashinfer-cubin", "flashinfer-jit-cache"):
        part = subjects.installed_version(facts, name)
        if part and part != version:
            off = subjects.variable(facts, "FLASHINFER_DISABLE_VERSION_CHECK") not in {"", "0"}
            yield Finding(
                summary=f"{name} {part} belongs to another flashinfer"
                + (", and the check is turned off" if off else ""),
                found=f"{main.name} {main.version}, {name} {part}",
                expected=f"{name} {version}",
                fix=(
                    remedy.install(facts, "Install the same version", f"{name}=={version}", "--extra-index-url", INDEX),
                    *((remedy.unset("FLASHINFER_DISABLE_VERSION_CHECK"),) if off else ()),
                ),
                subject=name,
            )


@rule(
    "flashinfer-torch-differs",
    group="packages",
    subject="flashinfer",
    cause="The wheel was taken from the index of another torch or CUDA; one torch version may exist with two C++ ABIs, "
    "and NVIDIA's containers have a torch of their own.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/flashinfer-ai/flashinfer/issues/382",
        "https://github.com/flashinfer-ai/flashinfer/issues/911",
        "https://github.com/flashinfer-ai/flashinfer/pull/985",
    ),
    fix=("Take the index that names the installed torch and CUDA, or flashinfer's sources, compiled at run time.",),
)
def flashinfer_torch_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """flashinfer's compiled kernels are built for the installed torch."""
    found, torch = flashinfer(facts), need_torch(facts)
    label = BUILD.search(f"{found.version} {found.build or ''}")
    built = found.built_for.get("torch") or (label[2] if label else None)
    if built is None:
        msg = "flashinfer is compiled at run time"
        raise NotApplicable(msg)
    version, abi = subjects.version(torch), torch_abi(facts, target)
    cuda = label[1] if label else ""
    row = target.limits.first("torch-abi", torch=f"{built}.0", cuda=f"{cuda[:-1]}.{cuda[-1]}" if cuda else "12.4")
    built_abi = row.give["cxx11_abi"] == "true" if row else None
    differs = subjects.minor(built) != subjects.minor(version)
    other_abi = abi is not None and built_abi is not None and abi != built_abi
    if differs or other_abi or _private(version):
        yield Finding(
            summary=f"flashinfer is built for torch {built}, installed is torch {version}"
            + ("" if differs else " with the other C++ ABI"),
            found=f"{found.name} {found.version}, torch {version}",
            expected=f"flashinfer for torch {subjects.minor(version)} and its C++ ABI",
            fix=(_reinstall_flashinfer(facts, target, found, version),),
        )


def _private(version: str) -> bool:
    """Tell the pre-releases of NVIDIA's containers, ``2.5.0a0+872d972e41.nv24.08``, which no public wheel fits."""
    return "a0+" in version or ".nv" in version


def _reinstall_flashinfer(facts: Facts, target: Target, found: Package, torch: str) -> Fix:
    cuda = subjects.torch_cuda(facts, target).replace(".", "")
    where = f"{INDEX}/cu{cuda}/torch{subjects.minor(torch)}/"
    name = f"{found.name}=={subjects.public(str(found.version))}"
    if _private(torch):
        return remedy.install(facts, "Install the sources, compiled at run time", "--no-binary", found.name, name)
    return remedy.install(
        facts, "Take the index of the installed torch", "--force-reinstall", "--no-deps", "-i", where, name
    )


@rule(
    "sgl-kernel-differs",
    group="packages",
    subject="sgl-kernel",
    cause="sgl-kernel declares no dependencies: a resolver pairs it with any torch and any sglang.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/sgl-project/sglang/pull/30562",),
    fix=("Install the sgl-kernel that sglang pins, and the torch that it was built with.",),
)
def sgl_kernel_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """sgl-kernel is the one that sglang asks for, built with the installed torch."""
    name = next((name for name in ("sgl-kernel", "sglang-kernel") if package(facts, name)), None)
    if name is None:
        msg = "sgl-kernel is not installed"
        raise NotApplicable(msg)
    have = subjects.versions(facts)
    for row, subject in subjects.broken(target, "sgl-kernel", have):
        if subject == "torch":
            kernel = next(iter(row.when))
            yield Finding(
                summary=f"{kernel} {have[kernel]} is built for torch {row.need['torch']}, installed is {have['torch']}",
                found=f"{kernel} {have[kernel]}, torch {have['torch']}",
                expected=f"torch {row.need['torch']}",
                fix=(remedy.locked(target),),
                sources=(row.source,),
            )
    for row, subject in subjects.broken(target, "sglang", have):
        if subject == name:
            pins = [(item, subjects.wanted_component(target, item)) for item in ("sgl-kernel", "sglang")]
            as_pinned = all(pin and satisfies(have.get(item, "0"), f"=={pin.version}") for item, pin in pins)
            yield Finding(
                summary=f"sglang {have['sglang']} asks for {name}{row.need[name]}, installed is {have[name]}",
                found=f"{name} {have[name]}",
                expected=f"{name}{row.need[name]}",
                fix=(remedy.locked(target),),
                severity="ok" if as_pinned else "error",
                sources=(row.source,),
            )


@rule(
    "torchvision-torch-differs",
    group="packages",
    subject="torchvision",
    cause="torchvision (or torchaudio) was installed for another torch, or as a CPU build: operator torchvision::nms "
    "does not exist.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/5736",),
    fix=("Install the torchvision that belongs to the torch, from the same index.",),
)
def torchvision_torch_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """torchvision and torchaudio belong to the installed torch."""
    torch = need_torch(facts)
    row = target.limits.first("torchvision", torch=subjects.public(subjects.version(torch)))
    for name in ("torchvision", "torchaudio"):
        found = package(facts, name)
        if found is None or row is None:
            continue
        version = subjects.version(found)
        local = version.partition("+")[2]
        wrong = not satisfies(subjects.public(version), row.need[name])
        if wrong or (local == "cpu" and torch.cuda is not None):
            yield Finding(
                summary=f"{name} {version} does not belong to torch {torch.version}",
                found=f"{name} {version}, torch {torch.version}",
                expected=f"{name} {row.need[name]}",
                fix=(remedy.install(facts, "Install the one that belongs to it", f"{name}{row.need[name]}"),),
                subject=name,
                sources=(row.source,),
            )


def pinned_torch(item: Package, target: Target, table: str) -> tuple[str, str] | None:
    """Torch that a package asks for exactly, by its metadata or by the table: specifier and source."""
    for line in item.requires:
        found = re.match(r"torch\s*\(?\s*(==\s*[\d.]+)", line)
        if found and "extra" not in line:
            return found[1].replace(" ", ""), ""
    row = target.limits.first(table, **{item.name: subjects.public(known(item.version))})
    return (row.need["torch"], row.source) if row and "torch" in row.need else None


def built_for_other_torch(facts: Facts, target: Target, name: str, severity: Severity) -> Iterator[Finding]:
    """Compare the torch that a package was built for with the installed one."""
    item, torch = installed(facts, name), need_torch(facts)
    version = subjects.public(subjects.version(torch))
    built = item.built_for.get("torch")
    asked = (f"=={subjects.public(built)}", "") if built else pinned_torch(item, target, name)
    if asked is None or satisfies(version, asked[0]):
        return
    yield Finding(
        summary=f"{name} {item.version} is built for torch {asked[0].lstrip('=')}, installed is torch {torch.version}",
        found=f"{name} {item.version}, torch {torch.version}",
        expected=f"torch {asked[0]}",
        fix=(remedy.locked(target),),
        severity=severity,
        sources=(asked[1],) if asked[1] else (),
    )


@rule(
    "vllm-torch-differs",
    group="packages",
    subject="vllm",
    cause="vLLM pins one torch exactly; sglang of the same month often pins another: one environment cannot hold both.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/13116",),
    fix=("Give each engine its own environment.",),
)
def vllm_torch_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """vLLM is built for the installed torch."""
    yield from built_for_other_torch(facts, target, "vllm", "error" if target.engine == "vllm" else "warning")


@rule(
    "xformers-torch-differs",
    group="packages",
    subject="xformers",
    cause="An unpinned xformers is one release ahead of the torch that vLLM pins.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/13116",),
    fix=("Install the xformers that vLLM pins.",),
)
def xformers_torch_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """xformers is built for the installed torch."""
    yield from built_for_other_torch(facts, target, "xformers", "error" if target.engine == "vllm" else "warning")


@rule(
    "prebuilt-wheel-missing",
    group="packages",
    subject="flash-attn",
    cause="The installed torch is ahead of the newest one that flash-attn's release has wheels for: pip falls back to "
    "a build of hours, without a word.",
    stages=("build",),
    sources=("https://github.com/modelscope/ms-swift/issues/8434",),
    fix=("Build it with ninja, MAX_JOBS and nvcc, or take a torch that the release has a wheel for.",),
)
def flash_attn_wheel_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """flash-attn's release has a wheel for the installed torch, or it is installed already."""
    torch = need_torch(facts)
    if package(facts, "flash-attn") is not None:
        return
    item = subjects.wanted_component(target, "flash-attn")
    row = target.limits.first("flash-attn", **{"flash-attn": item.version}) if item else None
    if item is None or row is None or isinstance(torch.version, Unknown):
        msg = "flash-attn is not wanted"
        raise NotApplicable(msg)
    if subjects.minor(torch.version) not in row.give["torch"].split():
        yield Finding(
            summary=f"flash-attn {item.version} has no wheel for torch {torch.version}: it will be compiled",
            found=f"torch {torch.version}",
            expected=f"torch {row.give['torch'].replace(' ', ', ')}",
            fix=(remedy.build(target, "flash-attn", "Build it"),),
            severity="warning",
            sources=(row.source,),
        )


RULES: tuple[Rule, ...] = (
    flashinfer_parts_differ,
    flashinfer_torch_differs,
    sgl_kernel_differs,
    torchvision_torch_differs,
    vllm_torch_differs,
    xformers_torch_differs,
    flash_attn_wheel_missing,
)
