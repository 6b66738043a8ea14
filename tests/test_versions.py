"""Version specifiers, with packaging as the oracle."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from envcheck import versions

numbers = st.integers(0, 3)
releases = st.lists(numbers, min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
pre = st.one_of(st.just(""), st.builds("{}{}".format, st.sampled_from(["a", "b", "rc"]), numbers))
post = st.one_of(st.just(""), numbers.map(".post{}".format))
dev = st.one_of(st.just(""), numbers.map(".dev{}".format))
local = st.sampled_from(["", "", "+cu124", "+4e7caa1c3", "+1.2"])
publics = st.builds("{}{}{}{}".format, releases, pre, post, dev)
texts = st.builds("{}{}".format, publics, local)
clauses = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["==", "!=", "<=", ">=", "<", ">"]), publics),
    st.builds("{}{}.*".format, st.sampled_from(["==", "!="]), releases),
    st.builds("~={}.{}{}".format, releases, numbers, pre),
)
specifiers = st.lists(clauses, max_size=3).map(",".join)


@settings(max_examples=500, deadline=None)
@given(texts, specifiers)
@example("2.5.1+cu124", ">2.5.1")
@example("2.5.1+cu124", "==2.5.1")
@example("12.4", ">=12.4,<12.5")
@example("2.7.4.post1", "<=2.7.4")
@example("0.4.3.post3", ">0.4.3")
@example("2.6.0.dev1", "<2.6")
@example("1", "~=1.0")
def test_answers_are_packagings(version: str, specifier: str) -> None:
    expected = SpecifierSet(specifier).contains(Version(version), prereleases=True)
    assert versions.satisfies(version, specifier) is expected


@given(publics, publics)
@settings(max_examples=500, deadline=None)
def test_order_is_packagings(one: str, two: str) -> None:
    first, second = versions.key(one), versions.key(two)
    assert first is not None
    assert second is not None
    assert (first < second) is (Version(one) < Version(two))
    assert (first == second) is (Version(one) == Version(two))


@pytest.mark.parametrize(
    ("version", "specifier", "answer"),
    [
        pytest.param("v1.0", ">=1", True, id="prefix-v"),
        pytest.param("1.0-1", "==1.0.post1", True, id="not-normal"),
        pytest.param("1!2.0", ">3", True, id="epoch"),
        pytest.param("1.0+cu124", "==1.0+cu124", True, id="local-wanted"),
        pytest.param("1.0", "===1.0", True, id="identical"),
        pytest.param("garbage", ">=1", False, id="no-version"),
        pytest.param("1.0", "garbage", False, id="no-specifier"),
        pytest.param("1.0", ">=1.*", False, id="wildcard-with-order"),
        pytest.param("1.0", "~=1", False, id="compatible-with-one-part"),
        pytest.param("1.0", "", True, id="no-clause"),
    ],
)
def test_other_forms(version: str, specifier: str, answer: bool) -> None:
    assert versions.satisfies(version, specifier) is answer


@pytest.mark.parametrize(
    ("text", "answer"), [(">=1,<2", True), ("===x", True), ("", True), ("1.0", False), (">>1", False)]
)
def test_what_is_a_specifier(text: str, answer: bool) -> None:
    assert versions.is_specifier(text) is answer
