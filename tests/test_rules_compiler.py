"""Host compilers: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Facts
from envcheck.model import known
from tests import factories as make

BUILD = make.target(stage="build")
TE = make.target(stage="build", trainer="megatron")
LAUNCH = make.target()
GCC7 = make.compilers("7.5.0")
CUDA13 = make.toolkit("13.0.2", path="/usr/local/cuda", gcc_max=15)
NOT_FOUND = Unknown("'g++-13' was not found")


def with_compilers(*found: Any, **changes: Any) -> Facts:
    return make.bare(compilers=tuple(found), **changes)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("gcc-too-old", make.bare(), BUILD, "ok", id="gcc-11"),
        pytest.param("gcc-too-old", with_compilers(*GCC7), BUILD, "error", id="ubuntu-18.04"),
        pytest.param("gcc-too-old", with_compilers(*make.compilers("8.5.0")), BUILD, "error", id="rocky-8"),
        pytest.param("gcc-too-old", with_compilers(*make.compilers("9.4.0")), TE, "ok", id="ubuntu-20.04"),
        pytest.param("gcc-too-old", with_compilers(*make.compilers("14.0.0", family="clang")), BUILD, "ok", id="clang"),
        pytest.param(
            "gcc-too-old", with_compilers(*make.compilers("6.0.0", family="clang")), TE, "error", id="old-clang"
        ),
        pytest.param("gcc-too-old", with_compilers(), BUILD, "not-applicable", id="no-compiler"),
        pytest.param(
            "gcc-too-old", with_compilers(make.compiler("cxx", "/g++", NOT_FOUND)), BUILD, "unknown", id="unread"
        ),
        pytest.param("gcc-too-old", make.healthy(compilers=GCC7), LAUNCH, "error", id="launch-compiles-at-run-time"),
        pytest.param(
            "gcc-too-old",
            make.without(make.healthy(compilers=GCC7), "flashinfer-python"),
            LAUNCH,
            "ok",
            id="launch",
        ),
        pytest.param("gcc-too-new-for-nvcc", make.bare(), BUILD, "ok", id="gcc-11"),
        pytest.param("gcc-too-new-for-nvcc", with_compilers(*make.compilers("14.2.0")), BUILD, "error", id="gcc-14"),
        pytest.param(
            "gcc-too-new-for-nvcc",
            with_compilers(*make.compilers("14.2.0"), toolkits=(replace(make.toolkit(), gcc_max=None),)),
            BUILD,
            "error",
            id="limit-by-table",
        ),
        pytest.param(
            "gcc-too-new-for-nvcc",
            with_compilers(*make.compilers("14.2.0"), toolkits=(make.toolkit("14.1", gcc_max=None),)),
            BUILD,
            "not-applicable",
            id="cuda-of-the-future",
        ),
        pytest.param(
            "gcc-too-new-for-nvcc",
            make.variables(with_compilers(*make.compilers("14.2.0")), NVCC_PREPEND_FLAGS="-allow-unsupported-compiler"),
            BUILD,
            "warning",
            id="forced",
        ),
        pytest.param(
            "gcc-too-new-for-nvcc",
            with_compilers(*make.compilers("11.4.0"), toolkits=(make.toolkit("11.5", gcc_max=11),)),
            BUILD,
            "error",
            id="cuda-11.5-with-libstdcxx-11",
        ),
        pytest.param("gcc-too-new-for-nvcc", make.bare(toolkits=()), BUILD, "not-applicable", id="no-nvcc"),
        pytest.param("gcc-too-new-for-nvcc", with_compilers(), BUILD, "not-applicable", id="no-compiler"),
        pytest.param(
            "gcc-too-new-for-nvcc", with_compilers(*make.compilers("15.0", family="clang")), BUILD, "ok", id="clang"
        ),
        pytest.param("host-compiler-differs", make.bare(), BUILD, "ok", id="one"),
        pytest.param(
            "host-compiler-differs",
            with_compilers(
                make.compiler("cc", "/usr/bin/gcc", "13.2.0"),
                make.compiler("cxx", "/usr/bin/g++", "13.2.0"),
                make.compiler("cmake-cxx", "/usr/bin/c++", "9.4.0"),
            ),
            BUILD,
            "warning",
            id="cmake-takes-an-old-one",
        ),
        pytest.param(
            "host-compiler-differs",
            make.variables(
                with_compilers(
                    make.compiler("cxx", "/usr/bin/g++", "13.2.0"),
                    make.compiler("cuda-host", "/opt/gcc/bin/g++", "12.3.0"),
                ),
                CUDAHOSTCXX="/opt/gcc/bin/g++",
            ),
            BUILD,
            "ok",
            id="on-purpose",
        ),
        pytest.param("host-compiler-differs", with_compilers(), BUILD, "not-applicable", id="no-compiler"),
        pytest.param("glibc-too-new-for-cuda", make.bare(), BUILD, "ok", id="glibc-2.35"),
        pytest.param("glibc-too-new-for-cuda", make.bare(os=make.system(glibc="2.41")), BUILD, "error", id="debian-13"),
        pytest.param(
            "glibc-too-new-for-cuda",
            make.bare(os=make.system(glibc="2.41"), toolkits=(CUDA13,)),
            BUILD,
            "ok",
            id="cuda-13-has-the-fix",
        ),
        pytest.param(
            "glibc-too-new-for-cuda",
            make.bare(os=make.system(glibc="2.41"), toolkits=(make.toolkit(path="/usr", source="debian"),)),
            BUILD,
            "ok",
            id="debian-packages-it-right",
        ),
        pytest.param(
            "glibc-too-new-for-cuda",
            make.variables(make.bare(os=make.system(glibc="2.41")), NVCC_PREPEND_FLAGS="-isystem /x"),
            BUILD,
            "ok",
            id="worked-around",
        ),
        pytest.param(
            "glibc-too-new-for-cuda", make.bare(os=make.system(glibc=Unknown("no libc"))), BUILD, "unknown", id="unread"
        ),
    ],
)
def test_compilers(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


def test_a_compiler_that_nvcc_accepts_is_named_where_it_is_there() -> None:
    found = (*make.compilers("14.2.0"), make.compiler("other", "/usr/bin/g++-12", "12.3.0", selected=False))
    outcome = make.outcomes("gcc-too-new-for-nvcc", with_compilers(*found), BUILD)[0]
    assert outcome.fix[0].commands == ("export CXX=/usr/bin/g++-12", "export CUDAHOSTCXX=/usr/bin/g++-12")


def test_a_gcc_within_the_limit_of_nvcc_is_installed() -> None:
    facts = with_compilers(*make.compilers("14.2.0"), toolkits=(make.toolkit("12.3.2", gcc_max=12),))
    outcome = make.outcomes("gcc-too-new-for-nvcc", facts, BUILD)[0]
    said = " ".join(command for fix in outcome.fix for command in fix.commands)
    assert "gcc-12 g++-12" in said
    assert "13" not in said


def test_a_toolkit_that_torch_refuses_is_exchanged_not_its_gcc() -> None:
    facts = with_compilers(*make.compilers("12.2.0"), toolkits=(make.toolkit("11.8.0", gcc_max=11),))
    outcome = make.outcomes("gcc-too-new-for-nvcc", facts, BUILD)[0]
    assert outcome.summary == "nvcc 11.8.0 refuses GCC 12.2.0: it accepts GCC up to 11"
    (fix,) = outcome.fix
    assert fix.commands[0] == "nox -s toolchain -- --stack verl-sglang-cu124"
    with_right_one = replace(
        facts, toolkits=(*known(facts.toolkits), make.toolkit("12.4.131", path="/cache/cuda-12.4", selected=False))
    )
    first = make.outcomes("gcc-too-new-for-nvcc", with_right_one, BUILD)[0].fix[0]
    assert first.commands[0] == "export CUDA_HOME=/cache/cuda-12.4"


def test_each_compiler_is_reported_once() -> None:
    assert len(make.outcomes("gcc-too-old", with_compilers(*GCC7), TE)) == 2


def test_the_stacks_toolkit_comes_before_an_older_gcc_where_it_takes_this_one() -> None:
    old = make.toolkit("12.0.140", "/usr", source="debian", gcc_max=12)
    facts = with_compilers(*make.compilers("13.2.0"), toolkits=(old,))
    texts = [fix.text for fix in make.outcomes("gcc-too-new-for-nvcc", facts, BUILD)[0].fix]
    assert texts[0].startswith("Provision CUDA 12.4")
    assert any(text.startswith("Install GCC 12") for text in texts)
