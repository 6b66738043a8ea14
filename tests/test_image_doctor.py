"""The doctor on real images, each with one thing changed: a toolkit, another GCC, cuDNN headers of another version."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import process
from tests.image_cases import base, cuda_base, engine, remove, small_image, tag_of

__all__ = ["base", "cuda_base", "engine"]

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.network]

APT = (
    "RUN --mount=type=secret,id=ca,target=/run/ca.pem apt-get -o Acquire::https::CAInfo=/run/ca.pem update -qq"
    " && apt-get -o Acquire::https::CAInfo=/run/ca.pem install -y -qq --no-install-recommends"
)
EMULATED = """#!/bin/sh
# A stand-in: GCC 8 is in no archive of a living Debian. It answers with the version alone and compiles nothing.
case "$*" in *-dump*) echo 8.3.0 ;; *) echo "gcc (Emulated 8.3.0-6) 8.3.0" ;; esac
"""
SITE = "opt/venv/lib/python3.11/site-packages"
HEADER = "#define CUDNN_MAJOR {}\n#define CUDNN_MINOR {}\n#define CUDNN_PATCHLEVEL {}\n"
CUDNN_OF_PIP = {
    f"{SITE}/nvidia_cudnn_cu12-9.1.0.70.dist-info/METADATA": (
        "Metadata-Version: 2.1\nName: nvidia-cudnn-cu12\nVersion: 9.1.0.70\n"
    ),
    f"{SITE}/nvidia_cudnn_cu12-9.1.0.70.dist-info/RECORD": "nvidia/cudnn/include/cudnn_version.h,,\n",
    f"{SITE}/nvidia/cudnn/include/cudnn.h": "",
    f"{SITE}/nvidia/cudnn/include/cudnn_version.h": HEADER.format(9, 1, 0),
    f"{SITE}/nvidia/cudnn/lib/libcudnn.so.9": "",
}
"""What matters of the wheel that torch 2.5.1 pins: its metadata, headers and file names; the code is 664 MB."""


def judged(tag: str, log: Path, *more: str) -> dict[str, Any]:
    """Everything that `python -m envcheck --image` says of an image, ready to build or not."""
    argv = [sys.executable, "-m", "envcheck", "--image", tag, "--stage", "build", "--format", "json", *more]
    done = process.stream(argv, timeout=300, log=log)
    assert done.returncode in {0, 1, 3}, done.tail
    document = json.loads(log.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def outcomes(document: dict[str, Any]) -> dict[str, str]:
    return {row["rule"]: row["outcome"] for row in document["outcomes"]}


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for the image of one test, removed afterwards."""
    yield (name := tag_of(request.node.name.partition("[")[0].replace("_", "-")))
    remove(name)


def test_without_a_toolkit_the_build_is_refused(base: str, tmp_path: Path) -> None:
    found = judged(base, tmp_path / "log")
    assert outcomes(found)["nvcc-missing"] == "error"
    assert found["verdict"] == "error"
    assert found["facts"]["toolkits"] == []


def test_with_cuda_12_4_the_build_may_start(cuda_base: str, tmp_path: Path) -> None:
    found = judged(cuda_base, tmp_path / "log")
    said = outcomes(found)
    assert [said[rule] for rule in ("nvcc-missing", "gcc-too-new-for-nvcc", "gcc-too-old")] == ["ok"] * 3
    assert [kit["version"][:4] for kit in found["facts"]["toolkits"]] == ["12.4"]
    assert found["verdict"] != "error", said


def test_an_older_gcc_of_debian_is_the_one_that_is_judged(base: str, tag: str, tmp_path: Path) -> None:
    small_image(tag, tmp_path, f"FROM {base}\n{APT} gcc-11 g++-11\nENV CC=gcc-11 CXX=g++-11\n")
    found = judged(tag, tmp_path / "log")
    taken = {item["role"]: item["version"] for item in found["facts"]["compilers"]}
    assert taken["cxx"].startswith("11.")
    assert outcomes(found)["gcc-too-old"] == "ok"


def test_a_gcc_below_the_floor_is_refused(base: str, tag: str, tmp_path: Path) -> None:
    (tmp_path / "gcc").write_text(EMULATED, encoding="ascii")
    (tmp_path / "gcc").chmod(0o755)
    copies = "\n".join(f"COPY gcc /usr/local/bin/{name}" for name in ("gcc", "g++", "cc", "c++"))
    small_image(tag, tmp_path, f'FROM {base}\n{copies}\nLABEL envcheck.test="GCC 8.3 is emulated by a script"\n')
    found = judged(tag, tmp_path / "log")
    rows = [row for row in found["outcomes"] if row["rule"] == "gcc-too-old"]
    assert "error" in {row["outcome"] for row in rows}
    assert all("8.3.0" in f"{row['summary']} {row['found']}" for row in rows)


@pytest.mark.parametrize(
    ("system", "expected"),
    [pytest.param((8, 9, 7), "warning", id="8.9"), pytest.param((9, 1, 0), "ok", id="the-same")],
)
def test_cudnn_headers_of_another_version(
    system: tuple[int, int, int], expected: str, base: str, tag: str, tmp_path: Path
) -> None:
    header = HEADER.format(*system)
    place = tmp_path / "root"
    for name, text in {**CUDNN_OF_PIP, "usr/include/cudnn.h": "", "usr/include/cudnn_version.h": header}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="ascii")
    small_image(tag, tmp_path, f"FROM {base}\nRUN python3 -m venv --without-pip /opt/venv\nCOPY root /\n")
    found = judged(tag, tmp_path / "log", "--python", "/opt/venv/bin/python")
    kinds = {(item["source"], item["version"]) for item in found["facts"]["cudnn"] if item["kind"] == "header"}
    assert {("pip", "9.1.0"), ("system", ".".join(map(str, system)))} <= kinds
    assert outcomes(found)["cudnn-header-differs-from-runtime"] == expected
