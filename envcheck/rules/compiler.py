"""Host compilers: old enough for nvcc, new enough for the sources, and one for all parts of a build."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Compiler, Facts
from envcheck.limits import Row, satisfies
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.toolkit import right_major, right_toolkit

CXX_ROLES = ("cxx", "cuda-host", "cmake-cxx")
EXPLICIT = ("CUDAHOSTCXX", "NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS")


def floors(facts: Facts, target: Target) -> tuple[Row, ...]:
    """Rows of the compilers that the installed (or wanted) torch and TransformerEngine ask for, strictest first."""
    found = {
        name: version
        for name in ("torch", "transformer-engine")
        if (version := subjects.wanted_version(facts, target, name)) is not None
    }
    rows = [row for row in target.limits.rows("gcc-floor", **found) if "gcc" in row.need]
    return tuple(sorted(rows, key=lambda row: subjects.ordinal(row.need["gcc"].lstrip(">=")), reverse=True))


def broken_floor(compiler: Compiler, rows: tuple[Row, ...]) -> Row | None:
    """First row that a compiler does not meet."""
    version = known(compiler.version)
    return next((row for row in rows if not subjects.holds(row, compiler.family, version)), None)


@rule(
    "gcc-too-old",
    group="compiler",
    subject="g++",
    cause="The distribution's default compiler has no C++17 <filesystem>, or torch's headers refuse it; or cmake takes "
    "/usr/bin/c++ although a newer g++ is on PATH.",
    stages=("build", "launch"),
    sources=("https://github.com/NVIDIA/TransformerEngine/issues/1270",),
    fix=("Install a newer GCC and set CC, CXX and CUDAHOSTCXX to it.",),
)
def gcc_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every C++ compiler that a build takes is new enough for torch's and TransformerEngine's sources."""
    chosen = subjects.compilers(facts, *CXX_ROLES)
    if not chosen:
        msg = "no C++ compiler is on this host"
        raise NotApplicable(msg)
    rows, seen = floors(facts, target), set()
    for compiler in chosen:
        row = broken_floor(compiler, rows)
        if row is None or compiler.path in seen:
            continue
        seen.add(compiler.path)
        yield Finding(
            summary=f"{compiler.family} {compiler.version} is too old: {row.why}",
            found=f"{compiler.path} {compiler.version}, taken as {compiler.role} {compiler.why}".rstrip(),
            expected=f"{compiler.family} {row.need[compiler.family]}",
            fix=remedy.compiler(facts, target),
            severity=subjects.at_run_time(facts, target),
            sources=(row.source,),
        )


def gcc_limit(facts: Facts, target: Target) -> tuple[int, str]:
    """Highest GCC major that the selected nvcc accepts, and who says so."""
    toolkit = subjects.nvcc_toolkit(facts)
    if isinstance(toolkit.gcc_max, int):
        return toolkit.gcc_max, f"{toolkit.path}/include/crt/host_config.h"
    row = target.limits.first("cuda-gcc", cuda=known(toolkit.version))
    if row is None:
        msg = f"no limit is known for CUDA {toolkit.version}"
        raise NotApplicable(msg)
    return int(row.give["max"]), row.source


@rule(
    "gcc-too-new-for-nvcc",
    group="compiler",
    subject="nvcc",
    cause="nvcc compiles through the host's g++ and refuses one that is newer than it knows.",
    stages=("build", "launch"),
    sources=("https://github.com/pytorch/pytorch/blob/main/torch/utils/cpp_extension.py",),
    fix=("Install an older g++ beside the newer one and point CUDAHOSTCXX and CXX at it.",),
)
def gcc_too_new_for_nvcc(facts: Facts, target: Target) -> Iterator[Finding]:
    """The g++ that nvcc compiles through is one that nvcc accepts."""
    toolkit = subjects.nvcc_toolkit(facts)
    limit, source = gcc_limit(facts, target)
    hosts = subjects.compilers(facts, "cuda-host") or subjects.compilers(facts, "cxx")
    if not hosts:
        msg = "no C++ compiler is on this host"
        raise NotApplicable(msg)
    for compiler in hosts:
        if compiler.family != "gcc":
            continue
        version = known(compiler.version)
        if subjects.major(version) > limit:
            yield _too_new(facts, target, compiler, (toolkit.version, limit, source))
        yield from _exception(facts, target, compiler)


def _too_new(facts: Facts, target: Target, compiler: Compiler, known_limit: tuple[object, int, str]) -> Finding:
    cuda, limit, source = known_limit
    forced = any("allow-unsupported-compiler" in subjects.variable(facts, name) for name in EXPLICIT)
    return Finding(
        summary=f"nvcc {cuda} refuses GCC {compiler.version}: it accepts GCC up to {limit}",
        found=f"{compiler.path} {compiler.version} {compiler.why}".rstrip(),
        expected=f"GCC <= {limit}",
        fix=_fitting(facts, target, compiler, (cuda, limit)),
        severity="warning" if forced and target.stage == "build" else subjects.at_run_time(facts, target),
        sources=(source,),
    )


def _fitting(facts: Facts, target: Target, compiler: Compiler, limit: tuple[object, int]) -> tuple[Fix, ...]:
    """Another g++ for this nvcc; the stack's toolkit where torch refuses this one, or where it takes this g++."""
    cuda, highest = limit
    if isinstance(cuda, str) and subjects.major(cuda) != right_major(facts, target):
        return right_toolkit(facts, target)
    others = (*older_compiler(facts, highest), *remedy.compiler(facts, target, highest))
    own = isinstance(cuda, str) and subjects.minor(cuda) == target.stack.cuda.default
    if own or not satisfies(known(compiler.version), target.stack.gcc.requires):
        return others
    return (*right_toolkit(facts, target), *others)


def older_compiler(facts: Facts, limit: int) -> tuple[Fix, ...]:
    """Take a g++ that is on the host already and that nvcc accepts."""
    fitting = [
        item.path
        for item in known(facts.compilers)
        if item.family == "gcc"
        and isinstance(item.version, str)
        and 9 <= subjects.major(item.version) <= limit  # noqa: PLR2004  # torch's own floor
        and "+" in item.path
    ]
    if not fitting:
        return ()
    return (remedy.exports("Take the g++ on this host that nvcc accepts", CXX=fitting[0], CUDAHOSTCXX=fitting[0]),)


def _exception(facts: Facts, target: Target, compiler: Compiler) -> Iterator[Finding]:
    toolkit = subjects.nvcc_toolkit(facts)
    found = {"cuda": known(toolkit.version), "gcc": known(compiler.version)}
    for row, _ in subjects.broken(target, "cuda-gcc", found):
        if "exception" in row.give:
            yield Finding(
                summary=row.why,
                found=f"CUDA {toolkit.version} with {compiler.path} {compiler.version}",
                expected=f"GCC {row.need['gcc']}, or a newer CUDA toolkit",
                fix=(remedy.toolchain(target),),
                severity=subjects.at_run_time(facts, target),
                sources=(row.source,),
            )


@rule(
    "host-compiler-differs",
    group="compiler",
    subject="g++",
    cause="cmake takes c++ and nvcc takes the first g++ that they find, whatever gcc is meant, unless CC, CXX and "
    "CUDAHOSTCXX name one.",
    stages=("build",),
    sources=("https://github.com/NVIDIA/TransformerEngine/issues/459",),
    fix=("Set CC, CXX and CUDAHOSTCXX to one compiler.",),
)
def host_compiler_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """cmake, nvcc and torch's extension builder all take the same C++ compiler."""
    reference = next(iter(subjects.compilers(facts, "cxx")), None)
    if reference is None:
        msg = "no C++ compiler is on this host"
        raise NotApplicable(msg)
    for role in ("cc", "cmake-cxx", "cuda-host"):
        for other in subjects.compilers(facts, role):
            if _same(reference, other) or (role == "cuda-host" and _on_purpose(facts)):
                continue
            yield Finding(
                summary=f"{WORDS[role]} is {other.family} {other.version}, while builds take "
                f"{reference.family} {reference.version} as C++ compiler",
                found=f"{other.path} {other.version} and {reference.path} {reference.version}",
                expected="one compiler for all parts of a build",
                fix=(_name_one(reference, other, target),),
                severity="warning",
            )


WORDS = {"cc": "the C compiler", "cmake-cxx": "cmake's compiler", "cuda-host": "nvcc's host compiler"}


def _same(left: Compiler, right: Compiler) -> bool:
    majors = {subjects.major(known(item.version)) for item in (left, right)}
    return left.family == right.family and len(majors) == 1


def _on_purpose(facts: Facts) -> bool:
    return any(subjects.variable(facts, name) for name in EXPLICIT)


def _name_one(left: Compiler, right: Compiler, target: Target) -> Fix:
    """Name the compiler of the two that the stack accepts, or else the first."""
    fitting = [item for item in (left, right) if satisfies(known(item.version), target.stack.gcc.requires)]
    best = (fitting or [left])[0]
    path = best.path if "+" in best.path else left.path
    c = path.replace("clang++", "clang").replace("g++", "gcc").replace("c++", "cc")
    return remedy.exports("Name one compiler for all parts", CC=c, CXX=path, CUDAHOSTCXX=path)


@rule(
    "glibc-too-new-for-cuda",
    group="compiler",
    subject="glibc",
    cause="glibc 2.41 declares new mathematics functions noexcept; the headers of CUDA 12.9 and older declare the same "
    "functions without, so every compilation stops in mathcalls.h, with any compiler.",
    stages=("build", "launch"),
    sources=("https://github.com/NVIDIA/nccl/issues/1700", "https://github.com/pytorch/pytorch/issues/185698"),
    fix=("Compile in an older distribution (a container), or give the toolkit's headers as system headers.",),
)
def glibc_too_new_for_cuda(facts: Facts, target: Target) -> Iterator[Finding]:
    """The CUDA toolkit's headers go together with the mathematics headers of this C library."""
    toolkit = subjects.nvcc_toolkit(facts)
    glibc, cuda = known(subjects.system(facts).glibc), known(toolkit.version)
    for row, _ in subjects.broken(target, "glibc-cuda", {"glibc": glibc, "cuda": cuda}):
        if _worked_around(facts, toolkit.source):
            continue
        include = f"{toolkit.path}/targets/x86_64-linux/include"
        yield Finding(
            summary=f"nothing compiles with CUDA {cuda} on glibc {glibc}: {row.why}",
            found=f"glibc {glibc}, CUDA {cuda} in {toolkit.path}",
            expected=f"CUDA {row.need['cuda']}, or glibc older than 2.41",
            fix=(
                remedy.exports(
                    "Give the toolkit's headers as system headers", NVCC_PREPEND_FLAGS=f"-isystem {include}"
                ),
                Fix(text="Build in a container with an older C library", commands=("nox -s image",)),
            ),
            severity=subjects.at_run_time(facts, target),
            sources=(row.source,),
        )


def _worked_around(facts: Facts, source: str) -> bool:
    """Debian compiles its own toolkit's headers as system headers; -isystem does the same for others."""
    flags = " ".join(subjects.variable(facts, name) for name in ("NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"))
    return source == "debian" or "-isystem" in flags


RULES: tuple[Rule, ...] = (gcc_too_old, gcc_too_new_for_nvcc, host_compiler_differs, glibc_too_new_for_cuda)
