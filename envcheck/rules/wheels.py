"""Wheels for another Python, processor or CUDA run time than the one that is there."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from envcheck import cuda_wheels
from envcheck.binary.abi import python_abi
from envcheck.facts import Facts, Package
from envcheck.model import Finding, Fix, NotApplicable, Rule, Target, known, rule
from envcheck.rules import remedy, subjects
from envcheck.rules.libraries import preloaded

VERSIONED = re.compile(r"lib(cudart|cublas|cublasLt)\.so\.\d+$")
TAGGED = re.compile(r"(?:cp|cpython-)(\d{2,3})[a-z]*")
FOLDERS = {
    "libcudart": "cuda_runtime",
    "libcublaslt": "cublas",
    "libcupti": "cuda_cupti",
    "libnvtoolsext": "nvtx",
    "libnvshmem_host": "nvshmem",
}


def _again(facts: Facts, item: Package) -> Fix:
    name = f"{item.name}=={item.version}" if isinstance(item.version, str) else item.name
    return remedy.install(facts, "Install it for this interpreter", "--force-reinstall", "--no-deps", name)


@rule(
    "python-abi-differs",
    group="packages",
    subject="packages",
    cause="The environment was copied, or PYTHONPATH names another interpreter's packages.",
    stages=("build", "launch", "train"),
    sources=("https://peps.python.org/pep-0425/",),
    fix=("Install the package again with the interpreter that runs it.",),
)
def python_abi_differs(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Every extension module is made for the target interpreter."""
    mine = subjects.minor(known(subjects.python(facts).version)).replace(".", "")
    for item in known(facts.packages):
        tags = [part.python_abi or python_abi(posixpath.basename(part.path)) or "" for part in item.extensions]
        made_for = [found[1] for tag in tags if (found := TAGGED.fullmatch(tag))]
        # Some wheels carry one module for each Python.
        if made_for and mine not in made_for:
            yield Finding(
                summary=f"{item.name} is made for Python {_dotted(made_for[0])}, not for {_dotted(mine)}",
                found=f"{item.name} {item.version}: extension modules of Python {', '.join(map(_dotted, made_for))}",
                expected=f"extension modules of Python {_dotted(mine)}",
                fix=(_again(facts, item),),
                subject=item.name,
            )


def _dotted(tag: str) -> str:
    return f"{tag[0]}.{tag[1:]}"


@rule(
    "wheel-not-for-this-host",
    group="packages",
    subject="packages",
    cause="A wheel was installed by force, or a whole environment was copied from another machine.",
    stages=("build", "launch", "train"),
    sources=("https://peps.python.org/pep-0425/",),
    fix=("Install the wheel for this interpreter and processor.",),
)
def wheel_not_for_this_host(facts: Facts, _target: Target) -> Iterator[Finding]:
    """Every wheel is made for this host's processor."""
    machine = known(subjects.system(facts).machine)
    for item in known(facts.packages):
        # The tag inside a wheel often names another Python than its file's (decord, transformer-engine-cu12):
        # for which Python it is, its extension modules say.
        platform = item.tag.rpartition("-")[2] if isinstance(item.tag, str) else ""
        named = [name for name in ("x86_64", "aarch64", "i686", "ppc64le") if platform.endswith(name)]
        read = sorted({part.machine for part in item.extensions if part.machine})
        made_for = named or read
        if made_for and machine not in made_for:
            yield Finding(
                summary=f"the wheel of {item.name} is for {made_for[0]}, not for {machine}",
                found=f"{item.name} {item.version}, "
                + (f"tag {item.tag}" if named else f"{posixpath.basename(item.extensions[0].path)} for {made_for[0]}"),
                expected=f"a wheel for {machine}",
                fix=(_again(facts, item),),
                subject=item.name,
            )


@rule(
    "cuda-library-not-found",
    group="run time",
    subject="CUDA libraries",
    cause="The library lies in a wheel's folder (site-packages/nvidia/*/lib), which the loader does not search, "
    "or the wheel is not installed. TransformerEngine 2 links all parts of cuDNN, of which torch loads one.",
    stages=("launch", "train"),
    sources=(
        "https://github.com/sgl-project/sglang/issues/5002",
        "https://github.com/NVIDIA/TransformerEngine/issues/1853",
    ),
    fix=("Put the wheel's folder on LD_LIBRARY_PATH, or install the wheel.",),
)
def cuda_library_not_found(facts: Facts, target: Target) -> Iterator[Finding]:
    """Every CUDA library that an installed extension needs is found."""
    wanted = {item.distribution for item in subjects.wanted(target)} | {"torch", "torchvision"}
    users: dict[tuple[str, ...], Package] = {}
    packages, cuda = known(facts.packages), subjects.major(subjects.torch_cuda(facts, target))
    for item in packages:
        missing = cuda_wheels.missing(item)
        names = tuple(sorted(_not_found(facts, target, missing, cuda))) if missing else ()
        if names and users.setdefault(names, item).name not in wanted:
            users[names] = item
    for names, item in users.items():
        yield Finding(
            summary=f"{item.name} does not find {', '.join(names)}",
            found=f"{_user(item, names)} needs {', '.join(names)}",
            expected="the library on the loader's path",
            fix=(_folder(facts, names),),
            subject=item.name,
            severity="error" if item.name in wanted else "warning",
        )


def _not_found(facts: Facts, target: Target, missing: Iterable[str], cuda: int) -> set[str]:
    """Of the CUDA libraries that a package misses, not those of another major: see extension-cuda-major-differs."""
    known_apart = "libnvrtc", *(("libnvJitLink",) if preloaded(facts, target, "libnvJitLink", "nvjitlink") else ())
    names = [name for name in missing if not name.startswith(known_apart)]
    return {name for name in names if not VERSIONED.match(name) or name.endswith(f".{cuda}")}


def _user(item: Package, names: tuple[str, ...]) -> str:
    part = next(part for part in item.extensions if set(names) & set(part.missing))
    return posixpath.basename(part.path)


def _folder(facts: Facts, names: tuple[str, ...]) -> Fix:
    sites = subjects.python(facts).site_packages
    guessed = f"{sites[0] if sites else '<site-packages>'}/nvidia/{_wheel_folder(names[0])}/lib"
    folders = dict.fromkeys(path for name in names if (path := cuda_wheels.folder(facts, name)))
    return remedy.wheel_folder(":".join(folders) or guessed)


def _wheel_folder(library: str) -> str:
    """Folder of a library's wheel: libcudnn_adv.so.9 lies in nvidia/cudnn."""
    base = library.partition(".so")[0].lower()
    return FOLDERS.get(base, base.removeprefix("lib").partition("_")[0])


@rule(
    "cmake-too-new",
    group="toolkit",
    subject="cmake",
    cause="cmake 4 refuses projects that ask for a cmake older than 3.5, as a submodule of TransformerEngine 1.x does.",
    stages=("build",),
    sources=("https://cmake.org/cmake/help/latest/release/4.0.html",),
    fix=("Install cmake<4 beside torch: it comes before the system's.",),
)
def cmake_too_new(facts: Facts, target: Target) -> Iterator[Finding]:
    """The cmake of the environment can configure the sources of the stack."""
    asking = [item for item in subjects.wanted(target) if item.recipe and "cmake<4" in item.recipe.requires]
    version = subjects.installed_version(facts, "cmake")
    if not asking or version is None:
        raise NotApplicable("the recipe brings its own cmake, or needs none")
    if subjects.major(version) >= 4:  # noqa: PLR2004  # the release that dropped old projects
        yield Finding(
            summary=f"cmake {version} refuses the sources of {asking[0].name}",
            found=f"cmake {version} in the target environment",
            expected="cmake<4",
            fix=(remedy.install(facts, "Go back", "cmake<4"),),
            severity="warning",
        )


RULES: tuple[Rule, ...] = (python_abi_differs, wheel_not_for_this_host, cuda_library_not_found, cmake_too_new)
