"""What the facts say about a binary package: what it was built for, and what would replace it."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from envcheck.binary.abi import cuda_major as major_by_names
from envcheck.binary.abi import string_abi as abi_by_names
from envcheck.binary.symbols import demangled
from envcheck.codec import Unknown
from envcheck.facts import Extension, Facts, Package
from envcheck.model import Fix, Severity, Target, installed, known
from envcheck.rules import remedy, subjects

LABEL = re.compile(r"(?:cu(?P<cuda>\d+)\.?)?torch(?P<torch>\d+\.\d+)(?:cxx11abi(?P<abi>TRUE|FALSE))?", re.IGNORECASE)
PLAIN_LABEL = re.compile(r"cu(?P<cuda>\d{2,3})\b")
PRIVATE = re.compile(r"\.nv\d|\d(a|b|rc)\d|\.dev\d|\+git")
COMPILED_FROM_INDEX = {"flash-attn", "transformer-engine-torch", "causal-conv1d", "xformers"}
"""Packages whose source is on the package index; the others can only be taken as wheels or from git."""


def torch(facts: Facts) -> Package:
    """Give the installed torch, or end the rule as not applicable."""
    return installed(facts, "torch")


def packages(facts: Facts) -> Iterator[Package]:
    """Installed packages other than torch and NVIDIA's libraries."""
    yield from (item for item in known(facts.packages) if item.name != "torch" and not item.name.startswith("nvidia-"))


def version(item: Package) -> str:
    """Public version of a package; ``unknown`` where it cannot be read."""
    return subjects.public(item.version) if isinstance(item.version, str) else "unknown"


def label(item: Package) -> dict[str, str]:
    """What a package says that it was built with: torch (2.6), cuda (12 or 12.4), abi (TRUE or FALSE)."""
    said = dict(item.built_for)
    for text in (item.build, item.version, item.origin.url if item.origin else ""):
        if isinstance(text, str) and (found := LABEL.search(text.replace("%2B", "+"))):
            said = {key: value for key, value in found.groupdict().items() if value} | said
    if "cuda" not in said and item.build and (plain := PLAIN_LABEL.search(item.build)):
        said["cuda"] = plain["cuda"]
    if said.get("cuda", "").isdigit() and len(said["cuda"]) > 2:  # noqa: PLR2004  # cu124
        said["cuda"] = f"{said['cuda'][:-1]}.{said['cuda'][-1]}"
    return said


def shown_label(item: Package) -> str:
    """Name and version as its wheel is called."""
    build = f"+{item.build}" if item.build and item.build not in str(item.version) else ""
    return f"{item.name} {item.version if isinstance(item.version, str) else 'of unknown version'}{build}"


def torch_abi(facts: Facts, target: Target) -> bool:
    """C++ ABI of the installed torch, read or by the table of its wheels."""
    found = torch(facts)
    if isinstance(found.cxx11_abi, bool):
        return found.cxx11_abi
    text = known(found.version)
    if PRIVATE.search(text):
        return known(found.cxx11_abi or Unknown("the C++ ABI of this private torch build was not read"))
    abi = public_torch_abi(target, text, known(found.cuda) or "0")
    return known(Unknown(f"no table tells the C++ ABI of torch {text}") if abi is None else abi)


def public_torch_abi(target: Target, text: str, cuda: str) -> bool | None:
    """C++ ABI of torch's own wheels of a version, by the table."""
    row = target.limits.first("torch-abi", torch=subjects.public(text), cuda=cuda)
    return None if row is None else row.give["cxx11_abi"] == "true"


def cuda_major(extension: Extension) -> int | None:
    """CUDA major that an extension is linked with, as read or by the names of the libraries that it needs."""
    if extension.cuda_major is None:
        return major_by_names((*extension.needed, *extension.missing))
    return extension.cuda_major if isinstance(extension.cuda_major, int) else None


def string_abi(extension: Extension) -> bool | None:
    """C++ ABI of an extension, as read or by torch's symbols that it does not find; None where nothing tells it."""
    if extension.cxx11_abi is None:
        return abi_by_names(extension.undefined)
    return extension.cxx11_abi if isinstance(extension.cxx11_abi, bool) else None


def built_abi(facts: Facts, target: Target, item: Package) -> tuple[bool, str] | None:
    """C++ ABI of a package's code and how that is known; None where nothing tells it."""
    for extension in item.extensions:
        if (read := string_abi(extension)) is not None:
            return read, f"the symbols of {posixpath.basename(extension.path)}"
    if item.extensions:
        return None
    return _claimed_abi(facts, target, item)


def _claimed_abi(facts: Facts, target: Target, item: Package) -> tuple[bool, str] | None:
    """ABI by what is known of the published wheels, where the bytes were not read."""
    said = label(item)
    built = said.get("torch") or subjects.minor(known(torch(facts).version))
    lying = target.limits.first("flash-attn-abi", **{item.name: version(item), "torch": f"{built}.0"})
    if lying is not None and item.origin is None and said.get("abi", "FALSE").upper() == lying.give["label"].upper():
        return lying.give["cxx11_abi"] == "true", f"how the release wheels of {item.name} {version(item)} are built"
    if said.get("abi", "").upper() == "TRUE":
        return True, f"its label {item.build or said}"
    if "torch" in said:
        abi = public_torch_abi(target, f"{built}.0", said.get("cuda") or "12.4")
        return None if abi is None else (abi, f"its label: built with the public torch {built}")
    return None


def swallowed(target: Target, item: Package) -> tuple[str, Severity] | None:
    """Why a fault of a package's extension stops nothing, and how much it weighs; None where it stops the import."""
    for fault in target.stack.lock.known_faults:
        if fault.package == item.name and "symbol" in fault.text:
            return fault.reason, "ok"
    for row in target.limits.rows("extensions", **{item.name: version(item)}):
        if "swallowed" in row.give:
            return row.give["swallowed"], "warning"
    return None


def symbols_shown(extension: Extension, names: tuple[str, ...]) -> str:
    """One undefined symbol in words, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    plain = demangled(names[0])
    mangled = f" ({names[0]})" if plain != names[0] else ""
    return f"{posixpath.basename(extension.path)}: undefined symbol {plain}{mangled}{more}"


def replacement(facts: Facts, target: Target, item: Package) -> tuple[Fix, ...]:
    """Ways to a build that fits the installed torch: the one that the stack pins, or one's own."""
    found = torch(facts)
    text = version(found)
    ways = []
    pinned = next((part for part in target.stack.components if part.distribution == item.name), None)
    wanted = subjects.wanted_component(target, "torch")
    if pinned and wanted and subjects.minor(wanted.version) == subjects.minor(text):
        what = f"Take {item.name} {pinned.version}, which stack {target.stack.name} pairs with torch {wanted.version}"
        built = pinned.recipe is not None and pinned.recipe.compiles and pinned.origin.kind in {"sdist", "git"}
        ways.append(
            remedy.build(target, pinned.name, what)
            if built
            else _install(facts, what, f"{item.name}=={pinned.version}")
        )
    elif wanted and pinned:
        ways.append(
            remedy.locked(target, f"Install the stack's own pair: torch {wanted.version}, {item.name} {pinned.version}")
        )
    if item.name in COMPILED_FROM_INDEX:
        ways.append(_own_build(facts, item, text))
    return tuple(ways) or (Fix(text=f"Install a release of {item.name} that was built for torch {text}"),)


def _install(facts: Facts, text: str, requirement: str) -> Fix:
    return remedy.install(facts, text, "--force-reinstall", "--no-deps", requirement)


def _own_build(facts: Facts, item: Package, torch_version: str) -> Fix:
    command = remedy.pip(
        facts, "--force-reinstall", "--no-deps", "--no-cache-dir", "--no-build-isolation", "--no-binary", item.name
    )
    force = "FLASH_ATTENTION_FORCE_BUILD=TRUE " if item.name == "flash-attn" else ""
    return Fix(
        text=f"Or compile {item.name} {version(item)} against the installed torch {torch_version}",
        commands=(f"{force}{command} {item.name}=={version(item)}",),
    )
