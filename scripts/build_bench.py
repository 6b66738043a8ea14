"""What `nox -s bench` measures of builds: cold and warm compiler cache, a second build, the verification of a wheel.

An extension of four small kernels is built through the whole pipeline, with a cache of its own below ``--work``.
"""

from __future__ import annotations

import argparse
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from envcheck import data
from envcheck import stack as stacks
from envcheck.errors import WorkError
from scripts import build, build_cache, build_context, build_verify, cli, toolchain, wheelhouse_store
from scripts.build_context import Wishes
from scripts.cache import cache
from scripts.files import sha256, write

KERNELS = 4
ARCHS = "9.0"
SETUP = """\
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

files = ["module.cpp", *(f"kernel_{i}.cu" for i in range(@KERNELS@))]
setup(
    name="envcheck-bench",
    version="1.0",
    ext_modules=[CUDAExtension("envcheck_bench", files)],
    cmdclass={"build_ext": BuildExtension},
)
"""
MODULE = '#include <torch/extension.h>\nPYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.doc() = "a bench"; }\n'
KERNEL = """\
#include <torch/extension.h>
__global__ void scale_@N@(const float* in, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i] * @N@.0f;
}
"""
COMPONENT = """
[[components]]
name = "bench"
distribution = "envcheck-bench"
version = "1.0"
needs = ["torch"]
origin = { kind = "sdist", sha256 = "@SHA256@" }
[components.recipe]
requires = ["setuptools==78.1.1", "wheel", "packaging", "ninja", "numpy"]
environment = { CUDA_HOME = "{cuda_home}", TORCH_CUDA_ARCH_LIST = "{archs_dotted}", MAX_JOBS = "{jobs}" }
preflight = ["nvcc-missing", "cuda-home-invalid", "nvcc-differs-from-torch", "gcc-too-old", "gcc-too-new-for-nvcc"]
memory_per_job_bytes = 3221225472
disk_bytes = 104857600
archs_variable = "TORCH_CUDA_ARCH_LIST"
"""


def sdist(directory: Path) -> Path:
    """Write the extension's sdist, once."""
    path = directory / "envcheck_bench-1.0.tar.gz"
    if path.exists():
        return path
    tree = directory / "envcheck_bench-1.0"
    write(tree / "setup.py", SETUP.replace("@KERNELS@", str(KERNELS)))
    write(tree / "module.cpp", MODULE)
    for number in range(KERNELS):
        write(tree / f"kernel_{number}.cu", KERNEL.replace("@N@", str(number)))
    with tarfile.open(path, "w:gz") as file:
        file.add(tree, tree.name)
    return path


def stack_file(directory: Path) -> Path:
    """Write a stack of its own: the lts stack and the extension, whose sdist is pinned by its hash."""
    text = data.read("stacks/verl-lts-cu124.toml").replace('name = "verl-lts-cu124"', 'name = "bench-cu124"', 1)
    head, lock, tail = text.partition("[[traps]]")
    path = directory / "bench-cu124.toml"
    write(path, head + COMPONENT.replace("@SHA256@", sha256(sdist(directory))) + "\n" + lock + tail)
    return path


def extension(work: Path, python: str, *, again: bool) -> int:
    """Build the extension; ``again`` takes it from the wheelhouse, where the same inputs were built before."""
    found = build_cache.find()
    if found is None:
        raise WorkError("neither ccache nor sccache is on PATH", fix="install ccache")
    tools = cache("toolchains")
    if toolchain.provisioned() is None:
        raise WorkError(f"there is no CUDA toolkit at {tools}", fix="nox -s toolchain")
    root = work / "build-cache"
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "toolchains").is_symlink():
        (root / "toolchains").symlink_to(tools)
    os.environ["ENVCHECK_CACHE"] = str(root)
    os.environ.pop("ENVCHECK_WHEELHOUSE", None)
    argv = ["bench", "--stack", str(stack_file(work)), "--archs", ARCHS, "--python", python, "--source", str(work)]
    return build.main(argv if again else [*argv, "--rebuild"])


def verification(component: str, python: str, house: Path) -> int:
    """Verify the newest wheel of a component as a build does, against the torch of the target."""
    found = [entry for entry in wheelhouse_store.entries(house) if _of(entry, component)]
    if not found:
        raise WorkError(
            f"{house} holds no wheel of {component}", fix=f"build one, or take the bench without {component}"
        )
    entry = max(found, key=lambda item: str(item.receipt.get("finished", "")))
    stack = stacks.load(str(entry.receipt["stack"]))
    archs = tuple(entry.receipt["inputs"]["archs"])
    wishes = Wishes(engine=stack.engines[0], trainer=stack.trainers[0], python=python, archs=archs)
    said = build_verify.verify(build_context.context(stack, component, wishes), entry.wheel)
    print(f"{entry.wheel.name}: {said['seconds']} s, {', '.join(said['archs'])}")
    return 0


def _of(entry: wheelhouse_store.Entry, component: str) -> bool:
    return bool(entry.receipt.get("inputs", {}).get("component") == component)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    out = argparse.ArgumentParser(prog="python -m scripts.build_bench", description=(__doc__ or "").splitlines()[0])
    out.add_argument("what", choices=("build", "again", "verify"))
    out.add_argument("--python", required=True, help="an environment with torch")
    out.add_argument("--work", type=Path, default=Path("outputs/build-bench"), help="where the extension is built")
    out.add_argument("--component", default="transformer-engine", help="verify: whose newest wheel")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Do one of the things that are measured."""
    options = parser().parse_args(argv)
    if options.what == "verify":
        return verification(options.component, options.python, wheelhouse_store.default())
    return extension(options.work.absolute(), options.python, again=options.what == "again")


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
