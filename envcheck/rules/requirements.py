"""What installed packages declare that they need, against what is installed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import lru_cache

from envcheck import markers
from envcheck.codec import Unknown
from envcheck.facts import Facts, Package
from envcheck.limits import satisfies
from envcheck.model import Finding, Rule, Severity, Target, known, rule
from envcheck.rules import remedy, subjects

REQUIREMENT = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?\s*([^;@)]*)\)?\s*(@[^;]*)?(?:;\s*(.*))?$"
)
OWN_RULES = {("verl", "vllm"), ("sglang", "vllm"), ("vllm", "torch"), ("xformers", "torch"), ("torchvision", "torch")}
OWN_RULES |= {("torchaudio", "torch"), ("ray", "click"), ("transformer-engine", "flash-attn"), ("sglang", "sgl-kernel")}
"""Edges, dependent and requirement, that another rule judges with more knowledge."""
UNDECLARED = {"tensordict"}
"""What no metadata bound, and no other rule judges."""


@lru_cache(maxsize=8192)
def parse(line: str) -> tuple[str, str, str] | None:
    """Read a Requires-Dist line, ``torch (==2.5.1) ; platform_machine == "x86_64"``: name, specifier, marker."""
    found = REQUIREMENT.match(line)
    if found is None:
        return None
    return re.sub(r"[-_.]+", "-", found[1]).lower(), found[2].strip(), (found[4] or "").strip()


def environment(facts: Facts) -> dict[str, str]:
    """Values of the environment markers for the target interpreter."""
    python = subjects.python(facts)
    version = known(python.version)
    return {
        "python_version": subjects.minor(version),
        "python_full_version": version,
        "implementation_name": python.implementation,
        "implementation_version": version,
        "platform_python_implementation": "CPython" if python.implementation == "cpython" else python.implementation,
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": known(subjects.system(facts).machine),
        "platform_release": "",
        "platform_version": "",
        "extra": "",
    }


@lru_cache(maxsize=1024)
def _marker_holds(marker: str, values: tuple[tuple[str, str], ...]) -> bool:
    return markers.holds(marker, dict(values))


def unsatisfied(
    item: Package, have: dict[str, str], values: tuple[tuple[str, str], ...], unreadable: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Requirements of a package that are not met: name and specifier; ``unreadable`` ones are there."""
    for line in item.requires:
        if "extra ==" in line or "extra==" in line:
            continue
        asked = parse(line)
        if asked is None:
            continue
        name, specifier, marker = asked
        if name in unreadable:
            continue
        if name in have and (not specifier or satisfies(have[name], specifier)):
            continue
        if marker and not _marker_holds(marker, values):
            continue
        yield name, specifier


def tolerated(target: Target) -> set[tuple[str, str]]:
    """Edges that the stack's lock states as unsatisfied and harmless, or replaces; the dependent ``*`` is any."""
    edges = {tuple(part.strip() for part in text.split("->")) for text in target.stack.lock.allow_unsatisfied}
    found = {(edge[0], edge[1]) for edge in edges if len(edge) == 2}  # noqa: PLR2004  # dependent -> requirement
    for override in target.stack.lock.overrides:
        asked = parse(override.requirement)
        if asked:
            found.add(("*", asked[0]))
    for fault in target.stack.lock.known_faults:
        found |= {(fault.package, name) for name in re.findall(r"[a-z0-9][a-z0-9-]+", fault.text.lower())}
    return found


@rule(
    "dependency-unsatisfied",
    group="packages",
    subject="packages",
    cause="pip installs one package after the other and does not look back at what it breaks.",
    stages=("launch", "train"),
    sources=("https://pip.pypa.io/en/stable/cli/pip_check/",),
    fix=("Install the locked set in one go.",),
)
def dependency_unsatisfied(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every installed package has what it declares to need."""
    have = subjects.versions(facts)
    values = tuple(environment(facts).items())
    harmless = tolerated(target) | OWN_RULES
    replaced = {item.name for item in target.stack.lock.metadata}
    roles = {item.distribution: item.role for item in subjects.wanted(target)}
    unreadable = {item.name: item.version for item in known(facts.packages) if isinstance(item.version, Unknown)}
    for item in known(facts.packages):
        if item.name in replaced:
            continue
        edges = [
            (name, spec)
            for name, spec in unsatisfied(item, have, values, unreadable)
            if not {(item.name, name), ("*", name)} & harmless and not _judged_as_numpy(name, spec, have)
        ]
        if edges:
            yield _broken(facts, item, edges, have, roles.get(item.name))
    yield from _undeclared(facts, target, have)
    if unreadable:
        lines = [line for item in known(facts.packages) for line in item.requires]
        asked_for = {asked[0] for line in lines if (asked := parse(line))}
        for name in sorted(asked_for & unreadable.keys()):
            known(unreadable[name])


def _undeclared(facts: Facts, target: Target, have: dict[str, str]) -> Iterator[Finding]:
    """Pairs that fail together although no metadata say so, where no rule of its own judges them."""
    for row, name in subjects.broken(target, "python-packages", have):
        if name in UNDECLARED:
            asking = next(iter(row.when))
            yield Finding(
                summary=f"{asking} {have[asking]} does not work with {name} {have[name]}: {row.why}",
                found=f"{name} {have[name]}",
                expected=f"{name}{row.need[name]}",
                fix=(remedy.install(facts, "Install a newer one", f"{name}{row.need[name]}"),),
                subject=name,
                severity="warning",
                sources=(row.source,),
            )


def _judged_as_numpy(name: str, specifier: str, have: dict[str, str]) -> bool:
    return name == "numpy" and subjects.major(have.get("numpy", "0")) > 1 and not satisfies("2.0.0", specifier)


def _broken(
    facts: Facts, item: Package, edges: list[tuple[str, str]], have: dict[str, str], role: str | None
) -> Finding:
    gone = [name for name, _ in edges if name not in have]
    severity: Severity = "error" if gone and role in {"engine", "trainer"} else "warning"
    return Finding(
        summary=f"{item.name} {item.version} misses {', '.join(f'{name}{spec}' for name, spec in edges)}",
        found=", ".join(f"{name} {have.get(name, 'not installed')}" for name, _ in edges),
        expected=", ".join(f"{name}{spec}" for name, spec in edges),
        fix=(remedy.install(facts, "Install what it asks for", *(f"{name}{spec}" for name, spec in edges)),),
        subject=item.name,
        severity=severity,
    )


@rule(
    "numpy-abi-differs",
    group="packages",
    subject="numpy",
    cause="numpy 2 was installed beside extensions that were compiled against numpy 1.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/vllm-project/vllm/issues/5594", "https://github.com/vllm-project/vllm/issues/34041"),
    fix=("Install numpy<2, and versions of opencv and others that go with it.",),
)
def numpy_abi_differs(facts: Facts, target: Target) -> Iterator[Finding]:
    """The installed numpy is one that every package can use."""
    have = subjects.versions(facts)
    numpy = have.get("numpy")
    if numpy is None or subjects.major(numpy) < 2:  # noqa: PLR2004  # numpy 2 is the border
        return
    values = tuple(environment(facts).items())
    asking = {}
    for item in known(facts.packages):
        for name, spec in unsatisfied(item, {"numpy": numpy}, values):
            if name == "numpy" and not satisfies("2.0.0", spec):
                asking[item.name] = f"numpy{spec}"
    for table in ("python-packages", "verl", "megatron-core"):
        for row, subject in subjects.broken(target, table, have):
            if subject == "numpy":
                asking.setdefault(next(iter(row.when)), f"numpy{row.need['numpy']}")
    if asking:
        yield Finding(
            summary=f"numpy {numpy} is installed, and {', '.join(sorted(asking))} need numpy 1",
            found=f"numpy {numpy}",
            expected=", ".join(f"{name}: {spec}" for name, spec in sorted(asking.items())),
            fix=(remedy.install(facts, "Go back to numpy 1", "numpy<2"),),
        )


RULES: tuple[Rule, ...] = (dependency_unsatisfied, numpy_abi_differs)
