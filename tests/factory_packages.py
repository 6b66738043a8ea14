"""Packages of environments in which a whole stack is installed."""

from __future__ import annotations

from typing import Any

from envcheck.facts import Extension, Origin, Package

VENV = "/home/me/venv"
TORCH_ARCHS = ("5.0", "6.0", "7.0", "7.5", "8.0", "8.6", "9.0")
VERL_COMMIT = "333e6d624a11cd971b6e1ce32eb7d48fa36890fd"
TE_COMMIT = "4e7caa1c35e301c31e563e19a75bd51e220b0b2c"


def site(python: str) -> str:
    """Site directory of the healthy host's environment."""
    return f"{VENV}/lib/python{python}/site-packages"


def package(name: str, version: str, **changes: Any) -> Package:
    """One installed package; ``archs`` are those of its one extension, but for torch."""
    archs = changes.pop("archs", None)
    if archs and name != "torch":
        path = f"{site('3.10')}/{name.replace('-', '_')}/_C.so"
        needed = ("libc10.so", "libtorch.so", "libcudart.so.12")
        changes["extensions"] = (
            Extension(
                path=path,
                needed=needed,
                archs=tuple(archs),
                glibc="2.17",
                glibcxx="3.4.19",
                cxx11_abi=False,
                cuda_major=12,
            ),
        )
    elif archs:
        changes["archs"] = tuple(archs)
    return Package(name=name, version=version, **{"installer": "uv", "location": site("3.10"), **changes})


def _nvidia() -> tuple[Package, ...]:
    versions = {
        "cublas": "12.4.5.8",
        "cuda-cupti": "12.4.127",
        "cuda-nvrtc": "12.4.127",
        "cuda-runtime": "12.4.127",
        "cudnn": "9.1.0.70",
        "cusparse": "12.3.1.170",
        "nccl": "2.21.5",
        "nvjitlink": "12.4.127",
    }
    return tuple(package(f"nvidia-{name}-cu12", version) for name, version in versions.items())


def _common() -> tuple[Package, ...]:
    return (
        *_nvidia(),
        package("click", "8.1.8"),
        package("einops", "0.8.1"),
        package("cmake", "3.31.6"),
        package("ninja", "1.11.1.4"),
        package("numpy", "1.26.4"),
        package("packaging", "24.2"),
        package("pip", "25.0.1"),
        package("psutil", "7.0.0"),
        package("pybind11", "2.13.6"),
        package("wheel", "0.45.1"),
    )


def seed_packages() -> tuple[Package, ...]:
    """Everything of the seed's stack, Megatron too."""
    engine = ("sglang.srt.entrypoints.verl_engine", "sglang.srt.entrypoints.engine")
    te = Origin(url="https://github.com/NVIDIA/TransformerEngine.git", commit=TE_COMMIT)
    return (
        *_common(),
        package("torch", "2.5.1", cuda="12.4", cxx11_abi=False, archs=TORCH_ARCHS),
        package("torchvision", "0.20.1", requires=("torch==2.5.1", "numpy")),
        package("triton", "3.1.0"),
        package("flash-attn", "2.7.4.post1", build="cu12torch2.5cxx11abiFALSE", archs=("8.0", "9.0")),
        package("flashinfer-python", "0.2.2.post1", tag="py3-none-any"),
        package("sgl-kernel", "0.1.0", archs=("7.5", "8.0", "8.9", "9.0", "9.0a")),
        package("torch-memory-saver", "0.0.8"),
        package("sglang", "0.4.3.post3", modules=engine),
        package("transformer-engine", "1.7.0", origin=te, modules=("transformer_engine.pytorch",)),
        package("megatron-core", "0.4.0", modules=("megatron.core",)),
        package("apex", "0.1", modules=("apex.amp",)),
        package("ray", "2.42.1", requires=("click>=7.0",)),
        package("tensordict", "0.5.0"),
        package("transformers", "4.48.3"),
        package("setuptools", "70.3.0"),
        package(
            "verl",
            "0.2.0.dev0",
            origin=Origin(url="https://github.com/volcengine/verl.git", commit=VERL_COMMIT),
            requires=("ray>=2.10", "vllm<=0.6.3", 'pytest; extra == "test"'),
        ),
    )


def lts_packages() -> tuple[Package, ...]:
    """Everything of the lts stack, Megatron too."""
    return (
        *(item for item in _common() if item.name != "nvidia-cudnn-cu12"),
        package("nvidia-cudnn-cu12", "9.8.0.87"),
        package("torch", "2.6.0", cuda="12.4", cxx11_abi=False, archs=TORCH_ARCHS),
        package("torchvision", "0.21.0", requires=("torch==2.6.0", "numpy")),
        package("triton", "3.2.0"),
        package("flash-attn", "2.7.4.post1", build="cu12torch2.6cxx11abiFALSE", archs=("8.0", "9.0")),
        package("flashinfer-python", "0.2.5", tag="py3-none-any"),
        package("sgl-kernel", "0.1.4", archs=("7.5", "8.0", "8.9", "9.0", "9.0a")),
        package("torch-memory-saver", "0.0.8"),
        package("sglang", "0.4.6.post5", modules=("sglang.srt.entrypoints.engine",)),
        package("transformer-engine", "2.2.0"),
        package("transformer-engine-cu12", "2.2.0"),
        package("transformer-engine-torch", "2.2.0", archs=("8.0", "9.0")),
        package("megatron-core", "0.12.2", modules=("megatron.core",)),
        package("apex", "0.1", modules=("apex.amp",)),
        package("ray", "2.47.1", requires=("click>=7.0",)),
        package("tensordict", "0.6.2"),
        package("transformers", "4.51.1"),
        package("setuptools", "78.1.1"),
        package(
            "verl", "0.4.1", requires=("ray>=2.41.0", "tensordict<=0.6.2", 'sglang==0.4.6.post5; extra == "sglang"')
        ),
    )
