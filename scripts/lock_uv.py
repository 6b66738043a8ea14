"""uv, started with nothing of this machine's own configuration but its default index and certificates."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process

KEPT = (
    "ALL_PROXY", "CURL_CA_BUNDLE", "HOME", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "LC_ALL", "NETRC", "NO_PROXY", "PATH",
    "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "UV_CACHE_DIR", "UV_CONCURRENT_DOWNLOADS",
    "UV_HTTP_RETRIES", "UV_HTTP_TIMEOUT", "UV_SYSTEM_CERTS", "XDG_CACHE_HOME", "all_proxy", "http_proxy", "https_proxy",
    "no_proxy",
)  # fmt: skip
TIMEOUT_SECONDS = 540.0
RETRIES = 2
HTTP_RETRIES = "2"
"""Of each request, by uv: with its 30 s of patience an index that never answers is given up after 3 minutes."""
PAUSE_SECONDS = 2.0
HINT = re.compile(r"\n+hint: While the active Python version.*")
"""Of uv, to the author of a package: limit the Pythons."""
LATE = re.compile(r"hint: `([\w.-]+)` was filtered by `exclude-newer` .{0,80}?uploaded before (\S+)\.", re.DOTALL)
"""Of uv, where the index has the version, but has had it only since the cut-off date."""
TRANSIENT = re.compile(
    r"error sending request|timed? ?out|connection (?:reset|refused|closed)|dns error"
    r"|(?:status|HTTP).{0,40}\b50[234]\b",
    re.IGNORECASE,
)


def program() -> str:
    """Path of uv: on PATH, or beside this interpreter."""
    beside = Path(sys.executable).with_name("uv")
    found = shutil.which("uv") or (str(beside) if beside.exists() else None)
    if found is None:
        raise WorkError(
            "uv was not found", fix=f"{sys.executable} -m pip install --require-hashes -r lockfiles/tools.txt"
        )
    return found


def default_index(environ: Mapping[str, str], files: Sequence[Path] | None = None) -> str | None:
    """Index that this machine itself replaces the public one with: from the environment, else pip's configuration."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if environ.get(name):
            return environ[name]
    home = Path(environ.get("HOME", "/nonexistent"))
    for path in files or (home / ".config/pip/pip.conf", home / ".pip/pip.conf", Path("/etc/pip.conf")):
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue
        if value := parser.get("global", "index-url", fallback=""):
            return value
    return None


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment for uv: no configuration files, no extra index, no find-links, never a Python of its own."""
    given = os.environ if environ is None else environ
    clean = {name: given[name] for name in KEPT if name in given}
    clean.setdefault("UV_HTTP_RETRIES", HTTP_RETRIES)
    clean |= {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    if index := default_index(given):
        clean["UV_DEFAULT_INDEX"] = index
    return clean


def settings(work: Path) -> dict[str, str]:
    """Variables that make uv read ``uv.toml`` in ``work`` and no other configuration."""
    return {"UV_CONFIG_FILE": str(work / "uv.toml"), "UV_NO_CONFIG": ""}


def run(
    arguments: Sequence[str], *, cwd: Path | None = None, extra: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> str:  # fmt: skip
    """Give uv's standard output; a network fault is tried again, anything else is explained."""
    environ = {name: value for name, value in (environment() | dict(extra or {})).items() if value}
    for attempt in range(1, RETRIES + 1):
        try:
            return process.output([program(), *arguments], timeout=timeout, environ=environ, cwd=cwd)
        except WorkError as error:
            if not _transient(error.what) or attempt == RETRIES:
                raise explained(error, attempt) from error
            print("the package index did not answer, trying again", file=sys.stderr)
            time.sleep(PAUSE_SECONDS * attempt)
    raise AssertionError  # pragma: no cover  # the loop returns or raises


def _transient(text: str) -> bool:
    return TRANSIENT.search(text) is not None


def explained(error: WorkError, attempts: int) -> WorkError:
    """Give the same error with what a person can do about it.

    ``Because there is no version of pyairports==0.0.1 and you require pyairports==0.0.1 …`` is a package that is gone.
    """
    text = HINT.sub("", error.what)
    if _transient(text):
        return WorkError(
            f"the package index did not answer in {attempts} attempts:\n{text}",
            fix="try again later, or work from a kit: nox -s kit -- --help",
        )
    if found := _unavailable(text):
        return found
    if "No solution found" in text:
        return WorkError(f"these versions do not go together:\n{text}", fix="name other versions; nothing was written")
    if "No space left" in text:
        return WorkError(
            f"the disk is full:\n{text}",
            fix="free space there (uv cache prune), or name another --prefix or UV_CACHE_DIR; nothing was changed",
        )
    if re.search(r"hash mismatch", text, re.IGNORECASE):
        return WorkError(
            f"a file is not the one that was locked, and was refused:\n{text}",
            fix="remove that file from the wheelhouse or mirror; the lock is right",
        )
    return error


def _unavailable(text: str) -> WorkError | None:
    """Say of a package that cannot be had whether it is gone, or came after the cut-off date."""
    late = LATE.search(text)
    if late:
        return WorkError(
            f"{late[1]} appeared after the cut-off {late[2][:10]}:\n{text}",
            fix=f"name an older version, or exempt {late[1]} in the stack file: [[lock.exempt]]",
        )
    gone = re.search(
        r"there (?:is|are) no versions? of ([\w.-]+)(?:\[.*?\])?(==[\w.]+)?|Because ([\w.-]+) was not found", text
    )
    if gone:
        name = (gone[1] or gone[3]) + (gone[2] or "")
        return WorkError(
            f"{name} is not on the package index (any more):\n{text}",
            fix="take the file from a kit: nox -s kit -- --help; or name another version in the stack file",
        )
    return None
