"""Prove a toolchain: its files have their hashes, it compiles for a GPU, and what it compiled runs where one is."""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process
from scripts.files import sha256

MANIFEST = "share/envcheck/manifest.json"
COMPILE_SECONDS = 300
PROGRAM = """\
#include <cstdio>
#include <filesystem>
#include <vector>
#include <cublas_v2.h>
#include <cub/block/block_reduce.cuh>
#include <thrust/version.h>

__global__ void squares(const float* in, float* sum) {
  using Reduce = cub::BlockReduce<float, 128>;
  __shared__ typename Reduce::TempStorage storage;
  const float total = Reduce(storage).Sum(in[threadIdx.x] * in[threadIdx.x]);
  if (threadIdx.x == 0) *sum = total;
}

int main() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) { std::puts("no-gpu"); return 0; }
  std::vector<float> in(128);
  for (int i = 0; i < 128; ++i) in[i] = float(i);
  float *a = nullptr, *b = nullptr, got = 0;
  cudaMalloc(&a, 512); cudaMalloc(&b, 4);
  cudaMemcpy(a, in.data(), 512, cudaMemcpyHostToDevice);
  squares<<<1, 128>>>(a, b);
  cudaMemcpy(&got, b, 4, cudaMemcpyDeviceToHost);
  cublasHandle_t handle = nullptr; float two = 2;
  const bool blas = cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS
                    && cublasSscal(handle, 1, &two, b, 1) == CUBLAS_STATUS_SUCCESS;
  float doubled = 0;
  cudaMemcpy(&doubled, b, 4, cudaMemcpyDeviceToHost);
  if (cudaGetLastError() != cudaSuccess || got != 690880.0f || !blas || doubled != 2 * got) {
    std::printf("wrong %f %f\\n", got, doubled); return 1;
  }
  std::puts("gpu-ok");
}
"""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was proven: the compiler used, the architectures found in the binary, and whether a GPU ran it."""

    nvcc: str
    host_compiler: str
    archs: tuple[str, ...]
    ran_on_gpu: bool


def manifest(prefix: Path) -> dict[str, str]:
    """Hash every file of a prefix, by path; links are not followed."""
    files = (path for path in sorted(prefix.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(prefix)): sha256(path) for path in files if path != prefix / MANIFEST}


def check_files(prefix: Path) -> int:
    """Compare every file with the manifest written when it was made; give their number."""
    try:
        wanted: dict[str, str] = json.loads((prefix / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkError(
            f"{prefix} has no readable manifest: {error}", fix=f"remove {prefix} and run it again"
        ) from error
    found = manifest(prefix)
    wrong = sorted({name for name in {*wanted, *found} if wanted.get(name) != found.get(name)})
    if wrong:
        shown = ", ".join(wrong[:5])
        raise WorkError(f"{len(wrong)} files of {prefix} changed: {shown}", fix=f"remove {prefix} and run it again")
    return len(found)


def nvcc_version(prefix: Path) -> str:
    """Ask nvcc for its version: ``Cuda compilation tools, release 12.4, V12.4.131``."""
    text = process.output([str(prefix / "bin/nvcc"), "--version"])
    match = re.search(r"release [\d.]+, V([\d.]+)", text)
    if match is None:
        raise WorkError(f"{prefix}/bin/nvcc --version printed no version: {text[-200:]!r}")
    return match[1]


def compiles(prefix: Path, cxx: str, archs: tuple[str, ...] = ("80", "90")) -> Proof:
    """Compile a kernel with CUB, cuBLAS and ``<filesystem>``, look for its machine code, run it where a GPU is."""
    with tempfile.TemporaryDirectory(prefix="envcheck-nvcc-") as name:
        work = Path(name)
        (work / "proof.cu").write_text(PROGRAM, encoding="ascii")
        codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        argv = [str(prefix / "bin/nvcc"), "-std=c++17", "-ccbin", cxx, *codes, "proof.cu", "-o", "proof", "-lcublas"]
        process.output(argv, timeout=COMPILE_SECONDS, cwd=work, environ=environment(prefix))
        listed = process.output([str(prefix / "bin/cuobjdump"), "--list-elf", "proof"], cwd=work)
        found = tuple(sorted(set(re.findall(r"\.sm_(\w+)\.cubin", listed))))
        if found != tuple(sorted(archs)):
            raise WorkError(f"nvcc was asked for sm_{', sm_'.join(archs)} and made {found}")
        said = process.output(["./proof"], cwd=work, environ=environment(prefix), timeout=60).strip()
    return Proof(nvcc=nvcc_version(prefix), host_compiler=cxx, archs=found, ran_on_gpu=said == "gpu-ok")


def environment(prefix: Path) -> dict[str, str]:
    """Give the environment in which this toolkit, and no other, is used."""
    drop = ("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "NVCC_APPEND_FLAGS", "NVCC_PREPEND_FLAGS", "LIBRARY_PATH")
    kept = {name: value for name, value in os.environ.items() if name not in drop}
    libraries = f"{prefix}/lib64:{kept.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    return {**kept, "PATH": f"{prefix}/bin:{kept.get('PATH', '')}", "LD_LIBRARY_PATH": libraries}
