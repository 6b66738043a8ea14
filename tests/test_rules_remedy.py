"""Ways out: the commands fit the distribution, the user, the environment and the installer."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Container, Facts, Tool
from envcheck.model import Fix
from envcheck.rules import remedy
from tests import factories as make

TARGET = make.target(stage="build")
PIP = (Tool(name="git", path="/usr/bin/git", version="2.40"),)
CONDA = make.python(environment="conda", conda_prefix="/opt/conda/envs/verl")
SUSE = make.system(id="sles", version="15.6", like=("suse",))
ARCH = make.system(id="arch", version="rolling", like=())
UNREAD: Any = Unknown("no /etc/os-release")


def on(release: str, name: str = "ubuntu", like: tuple[str, ...] = ("debian",), **changes: Any) -> Facts:
    return make.bare(os=make.system(id=name, version=release, like=like, **changes))


def commands(fixes: tuple[Fix, ...]) -> str:
    return "\n".join(command for fix in fixes for command in fix.commands)


@pytest.mark.parametrize(
    ("facts", "wanted", "unwanted"),
    [
        pytest.param(on("22.04"), "ppa:ubuntu-toolchain-r/test", "dnf", id="ubuntu-22.04-needs-the-archive"),
        pytest.param(on("24.04"), "apt-get install -y gcc-13 g++-13", "add-apt-repository", id="ubuntu-24.04-has-it"),
        pytest.param(on("12", "debian", ()), "gcc-12 g++-12", "add-apt-repository", id="debian-12-has-12"),
        pytest.param(on("13", "debian", ()), "gcc-13 g++-13", "add-apt-repository", id="debian-13-has-13"),
        pytest.param(on("8.10", "rocky", ("rhel",)), "gcc-toolset-13/enable", "apt", id="rocky-8"),
        pytest.param(make.bare(os=SUSE), "zypper install -y gcc13 gcc13-c++", "apt", id="suse"),
        pytest.param(make.bare(os=ARCH), "conda install", "apt", id="another"),
        pytest.param(make.bare(os=UNREAD), "conda install", "apt", id="unread"),
        pytest.param(on("24.04", user_id=0), "apt-get update", "sudo", id="root-needs-no-sudo"),
        pytest.param(on("24.04"), "gxx_linux-64=13", "--root", id="without-root-from-conda-forge"),
    ],
)
def test_a_compiler_is_installed_as_the_distribution_does(facts: Facts, wanted: str, unwanted: str) -> None:
    said = commands(remedy.compiler(facts, TARGET))
    assert wanted in said
    assert unwanted not in said


@pytest.mark.parametrize(
    ("facts", "limit", "wanted"),
    [
        pytest.param(on("22.04"), 12, "apt-get install -y gcc-12 g++-12", id="ubuntu-22.04-has-it"),
        pytest.param(on("12", "debian", ()), 11, "apt-get install -y gcc-11 g++-11", id="debian-12-has-it"),
        pytest.param(on("8.10", "rocky", ("rhel",)), 12, "dnf install -y gcc-toolset-12", id="rocky-8"),
        pytest.param(make.bare(os=ARCH), 12, "gxx_linux-64=12", id="another"),
    ],
)
def test_the_compiler_is_one_that_nvcc_accepts(facts: Facts, limit: int, wanted: str) -> None:
    said = commands(remedy.compiler(facts, TARGET, limit))
    assert wanted in said
    assert "13" not in said
    assert "ppa:" not in said


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        pytest.param(make.healthy(), "uv pip install --python /home/me/venv/bin/python 'click<8.2'", id="uv"),
        pytest.param(make.healthy(tools=PIP), "/home/me/venv/bin/python -m pip install 'click<8.2'", id="pip"),
        pytest.param(
            make.healthy(tools=Unknown("PATH"), python=Unknown("x")), "python -m pip install 'click<8.2'", id="x"
        ),
    ],
)
def test_a_package_is_installed_into_the_target(facts: Facts, wanted: str) -> None:
    assert remedy.pip(facts, "click<8.2") == wanted


@pytest.mark.parametrize(
    ("facts", "count", "wanted"),
    [
        pytest.param(make.bare(), 2, "conda install -y -c conda-forge numactl", id="without-root-too"),
        pytest.param(make.bare(os=make.system(user_id=0)), 1, "apt-get install -y libnuma1", id="root"),
        pytest.param(make.bare(os=ARCH), 1, "conda install", id="no-manager-that-is-known"),
        pytest.param(make.bare(python=CONDA), 2, "conda install -p /opt/conda/envs/verl -y", id="into-its-own-prefix"),
    ],
)
def test_system_packages_have_a_way_without_root(facts: Facts, count: int, wanted: str) -> None:
    ways = remedy.system_packages(facts, "libnuma", {"apt": "libnuma1", "conda": "numactl"})
    assert len(ways) == count
    assert wanted in commands(ways)


def test_what_no_manager_has_is_still_said() -> None:
    assert remedy.system_packages(make.bare(os=ARCH), "a thing", {"apt": "thing"})[0].text.startswith("Install a thing")


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        pytest.param(on("22.04"), "nvidia-driver-550-server", id="ubuntu"),
        pytest.param(on("12", "debian", ()), "apt-get install -y nvidia-driver", id="debian"),
        pytest.param(make.bare(container=Container(runtime="docker")), "", id="a-container-cannot"),
    ],
)
def test_a_driver_is_installed_on_the_machine(facts: Facts, wanted: str) -> None:
    ways = remedy.driver(facts, TARGET, "550.54.14")
    assert wanted in commands(ways)
    assert all("550" in way.text for way in ways)


def test_the_toolchain_is_provisioned_and_the_shell_set_up() -> None:
    assert remedy.toolchain(TARGET).commands == (
        "nox -s toolchain -- --stack verl-sglang-cu124",
        'eval "$(python -m envcheck env --stack verl-sglang-cu124)"',
    )


def test_values_are_quoted_for_the_shell() -> None:
    assert remedy.export("TORCH_CUDA_ARCH_LIST", "8.0;9.0") == "export TORCH_CUDA_ARCH_LIST='8.0;9.0'"
    assert remedy.unset("A", "B").commands == ("unset A", "unset B")
