"""Make dist/envcheck.pyz: envcheck and what it imports in one file that any python3 >= 3.10 runs after a plain copy.

Same sources and lock, same bytes: entries are sorted, dated 1980 and stored uncompressed (a compressor's output differs
between zlib versions, and imports from a stored archive are faster).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packaging.version import Version

from envcheck.errors import WorkError
from envcheck.version import version
from scripts import cli, files, lock_text, lock_uv
from scripts.cache import ROOT, cache, locked

LOCK = ROOT / "lockfiles" / "tools.txt"
BUNDLED = {
    "itanium_demangler": "itanium-demangler",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "packaging": "packaging",
    "pynvml": "nvidia-ml-py",
    "tomli": "tomli",
}
"""Top-level module -> distribution of everything beside the standard library that envcheck imports."""
KEPT_SUFFIXES = (".py", ".toml", ".json", ".j2", ".css", ".sh", ".typed")
LICENCES = re.compile(r"\.dist-info/(METADATA$|licenses/|LICEN[CS]E|COPYING|NOTICE)")
DATE = (1980, 1, 1, 0, 0, 0)
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = """\
import sys

from envcheck.__main__ import start

sys.exit(start())
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Build the archive and print its path, size and hash."""
    parser = argparse.ArgumentParser(prog="pyz", description=__doc__, allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "envcheck.pyz", metavar="FILE")
    args = parser.parse_args(argv)
    content = archive({**own(ROOT / "envcheck"), **bundled(dependencies())})
    files.write(args.output, content)
    args.output.chmod(0o755)
    print(f"{args.output}  {files.size(len(content))}  sha256:{hashlib.sha256(content).hexdigest()}")
    return 0


def archive(entries: Mapping[str, bytes]) -> bytes:
    """Give the bytes of the runnable archive."""
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as file:
        for name, content in sorted({**entries, "__main__.py": MAIN.encode()}.items()):
            info = zipfile.ZipInfo(name, DATE)
            info.create_system = 3  # Unix, whatever the builder runs on
            info.external_attr = 0o100644 << 16
            file.writestr(info, content)
    return buffer.getvalue()


def own(package: Path) -> dict[str, bytes]:
    """Give the files of envcheck itself, and metadata so that it knows its version."""
    found = {f"envcheck/{name}": content for name, content in _files(package) if name.endswith(KEPT_SUFFIXES)}
    number = version()
    found[f"envcheck-{number}.dist-info/METADATA"] = (
        f"Metadata-Version: 2.1\nName: envcheck\nVersion: {number}\n".encode()
    )
    return found


def bundled(site: Path) -> dict[str, bytes]:
    """Give the Python files, data and licences of the dependencies, not their compiled speed-ups."""
    return {
        name: content
        for name, content in _files(site)
        if (name.endswith(KEPT_SUFFIXES) and name.split("/")[0].removesuffix(".py") in BUNDLED) or LICENCES.search(name)
    }


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(root).as_posix(), path.read_bytes()


def requirements(lock: str, source: str) -> str:
    """Pick the bundled distributions from the lock, with hashes; no markers: the archive serves every Python."""
    wanted = set(BUNDLED.values())
    pins = [pin for pin in lock_text.parse(lock, source) if pin.name in wanted]
    missing = wanted - {pin.name for pin in pins}
    if missing:
        raise WorkError(f"{source} does not hold {', '.join(sorted(missing))}", fix="lock it: nox -s lock")
    newest = {pin.name: pin for pin in sorted(pins, key=lambda pin: Version(pin.version))}
    return "".join(_line(newest[name]) for name in sorted(newest))


def _line(pin: lock_text.Pin) -> str:
    return " ".join([f"{pin.name}=={pin.version}", *(f"--hash=sha256:{value}" for value in pin.hashes)]) + "\n"


def dependencies() -> Path:
    """Give a directory with the bundled distributions, installed once per lock, checked by hash."""
    text = requirements(LOCK.read_text(encoding="utf-8"), LOCK.name)
    key = hashlib.sha256(f"{sys.version_info[:2]}\n{text}".encode()).hexdigest()[:16]
    place = cache("pyz", key)
    with locked(cache("pyz", f"{key}.lock"), what="the single-file build"):
        if not place.is_dir():
            _install(text, place)
    return place


def _install(text: str, place: Path) -> None:
    with files.replacing(place) as work:
        listed = place.with_suffix(".txt")
        files.write(listed, text)
        target = ["--target", str(work), "--python", sys.executable]
        checked = ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
        lock_uv.run(["pip", "install", "--quiet", *checked, *target, "-r", str(listed)])


if __name__ == "__main__":
    sys.exit(cli.run(main))
