"""What a package's own files say beyond its metadata: torch's CUDA and ABI, what a binary was built with, modules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from envcheck.codec import Unknown
from envcheck.facts import Package
from envcheck.host import Host
from envcheck.probes import damage
from envcheck.record import replace

WATCHED = frozenset(
    [
        "torch",
        "torchvision",
        "torchaudio",
        "triton",
        "flash-attn",
        "flashinfer-python",
        "flashinfer",
        "sgl-kernel",
        "sglang",
        "vllm",
        "xformers",
        "transformer-engine",
        "transformer-engine-torch",
        "transformer-engine-cu12",
        "transformer-engine-cu13",
        "megatron-core",
        "verl",
        "ray",
        "apex",
        "torch-memory-saver",
        "nvidia-cudnn-cu12",
        "nvidia-cudnn-cu13",
        "nvidia-nccl-cu12",
        "nvidia-nccl-cu13",
        "nvidia-cublas-cu12",
        "nvidia-cuda-runtime-cu12",
        "nvidia-cuda-nvrtc-cu12",
        "nvidia-nvjitlink-cu12",
        "nvidia-cusparse-cu12",
        "torchao",
        "transformers",
        "tensordict",
        "numpy",
    ]
)
"""Packages whose files are compared with their RECORD."""
IMPORT_NAMES = {
    "megatron": "megatron-core",
    "flashinfer": "flashinfer-python",
    "flash_attn_2_cuda": "flash-attn",
    "transformer_engine_torch": "transformer-engine-torch",
    "PIL": "pillow",
}
"""Import names that are not the distribution's."""
ALWAYS_ASKED = (
    "sglang.srt.entrypoints.verl_engine",
    "sglang.srt.entrypoints.engine",
    "megatron.core",
    "megatron.training",
    "megatron.bridge",
    "mbridge",
    "transformer_engine.pytorch",
    "flash_attn",
    "apex.amp",
    "apex.optimizers",
    "verl.trainer.main_ppo",
    "verl.workers.rollout.sglang_rollout",
)
BUILT_FOR = re.compile(r"cu(?P<cuda>\d+)\.?torch(?P<torch>\d+\.\d+)(?:cxx11abi(?P<abi>TRUE|FALSE))?", re.IGNORECASE)
MODULE_LISTS = re.compile(r'\b(?:modules|needs_module)\s*=\s*(\[[^\]]*\]|"[^"]*")')


def modules_asked() -> dict[str, tuple[str, ...]]:
    """Modules that rules and stacks ask for, by distribution. The stack files are scanned, not parsed: that is fast."""
    from envcheck import data

    asked = set(ALWAYS_ASKED)
    for name in data.names("stacks", ".toml"):
        for group in MODULE_LISTS.findall(data.read(f"stacks/{name}")):
            asked.update(re.findall(r'"([\w.]+)"', group))
    found: dict[str, tuple[str, ...]] = {}
    for module in sorted(asked):
        top = module.partition(".")[0]
        name = IMPORT_NAMES.get(top, top.replace("_", "-").lower())
        found[name] = (*found.get(name, ()), module)
    return found


def complete(host: Host, package: Package, places: Sequence[str], modules: dict[str, tuple[str, ...]]) -> Package:
    """Add to a package what its own files say."""
    asked = modules.get(package.name, ())
    found = tuple(module for module in asked if any(_is_there(host, place, module) for place in places))
    built = built_for(host, package)
    if found or built:
        package = replace(package, modules=found, built_for=built)
    return torch(host, package) if package.name == "torch" else package


def _is_there(host: Host, place: str, module: str) -> bool:
    path = f"{place}/{module.replace('.', '/')}"
    return host.exists(f"{path}.py") or host.exists(path)


def files_gone(host: Host, package: Package) -> tuple[str, ...]:
    """Say what is gone of the files of a package that is watched."""
    if package.name not in WATCHED:
        return ()
    stem = package.name.replace("-", "_")
    record = f"{package.location}/{stem}-{package.version}.dist-info/RECORD"
    return damage.of_files(host, package, _text(host, record))


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path)
    except OSError:
        return ""


def built_for(host: Host, package: Package) -> dict[str, str]:
    """Say what a binary was built with, as its wheel's name, its version or a file of its own says."""
    named = BUILT_FOR.search(f"{package.version} {package.origin.url if package.origin else ''}".replace("%2B", "+"))
    if named:
        return _label(named)
    if package.name == "xformers":
        return parse_xformers(_text(host, f"{package.location}/xformers/cpp_lib.json"))
    if package.name in {"torchvision", "torchaudio"}:
        found = re.search(
            r"^cuda = '([\d.]+)'", _text(host, f"{package.location}/{package.name}/version.py"), re.MULTILINE
        )
        return {"cuda": found[1]} if found else {}
    if package.name == "flashinfer-python":
        meta = BUILT_FOR.search(_text(host, f"{package.location}/flashinfer/_build_meta.py"))
        return _label(meta) if meta else {}
    return {}


def _label(found: re.Match[str]) -> dict[str, str]:
    """Read ``cu124torch2.5`` and ``cu12torch2.5cxx11abiFALSE``: CUDA 12.4 or 12, torch 2.5, ABI FALSE."""
    said = {key: value for key, value in found.groupdict().items() if value}
    cuda = said["cuda"]
    return {**said, "cuda": f"{cuda[:2]}.{cuda[2:]}" if cuda[2:] else cuda}


def parse_xformers(text: str) -> dict[str, str]:
    """Read ``{"version": {"cuda": 1204, "torch": "2.5.1+cu124", "python": "3.10.15"}, …}``."""
    import json

    try:
        said = json.loads(text)["version"]
        cuda = int(said["cuda"])
        return {"cuda": f"{cuda // 100}.{cuda % 100}", "torch": str(said["torch"])}
    except (ValueError, KeyError, TypeError):
        return {}


def torch(host: Host, package: Package) -> Package:
    """Add what torch/version.py and TorchConfig.cmake say.

    ``__version__ = '2.5.1+cu124'`` and ``cuda: Optional[str] = '12.4'`` (None: a CPU build).
    """
    place = f"{package.location}/torch"
    text = _text(host, f"{place}/version.py")
    if not text:
        gone = Unknown(f"{place}/version.py cannot be read")
        return replace(package, cuda=gone, cxx11_abi=gone, damage=(*package.damage, "torch/version.py is gone"))
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda(?:: Optional\[str\]|: str \| None)? = (?:'([\d.]+)'|None)", text, re.MULTILINE)
    label = version[1].partition("+")[2] if version else ""
    return replace(
        package,
        build=label or package.build,
        cuda=cuda[1] if cuda else Unknown(f"{place}/version.py has no line for cuda"),
        cxx11_abi=_torch_abi(host, place),
    )


def _torch_abi(host: Host, place: str) -> bool | Unknown:
    """C++ ABI by ``-D_GLIBCXX_USE_CXX11_ABI=0`` of TorchConfig.cmake, else by the symbols of libc10.so."""
    config = _text(host, f"{place}/share/cmake/Torch/TorchConfig.cmake")
    found = re.search(r"_GLIBCXX_USE_CXX11_ABI=([01])", config)
    if found:
        return found[1] == "1"
    from envcheck.binary.abi import torch_cxx11_abi
    from envcheck.binary.elf import Elf
    from envcheck.binary.image import BinaryError, open_image

    try:
        with open_image(host, f"{place}/lib/libc10.so") as image:
            abi = torch_cxx11_abi(Elf(image))
    except (OSError, BinaryError) as error:
        return Unknown(f"neither TorchConfig.cmake nor libc10.so can be read: {error}")
    return Unknown(f"{place}/lib/libc10.so does not show its ABI") if abi is None else abi


def without_metadata(host: Host, sites: Sequence[str], known: set[str]) -> Iterator[Package]:
    """Find a torch folder that no dist-info stands for: what is left when an uninstall was interrupted."""
    if "torch" in known:
        return
    for site in sites:
        if host.exists(f"{site}/torch/__init__.py") or host.exists(f"{site}/torch/lib"):
            found = re.search(r"^__version__ = '([^']+)'", _text(host, f"{site}/torch/version.py"), re.MULTILINE)
            version = found[1] if found else Unknown(f"{site}/torch/version.py cannot be read")
            yield Package(name="torch", version=version, location=site, damage=("its dist-info is missing",))
            return
