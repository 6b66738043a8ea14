"""Other programs on staged faults: only what a program says anew of a fault is its verdict."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from envcheck.errors import WorkError
from envcheck.rules import RULES
from scripts import corpus, corpus_peers, corpus_stage, process
from scripts.corpus_peers import PEERS, Peer, Said, Stage, verdict
from scripts.corpus_stage import CASES, Case, Place
from tests import staged
from tests.staged import SUFFIX

pytestmark = pytest.mark.process
HEALTHY = Said(code=0, lines=("torch 2.6.0", "CUDA_HOME: none"))
CASE = Case(name="CUDA_HOME is gone", rule="cuda-home-invalid", telling="CUDA_HOME")
gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.mark.parametrize(
    ("code", "lines", "expected"),
    [
        (1, ("torch 2.6.0", "error: CUDA_HOME names /gone"), "named"),
        (0, ("torch 2.6.0", "CUDA_HOME: /gone"), "shown"),
        (0, ("torch 2.6.0", "CUDA_HOME: none"), "silent"),
        (1, ("error: something else",), "silent"),
        (1, ("Traceback (most recent call last):", "KeyError: CUDA_HOME"), "crashed"),
        (1, ("ModuleNotFoundError: No module named 'sglang'",), "silent"),
    ],
)
def test_only_new_lines_on_the_fault_count(code: int, lines: tuple[str, ...], expected: str) -> None:
    assert verdict(CASE, Said(code=code, lines=lines), HEALTHY) == expected


def test_a_program_that_is_not_there_is_absent() -> None:
    gone = Said(code=1, lines=("/usr/bin/python: No module named sglang",))
    assert verdict(CASE, gone, gone) == "absent"


def test_the_copys_own_directory_is_no_news() -> None:
    case = Case(name="torch", rule="torch-not-installed", telling="torch")
    before = Said(code=0, lines=("torch at /tmp/envcheck-peers-abc1/env error",))
    after = Said(code=0, lines=("torch at /tmp/envcheck-peers-xyz2/env error",))
    assert verdict(case, after, before) == "silent"


def stage_of(python: str, site: Path) -> Stage:
    values = {"self": sys.executable, "peers": "/no/peers", "verl": "/no/verl"}
    return Stage(
        python=python, site=site, place=site / "torch", suffix=SUFFIX, old_abi=True, torch="2.6.0", values=values
    )


def test_programs_run_in_a_copy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = staged.environment(tmp_path / "real")
    real.dist("torch", "2.6.0+cu124")
    tells = "import os; print('CUDA_HOME error' if 'CUDA_HOME' in os.environ else 'fine')"
    programs = (Peer(name="one", argv=("{target}", "-c", tells)), Peer(name="two", argv=("{target}", "-m", "no_peer")))
    monkeypatch.setattr(corpus_peers, "PEERS", programs)
    hurt = Case(name="a", rule="r", telling="CUDA_HOME", stage=lambda _place, _work: {"CUDA_HOME": "/gone"})
    harmless = Case(name="b", rule="r", telling="x", proof="pass")
    proven = Case(name="c", rule="r", telling="CUDA_HOME", stage=hurt.stage, proof="raise SystemExit(1)")
    said: list[str] = []
    found = corpus_peers.compare(stage_of(real.python, real.site), said.append, (hurt, harmless, proven))
    assert found == {"a": {"one": "named", "two": "absent"}, "c": {"one": "named", "two": "absent"}}
    assert said[1] == "b: torch 2.6.0 is not hurt by it; left out"
    rows = [line.split() for line in corpus_peers.table(found).splitlines()]
    assert rows == [
        ["program", "named", "shown", "silent", "crashed", "absent"],
        ["one", "2", "0", "0", "0", "0"],
        ["two", "0", "0", "0", "0", "2"],
    ]


def test_a_copy_sees_the_real_packages_and_the_peers(tmp_path: Path) -> None:
    real = staged.environment(tmp_path / "real")
    (real.site / "borrowed.py").write_text("value = 1\n", encoding="utf-8")
    (tmp_path / "lent").mkdir()
    (tmp_path / "lent" / "peer.py").write_text("value = 2\n", encoding="utf-8")
    made = stage_of(real.python, real.site)
    lent = Stage(**{**vars(made), "values": {**made.values, "lent": str(tmp_path / "lent")}})
    target, site = lent.copy(tmp_path / "work")
    done = staged.ran(target, "-c", "import borrowed, peer; print(borrowed.value + peer.value, borrowed.__file__)")
    assert done.stdout.split() == ["3", str(real.site / "borrowed.py")]
    assert site.is_dir()


def test_a_program_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_peers, "SECONDS", 0.5)
    peer = Peer(name="hangs", argv=("{target}", "-c", "import time; time.sleep(60)"))
    said = corpus_peers.run(peer, stage_of(sys.executable, tmp_path), sys.executable, {})
    assert said == Said(code=124, lines=("it did not end in time",))


def test_an_environment_without_torch_is_refused(tmp_path: Path) -> None:
    bare = staged.environment(tmp_path / "bare")
    with pytest.raises(WorkError, match="torch"):
        corpus_peers.stage(bare.python, install=False)


def test_an_environment_with_torch_is_looked_at(tmp_path: Path) -> None:
    real = staged.environment(tmp_path / "real")
    (real.site / "torch").mkdir()
    (real.site / "torch" / "__init__.py").write_text(
        "__version__ = '2.6.0+cu124'\nclass _C: _GLIBCXX_USE_CXX11_ABI = False\n", encoding="utf-8"
    )
    made = corpus_peers.stage(real.python, verl="/a/verl", install=False)
    assert (made.torch, made.old_abi, made.suffix) == ("2.6.0+cu124", True, SUFFIX)
    assert made.place == real.site / "torch"
    assert made.values["verl"] == "/a/verl"


def test_peers_are_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def output(argv: Sequence[str], **_options: object) -> str:
        asked.append(tuple(argv))
        if "--clear" in argv:
            Path(argv[-1]).mkdir(parents=True)
        return f"{tmp_path}/lib/python3.12/site-packages\n{SUFFIX}\n/t\n0\n2.6.0\n" if "-c" in argv else ""

    monkeypatch.setattr(process, "output", output)
    monkeypatch.setattr(corpus_peers, "cache", tmp_path.joinpath)
    for _ in range(2):
        made = corpus_peers.stage("python3")
    assert [argv[1:3] for argv in asked if "-c" not in argv] == [("-m", "venv"), ("-m", "pip")]
    assert made.values["lent"] == str(tmp_path / "peers/python3.12/lib/python3.12/site-packages")


@gxx
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_can_be_staged(tmp_path: Path, case: Case) -> None:
    torch = staged.environment(tmp_path / "real").torch("2.6.0+cu124", abi=False)
    site = tmp_path / "site"
    site.mkdir()
    place = Place(site=site, torch=torch, suffix=SUFFIX, old_abi=True)
    before = set(tmp_path.rglob("*"))
    environ = case.stage(place, tmp_path / "work")
    assert environ or set(tmp_path.rglob("*")) != before
    assert any(case.rule == rule.id for rule in RULES)


def test_staging_without_a_compiler_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(WorkError, match=r"g\+\+"):
        corpus_stage.shared(tmp_path / "a.so", "")


def test_the_scoreboard_counts_what_the_peers_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"a": {peer.name: "silent" for peer in PEERS} | {"envcheck": "named"}}
    monkeypatch.setattr(corpus_peers, "stage", lambda _python, verl: verl)
    monkeypatch.setattr(corpus_peers, "compare", lambda _stage, say: say("a: done") or found)
    assert corpus.main(["--peers", "python3"]) == 0
    done = capsys.readouterr()
    assert done.err == "a: done\n"
    rows = [line.split() for line in done.out.splitlines()]
    assert ["envcheck", "1", "0", "0", "0", "0"] in rows
    assert ["pip", "check", "0", "0", "1", "0", "0"] in rows
    assert corpus.main(["--peers", "python3", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["peers"] == found
