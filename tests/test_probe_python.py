from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from envcheck.codec import Unknown
from envcheck.errors import HostError
from envcheck.host import Completed, LocalHost, RecordedHost
from envcheck.probes import interpreter
from envcheck.probes import python as probing

SAID = {
    "executable": "/venv/bin/python",
    "version": "3.10.13",
    "implementation": "cpython",
    "abi": "cp310",
    "prefix": "/venv",
    "base_prefix": "/usr",
    "venv": True,
    "include": "/usr/include/python3.10",
    "sites": ["/venv/lib/python3.10/site-packages", "/venv/lib64/python3.10/site-packages"],
}


def answering(path: str, text: str, **host: object) -> RecordedHost:
    """A host whose interpreter answers the question of interpreter.py, whatever its text."""

    class Answering(RecordedHost):
        def run(self, argv: object, *, timeout: float = 0) -> Completed:
            assert isinstance(argv, list)
            assert argv[:4] == [path, "-I", "-S", "-c"]
            return Completed(stdout=text)

    return Answering(files={path: ""}, **host)  # type: ignore[arg-type]


def test_the_named_interpreter_is_asked() -> None:
    found = probing.resolve(answering("/venv/bin/python", "noise\n" + json.dumps(SAID) + "\n"), "/venv/bin/python")
    assert isinstance(found, probing.Target)
    assert (found.version, found.abi, found.venv) == ("3.10.13", "cp310", True)


@pytest.mark.parametrize("named", ["/venv", "/venv/", "/venv/bin/python"])
def test_a_virtual_environment_may_be_named_by_its_directory(named: str) -> None:
    assert isinstance(probing.resolve(answering("/venv/bin/python", json.dumps(SAID)), named), probing.Target)


def test_a_name_is_looked_up_on_path() -> None:
    host = answering("/usr/bin/python3.12", json.dumps(SAID), environ={"PATH": "/usr/bin"})
    assert isinstance(probing.resolve(host, "python3.12"), probing.Target)


@pytest.mark.parametrize(
    ("files", "named", "said"),
    [
        ({}, "/nowhere", "there is no such file or directory"),
        ({"/dir/x": ""}, "/dir", "holds no bin/python"),
        ({"/etc/passwd": ""}, "/etc/passwd", "could not say what it is"),
    ],
)
def test_what_is_no_interpreter_is_an_error(files: dict[str, str], named: str, said: str) -> None:
    with pytest.raises(HostError, match=said) as caught:
        probing.resolve(RecordedHost(files=files), named)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "hello", "{}", "[]", '{"sites": 1}', json.dumps({**SAID, "sites": "x"})])
def test_an_answer_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(HostError, match="is not a Python interpreter"):
        probing.resolve(answering("/bin/cat", text), "/bin/cat")


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"VIRTUAL_ENV": "/venv", "PATH": "/usr/bin"}, "/venv/bin/python"),
        ({"CONDA_PREFIX": "/conda"}, "/conda/bin/python"),
        ({"PATH": "/usr/bin"}, "/usr/bin/python3"),
        ({}, "/opt/conda/bin/python"),
    ],
)
def test_the_default_of_another_host(environ: dict[str, str], path: str) -> None:
    assert isinstance(probing.resolve(answering(path, json.dumps(SAID), environ=environ), None), probing.Target)


def test_a_host_without_python() -> None:
    found = probing.resolve(RecordedHost(), None)
    assert found == Unknown("there is no python3 or python on PATH")
    assert probing.probe(RecordedHost(), found, {}) == found


def test_this_interpreter_is_not_started() -> None:
    found = probing.resolve(LocalHost(), None)
    assert isinstance(found, probing.Target)
    assert found.version.startswith(".".join(map(str, sys.version_info[:3])))


def target(**changes: object) -> probing.Target:
    return probing._target({**SAID, **changes})


def test_python_of_a_virtual_environment() -> None:
    host = RecordedHost(
        files={"/usr/include/python3.10/Python.h": "", "/venv/lib/python3.10/site-packages/x": ""},
        links={"/venv/lib64": "/venv/lib"},
        environ={"PYTHONPATH": "/src::/other", "CONDA_PREFIX": "/conda"},
    )
    found = probing.probe(host, target(), {})
    assert not isinstance(found, Unknown)
    assert (found.environment, found.conda_prefix) == ("venv", "/conda")
    assert found.include_dir == "/usr/include/python3.10"
    assert found.site_packages == ("/venv/lib/python3.10/site-packages",)
    assert found.paths == ("/src", ".", "/other")


def test_python_without_headers_in_conda_and_in_the_system() -> None:
    conda = probing.probe(RecordedHost(files={"/venv/conda-meta/x": ""}), target(venv=False), {})
    assert not isinstance(conda, Unknown)
    assert (conda.environment, conda.conda_prefix) == ("conda", "/venv")
    assert conda.include_dir == Unknown("there is no Python.h in /usr/include/python3.10")
    system = probing.probe(RecordedHost(), target(venv=False), {})
    assert not isinstance(system, Unknown)
    assert (system.environment, system.paths) == ("system", ())


def test_folders_that_shadow_packages() -> None:
    host = RecordedHost(
        files={
            "/home/me/ray/__init__.py": "",
            "/home/me/torch.py": "",
            "/home/me/verl/__init__.py": "",
            "/home/me/sglang/README": "",
        },
        environ={"PYTHONPATH": "/home/me"},
    )
    installed = {"ray": "/s/ray", "torch": "/s/torch", "verl": "/home/me/verl", "sglang": "/s/sglang"}
    assert probing.shadowed(host, installed) == ("ray=/home/me/ray", "torch=/home/me/torch.py")


def test_describe_this_interpreter() -> None:
    said = interpreter.describe()
    assert said["implementation"] == "cpython"
    assert said["abi"] == "cp" + "".join(map(str, sys.version_info[:2])) + sys.abiflags
    assert isinstance(said["sites"], list)
    assert all(isinstance(site, str) for site in said["sites"])


def test_describe_a_virtual_environment_with_system_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    said = interpreter.describe()
    sites = said["sites"]
    assert isinstance(sites, list)
    assert said["venv"] is True
    assert said["prefix"] == str(tmp_path)
    assert sites[0].startswith(str(tmp_path))
    assert not sites[-1].startswith(str(tmp_path))


def test_describe_a_system_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    said = interpreter.describe()
    assert said["venv"] is False
    assert isinstance(said["include"], str)
    assert isinstance(said["sites"], list)
    with_user = len(said["sites"])
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    without = interpreter.describe()["sites"]
    assert isinstance(without, list)
    assert len(without) == with_user - 1


def test_pre_releases_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Version:
        releaselevel = "candidate"
        serial = 2

    monkeypatch.setattr(sys, "version_info", Version)
    assert interpreter._pre_release() == "rc2"


INTERPRETERS = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))


@pytest.mark.process
@pytest.mark.parametrize("path", INTERPRETERS, ids=lambda path: path.parent.parent.name)
def test_real_interpreters_describe_themselves(path: Path) -> None:
    found = probing.resolve(LocalHost(), str(path))
    assert isinstance(found, probing.Target)
    assert found.version == path.parent.parent.name
    assert Path(found.include, "Python.h").exists()
    assert any(Path(site, "pip").exists() for site in found.sites)


@pytest.mark.process
def test_a_program_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "TIMEOUT_SECONDS", 0.3)
    hanging = tmp_path / "python"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    with pytest.raises(HostError, match=r"did not answer within 0\.3 s"):
        probing.resolve(LocalHost(), str(hanging))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("ls: cannot access 'import sys\n  write(_json(describe()))': File name too long", "it does not run Python"),
        ("Traceback:\n  line 1\nModuleNotFoundError: no json\n", "ModuleNotFoundError: no json"),
    ],
)
def test_a_program_that_fails_is_told_in_one_line(said: str, why: str) -> None:
    found = probing.parse(Completed(returncode=2, stderr=said), "/bin/x")
    assert found == Unknown(f"/bin/x could not say what it is: {why}")
