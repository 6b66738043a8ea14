"""cuDNN: headers that builds find, one version of all its parts, the one that torch brought."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from envcheck.facts import Facts, LibraryCopy
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, package, rule
from envcheck.rules import remedy, subjects

IGNORED = ("CUDNN_INCLUDE_DIR", "CUDNN_INCLUDE_PATH", "CUDNN_LIBRARY", "CUDNN_ROOT", "CUDNN_ROOT_DIR", "CUDNN_LIB_DIR")
"""Variables that people set and neither TransformerEngine's nor torch's build reads."""


def needs_cudnn(facts: Facts, target: Target) -> bool:
    """Tell whether something in this selection, or on this host, is compiled against cuDNN."""
    if any(item.name.startswith("transformer-engine") for item in subjects.wanted(target)):
        return True
    names = [item.name for item in facts.sources] if isinstance(facts.sources, tuple) else []
    names += [item.name for item in facts.packages] if isinstance(facts.packages, tuple) else []
    return any(name.lower().startswith(("transformer-engine", "transformerengine")) for name in names)


def _te_is_wanted(target: Target) -> bool:
    return subjects.wanted_component(target, "transformer-engine") is not None


def require_need(facts: Facts, target: Target) -> None:
    """End the rule as not applicable where nothing is compiled against cuDNN."""
    if not needs_cudnn(facts, target):
        msg = "nothing in this selection is compiled against cuDNN"
        raise NotApplicable(msg)


def copies(facts: Facts, kind: str) -> tuple[LibraryCopy, ...]:
    """All cuDNN headers or libraries."""
    return tuple(item for item in known(facts.cudnn) if item.kind == kind)


def root_of(header: LibraryCopy) -> str:
    """CUDNN_PATH for a header: the directory above include."""
    return posixpath.dirname(posixpath.dirname(header.path))


def loaded(facts: Facts) -> LibraryCopy | None:
    """Find the library that a process of the target loads: torch's wheel before the system."""
    libraries = copies(facts, "library")
    entries = facts.loader if isinstance(facts.loader, tuple) else ()
    taken = {entry.path for entry in entries if entry.library.startswith("libcudnn.")}
    first = [item for item in libraries if item.path in taken] or [item for item in libraries if item.selected]
    first = first or [item for item in libraries if item.source == "pip"]
    return first[0] if first else None


@rule(
    "cudnn-headers-missing",
    group="cudnn",
    subject="cudnn.h",
    cause="cuDNN lies outside the directories that cmake and torch search, and CUDNN_PATH does not name it; the find "
    "modules read neither CUDNN_INCLUDE_DIR nor CUDNN_LIBRARY.",
    stages=("build",),
    sources=(
        "https://github.com/NVIDIA/TransformerEngine/issues/918",
        "https://github.com/NVIDIA/TransformerEngine/issues/516",
        "https://github.com/NVIDIA/cudnn-frontend/blob/1b0b5eac540b7f8fd19b18f1e6b8427c95503348/cmake/cuDNN.cmake",
    ),
    fix=("export CUDNN_PATH to the directory that has include/cudnn.h: torch's own is site-packages/nvidia/cudnn.",),
)
def cudnn_headers_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """Builds find cudnn.h."""
    require_need(facts, target)
    headers = copies(facts, "header")
    for name in ("CUDNN_PATH", "CUDNN_HOME"):
        value = subjects.variable(facts, name).rstrip("/")
        if value and not any(item.path.startswith(f"{value}/") for item in headers):
            yield Finding(
                summary=f"{name} names a directory without include/cudnn.h",
                found=f"{name}={value}",
                expected="a directory that has include/cudnn.h",
                fix=_name_header(facts, headers),
            )
            return
    if any(item.selected and not item.why.startswith(IGNORED) for item in headers):
        return
    known(facts.packages)
    pip = [item for item in headers if item.source == "pip"]
    torch = subjects.torch(facts)
    if pip or (torch is None and not headers):
        by_hand = torch is not None and package(facts, "transformer-engine") is None and _te_is_wanted(target)
        yield Finding(
            summary="builds by hand need CUDNN_PATH: cudnn.h comes with torch's cuDNN wheel, where cmake does not look",
            found=pip[0].path if pip else "torch is not installed yet",
            expected="CUDNN_PATH set; the plan's commands set it",
            fix=_name_header(facts, tuple(pip)),
            severity="warning" if by_hand and facts.environment.get("CUDNN_PATH") is None else "ok",
        )
        return
    ignored = [name for name in IGNORED if subjects.variable(facts, name)]
    yield Finding(
        summary="no build will find cudnn.h" + (f": {', '.join(ignored)} is not read" if ignored else ""),
        found=", ".join(f"{item.path} ({item.version})" for item in headers) or "no cudnn.h on this host",
        expected="cudnn.h below CUDNN_PATH, CUDA_HOME or /usr/include",
        fix=_name_header(facts, headers),
    )


def _name_header(facts: Facts, headers: tuple[LibraryCopy, ...]) -> tuple[Fix, ...]:
    """Name the header beside torch's own cuDNN first: header and run time then cannot differ."""
    ordered = sorted(headers, key=lambda item: item.source != "pip")
    if ordered:
        root = root_of(ordered[0])
        return (remedy.exports("Name the directory that holds include/cudnn.h", CUDNN_PATH=root, CUDNN_HOME=root),)
    return (remedy.install(facts, "Install the cuDNN wheel, headers included", "nvidia-cudnn-cu12"),)


@rule(
    "cudnn-symlink-missing",
    group="cudnn",
    subject="libcudnn.so",
    cause="Run-time packages bring libcudnn.so.9 only; a linker wants libcudnn.so, a link of the -dev package.",
    stages=("build",),
    sources=("https://github.com/NVIDIA/TransformerEngine/issues/516",),
    fix=("Install the development package, or link libcudnn.so to libcudnn.so.9 in the same directory.",),
)
def cudnn_symlink_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """The cuDNN library that a build links has its unversioned name."""
    require_need(facts, target)
    named = subjects.variable(facts, "CUDNN_PATH").rstrip("/")
    for item in copies(facts, "library"):
        taken = item.path.startswith(f"{named}/") if named else item.selected
        # The find module asks for libcudnn.so.9 by name too where the wheel's directory is given.
        if not taken or item.source == "pip" or known(item.symlink):
            continue
        link = posixpath.join(posixpath.dirname(item.path), "libcudnn.so")
        yield Finding(
            summary=f"{posixpath.dirname(item.path)} has no libcudnn.so for the linker",
            found=item.path,
            expected=link,
            fix=(
                Fix(
                    text="Make the link",
                    commands=remedy.as_root(facts, f"ln -s {posixpath.basename(item.path)} {link}"),
                ),
            ),
        )


@rule(
    "cudnn-header-differs-from-runtime",
    group="cudnn",
    subject="cudnn.h",
    cause="A build takes the system's cudnn.h while the process loads the cuDNN that torch brought.",
    stages=("build", "launch"),
    sources=("https://github.com/NVIDIA/TransformerEngine/issues/1407",),
    fix=("export CUDNN_PATH=<site-packages>/nvidia/cudnn before building.",),
)
def cudnn_header_differs_from_runtime(facts: Facts, target: Target) -> Iterator[Finding]:
    """Builds take the header of the cuDNN that the process loads."""
    if target.stage != "build":
        require_need(facts, target)
    header = next((item for item in copies(facts, "header") if item.selected), None)
    library = loaded(facts)
    if header is None or library is None:
        msg = "there are no cuDNN header and library to compare"
        raise NotApplicable(msg)
    left, right = known(header.version), known(library.version)
    if subjects.ordinal(left)[:2] == subjects.ordinal(right)[:2]:
        return
    other_major = subjects.major(left) != subjects.major(right)
    pip = [item for item in copies(facts, "header") if item.source == "pip"]
    newer = subjects.older(right, left)
    yield Finding(
        summary=f"builds would take the header of cuDNN {left}, the process loads {right}",
        found=f"{header.path} {left}, {library.path} {right}",
        expected=f"the header of cuDNN {right}",
        fix=_name_header(facts, tuple(pip)),
        severity="error" if needs_cudnn(facts, target) and not pip and (other_major or newer) else "warning",
    )


@rule(
    "cudnn-too-old",
    group="cudnn",
    subject="cuDNN",
    cause="The cuDNN wheel that torch pins is older than what TransformerEngine or sglang ask for.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/sgl-project/sglang/pull/14119",),
    fix=("Install a newer nvidia-cudnn wheel of the same CUDA major.",),
)
def cudnn_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """The cuDNN that is loaded is new enough for every component."""
    library = loaded(facts)
    if library is None:
        msg = "no cuDNN is on this host yet"
        raise NotApplicable(msg)
    found = {"cudnn": known(library.version), "cuda": subjects.minor(subjects.torch_cuda(facts, target))}
    for name in ("transformer-engine", "torch", "sglang"):
        version = subjects.wanted_version(facts, target, name)
        if version:
            found[name] = version
    for table in ("transformer-engine", "torch-cudnn"):
        for row, subject in subjects.broken(target, table, found):
            if subject != "cudnn":
                continue
            major = subjects.major(found["cuda"])
            least = row.need["cudnn"]
            yield Finding(
                summary=f"cuDNN {found['cudnn']} is too old"
                + (f": {row.why}" if row.why else f" for TransformerEngine {found.get('transformer-engine')}"),
                found=f"{library.path} {found['cudnn']}",
                expected=f"cuDNN {least}",
                fix=(remedy.install(facts, "Install a newer cuDNN wheel", f"nvidia-cudnn-cu{major}{least},<10"),),
                severity=_too_old_weight(target, table, found["cudnn"]),
                sources=(row.source,),
            )
    known(facts.packages)  # above, the stack's versions stand for those that cannot be read


def _too_old_weight(target: Target, table: str, cudnn: str) -> Severity:
    """The README asks for 9.3; an older 9 compiles and lacks fused kernels. Without Megatron nothing uses them."""
    if table != "transformer-engine":
        return "warning"
    if target.trainer != "megatron":
        return "ok"
    return "error" if subjects.major(cudnn) < 9 else "warning"  # noqa: PLR2004  # 9 is the major that it is written for


RULES: tuple[Rule, ...] = (
    cudnn_headers_missing,
    cudnn_symlink_missing,
    cudnn_header_differs_from_runtime,
    cudnn_too_old,
)
