"""Version specifiers (PEP 440). The forms that limits and releases use are answered here, all others by packaging.

Importing packaging's specifiers costs as much as 2.5 bare interpreters, of the 12 that a run of the doctor may take.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

_NORMAL = re.compile(
    r"(\d+(?:\.\d+)*)(?:(a|b|rc)(\d+))?()(?:\.post(\d+))?(?:\.?dev(\d*))?(\+[a-z0-9]+(?:\.[a-z0-9]+)*)?"
)
_ANY = (
    r"v?(\d+(?:\.\d+)*)(?:[-_.]?(alpha|a|beta|b|preview|pre|c|rc)[-_.]?(\d*))?"
    r"(?:-(\d+)|[-_.]?(?:post|rev|r)[-_.]?(\d*))?(?:[-_.]?dev[-_.]?(\d*))?(\+[a-z0-9]+(?:[-_.][a-z0-9]+)*)?"
)
"""Every form of PEP 440 but epochs; compiled (1.5 ms) only where one is met."""
_LETTERS = {"alpha": "a", "beta": "b", "preview": "rc", "pre": "rc", "c": "rc"}
_CLAUSE = re.compile(r"\s*(~=|==|!=|<=|>=|<|>)\s*([^\s,]+?)(\.\*)?\s*")
_BEFORE, _AFTER = (-1,), (1,)


class Key(NamedTuple):
    """What orders public versions: a dev release before a pre-release before the release before a post release."""

    release: tuple[int, ...]
    pre: tuple[int | str, ...]
    post: int
    dev: tuple[int, ...]


@cache
def key(version: str) -> Key | None:
    """Give the ordering key of ``2.7.4.post1+cu124`` or ``3.0dev``; None with an epoch, or for no version."""
    found = _NORMAL.fullmatch(version) or re.fullmatch(_ANY, version.lower())
    if found is None:
        return None
    numbers, letter, pre, implicit_post, named_post, dev, _ = found.groups()
    post = implicit_post or named_post
    release = tuple(map(int, numbers.split(".")))
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    is_plain_dev = dev is not None and letter is None and post is None
    return Key(
        release=release,
        pre=(0, _LETTERS.get(letter, letter), int(pre or 0)) if letter else (_BEFORE if is_plain_dev else _AFTER),
        post=-1 if post is None else int(post or 0),
        dev=_AFTER if dev is None else (0, int(dev or 0)),
    )


def satisfies(version: str, specifier: str) -> bool:
    """Tell whether a version meets a specifier; pre-releases count; False where either is not a version."""
    clauses, mine = _clauses(specifier), key(version)
    if clauses is None or mine is None:
        return _by_packaging(version, specifier)
    return all(_meets(mine, operator, wanted, parts) for operator, wanted, parts in clauses)


def is_specifier(text: str) -> bool:
    """Tell whether a text is a version specifier."""
    if _clauses(text) is not None:
        return True
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True


@cache
def _clauses(specifier: str) -> tuple[tuple[str, Key, tuple[int, ...]], ...] | None:
    """Read ``>=12.4,<12.5``: operator, key, and for ``~=`` and ``==1.2.*`` the release that must begin alike."""
    if not specifier.strip():
        return ()
    clauses = []
    for text in specifier.split(","):
        found = _CLAUSE.fullmatch(text)
        if found is None or (wanted := key(found[2])) is None or "+" in found[2]:
            return None
        numbers = tuple(map(int, _release(found[2])))
        if found[3]:
            if found[1] not in {"==", "!="} or ".".join(_release(found[2])) != found[2]:
                return None
            clauses.append((f"{found[1]}*", wanted, numbers))
        elif found[1] == "~=":
            if len(numbers) == 1:
                return None
            clauses += [(">=", wanted, ()), ("==*", wanted, numbers[:-1])]
        else:
            clauses.append((found[1], wanted, ()))
    return tuple(clauses)


def _release(version: str) -> list[str]:
    found = re.match(r"[vV]?(\d+(?:\.\d+)*)", version)
    return found[1].split(".") if found else []


def _meets(mine: Key, operator: str, wanted: Key, prefix: tuple[int, ...]) -> bool:
    if operator.endswith("*"):
        padded = mine.release + (0,) * (len(prefix) - len(mine.release))
        return (padded[: len(prefix)] == prefix) is (operator == "==*")
    if operator in {"==", "!="}:
        return (mine == wanted) is (operator == "==")
    if operator in {">=", "<="}:
        return mine >= wanted if operator == ">=" else mine <= wanted
    # PEP 440: "<1.2" does not admit 1.2's own pre-releases, ">1.2" not its post releases
    if operator == "<":
        return mine < (wanted if _is_pre(wanted) else _first_pre(wanted))
    return mine > wanted and not (mine.post >= 0 and _is_final(wanted) and mine[:2] == wanted[:2])


def _is_pre(version: Key) -> bool:
    return version.pre[0] == 0 or version.dev != _AFTER


def _first_pre(version: Key) -> Key:
    """Give the key of ``1.2.dev0`` for 1.2, of ``1.2.post1.dev0`` for 1.2.post1."""
    return version._replace(dev=(0, 0), pre=_BEFORE if version.post < 0 else version.pre)


def _is_final(version: Key) -> bool:
    """Tell whether a post release of this very version can exist and is not wanted by naming one."""
    return version.post < 0 and version.dev == _AFTER


def _by_packaging(version: str, specifier: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return SpecifierSet(specifier).contains(Version(version), prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return False
