"""Files that the package index has of a project: name, address, size, SHA-256 (PEP 503 pages, PEP 691 JSON)."""

from __future__ import annotations

import functools
import html.parser
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from packaging.utils import canonicalize_name

from envcheck.errors import WorkError
from scripts import download, process

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
TIMEOUT_SECONDS = 60
GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


@dataclass(frozen=True, kw_only=True)
class IndexFile:
    """One file of the index; ``sha256`` is None where the index does not say it."""

    name: str
    url: str
    sha256: str | None
    size: int | None = None
    uploaded: str | None = None
    """When the index got it, as ``2025-07-09T07:46:08.345Z``."""


def simple_url() -> str:
    """Give the index in use: from uv's or pip's environment, pip's configuration, else pip's own default."""
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        if os.environ.get(name):
            return os.environ[name].rstrip("/")
    return (_configured() or _default()).rstrip("/")


def _configured() -> str | None:
    import sys  # only where no variable names the index

    try:
        text = process.output([sys.executable, "-m", "pip", "config", "list"], timeout=30)
    except WorkError:
        return None
    rows = dict(line.partition("=")[::2] for line in text.splitlines())
    return rows.get("global.index-url", rows.get("user.index-url", "")).strip("'\"") or None


def _default() -> str:
    try:
        from pip._internal.models.index import PyPI  # pip alone knows it; not every tool has pip
    except ImportError as error:
        raise WorkError("no package index is configured", fix="set PIP_INDEX_URL") from error
    return str(PyPI.simple_url)


@functools.cache
def _tls() -> ssl.SSLContext:
    """One context for all requests: reading the certificates takes longer than a request."""
    return ssl.create_default_context()


def files(project: str, index: str | None = None) -> list[IndexFile]:
    """List the files of a project; none where the index does not have it (any more)."""
    url = f"{index or simple_url()}/{canonicalize_name(project)}/"
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})  # noqa: S310  # the configured index
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=_tls()) as response:  # noqa: S310
            body, kind = response.read().decode(), response.headers.get("Content-Type", "")
    except urllib.error.HTTPError as error:
        if error.code in GONE:
            return []
        raise _unanswered(project, error) from error
    except download.FAULTS as error:
        raise _unanswered(project, error) from error
    return list(parse_json(body, url) if "json" in kind else parse_html(body, url))


def _unanswered(project: str, error: Exception) -> WorkError:
    what = f"the package index did not give the files of {project}: {download.said(error)}"
    return WorkError(what, fix="check the network; a kit has the files of the locks")


def parse_json(text: str, url: str) -> Iterator[IndexFile]:
    """Read ``{"files": [{"filename": …, "url": …, "hashes": {"sha256": …}, "size": …}]}`` (PEP 691)."""
    for item in json.loads(text)["files"]:
        yield IndexFile(
            name=item["filename"],
            url=urllib.parse.urljoin(url, item["url"]),
            sha256=item.get("hashes", {}).get("sha256"),
            size=item.get("size"),
            uploaded=item.get("upload-time"),
        )


class _Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what ``<a href=…>`` names."""
        href = dict(attrs).get("href")
        if tag == "a" and href:
            self.links.append(href)


def parse_html(text: str, url: str) -> Iterator[IndexFile]:
    """Read ``<a href="…/x-1.0.tar.gz#sha256=…">`` (PEP 503)."""
    parser = _Links()
    parser.feed(text)
    for link in parser.links:
        address, _, fragment = urllib.parse.urljoin(url, link).partition("#")
        algorithm, _, digest = fragment.partition("=")
        name = urllib.parse.unquote(address.rsplit("/", 1)[-1])
        yield IndexFile(name=name, url=address, sha256=digest if algorithm == "sha256" else None)


def is_sdist(name: str, project: str, version: str) -> bool:
    """Tell whether a file name is that of the source archive of one version: ``torch_memory_saver-0.0.8.tar.gz``."""
    stem = name.removesuffix(".tar.gz")
    return stem != name and canonicalize_name(stem) == canonicalize_name(f"{project}-{version}")


def sdist_of(project: str, version: str, index: str | None = None) -> IndexFile:
    """Give the source archive of one version, or say what the index has."""
    found = files(project, index)
    for item in found:
        if is_sdist(item.name, project, version):
            return item
    have = ", ".join(sorted(item.name for item in found if item.name.endswith(".tar.gz"))) or "no source archive"
    raise WorkError(f"the index has no sdist of {project} {version}; it has {have}", fix="take it from a kit")
