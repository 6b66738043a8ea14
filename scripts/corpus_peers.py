"""Other diagnostic programs on faults staged for real in a copy of a real environment: what each says is counted.

An environment that borrows everything from a real one (by a .pth file) gets one fault at a time. Each program runs
there, on the healthy copy first: only what differs from that is its verdict on the fault.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from envcheck.errors import WorkError
from scripts import process
from scripts.cache import ROOT, cache
from scripts.corpus_stage import CASES, Case, Place

PACKAGES = ("rapids-cli==0.2.0", "env-doctor==0.3.5", "cuda-doctor==0.2.0", "pip==25.0.1")
"""Peers that are on the package index, put into an environment of their own and lent to each staged one."""
SECONDS = 120.0
VERDICTS = ("named", "shown", "silent", "crashed", "absent")
"""It says that something is wrong, and what; it prints the fact; neither; it dies; it is not there."""
PROBLEM = re.compile(
    r"error|warn|mismatch|incompatib|critical|missing|not found|invalid|conflict|fail|undefined|differ|requires|[✗❌⚠]",
    re.IGNORECASE,
)
QUESTION = """\
import sys, sysconfig, torch, importlib.util
print(sysconfig.get_path("purelib")); print(sysconfig.get_config_var("EXT_SUFFIX"))
print(torch.__path__[0]); print(int(not torch._C._GLIBCXX_USE_CXX11_ABI)); print(torch.__version__)
"""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program; {target} is the staged interpreter, {self} this one, {peers} the peers' bin directory."""

    name: str
    argv: tuple[str, ...]


PEERS = (
    Peer(
        name="envcheck",
        argv=("{self}", "-m", "envcheck", "--python", "{target}", "--stage", "build", "--format", "github"),
    ),
    Peer(name="torch collect_env", argv=("{target}", "-m", "torch.utils.collect_env")),
    Peer(name="sglang check_env", argv=("{target}", "-m", "sglang.check_env")),
    Peer(name="vllm collect_env", argv=("{target}", "-m", "vllm.collect_env")),
    Peer(name="verl diagnose", argv=("{target}", "{verl}/scripts/diagnose.py")),
    Peer(name="pip check", argv=("{target}", "-m", "pip", "check")),
    Peer(name="rapids doctor", argv=("{target}", "{peers}/rapids", "doctor")),
    Peer(name="env-doctor", argv=("{target}", "{peers}/env-doctor", "check", "--json")),
    Peer(name="cuda-doctor", argv=("{target}", "{peers}/cuda-doctor", "diagnose", "--verbose")),
)


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a program wrote, and how it ended."""

    code: int
    lines: tuple[str, ...]

    @property
    def absent(self) -> bool:
        """Tell whether the program is not there."""
        return any(re.search(r"No module named|can't open file|was not found", line) for line in self.lines[-3:])

    @property
    def crashed(self) -> bool:
        """Tell whether it died of an exception."""
        return self.code != 0 and any(re.search(r"^Traceback|Traceback \(most", line) for line in self.lines)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A real environment whose copies are broken, and where the peers are."""

    python: str
    site: Path
    place: Path
    """Directory of torch."""
    suffix: str
    old_abi: bool
    torch: str
    values: Mapping[str, str] = field(default_factory=dict)

    def copy(self, work: Path) -> tuple[str, Path]:
        """Make an environment that borrows the real one's packages; give its interpreter and its site directory."""
        process.output((self.python, "-m", "venv", "--without-pip", str(work / "env")), timeout=SECONDS)
        site = work / "env" / "lib" / self.site.parent.name / "site-packages"
        lent = [str(self.site), *([self.values["lent"]] if "lent" in self.values else [])]
        (site / "real.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
        return str(work / "env" / "bin" / "python"), site


def stage(python: str, *, verl: str = "", install: bool = True) -> Stage:
    """Look at a real environment, and make the peers' own; raise WorkError where it has no torch."""
    purelib, suffix, torch, old, version = process.output((python, "-c", QUESTION), timeout=SECONDS).split("\n")[:5]
    values = {"self": sys.executable, "verl": verl or "/no/checkout/of/verl", "peers": "/no/peers"}
    if install:
        home = _peers(python, Path(purelib).parent.name)
        values |= {"peers": str(home / "bin"), "lent": str(home / "lib" / Path(purelib).parent.name / "site-packages")}
    return Stage(
        python=python, site=Path(purelib), place=Path(torch), suffix=suffix, old_abi=old == "1", torch=version,
        values=values,
    )  # fmt: skip


def _peers(python: str, version: str) -> Path:
    home = cache("peers", version)
    done = home / "packages.txt"
    wanted = "\n".join(PACKAGES)
    if not done.is_file() or done.read_text(encoding="utf-8") != wanted:
        process.output((python, "-m", "venv", "--clear", str(home)), timeout=SECONDS)
        process.output((str(home / "bin/python"), "-m", "pip", "install", "-q", *PACKAGES), timeout=600)
        done.write_text(wanted, encoding="utf-8")
    return home


def run(peer: Peer, staged: Stage, target: str, environ: Mapping[str, str]) -> Said:
    """Run one program to its end."""
    argv = [part.format(target=target, **staged.values) for part in peer.argv]
    plain = {name: value for name, value in os.environ.items() if name not in {"LD_LIBRARY_PATH", "CUDA_HOME"}}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=SECONDS,
            env={**plain, "NO_COLOR": "1", "COLUMNS": "200", **environ}, cwd=ROOT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Said(code=124, lines=("it did not end in time",))
    return Said(code=done.returncode, lines=tuple((done.stdout + done.stderr).splitlines()))


def verdict(case: Case, said: Said, healthy: Said) -> str:
    """Say what a program made of a fault: only lines that it did not write on the healthy copy count."""
    if said.absent and healthy.absent:
        return "absent"
    before = {_alike(line) for line in healthy.lines}
    telling = re.compile(case.telling, re.IGNORECASE)
    new = [line for line in said.lines if _alike(line) not in before and telling.search(line)]
    if said.crashed:
        return "crashed"
    if any(PROBLEM.search(line) for line in new):
        return "named"
    return "shown" if new else "silent"


def _alike(line: str) -> str:
    """Give a line without the directory of the staged copy."""
    return re.sub(r"/\S*?/envcheck-peers-\w+/", "#", line)


def compare(staged: Stage, say: Callable[[str], None], cases: Sequence[Case] = CASES) -> dict[str, dict[str, str]]:
    """Stage every case and run every program; give verdicts by case, then by program."""
    with tempfile.TemporaryDirectory(prefix="envcheck-peers-") as work:
        target, _ = staged.copy(Path(work))
        healthy = {peer.name: run(peer, staged, target, {}) for peer in PEERS}
    found: dict[str, dict[str, str]] = {}
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="envcheck-peers-") as work:
            target, site = staged.copy(Path(work))
            place = Place(site=site, torch=staged.place / "lib", suffix=staged.suffix, old_abi=staged.old_abi)
            environ = case.stage(place, Path(work))
            if case.proof and not _fails(target, case.proof, environ):
                say(f"{case.name}: torch {staged.torch} is not hurt by it; left out")
                continue
            said = {peer.name: run(peer, staged, target, environ) for peer in PEERS}
            found[case.name] = {name: verdict(case, said[name], healthy[name]) for name in said}
            say(f"{case.name}: " + ", ".join(f"{name} {value}" for name, value in found[case.name].items()))
    return found


def _fails(target: str, code: str, environ: Mapping[str, str]) -> bool:
    try:
        process.output((target, "-c", code), timeout=SECONDS, environ={**os.environ, **environ})
    except WorkError:
        return True
    return False


def table(found: Mapping[str, Mapping[str, str]]) -> str:
    """Count verdicts by program."""
    lines = [f"{'program':<20}" + "".join(f"{name:>9}" for name in VERDICTS)]
    for peer in PEERS:
        verdicts = [row[peer.name] for row in found.values()]
        lines.append(f"{peer.name:<20}" + "".join(f"{verdicts.count(name):>9}" for name in VERDICTS))
    return "\n".join(lines)
