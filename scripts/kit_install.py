"""Install this kit: no network, no uv needed beforehand; every file is checked by its hash, the doctor judges it.

./install --prefix DIR [--python PATH] [--engine E] [--no-verdict]
Standard library only. The environment is made beside its place and renamed: an interrupted run leaves nothing behind.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

KIT = Path(__file__).resolve().parent
MARK = ".envcheck-kit.json"
INSTALL_SECONDS = 3600
CHUNK_BYTES = 1 << 20


class KitError(Exception):
    """What was tried, what was seen, what to do."""


def sha256(path: Path) -> str:
    """Give the SHA-256 of a file as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


def expected() -> "dict[str, str]":
    """Read SHA256SUMS: path -> hash."""
    path = KIT / "SHA256SUMS"
    if not path.is_file():
        raise KitError(f"{path} is gone from the kit\n  → copy the kit again")
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def checked(name: str, sums: "dict[str, str]") -> Path:
    """Give the path of a file of the kit, whose hash was compared."""
    path = KIT / name
    if not path.is_file():
        raise KitError(f"{name} is gone from the kit\n  → copy the kit again")
    found = sha256(path)
    if found != sums.get(name):
        raise KitError(f"{name}: sha256 expected {sums.get(name)}, got {found}; it was refused\n  → copy the kit again")
    return path


def uv(sums: "dict[str, str]", into: Path) -> str:
    """Take uv out of its wheel."""
    names = [name for name in sums if re.match(r"wheels/uv-[\d.]+-.*\.whl$", name)]
    if not names:
        raise KitError("the kit has no uv\n  → make the kit again")
    with zipfile.ZipFile(checked(names[0], sums)) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".data/scripts/uv"))
        program = into / "uv"
        program.write_bytes(wheel.read(member))
    program.chmod(0o755)
    return str(program)


def run(argv: "list[str]", home: Path) -> None:
    """Run uv without the network and without any configuration of this machine."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    clean = {"UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    environ = {**kept, **clean, "HOME": str(home), "UV_CACHE_DIR": str(home / "cache")}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        text = (done.stderr or done.stdout).strip()
        if "No space left" in text:
            raise KitError(f"the disk is full:\n{text}\n  → free space, or name another --prefix")
        found = "".join(f"\n{line}" for line in damage())
        fix = "copy the kit again" if found else "./install again, or check the kit: sha256sum -c SHA256SUMS"
        raise KitError(f"{' '.join(argv[1:4])} ended with exit code {done.returncode}:\n{text}{found}\n  → {fix}")


def damage() -> "list[str]":
    """Name the files of the kit that are not as they were made: what an installer's own words do not tell."""
    found = []
    for name, digest in sorted(expected().items()):
        path = KIT / name
        got = sha256(path) if path.is_file() else ""
        if not got:
            found.append(f"{name}: is gone from the kit")
        elif got != digest:
            found.append(f"{name}: sha256 expected {digest}, got {got}; it was refused")
    return found


def version_of(python: str) -> str:
    """Ask an interpreter for its version, as 3.10."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise KitError(f"{python} does not answer: {error}\n  → name another --python") from error


def answer(python: str) -> str:
    """Ask an interpreter that nobody named: a shim on PATH may start nothing."""
    try:
        return version_of(python)
    except KitError:
        return ""


def chosen(rows: "list[dict[str, Any]]", engine: "str | None", python: "str | None") -> "tuple[dict[str, Any], str]":
    """Choose the environment of the kit, and an interpreter on this machine that it is made for."""
    fit = [row for row in rows if engine in {None, row["engine"]}]
    if not fit:
        raise KitError(
            f"the kit has no engine {engine}; it has: {', '.join(sorted({str(row['engine']) for row in rows}))}"
        )
    for row in fit:
        for name in [python] if python else [sys.executable, f"python{row['python']}"]:
            found = shutil.which(name)
            if found and (version_of(found) if python else answer(found)) == row["python"]:
                return row, found
    wanted = ", ".join(sorted({str(row["python"]) for row in fit}))
    what = f"the kit is for Python {wanted}, " + (f"{python} is another" if python else "of which none is on PATH")
    raise KitError(f"{what}\n  → install it, or name it with --python")


def install(row: "dict[str, Any]", python: str, work: Path, sums: "dict[str, str]") -> None:
    """Make the environment in ``work``: first the lock, then the wheels beside it."""
    with tempfile.TemporaryDirectory(prefix=".kit-", dir=work.parent) as name:
        home = Path(name)
        program = uv(sums, home)
        run([program, "venv", "--quiet", "--relocatable", "--clear", "--python", python, str(work)], home)
        argv = [program, "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-index"]
        argv += ["--find-links", str(KIT / "wheels"), "--python", str(work / "bin" / "python")]
        built = home / "built.txt"
        pairs = [(checked(str(item["file"]), sums), item["sha256"]) for item in row["wheels"]]
        lines = [f"{path.as_uri()} --hash=sha256:{digest}\n" for path, digest in pairs]
        built.write_text("".join(lines), encoding="utf-8")
        only = ["--only-binary", ":all:", *(word for sdist in row["sdists"] for word in ("--no-binary", sdist))]
        constraints = ["--build-constraints", str(checked(str(row["build"]), sums))]
        run([*argv, *only, *constraints, "-r", str(checked(str(row["lock"]), sums))], home)
        if lines:
            run([*argv, "-r", str(built)], home)


def main() -> int:
    """Install and let the doctor judge."""
    if sys.version_info < (3, 8):  # noqa: UP036  # the python3 of an old host
        raise KitError(f"this is Python {sys.version.split()[0]}\n  → start it with a newer one: python3.10 install …")
    it = argparse.ArgumentParser(
        prog="install", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    it.add_argument("--prefix", type=Path, required=True, help="where to make the environment")
    it.add_argument("--python", help="interpreter of the kit's version (default: looked up)")
    it.add_argument("--engine", help="where the kit has several")
    it.add_argument("--no-verdict", action="store_true", help="do not call the doctor")
    given = it.parse_args()
    sums = expected()
    kit = json.loads(checked("kit.json", sums).read_text(encoding="utf-8"))
    row, python = chosen(kit["environments"], given.engine, given.python)
    prefix = given.prefix.absolute()
    if prefix.exists() and not (prefix / MARK).exists() and (not prefix.is_dir() or any(prefix.iterdir())):
        raise KitError(f"{prefix} is there and was not made by a kit\n  → name another --prefix")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=prefix.parent, prefix=f".{prefix.name}."))
    try:
        install(row, python, work, sums)
        work.chmod(0o755)
        (work / MARK).write_text(
            json.dumps({"version": 1, "stack": kit["stack"], "environment": row}), encoding="utf-8"
        )
        if prefix.exists():
            old = Path(tempfile.mkdtemp(dir=prefix.parent, prefix=f".{prefix.name}.old."))
            prefix.rename(old / "it")
            work.rename(prefix)
            shutil.rmtree(old, ignore_errors=True)
        else:
            work.rename(prefix)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{prefix}: installed for {kit['stack']}, engine {row['engine']}")
    for name in row["missing"]:
        print(f"  the kit has no wheel of {name}; its source is in {KIT / 'sources'}")
    sys.stdout.flush()
    if given.no_verdict:
        return 0
    own = str(prefix / "bin" / "python")
    doctor = [own, str(checked("envcheck.pyz", sums)), "--python", own]
    return subprocess.run([*doctor, "--stack", kit["stack"], "--engine", str(row["engine"])], check=False).returncode


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KitError as fault:
        sys.stderr.write(f"error: {fault}\n")
        sys.exit(1)
    except OSError as fault:
        sys.stderr.write(f"error: {fault.filename or KIT}: {fault.strerror or fault}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
