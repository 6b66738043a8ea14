"""A tiny stack with two engines, an sdist that must not be run, an override, and a package on no index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envcheck import stack as stacks
from envcheck.stack import Stack
from scripts import lock_files, lock_text, sbom
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin
from tests.lock_index import Index, sdist, wheel

BOMB = "raise SystemExit('setup.py was run')\n"
PURE = "from setuptools import setup\nsetup(name='purelib', version='1.0', py_modules=['purelib'])\n"

PURE_ROW = """
[[lock.metadata]]
name = "purelib"
version = "1.0"
licence = "BSD-3-Clause"
reason = "a pure Python sdist"
"""

STACK = """\
version = 1
name = "tiny"
title = "A tiny stack"
summary = "For tests."
archs = ["9.0"]
engines = ["sglang", "vllm"]
trainers = ["fsdp", "megatron"]
driver = { minimum = "525.60.13", native = "550.54.14" }
python = { requires = ">=3.10,<3.13", default = "3.11" }
cuda = { requires = ">=12.4,<12.5", default = "12.4" }
cudnn = { requires = ">=9", default = "9.1" }
nccl = { requires = ">=2", default = "2.21" }
gcc = { requires = ">=9", default = "13" }

[[components]]
name = "torch"
distribution = "torch"
version = "2.5.1"
engines = ["sglang"]
origin = { kind = "index" }

[[components]]
name = "torch"
distribution = "torch"
version = "2.4.0"
engines = ["vllm"]
origin = { kind = "index" }

[[components]]
name = "sglang"
distribution = "sglang"
version = "0.4.3"
engines = ["sglang"]
origin = { kind = "index" }

[[components]]
name = "megatron"
distribution = "megatron-core"
version = "0.4.0"
trainers = ["megatron"]
origin = { kind = "index" }

[[components]]
name = "flash-attn"
distribution = "flash-attn"
version = "2.7.4"
origin = { kind = "sdist" }
recipe = { requires = ["setuptools==70.3.0"] }

[[components]]
name = "verl"
distribution = "verl"
version = "0.2.0.dev0"
[components.origin]
kind = "git"
url = "https://github.com/volcengine/verl.git"
commit = "333e6d624a11cd971b6e1ce32eb7d48fa36890fd"
[components.recipe]
requires = ["setuptools==70.3.0"]
compiles = false

[lock]
cutoff = "2025-03-01"
direct = ["helper[fast]", "verl"]

[lock.engine_direct]
sglang = ["sglang[srt]"]

[lock.proof_modules]
sglang = ["sglang", "torch"]
fsdp = ["helper"]

[[lock.exempt]]
package = "kernel"
until = "2025-05-01"
reason = "released after the cut-off"

[[lock.overrides]]
requirement = "kernel==0.1.0"
reason = "sglang asks for ==0.0.3, which is gone"
source = "https://github.com/sgl-project/sglang"
until = "the stack is retired"

[[lock.metadata]]
name = "verl"
version = "0.2.0.dev0"
requires = ["helper", "purelib"]
reason = "a git commit"

[[lock.metadata]]
name = "flash-attn"
version = "2.7.4"
requires = ["torch"]
reason = "an sdist"

PURE_ROW
[[lock.wheels]]
component = "flash-attn"
url = "https://github.com/Dao-AILab/flash-attention/releases/download/v2/flash_attn-2.7.4-cp311-cp311-linux_x86_64.whl"
reason = "its hash is not known here"

[[lock.known_faults]]
package = "torchao"
text = "undefined symbol"
reason = "optional"

[[images]]
role = "devel"
tag = "nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04"
digest = "sha256:622e78a1d02c0f90ed900e3985d6c975d8e2dc9ee5e61643aed587dcf9129f42"
platforms = { "linux/amd64" = "sha256:0a1cb6e7bd047a1067efe14efdf0276352d5ca643dfd77963dab1a4f05a003a4" }

[apt]
debian-bookworm = ["gcc=4:12.2.0-3"]
"ubuntu-22.04" = ["gcc"]
""".replace("\nPURE_ROW", PURE_ROW)


def stack_file(place: Path, text: str = STACK) -> Path:
    """Write the stack file of the tiny stack."""
    path = place / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return path


def tiny(text: str = STACK) -> Stack:
    """Give the tiny stack."""
    return stacks.parse(text, "tiny.toml")


def fill(index: Index) -> Index:
    """Put everything that the tiny stack needs on the index."""
    index.add(wheel("torch", "2.5.1"))
    index.add(wheel("torch", "2.4.0"))
    index.add(wheel("sglang", "0.4.3", requires=["kernel==0.0.3; extra == 'srt'"]))
    index.add(wheel("kernel", "0.1.0"), uploaded="2025-04-10T00:00:00.000000Z")
    index.add(wheel("kernel", "0.2.0"), uploaded="2025-06-01T00:00:00.000000Z")
    index.add(wheel("megatron-core", "0.4.0"))
    index.add(wheel("helper", "1.0", requires=["backport; python_version < '3.11'", "extra-speed; extra == 'fast'"]))
    index.add(wheel("helper", "2.0"), uploaded="2025-06-01T00:00:00.000000Z")
    index.add(wheel("backport", "1.0"))
    index.add(wheel("extra-speed", "1.0", licence=""))
    index.add(wheel("extra-speed", "1.1"), uploaded="2025-06-02T00:00:00.000000Z")
    index.add(wheel("setuptools", "70.3.0"))
    index.add(sdist("flash-attn", "2.7.4", BOMB))
    index.add(sdist("purelib", "1.0", PURE))
    return index


@pytest.fixture
def resolved() -> Resolved:
    """Give pins as a resolution of the tiny stack gives them."""
    shared = [
        Pin(name="helper", version="1.0", hashes=("a" * 64,), via=("stack file", "verl")),
        Pin(name="megatron-core", version="0.4.0", hashes=("b" * 64,), via=("stack file",)),
        Pin(name="purelib", version="1.0", hashes=("c" * 64,), via=("verl",)),
        Pin(name="backport", version="1.0", marker="python_full_version < '3.11'", hashes=("d" * 64,), via=("helper",)),
    ]
    sglang = [
        Pin(name="torch", version="2.5.1", hashes=("1" * 64,), via=("stack file",)),
        Pin(name="sglang", version="0.4.3", hashes=("2" * 64,), via=("stack file",)),
        Pin(name="kernel", version="0.1.0", hashes=("3" * 64,), via=("sglang",)),
    ]
    vllm = [Pin(name="torch", version="2.4.0", hashes=("4" * 64,), via=("stack file",))]
    build = [Pin(name="setuptools", version="70.3.0", hashes=("5" * 64,), via=("recipes",))]
    return Resolved(
        pins={"sglang": [*shared, *sglang], "vllm": [*shared, *vllm], "build": build}, sizes={"1" * 64: 9 << 20}
    )


def lay(root: Path, stack: Stack, resolved: Resolved) -> Path:
    """Write the locks of a resolution below ``root``; give their directory."""
    place = root / "lockfiles" / stack.name
    place.mkdir(parents=True)
    texts = lock_files.pinned(stack, resolved) | lock_files.generated(stack)
    for engine in stack.engines:
        texts[f"sbom-{engine}.cdx.json"] = sbom.document(stack, engine, resolved)
    texts["sources.toml"] = SOURCES
    for name, text in texts.items():
        (place / name).write_text(text, encoding="utf-8")
    return place


def lock_of(path: Path, pins: list[Pin]) -> Path:
    """Write a whole lock."""
    path.write_text(lock_text.render(pins, ["for a test"]), encoding="utf-8")
    return path


SOURCES = lock_text.sealed(
    ["# for tests"],
    f"""version = 1
stack = "tiny"

[[source]]
name = "flash-attn"
version = "2.7.4"
kind = "sdist"
distribution = "flash-attn"
file = "flash_attn-2.7.4.tar.gz"
sha256 = {json.dumps("e" * 64)}

[[source]]
name = "verl"
version = "0.2.0.dev0"
kind = "git"
url = "https://github.com/volcengine/verl.git"
commit = "333e6d624a11cd971b6e1ce32eb7d48fa36890fd"
""",
)
