"""Failures staged for real, on this machine: what the programs print is explained by its cause."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from envcheck.explain import Explanation, explain
from scripts import toolchain
from scripts.cache import cache

UV = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
HUNGRY = """
template <int N> struct T { static constexpr auto value = T<N - 1>::value * 2u + sizeof(T<N - 1>) * N; };
template <> struct T<0> { static constexpr auto value = 1u; };
template <int... N> constexpr unsigned sum() { return (T<N>::value + ...); }
"""
BUILD = {
    "ninja": ("build.ninja", "rule cc\n  command = g++ -std=c++17 -c $in -o $out\nbuild a.o: cc a.cpp\n"),
    "make": ("Makefile", "a.o: a.cpp\n\tg++ -std=c++17 -c a.cpp -o a.o\n"),
}


def failing(argv: Sequence[str], cwd: Path, **environ: str) -> Explanation:
    """Run what must fail; explain its output."""
    environment = {**os.environ, "LC_ALL": "C", **environ}
    done = subprocess.run(
        argv, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=300
    )
    assert done.returncode, done.stdout
    return explain(io.BytesIO(done.stdout))


def rules(explained: Explanation) -> list[str]:
    return [match.rule for match in explained.matches]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment of its own, with nothing but pip."""
    path = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(path)], check=True, timeout=120)
    return str(path / "bin/python")


@pytest.mark.process
def test_a_preloaded_library_that_is_missing(tmp_path: Path) -> None:
    missing = str(tmp_path / "torch_memory_saver_cpp.abi3.so")
    argv = [sys.executable, "-c", "raise SystemExit(1)"]
    assert rules(failing(argv, tmp_path, LD_PRELOAD=missing))[0] == "memory-saver-preload-missing"


@pytest.mark.process
def test_packages_that_are_missing(tmp_path: Path) -> None:
    for name, rule in (("megatron.core", "megatron-not-importable"), ("apex.amp", "apex-missing")):
        assert rules(failing([sys.executable, "-c", f"import {name}"], tmp_path))[0] == rule


@pytest.mark.process
def test_a_socket_path_that_is_too_long(tmp_path: Path) -> None:
    code = "import socket; socket.socket(socket.AF_UNIX).bind('/tmp/' + 'x' * 200)"
    assert rules(failing([sys.executable, "-c", code], tmp_path))[0] == "tmpdir-too-long"


@pytest.mark.process
def test_a_process_without_room_for_files(tmp_path: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5)); "
    code = f"{limited}files = [open('/dev/null') for _ in range(9)]"
    assert rules(failing([sys.executable, "-c", code], tmp_path))[0] == "open-files-low"


@pytest.mark.network
def test_resolvers_that_meet_the_caps_of_verl_and_sglang(tmp_path: Path, python: str) -> None:
    (tmp_path / "in.txt").write_text("verl==0.2.0.post2\nsglang[all]==0.4.3.post2\n", encoding="utf-8")
    uv = [UV, "pip", "compile", "-p", python, "--python-version", "3.10", "in.txt"]
    assert rules(failing(uv, tmp_path))[0] == "vllm-pin-conflict"
    pip = [python, "-m", "pip", "install", "--dry-run", "verl==0.2.0.post2", "vllm==0.6.4.post1"]
    assert rules(failing(pip, tmp_path))[0] == "vllm-pin-conflict"


@pytest.mark.network
def test_flash_attn_built_in_isolation(tmp_path: Path, python: str) -> None:
    uv = [UV, "pip", "install", "-p", python, "--no-cache", "flash-attn==2.7.4.post1"]
    assert rules(failing(uv, tmp_path))[0] == "build-isolation-hides-torch"


@pytest.mark.network
def test_a_comma_and_a_version_that_is_gone(tmp_path: Path, python: str) -> None:
    pip = [python, "-m", "pip", "install"]
    assert rules(failing([*pip, "wheel,", "packaging"], tmp_path))[0] == "build-tool-missing"
    assert rules(failing([*pip, "sgl-kernel==0.0.3.post6"], tmp_path))[0] == "version-not-on-index"


@pytest.mark.network
def test_a_file_that_is_not_the_locked_one(tmp_path: Path, python: str) -> None:
    (tmp_path / "in.txt").write_text(f"einops==0.8.1 --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    pip = [python, "-m", "pip", "install", "--require-hashes", "-r", "in.txt"]
    assert rules(failing(pip, tmp_path))[0] == "hash-mismatch"


def memory_group() -> Path | None:
    """Make a memory group of 60 MB of this machine's, where that is allowed."""
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        path = Path(root, f"envcheck-test-{os.getpid()}")
        try:
            path.mkdir()
            (path / name).write_text(str(60 << 20))
        except OSError:
            if path.is_dir():
                path.rmdir()
            continue
        return path
    return None


@pytest.fixture
def group() -> Iterator[Path]:
    path = memory_group()
    if path is None:
        pytest.skip("no memory group may be made here")
    yield path
    path.rmdir()


@pytest.fixture(params=sorted(BUILD))
def build(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A program that builds what takes more memory than there will be."""
    program: str = request.param
    if shutil.which(program) is None or shutil.which("g++") is None:
        pytest.skip(f"needs {program} and g++")
    sums = "\n".join(f"template unsigned sum<{', '.join(str(n) for n in range(k, k + 800))}>();" for k in range(800))
    (tmp_path / "a.cpp").write_text(HUNGRY + sums, encoding="utf-8")
    name, text = BUILD[program]
    (tmp_path / name).write_text(text, encoding="utf-8")
    return program


@pytest.mark.toolchain
def test_a_compiler_that_the_kernel_kills(tmp_path: Path, group: Path, build: str) -> None:
    joined = f"echo $$ > {group}/cgroup.procs && exec {build}"
    explained = failing(["sh", "-c", joined], tmp_path)
    assert rules(explained)[0] == "build-needs-more-memory"
    assert explained.matches[0].consequences


@pytest.mark.toolchain
def test_a_compiler_that_gets_no_memory(tmp_path: Path, build: str) -> None:
    explained = failing(["sh", "-c", f"ulimit -v 120000 && exec {build}"], tmp_path)
    assert rules(explained)[0] == "build-needs-more-memory"


@pytest.fixture
def nvcc() -> str:
    prefix = toolchain.provisioned()
    if prefix is None:
        pytest.skip("needs `nox -s toolchain`")
    return str(prefix / "bin/nvcc")


@pytest.mark.toolchain
def test_an_nvcc_that_does_not_know_the_gpu(tmp_path: Path, nvcc: str) -> None:
    (tmp_path / "a.cu").write_text("__global__ void k() {}\n", encoding="utf-8")
    arch = "arch=compute_{0},code=sm_{0}"
    assert rules(failing([nvcc, "-gencode", arch.format(120), "-c", "a.cu"], tmp_path))[0] == "nvcc-too-old-for-gpu"
    assert rules(failing([nvcc, "-gencode", arch.format(35), "-c", "a.cu"], tmp_path))[0] == "arch-removed-from-nvcc"


@pytest.mark.toolchain
def test_transformer_engine_without_the_headers_of_cudnn(tmp_path: Path, nvcc: str) -> None:
    found = sorted(cache("sources").glob("transformer-engine-*/**/transformer_engine/common/CMakeLists.txt"))
    if not found:
        pytest.skip("needs TransformerEngine's source: `nox -s build-te`")
    argv = ["cmake", "-S", str(found[0].parent.parent), "-B", str(tmp_path / "build"), f"-DCMAKE_CUDA_COMPILER={nvcc}"]
    path = f"{Path(nvcc).parent}:{os.environ['PATH']}"
    explained = failing(argv, tmp_path, PATH=path, CUDNN_PATH=str(tmp_path), CUDAARCHS="90")
    assert rules(explained)[0] == "cudnn-headers-missing"
