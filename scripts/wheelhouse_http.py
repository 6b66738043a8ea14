"""A wheelhouse behind a plain web server, which lists nothing: its own index says which wheels there are; read only."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from envcheck.errors import WorkError
from scripts import download

TIMEOUT_SECONDS = 60


class HttpWheelhouse:
    """Gives the files below an http(s) address, by the names that an fsspec file system has for this."""

    def __init__(self, base: str) -> None:
        """Take the address of the directory that holds ``simple`` and ``wheels``."""
        self.base = base.rstrip("/")

    def exists(self, path: str) -> bool:
        """Tell whether a file is there; raise WorkError where the server gives no answer to that."""
        try:
            with self._open(path):
                return True
        except FileNotFoundError:
            return False

    def find(self, path: str) -> list[str]:
        """List the receipts below ``wheels``, by the index; none where the server has no index."""
        try:
            projects = self._json("simple/index.json")["projects"]
        except FileNotFoundError:
            return []
        found = {key for item in projects for key in self._keys(str(item["name"]))}
        return [f"{path}/{key}/receipt.json" for key in sorted(found)]

    def _keys(self, project: str) -> Iterator[str]:
        for item in self._json(f"simple/{project}/index.json")["files"]:
            yield str(item["url"]).split("/")[-2]

    def _json(self, path: str) -> dict[str, Any]:
        out: dict[str, Any] = json.loads(self.cat_file(f"{self.base}/{path}"))
        return out

    def cat_file(self, path: str) -> bytes:
        """Give the bytes of a file; raise FileNotFoundError where it is not there."""
        with self._open(path) as answer, self._explained():
            return answer.read()

    def get_file(self, rpath: str, lpath: str) -> None:
        """Take a file."""
        with self._open(rpath) as answer, Path(lpath).open("wb") as file, self._explained():
            shutil.copyfileobj(answer, file)

    def put_file(self, lpath: str, rpath: str) -> NoReturn:
        """Refuse: a web server takes no files."""
        what = f"{rpath}: an http address is only read, {lpath} was not sent"
        raise WorkError(what, fix="push to the directory or the store that the server serves")

    def makedirs(self, path: str, exist_ok: bool) -> None:  # noqa: FBT001  # fsspec's own signature
        """Do nothing: a web server has no directories to make."""

    def _open(self, path: str) -> IO[bytes]:
        url = urllib.parse.quote(path, safe=":/@%?=&[]")
        try:
            answer: IO[bytes] = urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)  # noqa: S310  # http(s) only
        except urllib.error.HTTPError as error:
            if error.code == 404:  # noqa: PLR2004  # not found
                raise FileNotFoundError(path) from error
            raise WorkError(f"{self.shown} answers {error.code} {error.reason}") from error
        except download.FAULTS as error:
            why = getattr(error, "reason", download.said(error))
            raise WorkError(f"{self.shown} cannot be reached: {why}", fix="check the address and the proxy") from error
        return answer

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Say of an answer that breaks off which server gave it."""
        try:
            yield
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            raise WorkError(f"{self.shown} broke off: {download.said(error)}", fix="try again") from error

    @property
    def shown(self) -> str:
        """The address without a password in it."""
        parts = urllib.parse.urlsplit(self.base)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
