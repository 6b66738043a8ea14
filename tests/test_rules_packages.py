"""Installed packages against the stack and each other: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck import engine
from envcheck.codec import Unknown
from envcheck.facts import Facts, Origin, Source
from envcheck.model import Target
from envcheck.rules.requirements import dependency_unsatisfied, parse, tolerated
from envcheck.stack import Fault, Override
from tests import factories as make

BUILD = make.target(stage="build")
LAUNCH = make.target()
LTS = make.target(make.LTS)
MEGATRON = make.target(trainer="megatron")
GONE = Unknown("torch/version.py cannot be read")
GIT = Origin(url="https://github.com/sgl-project/sglang.git", commit="1" * 40)
VERL_GIT = Origin(url="https://github.com/volcengine/verl.git", commit="2" * 40)


def torch(version: str = "2.5.1", **changes: Any) -> Facts:
    return make.having(make.healthy(), make.package("torch", version, **{"cuda": "12.4", **changes}))


def pinned(**versions: str) -> Facts:
    names = {name.replace("_", "-"): version for name, version in versions.items()}
    return make.having(make.healthy(), *(make.package(name, version) for name, version in names.items()))


def test_a_requirement_of_unknown_version_is_not_called_missing() -> None:
    """It is there, in a version that cannot be read: no fault, and no false ok."""
    asks = make.package("asks", "1.0", requires=("there>=2",))
    facts = make.having(
        make.healthy(), asks, replace(make.package("there", "1"), version=Unknown("its METADATA is gone"))
    )
    found = engine.outcomes_of(dependency_unsatisfied, facts, LAUNCH)
    assert [item.outcome for item in found] == ["unknown"]
    assert "asks" not in " ".join(item.summary for item in found)


def on(machine: str, **changes: Any) -> Facts:
    return make.bare(os=make.system(machine=machine), **changes)


POST2 = make.package("sglang", "0.4.3.post2", origin=GIT, modules=("sglang.srt.entrypoints.verl_engine",))
CHECKOUT = (Source(name="verl", path="/src/verl", commit="3" * 40, importable=True),)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("pin-differs", make.healthy(), MEGATRON, "ok", id="seed"),
        pytest.param("pin-differs", make.lts(), LTS, "ok", id="lts"),
        pytest.param("pin-differs", make.bare(), BUILD, "not-applicable", id="nothing-installed"),
        pytest.param("pin-differs", make.bare(), LAUNCH, "error", id="nothing-installed-at-launch"),
        pytest.param("pin-differs", pinned(torch="2.6.0"), BUILD, "error", id="torch-at-build"),
        pytest.param("pin-differs", pinned(sglang="0.4.4"), BUILD, "warning", id="engine-at-build"),
        pytest.param("pin-differs", pinned(sglang="0.4.4"), LAUNCH, "error", id="engine-at-launch"),
        pytest.param("pin-differs", pinned(ray="2.44.1"), LAUNCH, "warning", id="a-library"),
        pytest.param("pin-differs", make.having(make.healthy(), POST2), LAUNCH, "ok", id="accepted-with-its-module"),
        pytest.param(
            "pin-differs",
            make.having(make.healthy(), replace(POST2, modules=())),
            LAUNCH,
            "error",
            id="without-its-module",
        ),
        pytest.param("pin-differs", torch(cuda="12.1"), LAUNCH, "error", id="the-build-for-another-cuda"),
        pytest.param(
            "pin-differs", make.changed(make.healthy(), "verl", origin=VERL_GIT), LAUNCH, "warning", id="another-commit"
        ),
        pytest.param("pin-differs", make.without(make.healthy(), "flash-attn"), LAUNCH, "error", id="one-is-missing"),
        pytest.param("pin-differs", make.without(make.healthy(), "flash-attn"), BUILD, "ok", id="to-be-built"),
        pytest.param("pin-differs", make.without(make.healthy(), "torch-memory-saver"), LAUNCH, "ok", id="optional"),
        pytest.param(
            "pin-differs",
            replace(make.without(make.healthy(), "verl"), sources=CHECKOUT),
            LAUNCH,
            "ok",
            id="a-checkout",
        ),
        pytest.param("pin-differs", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="unread"),
        pytest.param("python-unsupported", make.healthy(), LAUNCH, "ok", id="3.10"),
        pytest.param("python-unsupported", make.bare(python=make.python("3.13.1")), BUILD, "error", id="3.13"),
        pytest.param("python-unsupported", make.bare(python=make.python("3.9.18")), BUILD, "error", id="3.9"),
        pytest.param(
            "python-unsupported", make.bare(python=make.python(implementation="pypy")), BUILD, "error", id="pypy"
        ),
        pytest.param("python-unsupported", make.bare(python=Unknown("hangs")), BUILD, "unknown", id="python-unread"),
        pytest.param("torch-cpu-build", make.healthy(), LAUNCH, "ok", id="cuda"),
        pytest.param("torch-cpu-build", torch("2.5.1+cpu", cuda=None), BUILD, "error", id="cpu"),
        pytest.param("torch-cpu-build", torch("2.5.1+cpu", cuda=GONE), LAUNCH, "error", id="cpu-by-its-label"),
        pytest.param("torch-cpu-build", torch("2.5.1+cu124", cuda=GONE), LAUNCH, "ok", id="cuda-by-its-label"),
        pytest.param("torch-cpu-build", torch("2.5.1", cuda=GONE), LAUNCH, "unknown", id="version-file-gone"),
        pytest.param("torch-cpu-build", on("aarch64"), BUILD, "error", id="aarch64-before-the-install"),
        pytest.param("torch-cpu-build", on("x86_64"), BUILD, "ok", id="x86-64"),
        pytest.param("torch-cpu-build", make.bare(os=Unknown("uname")), BUILD, "unknown", id="machine-unread"),
        pytest.param("metadata-damaged", make.healthy(), LAUNCH, "ok", id="whole"),
        pytest.param(
            "metadata-damaged",
            make.changed(make.healthy(), "torch", damage=("no RECORD",)),
            LAUNCH,
            "error",
            id="torch",
        ),
        pytest.param(
            "metadata-damaged", make.changed(make.healthy(), "click", damage=("two",)), LAUNCH, "warning", id="another"
        ),
        pytest.param("metadata-damaged", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="damage-unread"),
        pytest.param("name-confusion", make.healthy(), LAUNCH, "ok", id="none"),
        pytest.param("name-confusion", pinned(apex="0.9.10.dev0"), LAUNCH, "error", id="apex-of-the-index"),
        pytest.param("name-confusion", pinned(apex="0.1"), LAUNCH, "ok", id="apex-of-nvidia"),
        pytest.param(
            "name-confusion",
            make.having(make.healthy(), make.package("apex", "0.1", summary="PyTorch Extensions written by NVIDIA")),
            LAUNCH,
            "ok",
            id="it-says-so",
        ),
        pytest.param("name-confusion", pinned(hydra="2.5"), LAUNCH, "error", id="hydra"),
        pytest.param("name-confusion", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="names-unread"),
        pytest.param("module-shadowed", make.healthy(), LAUNCH, "ok", id="nothing-hides"),
        pytest.param(
            "module-shadowed",
            make.healthy(python=make.python(shadowed=("ray=/w/ray",))),
            LAUNCH,
            "error",
            id="a-folder",
        ),
        pytest.param("module-shadowed", make.healthy(python=Unknown("hangs")), LAUNCH, "unknown", id="path-unread"),
    ],
)
def test_pins(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


def asking(*lines: str, **versions: str) -> Facts:
    return make.having(pinned(**versions), make.package("asker", "1.0", requires=lines))


def locked(**changes: Any) -> Target:
    stack = replace(LAUNCH.stack, lock=replace(LAUNCH.stack.lock, **changes))
    return replace(LAUNCH, stack=stack)


OVERRIDE = Override(requirement="missing-one==2", reason="r", source="s", until="u")
FAULT = Fault(package="asker", text="asker needs missing-one", reason="r")


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("dependency-unsatisfied", make.healthy(), LAUNCH, "ok", id="seed-with-its-vllm-edge"),
        pytest.param("dependency-unsatisfied", make.lts(), LTS, "ok", id="lts"),
        pytest.param("dependency-unsatisfied", asking("click>=9"), LAUNCH, "warning", id="too-old"),
        pytest.param("dependency-unsatisfied", asking("missing-one"), LAUNCH, "warning", id="missing"),
        pytest.param(
            "dependency-unsatisfied",
            make.changed(make.healthy(), "sglang", requires=("missing-one",)),
            LAUNCH,
            "error",
            id="missing-for-the-engine",
        ),
        pytest.param(
            "dependency-unsatisfied",
            asking('missing-one; sys_platform == "win32"'),
            LAUNCH,
            "ok",
            id="another-platform",
        ),
        pytest.param(
            "dependency-unsatisfied",
            asking('missing-one ; python_version < "3.11"'),
            LAUNCH,
            "warning",
            id="this-python",
        ),
        pytest.param("dependency-unsatisfied", asking('missing-one; extra == "dev"'), LAUNCH, "ok", id="an-extra"),
        pytest.param("dependency-unsatisfied", asking("missing-one; no marker"), LAUNCH, "ok", id="a-broken-marker"),
        pytest.param("dependency-unsatisfied", asking("?"), LAUNCH, "ok", id="no-requirement-at-all"),
        pytest.param(
            "dependency-unsatisfied", asking("missing-one"), locked(overrides=(OVERRIDE,)), "ok", id="overridden"
        ),
        pytest.param(
            "dependency-unsatisfied", asking("missing-one"), locked(known_faults=(FAULT,)), "ok", id="a-known-fault"
        ),
        pytest.param("dependency-unsatisfied", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="unread"),
        pytest.param("numpy-abi-differs", make.healthy(), LAUNCH, "ok", id="numpy-1"),
        pytest.param("numpy-abi-differs", pinned(numpy="2.2.6"), LAUNCH, "ok", id="nobody-minds"),
        pytest.param("numpy-abi-differs", asking("numpy<2", numpy="2.2.6"), LAUNCH, "error", id="asked-for-1"),
        pytest.param("numpy-abi-differs", asking("numpy>=1.24,<3", numpy="2.2.6"), LAUNCH, "ok", id="asked-for-either"),
        pytest.param("numpy-abi-differs", pinned(numpy="2.0.0", verl="0.6.0"), LAUNCH, "error", id="verl-by-the-table"),
        pytest.param(
            "numpy-abi-differs", pinned(numpy="2.0.0", torch="2.2.2"), LAUNCH, "error", id="torch-by-the-table"
        ),
        pytest.param("numpy-abi-differs", make.healthy(packages=Unknown("x")), LAUNCH, "unknown", id="numpy-unread"),
    ],
)
def test_requirements(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        pytest.param("torch==2.5.1", ("torch", "==2.5.1", ""), id="plain"),
        pytest.param("torch (>=2.0,<3)", ("torch", ">=2.0,<3", ""), id="parentheses"),
        pytest.param('Ray[default]>=2.10; extra == "x"', ("ray", ">=2.10", 'extra == "x"'), id="extra-and-marker"),
        pytest.param("flash_attn", ("flash-attn", "", ""), id="no-version"),
        pytest.param("apex @ git+https://github.com/NVIDIA/apex", ("apex", "", ""), id="url"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_a_requirement_line_is_read(line: str, parts: tuple[str, str, str] | None) -> None:
    assert parse(line) == parts


def test_the_stacks_own_edges_are_tolerated() -> None:
    assert ("verl", "vllm") in tolerated(LAUNCH)


@pytest.mark.parametrize(("machine", "text"), [("aarch64", "the CUDA index"), ("x86_64", "the stack's lock pins")])
def test_a_cpu_torch_is_not_replaced_from_a_lock_that_has_only_such(machine: str, text: str) -> None:
    facts = make.changed(make.healthy(os=make.system(machine=machine)), "torch", cuda=None, archs=())
    (fix,) = make.outcomes("torch-cpu-build", facts)[0].fix
    assert text in fix.text


def test_a_cpu_torch_is_found_where_the_system_could_not_be_read() -> None:
    facts = make.changed(make.healthy(os=Unknown("x")), "torch", cuda=None, archs=())
    assert make.said("torch-cpu-build", facts) == "error"


def test_what_the_stack_builds_is_not_installed_from_elsewhere() -> None:
    (apex,) = make.outcomes("name-confusion", pinned(apex="0.9.10.dev0"), LAUNCH)
    (hydra,) = make.outcomes("name-confusion", pinned(hydra="2.5"), LAUNCH)
    assert [fix.commands for fix in apex.fix] == [("nox -s build-apex -- --stack verl-sglang-cu124 --engine sglang",)]
    assert "pip install" in hydra.fix[0].commands[0]
