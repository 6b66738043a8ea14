"""Ways out with commands for the host at hand: its package manager, root or not, conda or venv, uv or pip."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from envcheck import choices
from envcheck.codec import Unknown
from envcheck.facts import Container, Facts
from envcheck.model import Fix, Target

MANAGERS = {
    "apt": ("debian", "ubuntu"),
    "dnf": ("rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn"),
    "zypper": ("suse", "opensuse", "sles"),
}
ENGINES = {"podman": "podman", "containerd": "nerdctl"}
"""Programs that start containers, by runtime; the others' are started by docker."""
UBUNTU_22_GCC = 12
"""The newest in Ubuntu 22.04's own archive."""


def manager(facts: Facts) -> str | None:
    """Name the host's package manager by the distribution's id and what it says it is like."""
    if isinstance(facts.os, Unknown) or isinstance(facts.os.id, Unknown):
        return None
    names = (facts.os.id, *facts.os.like)
    return next(
        (tool for tool, family in MANAGERS.items() if any(n.startswith(f) for n in names for f in family)), None
    )


def is_root(facts: Facts) -> bool:
    """Tell whether the commands will run as root."""
    return not isinstance(facts.os, Unknown) and facts.os.user_id == 0


def as_root(facts: Facts, *commands: str) -> tuple[str, ...]:
    """Put sudo before commands where the user is not root."""
    return commands if is_root(facts) else tuple(f"sudo {command}" for command in commands)


def runtime(facts: Facts) -> str | None:
    """Name what runs the container this is; None outside of one, and in Apptainer's, which has the host's limits."""
    if facts.container is None:
        return None
    name = facts.container.runtime if isinstance(facts.container, Container) else "docker"
    return None if name == "apptainer" else name


def run_container(facts: Facts, options: str) -> str:
    """Write the command that starts a container with options, in the words of its runtime."""
    return f"{ENGINES.get(runtime(facts) or '', 'docker')} run {options} …"


def with_gpus(facts: Facts) -> Fix:
    """Start this container anew with the host's GPUs."""
    text = "Start the container with the GPUs"
    container = facts.container
    if runtime(facts) == "kubernetes":
        return Fix(text="Ask for nvidia.com/gpu in the pod's resources")
    if isinstance(container, Container) and container.runtime == "apptainer":
        return Fix(text=text, commands=(f"apptainer exec --nv {shlex.quote(container.image or 'IMAGE')} …",))
    gpus = "--device nvidia.com/gpu=all" if runtime(facts) == "podman" else "--gpus all"
    return Fix(text=text, commands=(run_container(facts, f"{gpus} --ipc=host"),))


def gpus(facts: Facts, target: Target) -> tuple[Fix, ...]:
    """Ways to see a GPU: give it to the container, another host where the PCI bus of this one has none, a driver."""
    wsl = not isinstance(facts.os, Unknown) and facts.os.wsl
    if facts.container is not None:
        return (with_gpus(facts),)
    if facts.gpus != () or wsl:
        return driver(facts, target, target.stack.driver.native)
    options = f"--stack {target.stack.name} --engine {target.engine} --trainer {target.trainer}"
    return (
        Fix(text=f"This host has no NVIDIA GPU: run this on one that has, to {target.stage} there"),
        Fix(text="Or judge what can be built here", commands=(f"python -m envcheck doctor {options} --stage build",)),
    )


def conda_prefix(facts: Facts) -> str | None:
    """Prefix of the conda environment that the target interpreter lives in."""
    if isinstance(facts.python, Unknown) or facts.python.environment != "conda":
        return None
    return facts.python.conda_prefix or facts.python.prefix


def system_packages(facts: Facts, what: str, named: Mapping[str, str]) -> tuple[Fix, ...]:
    """Ways to install system packages, named by manager (apt, dnf, zypper, conda): conda-forge's need no root."""
    ways = []
    names, conda = named.get(manager(facts) or "", ""), named.get("conda", "")
    if names:
        refresh = ("apt-get update",) if manager(facts) == "apt" else ()
        install = {"apt": "apt-get install -y", "dnf": "dnf install -y", "zypper": "zypper install -y"}[
            manager(facts) or ""
        ]
        ways.append(Fix(text=f"Install {what}", commands=as_root(facts, *refresh, f"{install} {names}")))
    if conda and (conda_prefix(facts) or not is_root(facts) or not ways):
        ways.append(conda_install(facts, f"Install {what} without root, from conda-forge", conda))
    return tuple(ways) or (Fix(text=f"Install {what} with the host's package manager"),)


def conda_install(facts: Facts, text: str, names: str) -> Fix:
    """Install from conda-forge, into the target's own environment where it is one."""
    prefix = conda_prefix(facts)
    place = f" -p {shlex.quote(prefix)}" if prefix else ""
    return Fix(text=text, commands=(f"conda install{place} -y -c conda-forge {names}",))


def pip(facts: Facts, *arguments: str) -> str:
    """Write the command that installs into the target interpreter, with uv where the host has it."""
    python = "python" if isinstance(facts.python, Unknown) else shlex.quote(facts.python.executable)
    rest = " ".join(shlex.quote(argument) for argument in arguments)
    has_uv = not isinstance(facts.tools, Unknown) and any(tool.name == "uv" for tool in facts.tools)
    return f"uv pip install --python {python} {rest}" if has_uv else f"{python} -m pip install {rest}"


def install(facts: Facts, text: str, *arguments: str) -> Fix:
    """Install requirements into the target interpreter."""
    return Fix(text=text, commands=(pip(facts, *arguments),))


def locked(target: Target, text: str = "Install what the stack's lock pins") -> Fix:
    """Install the locked environment."""
    arguments = f"--stack {target.stack.name} --engine {target.engine} --trainer {target.trainer}"
    return Fix(text=text, commands=(f"nox -s env -- {arguments}",))


def build(target: Target, name: str, text: str, *, archs: str = "") -> Fix:
    """Build the wheel of a component for the stack and the engine that were judged."""
    return Fix(text=text, commands=(choices.command(target.stack, target.engine, name, archs=archs),))


def toolchain(target: Target) -> Fix:
    """Unpack the stack's CUDA toolkit below the cache, without root."""
    return Fix(
        text=f"Provision CUDA {target.stack.cuda.default} without root, under the project's cache",
        commands=(f"nox -s toolchain -- --stack {target.stack.name}", shell(target)),
    )


def shell(target: Target) -> str:
    """Write the command that sets the shell up for the stack."""
    return f'eval "$(python -m envcheck env --stack {target.stack.name})"'


def export(name: str, value: str) -> str:
    """Write an export line."""
    return f"export {name}={shlex.quote(value)}"


def exports(text: str, **values: str) -> Fix:
    """Set variables in the shell."""
    return Fix(text=text, commands=tuple(export(name, value) for name, value in values.items()))


def wheel_folder(path: str) -> Fix:
    """Put the folder of a wheel's libraries, or several with colons, before what the loader searches now."""
    command = f"export LD_LIBRARY_PATH={path}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
    return Fix(text="Name the wheel's folder", commands=(command,))


def unset(*names: str) -> Fix:
    """Take variables out of the shell."""
    return Fix(text=f"Take {' and '.join(names)} out of the shell", commands=tuple(f"unset {name}" for name in names))


def compiler(facts: Facts, target: Target, limit: int | None = None) -> tuple[Fix, ...]:
    """Ways to get the GCC that the stack recommends, or the newest that nvcc accepts, and to make builds take it."""
    gcc = _at_most(target.stack.gcc.default, limit)
    ways = [*_distribution_compiler(facts, gcc)]
    if not is_root(facts) or conda_prefix(facts) or not ways:
        ways.append(conda_install(facts, f"Install GCC {gcc} without root, from conda-forge", f"gxx_linux-64={gcc}"))
    return tuple(ways)


def _at_most(gcc: str, limit: int | None) -> str:
    return gcc if limit is None else str(min(int(gcc), limit))


def _distribution_compiler(facts: Facts, gcc: str) -> tuple[Fix, ...]:
    name, release = _distribution(facts)
    take = f"export CC=/usr/bin/gcc-{gcc} CXX=/usr/bin/g++-{gcc} CUDAHOSTCXX=/usr/bin/g++-{gcc}"
    if manager(facts) == "apt":
        older_release = {"ubuntu": 23 if int(gcc) > UBUNTU_22_GCC else 22, "debian": 13}.get(name, 0) > release
        if older_release and name == "debian":
            return _debian_compiler(facts, _at_most({12: "12", 11: "10"}.get(release, "9"), int(gcc)))
        archive = ("apt-get install -y software-properties-common", "add-apt-repository -y ppa:ubuntu-toolchain-r/test")
        commands = as_root(
            facts, *(archive if older_release else ()), "apt-get update", f"apt-get install -y gcc-{gcc} g++-{gcc}"
        )
        return (Fix(text=f"Install GCC {gcc} and make builds take it", commands=(*commands, take)),)
    if manager(facts) == "dnf":
        enable = f"source /opt/rh/gcc-toolset-{gcc}/enable"
        commands = as_root(facts, f"dnf install -y gcc-toolset-{gcc}")
        return (Fix(text=f"Install GCC {gcc} (gcc-toolset) and enable it", commands=(*commands, enable)),)
    if manager(facts) == "zypper":
        commands = as_root(facts, f"zypper install -y gcc{gcc} gcc{gcc}-c++")
        return (Fix(text=f"Install GCC {gcc} and make builds take it", commands=(*commands, take)),)
    return ()


def _debian_compiler(facts: Facts, gcc: str) -> tuple[Fix, ...]:
    take = f"export CC=/usr/bin/gcc-{gcc} CXX=/usr/bin/g++-{gcc} CUDAHOSTCXX=/usr/bin/g++-{gcc}"
    commands = as_root(facts, "apt-get update", f"apt-get install -y gcc-{gcc} g++-{gcc}")
    return (Fix(text=f"Install this Debian's GCC {gcc} and make builds take it", commands=(*commands, take)),)


def _distribution(facts: Facts) -> tuple[str, int]:
    if isinstance(facts.os, Unknown) or isinstance(facts.os.id, Unknown) or isinstance(facts.os.version, Unknown):
        return "", 0
    release = facts.os.version.partition(".")[0]
    return facts.os.id, int(release) if release.isdigit() else 0


def driver(facts: Facts, target: Target, least: str) -> tuple[Fix, ...]:
    """Ways to a newer driver: the host's, or data-center compatibility libraries."""
    branch = target.stack.driver.native.partition(".")[0]
    if facts.container is not None:
        return (
            Fix(text=f"Update the driver of the machine that runs this container to {least} or newer, then restart it"),
        )
    ubuntu = _distribution(facts)[0] == "ubuntu"
    ways = system_packages(
        facts,
        f"driver {branch} and reboot" if ubuntu else f"driver {branch} or newer, from NVIDIA's repository, and reboot",
        {
            "apt": f"nvidia-driver-{branch}-server" if ubuntu else "nvidia-driver",
            "dnf": "nvidia-driver nvidia-driver-cuda",
        },
    )
    return (*ways, Fix(text=f"Without root: ask the administrator for driver {least} or newer"))
