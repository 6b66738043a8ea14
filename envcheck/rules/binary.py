"""Binaries: every extension was built for the installed torch, with its C++ ABI; torch is a public build."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from envcheck.binary.abi import of_torch
from envcheck.facts import Facts, Package
from envcheck.limits import satisfies
from envcheck.model import Finding, Fix, Rule, Severity, Target, known, rule
from envcheck.rules import binary_evidence as evidence
from envcheck.rules import binary_libraries, remedy, subjects

ABI_NAMES = {True: "the new C++ ABI (std::__cxx11::string)", False: "the old C++ ABI (std::string as before GCC 5)"}
OTHER_TORCH = re.compile(r"lib(?:torch|c10)_(?!cpu|cuda\.|python|global)")
"""Libraries that torch had in other releases or builds, as libtorch_cuda_cu.so of 1.x."""
OTHER_ABI = {True: "__cxx11", False: "Ss"}


@rule(
    "extension-built-for-other-torch",
    group="binary",
    subject="extensions",
    cause="A C++ extension is tied to the torch minor release that it was compiled against: torch's symbols change "
    "their signatures from release to release. A prebuilt wheel, or one from pip's cache, was made for another torch.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/723",
        "https://github.com/sgl-project/sglang/pull/30562",
        "https://github.com/flashinfer-ai/flashinfer/issues/911",
    ),
    fix=(
        "Take the wheel whose name has the installed torch's minor version.",
        "Or compile the package with --no-build-isolation --no-cache-dir after torch is installed.",
    ),
)
def built_for_this_torch(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every extension was built for the torch that is installed."""
    torch = evidence.torch(facts)
    text = subjects.public(known(torch.version))
    for item in evidence.packages(facts):
        found = _other_torch(facts, target, item, text)
        if found is not None:
            evidence_text, severity, sources = found
            yield Finding(
                summary=f"{evidence.shown_label(item)} was built for another torch than the installed {text}",
                found=evidence_text,
                expected=f"a build for torch {subjects.minor(text)}",
                fix=evidence.replacement(facts, target, item),
                subject=item.name,
                severity=severity,
                sources=sources,
            )


def _other_torch(
    facts: Facts, target: Target, item: Package, torch: str
) -> tuple[str, Severity, tuple[str, ...]] | None:
    """Evidence that a package was built for another torch, how much it weighs, and the sources of a table's row."""
    abi = evidence.torch(facts).cxx11_abi
    for extension in item.extensions:
        names = tuple(name for name in extension.undefined if of_torch(name))
        if names and not (isinstance(abi, bool) and evidence.string_abi(extension) is (not abi)):
            harmless = evidence.swallowed(target, item)
            if harmless and harmless[1] == "ok":  # undefined-symbol tells it, as a note
                return None
            return evidence.symbols_shown(extension, names), harmless[1] if harmless else "error", ()
        gone = [name for name in extension.missing if OTHER_TORCH.match(name)]
        if gone:
            place = posixpath.basename(extension.path)
            return f"{place} needs {', '.join(gone)}, which torch {torch} has not", "error", ()
    built = evidence.label(item).get("torch", "")
    if built and subjects.minor(built) != subjects.minor(torch):
        loads = bool(item.extensions) and not any(extension.undefined for extension in item.extensions)
        return f"its label says torch {built}", "warning" if loads else "error", ()
    return _by_tables(target, item, torch) if not item.extensions and not built else None


def _by_tables(target: Target, item: Package, torch: str) -> tuple[str, Severity, tuple[str, ...]] | None:
    """Evidence by what is known of the release, where its bytes were not read and its name says nothing."""
    name, version = item.name, evidence.version(item)
    for row in target.limits.rows("sgl-kernel", **{name: version}):
        if "torch" in row.need and not satisfies(torch, row.need["torch"]):
            return f"{name} {version} is built for torch {row.need['torch']}", "error", (row.source,)
    row_of_release = target.limits.first("flash-attn", **{name: version}) if item.origin is None else None
    if row_of_release and subjects.minor(torch) not in row_of_release.give["torch"].split():
        minors = row_of_release.give["torch"]
        return f"release wheels of {name} {version} are for torch {minors} only", "warning", (row_of_release.source,)
    return None


@rule(
    "cxx11-abi-differs",
    group="binary",
    subject="extensions",
    cause="std::string has two layouts in libstdc++, and their names differ. torch up to 2.5 and 2.6+cu124 has the "
    "old one, 2.6+cu126 and later the new one; an extension must have torch's. A label cxx11abiFALSE means only that "
    "the ABI was not forced: flash-attn >= 2.8.0 names wheels so that carry the new one.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/1717",
        "https://github.com/verl-project/verl/issues/2411",
        "https://github.com/flashinfer-ai/flashinfer/pull/985",
    ),
    fix=("Take a wheel that was built with the installed torch's ABI (its bytes tell, not its name), or compile it.",),
)
def same_cxx11_abi(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every extension has the C++ string ABI of the installed torch."""
    torch = evidence.torch(facts)
    candidates = [(item, evidence.built_abi(facts, target, item)) for item in evidence.packages(facts)]
    if not any(abi for _, abi in candidates):
        return
    wanted = evidence.torch_abi(facts, target)
    for item, built in candidates:
        if built is None or built[0] is wanted:
            continue
        abi, how = built
        claimed = evidence.label(item).get("abi", "").upper()
        lies = bool(claimed) and (claimed == "TRUE") is not abi
        yield Finding(
            summary=f"{evidence.shown_label(item)} has {ABI_NAMES[abi]}, torch {torch.version} has {ABI_NAMES[wanted]}"
            + (f"; the name of its wheel, cxx11abi{claimed}, lies" if lies else ""),
            found=_abi_found(item, abi, how),
            expected=f"{ABI_NAMES[wanted]}, as in torch {torch.version}",
            fix=evidence.replacement(facts, target, item),
            subject=item.name,
        )


def _abi_found(item: Package, abi: bool, how: str) -> str:  # noqa: FBT001  # which ABI it is
    for extension in item.extensions:
        names = tuple(name for name in extension.undefined if of_torch(name) and OTHER_ABI[abi] in name)
        if names:
            return evidence.symbols_shown(extension, names)
    return f"by {how}"


@rule(
    "private-torch-build",
    group="binary",
    subject="torch",
    cause="NGC images and nightlies carry a torch of their own, between two releases and with other symbols; wheels of "
    "flash-attn, flashinfer, sgl-kernel and vLLM are built for the public releases.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/flashinfer-ai/flashinfer/issues/911",
        "https://github.com/Dao-AILab/flash-attention/issues/784",
    ),
    fix=("Use a virtual environment with the public torch, or compile every extension against the private one.",),
)
def public_torch_build(facts: Facts, target: Target) -> Iterator[Finding]:
    """Torch is a public release, for which binary packages exist."""
    torch = evidence.torch(facts)
    text = known(torch.version)
    full = f"{text}+{torch.build}" if torch.build and "+" not in text else text
    if not evidence.PRIVATE.search(full):
        return
    public = [item for item in evidence.packages(facts) if _for_public_torch(target, item)]
    names = ", ".join(evidence.shown_label(item) for item in public)
    yield Finding(
        summary=f"torch {full} is a private build" + (f": {names} cannot be expected to load in it" if public else ""),
        found=f"torch {full}" + (f" with {names}, built for public releases" if public else ""),
        expected=f"a public release, such as torch {target.stack.component('torch').version}",
        fix=(
            remedy.locked(target, "Install the locked environment with the public torch, beside this one"),
            Fix(text="Or compile flash-attn, flashinfer and sgl-kernel against this torch, with --no-build-isolation"),
        ),
        severity="error" if public else "warning",
    )


def _for_public_torch(target: Target, item: Package) -> bool:
    """Tell whether a package was published for public releases of torch and is not shown to load in this one."""
    if item.extensions:
        return any(of_torch(name) for extension in item.extensions for name in extension.undefined)
    known_builds = target.limits.rows("sgl-kernel", **{item.name: evidence.version(item)})
    return "torch" in evidence.label(item) or bool(known_builds) or item.name in {"vllm", "xformers"}


RULES: tuple[Rule, ...] = (built_for_this_torch, same_cxx11_abi, public_torch_build, *binary_libraries.RULES)
