"""The page beside the locks says what proofs and stack files say, no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from envcheck import stack as stacks
from scripts import lock_page, prove_record
from scripts.cache import ROOT
from scripts.prove_record import Proof
from tests import lock_cases

PROOF = Proof(
    engine="sglang",
    trainer="fsdp",
    python="3.11.7",
    date="2026-01-01",
    lock_sha256="0" * 64,
    packages=7,
    extensions=3,
    modules=("torch", "helper"),
    pretended=("sglang",),
    known_faults=("torchao/x.so: undefined symbol: y (optional)",),
    waiting=("verl.dp_actor: needs flash-attn, which is compiled and not built here",),
    failed=("a|b: broken",),
)


def test_a_proof_is_a_row_and_its_modules_are_listed(tmp_path: Path) -> None:
    prove_record.add(tmp_path / "lockfiles" / "tiny", "tiny", PROOF)
    text = lock_page.section(lock_cases.tiny(), tmp_path)
    assert "| sglang | fsdp | 3.11.7 | 7 | 2 | 1 | 3 | flash-attn |" in text
    assert "- sglang imports: `helper`, `torch`" in text
    assert "- sglang imports only where torch says that there is a GPU: `sglang`" in text
    assert "- sglang FAILS: `a|b: broken`" in text
    assert "| torchao | `undefined symbol` | optional |" in text
    assert "| `kernel==0.1.0` | sglang asks for ==0.0.3, which is gone | the stack is retired |" in text
    assert "| flash-attn, built here | its release wheel is not taken: its hash is not known here |" in text


def test_what_was_never_proven_says_so(tmp_path: Path) -> None:
    text = lock_page.section(lock_cases.tiny(), tmp_path)
    assert "Not proven yet: `nox -s lock_prove`." in text
    assert "does not load" not in text


def test_a_cell_cannot_break_its_table() -> None:
    assert lock_page.table(["a"], [["x|y"]])[2] == "| x\\|y |"


def test_it_is_written_where_it_is_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "python -m scripts.lock_page" in lock_page.stale(tmp_path)
    lock_page.write(tmp_path)
    assert capsys.readouterr().out == "wrote lockfiles/README.md\n"
    assert lock_page.stale(tmp_path) == ""
    lock_page.write(tmp_path)
    assert capsys.readouterr().out == ""


def test_the_committed_page_is_as_written() -> None:
    assert lock_page.stale() == ""
    text = (ROOT / "lockfiles" / lock_page.NAME).read_text(encoding="utf-8")
    assert [f"## {name}" in text for name in stacks.names()] == [True] * len(stacks.names())
