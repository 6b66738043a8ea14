"""Environment markers (PEP 508): the forms that releases use are answered here, all others by packaging.

Importing packaging's markers costs as much as two bare interpreters, of the 12 that a run of the doctor may take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from envcheck.versions import key, satisfies

_TOKEN = re.compile(
    r"""\s*(?:(\(|\)|(?:and|or)\b)|([a-z_]+)\s*(<=|>=|==|!=|<|>|~=|in\b|not\s+in\b)\s*(?:"([^"]*)"|'([^']*)'))\s*"""
)
_VERSIONS = frozenset({"python_version", "python_full_version", "implementation_version"})
_TEXTS: Mapping[str, Callable[[str, str], bool]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "in": lambda left, right: left in right,
    "not in": lambda left, right: left not in right,
}


class _Unusual(Exception):  # noqa: N818  # no error: packaging answers then
    """The marker is of another form."""


def holds(marker: str, values: Mapping[str, str]) -> bool:
    """Evaluate ``python_version < "3.11" and sys_platform == 'linux'``; False where it is no marker."""
    try:
        tokens = _tokens(marker, values)
        result = _any(tokens)
        if tokens:
            return _by_packaging(marker, values)
    except _Unusual:
        return _by_packaging(marker, values)
    return result


def _tokens(marker: str, values: Mapping[str, str]) -> list[str | bool]:
    """Split a marker, each comparison replaced by whether it holds; the last token comes first."""
    return list(_split(marker, values))[::-1]


def _split(marker: str, values: Mapping[str, str]) -> Iterator[str | bool]:
    at = 0
    while at < len(marker):
        found = _TOKEN.match(marker, at)
        if found is None:
            raise _Unusual
        at = found.end()
        word, name, operator, double, single = found.groups()
        yield word or _compare(name, " ".join(operator.split()), single if double is None else double, values)


def _compare(name: str, operator: str, literal: str, values: Mapping[str, str]) -> bool:
    if name not in values:
        raise _Unusual
    if operator in {"in", "not in"}:
        return _TEXTS[operator](values[name], literal)
    if name in _VERSIONS:
        if key(literal) is None or key(values[name]) is None:
            raise _Unusual
        return satisfies(values[name], operator + literal)
    if operator not in _TEXTS or name == "extra" or literal[:1].isdigit():
        raise _Unusual
    return _TEXTS[operator](values[name], literal)


def _any(tokens: list[str | bool]) -> bool:
    result = _all(tokens)
    while tokens and tokens[-1] == "or":
        tokens.pop()
        result = _all(tokens) or result
    return result


def _all(tokens: list[str | bool]) -> bool:
    result = _one(tokens)
    while tokens and tokens[-1] == "and":
        tokens.pop()
        result = _one(tokens) and result
    return result


def _one(tokens: list[str | bool]) -> bool:
    first = tokens.pop() if tokens else ""
    if isinstance(first, bool):
        return first
    if first != "(":
        raise _Unusual
    result = _any(tokens)
    if not tokens or tokens.pop() != ")":
        raise _Unusual
    return result


def _by_packaging(marker: str, values: Mapping[str, str]) -> bool:
    from packaging.markers import InvalidMarker, Marker

    try:
        return Marker(marker).evaluate(dict(values))
    except InvalidMarker:
        return False
