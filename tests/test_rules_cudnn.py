"""cuDNN and NCCL, and what hides them: each rule holds, is broken, lacks its fact."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.codec import Unknown
from envcheck.facts import Facts, LibraryCopy, LoaderEntry
from tests import factories as make

BUILD = make.target(stage="build")
TE = make.target(stage="build", trainer="megatron")
LTS_TE = make.target(make.LTS, stage="build", trainer="megatron")
LAUNCH = make.target()
SYSTEM = "/usr/lib/x86_64-linux-gnu"


def header(version: str = "9.1.0", path: str = "/usr/include/cudnn.h", **changes: Any) -> LibraryCopy:
    return LibraryCopy(kind="header", path=path, version=version, **{"source": "system", "selected": True, **changes})


def library(version: str = "9.1.0", path: str = f"{SYSTEM}/libcudnn.so.9", **changes: Any) -> LibraryCopy:
    return LibraryCopy(kind="library", path=path, version=version, **{"source": "system", **changes})


PIP = make.copies("cudnn", "9.1.0.70", "3.10")
MODULE = header(path="/opt/cudnn/9.1/include/cudnn.h", source="module", selected=False)
NO_TE = make.without(make.healthy(), "transformer-engine")
TE_29 = make.package("transformer-engine", "2.9.0")


def cudnn(*found: LibraryCopy, **values: str) -> Facts:
    return make.variables(make.without(make.healthy(cudnn=found), "transformer-engine"), **values)


def nccl(*found: LibraryCopy) -> Facts:
    return make.having(make.healthy(nccl=found), TE_29)


def entries(*found: LoaderEntry, **changes: Any) -> Facts:
    names = {item.library for item in found}
    rest = tuple(item for item in make.loader("3.10") if item.library not in names)
    return make.healthy(loader=(*rest, *found), **changes)


def hidden(name: str, path: str, version: str, wheel: str) -> LoaderEntry:
    own = f"{make.site('3.10')}/nvidia/{wheel}/lib/{name}"
    return LoaderEntry(library=name, path=path, through="LD_LIBRARY_PATH", version=version, wanted=own)


@pytest.mark.parametrize(
    ("rule", "facts", "against", "expected"),
    [
        pytest.param("cudnn-headers-missing", make.bare(), BUILD, "not-applicable", id="nothing-needs-them"),
        pytest.param("cudnn-headers-missing", make.bare(), TE, "ok", id="torch-will-bring-them"),
        pytest.param("cudnn-headers-missing", cudnn(header()), TE, "ok", id="system"),
        pytest.param("cudnn-headers-missing", cudnn(*PIP), TE, "warning", id="wheel-alone-where-cmake-does-not-look"),
        pytest.param("cudnn-headers-missing", make.healthy(), TE, "ok", id="built-already"),
        pytest.param("cudnn-headers-missing", cudnn(), TE, "error", id="none"),
        pytest.param("cudnn-headers-missing", cudnn(MODULE), TE, "error", id="a-module-that-is-not-named"),
        pytest.param(
            "cudnn-headers-missing", cudnn(*PIP, CUDNN_PATH="/nowhere"), TE, "error", id="cudnn-path-to-nowhere"
        ),
        pytest.param(
            "cudnn-headers-missing",
            cudnn(*PIP, CUDNN_PATH=f"{make.site('3.10')}/nvidia/cudnn/"),
            TE,
            "ok",
            id="the-wheels-is-named",
        ),
        pytest.param(
            "cudnn-headers-missing",
            cudnn(header(path="/nfs/include/cudnn.h", source="env", why="CUDNN_INCLUDE_DIR names it")),
            TE,
            "error",
            id="a-variable-that-no-build-reads",
        ),
        pytest.param("cudnn-headers-missing", make.healthy(cudnn=Unknown("files")), TE, "unknown", id="unread"),
        pytest.param("cudnn-symlink-missing", make.healthy(), TE, "ok", id="wheels-need-none"),
        pytest.param("cudnn-symlink-missing", cudnn(library(selected=True, symlink=False)), TE, "error", id="no-link"),
        pytest.param("cudnn-symlink-missing", cudnn(library(selected=True)), TE, "ok", id="a-link"),
        pytest.param(
            "cudnn-symlink-missing",
            cudnn(library(path="/opt/cudnn/lib/libcudnn.so.9", symlink=False), CUDNN_PATH="/opt/cudnn"),
            TE,
            "error",
            id="in-the-named-one",
        ),
        pytest.param("cudnn-symlink-missing", cudnn(), BUILD, "not-applicable", id="nothing-needs-it"),
        pytest.param("cudnn-symlink-missing", make.healthy(cudnn=Unknown("files")), TE, "unknown", id="link-unread"),
        pytest.param(
            "cudnn-header-differs-from-runtime", make.healthy(), BUILD, "not-applicable", id="no-header-taken"
        ),
        pytest.param("cudnn-header-differs-from-runtime", cudnn(*PIP, header("9.1.1")), BUILD, "ok", id="same-minor"),
        pytest.param("cudnn-header-differs-from-runtime", cudnn(*PIP, header("9.6.0")), TE, "warning", id="newer"),
        pytest.param("cudnn-header-differs-from-runtime", cudnn(PIP[1], header("9.6.0")), TE, "error", id="no-way-out"),
        pytest.param(
            "cudnn-header-differs-from-runtime", cudnn(PIP[1], header("8.9.7")), TE, "error", id="other-major"
        ),
        pytest.param(
            "cudnn-header-differs-from-runtime", cudnn(*PIP, header("9.6.0")), LAUNCH, "not-applicable", id="run"
        ),
        pytest.param(
            "cudnn-header-differs-from-runtime",
            make.healthy(cudnn=(*PIP, header(Unknown("macro")))),  # type: ignore[arg-type]
            BUILD,
            "unknown",
            id="header-unread",
        ),
        pytest.param("cudnn-too-old", make.healthy(), make.target(trainer="megatron"), "ok", id="te-1.7"),
        pytest.param("cudnn-too-old", make.lts(cudnn=PIP), LTS_TE, "warning", id="te-2-asks-for-9.3"),
        pytest.param("cudnn-too-old", make.lts(), LTS_TE, "ok", id="te-2-has-9.8"),
        pytest.param("cudnn-too-old", make.lts(cudnn=PIP), make.target(make.LTS), "ok", id="nobody-uses-te"),
        pytest.param(
            "cudnn-too-old", make.lts(cudnn=(library("8.9.7", selected=True),)), LTS_TE, "error", id="cudnn-8"
        ),
        pytest.param(
            "cudnn-too-old",
            make.having(
                make.healthy(cudnn=make.copies("cudnn", "9.10.2.21", "3.10")),
                make.package("torch", "2.9.1", cuda="12.8"),
                make.package("sglang", "0.5.6"),
            ),
            LAUNCH,
            "warning",
            id="conv3d-of-torch-2.9.1",
        ),
        pytest.param("cudnn-too-old", make.bare(), LTS_TE, "not-applicable", id="none-yet"),
        pytest.param("cudnn-too-old", make.healthy(cudnn=Unknown("files")), LAUNCH, "unknown", id="versions-unread"),
        pytest.param("nccl-headers-missing", make.healthy(), TE, "not-applicable", id="te-1.7-needs-none"),
        pytest.param("nccl-headers-missing", nccl(), TE, "error", id="no-header"),
        pytest.param(
            "nccl-headers-missing", nccl(*make.copies("nccl", "2.21.5", "3.10")), TE, "error", id="in-the-wheel"
        ),
        pytest.param("nccl-headers-missing", nccl(header(path="/usr/include/nccl.h")), TE, "ok", id="nccl-dev"),
        pytest.param(
            "nccl-headers-missing",
            make.having(make.healthy(), make.package("transformer-engine", "2.18.0")),
            TE,
            "ok",
            id="2.18-looks-into-the-wheel",
        ),
        pytest.param(
            "nccl-headers-missing", make.having(make.healthy(nccl=Unknown("x")), TE_29), TE, "unknown", id="nccl-unread"
        ),
    ],
)
def test_headers(rule: str, facts: Facts, against: Any, expected: str) -> None:
    assert make.said(rule, facts, against) == expected


TENSOR_IR = "libcudnn_engines_tensor_ir.so.9"
CU13 = make.package("nvidia-cudnn-cu13", "9.20.0.48")


@pytest.mark.parametrize(
    ("rule", "facts", "expected"),
    [
        pytest.param("cudnn-shadowed", make.healthy(), "ok", id="own"),
        pytest.param(
            "cudnn-shadowed", entries(hidden("libcudnn.so.9", "/c/libcudnn.so.9", "9.0.0", "cudnn")), "error", id="o"
        ),
        pytest.param(
            "cudnn-shadowed", entries(hidden("libcudnn.so.9", "/c/libcudnn.so.9", "9.6", "cudnn")), "warning", id="n"
        ),
        pytest.param(
            "cudnn-shadowed", entries(hidden("libcudnn.so.9", "/c/libcudnn.so.9", "9.1.0", "cudnn")), "ok", id="same"
        ),
        pytest.param("cudnn-shadowed", make.healthy(loader=Unknown("ld.so")), "unknown", id="unread"),
        pytest.param("nccl-shadowed", make.healthy(), "ok", id="own-nccl"),
        pytest.param(
            "nccl-shadowed",
            make.having(make.healthy(), make.package("nvidia-nccl-cu11", "2.14.3")),
            "error",
            id="the-wheel-of-cuda-11-beside-it",
        ),
        pytest.param(
            "nccl-shadowed", entries(hidden("libnccl.so.2", "/n/libnccl.so.2", "2.18.3", "nccl")), "error", id="old"
        ),
        pytest.param(
            "nccl-shadowed", make.variables(make.healthy(), LD_PRELOAD="/n/libnccl.so.2"), "warning", id="preloaded"
        ),
        pytest.param("nccl-shadowed", make.healthy(loader=Unknown("ld.so")), "unknown", id="nccl-unread"),
        pytest.param(
            "nccl-shadowed",
            make.having(make.healthy(), make.package("torch", "2.14.0", cuda="13.0")),
            "error",
            id="older-than-torch-links",
        ),
        pytest.param("cudnn-mixed", make.healthy(), "ok", id="one"),
        pytest.param(
            "cudnn-mixed",
            entries(LoaderEntry(library=TENSOR_IR, path=f"{SYSTEM}/{TENSOR_IR}", through="cache", version="9.24.0")),
            "error",
            id="a-part-from-the-system",
        ),
        pytest.param(
            "cudnn-mixed",
            entries(LoaderEntry(library=TENSOR_IR, path="/opt/x/lib/libcudnn_graph.so.9", through="LD_LIBRARY_PATH")),
            "warning",
            id="a-part-of-no-known-version-by-ld-library-path",
        ),
        pytest.param(
            "cudnn-mixed",
            make.healthy(
                cudnn=(
                    library("9.20.0.48", source="pip", selected=True, sublibraries=("libcudnn_ops.so.9",)),
                    library("9.24.0", path=f"{SYSTEM}/libcudnn.so.9", sublibraries=(TENSOR_IR,)),
                )
            ),
            "error",
            id="the-wheel-lacks-a-part",
        ),
        pytest.param("cudnn-mixed", make.having(make.healthy(), CU13), "error", id="two-cuda-majors-in-one-folder"),
        pytest.param("cudnn-mixed", make.healthy(loader=Unknown("ld.so")), "unknown", id="parts-unread"),
        pytest.param("ld-library-path-shadows-torch", make.healthy(), "ok", id="torchs-own"),
        pytest.param(
            "ld-library-path-shadows-torch",
            entries(
                hidden("libnvJitLink.so.12", "/usr/local/cuda-12.1/lib64/libnvJitLink.so.12", "12.1.105", "nvjitlink")
            ),
            "error",
            id="an-older-toolkit",
        ),
        pytest.param(
            "ld-library-path-shadows-torch",
            make.variables(make.healthy(loader=Unknown("x")), LD_LIBRARY_PATH="/usr/local/cuda-12.1/lib64:/opt/x"),
            "error",
            id="by-the-name-of-the-directory",
        ),
        pytest.param(
            "ld-library-path-shadows-torch",
            make.variables(make.healthy(loader=Unknown("x")), LD_LIBRARY_PATH="/usr/local/cuda-12.4/lib64"),
            "ok",
            id="the-seeds-own-advice",
        ),
        pytest.param(
            "ld-library-path-shadows-torch",
            make.variables(make.healthy(loader=()), LD_LIBRARY_PATH="/opt/conda/lib"),
            "warning",
            id="conda",
        ),
        pytest.param(
            "ld-library-path-shadows-torch",
            make.variables(make.healthy(loader=()), LD_LIBRARY_PATH="/usr/local/cuda-13.0/lib64"),
            "ok",
            id="other-names-in-another-major",
        ),
        pytest.param("ld-library-path-shadows-torch", make.bare(), "not-applicable", id="no-torch"),
        pytest.param(
            "ld-library-path-shadows-torch", make.bare(packages=Unknown("x")), "not-applicable", id="no-packages"
        ),
    ],
)
def test_shadows(rule: str, facts: Facts, expected: str) -> None:
    assert make.said(rule, facts, LAUNCH) == expected


def test_the_wheels_folder_comes_before_the_systems_cudnn() -> None:
    """TransformerEngine links every part of cuDNN, and the loader has only the system's in its cache."""
    python = make.healthy().python
    assert not isinstance(python, Unknown)
    folder = f"{python.site_packages[0]}/nvidia/cudnn/lib"
    adv = "libcudnn_adv.so.9"
    part = LoaderEntry(library=adv, path=f"{SYSTEM}/{adv}", through="cache", version="9.14.0", wanted=f"{folder}/{adv}")
    fix = make.outcomes("cudnn-mixed", entries(part), LAUNCH)[0].fix
    assert [command.split("=", 1)[1].split("$")[0] for command in fix[0].commands] == [folder]
    assert "Uninstall" in fix[1].text


def test_the_wheels_header_is_named_as_cudnn_path() -> None:
    outcome = make.outcomes("cudnn-header-differs-from-runtime", cudnn(*PIP, header("9.6.0")), TE)[0]
    assert outcome.fix[0].commands[0] == f"export CUDNN_PATH={make.site('3.10')}/nvidia/cudnn"


def test_only_the_directory_that_hides_is_taken_out() -> None:
    facts = make.variables(make.healthy(loader=()), LD_LIBRARY_PATH="/usr/local/cuda-12.1/lib64:/opt/mine")
    outcome = make.outcomes("ld-library-path-shadows-torch", facts, LAUNCH)[0]
    assert outcome.fix[0].commands == ("export LD_LIBRARY_PATH=/opt/mine",)


def test_vllm_may_be_told_of_another_nccl() -> None:
    facts = make.variables(make.healthy(), VLLM_NCCL_SO_PATH="/n/libnccl.so.2.18.1")
    assert make.said("nccl-shadowed", facts, make.target(engine="vllm")) == "warning"
    assert make.said("nccl-shadowed", facts, LAUNCH) == "ok"
