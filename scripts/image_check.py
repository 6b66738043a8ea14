"""Check an image: who runs, what may be written, what leaked, how big it is, does it start without a network."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from envcheck.errors import EnvcheckError, WorkError
from scripts import cli, process

RUN_SECONDS = 300
RANDOM_UID = "48213:0"
"""A uid that no image knows, in group 0: what OpenShift starts containers as."""
LAYER_BYTES = 12 << 30
"""Registries and runtimes handle layers of some 10 GB badly: sglang's single 11 GB layer was a report."""
SETUID_OF_DEBIAN = frozenset(
    [
        "/usr/bin/chage",
        "/usr/bin/chfn",
        "/usr/bin/chsh",
        "/usr/bin/expiry",
        "/usr/bin/gpasswd",
        "/usr/bin/mount",
        "/usr/bin/newgrp",
        "/usr/bin/passwd",
        "/usr/bin/su",
        "/usr/bin/umount",
        "/usr/sbin/unix_chkpwd",
        "/usr/bin/wall",
        "/usr/bin/ssh-agent",
        "/usr/lib/openssh/ssh-keysign",
        "/usr/lib/dbus-1.0/dbus-daemon-launch-helper",
    ]
)
SECRET_FILES = (
    *("*.pem.key", "id_rsa", "id_ed25519", ".netrc", ".pypirc", "pip.conf", ".git-credentials", "*.kdbx", "run.env"),
    *("*/.aws/credentials", "*/.docker/config.json", "*/.kube/config", "*/huggingface/token"),
)
KNOWN_SHAPES = r"\b(hf_[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{30,}|AKIA[A-Z0-9]{16})\b"
LEAKED_LINE = rf"-----BEGIN [A-Z ]*PRIVATE KEY|{KNOWN_SHAPES}"
"""What no file of a user, of /etc or of /opt holds; installed packages have such lines in their examples."""
SECRET_TEXT = re.compile(
    rf"://[^/\s:@]+:[^/\s:@]+@|{KNOWN_SHAPES}"
    r"|(?i:(api_key|token|password|secret)=[^\s\"']{8,})"
)
SIZE_MARGIN = 1.15
"""All layers together against base + what the lock installs: more means caches or files that are there twice."""
INSTALLED = """
import importlib.metadata, os
places = {os.path.realpath(f.locate()) for d in importlib.metadata.distributions() for f in d.files or ()}
print(sum(os.stat(place).st_size for place in places if os.path.isfile(place)))
"""
LABELS = ("org.opencontainers.image.title", "org.opencontainers.image.base.name", "envcheck.stack")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one check."""

    name: str
    ok: bool
    found: str


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image, by reference, with what its configuration says."""

    reference: str
    config: dict[str, object]
    history: str
    sizes: tuple[int, ...]

    def shell(self, script: str, *, user: str = "0:0") -> str:
        """Run a shell script in a throw-away container without network; the image is not changed."""
        argv = ["docker", "run", "--rm", "--network", "none", "--user", user, "--entrypoint", "sh", self.reference]
        return process.output([*argv, "-c", script], timeout=RUN_SECONDS)


def inspect(reference: str) -> Image:
    """Read the image's configuration; raise EnvcheckError where it is not there."""
    try:
        found = json.loads(process.output(["docker", "image", "inspect", reference]))[0]
    except WorkError as error:
        raise EnvcheckError(
            f"there is no image {reference}: {error.what}", fix="docker pull it, or nox -s image"
        ) from error
    rows = process.output(
        ["docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", reference]
    )
    sizes = tuple(int(line.split("\t")[0]) for line in rows.splitlines() if line.split("\t")[0].isdigit())
    return Image(reference=reference, config=found["Config"], history=rows, sizes=sizes)


def runs_as_user(image: Image) -> Result:
    """The image's own user is not root."""
    user = str(image.config.get("User") or "")
    root = user.partition(":")[0].lstrip("0") in {"", "root"}
    return Result(name="non-root", ok=not root, found=f"USER {user or 'unset'}")


def works_for_any_uid(image: Image) -> Result:
    """A random uid of group 0 can write to its home."""
    try:
        image.shell('touch "$HOME/.probe" && mkdir -p "$HOME/.cache/probe"', user=RANDOM_UID)
    except WorkError as error:
        return Result(name="any-uid", ok=False, found=error.what)
    return Result(name="any-uid", ok=True, found=f"home is writable as {RANDOM_UID}")


def adds_no_setuid(image: Image) -> Result:
    """No setuid or setgid program beside those of the distribution."""
    text = image.shell(
        "find / -xdev \\( -path /proc -prune \\) -o"
        " -type f \\( -perm -4000 -o -perm -2000 \\) -print 2>/dev/null || true"
    )
    more = sorted(set(text.splitlines()) - SETUID_OF_DEBIAN)
    return Result(name="setuid", ok=not more, found=", ".join(more) or "none beside the distribution's")


def has_no_world_writable(image: Image) -> Result:
    """No file that everybody may write, no such directory without the sticky bit."""
    text = image.shell(
        "find / -xdev \\( -type f -perm -0002 -o -type d -perm -0002 ! -perm -1000 \\) -print 2>/dev/null | head -n 20"
    )
    places = text.splitlines()
    return Result(name="world-writable", ok=not places, found=", ".join(places) or "none")


def has_no_secrets(image: Image) -> Result:
    """No credential in the configuration, the history, files that usually hold one, or a line of a user's files."""
    texts = f"{json.dumps(image.config)}\n{image.history}"
    leaks = sorted({found[0][:12] + "…" for found in SECRET_TEXT.finditer(texts)})
    names = " -o ".join(f"-{'path' if '/' in pattern else 'name'} '{pattern}'" for pattern in SECRET_FILES)
    files = image.shell(
        "find / -xdev \\( -path /proc -o -path /sys -o -path '*/site-packages' \\) -prune -o"
        f" -type f \\( {names} \\) -print 2>/dev/null || true;"
        f" grep -rIlE --exclude-dir=site-packages -e '{LEAKED_LINE}' /root /home /etc /opt /srv 2>/dev/null || true"
    )
    found = [*leaks, *sorted(set(files.splitlines()))]
    return Result(name="secrets", ok=not found, found=", ".join(found) or "none in configuration, history, usual files")


def has_no_caches(image: Image) -> Result:
    """No package caches and no package lists."""
    text = image.shell(
        "du -sk /root/.cache /home/*/.cache /var/cache/apt /var/lib/apt/lists 2>/dev/null | awk '$1 > 64 { print $2 }'"
    )
    return Result(name="caches", ok=not text.split(), found=text.strip() or "none")


def has_labels(image: Image) -> Result:
    """The labels that say what it is are there."""
    labels = image.config.get("Labels") or {}
    assert isinstance(labels, dict)  # noqa: S101  # the engine's document
    missing = [name for name in LABELS if not labels.get(name)]
    return Result(name="labels", ok=not missing, found=f"missing: {', '.join(missing)}" if missing else "all there")


def fits_budget(image: Image) -> Result:
    """No layer is beyond what registries handle well."""
    largest = max(image.sizes, default=0)
    words = f"largest {largest / (1 << 30):.2f} GiB of {len(image.sizes)}, all {sum(image.sizes) / (1 << 30):.2f} GiB"
    return Result(name="layers", ok=largest <= LAYER_BYTES, found=words)


def fits_contents(image: Image) -> Result:
    """All layers together hold little more than the base and what the installed distributions list as their files."""
    rows = [line.split("\t", 1) for line in image.history.splitlines() if line.split("\t")[0].isdigit()]
    above = next((index for index, row in enumerate(rows) if "install-lock" in row[1]), None)
    if above is None:
        return Result(name="size", ok=True, found="nothing was installed from a lock")
    base, total = sum(int(row[0]) for row in rows[above + 1 :]), sum(image.sizes)
    lock = int(image.shell(f"/opt/venv/bin/python -I -c '{INSTALLED}'"))
    share = total / (base + lock)
    parts = f"base {base / (1 << 30):.2f} GiB + lock {lock / (1 << 30):.2f} GiB"
    return Result(name="size", ok=share <= SIZE_MARGIN, found=f"{total / (1 << 30):.2f} GiB, {share:.3f} of {parts}")


def has_sbom(image: Image) -> Result:
    """/etc/envcheck/sbom.cdx.json names every package that the manifest names, at its version."""
    try:
        sbom = json.loads(image.shell("cat /etc/envcheck/sbom.cdx.json"))
        manifest = json.loads(image.shell("cat /etc/envcheck/manifest.json"))
    except (WorkError, ValueError) as error:
        return Result(name="sbom", ok=False, found=str(error)[:200])
    listed = {(canonicalize_name(row["name"]), row.get("version", "").partition("+")[0]) for row in sbom["components"]}
    there = {(canonicalize_name(name), text.partition("+")[0]) for name, text in manifest["packages"].items()}
    missing = sorted(name for name, _ in there - listed)
    words = f"lacks {', '.join(missing)}" if missing else f"{len(there)} packages of {len(listed)} components"
    return Result(name="sbom", ok=not missing, found=words)


def has_manifest(image: Image) -> Result:
    """/etc/envcheck/manifest.json says what the image was built from."""
    try:
        manifest = json.loads(image.shell("cat /etc/envcheck/manifest.json"))
        words = f"stack {manifest['stack']}, {len(manifest['packages'])} packages"
    except (WorkError, ValueError, KeyError) as error:
        return Result(name="manifest", ok=False, found=str(error)[:200])
    missing = manifest.get("values", {}).get("missing")
    words += f", missing: {missing}" if missing else ""
    return Result(name="manifest", ok=True, found=words)


def starts_offline(image: Image) -> Result:
    """The entry point starts a command without a network and with the manifest's environment unchanged."""
    argv = ["docker", "run", "--rm", "--network", "none", image.reference, "true"]
    try:
        process.output(argv, timeout=RUN_SECONDS)
    except WorkError as error:
        return Result(name="offline-start", ok=False, found=error.what[-300:])
    return Result(name="offline-start", ok=True, found="the entry point and `true` ended with 0")


def doctor_agrees(image: Image) -> Result:
    """The doctor, looking from outside, finds no error for the stage `build`."""
    labels = image.config.get("Labels") or {}
    assert isinstance(labels, dict)  # noqa: S101
    wish = [
        f"--{key}={labels[f'envcheck.{key}']}"
        for key in ("stack", "engine", "trainer")
        if labels.get(f"envcheck.{key}")
    ]
    argv = [sys.executable, "-m", "envcheck", "doctor", "--image", image.reference, "--stage", "build", *wish]
    done = process.stream([*argv, "--format", "text", "--color", "never"], timeout=RUN_SECONDS)
    return Result(
        name="doctor",
        ok=done.returncode in {0, 3},
        found=f"exit code {done.returncode}: {' '.join(done.tail[-3:])[:300]}",
    )


CHECKS: tuple[Callable[[Image], Result], ...] = (
    runs_as_user,
    works_for_any_uid,
    adds_no_setuid,
    has_no_world_writable,
    has_no_secrets,
    has_no_caches,
    has_labels,
    fits_budget,
    fits_contents,
    has_manifest,
    has_sbom,
    starts_offline,
    doctor_agrees,
)


def check(image: Image) -> Iterator[Result]:
    """Run every check; one that fails to run is a failure with its reason."""
    for function in CHECKS:
        try:
            yield function(image)
        except WorkError as error:
            yield Result(name=function.__name__, ok=False, found=error.what[-300:])


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line per check; give 1 where one fails."""
    it = argparse.ArgumentParser(prog="nox -s image-check --", description=__doc__)
    it.add_argument("reference")
    it.add_argument("--format", choices=("text", "json"), default="text")
    given = it.parse_args(argv)
    results = list(check(inspect(given.reference)))
    if given.format == "json":
        rows = [{"check": row.name, "ok": row.ok, "found": row.found} for row in results]
        print(json.dumps({"version": 1, "reference": given.reference, "results": rows}, indent=1))
    else:
        for row in results:
            print(f"{'ok   ' if row.ok else 'ERROR'} {row.name}: {row.found}")
    return 0 if all(row.ok for row in results) else 1


if __name__ == "__main__":
    sys.exit(cli.run(main))
