"""Binaries: the C and C++ libraries, the CUDA and every symbol that an extension needs are what its process loads."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from envcheck.binary.symbols import owner
from envcheck.codec import Unknown
from envcheck.facts import Extension, Facts, LoaderEntry, Package
from envcheck.model import Finding, Fix, NotApplicable, Rule, Severity, Target, known, rule
from envcheck.rules import binary_evidence as evidence
from envcheck.rules import remedy, subjects


@rule(
    "glibc-too-old",
    group="binary",
    subject="glibc",
    cause="A binary needs the C library of the system that it was linked on, or newer; a wheel tagged linux_x86_64 "
    "does not say which. The C library cannot be replaced without replacing the system.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/Dao-AILab/flash-attention/issues/1708", "https://peps.python.org/pep-0600/"),
    fix=("Take a build made on an older system, compile it here, or run in a container with a newer system.",),
)
def glibc_new_enough(facts: Facts, target: Target) -> Iterator[Finding]:
    """The C library is new enough for every binary."""
    needs = [*_installed_glibc(facts, target), *(_planned_glibc(facts, target) if target.stage == "build" else ())]
    have = known(subjects.system(facts).glibc) if needs else ""
    for name, what, least, source in needs:
        if subjects.older(have, least):
            yield Finding(
                summary=f"{what} needs glibc {least}, this system has {have}",
                found=f"glibc {have}",
                expected=f"glibc {least} or newer",
                fix=_older_build(facts, target, name),
                subject=name,
                sources=(source,) if source else (),
            )


def _installed_glibc(facts: Facts, target: Target) -> Iterator[tuple[str, str, str, str]]:
    """Package, what needs it, C library version and source, for what is installed."""
    for item in known(facts.packages):
        floors = [(extension.glibc, extension) for extension in item.extensions if isinstance(extension.glibc, str)]
        if floors:
            floor, extension = max(floors, key=lambda pair: subjects.ordinal(pair[0]))
            yield item.name, f"{item.name}: {posixpath.basename(extension.path)}", floor, ""
            continue
        if item.origin is None and (floor_of := _published_glibc(target, item.name, evidence.version(item))):
            yield item.name, evidence.shown_label(item), *floor_of
        promised = _tag_glibc(target, item.tag)
        if promised:
            yield item.name, f"{evidence.shown_label(item)} ({item.tag})", promised, "https://peps.python.org/pep-0600/"


def _planned_glibc(facts: Facts, target: Target) -> Iterator[tuple[str, str, str, str]]:
    """Collect the same for prebuilt wheels that the stack would install."""
    here = {item.name for item in known(facts.packages)}
    for part in subjects.wanted(target):
        if part.distribution not in here and part.origin.kind in {"wheel", "index"}:
            floor = _published_glibc(target, part.distribution, part.version)
            if floor:
                yield part.distribution, f"the wheel of {part.distribution} {part.version}", *floor


def _published_glibc(target: Target, name: str, version: str) -> tuple[str, str] | None:
    """C library that a package's release wheels need, by the tables, and the source."""
    table = {"torch": "torch-builds", "flash-attn": "flash-attn"}.get(name)
    row = target.limits.first(table, **{name: version}) if table else None
    return (row.need["glibc"].lstrip(">="), row.source) if row and "glibc" in row.need else None


def _tag_glibc(target: Target, tag: str | Unknown | None) -> str | None:
    """Read the C library that a tag promises: ``cp310-cp310-manylinux_2_28_x86_64`` is 2.28."""
    platform = tag.rpartition("-")[2] if isinstance(tag, str) else ""
    if platform.startswith("manylinux_"):
        return ".".join(platform.split("_")[1:3])
    names = target.limits.tables["manylinux"].row[0].give
    return names.get(platform.partition("_")[0])


def _older_build(facts: Facts, target: Target, name: str) -> tuple[Fix, ...]:
    ways = []
    pinned = next((part for part in target.stack.components if part.distribution == name), None)
    if pinned and pinned.recipe and pinned.recipe.compiles:
        ways.append(remedy.build(target, pinned.name, f"Compile {name} {pinned.version} on this system"))
    if name == "flash-attn":
        text = "Take 2.7.4.post1, whose release wheels need glibc 2.31, or compile it here"
        ways.append(remedy.install(facts, text, "--no-build-isolation", "flash-attn==2.7.4.post1"))
    ways.append(Fix(text="Run in a container whose system is newer", commands=("nox -s image",)))
    return tuple(ways)


@rule(
    "libstdcxx-too-old",
    group="binary",
    subject="libstdc++",
    cause="The loader takes one libstdc++.so.6 for the whole process, and an extension needs a newer one: a conda "
    "environment or LD_LIBRARY_PATH puts an old copy before the system's, or the system is older than the compiler.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/kvcache-ai/ktransformers/issues/524",
        "https://github.com/vllm-project/vllm/issues/12946",
        "https://github.com/hiyouga/EasyR1/issues/206",
    ),
    fix=("conda install -c conda-forge libstdcxx-ng, or take the old copy off the loader's path.",),
)
def libstdcxx_new_enough(facts: Facts, target: Target) -> Iterator[Finding]:
    """The libstdc++ that loads is new enough for every extension."""
    needs = [(item, extension) for item in known(facts.packages) for extension in item.extensions]
    for item, extension in needs:
        broken = [name for name in extension.undefined if owner(name) == "libstdc++"]
        if broken:
            yield _libstdcxx(facts, item, extension, evidence.symbols_shown(extension, tuple(broken)), "newer")
    floors = [(least, item, extension) for item, extension in needs if (least := _glibcxx(target, extension))]
    if not floors:
        return
    have, where = _loaded_libstdcxx(facts)
    for least, item, extension in floors:
        if subjects.older(have, least):
            yield _libstdcxx(facts, item, extension, f"{where} has GLIBCXX_{have}", f"GLIBCXX_{least}")


def _glibcxx(target: Target, extension: Extension) -> str | None:
    """Highest GLIBCXX version that an extension needs, by name or by the CXXABI that came with it."""
    floors = [extension.glibcxx] if isinstance(extension.glibcxx, str) else []
    if isinstance(extension.cxxabi, str):
        row = target.limits.first("libstdcxx", cxxabi=extension.cxxabi)
        floors += [row.need["glibcxx"].lstrip(">=")] if row else []
    return max(floors, key=subjects.ordinal, default=None)


def _entry(facts: Facts, library: str) -> LoaderEntry | None:
    entries = () if isinstance(facts.loader, Unknown) else facts.loader
    return next((entry for entry in entries if entry.library.partition(".so")[0] == library), None)


def _loaded_libstdcxx(facts: Facts) -> tuple[str, str]:
    """Highest GLIBCXX version of the copy that loads, and where it lies."""
    entry = _entry(facts, "libstdc++")
    if entry and entry.version and isinstance(entry.path, str):
        return entry.version, f"{entry.path} (through {entry.through})" if entry.through else entry.path
    return known(subjects.system(facts).libstdcxx), "the system's libstdc++.so.6"


def _libstdcxx(facts: Facts, item: Package, extension: Extension, found: str, least: str) -> Finding:
    entry = _entry(facts, "libstdc++")
    system = facts.os.libstdcxx if not isinstance(facts.os, Unknown) else ""
    ways = [remedy.conda_install(facts, "Install a newer libstdc++ from conda-forge", "libstdcxx-ng")]
    if entry and isinstance(entry.path, str) and entry.through == "LD_LIBRARY_PATH":
        ways.insert(0, Fix(text=f"Take {posixpath.dirname(entry.path)} out of LD_LIBRARY_PATH"))
    if isinstance(system, str) and entry and entry.version and subjects.older(entry.version, system):
        system_copy = "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"
        ways.append(remedy.exports("Or preload the system's newer copy", LD_PRELOAD=system_copy))
    return Finding(
        summary=f"{item.name}: {posixpath.basename(extension.path)} needs a newer libstdc++ than the one that loads",
        found=found,
        expected=f"a libstdc++.so.6 that has {least}" if least != "newer" else "a newer libstdc++.so.6",
        fix=tuple(ways),
        subject=item.name,
    )


@rule(
    "extension-cuda-major-differs",
    group="binary",
    subject="extensions",
    cause="An extension links libcudart.so of one CUDA major, torch brings another: either the library is not found, "
    "or two CUDA run-time libraries live in one process and do not know each other's streams and memory.",
    stages=("launch", "train"),
    sources=("https://github.com/THUDM/slime/pull/2187", "https://github.com/sgl-project/sglang/issues/36533"),
    fix=("Install the build for torch's CUDA major (-cu12, -cu13, _cu12 …).",),
)
def same_cuda_major(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every extension uses the CUDA major version of the installed torch."""
    torch = evidence.torch(facts)
    cuda = known(torch.cuda) if torch.cuda is not None else None
    if cuda is None:
        raise NotApplicable(f"torch {torch.version} is a CPU build")
    major = subjects.major(cuda)
    for item in evidence.packages(facts):
        found = _cuda_of(item)
        if found is not None and found[0] != major:
            yield Finding(
                summary=f"{evidence.shown_label(item)} is for CUDA {found[0]}, torch is for CUDA {cuda}",
                found=found[1],
                expected=f"a build for CUDA {major}",
                fix=evidence.replacement(facts, target, item),
                subject=item.name,
            )
    yield from _preloaded(facts, major)


def _cuda_of(item: Package) -> tuple[int, str] | None:
    """CUDA major that a package was built with, and how that is known."""
    for extension in item.extensions:
        if (major := evidence.cuda_major(extension)) is not None:
            return major, f"{posixpath.basename(extension.path)} needs {_cuda_libraries(extension, major)}"
    for ending, number in (("-cu11", 11), ("-cu12", 12), ("-cu13", 13)):
        if item.name.endswith(ending) and item.name.startswith("transformer-engine"):
            return number, f"the package {item.name}"
    said = evidence.label(item).get("cuda")
    if not item.extensions and said:
        return subjects.major(said), f"its label says CUDA {said}"
    return None


def _cuda_libraries(extension: Extension, major: int) -> str:
    needed = dict.fromkeys((*extension.needed, *extension.missing))
    names = [name for name in needed if name.startswith(("libcudart", "libcublas", "libnvrtc"))]
    return ", ".join(names) or f"libraries of CUDA {major}"


def _preloaded(facts: Facts, major: int) -> Iterator[Finding]:
    """A hook that LD_PRELOAD names for another CUDA, as torch_memory_saver_hook_mode_preload_cu12.abi3.so."""
    for path in subjects.variable(facts, "LD_PRELOAD").replace(":", " ").split():
        name = posixpath.basename(path)
        for number in (11, 12, 13):
            if f"_cu{number}" in name and number != major:
                yield Finding(
                    summary=f"LD_PRELOAD names {name}, built for CUDA {number}, and torch is for CUDA {major}",
                    found=f"LD_PRELOAD={path}",
                    expected=f"the file for CUDA {major}",
                    fix=(
                        remedy.exports("Name the other file", LD_PRELOAD=path.replace(f"_cu{number}", f"_cu{major}")),
                    ),
                    subject="LD_PRELOAD",
                )


@rule(
    "undefined-symbol",
    group="binary",
    subject="extensions",
    cause="A library that the loader takes does not have a function that an extension or torch was linked with: "
    "another release of it, an older copy found first, or a driver that is older than the function.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/sgl-project/sglang/issues/8131",
        "https://github.com/pytorch/pytorch/issues/134929",
        "https://github.com/pytorch/pytorch/issues/186591",
        "https://github.com/sgl-project/sglang/issues/3065",
    ),
    fix=("The finding names the library that should have the symbol and the copy that was taken instead.",),
)
def symbols_defined(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every symbol that an extension needs is defined by a library that loads with it."""
    for item in known(facts.packages):
        for extension in item.extensions:
            if extension.undefined:
                yield _undefined(facts, target, item, extension)


def _undefined(facts: Facts, target: Target, item: Package, extension: Extension) -> Finding:
    names = extension.undefined
    library = owner(names[0]) or "a library that it needs"
    entry = _entry(facts, library)
    taken = f"; {entry.path} is taken, through {entry.through}" if entry and isinstance(entry.path, str) else ""
    harmless = evidence.swallowed(target, item)
    severity: Severity = harmless[1] if harmless else "error"
    return Finding(
        summary=f"{evidence.shown_label(item)} cannot be loaded: {library} lacks a symbol that it needs"
        + (f" ({harmless[0]})" if harmless else ""),
        found=evidence.symbols_shown(extension, names) + taken,
        expected=f"a {library} that defines it" if library.startswith("lib") else f"it in {library}",
        fix=() if severity == "ok" else _way_to_symbol(facts, target, item, library, entry),
        subject=item.name,
        severity=severity,
    )


def _way_to_symbol(
    facts: Facts, target: Target, item: Package, library: str, entry: LoaderEntry | None
) -> tuple[Fix, ...]:
    if entry and entry.wanted and isinstance(entry.path, str):
        folder = posixpath.dirname(entry.path)
        return (
            Fix(
                text=f"Take {folder} out of LD_LIBRARY_PATH, so that torch's own {entry.wanted} is taken",
                commands=("unset LD_LIBRARY_PATH",) if entry.through == "LD_LIBRARY_PATH" else (),
            ),
        )
    if library == "libcuda":
        return (
            *remedy.driver(facts, target, target.stack.driver.native),
            Fix(text="Take stubs and compat directories out of LD_LIBRARY_PATH, if libcuda.so.1 is found in one"),
        )
    if item.name == "torch":
        return (remedy.locked(target, "Install torch again with the NVIDIA wheels that it pins"),)
    return evidence.replacement(facts, target, item)


RULES: tuple[Rule, ...] = (glibc_new_enough, libstdcxx_new_enough, same_cuda_major, symbols_defined)
