"""A package index of tiny wheels on this machine's loopback: it logs what is asked and can fail on demand."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LONG_AGO = "2025-01-01T00:00:00.000000Z"


def wheel(  # everything of a wheel that a test may want to differ
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    files: Mapping[str, str | bytes] | None = None,
    licence: str = "MIT",
    tag: str = "py3-none-any",
) -> tuple[str, bytes]:
    """Give the file name and the bytes of a small valid wheel, the same ones each time."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {item}" for item in requires),
    ]
    members: dict[str, str | bytes] = dict(
        files or {f"{name.replace('-', '_')}/__init__.py": f"version = '{version}'\n"}
    )
    members[f"{stem}.dist-info/METADATA"] = (
        "\n".join([*metadata, *([f"License-Expression: {licence}"] if licence else [])]) + "\n"
    )
    members[f"{stem}.dist-info/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    data = {path: text.encode() if isinstance(text, str) else text for path, text in members.items()}
    rows = [f"{path},sha256={_urlsafe(content)},{len(content)}" for path, content in data.items()]
    data[f"{stem}.dist-info/RECORD"] = "\n".join([*rows, f"{stem}.dist-info/RECORD,,"]).encode() + b"\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, content in data.items():
            info = zipfile.ZipInfo(path, date_time=(2025, 1, 1, 0, 0, 0))
            info.external_attr = (0o755 if "/scripts/" in path else 0o644) << 16
            archive.writestr(info, content)
    return f"{stem}-{tag}.whl", out.getvalue()


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def sdist(name: str, version: str, setup: str) -> tuple[str, bytes]:
    """Give an old-style source archive, whose setup.py is what the test says."""
    stem = f"{name.replace('-', '_')}-{version}"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in {"setup.py": setup, f"{name}.py": "value = 1\n"}.items():
            info = tarfile.TarInfo(f"{stem}/{path}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return f"{stem}.tar.gz", out.getvalue()


@dataclass
class Index:
    """Projects by name, each a list of (file name, bytes, upload time); ``asked`` are the paths that were requested."""

    projects: dict[str, list[tuple[str, bytes, str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refusals: int = 0
    """How many of the next requests are answered 503."""
    tampered: dict[str, bytes] = field(default_factory=dict)
    """Files that are served with other bytes than the index page says."""
    url: str = ""

    def add(self, file: tuple[str, bytes], *, uploaded: str = LONG_AGO) -> None:
        """Put a file into its project."""
        name = file[0].split("-")[0].replace("_", "-").lower()
        self.projects.setdefault(name, []).append((*file, uploaded))

    def sha256(self, name: str) -> str:
        """Hash of a file."""
        return next(
            hashlib.sha256(data).hexdigest()
            for rows in self.projects.values()
            for file, data, _ in rows
            if file == name
        )

    def page(self, project: str) -> bytes | None:
        """Give the PEP 691 page of a project."""
        if project not in self.projects:
            return None
        rows = [
            {
                "filename": name,
                "url": f"{self.url}/files/{name}",
                "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
                "size": len(data),
                "upload-time": uploaded,
                "requires-python": ">=3.8",
            }
            for name, data, uploaded in self.projects[project]
        ]
        return json.dumps({"meta": {"api-version": "1.1"}, "name": project, "files": rows}).encode()

    def file(self, name: str) -> bytes | None:
        """Give a file, or its PEP 658 metadata (not offered: the index page does not name it)."""
        for rows in self.projects.values():
            for file, data, _ in rows:
                if file == name:
                    return self.tampered.get(name, data)
        return None


@contextmanager
def serve(index: Index) -> Iterator[Index]:
    """Serve an index on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the name http.server calls
            index.asked.append(self.path)
            if index.refusals:
                index.refusals -= 1
                self._answer(503, b"busy", "text/plain")
                return
            kind, _, name = self.path.strip("/").partition("/")
            body = index.page(name) if kind == "simple" else index.file(name)
            form = "application/vnd.pypi.simple.v1+json" if kind == "simple" else "application/octet-stream"
            self._answer(200 if body is not None else 404, body or b"no", form)

        do_HEAD = do_GET  # noqa: N815  # the name http.server calls

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            span = self.headers.get("Range", "")
            start, end = 0, len(body)
            if status == 200 and span.startswith("bytes="):
                first, _, last = span.removeprefix("bytes=").partition("-")
                start = int(first) if first else max(len(body) - int(last), 0)
                end = int(last) + 1 if first and last else len(body)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")
            else:
                self.send_response(status)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body[start:end])))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[start:end])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    index.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
