"""The provisioned toolchain: pins, sources, refusals, what is written, and (marked) a real one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from envcheck import data
from envcheck.errors import DataError, WorkError
from envcheck.stack import Range
from scripts import (
    download,
    process,
    toolchain,
    toolchain_compiler,
    toolchain_fetch,
    toolchain_gcc,
    toolchain_layout,
    toolchain_pin,
    toolchain_pins,
    toolchain_verify,
)
from scripts.toolchain_pins import Archive, Pins

GCC = Range(requires=">=9,<14", default="13", reason="nvcc refuses newer ones")
ARCHIVE = Archive(name="nvidia-cuda-toolkit", version="12.4.131~12.4.1-2", path="pool/x.deb", size=9, sha256="a" * 64)
PINS = Pins(version=1, kind="debian", release="trixie", cuda="12.4", nvcc="12.4.131", archive=(ARCHIVE,))
SHOW = """\
Package: nvidia-cuda-toolkit
Version: 12.4.131~12.4.1-2
Filename: pool/x.deb
Size: 9
SHA256: {sha}

Package: libcudart12
Version: 12.4.127
Filename: pool/y.deb
Size: 8
SHA256: {sha}

Package: libcudart12
Version: 12.4.99
Filename: pool/old.deb
Size: 8
SHA256: {sha}

Package: half
Version: 1
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCHECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ENVCHECK_DEBIAN_MIRROR", raising=False)


def answers(monkeypatch: pytest.MonkeyPatch, said: dict[str, str]) -> list[list[str]]:
    """Let programs answer by the first word of `said` that their command holds; give the commands."""
    asked: list[list[str]] = []

    def output(argv: list[str], **_: Any) -> str:
        asked.append(argv)
        for word, text in said.items():
            if word in " ".join(argv):
                return text
        raise WorkError(f"{argv[0]} was not found")

    monkeypatch.setattr(process, "output", output)
    return asked


@pytest.mark.parametrize("kind", toolchain_pins.SOURCES)
def test_the_committed_pins_are_whole(kind: toolchain_pins.SourceName) -> None:
    assert toolchain_pins.load("gcc").gcc.startswith("10.")
    pins = toolchain_pins.load(kind)
    assert pins.cuda == "12.4"
    assert pins.nvcc.startswith("12.4.")
    assert len({item.name for item in pins.archive}) == len(pins.archive) > 20
    assert toolchain_pins.render(pins) == toolchain_pins.place(kind).read_text(encoding="utf-8")
    assert "://" not in toolchain_pins.place("debian").read_text(encoding="utf-8")


def test_pins_survive_writing_and_reading() -> None:
    assert toolchain_pins.parse(toolchain_pins.render(PINS), "x") == PINS
    assert PINS.size == 9


@pytest.mark.parametrize("sha", [None, "", "abc"])
def test_an_archive_without_a_hash_is_refused(sha: str | None) -> None:
    bare = Pins(
        version=1,
        kind="redist",
        release="12.4.1",
        cuda="12.4",
        nvcc="12.4.131",
        archive=(Archive(name="cuda_nvcc", version="1", path="p", size=1, sha256=sha),),
    )
    with pytest.raises(DataError, match=r"(?s)archive\[0\] \(cuda_nvcc\).sha256.*--pin --from redist"):
        toolchain_pins.parse(toolchain_pins.render(bare), "pins.toml")


def test_pins_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain_pins, "ROOT", tmp_path)
    with pytest.raises(DataError, match=r"toolchain-debian.toml: expected a pins file"):
        toolchain_pins.load("debian")


def test_debian_pins_are_read_from_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain_pin, "DEBIAN_PACKAGES", ["nvidia-cuda-toolkit", "libcudart12"])
    monkeypatch.setattr(toolchain_pin.os.path, "exists", lambda _: True)  # type: ignore[attr-defined]
    asked = answers(monkeypatch, {"update": "", "apt-cache": SHOW.format(sha="a" * 64)})
    pins = toolchain_pin.debian("http://mirror.example/debian")
    assert [item.version for item in pins.archive] == ["12.4.127", "12.4.131~12.4.1-2"]
    assert pins.nvcc == "12.4.131"
    assert asked[0][:2] == ["apt-get", "update"]


def test_a_mirror_without_the_packages_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain_pin.os.path, "exists", lambda _: True)  # type: ignore[attr-defined]
    answers(monkeypatch, {"update": "", "apt-cache": SHOW.format(sha="a" * 64)})
    with pytest.raises(WorkError, match=r"mirror.example has no .*libcublas12"):
        toolchain_pin.debian("http://mirror.example")


def test_without_debians_keys_nothing_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain_pin, "KEYRINGS", ("/nonexistent/keyring.gpg",))
    with pytest.raises(WorkError, match="install debian-archive-keyring"):
        toolchain_pin.debian("http://mirror.example")


def manifest() -> dict[str, Any]:
    entry = {"version": "12.4.127", "linux-x86_64": {"relative_path": "p", "sha256": "b" * 64, "size": "7"}}
    return {"release_label": "12.4.1", **dict.fromkeys(toolchain_pin.REDIST_COMPONENTS, entry)}


def test_vendor_pins_are_read_from_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain_pin.download, "text", lambda _: json.dumps(manifest()))  # type: ignore[attr-defined]
    pins = toolchain_pin.redist()
    assert (pins.kind, len(pins.archive), pins.size) == ("redist", 22, 22 * 7)


@pytest.mark.parametrize("text", ["<html>", "[]", "{}"])
def test_a_manifest_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(toolchain_pin.download, "text", lambda _: text)  # type: ignore[attr-defined]
    with pytest.raises(WorkError, match="not the manifest that was expected"):
        toolchain_pin.redist("https://copy.example/")


def test_mirrors_come_from_the_hosts_own_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    rows = "Debian http://a.example/debian/\nDebian http://a.example/debian/\nDocker http://b.example/\n"
    answers(monkeypatch, {"indextargets": rows})
    assert toolchain_fetch.debian_mirrors() == ["http://a.example/debian/"]
    assert toolchain.source_of("auto", None) == "debian"
    assert toolchain_fetch.mirrors("debian", "http://named.example") == ["http://named.example"]


def test_hosts_without_a_debian_mirror_take_the_vendors_archives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert toolchain.source_of("auto", None) == "redist"
    assert toolchain.source_of("auto", "http://mirror.example") == "debian"
    assert toolchain.source_of("redist", None) == "redist"
    assert toolchain_fetch.mirrors("redist", None) == [toolchain_pin.REDIST_BASE]
    with pytest.raises(WorkError, match="names no Debian mirror"):
        toolchain_fetch.mirrors("debian", None)


def test_a_mirror_can_be_named_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCHECK_DEBIAN_MIRROR", "http://near.example/debian")
    assert toolchain_fetch.debian_mirrors() == ["http://near.example/debian"]


def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "aarch64")  # type: ignore[attr-defined]
    with pytest.raises(WorkError, match="Linux x86_64, this is Linux aarch64"):
        toolchain.provision("debian", GCC, mirror=None, prefix=tmp_path / "p", keep=False)


def test_a_full_disk_is_said_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 30}))
    with pytest.raises(WorkError, match="1024 MiB free"):
        toolchain.provision("debian", GCC, mirror=None, prefix=tmp_path / "p", keep=False)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Everything of a provisioning but the archives and the compilers."""
    file = tmp_path / "x.deb"
    file.write_bytes(b"x")
    monkeypatch.setattr(toolchain_pins, "load", lambda _: PINS)
    monkeypatch.setattr(toolchain, "host_cxx", lambda _: ("/usr/bin/g++", "12.2.0"))
    monkeypatch.setattr(download, "fetch", lambda *_, **__: file)

    def unpack(_kind: str, _archive: Archive, _file: Path, into: Path) -> None:
        (into / "bin").mkdir(parents=True)
        (into / "bin/nvcc").write_text("nvcc", encoding="ascii")

    monkeypatch.setattr(toolchain.toolchain_layout, "unpack", unpack)  # type: ignore[attr-defined]
    answers(monkeypatch, {"--version": "Cuda compilation tools, release 12.4, V12.4.131\n"})
    proof = toolchain_verify.Proof(nvcc="12.4.131", host_compiler="/usr/bin/g++", archs=("90",), ran_on_gpu=False)
    monkeypatch.setattr(toolchain_verify, "compiles", lambda *_: proof)
    return file


def test_a_toolchain_is_made_recorded_and_found_again(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toolchain.provisioned() is None
    assert toolchain.main(["--from", "redist"]) == 0
    prefix = toolchain.provisioned()
    assert prefix == tmp_path / "cache/toolchains/cuda-12.4"
    assert f"CUDA_HOME={prefix}" in capsys.readouterr().out
    record = json.loads((prefix / toolchain.RECORD).read_text(encoding="utf-8"))
    assert record["archives"]["nvidia-cuda-toolkit"]["sha256"] == "a" * 64
    assert json.loads((prefix / "version.json").read_text(encoding="utf-8"))["cuda"]["version"] == "12.4.131"
    assert not made.exists()
    assert toolchain.main(["--from", "redist"]) == 0
    assert "is there already" in capsys.readouterr().out
    assert toolchain.main(["--verify"]) == 0
    assert "nothing was run" in capsys.readouterr().out


def test_archives_of_another_nvcc_are_refused_and_leave_nothing(
    made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers(monkeypatch, {"--version": "Cuda compilation tools, release 12.5, V12.5.40\n"})
    with pytest.raises(WorkError, match=r"nvcc 12.4.131 was pinned, the archives hold 12.5.40"):
        toolchain.provision("redist", GCC, mirror=None, prefix=tmp_path / "cuda", keep=True)
    assert made.exists()
    assert not (tmp_path / "cuda").exists()


def test_a_changed_file_is_named(made: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "cuda"
    toolchain.provision("redist", GCC, mirror=None, prefix=prefix, keep=True)
    assert made.exists()
    (prefix / "bin/nvcc").write_text("other", encoding="ascii")
    with pytest.raises(WorkError, match=r"1 files of .* changed: bin/nvcc"):
        toolchain_verify.check_files(prefix)
    (prefix / toolchain_verify.MANIFEST).unlink()
    with pytest.raises(WorkError, match="no readable manifest"):
        toolchain_verify.check_files(prefix)


def test_a_stack_of_another_cuda_is_refused(tmp_path: Path) -> None:
    text = data.read("stacks/verl-lts-cu124.toml")
    path = tmp_path / "other.toml"
    path.write_text(text.replace('default = "12.4"', 'default = "13.0"'), encoding="utf-8")
    with pytest.raises(WorkError, match=r"pinned archives are CUDA 12.4, .* wants 13.0"):
        toolchain.main(["--stack", str(path)])


def test_pin_writes_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(toolchain_pins, "ROOT", tmp_path)
    monkeypatch.setitem(toolchain_pin.PINNERS, "debian", lambda _: PINS)
    assert toolchain.main(["--pin", "--from", "debian", "--mirror", "http://m.example"]) == 0
    assert toolchain_pins.load("debian") == PINS


def test_nvcc_that_says_no_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, {"--version": "nonsense"})
    with pytest.raises(WorkError, match="printed no version"):
        toolchain_verify.nvcc_version(tmp_path)


@pytest.mark.parametrize(("said", "ran"), [("gpu-ok\n", True), ("no-gpu\n", False)])
def test_a_proof_says_what_was_compiled_and_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, *, ran: bool
) -> None:
    listed = "ELF file    1: proof.1.sm_80.cubin\nELF file    2: proof.2.sm_90.cubin\n"
    version = "Cuda compilation tools, release 12.4, V12.4.131\n"
    answers(monkeypatch, {"--list-elf": listed, "-lcublas": "", "--version": version, "./proof": said})
    proof = toolchain_verify.compiles(tmp_path, "/usr/bin/g++")
    assert (proof.archs, proof.ran_on_gpu) == (("80", "90"), ran)


def test_machine_code_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers(monkeypatch, {"--list-elf": "ELF file 1: proof.1.sm_52.cubin\n", "-lcublas": ""})
    with pytest.raises(WorkError, match=r"asked for sm_80, sm_90 and made \('52',\)"):
        toolchain_verify.compiles(tmp_path, "g++")


def test_the_proofs_environment_holds_no_other_toolkit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPATH", "/opt/other/include")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    environ = toolchain_verify.environment(Path("/cuda"))
    assert "CPATH" not in environ
    assert environ["LD_LIBRARY_PATH"] == "/cuda/lib64:/opt/lib"
    assert environ["PATH"].startswith("/cuda/bin:")


def compilers(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name in versions else None)
    answers(monkeypatch, {f"/usr/bin/{name} ": version for name, version in versions.items()})
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CUDAHOSTCXX", raising=False)


def test_the_first_gcc_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    compilers(monkeypatch, {"g++": "14.2.0\n", "g++-13": "13.3.0\n", "g++-12": "12.2.0\n"})
    assert toolchain_compiler.host_cxx(GCC) == ("/usr/bin/g++-13", "13.3.0")
    monkeypatch.setenv("CXX", "g++-12")
    assert toolchain_compiler.host_cxx(GCC) == ("/usr/bin/g++-12", "12.2.0")


def test_no_gcc_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    compilers(monkeypatch, {"g++": "7.5.0\n", "g++-13": "clang version 16\n"})
    with pytest.raises(WorkError, match=r"(?s)no g\+\+ >=9,<14 was found \(seen: /usr/bin/g\+\+ 7.5.0\).*g\+\+-13"):
        toolchain_compiler.host_cxx(GCC)


def test_a_compiler_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    compilers(monkeypatch, {})
    assert toolchain_compiler.version("/usr/bin/g++") is None


def test_the_c_compiler_of_a_cxx_compiler(tmp_path: Path) -> None:
    (tmp_path / "gcc-12").touch()
    assert toolchain_compiler.cc_of(str(tmp_path / "g++-12")) == str(tmp_path / "gcc-12")
    assert toolchain_compiler.cc_of(str(tmp_path / "g++-9")) == str(tmp_path / "g++-9")


GCC_PINS = Pins(version=1, kind="gcc", release="bullseye", gcc="10.2.1", archive=(ARCHIVE,))


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """The packages of a GCC without their contents; what its programs say."""
    file = tmp_path / "g.deb"
    file.write_bytes(b"x")
    said = {"-dumpfullversion": "10.2.1\n", "./x": "b4\n", "x.cpp": ""}
    monkeypatch.setattr(toolchain_pins, "load", lambda _: GCC_PINS)
    monkeypatch.setattr(download, "fetch", lambda *_, **__: file)
    monkeypatch.setattr(toolchain_layout, "unpack", lambda *_: None)
    monkeypatch.setenv("ENVCHECK_DEBIAN_MIRROR", "http://m.example")
    answers(monkeypatch, said)
    return said


def test_the_packaged_gcc_is_made_once(
    packaged: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert toolchain_gcc.provisioned() is None
    assert toolchain.main(["--gcc"]) == 0
    cxx = tmp_path / "cache/toolchains/gcc/bin/g++"
    assert capsys.readouterr().out.strip().endswith(f"CXX={cxx}")
    assert toolchain_gcc.provisioned() == str(cxx)
    assert 'x86_64-linux-gnu-g++-10" --sysroot="$root"' in cxx.read_text(encoding="ascii").replace("\\\n", "")
    packaged["x.cpp"] = "never asked again"
    assert toolchain_gcc.provision() == str(cxx)


def test_hosts_whose_gcc_does_not_fit_get_the_packaged_one(
    packaged: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert packaged
    monkeypatch.setattr(toolchain, "host_cxx", lambda _: ("/usr/bin/g++", "12.2.0"))
    assert toolchain.compiler(GCC) == "/usr/bin/g++"

    def none(_: Range) -> tuple[str, str]:
        raise WorkError("no g++ fits")

    monkeypatch.setattr(toolchain, "host_cxx", none)
    assert toolchain.compiler(GCC) == str(tmp_path / "cache/toolchains/gcc/bin/g++")


@pytest.mark.parametrize(
    ("program", "said", "fault"),
    [
        ("./x", "Segmentation fault", "printed 'Segmentation fault' instead of 'b4'"),
        ("-dumpfullversion", "clang", "printed 'clang'"),
        ("-dumpfullversion", "12.2.0", r"GCC 10.2.1 was pinned, the packages hold 12.2.0"),
    ],
)
def test_a_packaged_gcc_that_does_not_work_is_not_kept(
    packaged: dict[str, str], program: str, said: str, fault: str
) -> None:
    packaged[program] = said
    with pytest.raises(WorkError, match=fault):
        toolchain_gcc.provision()
    assert toolchain_gcc.provisioned() is None


def test_gcc_pins_are_read_from_the_oldest_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain_pin, "GCC_PACKAGES", ["g++-10"])
    monkeypatch.setattr(toolchain_pin.os.path, "exists", lambda _: True)  # type: ignore[attr-defined]
    row = "Package: g++-10\nVersion: 10.2.1-6\nFilename: pool/g.deb\nSize: 1\nSHA256: {}\n".format("a" * 64)
    answers(monkeypatch, {"update": "", "apt-cache": row})
    pins = toolchain_pin.gcc("http://m.example")
    assert (pins.gcc, pins.release) == ("10.2.1", "bullseye")
    assert toolchain_pins.parse(toolchain_pins.render(pins), "x") == pins


@pytest.mark.toolchain
def test_the_real_toolchain_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENVCHECK_CACHE")
    prefix = toolchain.provisioned()
    if prefix is None:
        pytest.skip("no toolchain: nox -s toolchain")
    cxx, _ = toolchain_compiler.host_cxx(GCC)
    proof = toolchain_verify.compiles(prefix, cxx)
    assert proof.nvcc.startswith("12.4.")
    assert proof.archs == ("80", "90")
