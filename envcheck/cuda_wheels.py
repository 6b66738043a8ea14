"""CUDA's libraries in the wheels of the target environment: which of them the loader has to be told of. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator

from envcheck.codec import Unknown
from envcheck.facts import Facts, Package

LIBRARY = re.compile(
    r"lib(?:cublas(?:Lt)?|cudart|cudnn(?:_\w+)?|cufft|cufile|cupti|curand|cusolver|cusparse(?:Lt)?|nccl|nvJitLink|nvrtc"
    r"|nvshmem_host|nvToolsExt)\.so"
)
TORCH = re.compile(r"lib(?:torch|c10)(?:_\w+)?\.so")
LOADED_BY_PATH = {"torch", "torchvision", "torchaudio"}
"""Their libraries name the wheels' folders in their RPATH."""


def missing(item: Package) -> list[str]:
    """CUDA libraries that the extensions of a package need and do not find although torch is imported first."""
    names = (name for extension in item.extensions for name in extension.missing)
    return list(dict.fromkeys(name for name in names if LIBRARY.match(name)))


def folder(facts: Facts, name: str) -> str | None:
    """Folder of the wheel in the target environment that brings a library; None where no wheel is known to."""
    if isinstance(facts.loader, Unknown) or isinstance(facts.python, Unknown):
        return None
    entries = [entry for entry in facts.loader if entry.library == name]
    paths = [path for entry in entries for path in (entry.wanted, entry.path) if isinstance(path, str)]
    sites = tuple(f"{site}/" for site in facts.python.site_packages)
    return next((posixpath.dirname(path) for path in paths if path.startswith(sites)), None)


def folders(facts: Facts, packages: Iterable[str]) -> list[str]:
    """Folders that LD_LIBRARY_PATH must name for these packages to load, whatever is imported first."""
    if isinstance(facts.packages, Unknown):
        return []
    named = {*packages} - LOADED_BY_PATH
    items = [item for item in facts.packages if item.name in named]
    found = (folder(facts, name) for item in items for name in (*missing(item), *_early(item), *_opened(facts, item)))
    return list(dict.fromkeys(path for path in found if path is not None))


def _early(item: Package) -> Iterator[str]:
    """CUDA libraries that a library needs which does not link torch: it may be loaded before torch has loaded any."""
    for extension in item.extensions:
        if not any(TORCH.fullmatch(name) for name in extension.needed):
            yield from (name for name in extension.needed if LIBRARY.match(name))


def _opened(facts: Facts, item: Package) -> Iterator[str]:
    """Give libnvrtc for TransformerEngine: it opens the toolkit's, which finds libnvrtc-builtins on this path only."""
    if item.name.startswith("transformer-engine") and not isinstance(facts.loader, Unknown):
        yield from (entry.library for entry in facts.loader if entry.library.startswith("libnvrtc.so"))
