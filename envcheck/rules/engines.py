"""The engines and verl: what each imports from the other, and libraries that a release breaks with."""

from __future__ import annotations

from collections.abc import Iterator

from envcheck.facts import Facts, Package
from envcheck.limits import Row, satisfies
from envcheck.model import Finding, NotApplicable, Rule, Severity, Target, installed, known, package, rule
from envcheck.rules import remedy, subjects


@rule(
    "sglang-verl-engine-missing",
    group="packages",
    subject="sglang",
    cause="verl imports modules that only some sglang releases have: verl and sglang belong together.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/volcengine/verl/pull/490",
        "https://github.com/verl-project/verl/issues/2921",
        "https://github.com/verl-project/verl/issues/2589",
    ),
    fix=("Install the sglang that this verl was written for.",),
)
def sglang_verl_engine_missing(facts: Facts, target: Target) -> Iterator[Finding]:
    """sglang has the modules that verl imports from it."""
    if target.engine != "sglang":
        raise NotApplicable("sglang is not the engine")
    found = installed(facts, "sglang")
    item = subjects.wanted_component(target, "sglang")
    for module in item.modules if item else ():
        if not _has(found, module, target):
            yield _without_module(found, module, target)
    yield from _not_verls(facts, target)


def _has(found: Package, module: str, target: Target) -> bool:
    """Tell whether a module is there: as read, else by the release."""
    if found.modules:
        return module in found.modules
    version = subjects.public(known(found.version))
    from_git = found.origin is not None
    rows = target.limits.rows("sglang", sglang=version)
    return from_git or not any(row.give.get("no_module") == module for row in rows)


def _without_module(found: Package, module: str, target: Target) -> Finding:
    return Finding(
        summary=f"sglang {found.version} has no {module}, which the verl of this stack imports",
        found=f"sglang {found.version}",
        expected=f"sglang {target.stack.component('sglang').version}",
        fix=(remedy.locked(target),),
    )


def _not_verls(facts: Facts, target: Target) -> Iterator[Finding]:
    """Find another sglang than the one that the installed verl release pins."""
    have = subjects.versions(facts)
    if "verl" not in have:
        return
    for row, subject in subjects.broken(target, "verl", have):
        if subject == "sglang":
            yield Finding(
                summary=f"verl {have['verl']} is written for sglang{row.need['sglang']}, not for {have['sglang']}",
                found=f"verl {have['verl']}, sglang {have['sglang']}",
                expected=f"sglang {row.need['sglang']}",
                fix=(remedy.locked(target),),
                sources=(row.source,),
            )


@rule(
    "vllm-pin-conflict",
    group="packages",
    subject="vllm",
    cause="verl's metadata caps vLLM below what sglang asks for. The cap matters to the vLLM engine alone, unless verl "
    "itself looks at the version when it is imported, as the released 0.2.0.post2 does.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/volcengine/verl/blob/v0.2.0.post2/verl/third_party/vllm/__init__.py",),
    fix=("Leave it for the SGLang engine; give the vLLM engine an environment of its own.",),
)
def vllm_pin_conflict(facts: Facts, target: Target) -> Iterator[Finding]:
    """The installed vLLM is one that verl accepts, or that verl does not use."""
    vllm, verl = installed(facts, "vllm"), installed(facts, "verl")
    found = {"verl": subjects.public(subjects.version(verl)), "vllm": subjects.public(subjects.version(vllm))}
    released = verl.origin is None
    for row in target.limits.rows("verl", **found):
        if "refuses" in row.give and released:
            yield _vllm(found, target, "verl refuses it when it is imported", row, "error")
            return
    asked = _declared(verl) or next(
        (row.need["vllm"] for row, subject in subjects.broken(target, "verl", found) if subject == "vllm"), None
    )
    if asked is None:
        return
    declaring = target.limits.first("verl", verl=found["verl"])
    if satisfies(found["vllm"], asked):
        return
    pinned = subjects.wanted_component(target, "vllm")
    if pinned is not None and satisfies(found["vllm"], f"=={pinned.version}"):
        yield _vllm(found, target, "the stack pins this pair, which goes together", declaring, "ok", asked)
    elif target.engine == "vllm":
        yield _vllm(found, target, "the rollout needs a vLLM that verl knows", declaring, "error", asked)
    else:
        yield _vllm(found, target, "harmless: the SGLang engine does not use vLLM's rollout", declaring, "ok", asked)


def _declared(verl: Package) -> str | None:
    """Read the vLLM range of verl's own metadata, ``vllm<=0.6.3``, with or without an extra."""
    from envcheck.rules.requirements import parse

    lines = (parse(line) for line in verl.requires if line.startswith("vllm"))
    return next((line[1] for line in lines if line and line[1]), None)


def _vllm(  # noqa: PLR0913, PLR0917  # the parts of one finding
    found: dict[str, str], target: Target, what: str, row: Row | None, severity: Severity, asked: str = ""
) -> Finding:
    return Finding(
        summary=f"verl {found['verl']} does not know vLLM {found['vllm']}: {what}",
        found=f"vllm {found['vllm']}",
        expected=f"vllm{asked}" if asked else "a vLLM that verl accepts, or none",
        fix=() if severity == "ok" else (remedy.locked(target),),
        severity=severity,
        sources=(row.source,) if row else (),
    )


@rule(
    "transformers-range",
    group="packages",
    subject="transformers",
    cause="Neither verl nor sglang caps transformers, and its releases remove what they import.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/verl-project/verl/issues/5007",),
    fix=("Install the transformers that the stack pins.",),
)
def transformers_range(facts: Facts, target: Target) -> Iterator[Finding]:
    """transformers is one that the installed sglang and verl work with."""
    installed(facts, "transformers")
    have = subjects.versions(facts)
    for table in ("sglang", "verl"):
        for row, subject in subjects.broken(target, table, have):
            if subject != "transformers":
                continue
            exact = row.need[subject].startswith("==")
            yield Finding(
                summary=f"transformers {have[subject]} is not what {table} {have[table]} works with"
                + (f": {row.why}" if row.why else ""),
                found=f"transformers {have[subject]}",
                expected=f"transformers {row.need[subject]}",
                fix=(remedy.install(facts, "Install one in the range", f"transformers{row.need[subject]}"),),
                severity="warning" if exact else "error",
                sources=(row.source,),
            )


def _pairs(facts: Facts, target: Target, wanted: str) -> Iterator[tuple[Row, dict[str, str]]]:
    """Broken rows of the package pairs that ask something of one package."""
    have = subjects.versions(facts)
    for row, subject in subjects.broken(target, "python-packages", have):
        if subject == wanted:
            yield row, have


@rule(
    "transformers-needs-newer-torch",
    group="packages",
    subject="transformers",
    cause="transformers after 4.51 refuses torch.load below torch 2.6: checkpoints without safetensors and the states "
    "that a run resumes from cannot be read.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/huggingface/transformers/issues/38464",
        "https://github.com/hiyouga/LlamaFactory/issues/8379",
    ),
    fix=("Install the transformers that the stack pins, or torch 2.6; or use safetensors.",),
)
def transformers_needs_newer_torch(facts: Facts, target: Target) -> Iterator[Finding]:
    """transformers can read checkpoints with the installed torch."""
    installed(facts, "transformers")
    for row, have in _pairs(facts, target, "torch"):
        yield Finding(
            summary=f"transformers {have['transformers']} refuses torch.load with torch {have['torch']}",
            found=f"transformers {have['transformers']}, torch {have['torch']}",
            expected="torch 2.6 or newer, or transformers 4.51.3 or older",
            fix=(remedy.locked(target), remedy.install(facts, "Or go back", "transformers<=4.51.3")),
            severity="warning",
            sources=(row.source,),
        )


@rule(
    "ray-click-conflict",
    group="packages",
    subject="ray",
    cause="ray leaves click open, and click 8.3 changed what ray's command line relies on.",
    stages=("build", "launch", "train"),
    sources=("https://github.com/ray-project/ray/issues/56747", "https://github.com/alibaba/ROLL/pull/477"),
    fix=("pip install 'click<8.2'",),
)
def ray_click_conflict(facts: Facts, target: Target) -> Iterator[Finding]:
    """ray's command line works with the installed click."""
    installed(facts, "ray")
    have = subjects.versions(facts)
    for row, subject in subjects.broken(target, "ray", have):
        if subject == "click":
            yield Finding(
                summary=f"click {have['click']} breaks every command of ray {have['ray']}",
                found=f"ray {have['ray']}, click {have['click']}",
                expected=f"click {row.need['click']}",
                fix=(remedy.install(facts, "Go back", "click<8.2"),),
                sources=(row.source,),
            )


@rule(
    "setuptools-too-new",
    group="packages",
    subject="setuptools",
    cause="setuptools 82 removed pkg_resources, and 70 took packaging out of it; older torch and verl import them.",
    stages=("build", "launch", "train"),
    sources=(
        "https://github.com/Dao-AILab/flash-attention/issues/981",
        "https://github.com/pytorch/vision/issues/9380",
    ),
    fix=("Install the setuptools that the lock pins.",),
)
def setuptools_too_new(facts: Facts, target: Target) -> Iterator[Finding]:
    """setuptools still has what the installed packages import from it."""
    yield from _setuptools(facts, target, "<", "new")


def _setuptools(facts: Facts, target: Target, sign: str, word: str) -> Iterator[Finding]:
    if package(facts, "setuptools") is None:
        raise NotApplicable("setuptools is not installed")
    for row, have in _pairs(facts, target, "setuptools"):
        other = next(iter(row.when))
        if not row.need["setuptools"].startswith(sign):
            continue
        yield Finding(
            summary=f"setuptools {have['setuptools']} is too {word} for {other} {have[other]}"
            + (f": {row.why}" if row.why else ""),
            found=f"setuptools {have['setuptools']}, {other} {have[other]}",
            expected=f"setuptools {row.need['setuptools']}",
            fix=(remedy.install(facts, "Install one in the range", f"setuptools{row.need['setuptools']}"),),
            severity="error" if other == "verl" or target.stage == "build" else "warning",
            sources=(row.source,),
        )


@rule(
    "setuptools-too-old",
    group="packages",
    subject="setuptools",
    cause="torch 2.13 and newer need a setuptools of 2025; older environments have one of their interpreter's time.",
    stages=("build",),
    sources=("https://github.com/huggingface/transformers/pull/47251",),
    fix=("pip install --upgrade setuptools",),
)
def setuptools_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """setuptools is as new as the installed torch asks for."""
    yield from _setuptools(facts, target, ">", "old")


@rule(
    "wheel-too-old",
    group="packages",
    subject="wheel",
    cause="A distribution's wheel imports pkg_resources, which setuptools 82 removed.",
    stages=("build",),
    sources=("https://github.com/huggingface/transformers/pull/47251",),
    fix=("pip install --upgrade 'wheel>=0.43'",),
)
def wheel_too_old(facts: Facts, target: Target) -> Iterator[Finding]:
    """wheel works with the installed setuptools."""
    installed(facts, "wheel")
    for row, have in _pairs(facts, target, "wheel"):
        yield Finding(
            summary=f"wheel {have['wheel']} does not work with setuptools {have['setuptools']}: {row.why}",
            found=f"wheel {have['wheel']}, setuptools {have['setuptools']}",
            expected=f"wheel {row.need['wheel']}",
            fix=(remedy.install(facts, "Update it", "--upgrade", "wheel>=0.43"),),
            sources=(row.source,),
        )


RULES: tuple[Rule, ...] = (
    sglang_verl_engine_missing,
    vllm_pin_conflict,
    transformers_range,
    transformers_needs_newer_torch,
    ray_click_conflict,
    setuptools_too_new,
    setuptools_too_old,
    wheel_too_old,
)
