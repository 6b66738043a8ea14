"""The environment variables that matter, by allow-list; values that hold credentials are masked."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAMES = frozenset(
    [
        "PATH",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "LIBRARY_PATH",
        "CPATH",
        "C_INCLUDE_PATH",
        "CPLUS_INCLUDE_PATH",
        "PKG_CONFIG_PATH",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONNOUSERSITE",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "CC",
        "CXX",
        "CFLAGS",
        "CXXFLAGS",
        "LDFLAGS",
        "MAX_JOBS",
        "MAKEFLAGS",
        "LOADEDMODULES",
        "MODULEPATH",
        "NVHPC",
        "NVHPC_ROOT",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "HOME",
        "LANG",
        "LC_ALL",
        "TERM_PROGRAM",
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "OMP_NUM_THREADS",
        "MKL_SERVICE_FORCE_INTEL",
        "MKL_THREADING_LAYER",
        "TOKENIZERS_PARALLELISM",
        "MASTER_ADDR",
        "MASTER_PORT",
        "WORLD_SIZE",
        "RANK",
        "LOCAL_RANK",
        "DOCKER_HOST",
        "DOCKER_BUILDKIT",
        "KUBERNETES_SERVICE_HOST",
        "APPTAINER_CONTAINER",
        "SINGULARITY_CONTAINER",
        "APPTAINER_NAME",
        "container",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "all_proxy",
        "SOURCE_DATE_EPOCH",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "GLIBC_TUNABLES",
        "CI",
    ]
)
PREFIXES = (
    "CUDA", "CUDNN", "NCCL", "NVTE_", "NVCC", "NVIDIA_", "NV_", "NVSHMEM", "TORCH", "PYTORCH", "TRITON", "FLASH_ATT",
    "FLASHINFER", "SGL", "SGLANG", "VLLM_", "RAY_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "WANDB_", "MEGATRON",
    "VERL_", "APEX_", "CMAKE", "CCACHE", "SCCACHE", "EBROOT", "PIP_", "UV_", "GLOO_", "UCX_", "SLURM_JOB", "SLURM_GPU",
    "SLURM_CPUS", "SLURM_MEM", "HSA_", "PYTEST_DISABLE", "ENVCHECK_", "NIXL",
)  # fmt: skip
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
SET = "set"


def probe(environ: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that matter; a secret is only said to be set, a URL loses its user and password."""
    return {name: masked(name, environ[name]) for name in sorted(environ) if matters(name)}


def matters(name: str) -> bool:
    """Tell whether a variable is on the allow-list."""
    return name in NAMES or name.startswith(PREFIXES)


def masked(name: str, value: str) -> str:
    """Give the value without what a stranger must not read."""
    if SECRET.search(name):
        return SET if value else ""
    return without_credentials(value)


def without_credentials(text: str) -> str:
    """Replace ``https://me:secret@host`` by ``https://***@host``, wherever it stands in the text."""
    return USERINFO.sub("***@", text)
