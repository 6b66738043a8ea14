"""A judgement that holds every outcome, and text that tries to break each form."""

from __future__ import annotations

from collections.abc import Iterable

from envcheck import limits, stack
from envcheck.codec import Unknown
from envcheck.facts import Driver, Facts, Gpu, Os, Package, Python, Resources
from envcheck.model import Finding, Fix, Judgement, NotApplicable, Outcome, Rule, Target, UnknownFactError, rule

HOSTILE = "\x1b[31mred\x1b[0m \x00 <script>alert(1)</script> & ]]> \"'` ``` ::error::x %0A | * _ # [l](http://x)\u202e\udc80\r"


def facts(**changed: object) -> Facts:
    """Give a small healthy host."""
    fields: dict[str, object] = {
        "host": "node-1",
        "collected": "2026-01-02T03:04:05Z",
        "os": Os(id="ubuntu", version="22.04", kernel="5.15.0", machine="x86_64", glibc="2.35", libstdcxx="3.4.30"),
        "resources": Resources(
            cpus=8, memory_bytes=64 << 30, memory_available_bytes=60 << 30, shm_bytes=32 << 30,
            max_processes=65536, open_files=65536, locked_memory="unlimited",
        ),
        "driver": Driver(present=True, version="550.54.15", cuda="12.4", kernel_module="550.54.15"),
        "gpus": (Gpu(name="NVIDIA H100", compute_capability="9.0", memory_bytes=80 << 30),) * 2,
        "python": Python(executable="/venv/bin/python", version="3.10.13", abi="cp310", include_dir="/usr/include"),
        "packages": (Package(name="torch", version="2.5.1+cu124", cuda="12.4"),),
    }  # fmt: skip
    return Facts(**{**fields, **changed})  # type: ignore[arg-type]


def target(stage: str = "build") -> Target:
    return Target(stack=stack.load(), limits=limits.load(), stage=stage)  # type: ignore[arg-type]


def outcome(name: str, kind: str, **changed: object) -> Outcome:
    fields: dict[str, object] = {
        "rule": name,
        "subject": name.split("-", maxsplit=1)[0],
        "outcome": kind,
        "summary": f"{name} said",
    }
    return Outcome(**{**fields, "stages": ("build",), **changed})  # type: ignore[arg-type]


NVCC = outcome(
    "nvcc-missing", "error", summary="there is no nvcc", found="nothing on PATH", expected="nvcc 12.4",
    fix=(Fix(text="Provide the toolchain", commands=("nox -s toolchain", "export A='b c'")), Fix(text="Or ask root")),
    sources=("https://example.org/nvcc", "a book"),
)  # fmt: skip
OUTCOMES = (
    NVCC,
    outcome("gcc-too-old", "crashed", summary="the rule itself failed: ValueError: x"),
    outcome("pip-too-old", "warning", found="pip 20", expected="pip 24", fix=(Fix(text="Upgrade it"),)),
    outcome("driver-missing", "unknown", summary="could not be judged: NVML did not answer"),
    outcome("driver-too-old", "unknown", summary="could not be judged: NVML did not answer"),
    outcome("gpu-arch-not-built", "ok", summary="sm_90 is covered", found="built for 9.0 only"),
    outcome("nccl-headers-missing", "ok"),
    outcome("shm-too-small", "not-applicable", summary="not in a container"),
)


def judgement(outcomes: Iterable[Outcome] = OUTCOMES, stage: str = "build", **changed: object) -> Judgement:
    return Judgement(target=target(stage), facts=facts(**changed), outcomes=tuple(outcomes))


def hostile() -> Judgement:
    """Every text is hostile, wherever a host could have put it."""
    bad = dict.fromkeys(("summary", "found", "expected", "subject"), HOSTILE)
    outcomes = [
        outcome(
            item.rule, item.outcome, **bad, fix=(Fix(text=HOSTILE, commands=(HOSTILE, "a\nb")),), sources=(HOSTILE,)
        )
        for item in OUTCOMES
    ]
    return judgement(outcomes, host=HOSTILE, python=Python(executable=HOSTILE, version="3", abi="x", include_dir="y"))


def _rule(rule_id: str, group: str, found: list[Finding] | Exception, stages: tuple[str, ...] = ("build",)) -> Rule:
    def check(_facts: Facts, _target: Target) -> list[Finding]:
        if isinstance(found, Exception):
            raise found
        return found

    check.__doc__ = f"What {rule_id} claims."
    return rule(
        rule_id, group=group, subject="thing", cause=f"why {rule_id}", stages=stages,  # type: ignore[arg-type]
        sources=("https://example.org/a",), fix=("mend it",),
    )(check)  # fmt: skip


RULES = (
    _rule("nvcc-missing", "toolkit", [Finding(summary="there is no nvcc", found="nothing", expected="nvcc 12.4")]),
    _rule("gcc-too-old", "compiler", []),
    _rule("pip-too-old", "toolkit", [Finding(summary="old", found="20", expected="24", severity="warning")]),
    _rule("driver-missing", "driver", UnknownFactError("no NVML"), ("launch", "train")),
    _rule("shm-too-small", "container", NotApplicable("no container"), ("build", "train")),
)
BY_ID = {item.id: item for item in RULES}
UNREAD = Unknown("could not be read")
