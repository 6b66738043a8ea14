"""Describe the interpreter that runs this file. It is also sent to other interpreters: it must run on Python 3.6."""

import os
import sys


def describe() -> "dict[str, object]":
    """Describe this interpreter; the site directories of its virtual environment are found under ``-I -S`` too."""
    executable = os.path.abspath(sys.executable)
    home = os.path.dirname(os.path.dirname(executable))
    venv = os.path.isfile(os.path.join(home, "pyvenv.cfg"))
    prefix = home if venv else sys.prefix
    return {
        "executable": executable,
        "version": ".".join(map(str, sys.version_info[:3])) + _pre_release(),
        "implementation": sys.implementation.name,
        "abi": _abi(),
        "prefix": prefix,
        "base_prefix": sys.base_prefix,
        "venv": venv,
        "include": _include(),
        "sites": _sites(prefix, venv=venv),
    }


def _pre_release() -> str:
    level = {"alpha": "a", "beta": "b", "candidate": "rc"}.get(sys.version_info.releaselevel, "")
    return level + str(sys.version_info.serial) if level else ""


def _abi() -> str:
    name = {"cpython": "cp", "pypy": "pp"}.get(sys.implementation.name, sys.implementation.name)
    return name + "{}{}".format(*sys.version_info[:2]) + getattr(sys, "abiflags", "")


def _include() -> str:
    """Directory of Python.h: the usual place first, since importing sysconfig's data costs milliseconds."""
    usual = os.path.join(
        sys.base_prefix, "include", "python{}.{}".format(*sys.version_info[:2]) + getattr(sys, "abiflags", "")
    )
    if os.path.isfile(os.path.join(usual, "Python.h")):
        return usual
    import sysconfig

    return sysconfig.get_path("include") or usual


def _sites(prefix: str, *, venv: bool) -> "list[str]":
    """Directories of installed packages in the order in which they are searched; they need not exist."""
    import site

    own = [
        os.path.join(prefix, lib, "python{}.{}".format(*sys.version_info[:2]), "site-packages")
        for lib in ("lib", "lib64")
    ]
    if not venv:
        user = [] if os.environ.get("PYTHONNOUSERSITE") else [site.getusersitepackages()]
        return user + site.getsitepackages([sys.prefix])
    if _system_site_packages(prefix):
        own += site.getsitepackages([sys.base_prefix])
    return own


def _system_site_packages(prefix: str) -> bool:
    with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8", errors="replace") as file:
        lines = [line.lower().replace(" ", "").strip() for line in file]
    return "include-system-site-packages=true" in lines


def _json(value: object) -> str:
    """Write what ``describe`` gives as JSON; importing json would double the time that an interpreter needs."""
    if isinstance(value, dict):
        return "{" + ", ".join(_json(key) + ": " + _json(item) for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    units = str(value).encode("utf-16-be", "surrogatepass")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return '"' + "".join(chr(code) if _is_plain(code) else f"\\u{code:04x}" for code in codes) + '"'


def _is_plain(code: int) -> bool:
    return code in range(0x20, 0x7F) and chr(code) not in '"\\'


if __name__ == "__main__":
    sys.stdout.write("\n" + _json(describe()) + "\n")
