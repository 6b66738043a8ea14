"""Facts documents: read and validated, or written."""

from __future__ import annotations

import json
import sys

from envcheck.codec import Where, decode, encode
from envcheck.errors import DataError, EnvcheckError
from envcheck.facts import Facts

VERSION = 1
AGAIN = "record the host again: python -m envcheck facts --output FILE"


def load(path: str) -> Facts:
    """Read a document from a file, or from standard input where the path is ``-``; raise EnvcheckError."""
    try:
        text = sys.stdin.read() if path == "-" else _read(path)
    except OSError as error:
        raise EnvcheckError(f"{path} could not be read: {error.strerror}", fix="name a facts document") from error
    return loads(text, "standard input" if path == "-" else path)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def loads(text: str, source: str) -> Facts:
    """Read a document from its text; raise DataError naming the place and the key."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = "an empty file" if not text.strip() else f"{error}"
        raise DataError(source, "", expected="a whole JSON document", found=found, fix=AGAIN) from error
    return of(value, source)


def of(value: object, source: str) -> Facts:
    """Read a document from JSON data; a judgement that carries facts is taken by them."""
    if isinstance(value, dict) and "outcomes" in value and isinstance(value.get("facts"), dict):
        return of(value["facts"], f"{source} (facts)")
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) is not int:
        found = "no such key" if isinstance(value, dict) and "version" not in value else repr(version)[:80]
        raise DataError(source, "version", expected=f"{VERSION}", found=found, fix="name a facts document")
    if version != VERSION:
        fix = f"this program reads version {VERSION}; {AGAIN}"
        raise DataError(source, "version", expected=str(VERSION), found=str(version), fix=fix)
    facts: Facts = decode(Facts, value, Where(source=source))
    return facts


def dumps(facts: Facts) -> str:
    """Give the text of a document."""
    return json.dumps(encode(facts), indent=1, ensure_ascii=False) + "\n"
