"""Offline checks of the locks: each fault is named with its line and what mends it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from envcheck import stack as stacks
from envcheck.stack import Stack
from scripts import (
    env,
    lock_check,
    lock_check_edits,
    lock_check_files,
    lock_check_network,
    lock_reasons,
    lock_remote,
    lock_tools,
    prove_record,
)
from scripts.lock_resolve import Resolved
from scripts.lock_text import Pin
from scripts.prove_record import Proof
from tests import lock_cases
from tests.lock_cases import resolved

__all__ = ["resolved"]


@pytest.fixture
def place(tmp_path: Path, resolved: Resolved) -> Path:
    return lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)


@pytest.fixture(autouse=True)
def _unknown_to_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_check_edits, "committed", lambda _: "")


def faults(tmp_path: Path, stack: Stack | None = None, *, proof: bool = False) -> list[str]:
    return list(lock_check.offline(stack or lock_cases.tiny(), tmp_path, proof=proof))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.usefixtures("place")
def test_whole_locks_have_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path) == []


def test_an_edited_version_is_found_with_its_line(tmp_path: Path, place: Path) -> None:
    edit(place / "requirements-sglang.txt", "kernel==0.1.0", "kernel==0.2.0")
    found = faults(tmp_path)
    assert any(
        "requirements-sglang.txt, line " in line and "kernel==0.2.0 was written by hand" in line for line in found
    )
    assert any("kernel==0.1.0 was taken out by hand" in line for line in found)
    assert "requirements-sglang.txt: was edited by hand: nox -s lock writes it again" in found


def test_an_edited_hash_is_found_with_its_line(tmp_path: Path, place: Path) -> None:
    edit(place / "requirements-vllm.txt", "4" * 64, "9" * 64)
    assert any("line" in line and "the hashes of torch==2.4.0 were edited" in line for line in faults(tmp_path))


def test_a_removed_hash_and_an_address_are_found(tmp_path: Path, place: Path) -> None:
    edit(place / "build.txt", f" \\\n    --hash=sha256:{'5' * 64}", "")
    found = faults(tmp_path)
    assert any("setuptools==70.3.0 has no hash" in line for line in found)
    (place / "build.txt").write_text("# https://example.org/simple\n", encoding="utf-8")
    assert any("line 1: an address has no place in a lock" in line for line in faults(tmp_path))


def test_two_versions_for_one_python_and_none_for_any_are_found(tmp_path: Path) -> None:
    pins = [
        Pin(name="x", version="1", hashes=("a" * 64,)),
        Pin(name="x", version="2", marker="python_full_version >= '3.12'", hashes=("b" * 64,)),
        Pin(name="y", version="2", marker="python_version > '3.13'", hashes=("b" * 64,)),
    ]
    path = lock_cases.lock_of(tmp_path / "x.txt", pins)
    found = list(lock_check_files.whole(path, "", ("3.10", "3.11", "3.12")))
    assert any("x is there twice for Python 3.12" in line for line in found)
    assert any("y applies to none of Python 3.10, 3.11, 3.12" in line for line in found)


def test_another_stack_file_makes_the_locks_old(tmp_path: Path, place: Path) -> None:
    assert place.exists()
    stack = lock_cases.tiny(lock_cases.STACK.replace('version = "0.4.3"', 'version = "0.4.4"'))
    found = faults(tmp_path, stack)
    assert any("made from other inputs" in line for line in found)
    assert any("sglang is 0.4.3, the stack file says 0.4.4" in line for line in found)


def test_a_component_that_is_built_must_not_be_locked(tmp_path: Path, resolved: Resolved) -> None:
    resolved.pins["sglang"].append(Pin(name="flash-attn", version="2.7.4", hashes=("f" * 64,)))
    lock_cases.lay(tmp_path, lock_cases.tiny(), resolved)
    assert any("flash-attn is built from source" in line for line in faults(tmp_path))


def test_missing_and_damaged_files_are_named(tmp_path: Path, place: Path) -> None:
    (place / "requirements-vllm.txt").unlink()
    (place / "sbom-sglang.cdx.json").write_text("{", encoding="utf-8")
    (place / "build.txt").write_text("garbage here\n", encoding="utf-8")
    (place / "apt.txt").unlink()
    found = faults(tmp_path)
    assert "requirements-vllm.txt: is missing: nox -s lock" in found
    assert any(line.startswith("sbom-sglang.cdx.json: is missing or damaged") for line in found)
    assert any("build.txt: line 1" in line for line in found)
    assert "apt.txt: is not what the stack file says: nox -s lock" in found


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('until = "the stack is retired"', 'until = " "', "has no until"),
        ('source = "https://github.com/sgl-project/sglang"', 'source = "a colleague"', "is no address"),
        ('reason = "released after the cut-off"', 'reason = ""', "exempt from the cut-off date without a reason"),
        ('digest = "sha256:622e', 'digest = "latest', "is no digest"),
    ],
)
@pytest.mark.usefixtures("place")
def test_decisions_without_grounds_and_floating_images_are_found(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert any(said in line for line in faults(tmp_path, lock_cases.tiny(lock_cases.STACK.replace(old, new))))


def test_a_package_exempt_twice_is_found() -> None:
    assert lock_check_files.duplicates(["a_b", "c", "a-B"]) == ["a-b"]
    row = lock_cases.STACK.split("[[lock.overrides]]")[0].rsplit("[[lock.exempt]]", 1)[1]
    stack = lock_cases.tiny(
        lock_cases.STACK.replace("[[lock.overrides]]", f"[[lock.exempt]]{row}[[lock.overrides]]", 1)
    )
    assert list(lock_check_files.said(stack)) == ["stack tiny: kernel is exempt from the cut-off date twice"]


def proof(place: Path, engine: str, **changes: object) -> Proof:
    digest = prove_record.sha256(place / f"requirements-{engine}.txt")
    good = Proof(
        engine=engine,
        trainer="fsdp",
        python="3.11.7",
        date="2026-01-01",
        lock_sha256=digest,
        packages=3,
        extensions=1,
        modules=("helper", "sglang", "torch"),
    )
    return dataclasses.replace(good, **changes)  # type: ignore[arg-type]  # a test's own choice of fields


def test_proofs_are_asked_for_and_go_stale(tmp_path: Path, place: Path) -> None:
    assert sum("was never proven to run: nox -s lock_prove" in line for line in faults(tmp_path, proof=True)) == 2
    prove_record.add(place, "tiny", proof(place, "sglang"))
    prove_record.add(place, "tiny", proof(place, "vllm", lock_sha256="0" * 64))
    found = faults(tmp_path, proof=True)
    assert len(found) == 1
    assert "its proof for fsdp and Python 3.11.7 is stale, the lock has changed" in found[0]
    prove_record.add(place, "tiny", proof(place, "vllm", failed=("vllm._C: undefined symbol",)))
    assert faults(tmp_path, proof=True) == [
        "requirements-vllm.txt: failed its proof on 2026-01-01: vllm._C: undefined symbol"
    ]
    (place / "proof.json").write_text("[", encoding="utf-8")
    assert "expected JSON" in faults(tmp_path, proof=True)[0]


def test_a_proof_of_other_sources_or_other_modules_is_stale(tmp_path: Path, place: Path) -> None:
    now = prove_record.sources_digest(lock_cases.tiny(), "sglang", "fsdp", place)
    prove_record.add(place, "tiny", proof(place, "sglang", sources_sha256=now))
    prove_record.add(place, "tiny", proof(place, "vllm", modules=("torch",)))
    found = faults(tmp_path, proof=True)
    assert len(found) == 1
    assert "its proof for fsdp and Python 3.11.7 is stale, it did not try helper:" in found[0]
    prove_record.add(place, "tiny", proof(place, "vllm", waiting=("helper: needs flash-attn, which is",)))
    assert faults(tmp_path, proof=True) == []
    edit(place / "sources.toml", "e" * 64, "f" * 64)
    assert any("stale, a source that it was built from has changed" in line for line in faults(tmp_path, proof=True))
    (place / "sources.toml").unlink()
    assert not any("stale" in line for line in faults(tmp_path, proof=True)), "that it is gone is said elsewhere"


def test_what_a_proof_could_not_try_is_said_and_no_fault(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for engine in ("sglang", "vllm"):
        prove_record.add(place, "tiny", proof(place, engine, waiting=("verl.actor: needs flash-attn, which is",)))
    assert lock_check.main(["--stack", str(lock_cases.stack_file(tmp_path)), "--root", str(tmp_path)]) == 0
    said = "tiny: sglang + fsdp, Python 3.11.7: not proven without a wheel of flash-attn: verl.actor\n"
    assert capsys.readouterr().out.startswith(said)


def test_the_command_prints_faults_and_gives_one(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_cases.stack_file(tmp_path)
    assert lock_check.main(["--stack", str(path), "--root", str(tmp_path), "--no-proof"]) == 0
    assert capsys.readouterr().out == "tiny: the locks are what the stack files say\n"
    (place / "image.toml").unlink()
    assert lock_check.main(["--stack", str(path), "--root", str(tmp_path), "--no-proof"]) == 1
    assert capsys.readouterr().out.endswith("tiny: 1 fault(s)\n")


def test_the_committed_locks_are_what_the_stack_files_say() -> None:
    for name in stacks.names():
        assert list(lock_check.offline(stacks.load(name), proof=False)) == []
    assert list(lock_check.tools()) == []


def test_tools_follow_pyproject(tmp_path: Path) -> None:
    table = lock_tools.project()
    assert set(lock_tools.wanted(table)["tools.txt"]) < set(lock_tools.wanted(table)["dev.txt"])
    text = '[project]\ndependencies = ["a"]\n[project.optional-dependencies]\nscripts = ["uv"]\n'
    text += '[dependency-groups]\ntest = ["t"]\n'
    (tmp_path / "pyproject.toml").write_text(text + '[tool.envcheck]\ntools-cutoff = "2026-01-01"\n', encoding="utf-8")
    assert list(lock_check.tools(tmp_path)) == [
        "tools.txt: is missing: nox -s lock",
        "dev.txt: is missing: nox -s lock",
    ]


def test_the_reduced_input_has_no_package_that_needs_a_build(resolved: Resolved) -> None:
    lines = lock_check_network.reduced(lock_cases.tiny(), "sglang", resolved.pins["sglang"])
    assert not [line for line in lines if line.startswith(("flash-attn", "verl", "purelib"))]
    assert "torch==2.5.1" in lines


def test_what_a_changed_edge_brought_is_named_outright(resolved: Resolved) -> None:
    """sglang's edge to kernel is overridden: it is left out, and what it brought is named at the lock's version."""
    brought = Pin(name="gear", version="1.2", hashes=("9" * 64,), via=("sglang",))
    pins = [*resolved.pins["sglang"], brought]
    exempt = lock_cases.tiny()
    lines = lock_check_network.reduced(exempt, "sglang", pins)
    assert "gear==1.2" in lines
    assert not [line for line in lines if line.startswith(("sglang", "kernel"))], "kernel is newer than the cut-off"
    row = lock_cases.STACK[lock_cases.STACK.index("[[lock.exempt]]") : lock_cases.STACK.index("[[lock.overrides]]")]
    kept = lock_cases.tiny(lock_cases.STACK.replace(row, ""))
    assert "kernel==0.1.0" in lock_check_network.reduced(kept, "sglang", pins), "pip-compile can see it"


def test_an_extra_that_asks_for_what_is_left_out_is_left_out(resolved: Resolved) -> None:
    stack = lock_cases.tiny(
        lock_cases.STACK.replace('sglang = ["sglang[srt]"]', 'sglang = ["sglang[srt]", "helper[serve]"]')
    )
    sglang = Pin(name="sglang", version="0.4.3", hashes=("2" * 64,), via=("stack file", "helper[serve]"))
    twice = [Pin(name="gear", version=v, marker=m, via=("sglang",)) for v, m in FORKED]
    lines = lock_check_network.reduced(stack, "sglang", [*resolved.pins["sglang"], sglang, *twice])
    assert "helper" in lines
    assert not [line for line in lines if line.startswith("helper[")]
    assert [line for line in lines if line.startswith("gear")] == [f"gear=={v} ; {m}" for v, m in FORKED]


FORKED = (("1", "python_full_version < '3.11'"), ("2", "python_full_version >= '3.11'"))


def test_differences_with_pip_compile_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    theirs = {"torch": "2.5.1", "helper": "0.9"}
    monkeypatch.setattr(lock_check_network, "compiled", lambda *_: theirs)
    monkeypatch.setattr(env, "version_of", lambda _: "3.11.7")
    monkeypatch.setattr(lock_remote, "index", lambda: None)
    monkeypatch.setattr(lock_reasons, "asks", lambda *_: lambda name, version: [Requirement("torch<2")])
    moved = lock_check_network.differences(lock_cases.tiny(), "sglang", place, "python3")
    assert moved == {"helper": ("1.0", "0.9")}
    out = capsys.readouterr().out
    assert "pip-compile agrees on 1 of 6 pins" in out, "backport is for Python 3.10 only"
    assert "helper: the lock has 1.0, pip-compile 0.9: helper 0.9 asks for torch<2, the lock has torch 2.5.1" in out
    assert "kernel: only in the lock" in out


def test_a_proof_is_written_in_the_place_of_the_earlier_one(place: Path) -> None:
    prove_record.add(place, "tiny", proof(place, "sglang"))
    prove_record.add(place, "tiny", proof(place, "sglang", python="3.11.9", packages=4))
    prove_record.add(place, "tiny", proof(place, "sglang", python="3.9.1"))
    rows = json.loads((place / "proof.json").read_text(encoding="utf-8"))["proofs"]
    assert [(row["python"], row["packages"]) for row in rows] == [("3.9.1", 3), ("3.11.9", 4)]


def test_a_proof_with_less_in_it_does_not_take_the_place_of_one_with_more(place: Path) -> None:
    whole = proof(place, "sglang", modules=("helper", "sglang", "torch", "verl"))
    less = proof(place, "sglang", date="2026-02-02", waiting=("verl: needs verl, without a wheel",))
    assert prove_record.add(place, "tiny", whole) is None
    assert prove_record.add(place, "tiny", less) == whole
    failing = dataclasses.replace(less, failed=("helper: broken",))
    for other in (failing, dataclasses.replace(less, lock_sha256="0" * 64)):
        assert prove_record.add(place, "tiny", other) is None, "a failure and other bytes are news"
        prove_record.add(place, "tiny", whole)


def test_a_proof_is_shown_with_what_failed(place: Path) -> None:
    text = prove_record.shown(
        proof(place, "sglang", known_faults=("a",), waiting=("b",), failed=("c",), pretended=("m",))
    )
    assert [line.split()[0] for line in text.splitlines()] == ["sglang", "known", "not", "FAILED"]
