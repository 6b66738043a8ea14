"""Compiler cache: ccache (or sccache) in front of g++ and nvcc, where one is installed.

torch's extensions call nvcc with ``--generate-dependencies-with-compile --dependency-output F``, which ccache refuses
to cache; ``-MD -MF F`` says the same and is cached, so nvcc is reached through a wrapper that rewrites it.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process
from scripts.cache import cache
from scripts.files import write

MAX_SIZE = "20G"
REWRITE = """\
for argument do
  shift
  case "$argument" in
    --generate-dependencies-with-compile) argument=-MD ;;
    --dependency-output) argument=-MF ;;
  esac
  set -- "$@" "$argument"
done
"""


@dataclass(frozen=True, kw_only=True)
class CompilerCache:
    """The launcher in use: ``kind`` is ccache or sccache."""

    kind: str
    path: str
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the cache did: calls answered from it, and calls that compiled."""

    hits: int
    misses: int


def find() -> CompilerCache | None:
    """Give the compiler cache on PATH, ccache first; None where there is none."""
    for kind in ("ccache", "sccache"):
        path = shutil.which(kind)
        if path:
            return CompilerCache(kind=kind, path=path, directory=cache(kind))
    return None


def environment(found: CompilerCache, wrappers: Path, environ: dict[str, str]) -> dict[str, str]:
    """Give the variables that put the cache in front of the compilers of ``environ``; writes the wrappers."""
    nvcc = f"{environ['CUDA_HOME']}/bin/nvcc" if environ.get("CUDA_HOME") else None
    cc, cxx = environ.get("CC", "gcc"), environ.get("CXX", "g++")
    out = {
        "CC": _wrapper(wrappers / Path(cc).name, f'exec "{found.path}" "{cc}" "$@"'),
        "CXX": _wrapper(wrappers / Path(cxx).name, f'exec "{found.path}" "{cxx}" "$@"'),
        "CMAKE_C_COMPILER_LAUNCHER": found.path,
        "CMAKE_CXX_COMPILER_LAUNCHER": found.path,
        "CMAKE_CUDA_COMPILER_LAUNCHER": found.path,
    }
    if nvcc:
        out["PYTORCH_NVCC"] = _wrapper(wrappers / "nvcc", f'{REWRITE}exec "{found.path}" "{nvcc}" "$@"')
    return out | settings(found)


def settings(found: CompilerCache) -> dict[str, str]:
    """Give the cache's own settings; no base directory, which would change the paths that assertions print."""
    if found.kind == "sccache":
        return {"SCCACHE_DIR": str(found.directory), "SCCACHE_CACHE_SIZE": MAX_SIZE}
    return {
        "CCACHE_DIR": str(found.directory),
        "CCACHE_MAXSIZE": MAX_SIZE,
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_NOHASHDIR": "1",
    }


def _wrapper(path: Path, body: str) -> str:
    write(path, f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def counts(found: CompilerCache | None) -> Counts:
    """Read hits and misses so far; zero where the cache does not say."""
    if found is None or found.kind != "ccache":
        return Counts(hits=0, misses=0)
    import os  # only here

    try:
        text = process.output(
            [found.path, "--print-stats"], environ={**os.environ, "CCACHE_DIR": str(found.directory)}, timeout=20
        )
    except WorkError:
        return Counts(hits=0, misses=0)
    return parse_counts(text)


def parse_counts(text: str) -> Counts:
    """Read ``ccache --print-stats``: lines such as ``direct_cache_hit<tab>33`` and ``cache_miss<tab>2``."""
    rows = dict(re.findall(r"^(\w+)\t(\d+)$", text, re.MULTILINE))
    hits = int(rows.get("direct_cache_hit", 0)) + int(rows.get("preprocessed_cache_hit", 0))
    return Counts(hits=hits, misses=int(rows.get("cache_miss", 0)))
