"""The CUDA toolkit that a build or a just-in-time compiler takes."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck import choices
from envcheck.codec import Unknown
from envcheck.facts import Facts, Toolkit
from envcheck.limits import satisfies
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, rule
from envcheck.rules import remedy, subjects

QUOTES = "\u201c\u201d\u2018\u2019\"'"
"""Typographic ones too: they come along when a line is copied from a web page."""
PARTS = ("/bin", "/nvcc", "/lib64", "/include")
DEVEL_IMAGE = "nvidia/cuda:12.4.1-devel-ubuntu22.04"


def others(facts: Facts, target: Target) -> tuple[Fix, ...]:
    """Take another toolkit that is on this host and has the stack's CUDA version."""
    fitting = [
        item
        for item in subjects.toolkits(facts)
        if not item.selected and isinstance(item.nvcc, str) and _is_stack_cuda(item, target)
    ]
    if not fitting:
        return ()
    home = fitting[0].path
    commands = (remedy.export("CUDA_HOME", home), f"export PATH={home}/bin:$PATH")
    return (Fix(text=f"Take the CUDA {fitting[0].version} that is on this host", commands=commands),)


def right_major(facts: Facts, target: Target) -> int:
    """CUDA major that nvcc has to have: a build is for the stack's torch, later the installed one counts."""
    installed = None if target.stage == "build" else choices.torch_cuda(facts)
    return subjects.major(installed or subjects.label_cuda(target) or target.stack.cuda.default)


def right_toolkit(facts: Facts, target: Target) -> tuple[Fix, ...]:
    """Take the stack's toolkit where the host has it, or provision it."""
    return (*others(facts, target), remedy.toolchain(target))


def _is_stack_cuda(item: Toolkit, target: Target) -> bool:
    return isinstance(item.version, str) and satisfies(item.version, f"=={target.stack.cuda.default}.*")


@rule(
    "nvcc-missing",
    group="toolkit",
    subject="nvcc",
    cause="Only the driver, or a runtime image, is there; compiling needs the CUDA toolkit. The NVIDIA wheels of the "
    "package index hold no nvcc.",
    stages=("build", "launch"),
    sources=("https://github.com/Dao-AILab/flash-attention/issues/246",),
    fix=("Install the toolkit, take a -devel image, or provision it without root: nox -s toolchain.",),
)
def nvcc_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """An nvcc is there for what has to be compiled."""
    if any(isinstance(item.nvcc, str) for item in subjects.toolkits(facts)):
        return
    if target.stage != "build" and not subjects.compiled_at_run_time(facts):
        msg = "nothing that is installed compiles CUDA at run time"
        raise NotApplicable(msg)
    there = [f"{item.path} ({item.version}, without nvcc)" for item in subjects.toolkits(facts)]
    yield Finding(
        summary="there is no nvcc on this host" + (", only a runtime" if there else ""),
        found=", ".join(there) or "no CUDA toolkit",
        expected=f"nvcc of CUDA {target.stack.cuda.default}",
        fix=(remedy.toolchain(target), *_system_toolkit(facts, target)),
        severity=subjects.at_run_time(facts, target),
    )


def _system_toolkit(facts: Facts, target: Target) -> tuple[Fix, ...]:
    if facts.container is not None:
        return (Fix(text=f"Start from an image with the toolkit, such as {DEVEL_IMAGE}"),)
    cuda = target.stack.cuda.default
    names = {"apt": f"cuda-toolkit-{cuda.replace('.', '-')}", "dnf": f"cuda-toolkit-{cuda.replace('.', '-')}"}
    return remedy.system_packages(facts, f"the toolkit from NVIDIA's repository of CUDA {cuda}", names)


@rule(
    "cuda-home-invalid",
    group="toolkit",
    subject="CUDA_HOME",
    cause="CUDA_HOME was copied with typographic quotes, lists several directories, names bin or nvcc itself, or a "
    "toolkit that is not there (any more).",
    stages=("build", "launch"),
    sources=("https://github.com/pytorch/pytorch/blob/main/torch/utils/cpp_extension.py",),
    fix=("Set CUDA_HOME to the directory that has bin/nvcc in it, in plain quotes or none.",),
)
def cuda_home_invalid(facts: Facts, target: Target) -> Iterator[Finding]:
    """CUDA_HOME, where it is set, names one CUDA toolkit that has nvcc."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        value = facts.environment.get(name)
        if value is None or (name == "CUDA_PATH" and facts.environment.get("CUDA_HOME")):
            continue
        fault = _malformed(value) or _not_a_toolkit(facts, value)
        if fault:
            yield Finding(
                summary=f"{name} {fault}",
                found=f"{name}={value}",
                expected="the directory of one toolkit, which has bin/nvcc in it",
                fix=_right_home(facts, target),
                severity="warning" if subjects.at_run_time(facts, target) == "ok" else "error",
            )
            return
    yield from _without_headers(facts, target)


def _without_headers(facts: Facts, target: Target) -> Iterator[Finding]:
    """An nvcc without the toolkit's headers, as conda's cuda-nvcc alone or a script in /usr/local/bin."""
    taken = next((item for item in subjects.toolkits(facts) if item.selected and isinstance(item.nvcc, str)), None)
    weight = subjects.at_run_time(facts, target) if taken is not None and taken.headers is False else "ok"
    if taken is None or weight == "ok":
        return
    elsewhere = any(item.headers is True and item.version == taken.version for item in subjects.toolkits(facts))
    yield Finding(
        summary=f"the toolkit that builds take, {taken.path}, has nvcc but not the headers of the CUDA run time",
        found=f"no cuda_runtime.h below {taken.path}",
        expected="one directory that has bin/nvcc and include/cuda_runtime.h",
        fix=(*_whole_home(facts, target, taken), *right_toolkit(facts, target)),
        subject=taken.path,
        severity="warning" if elsewhere else weight,
    )


def _whole_home(facts: Facts, target: Target, taken: Toolkit) -> tuple[Fix, ...]:
    """Name the whole toolkit of the same version that is on this host too, or complete the one of conda.

    Not one of a CUDA major that torch refuses: see nvcc-differs-from-torch.
    """
    if isinstance(taken.version, str) and subjects.major(taken.version) != right_major(facts, target):
        return ()
    whole = [item.path for item in subjects.toolkits(facts) if item.headers is True and item.version == taken.version]
    if whole:
        return (remedy.exports("Name the directory that has both", CUDA_HOME=whole[0]),)
    prefix = remedy.conda_prefix(facts)
    in_conda = bool(prefix) and taken.path.startswith(str(prefix))
    return (remedy.conda_install(facts, "Complete it", f"cuda-toolkit={taken.version}"),) if in_conda else ()


def _malformed(value: str) -> str:
    faults = {
        "is set to nothing": not value.strip(),
        "has quotation marks in its value": any(quote in value for quote in QUOTES),
        "has spaces around its value": value != value.strip(),
        "is a list of directories": ":" in value,
        "is no absolute path": not value.startswith("/"),
        "names a part of a toolkit, not the toolkit": value.rstrip("/").endswith(PARTS),
    }
    return next((text for text, holds in faults.items() if holds), "")


def _not_a_toolkit(facts: Facts, value: str) -> str:
    place = value.rstrip("/")
    meant = [
        item
        for item in subjects.toolkits(facts)
        if item.path.rstrip("/") == place or item.source == "env" or "CUDA_HOME" in item.why or "CUDA_PATH" in item.why
    ]
    if all(isinstance(item.version, Unknown) and item.nvcc is None for item in meant):
        return "names a directory that holds no CUDA toolkit"
    return "" if any(item.nvcc is not None for item in meant) else "names a toolkit without nvcc"


def _right_home(facts: Facts, target: Target) -> tuple[Fix, ...]:
    major = right_major(facts, target)
    with_nvcc = (item for item in subjects.toolkits(facts) if isinstance(item.nvcc, str))
    fitting = (item for item in with_nvcc if isinstance(item.version, str) and subjects.major(item.version) == major)
    there = sorted(fitting, key=lambda item: not _is_stack_cuda(item, target))
    if not there:
        return (remedy.toolchain(target),)
    return (remedy.exports(f"Name CUDA {there[0].version} of this host", CUDA_HOME=there[0].path),)


@rule(
    "nvcc-differs-from-torch",
    group="toolkit",
    subject="nvcc",
    cause="torch refuses to build extensions with another CUDA major than its own; apex refuses another minor too. "
    "PATH or CUDA_HOME names another toolkit than the stack's.",
    stages=("build", "launch"),
    sources=(
        "https://github.com/NVIDIA/apex/issues/1748",
        "https://github.com/pytorch/pytorch/blob/main/torch/utils/cpp_extension.py",
    ),
    fix=("Point CUDA_HOME and PATH at the toolkit of torch's CUDA version, or provision it: nox -s toolchain.",),
)
def nvcc_differs_from_torch(facts: Facts, target: Target) -> Iterator[Finding]:
    """nvcc has the CUDA version that torch was built with."""
    taken = subjects.nvcc_toolkit(facts)
    by_cmake = [item for item in subjects.toolkits(facts) if item.cmake and item.path != taken.path]
    for toolkit in (taken, *(by_cmake if subjects.wanted_component(target, "transformer-engine") else ())):
        for name, wanted in _torches(facts, target):
            if subjects.minor(known(toolkit.version)) != wanted:
                yield _other_cuda(facts, target, toolkit, (name, wanted))


def _torches(facts: Facts, target: Target) -> list[tuple[str, str]]:
    """The torch that is installed, and the stack's where another is: a build will be for that one."""
    found = [("torch", subjects.torch_cuda(facts, target))]
    torch, pinned = subjects.torch(facts), subjects.wanted_component(target, "torch")
    other = torch is not None and pinned is not None and not satisfies(subjects.version(torch), f"=={pinned.version}")
    stacks_own = subjects.label_cuda(target)
    if target.stage == "build" and other and stacks_own and stacks_own != found[0][1]:
        found.append(("the stack's torch", stacks_own))
    return found


def _other_cuda(facts: Facts, target: Target, toolkit: Toolkit, torch: tuple[str, str]) -> Finding:
    cuda, (name, wanted) = known(toolkit.version), torch
    same_major = subjects.major(cuda) == subjects.major(wanted)
    apex = same_major and _apex_is_built(facts, target)
    consequence = "torch refuses to build" if not same_major else "apex refuses to build" if apex else "it is tolerated"
    nvcc = "nvcc" if toolkit.selected else "cmake's nvcc"
    return Finding(
        summary=f"{nvcc} is CUDA {cuda}, {name} is CUDA {wanted}: {consequence}",
        found=f"{toolkit.path} {cuda} {toolkit.why}".rstrip(),
        expected=f"CUDA {wanted}",
        fix=right_toolkit(facts, target),
        severity=_weight(facts, target, breaks=not same_major or apex),
    )


def _weight(facts: Facts, target: Target, *, breaks: bool) -> Severity:
    weight = subjects.at_run_time(facts, target)
    return "warning" if weight == "error" and not breaks else weight


def _apex_is_built(facts: Facts, target: Target) -> bool:
    named = facts.sources if isinstance(facts.sources, tuple) else ()
    item = subjects.wanted_component(target, "apex")
    return (item is not None and not item.optional) or any(source.name == "apex" for source in named)


@rule(
    "nvcc-too-old-for-gpu",
    group="toolkit",
    subject="nvcc",
    cause="The toolkit appeared before the GPU: Unsupported gpu architecture.",
    stages=("build", "launch"),
    sources=("https://github.com/flashinfer-ai/flashinfer/issues/1657",),
    fix=("Point CUDA_HOME at a newer toolkit.",),
)
def nvcc_too_old_for_gpu(facts: Facts, target: Target) -> Iterator[Finding]:
    """nvcc can compile for every GPU of this host."""
    toolkit = subjects.nvcc_toolkit(facts)
    subjects.need_gpu(facts)
    cuda = known(toolkit.version)
    for gpu in subjects.capabilities(facts):
        row = target.limits.first("gpu-arch", gpu=gpu)
        if row is None or (gpu in toolkit.archs and subjects.holds(row, "cuda", cuda)):
            continue
        wanted = row.need["cuda"] if not subjects.holds(row, "cuda", cuda) else row.give.get("wanted", "")
        if not wanted or satisfies(cuda, wanted):
            continue
        yield Finding(
            summary=f"nvcc {cuda} does not compile all that a GPU of compute capability {gpu} needs: {row.why}",
            found=f"CUDA {cuda} in {toolkit.path}, GPU of compute capability {gpu}",
            expected=f"CUDA {wanted}",
            fix=_newer_toolkit(facts, target, wanted),
            severity=_weight(facts, target, breaks=wanted == row.need["cuda"]),
            sources=(row.source,),
        )


def _newer_toolkit(facts: Facts, target: Target, wanted: str) -> tuple[Fix, ...]:
    """The stack's own toolkit where that compiles for the GPU; else no toolkit helps, and another stack is needed."""
    own = target.stack.cuda.default
    if satisfies(own, wanted):
        return right_toolkit(facts, target)
    text = f"Take a stack of CUDA {wanted}, or another GPU: the CUDA {own} of this stack does not compile for it"
    return (Fix(text=text),)


RULES: tuple[Rule, ...] = (nvcc_missing, cuda_home_invalid, nvcc_differs_from_torch, nvcc_too_old_for_gpu)
