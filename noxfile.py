"""The manual of this project: `nox -l` lists what can be done. Sessions are thin; the work is in scripts/."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))
from scripts.bootstrap import ensure

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "tests"]

CODE = ("envcheck", "scripts", "tests", "noxfile.py")


def verb(session: nox.Session, module: str, *arguments: str) -> None:
    """Run one of the project's commands with the interpreter of the locked tool environment."""
    session.run(str(ensure("tools")), "-m", module, *arguments, *session.posargs, external=True)


def dev(session: nox.Session, *arguments: str) -> None:
    """Run a module of the locked development environment."""
    session.run(str(ensure("dev")), "-m", *arguments, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff (rules and format), mypy strict, and hadolint over the Dockerfile."""
    dev(session, "ruff", "check", *CODE)
    dev(session, "ruff", "format", "--check", *CODE)
    dev(session, "mypy", *CODE)
    hadolint = ensure("dev").with_name("hadolint")
    session.run(str(hadolint), "--config", "docker/hadolint.yaml", "docker/Dockerfile", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """Run pytest with branch coverage; `-- -m docker` and the like choose."""
    dev(session, "pytest", "-n", "auto", "--cov", "--cov-report=term", *session.posargs)


@nox.session(default=False)
def doctor(session: nox.Session) -> None:
    """Judge this host: what stands between it and the stack (python -m envcheck)."""
    verb(session, "envcheck", "doctor")


@nox.session(default=False)
def up(session: nox.Session) -> None:
    """Do all of it: doctor, toolchain, locked environment, missing wheels, verdict; resumes where it stopped."""
    verb(session, "scripts.up")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Re-lock from the stack files; -- --upgrade-package NAME[==V], --pin-url NAME."""
    verb(session, "scripts.lock")


@nox.session(default=False)
def lock_check(session: nox.Session) -> None:
    """Check that the locks are what the stack files say; -- --network re-resolves."""
    verb(session, "scripts.lock_check")


@nox.session(default=False)
def lock_prove(session: nox.Session) -> None:
    """Install a lock and prove that what it holds loads; -- --stack S --engine E."""
    verb(session, "scripts.prove")


@nox.session(default=False)
def env(session: nox.Session) -> None:
    """Make the locked environment; -- --engine E --trainer T [--python P] [--prefix DIR]."""
    verb(session, "scripts.env")


@nox.session(default=False)
def export(session: nox.Session) -> None:
    """Write a lock in another form; -- --format pylock|uv|constraints."""
    verb(session, "scripts.export")


@nox.session(default=False)
def kit(session: nox.Session) -> None:
    """Make or verify the air-gap kit; -- --verify DIR."""
    verb(session, "scripts.kit")


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Check a lock against a vulnerability database and against name confusion."""
    verb(session, "scripts.audit")


@nox.session(default=False)
def toolchain(session: nox.Session) -> None:
    """Provide CUDA 12.4 without root under the cache."""
    verb(session, "scripts.toolchain")


@nox.session(default=False)
def sources(session: nox.Session) -> None:
    """Fetch, verify, unpack and patch sources into the cache."""
    verb(session, "scripts.sources")


@nox.session(default=False)
def wheelhouse(session: nox.Session) -> None:
    """Work on built wheels; -- list|verify|prune|push|pull."""
    verb(session, "scripts.wheelhouse")


def _build(name: str, session_name: str, docs: str) -> None:
    def run(session: nox.Session) -> None:
        verb(session, "scripts.build", name)

    run.__doc__ = docs
    nox.session(name=session_name, default=False)(run)


for _component, _session, _docs in (
    ("transformer-engine", "build-te", "Build TransformerEngine into the wheelhouse, preflight first."),
    ("flash-attn", "build-flash-attn", "Build flash-attn; -- --head-dims 64,128 --dtypes bf16 for a slim one."),
    ("flashinfer", "build-flashinfer", "Build flashinfer-python."),
    ("sgl-kernel", "build-sgl-kernel", "Build sgl-kernel."),
    ("sglang", "build-sglang", "Build SGLang."),
    ("megatron", "build-megatron", "Build Megatron-LM core with verl's patch as a wheel."),
    ("verl", "build-verl", "Build verl at its pinned commit."),
    ("torch-memory-saver", "build-torch-memory-saver", "Build torch-memory-saver."),
    ("apex", "build-apex", "Build NVIDIA's apex (optional)."),
    ("all", "build-all", "Build every missing wheel in the plan's order."),
):
    _build(_component, _session, _docs)


@nox.session(name="base-image", default=False)
def base_image(session: nox.Session) -> None:
    """Bootstrap the CUDA 12.4 devel and runtime bases from Debian's packages."""
    verb(session, "scripts.base_image")


@nox.session(default=False)
def image(session: nox.Session) -> None:
    """Build an image; -- --stack S --engine E --trainer T [--target …] [--push] [--load]."""
    verb(session, "scripts.image")


@nox.session(name="image-check", default=False)
def image_check(session: nox.Session) -> None:
    """Check an image from inside and outside; -- REF."""
    verb(session, "scripts.image_check")


@nox.session(default=False)
def data(session: nox.Session) -> None:
    """Prepare GSM8K and MATH (or --sample) in verl's parquet schema."""
    verb(session, "scripts.prepare_data")


@nox.session(name="ppo-smoke", default=False)
def ppo_smoke(session: nox.Session) -> None:
    """Run verl's PPO by a profile; -- --profile one-gpu --dry-run."""
    verb(session, "scripts.ppo")


@nox.session(default=False)
def parity(session: nox.Session) -> None:
    """Run SGLang against vLLM and judge the two."""
    verb(session, "scripts.parity")


@nox.session(name="compare-runs", default=False)
def compare_runs(session: nox.Session) -> None:
    """Judge logs of runs that already exist."""
    verb(session, "scripts.compare_runs")


@nox.session(default=False)
def corpus(session: nox.Session) -> None:
    """Score the doctor and explain on real failure reports."""
    verb(session, "scripts.corpus")


@nox.session(default=False)
def pages(session: nox.Session) -> None:
    """Generate the page of every rule; -- --check compares."""
    verb(session, "scripts.pages")


@nox.session(default=False)
def pyz(session: nox.Session) -> None:
    """Make dist/envcheck.pyz, which runs with a bare python3."""
    verb(session, "scripts.pyz")


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure what the design promises, as ratios in one run."""
    session.run(str(ensure("dev")), "-m", "scripts.bench", *session.posargs, external=True)
