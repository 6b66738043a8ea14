"""Environment markers (PEP 508): the forms that releases use are answered here, all others by packaging.

Importing packaging's markers costs as much as two bare interpreters, of the 12 that a run of the doctor may take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from envcheck.versions import key, satisfies

_TOKEN = re.compile(r"""\s*(?:(\(|\)|(?:and|or)\b)|(?:"([^"]*)"|'([^']*)'|([a-z_]+))\s*""" + (
    r"""(<=|>=|==|!=|<|>|~=|in\b|not\s+in\b)\s*(?:"([^"]*)"|'([^']*)'|([a-z_]+)))\s*"""
))  # fmt: skip
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
        yield found[1] or _compare(*found.groups()[1:], values=values)


def _compare(  # noqa: PLR0913, PLR0917  # the groups of one match
    double: str | None,
    single: str | None,
    name: str | None,
    operator: str,
    other_double: str | None,
    other_single: str | None,
    other_name: str | None,
    *,
    values: Mapping[str, str],
) -> bool:
    literal = other_double if other_double is not None else other_single
    if name is None or literal is None or other_name is not None or name not in values:
        raise _Unusual  # a literal first, two names, an unknown name
    if name in _VERSIONS and operator[-1] != "n":
        if key(literal) is None or key(values[name]) is None:
            raise _Unusual
        return satisfies(values[name], operator + literal)
    compare = _TEXTS.get(" ".join(operator.split()))
    if compare is None or name == "extra" or (operator[-1] != "n" and literal[:1].isdigit()):
        raise _Unusual
    return compare(values[name], literal)


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
    token = tokens.pop() if tokens else ""
    if isinstance(token, bool):
        return token
    if token != "(":
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
