"""What a build needs: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck import engine
from envcheck.codec import Unknown
from envcheck.facts import Facts, Source, Tool
from envcheck.rules import build_environment
from tests import factories as make

BUILD = make.target(stage="build")
TE = make.target(stage="build", trainer="megatron")
NO_HEADERS = make.python(include_dir=Unknown("there is no Python.h in /usr/include/python3.10"))
BROKEN_NINJA = (Tool(name="ninja", path="/usr/bin/ninja", version=Unknown("it does not run"), works=False),)
GIT = (Tool(name="git", path="/usr/bin/git", version="2.40"),)
NO_CXX = tuple(item for item in make.compilers() if item.role == "cc")
GONE_CXX = make.compiler("cxx", "g++-13", Unknown("'g++-13' was not found"), why="CXX=g++-13")


def memory(gigabytes: float, limit: float | None = None, **values: str) -> Facts:
    found = make.resources(
        memory_available_bytes=int(gigabytes * (1 << 30)), memory_limit_bytes=int(limit * (1 << 30)) if limit else None
    )
    return make.variables(make.bare(resources=found), **values)


def disks(*found: Any) -> Facts:
    return make.bare(resources=make.resources(disks=found))


def source(**submodules: bool) -> Facts:
    there = Source(name="TransformerEngine", path="/src/te", commit="4" * 40, submodules=submodules)
    return make.bare(sources=(there,))


def pip(version: str, *tools: Tool) -> Facts:
    return make.bare(packages=(make.package("pip", version),), tools=tools)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("python-headers-missing", make.bare(), BUILD, "ok", id="there"),
        pytest.param("python-headers-missing", make.bare(python=NO_HEADERS), BUILD, "error", id="not-there"),
        pytest.param("python-headers-missing", make.healthy(python=NO_HEADERS), make.target(), "error", id="launch"),
        pytest.param("python-headers-missing", make.bare(python=Unknown("no python")), BUILD, "unknown", id="unread"),
        pytest.param(
            "python-headers-missing",
            make.bare(python=make.python(include_dir=Unknown("not found"))),
            BUILD,
            "error",
            id="not-there-in-other-words",
        ),
        pytest.param(
            "python-headers-missing",
            make.bare(python=make.python(include_dir=Unknown("it cannot be read"))),
            BUILD,
            "unknown",
            id="the-directory-unread",
        ),
        pytest.param("build-tool-missing", make.bare(tools=GIT), BUILD, "ok", id="nothing-installed-yet"),
        pytest.param("build-tool-missing", make.healthy(), TE, "ok", id="all-there"),
        pytest.param("build-tool-missing", make.bare(compilers=()), BUILD, "error", id="no-compiler"),
        pytest.param("build-tool-missing", make.bare(compilers=NO_CXX), BUILD, "error", id="no-c++"),
        pytest.param("build-tool-missing", make.bare(compilers=(GONE_CXX,)), BUILD, "error", id="named-and-gone"),
        pytest.param("build-tool-missing", make.bare(tools=()), TE, "error", id="no-git"),
        pytest.param("build-tool-missing", make.bare(tools=()), BUILD, "ok", id="nothing-comes-from-git"),
        pytest.param("build-tool-missing", make.bare(tools=GIT + BROKEN_NINJA), BUILD, "warning", id="ninja-is-broken"),
        pytest.param(
            "build-tool-missing",
            make.without(make.healthy(tools=GIT), "ninja", "wheel", "flash-attn"),
            BUILD,
            "warning",
            id="beside-torch",
        ),
        pytest.param(
            "build-tool-missing", make.bare(compilers=Unknown("PATH")), BUILD, "unknown", id="unread-compilers"
        ),
        pytest.param("build-isolation-hides-torch", make.bare(), BUILD, "ok", id="a-note"),
        pytest.param(
            "build-isolation-hides-torch",
            make.variables(make.bare(), PIP_NO_BUILD_ISOLATION="1"),
            BUILD,
            "error",
            id="pip-reads-it-the-other-way-round",
        ),
        pytest.param(
            "build-isolation-hides-torch",
            make.variables(make.bare(), PIP_NO_BUILD_ISOLATION="0"),
            BUILD,
            "ok",
            id="off",
        ),
        pytest.param("pip-too-old", pip("25.0"), BUILD, "ok", id="new"),
        pytest.param("pip-too-old", pip("21.2.4"), BUILD, "warning", id="no-config-settings"),
        pytest.param(
            "pip-too-old", pip("22.0.2", Tool(name="uv", path="/uv", version="0.9")), BUILD, "ok", id="uv-installs"
        ),
        pytest.param(
            "pip-too-old",
            pip("20.0.2", Tool(name="uv", path="/uv", version="0.9")),
            BUILD,
            "warning",
            id="wheels-skipped",
        ),
        pytest.param("pip-too-old", make.bare(packages=(), tools=()), BUILD, "not-applicable", id="no-pip"),
        pytest.param("pip-too-old", make.bare(packages=Unknown("site")), BUILD, "unknown", id="unread"),
        pytest.param("build-needs-more-memory", make.bare(), BUILD, "ok", id="a-large-host"),
        pytest.param("build-needs-more-memory", memory(3), BUILD, "error", id="not-one-job"),
        pytest.param("build-needs-more-memory", memory(900, 4), BUILD, "error", id="cgroup"),
        pytest.param("build-needs-more-memory", memory(128, MAX_JOBS="64"), BUILD, "error", id="too-many-jobs"),
        pytest.param("build-needs-more-memory", memory(128, MAX_JOBS="4"), BUILD, "ok", id="few-jobs"),
        pytest.param("build-needs-more-memory", memory(128), BUILD, "ok", id="jobs-not-said"),
        pytest.param("build-needs-more-memory", memory(7.2, MAX_JOBS="1"), BUILD, "ok", id="one-job-beside-pip"),
        pytest.param("build-needs-more-memory", memory(14.2, MAX_JOBS="2"), BUILD, "error", id="pip-takes-the-rest"),
        pytest.param("build-needs-more-memory", make.bare(resources=Unknown("/proc")), BUILD, "unknown", id="unread"),
        pytest.param("build-needs-more-disk", make.bare(), BUILD, "ok", id="enough"),
        pytest.param(
            "build-needs-more-disk",
            disks(make.disk("work", "/w", 2), make.disk("home", "/h")),
            BUILD,
            "error",
            id="work",
        ),
        pytest.param(
            "build-needs-more-disk",
            disks(make.disk("tmp", "/tmp", 2), make.disk("home", "/h")),
            BUILD,
            "warning",
            id="tmp",
        ),
        pytest.param(
            "build-needs-more-disk",
            disks(make.disk("tmp", "/tmp", free_bytes=Unknown("statvfs"))),
            BUILD,
            "unknown",
            id="unread",
        ),
        pytest.param("submodule-missing", make.bare(), BUILD, "not-applicable", id="no-checkout"),
        pytest.param("submodule-missing", source(**{"3rdparty/cudnn-frontend": True}), BUILD, "ok", id="whole"),
        pytest.param("submodule-missing", source(**{"3rdparty/cudnn-frontend": False}), BUILD, "error", id="empty"),
        pytest.param("submodule-missing", make.bare(sources=Unknown("cwd")), BUILD, "unknown", id="unread"),
    ],
)
def test_builds(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


@pytest.mark.parametrize(
    ("system", "command"),
    [
        pytest.param(make.system(), "sudo apt-get install -y python3.10-dev", id="ubuntu"),
        pytest.param(make.system(user_id=0), "apt-get install -y python3.10-dev", id="root"),
        pytest.param(make.system(id="rocky", like=("rhel",)), "sudo dnf install -y python3.10-devel", id="rocky"),
        pytest.param(make.system(id="sles", like=("suse",)), "sudo zypper install -y python310-devel", id="suse"),
    ],
)
def test_the_fix_fits_the_distribution(system: Any, command: str) -> None:
    outcome = make.outcomes("python-headers-missing", make.bare(python=NO_HEADERS, os=system), BUILD)[0]
    assert command in outcome.fix[0].commands


def test_the_number_of_jobs_that_fits_is_named() -> None:
    outcome = make.outcomes("build-needs-more-memory", memory(128, MAX_JOBS="64"), BUILD)[0]
    assert "export MAX_JOBS=18" in outcome.fix[0].commands


def test_tmpdir_is_pointed_at_the_disk_with_most_space() -> None:
    facts = disks(make.disk("tmp", "/tmp", 1), make.disk("work", "/work", 10), make.disk("home", "/mnt/big", 900))
    outcome = make.outcomes("build-needs-more-disk", facts, BUILD)[0]
    assert outcome.fix[0].commands == ("export TMPDIR=/mnt/big",)


def test_without_torch_no_python_tool_is_asked_for() -> None:
    facts = replace(make.bare(), tools=GIT)
    assert make.said("build-tool-missing", facts, BUILD) == "ok"


def test_headers_that_cannot_be_looked_for_are_unknown() -> None:
    """A directory that cannot be read is no missing header."""
    facts = make.bare(python=make.python(include_dir=Unknown("it cannot be read")))
    found = engine.outcomes_of(build_environment.python_headers_missing, facts, BUILD)
    assert [item.outcome for item in found] == ["unknown"]


def test_no_place_is_named_that_is_full_as_well() -> None:
    short = make.resources(disks=(make.disk("tmp", "/tmp", 2.0), make.disk("work", "/work", 2.5)))
    for outcome in make.outcomes("build-needs-more-disk", make.bare(resources=short), BUILD):
        assert [fix.text for fix in outcome.fix] == [
            f"Free {'2.0' if outcome.subject == '/tmp' else '0.5'} GiB in {outcome.subject}"
        ]
