"""CUDA 12.4 base images from Debian's packages alone, for sites that reach no image registry.

A bookworm root made by mmdebstrap, with the toolkit that `nox -s toolchain` provisions laid at /usr/local/cuda-12.4.
`devel` stands in for nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04, `runtime` holds the shared libraries only; cuDNN and
NCCL come with the locked wheels. Made twice with the same packages, the archives are the same bytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError, WorkError
from scripts import cli, files, process, toolchain
from scripts.cache import cache

SUITE = "bookworm"
CUDA_PLACE = "usr/local/cuda-{version}"
BOOTSTRAP_SECONDS = 1200
IMPORT_SECONDS = 900
EPOCH = 1735689600
"""2025-01-01, the SOURCE_DATE_EPOCH of images unless the environment has one."""
DROPPED = ("var/lib/apt/lists/", "var/cache/", "var/log/", "tmp/", "dev/", "proc/", "sys/", "run/")


@dataclass(frozen=True, kw_only=True)
class Base:
    """One base image to make."""

    role: str
    stack: stacks.Stack
    toolkit: Path
    """CUDA_HOME whose files go into the image."""

    @property
    def reference(self) -> str:
        """Name and tag."""
        return f"envcheck/cuda:{self.stack.cuda.default}-{self.role}-{SUITE}"

    @property
    def packages(self) -> tuple[str, ...]:
        """Debian packages, as ``name=version`` where the stack pins one."""
        return self.stack.apt.get(f"debian-{SUITE}-{self.role}") or self.stack.apt[f"debian-{SUITE}"]


def epoch() -> int:
    """Seconds that every file of the image is dated with."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", EPOCH))


def bootstrap(base: Base, out: Path, mirror: str | None) -> None:
    """Make the root's tar archive with mmdebstrap."""
    if shutil.which("mmdebstrap") is None:
        raise WorkError("mmdebstrap was not found", fix="apt-get install mmdebstrap")
    argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(base.packages)}", SUITE, str(out)]
    argv += [mirror] if mirror else []
    done = process.stream(argv, timeout=BOOTSTRAP_SECONDS, environ={**os.environ, "SOURCE_DATE_EPOCH": str(epoch())})
    if done.returncode:
        end = "\n".join(done.tail[-8:])
        raise WorkError(f"mmdebstrap ended with exit code {done.returncode}:\n{end}", fix="is the mirror reachable?")


def wanted(path: str, role: str) -> bool:
    """Tell whether a file of the toolkit belongs into the image; ``path`` is relative to CUDA_HOME.

    ``runtime`` takes shared libraries and their links, no stubs.
    """
    if role == "devel":
        return True
    name = path.rpartition("/")[2]
    return "/lib" in f"/{path}" and ".so" in name and "/stubs/" not in path


def compose(base: Base, root: Path, out: Path) -> None:
    """Write root and toolkit as one tar archive: sorted, owned by root, dated ``epoch()``."""
    place = CUDA_PLACE.format(version=base.stack.cuda.default)
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as new:
        with tarfile.open(root) as old:
            for member in old:
                if not _is_dropped(member):
                    new.addfile(member, old.extractfile(member) if member.isreg() else None)
        for path in sorted(base.toolkit.rglob("*")):
            inside = path.relative_to(base.toolkit).as_posix()
            if (path.is_symlink() or path.is_file()) and wanted(inside, base.role):
                _add(new, path, f"{place}/{inside}")
        for name, target in (
            ("usr/local/cuda", place.rpartition("/")[2]),
            (f"{place}/lib64", "targets/x86_64-linux/lib"),
        ):
            if name not in _names(new):
                _link(new, name, target)


def _names(archive: tarfile.TarFile) -> set[str]:
    return set(archive.getnames())


def _is_dropped(member: tarfile.TarInfo) -> bool:
    name = member.name.removeprefix("./")
    return not member.isdir() and name.startswith(DROPPED)


def _owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = epoch()
    return member


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = _owned(archive.gettarinfo(path, name))
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    if member.islnk():
        member.type = tarfile.REGTYPE
        member.size = path.stat().st_size
    if member.isreg():
        with path.open("rb") as file:
            archive.addfile(member, file)
    else:
        archive.addfile(member)


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = _owned(tarfile.TarInfo(name))
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.addfile(member)


def changes(base: Base) -> Iterator[str]:
    """Image settings, as `docker import --change` takes them."""
    yield "ENV PATH=/usr/local/cuda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    yield "ENV CUDA_HOME=/usr/local/cuda"
    yield "ENV NVIDIA_VISIBLE_DEVICES=all"
    yield "ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    yield f"ENV CUDA_VERSION={base.stack.cuda.default}"
    yield f"LABEL org.opencontainers.image.title=cuda-{base.stack.cuda.default}-{base.role}-{SUITE}"


def load(base: Base, archive: Path) -> str:
    """Import the archive into the Docker engine; give the image's digest."""
    argv = ["docker", "import"]
    for change in changes(base):
        argv += ["--change", change]
    return process.output([*argv, str(archive), base.reference], timeout=IMPORT_SECONDS).strip()


def make(base: Base, directory: Path, mirror: str | None) -> Path:
    """Give the composed archive; what the directory holds of the same name is replaced when the new one is whole."""
    out = directory / f"{base.reference.replace('/', '-').replace(':', '-')}.tar"
    directory.mkdir(parents=True, exist_ok=True)
    with files.replacing(directory / "work") as work:
        bootstrap(base, work / "root.tar", mirror)
        compose(base, work / "root.tar", work / "image.tar")
        (work / "image.tar").replace(out)
    shutil.rmtree(directory / "work", ignore_errors=True)
    return out


def parser() -> argparse.ArgumentParser:
    """Give the command line."""
    it = argparse.ArgumentParser(prog="nox -s base-image --", description=__doc__.split("\n\n")[0])
    it.add_argument("--stack", default=stacks.DEFAULT_STACK)
    it.add_argument("--role", choices=("devel", "runtime", "both"), default="both")
    it.add_argument("--mirror", help="Debian mirror or sources.list for mmdebstrap (default: its own)")
    it.add_argument("--directory", type=Path, default=cache("images"), help="where the archives go (%(default)s)")
    it.add_argument("--no-load", action="store_true", help="only write the archives, no Docker engine needed")
    return it


def main(argv: Sequence[str] | None = None) -> int:
    """Make the bases; print name, digest and archive of each."""
    arguments = parser().parse_args(argv)
    stack = stacks.load(arguments.stack)
    toolkit = toolchain.provisioned(stack.cuda.default)
    if toolkit is None:
        raise EnvcheckError(f"CUDA {stack.cuda.default} is not provisioned", fix="nox -s toolchain")
    for role in ("devel", "runtime") if arguments.role == "both" else (arguments.role,):
        base = Base(role=role, stack=stack, toolkit=toolkit)
        archive = make(base, arguments.directory, arguments.mirror)
        digest = "not loaded" if arguments.no_load else load(base, archive)
        print(f"{base.reference}  {digest}  sha256:{files.sha256(archive)}  {archive}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
