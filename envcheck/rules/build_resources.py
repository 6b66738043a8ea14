"""What a build takes from the host: memory, disk, a complete source tree."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck import choices
from envcheck.codec import Unknown
from envcheck.facts import Disk, Facts
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.build_environment import to_build


@rule(
    "build-needs-more-memory",
    group="toolkit",
    subject="memory",
    cause="Each parallel nvcc takes gigabytes; when memory ends the kernel kills a compiler and the build says Killed.",
    stages=("build",),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/347",
        "https://github.com/Dao-AILab/flash-attention/issues/389",
    ),
    fix=("Set MAX_JOBS to the available memory divided by the memory of one job.",),
)
def build_needs_more_memory(facts: Facts, target: Target) -> Iterator[Finding]:
    """The memory holds as many compilers as will run side by side."""
    building = [item for item in to_build(facts, target) if item.recipe]
    if not building:
        msg = "nothing has to be compiled"
        raise NotApplicable(msg)
    available, limit = subjects.memory(facts)
    place = f"{subjects.size(available)} available" + (f", cgroup limit {subjects.size(limit)}" if limit else "")
    worst = max(building, key=lambda item: item.recipe.memory_per_job_bytes if item.recipe else 0)
    need = worst.recipe.memory_per_job_bytes if worst.recipe else 0
    fitting = choices.fitting(available, need) if need else 0
    said = subjects.variable(facts, "MAX_JOBS")
    jobs = int(said) if said.isdigit() else 0
    if fitting < 1 or jobs > fitting:
        yield Finding(
            summary=f"{worst.name} needs {subjects.size(need)} for each compiler job"
            + (f", MAX_JOBS={jobs} asks for {subjects.size(need * jobs)}" if jobs > max(fitting, 1) else ""),
            found=place,
            expected=f"{subjects.size(need * max(jobs, 1))}, or MAX_JOBS={max(fitting, 1)}",
            fix=(remedy.exports("Run fewer compilers side by side", MAX_JOBS=str(max(fitting, 1)), NVCC_THREADS="1"),)
            if fitting
            else (Fix(text=f"Free memory, raise the limit, or take a prebuilt wheel of {worst.name}"),),
        )
    elif not jobs and fitting < known(subjects.resources(facts).cpus):
        yield subjects.note(
            f"build {worst.name} with MAX_JOBS={fitting}: one job per core would need more memory than is there",
            found=place,
            fix=(remedy.exports("Outside the plan's commands, set", MAX_JOBS=str(fitting)),),
        )


@rule(
    "build-needs-more-disk",
    group="toolkit",
    subject="disk",
    cause="Object files and unpacked sources go to the work directory and to TMPDIR, which may be a small file system.",
    stages=("build",),
    sources=("https://github.com/vllm-project/vllm/issues/7025",),
    fix=("Point TMPDIR, PIP_CACHE_DIR and UV_CACHE_DIR at a file system with space.",),
)
def build_needs_more_disk(facts: Facts, target: Target) -> Iterator[Finding]:
    """The file systems that builds write to have the space that they take."""
    needs = {"work": max((item.recipe.disk_bytes for item in to_build(facts, target) if item.recipe), default=0)}
    needs["tmp"] = needs["cache"] = int(threshold(target, "temporary_bytes"))
    for role, need in needs.items():
        place = subjects.disk(facts, role)
        if place is None or known(place.free_bytes) >= need:
            continue
        yield Finding(
            summary=f"{place.path} has {_size(place)} free, a build takes up to {subjects.size(need)}",
            found=f"{_size(place)} free in {place.path} ({role})",
            expected=subjects.size(need),
            fix=(_space(facts, place, need),),
            subject=place.path,
            severity="error" if role == "work" else "warning",
        )


def _space(facts: Facts, place: Disk, need: float) -> Fix:
    """Name a place that has enough, where one of those that were read has."""
    roomy = max(subjects.resources(facts).disks, key=lambda item: _free(item.free_bytes))
    if _free(roomy.free_bytes) >= need:
        return remedy.exports("Work where there is space", TMPDIR=roomy.path)
    return Fix(text=f"Free {subjects.size(need - _free(place.free_bytes))} in {place.path}", commands=("df -h",))


def _size(place: Disk) -> str:
    return subjects.size(known(place.free_bytes))


def _free(value: int | Unknown) -> int:
    return value if isinstance(value, int) else 0


def threshold(target: Target, name: str) -> float:
    """Read one number of the host table."""
    return next(float(row.give[name]) for row in target.limits.rows("host") if name in row.give)


@rule(
    "submodule-missing",
    group="toolkit",
    subject="sources",
    cause="The repository was cloned without --recursive, or downloaded as an archive: third-party folders are empty.",
    stages=("build",),
    sources=("https://github.com/NVIDIA/TransformerEngine/pull/307",),
    fix=("git submodule update --init --recursive",),
)
def submodule_missing(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Every checkout has the files of its submodules."""
    if not known(facts.sources):
        msg = "there is no checkout of a component"
        raise NotApplicable(msg)
    for source in known(facts.sources):
        empty = [path for path, there in source.submodules.items() if not there]
        if empty:
            yield Finding(
                summary=f"{source.name} was cloned without its submodules",
                found=f"{', '.join(empty)} in {source.path}: empty",
                expected="the files of every submodule",
                fix=(Fix(text="Fetch them", commands=(f"git -C {source.path} submodule update --init --recursive",)),),
                subject=source.name,
            )


RULES: tuple[Rule, ...] = (build_needs_more_memory, build_needs_more_disk, submodule_missing)
