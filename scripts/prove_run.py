"""Try an installed environment in child processes: imports, then every extension with all symbols bound."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from envcheck.errors import WorkError
from envcheck.stack import Fault, Stack
from scripts import prove_stub, toolchain
from scripts.env_plan import Selection

CHILD = Path(__file__).with_name("prove_child.py")
CHILD_SECONDS = 580
KEPT = ("CUDA_HOME", "PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "LD_PRELOAD")
SKIPPED = ("nvidia", "torch/lib", "torch/test")
"""Below site-packages: libraries that others load, by their own search paths."""


@dataclass(kw_only=True)
class Result:
    """What imported, what imported only with torch's answers of a GPU host, what failed and how."""

    modules: set[str] = field(default_factory=set)
    pretended: set[str] = field(default_factory=set)
    extensions: int = 0
    faults: dict[str, str] = field(default_factory=dict)


def run(wanted: Selection, prefix: Path, work: Path) -> Result:
    """Import every module of the stack's list; those that fail again as on a GPU host; load every extension."""
    site = next(iter(prefix.glob("lib/python3*/site-packages")), None)
    if site is None:
        raise WorkError(f"{prefix} is no environment", fix="name another --prefix, or let it be made")
    libraries = extensions(site)
    prove_stub.build(work, prove_stub.wanted(libraries))
    environ = environment(site, work, wanted.stack.cuda.default)
    result = Result()
    listed = wanted.stack.lock.proof_modules
    names = [*listed.get(wanted.engine, ()), *listed.get(wanted.trainer, ())]
    first = imports(prefix, names, environ)
    failed = [name for name in names if name in first]
    second = imports(prefix, failed, environ, pretend=True) if failed else {}
    result.modules = set(names) - first.keys()
    result.pretended = set(failed) - second.keys()
    loaded = loads(prefix, libraries, environ, site, packages(wanted))
    result.extensions = len(libraries) - len(loaded)
    found = second | {os.path.relpath(path, site): text for path, text in loaded.items()}
    result.faults = {name: text.replace(f"{site}/", "") for name, text in found.items()}
    return result


def extensions(site: Path) -> list[Path]:
    """List the shared libraries that Python loads, without those that belong to other libraries."""
    found = []
    for path in sorted(site.rglob("*.so")):
        inside = path.relative_to(site).as_posix()
        if not inside.startswith(SKIPPED) and ".libs/" not in inside and path.is_file():
            found.append(path)
    return found


def environment(site: Path, work: Path, cuda: str = "") -> dict[str, str]:
    """Give the child's environment: no GPU, no network, NVIDIA's wheels and the stand-in driver for the loader.

    CUDA_HOME is this host's, else the provisioned toolkit's: TransformerEngine 2 looks for libnvrtc below it.
    """
    libraries = [str(work), *map(str, sorted(site.glob("nvidia/*/lib")))]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "disabled"}
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    own = {"HOME": str(work), "CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONNOUSERSITE": "1"}
    toolkit = toolchain.provisioned(cuda)
    kept |= {"CUDA_HOME": str(toolkit)} if toolkit and "CUDA_HOME" not in kept else {}
    return kept | offline | own | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def imports(prefix: Path, names: Sequence[str], environ: dict[str, str], *, pretend: bool = False) -> dict[str, str]:
    """Import modules one after another; give module -> what went wrong. A module that kills the child is named."""
    faults: dict[str, str] = {}
    rest = list(names)
    while rest:
        rows = list(_child(prefix, {"modules": rest, "pretend": pretend}, environ))
        done = {str(row["name"]): row.get("error") for row in rows if "name" in row}
        faults |= {name: str(text) for name, text in done.items() if text}
        started = [str(row["start"]) for row in rows if "start" in row]
        if len(done) == len(rest):
            break
        dead = started[-1] if started and started[-1] not in done else rest[len(done)]
        faults[dead] = "the interpreter died while it was imported"
        rest = rest[rest.index(dead) + 1 :]
    return faults


def packages(wanted: Selection) -> list[str]:
    """Name the modules of what is built: an extension may need what they load first."""
    chosen = wanted.stack.wanted(wanted.engine, wanted.trainer)
    return [item.recipe.verify_import for item in chosen if item.recipe and item.recipe.verify_import]


def loads(
    prefix: Path, paths: Iterable[Path], environ: dict[str, str], site: Path, first: Sequence[str] = ()
) -> dict[str, str]:
    """Load extensions, each in a child of its own after torch; give path -> what went wrong."""
    order = [str(path) for path in paths]
    rows = {
        str(row["extension"]): row.get("error")
        for row in _child(prefix, {"extensions": order, "packages": list(first), "site": str(site)}, environ)
        if "extension" in row
    }
    return {path: str(rows.get(path, "was not tried")) for path in order if rows.get(path, "was not tried")}


def _child(prefix: Path, order: dict[str, Any], environ: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Start the environment's Python with the order; give the rows that it wrote before it ended."""
    argv = [str(prefix / "bin" / "python"), str(CHILD), json.dumps(order)]
    try:
        done = subprocess.run(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            timeout=CHILD_SECONDS,
            check=False,
            cwd=environ["HOME"],
        )
        text = done.stdout
    except subprocess.TimeoutExpired as error:
        text = error.stdout or b""
    for line in text.decode("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def is_known(fault: Fault, subject: str, text: str) -> bool:
    """Tell whether a failure is one that the stack file tolerates."""
    package = canonicalize_name(fault.package)
    top = re.split(r"[/.]", subject, maxsplit=1)[0]
    return fault.text in text and (canonicalize_name(top) == package or package in canonicalize_name(text))


def module_of(stack: Stack, name: str) -> str:
    """Name the module that a built component is imported as."""
    recipe = stack.component(name).recipe
    return recipe.verify_import if recipe and recipe.verify_import else name.replace("-", "_")


def lacks(stack: Stack, missing: Sequence[str], text: str) -> str:
    """Name the component without a wheel whose absence explains a failure: ``No module named 'flash_attn'``."""
    for name in missing:
        item = stack.component(name)
        top = module_of(stack, name).split(".", maxsplit=1)[0]
        if re.search(rf"\b(?:{re.escape(top)}|{re.escape(name)}|{re.escape(item.distribution)})\b", text):
            return name
    return ""
