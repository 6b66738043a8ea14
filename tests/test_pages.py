"""The pages are written from rules and signatures, and what is committed is what would be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from envcheck.explain import load
from envcheck.rules import by_id
from scripts import pages


def test_every_rule_has_a_page_and_the_index_leads_to_it() -> None:
    written = pages.pages(by_id(), load())
    names = {*by_id(), *load().document.rules}
    assert set(written) == {f"{name}.md" for name in names} | {"README.md"}
    assert all(f"({name}.md)" in written["README.md"] for name in names)


def test_the_index_holds_raw_error_texts() -> None:
    index = pages.pages(by_id(), load())["README.md"]
    assert "`/usr/bin/ld: cannot find -lcuda` → [libcuda-symlink-missing](libcuda-symlink-missing.md)" in index


def test_writing_checking_and_a_page_of_a_rule_that_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path)]
    assert pages.main(["--check", *output]) == 1
    assert pages.main(output) == 0
    assert pages.main(["--check", *output]) == 0
    (tmp_path / "gone.md").write_text("old")
    (tmp_path / "gcc-too-old.md").write_text("old")
    capsys.readouterr()
    assert pages.main(["--check", *output]) == 1
    assert capsys.readouterr().out == "not as written: gcc-too-old.md\nnot as written: gone.md\n"
    assert pages.main(output) == 0
    assert not (tmp_path / "gone.md").exists()
    assert "2 changed" in capsys.readouterr().out


def test_the_committed_pages_are_as_written() -> None:
    assert pages.stale(pages.pages(by_id(), load()), pages.DIRECTORY) == [], "run python -m scripts.pages"
