from __future__ import annotations

import json
from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Origin, Package, Python
from envcheck.host import RecordedHost
from envcheck.probes import damage, details, dists, editable

SITE = "/venv/lib/python3.10/site-packages"
TORCH = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.5.1+cu124'
debug = False
cuda: Optional[str] = '12.4'
git_version = 'a8d6afb511a69687bbb2b7e88a3cf67917e1697e'
"""
CONFIG = '  set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")\n'


def python(**changes: Any) -> Python:
    given: dict[str, Any] = {"prefix": "/venv", "site_packages": (SITE,), **changes}
    return Python(executable="/venv/bin/python", version="3.10.13", abi="cp310", include_dir="/usr/include", **given)


def dist(name: str, version: str, *, head: str = "", **files: str) -> dict[str, str]:
    place = f"{SITE}/{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{head}\nA description\nRequires-Dist: no\n"
    return {f"{place}/METADATA": metadata, f"{place}/RECORD": "", **{f"{place}/{key}": it for key, it in files.items()}}


def packages(files: dict[str, str], links: dict[str, str] | None = None, **changes: Any) -> dict[str, Package]:
    found = dists.probe(RecordedHost(files=files, links=links or {}), python(**changes))
    assert isinstance(found, tuple)
    return {item.name: item for item in found}


def test_a_plain_package() -> None:
    head = "Summary: Fast\nHome-page: https://me:x@h.org/p\n"
    head += "Requires-Dist: torch>=2\nRequires-Dist: einops ; extra == 'x'\n"
    origin = {"url": "https://h.org/flash_attn-2.7.4.post1%2Bcu12torch2.5cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"}
    files = dist(
        "flash_attn",
        "2.7.4.post1",
        head=head,
        INSTALLER="pip\n",
        WHEEL="Wheel-Version: 1.0\nTag: cp310-cp310-linux_x86_64\n",
        **{"direct_url.json": json.dumps(origin)},
    )
    found = packages(files)["flash-attn"]
    assert (found.version, found.installer, found.tag) == ("2.7.4.post1", "pip", "cp310-cp310-linux_x86_64")
    assert found.requires == ("torch>=2", "einops ; extra == 'x'")
    assert (found.summary, found.home, found.damage) == ("Fast", "https://***@h.org/p", ())
    assert found.built_for == {"cuda": "12", "torch": "2.5", "abi": "FALSE"}


def test_torch_says_its_cuda_and_abi_by_its_files() -> None:
    files = {
        **dist("torch", "2.5.1"),
        f"{SITE}/torch/version.py": TORCH,
        f"{SITE}/torch/share/cmake/Torch/TorchConfig.cmake": CONFIG,
    }
    found = packages(files)["torch"]
    assert (found.version, found.build, found.cuda, found.cxx11_abi) == ("2.5.1", "cu124", "12.4", False)


def test_a_cpu_torch_and_newer_annotations() -> None:
    text = "__version__ = '2.13.0+cpu'\ncuda: str | None = None\n"
    config = CONFIG.replace("ABI=0", "ABI=1")
    files = {
        **dist("torch", "2.13.0+cpu"),
        f"{SITE}/torch/version.py": text,
        f"{SITE}/torch/share/cmake/Torch/TorchConfig.cmake": config,
    }
    found = packages(files)["torch"]
    assert (found.cuda, found.build, found.cxx11_abi) == (None, "cpu", True)


def test_a_half_removed_torch() -> None:
    record = "torch/lib/libc10.so,sha256=x,1\ntorch/__init__.py,sha256=x,1\ntorch/nn/__init__.py,,\ntorch/x.py,,\n"
    files = dist("torch", "2.5.1", RECORD=record)
    found = packages(files)["torch"]
    assert isinstance(found.cuda, Unknown)
    assert found.damage == ("torch/version.py is gone",)
    gone = details.files_gone(RecordedHost(files=files), found)
    assert gone == ("files that RECORD lists are gone: torch/__init__.py, torch/lib/libc10.so",)
    assert details.files_gone(RecordedHost(files=files), Package(name="other", version="1")) == ()


def test_many_gone_files_are_counted() -> None:
    record = "".join(f"torch/lib/lib{n}.so.1,,\n" for n in range(5))
    found = damage.of_files(RecordedHost(), Package(name="torch", version="1", location="/s"), record)
    assert found == (
        "files that RECORD lists are gone: torch/lib/lib0.so.1, torch/lib/lib1.so.1, torch/lib/lib2.so.1 and 2 more",
    )


def test_a_torch_folder_without_metadata() -> None:
    found = packages({f"{SITE}/torch/version.py": TORCH, f"{SITE}/torch/__init__.py": ""})["torch"]
    assert (found.version, found.damage[0]) == ("2.5.1+cu124", "its dist-info is missing")
    rest = packages({f"{SITE}/torch/lib/libc10.so": ""})["torch"]
    assert isinstance(rest.version, Unknown)


def test_torch_whose_version_file_is_garbage() -> None:
    files = {**dist("torch", "2.5.1"), f"{SITE}/torch/version.py": "garbage", f"{SITE}/torch/lib/libc10.so": "x"}
    found = packages(files)["torch"]
    assert isinstance(found.cuda, Unknown)
    assert isinstance(found.cxx11_abi, Unknown)
    assert "neither TorchConfig.cmake nor libc10.so" in found.cxx11_abi.unknown


def test_two_dist_infos_of_one_name() -> None:
    files = {**dist("torch", "2.5.1"), **dist("torch", "2.6.0")}
    found = packages({**files, f"{SITE}/torch/version.py": TORCH})["torch"]
    assert found.version == "2.6.0"
    assert found.damage == ("2 of one name: torch-2.5.1.dist-info, torch-2.6.0.dist-info",)
    del files[f"{SITE}/torch-2.6.0.dist-info/METADATA"]
    assert packages(files)["torch"].version == "2.5.1"


def test_missing_parts_of_metadata_are_damages() -> None:
    found = packages({f"{SITE}/ray-2.42.1.dist-info/INSTALLER": "", f"{SITE}/x-1.dist-info/METADATA": ""})
    assert found["ray"].version == "2.42.1"
    assert found["ray"].damage == ("METADATA is missing", "RECORD is missing")
    assert isinstance(found["ray"].installer, Unknown)
    assert found["x"].damage == ("METADATA is empty or cannot be read", "RECORD is missing")


def test_debian_packages_have_no_record() -> None:
    place = "/usr/lib/python3/dist-packages"
    files = {f"{place}/six-1.16.0.dist-info/METADATA": "Name: six\nVersion: 1.16.0\n\n"}
    found = packages(files, site_packages=(place,))
    assert found["six"].damage == ()


def test_leftovers_of_an_interrupted_uninstall() -> None:
    files = {**dist("torch", "2.5.1"), f"{SITE}/~orch/__init__.py": "", f"{SITE}/~ip-23.dist-info/METADATA": ""}
    found = packages({**files, f"{SITE}/torch/version.py": TORCH})
    assert found["~orch"].damage == ("~orch is left of an interrupted uninstall of torch",)
    assert found["~ip"].damage == ("~ip is left of an interrupted uninstall",)
    assert isinstance(found["~ip"].version, Unknown)


def test_egg_infos_as_directories_and_as_files() -> None:
    files = {
        f"{SITE}/apex-0.1-py3.10.egg-info/PKG-INFO": "Name: apex\nVersion: 0.1\nHome-page: UNKNOWN\n\n",
        f"{SITE}/PyYAML-5.1.egg-info": "Name: PyYAML\r\nVersion: 5.1\r\n\r\n",
        f"{SITE}/broken.egg-info/other": "",
    }
    found = packages(files)
    assert (found["apex"].version, found["apex"].home, found["apex"].damage) == ("0.1", None, ())
    assert found["pyyaml"].version == "5.1"
    assert isinstance(found["broken"].version, Unknown)


def test_long_metadata_is_read_to_its_end() -> None:
    head = "".join(f"Classifier: number {n:050}\n" for n in range(400)) + "Requires-Dist: last\n"
    assert packages(dist("big", "1", head=head))["big"].requires == ("last",)


def test_metadata_that_cannot_be_read() -> None:
    class Closed(RecordedHost):
        def read(self, path: str, limit: int = 0) -> str:
            raise PermissionError(13, "Permission denied", path)

    files = dist("x", "1", INSTALLER="pip", WHEEL="Tag: a", **{"direct_url.json": "{}"})
    found = dists.probe(Closed(files=files), python())
    assert isinstance(found, tuple)
    assert found[0].version == "1"
    assert isinstance(found[0].installer, Unknown)
    assert isinstance(found[0].tag, Unknown)
    assert found[0].origin is None


def test_a_wheel_file_without_a_tag_is_unknown() -> None:
    assert isinstance(packages(dist("x", "1", WHEEL="garbage"))["x"].tag, Unknown)
    slim = packages(dist("x", "1", WHEEL="Wheel-Version: 1.0\nBuild: 0slim.d64.bf16\nTag: py3-none-any\n"))["x"]
    assert (slim.build, slim.tag) == ("slim.d64.bf16", "py3-none-any")
    assert packages(dist("x", "1", WHEEL="Build: 1\nTag: py3-none-any\n"))["x"].build is None


def test_no_packages_without_an_interpreter() -> None:
    assert dists.probe(RecordedHost(), Unknown("none")) == Unknown("none")


def test_the_first_site_wins() -> None:
    other = "/usr/lib/python3.10/site-packages"
    files = {**dist("x", "2"), f"{other}/x-1.dist-info/METADATA": "Version: 1\n\n"}
    assert packages(files, site_packages=(SITE, other))["x"].version == "2"


def test_conda_packages_by_their_file_names() -> None:
    files = {
        **dist("numpy", "1.26.4"),
        "/conda/conda-meta/cuda-nvcc-12.4.131-h02f8991_0.json": "{}",
        "/conda/conda-meta/numpy-1.26.4-py310_0.json": "{}",
        "/conda/conda-meta/history": "",
        "/conda/conda-meta/odd.json": "",
    }
    found = packages(files, prefix="/conda", conda_prefix="/conda")
    assert found["cuda-nvcc"].version == "12.4.131"
    assert found["cuda-nvcc"].installer == "conda"
    assert found["numpy"].installer is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"url": "https://github.com/volcengine/verl", "vcs_info": {"vcs": "git", "commit_id": "333e6d6"}}',
            Origin(url="https://github.com/volcengine/verl", commit="333e6d6"),
        ),
        ('{"url": "file:///src", "dir_info": {"editable": true}}', Origin(url="file:///src", editable=True)),
        ("{}", None),
        ("[", None),
        ('"x"', None),
    ],
)
def test_origins(text: str, expected: Origin | None) -> None:
    assert dists.parse_origin(text) == expected


def test_home_pages_by_project_urls() -> None:
    head = "Project-URL: Changelog, https://a\nProject-URL: Homepage, https://b\n"
    assert packages(dist("x", "1", head=head))["x"].home == "https://b"


def test_editable_installs_give_modules_from_their_checkout() -> None:
    sglang = {"url": "file:///src/sglang/python", "dir_info": {"editable": True}}
    files = {
        **dist("sglang", "0.4.3.post2", **{"direct_url.json": json.dumps(sglang)}),
        f"{SITE}/__editable___verl_0_2_finder.py": "MAPPING: dict[str, str] = {'verl': '/src/verl/verl'}\n",
        **dist("verl", "0.2.0.dev0"),
        "/src/sglang/python/sglang/srt/entrypoints/verl_engine.py": "",
        "/src/verl/verl/trainer/main_ppo.py": "",
    }
    found = packages(files)
    assert "sglang.srt.entrypoints.verl_engine" in found["sglang"].modules
    assert found["verl"].modules == ("verl.trainer.main_ppo",)


def test_pth_files_add_directories() -> None:
    files = {
        f"{SITE}/x.pth": "# comment\nimport os; os.x()\n/src/megatron\nrelative\n\n",
        f"{SITE}/y.egg-link": "/src/y\n.\n",
        "/src/megatron/megatron_core.egg-info/PKG-INFO": "Name: megatron-core\nVersion: 0.4.0\n\n",
        "/src/megatron/megatron/core/__init__.py": "",
        f"{SITE}/relative/x": "",
        "/src/y/y.egg-info/PKG-INFO": "Name: y\nVersion: 3\n\n",
    }
    found = packages(files)
    assert found["megatron-core"].version == "0.4.0"
    assert found["megatron-core"].modules == ("megatron.core",)
    assert found["y"].version == "3"


def test_finders_of_garbage() -> None:
    assert editable.parse_finder("") == {}


def test_a_pth_file_that_cannot_be_read_adds_nothing() -> None:
    class Closed(RecordedHost):
        def read(self, path: str, limit: int = 0) -> str:
            raise PermissionError(13, "Permission denied", path)

    assert editable.read(Closed(files={f"{SITE}/x.pth": "/a"}), (SITE,)) == editable.Links(modules={})


def test_what_binaries_were_built_for() -> None:
    cpp_lib = '{"version": {"cuda": 1204, "torch": "2.5.1+cu124", "python": "3.10"}}'
    files = {
        **dist("xformers", "0.0.28.post3"),
        f"{SITE}/xformers/cpp_lib.json": cpp_lib,
        **dist("torchvision", "0.20.1"),
        f"{SITE}/torchvision/version.py": "__version__ = '0.20.1+cu124'\ncuda = '12.4'\n",
        **dist("torchaudio", "2.5.1"),
        **dist("flashinfer_python", "0.2.2.post1"),
        f"{SITE}/flashinfer/_build_meta.py": '__version__ = "0.2.2.post1+cu124torch2.5"\n',
    }
    found = packages(files)
    assert found["xformers"].built_for == {"cuda": "12.4", "torch": "2.5.1+cu124"}
    assert found["torchvision"].built_for == {"cuda": "12.4"}
    assert found["torchaudio"].built_for == {}
    assert found["flashinfer-python"].built_for == {"cuda": "12.4", "torch": "2.5"}
    assert details.parse_xformers("garbage") == {}


def test_flashinfer_without_build_meta_says_nothing() -> None:
    assert packages(dist("flashinfer_python", "0.2.5"))["flashinfer-python"].built_for == {}


def test_every_stack_file_is_asked_for_its_modules() -> None:
    assert "sglang.srt.entrypoints.verl_engine" in details.modules_asked()["sglang"]
    assert "megatron.core" in details.modules_asked()["megatron-core"]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("letter", ["x", "é", "🐼"])
def test_a_header_longer_than_the_first_read_is_read_whole(letter: str, newline: str) -> None:
    """Bytes and letters differ in number: pandas' header was cut, and its requirements were lost."""
    head = f"Summary: {letter * dists.HEAD_BYTES}\nRequires-Dist: numpy>=1.26\n".replace("\n", newline)
    metadata = (
        f"Metadata-Version: 2.1{newline}Name: pandas{newline}Version: 2.3.0{newline}{head}{newline}About{newline}"
    )
    found = packages({f"{SITE}/pandas-2.3.0.dist-info/METADATA": metadata})["pandas"]
    assert (found.version, found.requires) == ("2.3.0", ("numpy>=1.26",))
