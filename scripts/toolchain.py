"""Provision CUDA 12.4 without root: archives pinned by hash, laid out as a CUDA_HOME in the project's cache."""

from __future__ import annotations

import argparse
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from envcheck import stack as stacks
from envcheck.errors import WorkError
from envcheck.stack import Range
from scripts import (
    cli,
    toolchain_fetch,
    toolchain_gcc,
    toolchain_layout,
    toolchain_pin,
    toolchain_pins,
    toolchain_verify,
)
from scripts.cache import cache, locked
from scripts.files import check_ours, replacing, write
from scripts.toolchain_compiler import host_cxx
from scripts.toolchain_pins import SOURCES, Pins, SourceName

RECORD = "share/envcheck/toolchain.json"
UNPACKED_FACTOR = 2
"""The prefix is 2.0 GB, the archives 1.7 GB."""


def prefix_of(cuda: str = toolchain_pin.CUDA) -> Path:
    """Path of the provisioned toolkit of this CUDA release."""
    return cache("toolchains", f"cuda-{cuda}")


def provisioned(cuda: str = toolchain_pin.CUDA) -> Path | None:
    """Path of the provisioned toolkit, where it is whole."""
    path = prefix_of(cuda)
    return path if (path / RECORD).exists() else None


def source_of(asked: str, mirror: str | None) -> SourceName:
    """Choose the source: the one asked for, else Debian where the host has a mirror of it, else the vendor."""
    if asked == "debian" or (asked == "auto" and (mirror or toolchain_fetch.debian_mirrors())):
        return "debian"
    return "redist"


def provision(kind: SourceName, gcc: Range, *, mirror: str | None, prefix: Path, keep: bool) -> None:
    """Make the toolkit at ``prefix``: download, check, unpack, compile; the old one stays until all is well."""
    pins = toolchain_pins.load(kind)
    check_ours(prefix, RECORD)
    _supported(prefix, pins)
    cxx = compiler(gcc, mirror)
    files = toolchain_fetch.archives(pins, toolchain_fetch.mirrors(kind, mirror, pins))
    with replacing(prefix) as work:
        for archive, file in zip(pins.archive, files, strict=True):
            print(f"unpacking {archive.name} {archive.version}", flush=True)
            toolchain_layout.unpack(kind, archive, file, work)
        toolchain_layout.finish(work, toolchain_layout.host_glibc())
        found = toolchain_verify.nvcc_version(work)
        if found != pins.nvcc:
            raise WorkError(f"nvcc {pins.nvcc} was pinned, the archives hold {found}", fix="pin the archives anew")
        proof = toolchain_verify.compiles(work, cxx)
        _record(work, pins, proof)
    if not keep:
        for file in files:
            file.unlink(missing_ok=True)


def compiler(gcc: Range, mirror: str | None = None) -> str:
    """Give a g++ that nvcc takes: the host's where one fits, else the packaged one, made where it is not there."""
    try:
        return host_cxx(gcc)[0]
    except WorkError as error:
        print(f"{error.what}; taking the packaged GCC", flush=True)
        return toolchain_gcc.provision(mirror=mirror)


def _supported(prefix: Path, pins: Pins) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        what = f"the pinned archives are for Linux x86_64, this is {platform.system()} {platform.machine()}"
        raise WorkError(what, fix="install CUDA from the vendor and set CUDA_HOME")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(prefix.parent).free
    if free < UNPACKED_FACTOR * pins.size:
        what = f"{prefix.parent} has {free >> 20} MiB free, {UNPACKED_FACTOR * pins.size >> 20} MiB are needed"
        raise WorkError(what, fix="make room, or set ENVCHECK_CACHE or --prefix to a place that has it")


def _record(prefix: Path, pins: Pins, proof: toolchain_verify.Proof) -> None:
    version = {"cuda": {"name": "CUDA SDK", "version": pins.nvcc}, "cuda_nvcc": {"name": "NVCC", "version": pins.nvcc}}
    write(prefix / "version.json", json.dumps(version, indent=2) + "\n")
    document = {
        "version": 1,
        "cuda": pins.cuda,
        "nvcc": pins.nvcc,
        "source": pins.kind,
        "archives": {item.name: {"version": item.version, "sha256": item.sha256} for item in pins.archive},
        "proof": asdict(proof),
    }
    write(prefix / RECORD, json.dumps(document, indent=2) + "\n")
    write(prefix / toolchain_verify.MANIFEST, json.dumps(toolchain_verify.manifest(prefix), indent=0) + "\n")


def verify(prefix: Path, gcc_range: Range) -> str:
    """Check an existing toolkit by hash, by compiling and, with a GPU, by running; give one line that says so."""
    count = toolchain_verify.check_files(prefix)
    cxx = compiler(gcc_range)
    proof = toolchain_verify.compiles(prefix, cxx)
    gpu = "ran a kernel on the GPU" if proof.ran_on_gpu else "no GPU here, nothing was run"
    return f"{prefix}: nvcc {proof.nvcc}, {count} files as recorded, compiled with {cxx} for {proof.archs}; {gpu}"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    out = argparse.ArgumentParser(prog="python -m scripts.toolchain", description=__doc__)
    out.add_argument("--stack", default=stacks.DEFAULT_STACK, help="whose range of host compilers counts")
    out.add_argument(
        "--from", dest="source", choices=("auto", *SOURCES), default="auto", help="where archives come from"
    )
    out.add_argument("--mirror", metavar="URL", help="a Debian mirror, or a copy of the vendor's redistributables")
    out.add_argument("--prefix", type=Path, help="where to make it (default: the project's cache)")
    out.add_argument("--verify", action="store_true", help="only check the one that exists")
    out.add_argument("--gcc", action="store_true", help="only the packaged GCC, for hosts whose own does not fit")
    out.add_argument("--pin", action="store_true", help="only write the pins file of the source")
    out.add_argument("--keep-archives", action="store_true", help="keep the downloaded archives in the cache")
    out.add_argument("--force", action="store_true", help="make it anew although it exists")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Provision, verify or pin, as the arguments say."""
    options = parser().parse_args(argv)
    stack = stacks.load(options.stack)
    if stack.cuda.default != toolchain_pin.CUDA:
        what = f"the pinned archives are CUDA {toolchain_pin.CUDA}, {stack.name} wants {stack.cuda.default}"
        raise WorkError(what, fix="install that CUDA from the vendor and set CUDA_HOME")
    prefix, gcc = (options.prefix or prefix_of()).absolute(), stack.gcc
    if options.verify:
        print(verify(prefix, gcc))
        return 0
    kind = "gcc" if options.gcc else source_of(options.source, options.mirror)
    if options.pin:
        return _pin(kind, options.mirror)
    if options.gcc:
        print(f"CXX={toolchain_gcc.provision(mirror=options.mirror, keep=options.keep_archives)}")
        return 0
    with locked(prefix.with_name(f".{prefix.name}.lock"), what=f"the toolchain at {prefix}"):
        if (prefix / RECORD).exists() and not options.force:
            print(f"{prefix} is there already (--verify checks it, --force makes it anew)")
        else:
            provision(kind, gcc, mirror=options.mirror, prefix=prefix, keep=options.keep_archives)
            print(f"CUDA_HOME={prefix}")
    return 0


def _pin(kind: SourceName, mirror: str | None) -> int:
    place = toolchain_fetch.mirrors(kind, mirror)[0]
    pins = toolchain_pin.PINNERS[kind](place)
    path = toolchain_pins.place(kind)
    write(path, toolchain_pins.render(pins))
    print(f"{path}: {len(pins.archive)} archives, {pins.size >> 20} MiB")
    return 0


if __name__ == "__main__":
    raise SystemExit(cli.run(main))
