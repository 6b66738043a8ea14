from __future__ import annotations

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Compiler, Package, Tool, Toolkit
from envcheck.host import Completed, RecordedHost
from envcheck.probes import compilers, nvcc, tools

VERSION_JSON = '{"cuda": {"name": "CUDA SDK", "version": "12.4.1"}, "cuda_nvcc": {"version": "12.4.131"}, "x": {}}'
NVCC = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 12.4, V12.4.131\nBuild cuda_12.4\n"
HPC = "/opt/nvidia/hpc_sdk/Linux_x86_64/24.5/cuda/12.4"
HOST_CONFIG = (
    "#if __GNUC__ > 13\n#error -- unsupported GNU version! gcc versions later than 13 are not supported!\n#endif"
)


def cuda(root: str, *, version: str = VERSION_JSON, headers: bool = True) -> dict[str, str]:
    files = {f"{root}/bin/nvcc": "\x7fELF", f"{root}/bin/ptxas": "", f"{root}/version.json": version}
    if headers:
        files |= {f"{root}/include/cuda_runtime.h": "", f"{root}/include/crt/host_config.h": HOST_CONFIG}
    return files


def probe(host: RecordedHost, sites: tuple[str, ...] = ()) -> tuple[Toolkit, ...]:
    return nvcc.finish(nvcc.start(host, sites))


def test_a_usual_toolkit_and_its_link_are_one() -> None:
    host = RecordedHost(
        files=cuda("/usr/local/cuda-12.4"),
        links={"/usr/local/cuda": "/usr/local/cuda-12.4"},
        environ={"PATH": "/usr/local/cuda/bin:/usr/bin"},
    )
    (found,) = probe(host)
    assert (found.path, found.version, found.ptxas, found.gcc_max) == ("/usr/local/cuda", "12.4.1", "12.4.131", 13)
    assert (found.source, found.selected, found.headers, found.cmake) == ("path", True, True, True)
    assert found.why == "nvcc on PATH is /usr/local/cuda/bin/nvcc"


def test_cuda_home_wins_for_torch_and_path_for_cmake() -> None:
    host = RecordedHost(
        files={**cuda("/opt/cuda-12.4"), **cuda("/usr/local/cuda", version='{"cuda": {"version": "13.0.2"}}')},
        environ={"PATH": "/usr/local/cuda/bin", "CUDA_HOME": "/opt/cuda-12.4/"},
    )
    first, second = probe(host)
    assert (first.path, first.source, first.selected, first.cmake) == ("/opt/cuda-12.4", "env", True, False)
    assert (second.version, second.selected, second.cmake) == ("13.0.2", False, True)
    assert first.why == "CUDA_HOME is set"


def test_a_cuda_home_that_is_not_there_is_selected_all_the_same() -> None:
    (found,) = probe(RecordedHost(environ={"CUDA_HOME": "/nonexistent"}))
    assert found.selected
    assert found.nvcc is None
    assert found.version == Unknown("/nonexistent does not exist")
    assert not found.headers


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"HOME": "/home/me"}, id="home"),
        pytest.param({"HOME": "/", "XDG_CACHE_HOME": "/home/me/.cache"}, id="user-cache"),
        pytest.param({"HOME": "/", "ENVCHECK_CACHE": "/home/me/.cache/envcheck"}, id="own-cache"),
    ],
)
def test_a_provisioned_toolkit_is_found_but_not_taken(environ: dict[str, str]) -> None:
    place = "/home/me/.cache/envcheck/toolchains/cuda-12.4"
    (found,) = probe(RecordedHost(files=cuda(place), environ={"PATH": "/usr/bin", **environ}))
    assert (found.path, found.source, found.selected, found.version) == (place, "cache", False, "12.4.1")


def test_the_usual_place_is_taken_where_nothing_names_another() -> None:
    (found,) = probe(RecordedHost(files=cuda("/usr/local/cuda"), environ={"PATH": "/usr/bin"}))
    assert found.selected
    assert not found.cmake
    assert "usual place" in found.why


def test_a_script_on_path_leads_to_the_real_toolkit() -> None:
    files = {
        **cuda("/usr/local/cuda-12.4"),
        "/usr/local/bin/nvcc": '#!/bin/sh\nexec /usr/local/cuda-12.4/bin/nvcc "$@"\n',
    }
    first, second = probe(RecordedHost(files=files, environ={"PATH": "/usr/local/bin"}))
    assert (first.path, first.version, first.headers, first.selected) == ("/usr/local", "12.4.1", False, True)
    assert "a script that starts /usr/local/cuda-12.4/bin/nvcc" in first.why
    assert second.path == "/usr/local/cuda-12.4"


def test_debian_conda_modules_and_wheels_are_found() -> None:
    site = "/venv/lib/python3.12/site-packages"
    host = RecordedHost(
        files={
            "/usr/bin/nvcc": "\x7fELF",
            "/usr/lib/nvidia-cuda-toolkit/bin/ptxas": "",
            "/usr/include/cuda.h": "#define CUDA_VERSION 12000\n",
            "/usr/include/crt/host_config.h": "nothing",
            "/conda/targets/x86_64-linux/include/cuda.h": "#define CUDA_VERSION 12060\n",
            "/conda/bin/nvcc": "\x7fELF",
            "/sw/CUDA/12.4.0/version.txt": "CUDA Version 12.4.99\n",
            "/sw/CUDA/12.4.0/bin/nvcc": "\x7fELF",
            f"{HPC}/bin/nvcc": "\x7fELF",
            f"{HPC}/include/cuda_runtime_api.h": "#define CUDART_VERSION  12040\n",
            f"{site}/nvidia/cuda_nvcc/bin/ptxas": "",
        },
        environ={"PATH": "/usr/bin", "CONDA_PREFIX": "/conda", "EBROOTCUDA": "/sw/CUDA/12.4.0"},
        commands={
            ("/usr/lib/nvidia-cuda-toolkit/bin/ptxas", "--version"): Completed(stdout="release 12.0, V12.0.140"),
            (f"{site}/nvidia/cuda_nvcc/bin/ptxas", "--version"): Completed(stdout="garbage"),
        },
    )
    found = {item.path: item for item in probe(host, (site,))}
    assert {path: (item.source, item.version) for path, item in found.items() if isinstance(item.version, str)} == {
        "/usr": ("debian", "12.0"),
        "/opt/nvidia/hpc_sdk/Linux_x86_64/24.5/cuda/12.4": ("module", "12.4"),
        "/conda": ("conda", "12.6"),
        "/sw/CUDA/12.4.0": ("module", "12.4.99"),
    }
    assert found["/usr"].ptxas == "12.0.140"
    assert found["/usr"].selected
    assert isinstance(found["/usr"].gcc_max, Unknown)
    wheel = found[f"{site}/nvidia/cuda_nvcc"]
    assert (wheel.source, wheel.nvcc) == ("pip", None)
    assert isinstance(wheel.ptxas, Unknown)


def test_the_program_is_asked_where_no_file_tells_the_version() -> None:
    host = RecordedHost(
        files={"/x/bin/nvcc": "\x7fELF"},
        environ={"PATH": "/x/bin"},
        commands={("/x/bin/nvcc", "--version"): Completed(stdout=NVCC)},
    )
    assert probe(host)[0].version == "12.4"
    silent = RecordedHost(files={"/x/bin/nvcc": "\x7fELF"}, environ={"PATH": "/x/bin"})
    assert isinstance(probe(silent)[0].version, Unknown)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CUDACXX": "/x/bin/nvcc"}, "/x/bin/nvcc"),
        ({"CUDACXX": "nvcc", "PATH": "/x/bin"}, "/x/bin/nvcc"),
        ({"CUDA_PATH": "/x"}, "/x/bin/nvcc"),
        ({}, None),
    ],
)
def test_cmake_takes(environ: dict[str, str], expected: str | None) -> None:
    assert nvcc.cmake_takes(RecordedHost(files={"/x/bin/nvcc": ""}, environ=environ)) == expected


def test_no_toolkit() -> None:
    assert probe(RecordedHost()) == ()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cuda": 1}', '{"cuda": null}'])
def test_version_json_of_garbage(text: str) -> None:
    assert nvcc.parse_version_json(text) == {}


def test_releases() -> None:
    assert nvcc.parse_release(NVCC) == ("12.4", "12.4.131")
    assert nvcc.parse_release("release 9.0") == ("9.0", "9.0")
    assert nvcc.parse_release("") is None
    assert nvcc.parse_cuda_version("#define CUDA_VERSION 11080") == "11.8"
    assert nvcc.parse_cuda_version("") is None


def gnu(*paths: str, version: str = "12.2.0\n") -> dict[tuple[str, ...], Completed]:
    return {(path, "-dumpfullversion", "-dumpversion"): Completed(stdout=version) for path in paths}


def found_compilers(host: RecordedHost) -> list[Compiler]:
    return list(compilers.finish(host, compilers.start(host)))


def test_compilers_of_a_plain_host() -> None:
    host = RecordedHost(
        files={"/usr/bin/gcc-12": "", "/usr/bin/g++-12": "", "/usr/bin/g++-11": "", "/usr/bin/clang-14": ""},
        links={
            "/usr/bin/cc": "/usr/bin/gcc-12",
            "/usr/bin/gcc": "/usr/bin/gcc-12",
            "/usr/bin/c++": "/usr/bin/g++-12",
            "/usr/bin/g++": "/usr/bin/g++-12",
        },
        environ={"PATH": "/usr/bin:/bin"},
        commands={
            **gnu("/usr/bin/gcc-12", "/usr/bin/g++-12"),
            **gnu("/usr/bin/g++-11", version="11.3.0"),
            ("/usr/bin/clang-14", "--version"): Completed(stdout="Debian clang version 14.0.6\nTarget: x86_64\n"),
        },
    )
    found = found_compilers(host)
    assert [(item.role, item.path, item.version) for item in found if item.selected] == [
        ("cc", "/usr/bin/cc", "12.2.0"),
        ("cxx", "/usr/bin/c++", "12.2.0"),
        ("cuda-host", "/usr/bin/g++", "12.2.0"),
        ("cmake-cxx", "/usr/bin/c++", "12.2.0"),
    ]
    others = {(item.path, item.family, item.version) for item in found if item.role == "other"}
    assert others == {("/usr/bin/g++-11", "gcc", "11.3.0"), ("/usr/bin/clang-14", "clang", "14.0.6")}


def test_compilers_that_variables_name() -> None:
    host = RecordedHost(
        files={"/usr/bin/g++-13": "", "/usr/bin/g++": "", "/opt/gcc/bin/g++": "", "/usr/bin/ccache": ""},
        environ={
            "PATH": "/usr/bin",
            "CC": "gcc-99",
            "CXX": "ccache g++-13 -m64",
            "NVCC_PREPEND_FLAGS": "-O2 -ccbin /opt/gcc/bin",
        },
        commands={**gnu("/usr/bin/g++-13", "/opt/gcc/bin/g++", "/usr/bin/g++", version="13.2.0")},
    )
    found = {item.role: item for item in found_compilers(host) if item.selected}
    assert found["cc"].version == Unknown("'gcc-99' was not found")
    assert found["cxx"].path == "/usr/bin/g++-13"
    assert found["cuda-host"].path == "/opt/gcc/bin/g++"
    assert found["cuda-host"].why == "NVCC_PREPEND_FLAGS has -ccbin /opt/gcc/bin"


@pytest.mark.parametrize(
    ("environ", "command", "why"),
    [
        ({"CUDAHOSTCXX": "/usr/bin/g++-13"}, "/usr/bin/g++-13", "CUDAHOSTCXX=/usr/bin/g++-13"),
        ({"NVCC_APPEND_FLAGS": "--compiler-bindir=/x/g++"}, "/x/g++", "NVCC_APPEND_FLAGS has -ccbin /x/g++"),
        ({"CC": "gcc-11"}, "gcc-11", "torch gives nvcc -ccbin gcc-11 where CC is set"),
        ({}, "g++", "nvcc takes the g++ on PATH"),
    ],
)
def test_cuda_host(environ: dict[str, str], command: str, why: str) -> None:
    role = compilers.cuda_host(RecordedHost(environ=environ))
    assert (role.command, role.why) == (command, why)


def test_a_host_without_compilers_has_none() -> None:
    assert found_compilers(RecordedHost(environ={"PATH": "/usr/bin"})) == []


@pytest.mark.parametrize("command", ["", "ccache", "'unclosed"])
def test_locate_of_no_command(command: str) -> None:
    assert compilers.locate(RecordedHost(), command) is None


@pytest.mark.parametrize(
    ("answer", "again", "expected"),
    [
        (Completed(stdout="4.8.5\n"), None, ("gcc", "4.8.5")),
        (Completed(stdout="Debian clang version 14.0.6"), None, ("clang", "14.0.6")),
        (Completed(returncode=1), Completed(stdout="cc (GCC) 8.5.0 20210514 (Red Hat 8.5.0-4)"), ("gcc", "8.5.0")),
        (Completed(returncode=1), Completed(stdout="clang version 17.0.1"), ("clang", "17.0.1")),
    ],
)
def test_compiler_answers(answer: Completed, again: Completed | None, expected: tuple[str, str]) -> None:
    commands = {("/x/cc", "--version"): again} if again else {}
    assert compilers.parse(RecordedHost(commands=commands), "/x/cc", answer) == expected


def test_compiler_answers_that_are_none() -> None:
    silent = compilers.parse(RecordedHost(), "/x/cc", Completed(returncode=1, stderr="cannot execute"))
    assert silent == ("gcc", Unknown("/x/cc: cannot execute"))
    assert isinstance(compilers.parse(RecordedHost(), "/x/cc", Completed(stdout="garbage"))[1], Unknown)
    assert isinstance(compilers.parse_long("/x/clang", "clang without a number")[1], Unknown)


def found_tools(host: RecordedHost, directory: str | None = None, *packages: Package) -> dict[str, Tool]:
    return {item.name: item for item in tools.finish(tools.start(host, directory), packages, directory)}


def test_tools_of_a_plain_host() -> None:
    host = RecordedHost(
        files={
            "/usr/bin/git": "",
            "/usr/bin/ninja-build": "",
            "/usr/bin/cmake": "",
            "/usr/share/cmake-3.25/x": "",
            "/usr/bin/patch": "",
            "/usr/bin/pip": "",
            "/usr/lib/python3.11/dist-packages/pip-23.0.1.dist-info/METADATA": "",
        },
        environ={"PATH": "/usr/bin"},
        commands={
            ("/usr/bin/git", "--version"): Completed(stdout="git version 2.39.5\n"),
            ("/usr/bin/ninja-build", "--version"): Completed(stdout="1.11.1.git.kitware.jobserver-1\n"),
        },
    )
    found = found_tools(host)
    assert found["git"].version == "2.39.5"
    assert found["cmake"].version == "3.25"
    assert found["pip"].version == "23.0.1"
    assert str(found["ninja"].version).startswith("1.11.1")
    assert isinstance(found["patch"].version, Unknown)


def test_tools_of_the_target_come_first_and_say_their_version_by_metadata() -> None:
    host = RecordedHost(
        files={
            "/venv/bin/pip": "",
            "/venv/bin/ray": "",
            "/venv/bin/cmake": "",
            "/venv/lib/python3.12/site-packages/cmake-3.31.6.dist-info/METADATA": "",
            "/usr/bin/pip": "",
        },
        environ={"PATH": "/usr/bin"},
    )
    packages = (Package(name="pip", version="25.0"), Package(name="ray", version="2.47.1"))
    found = found_tools(host, "/venv/bin", *packages)
    assert (found["pip"].path, found["pip"].version) == ("/venv/bin/pip", "25.0")
    assert found["ray"].version == "2.47.1"
    assert found["cmake"].version == "3.31.6"


def test_a_tool_that_does_not_start_does_not_work() -> None:
    host = RecordedHost(
        files={"/usr/bin/ninja": "", "/usr/bin/git": "", "/usr/bin/cmake": ""},
        environ={"PATH": "/usr/bin"},
        commands={
            ("/usr/bin/ninja", "--version"): Completed(returncode=1, stderr="No module named ninja"),
            ("/usr/bin/git", "--version"): Completed(stdout="garbage"),
            ("/usr/bin/cmake", "--version"): Completed(stdout="cmake version 3.22.1\n"),
        },
    )
    found = found_tools(host)
    assert not found["ninja"].works
    assert found["ninja"].version == Unknown("/usr/bin/ninja --version: No module named ninja")
    assert found["git"].works
    assert isinstance(found["git"].version, Unknown)
    assert found["cmake"].version == "3.22.1"


def test_a_pip_of_nowhere() -> None:
    host = RecordedHost(files={"/usr/bin/pip": ""}, environ={"PATH": "/usr/bin"})
    assert isinstance(found_tools(host)["pip"].version, Unknown)
