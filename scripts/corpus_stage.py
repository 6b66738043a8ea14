"""Faults staged for real with g++: libraries of another C++ ABI, with a floor too high, that hide others."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process

BORDER = """
#include <string>
namespace c10 { namespace detail { void torchCheckFail(const char*, const char*, unsigned, const std::string&); } }
extern "C" int go(int n) { if (n < 0) c10::detail::torchCheckFail("go", __FILE__, __LINE__, "n < 0"); return n; }
"""
"""An extension that calls torch over the border where std::string's layout matters."""
COMPILE_SECONDS = 120.0


def shared(path: Path, source: str, *options: str) -> Path:
    """Compile a library whose soname is its file name."""
    gxx = shutil.which("g++")
    if gxx is None:
        raise WorkError("no g++ is on PATH", fix="install g++")
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.parent / f"{path.name}.cpp"
    text.write_text(source, encoding="utf-8")
    argv = (gxx, "-shared", "-fPIC", str(text), "-o", str(path), f"-Wl,-soname,{path.name}", *options)
    process.output(argv, timeout=COMPILE_SECONDS)
    text.unlink()
    return path


def versioned(path: Path, symbols: Mapping[str, str]) -> Path:
    """Compile a library that defines each symbol under the version that is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    script = path.parent / f"{path.name}.map"
    script.write_text("".join(f"{version} {{ {name}; }};\n" for name, version in symbols.items()), encoding="utf-8")
    source = "".join(f'extern "C" int {name}() {{ return 1; }}\n' for name in symbols)
    made = shared(path, source, f"-Wl,--version-script,{script}", "-nostdlib")
    script.unlink()
    return made


def needing(path: Path, library: Path, symbol: str, *options: str) -> Path:
    """Compile a library that needs one symbol of another, which is there only while it is linked."""
    source = f'extern "C" int {symbol}(); extern "C" int go() {{ return {symbol}(); }}'
    return shared(path, source, "-Wl,--no-as-needed,-z,now", str(library), *options)


def metadata(name: str, version: str, tag: str) -> dict[str, str]:
    """Give the files of a dist-info."""
    return {
        "METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n\n",
        "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n",
        "INSTALLER": "pip\n",
    }


def dist(site: Path, name: str, version: str, *, tag: str = "py3-none-any") -> None:
    """Write the metadata of an installed package."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    for file, text in metadata(name, version, tag).items():
        (info / file).write_text(text, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a fault is staged: the environment's site directory goes before that of the real torch."""

    site: Path
    torch: Path
    """The real torch's lib directory."""
    suffix: str
    """Of extension modules, as ``.cpython-312-x86_64-linux-gnu.so``."""
    old_abi: bool
    """The real torch has the old C++ ABI."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault: how it is staged, which rule names it, what a program that names it would say."""

    name: str
    rule: str
    telling: str
    """Regular expression on a line of a report."""
    stage: Callable[[Place, Path], dict[str, str]] = field(default=lambda _place, _work: {})
    """Make files; give variables."""
    proof: str = ""
    """Python code that fails in the environment because of the fault; empty: nothing fails at once."""


def _other_abi(place: Place, _work: Path) -> dict[str, str]:
    flag = f"-D_GLIBCXX_USE_CXX11_ABI={int(place.old_abi)}"
    shared(place.site / f"flash_attn_2_cuda{place.suffix}", BORDER, flag, str(place.torch / "libc10.so"))
    said = "FALSE" if place.old_abi else "TRUE"
    dist(place.site, "flash-attn", f"2.8.0.post2+cu12torch2.6cxx11abi{said}")
    return {}


def _newer_libc(place: Place, work: Path) -> dict[str, str]:
    newer = versioned(work / "newer" / "libm.so.6", {"of_the_future": "GLIBC_2.99"})
    needing(place.site / f"flash_attn_2_cuda{place.suffix}", newer, "of_the_future")
    dist(place.site, "flash-attn", "2.7.4.post1")
    return {}


def _old_link(_place: Place, work: Path) -> dict[str, str]:
    old = versioned(work / "cuda-12.1/lib64/libnvJitLink.so.12", {"__nvJitLinkComplete_12_1": "libnvJitLink.so.12"})
    return {"LD_LIBRARY_PATH": str(old.parent)}


def _other_cudnn(_place: Place, work: Path) -> dict[str, str]:
    library = shared(work / "cudnn/lib/libcudnn_graph.so.9.99.0", "int graph;", "-Wl,-soname,libcudnn_graph.so.9")
    (library.parent / "libcudnn_graph.so.9").symlink_to(library.name)
    return {"LD_LIBRARY_PATH": str(library.parent)}


def _old_transformers(place: Place, _work: Path) -> dict[str, str]:
    dist(place.site, "transformers", "4.10.0")
    return {}


def _two_engines(place: Place, _work: Path) -> dict[str, str]:
    dist(place.site, "transformer-engine", "2.3.0")
    dist(place.site, "transformer-engine-cu12", "2.2.0")
    dist(place.site, "transformer-engine-torch", "2.3.0")
    return {}


IMPORT = "import torch, flash_attn_2_cuda"
CASES = (
    Case(
        name="wheel whose name lies",
        rule="cxx11-abi-differs",
        telling=r"flash.attn|ABI",
        stage=_other_abi,
        proof=IMPORT,
    ),
    Case(
        name="glibc floor too high", rule="glibc-too-old", telling=r"flash.attn|2\.99", stage=_newer_libc, proof=IMPORT
    ),
    Case(
        name="nvJitLink hidden",
        rule="undefined-symbol",
        telling=r"nvJitLink|LD_LIBRARY_PATH",
        stage=_old_link,
        proof="import torch",
    ),
    Case(name="cuDNN of two versions", rule="cudnn-mixed", telling=r"cudnn|LD_LIBRARY_PATH", stage=_other_cudnn),
    Case(
        name="CUDA_HOME is gone",
        rule="cuda-home-invalid",
        telling=r"CUDA_HOME|/gone/cuda",
        stage=lambda _place, work: {"CUDA_HOME": f"{work}/gone/cuda-12.4"},
    ),
    Case(name="transformers too old", rule="transformers-range", telling=r"transformers", stage=_old_transformers),
    Case(name="TE of two versions", rule="te-parts-differ", telling=r"transformer.engine", stage=_two_engines),
)
