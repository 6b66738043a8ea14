"""Every CUDA toolkit of the host, and which one a build would take: CUDA_HOME, then nvcc on PATH, then /usr/local/cuda.

That is the order of torch.utils.cpp_extension; CMake takes CUDACXX, then nvcc on PATH, and ignores CUDA_HOME.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from envcheck.codec import Unknown
from envcheck.facts import Text, Toolkit
from envcheck.host import Host, Pending
from envcheck.probes.places import split, toolkit_includes
from envcheck.record import dataclass, replace

USUAL = "/usr/local/cuda"
DEBIAN = "/usr/lib/nvidia-cuda-toolkit"
PATTERNS = (
    ("/usr/local/cuda-*", "system"),
    ("/opt/cuda", "system"),
    ("/opt/cuda-*", "system"),
    ("/opt/nvidia/hpc_sdk/Linux_*/*/cuda/[0-9]*", "module"),
)
VARIABLES = ("CUDA_HOME", "CUDA_PATH")
"""In the order in which torch asks them."""
MODULE_VARIABLES = ("EBROOTCUDA", "CUDA_ROOT", "CUDATOOLKIT_HOME", "CRAY_CUDATOOLKIT_DIR", "NVHPC_CUDA_HOME")
RELEASE = re.compile(r"release (\d+\.\d+)(?:, V([\d.]+))?")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A place where a toolkit may be; ``real`` is where its parts are when the place only leads there."""

    path: str
    source: str
    nvcc: str | None = None
    real: str | None = None


@dataclass(frozen=True, kw_only=True)
class Started:
    """The toolkits by their files, and the programs that were asked for what no file tells."""

    toolkits: tuple[Toolkit, ...]
    asked: dict[tuple[int, str], tuple[str, Pending]]


def start(host: Host, sites: Sequence[str] = ()) -> Started:
    """Read every toolkit, the selected one first; start the programs whose version no file tells."""
    found = list(_distinct(host, candidates(host, sites)))
    chosen, why = selected(host)
    cmake = cmake_takes(host)
    toolkits = [_toolkit(host, item, chosen=chosen, why=why, cmake=cmake) for item in found]
    toolkits.sort(key=lambda item: not item.selected)
    questions: dict[tuple[int, str], str] = {}
    for index, item in enumerate(toolkits):
        if isinstance(item.version, Unknown) and isinstance(item.nvcc, str):
            questions[index, "version"] = item.nvcc
        if isinstance(item.ptxas, Unknown):
            questions[index, "ptxas"] = item.ptxas.unknown
    real = {program: host.realpath(program) for program in questions.values()}  # /usr/local/cuda is a link to another
    begun = {path: host.start([program, "--version"]) for path, program in {real[it]: it for it in real}.items()}
    asked = {key: (program, begun[real[program]]) for key, program in questions.items()}
    return Started(toolkits=tuple(toolkits), asked=asked)


def finish(started: Started) -> tuple[Toolkit, ...]:
    """Add what the programs said."""
    toolkits = list(started.toolkits)
    for (index, name), (program, pending) in started.asked.items():
        done = pending.result()
        found = parse_release(done.stdout) if done.ok else None
        said: Text = Unknown(f"{program} --version: {done.why()}") if found is None else found[name == "ptxas"]
        item = toolkits[index]
        toolkits[index] = replace(item, ptxas=said) if name == "ptxas" else replace(item, version=said)
    return tuple(toolkits)


def candidates(host: Host, sites: Sequence[str]) -> Iterator[Candidate]:
    """Places in the order in which they are worth naming."""
    yield from _named(host, VARIABLES, "env")
    for nvcc in nvcc_on_path(host):
        yield _behind(host, nvcc)
    yield _at(host, USUAL, "system")
    for pattern, source in PATTERNS:
        for path in host.glob(pattern):
            yield _at(host, path, source)
    if host.exists(DEBIAN) and host.exists("/usr/bin/nvcc"):
        yield _at(host, "/usr", "debian")
    yield from _provisioned(host)
    yield from _named(host, ("CONDA_PREFIX",), "conda")
    yield from _named(host, MODULE_VARIABLES, "module")
    for site in sites:
        for path in (f"{site}/nvidia/cuda_nvcc", f"{site}/nvidia/cu13"):
            yield _at(host, path, "pip")


def _provisioned(host: Host) -> Iterator[Candidate]:
    """Toolkits that `nox -s toolchain` unpacked below the project's cache."""
    home = host.environ.get("HOME")
    user = host.environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    cache = host.environ.get("ENVCHECK_CACHE") or (f"{user}/envcheck" if user else "")
    for path in host.glob(f"{cache}/toolchains/cuda-[0-9]*") if cache else ():
        yield _at(host, path, "cache")


def _named(host: Host, variables: Sequence[str], source: str) -> Iterator[Candidate]:
    for name in variables:
        if host.environ.get(name):
            yield _at(host, host.environ[name].rstrip("/") or "/", source)


def nvcc_on_path(host: Host) -> list[str]:
    """Every nvcc on PATH, the first first."""
    return [found for place in split(host.environ.get("PATH")) if (found := host.which("nvcc", place))]


def _at(host: Host, path: str, source: str) -> Candidate:
    nvcc = f"{path}/bin/nvcc"
    return Candidate(path=path, source=source, nvcc=nvcc if host.exists(nvcc) else None)


def _behind(host: Host, nvcc: str) -> Candidate:
    """Name the toolkit of an nvcc on PATH; a link or a script may only lead to the real one."""
    root = nvcc.removesuffix("/nvcc").rpartition("/")[0] or "/"
    source = "debian" if root == "/usr" and host.exists(DEBIAN) else "path"
    target = script_target(host, nvcc) or host.realpath(nvcc)
    real = target.removesuffix("/nvcc").rpartition("/")[0]
    leads = target.endswith("/bin/nvcc") and host.realpath(root) != host.realpath(real) and source == "path"
    return Candidate(path=root, source=source, nvcc=nvcc, real=real if leads else None)


def script_target(host: Host, nvcc: str) -> str | None:
    """Program that a wrapper starts: ``exec /usr/local/cuda-13.0/bin/nvcc "$@"``; None for a real program."""
    try:
        with host.open(nvcc) as file:
            head = file.read(4096)
    except OSError:
        return None
    found = re.search(rb"(/[\w./+-]+/bin/nvcc)\b", head) if head.startswith(b"#!") else None
    return found[1].decode() if found and found[1].decode() != nvcc else None


def _distinct(host: Host, items: Iterator[Candidate]) -> Iterator[Candidate]:
    """Each place once; a place that was named by a variable is kept even where nothing is there."""
    seen: set[str] = set()
    for item in items:
        real = host.realpath(item.path)
        holds = item.nvcc or any(host.exists(f"{path}/cuda.h") for path in toolkit_includes(item.path))
        holds = holds or host.exists(f"{item.path}/bin/ptxas") or host.exists(f"{item.path}/version.json")
        if real not in seen and (holds or item.source == "env"):
            seen.add(real)
            yield item


def selected(host: Host) -> tuple[str | None, str]:
    """Give the CUDA_HOME that torch would take, and why."""
    for name in VARIABLES:
        if host.environ.get(name):
            return host.environ[name].rstrip("/") or "/", f"{name} is set"
    nvcc = host.which("nvcc")
    if nvcc:
        root = nvcc.removesuffix("/nvcc").rpartition("/")[0] or "/"
        target = script_target(host, nvcc)
        return root, f"nvcc on PATH is {nvcc}" + (f", a script that starts {target}" if target else "")
    if host.exists(USUAL):
        return USUAL, f"neither CUDA_HOME nor nvcc on PATH; {USUAL} is the usual place"
    return None, ""


def cmake_takes(host: Host) -> str | None:
    """Give the nvcc that CMake would take: CUDACXX, then PATH, then CUDA_PATH."""
    named = host.environ.get("CUDACXX")
    if named:
        return named if "/" in named else host.which(named)
    nvcc = host.which("nvcc")
    place = host.environ.get("CUDA_PATH")
    return nvcc or (host.which("nvcc", f"{place}/bin") if place else None)


def _toolkit(host: Host, item: Candidate, *, chosen: str | None, why: str, cmake: str | None) -> Toolkit:
    root = item.real or item.path
    is_chosen = chosen is not None and host.realpath(item.path) == host.realpath(chosen)
    cmake_nvcc = cmake is not None and item.nvcc is not None and host.realpath(cmake) == host.realpath(item.nvcc)
    return Toolkit(
        path=item.path,
        version=version(host, root),
        nvcc=item.nvcc,
        ptxas=ptxas_in(host, root),
        headers=any(host.exists(f"{path}/cuda_runtime.h") for path in toolkit_includes(item.path)),
        source=item.source,
        selected=is_chosen,
        why=why if is_chosen else "",
        gcc_max=gcc_max(host, root),
        cmake=cmake_nvcc,
    )


def version(host: Host, root: str) -> Text:
    """Version of a toolkit by its files: version.json, version.txt, cuda.h, cuda_runtime_api.h."""
    if not host.exists(root):
        return Unknown(f"{root} does not exist")
    said = parse_version_json(_text(host, f"{root}/version.json")).get("cuda")
    if said:
        return said
    named = re.search(r"CUDA Version ([\d.]+)", _text(host, f"{root}/version.txt"))
    if named:
        return named[1]
    for directory in toolkit_includes(root):
        for header in ("cuda.h", "cuda_runtime_api.h"):
            found = parse_cuda_version(_text(host, f"{directory}/{header}"))
            if found:
                return found
    return Unknown(f"no version.json, version.txt or cuda.h in {root}")


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path, 64 << 10)
    except OSError:
        return ""


def parse_version_json(text: str) -> dict[str, str]:
    """Read ``{"cuda": {"name": "CUDA SDK", "version": "12.4.1"}, "cuda_nvcc": {"version": "12.4.131"}, …}``."""
    import json

    try:
        said = json.loads(text)
        return {name: str(entry["version"]) for name, entry in said.items() if "version" in entry}
    except (ValueError, TypeError, AttributeError):
        return {}


def parse_cuda_version(text: str) -> str | None:
    """Read ``#define CUDA_VERSION 12040`` or ``#define CUDART_VERSION  12040``: 12.4."""
    found = re.search(r"^#define (?:CUDA|CUDART)_VERSION\s+(\d+)", text, re.MULTILINE)
    return f"{int(found[1]) // 1000}.{int(found[1]) % 1000 // 10}" if found else None


def gcc_max(host: Host, root: str) -> int | Unknown | None:
    """Highest GCC by the text of crt/host_config.h, ``gcc versions later than 13 are not supported!``."""
    for directory in toolkit_includes(root):
        text = _text(host, f"{directory}/crt/host_config.h")
        found = re.search(r"gcc versions later than (\d+)", text)
        if found:
            return int(found[1])
        if text:
            return Unknown(f"{directory}/crt/host_config.h names no highest GCC")
    return None


def ptxas_in(host: Host, root: str) -> Text | None:
    """Version of ptxas by version.json; Unknown where only the program can say it; None where there is none."""
    path = f"{root}/bin/ptxas"
    if not host.exists(path):
        path = f"{DEBIAN}/bin/ptxas" if root == "/usr" else path
    if not host.exists(path):
        return None
    said = parse_version_json(_text(host, f"{root}/version.json")).get("cuda_nvcc")
    return said or Unknown(path)


def parse_release(text: str) -> tuple[str, str] | None:
    """Read ``Cuda compilation tools, release 12.4, V12.4.131``: the release and the full version."""
    found = RELEASE.search(text)
    return (found[1], found[2] or found[1]) if found else None
