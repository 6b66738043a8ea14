"""An environment staged on this machine: a real interpreter, libraries compiled here, the metadata of real packages."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.cache import ROOT
from scripts.corpus_stage import BORDER, dist, metadata, needing, shared, versioned

__all__ = ["BORDER", "Staged", "dist", "environment", "needing", "ran", "shared", "versioned", "wheel"]

GXX = shutil.which("g++")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
TAG = f"cp{sys.version_info.major}{sys.version_info.minor}"
C10 = """
#include <string>
#include <stdexcept>
namespace c10 { namespace detail {
void torchCheckFail(const char* function, const char*, unsigned, const std::string& text) {
  throw std::runtime_error(function + text);
} } }
"""


def ran(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, with messages in English."""
    environment = {**os.environ, "LC_ALL": "C", **environ}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300, env=environment, cwd=ROOT)


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A virtual environment without pip, and what is put into it."""

    python: str
    site: Path

    def dist(self, name: str, version: str, *, tag: str = "py3-none-any") -> None:
        """Write the metadata of an installed package."""
        dist(self.site, name, version, tag=tag)

    def torch(self, version: str, *, abi: bool, needs: Sequence[Path] = ()) -> Path:
        """Put a torch there that loads what the real one does, in its order; give its lib directory.

        ``needs`` are libraries of NVIDIA's wheels; torch finds them by RPATH, which goes before LD_LIBRARY_PATH.
        """
        self.dist("torch", version)
        public, _, build = version.partition("+")
        place, lib = self.site / "torch", self.site / "torch/lib"
        places = ":".join(f"$ORIGIN/../../nvidia/{path.parent.parent.name}/lib" for path in needs)
        options = (*map(str, needs), "-Wl,--no-as-needed,--allow-shlib-undefined,--disable-new-dtags")
        first = shared(lib / "libtorch_global_deps.so", "int deps;", *reversed(options), f"-Wl,-rpath,{places}:$ORIGIN")
        c10 = shared(lib / "libc10.so", C10, f"-D_GLIBCXX_USE_CXX11_ABI={int(abi)}")
        module = shared(place / f"_C{SUFFIX}", "int c;", "-Wl,--no-as-needed,-rpath,$ORIGIN/lib", str(first), str(c10))
        text = f"__version__ = '{public}+{build}'\ncuda = '{build[2:-1]}.{build[-1]}'\n"
        (place / "version.py").write_text(text, encoding="utf-8")
        text = f"import ctypes\nctypes.CDLL({str(first)!r}, ctypes.RTLD_GLOBAL)\nctypes.CDLL({str(module)!r})\n"
        (place / "__init__.py").write_text(text, encoding="utf-8")
        return lib

    def loads(self, path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Load a library in a process that has imported torch."""
        return ran(self.python, "-c", f"import torch, ctypes; ctypes.CDLL({str(path)!r})", **environ)

    def judged(self, *rules: str, stage: str = "launch", **environ: str) -> list[dict[str, Any]]:
        """Run the doctor on this environment; give what it finds wrong by these rules."""
        argv = ("--python", self.python, "--stage", stage, "--format", "json", "--only", *rules)
        done = ran(sys.executable, "-m", "envcheck", *argv, **environ)
        assert done.returncode in {0, 1, 3}, done.stderr
        outcomes = json.loads(done.stdout)["outcomes"]
        return [item for item in outcomes if item["outcome"] in {"error", "warning", "crashed"}]

    def explained(self, log: str, **environ: str) -> list[dict[str, Any]]:
        """Explain a log on this host; give the matches."""
        argv = ("explain", "-", "--python", self.python, "--format", "json")
        environment = {**os.environ, **environ}
        done = subprocess.run(
            (sys.executable, "-m", "envcheck", *argv),
            input=log, capture_output=True, text=True, check=False, timeout=120, env=environment, cwd=ROOT,
        )  # fmt: skip
        matches: list[dict[str, Any]] = json.loads(done.stdout)["matches"]
        assert matches, done.stderr
        return matches


def environment(place: Path) -> Staged:
    """Make a virtual environment of this interpreter."""
    done = ran(sys.executable, "-m", "venv", "--without-pip", str(place))
    assert done.returncode == 0, done.stderr
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Staged(python=str(place / "bin/python"), site=place / "lib" / version / "site-packages")


def wheel(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a wheel whose RECORD is right, whatever its name says."""
    name, version, *_ = path.stem.split("-")
    tag = "-".join(path.stem.split("-")[2:])
    info = f"{name}-{version}.dist-info"
    members = {**files, **{f"{info}/{file}": text.encode() for file, text in metadata(name, version, tag).items()}}
    record = "".join(f"{member},sha256={_digest(content)},{len(content)}\n" for member, content in members.items())
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**members, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(member, content)
    return path


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
