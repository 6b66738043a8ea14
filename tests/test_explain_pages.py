"""The page of a rule, and rules found by raw error text."""

from __future__ import annotations

import pytest

from envcheck.errors import EnvcheckError
from envcheck.explain import load, page, search
from envcheck.rules import RULES, by_id


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("/usr/bin/ld: cannot find -lcuda", "libcuda-symlink-missing"),
        ("nvcc fatal   : Unsupported gpu architecture 'compute_90a'", "nvcc-too-old-for-gpu"),
        ("cudnn headers", "cudnn-headers-missing"),
        ("fabric manager", "fabric-manager-not-ready"),
    ],
)
def test_search(text: str, rule: str) -> None:
    assert search(text)[0] == rule


def test_search_gives_also_rules_of_the_same_wording() -> None:
    assert search("Error 804: forward compatibility was attempted on non supported HW")[:2] == [
        "cuda-compat-shadows-driver",
        "driver-too-old",
    ]


@pytest.mark.parametrize("text", ["", "   ", "xyzzy plugh"])
def test_search_finds_nothing(text: str) -> None:
    assert search(text) == []


@pytest.mark.parametrize("name", sorted({rule.id for rule in RULES} | set(load().document.rules)))
def test_every_page_is_whole(name: str) -> None:
    text = page(name, by_id())
    assert text.startswith(f"# {name}\n")
    assert ("**What must hold.**" in text) == (name in by_id())
    assert "**Fix.**" in text or load().document.rules[name].harmless
    assert "{" not in text.replace("{%", "").split("```")[0]


def test_an_unknown_rule_names_close_ones() -> None:
    with pytest.raises(EnvcheckError, match="gcc-too-old"):
        page("gcc", by_id())
    with pytest.raises(EnvcheckError, match="no rule xyzzy"):
        page("xyzzy", by_id())
