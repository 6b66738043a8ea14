from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envcheck.binary import archive
from envcheck.binary.wheel import archs_of, verify
from envcheck.model import Finding
from tests import tiny_elf
from tests.tiny_elf import shared, wheel

NAME = "demo-1.0-cp310-cp310-linux_x86_64.whl"
MODULE = "demo/_C.cpython-310-x86_64-linux-gnu.so"
OLD, NEW = "_ZN3c105ErrorC2ENS_14SourceLocationESs", "_ZN3c105ErrorC2ENSt7__cxx1112basic_stringIcEE"
SM90 = {".nv_fatbin": tiny_elf.fatbin((2, 90, 0))}


def write(place: Path, data: bytes, name: str = NAME) -> Path:
    path = place / name
    path.write_bytes(data)
    return path


def summaries(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.summary for finding in findings]


@pytest.fixture
def torch_libs(tmp_path: Path) -> Path:
    place = tmp_path / "site" / "torch" / "lib"
    cudart = tmp_path / "site" / "nvidia" / "cuda_runtime" / "lib"
    place.mkdir(parents=True)
    cudart.mkdir(parents=True)
    (place / "libc10.so").write_bytes(shared(soname="libc10.so", defined=[OLD]))
    (place / "libtorch_cpu.so").write_bytes(shared(soname="libtorch_cpu.so", defined=["_ZN2at4zeroEv"]))
    (place / "libbroken.so").write_bytes(b"GROUP ( libc.so.6 )")
    (cudart / "libcudart.so.12").write_bytes(shared(soname="libcudart.so.12", defined=["cudaFree"]))
    return place


def test_a_wheel_that_is_what_was_asked_for(tmp_path: Path, torch_libs: Path) -> None:
    data = shared(
        needed=["libc10.so", "libtorch_cpu.so", "libcudart.so.12", "libhelper.so", "libstdc++.so.6", "libcuda.so.1"],
        undefined=[OLD, "_ZN2at4zeroEv", "cudaFree", "helper", "cuInit", "PyList_New"],
        needs={"libc.so.6": ["GLIBC_2.17"], "libstdc++.so.6": ["GLIBCXX_3.4.19"]},
        sections=SM90 | {".rodata": b"/usr/include/c++/12/bits/x.h\0/usr/local/cuda/include/a.cuh"},
    )
    files = {MODULE: data, "demo.libs/libhelper.so": shared(defined=["helper"]), "demo/__init__.py": b""}
    path = write(tmp_path, wheel(files))
    found = verify(
        path,
        archs=["9.0"],
        cxx11_abi=False,
        glibc_max="2.31",
        glibcxx_max="3.4.28",
        torch_libs=torch_libs,
        python_tag="cp310",
        build_paths=["/build/demo"],
    )
    assert found == ()
    assert archs_of(path) == ("9.0",)


def test_nothing_asked_nothing_found(tmp_path: Path) -> None:
    assert verify(write(tmp_path, wheel({MODULE: shared(needed=["libx.so"], undefined=[NEW])}))) == ()


def test_a_label_that_lies_is_named(tmp_path: Path) -> None:
    version, name = (
        "2.8.0+cu12torch2.6cxx11abifalse",
        "demo-2.8.0+cu12torch2.6cxx11abiFALSE-cp310-cp310-linux_x86_64.whl",
    )
    data = wheel({MODULE: shared(undefined=[NEW])}, version=version)
    (finding,) = verify(write(tmp_path, data, name), cxx11_abi=False)
    assert finding.summary == "the C++ ABI is not torch's; its name says cxx11abiFALSE"
    assert finding.found == "_C.cpython-310-x86_64-linux-gnu.so: the new C++ ABI (__cxx11)"
    assert finding.expected == "the old C++ ABI"
    assert finding.severity == "error"


def test_floors(tmp_path: Path) -> None:
    data = shared(needs={"libc.so.6": ["GLIBC_2.32"], "libstdc++.so.6": ["GLIBCXX_3.4.29"]})
    found = verify(write(tmp_path, wheel({MODULE: data})), glibc_max="2.31", glibcxx_max="3.4.28")
    assert summaries(found) == ["a newer C library is needed", "a newer libstdc++ is needed"]
    assert found[0].found == "_C.cpython-310-x86_64-linux-gnu.so: GLIBC_2.32"


def test_a_platform_tag_that_promises_too_much(tmp_path: Path) -> None:
    tag = "cp310-cp310-manylinux_2_17_x86_64"
    data = wheel({MODULE: shared(needs={"libc.so.6": ["GLIBC_2.32"]})}, tags=[tag])
    found = verify(write(tmp_path, data, f"demo-1.0-{tag}.whl"))
    assert summaries(found) == ["the platform tag promises an older C library than is needed"]


def test_libraries_and_symbols_that_nothing_has(tmp_path: Path, torch_libs: Path) -> None:
    data = shared(
        needed=["libc10.so", "libcudart.so.11.0", "libpython3.10.so.1.0"],
        undefined=["_ZN3c104cuda9SetDeviceEi", "_ZN2at5otherEv", "unheard_of", "cudaGone"],
    )
    found = verify(write(tmp_path, wheel({MODULE: data})), torch_libs=torch_libs)
    assert [(finding.summary, finding.severity) for finding in found] == [
        ("it needs a library that neither the wheel, torch nor the system has", "error"),
        ("it links the Python library, which many interpreters do not have", "warning"),
        ("libc10_cuda of this torch does not define a symbol that is needed", "error"),
    ]
    assert "c10::cuda::SetDevice(int) (_ZN3c104cuda9SetDeviceEi) and 2 more" in found[2].found


@pytest.mark.parametrize(
    ("asked", "entries", "expected"),
    [
        pytest.param(["9.0"], [(2, 90, 0), (1, 90, 0)], [], id="with-ptx"),
        pytest.param(["9.0"], [(2, 90, 0x100000)], [], id="arch-specific-serves"),
        pytest.param(["8.0", "9.0"], [(2, 80, 0)], ["no GPU code for 9.0"], id="missing"),
        pytest.param(["9.0"], [(2, 80, 0), (2, 90, 0)], ["GPU code that was not asked for: 8.0"], id="more"),
        pytest.param(["9.0+PTX"], [(2, 90, 0)], ["no GPU code for 9.0+PTX"], id="no-ptx"),
    ],
)
def test_archs(tmp_path: Path, asked: list[str], entries: list[tuple[int, int, int]], expected: list[str]) -> None:
    data = shared(sections={".nv_fatbin": tiny_elf.fatbin(*entries)})
    assert summaries(verify(write(tmp_path, wheel({MODULE: data})), archs=asked)) == expected


def test_no_gpu_code_at_all(tmp_path: Path) -> None:
    (finding,) = verify(write(tmp_path, wheel({MODULE: shared()})), archs=["9.0"])
    assert (finding.summary, finding.found) == ("no GPU code for 9.0", "no GPU code")


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        pytest.param(b"/home/me/src/op.cu", [], [("a path of the build is named inside", "warning")], id="guessed"),
        pytest.param(b"x /tmp/b/op", ["/tmp/b"], [("a directory of the build is named inside", "error")], id="given"),
        pytest.param(b"op.cu /opt/rh/x.h", ["/tmp/b"], [], id="none"),
    ],
)
def test_build_paths(tmp_path: Path, text: bytes, given: list[str], expected: list[tuple[str, str]]) -> None:
    data = wheel({MODULE: shared(sections={".rodata": text, ".text": b"/home/me/in/code.cu"})})
    found = verify(write(tmp_path, data), build_paths=given)
    assert [(finding.summary, finding.severity) for finding in found] == expected


def test_sections_without_bytes_are_not_read(tmp_path: Path) -> None:
    body = bytearray(shared(sections={".data": bytes(8)}))
    table = struct.unpack_from("<Q", body, 40)[0]
    body[table + 64 + 4 : table + 64 + 8] = struct.pack("<I", 8)
    body[table + 64 + 32 : table + 64 + 40] = struct.pack("<Q", 1 << 40)
    assert verify(write(tmp_path, wheel({MODULE: bytes(body)}))) == ()


@pytest.mark.parametrize(
    ("tag", "module", "expected"),
    [
        pytest.param("cp310-cp310-linux_x86_64", MODULE, [], id="same"),
        pytest.param("cp39-abi3-linux_x86_64", "demo/_C.abi3.so", [], id="abi3-of-an-older-one"),
        pytest.param("py3-none-linux_x86_64", "demo/libx.so", [], id="any-python"),
        pytest.param(
            "cp312-abi3-linux_x86_64", "demo/_C.abi3.so", ["the wheel is for another Python"], id="newer-abi3"
        ),
        pytest.param("cp311-cp311-linux_x86_64", "demo/libx.so", ["the wheel is for another Python"], id="other"),
        pytest.param(
            "cp310-cp310-linux_x86_64",
            "demo/_C.cpython-311-x86_64-linux-gnu.so",
            ["an extension module is for another Python"],
            id="tag-against-content",
        ),
    ],
)
def test_python_tag(tmp_path: Path, tag: str, module: str, expected: list[str]) -> None:
    data = wheel({module: shared()}, tags=[tag])
    assert summaries(verify(write(tmp_path, data, f"demo-1.0-{tag}.whl"), python_tag="cp310")) == expected


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        pytest.param("demo.whl", {}, ["the file name is not a wheel's"], id="name"),
        pytest.param(NAME, {"name": "other"}, ["the file name tells another project than METADATA"], id="project"),
        pytest.param(NAME, {"version": "1.1"}, ["the file name tells another version than METADATA"], id="version"),
        pytest.param(NAME, {"version": "one"}, ["METADATA has no valid version"], id="no-version"),
        pytest.param(NAME, {"tags": ["py3-none-any"]}, ["the file name tells another tag than WHEEL"], id="tag"),
        pytest.param(NAME, {"without": ["METADATA"]}, ["the wheel has no metadata"], id="no-metadata"),
        pytest.param(NAME, {"without": ["RECORD"]}, ["the wheel has no RECORD"], id="no-record"),
        pytest.param(NAME, {"record": {MODULE: ""}}, ["a file is not in RECORD"], id="unlisted"),
        pytest.param(
            NAME, {"record": {MODULE: f"{MODULE},sha256=AAAA,1"}}, ["a file is not what RECORD says"], id="hash"
        ),
        pytest.param(NAME, {"record": {MODULE: f"{MODULE},,"}}, ["RECORD has no SHA-256 for a file"], id="no-hash"),
        pytest.param(
            NAME, {"record": {"x": "gone.py,sha256=A,1"}}, ["a file of RECORD is not in the wheel"], id="gone"
        ),
        pytest.param(NAME, {"record": {"x": "\0"}}, None, id="garbage"),
        pytest.param(NAME, {"record": {"x": "x" * 200_000}}, ["RECORD cannot be read"], id="endless-line"),
    ],
)
def test_metadata_and_record(tmp_path: Path, name: str, options: dict[str, object], expected: list[str] | None) -> None:
    found = verify(write(tmp_path, wheel({MODULE: shared()}, **options), name))  # type: ignore[arg-type]
    assert found
    if expected is not None:
        assert summaries(found) == expected


def test_a_label_in_the_name_alone_is_a_warning(tmp_path: Path) -> None:
    found = verify(write(tmp_path, wheel({MODULE: shared()}), "demo-1.0+cu124-cp310-cp310-linux_x86_64.whl"))
    assert [finding.severity for finding in found] == ["warning"]


def test_a_pure_wheel_with_machine_code(tmp_path: Path) -> None:
    data = wheel({"demo/libx.so": shared()}, tags=["py3-none-any"])
    found = verify(write(tmp_path, data, "demo-1.0-py3-none-any.whl"))
    assert summaries(found) == ["a wheel for any platform has machine code"]


@pytest.mark.parametrize("member", ["../evil.py", "/etc/evil", "a\\..\\b"])
def test_members_that_would_land_outside(tmp_path: Path, member: str) -> None:
    found = verify(write(tmp_path, wheel({member: b""})))
    assert summaries(found) == ["the wheel has a member that would land outside the environment"]


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path, wheel({MODULE: shared()}))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as file:
        file.writestr(MODULE, b"other")
    assert summaries(verify(path)) == ["the wheel has two members of one name"]


def test_members_that_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SUSPECT_BYTES", 1 << 10)
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 1 << 20)
    found = verify(write(tmp_path, wheel({"demo/zeros": bytes(2 << 20)})))
    assert summaries(found) == [
        "the wheel has a member that swells when it is unpacked",
        "the wheel is too large when it is unpacked",
    ]


def test_a_damaged_archive(tmp_path: Path) -> None:
    data = wheel({MODULE: shared(), "demo/data": bytes(range(256)) * 40})
    for broken in (b"", b"not a zip", data[:200], data[: len(data) // 2] + b"\xff" * 40 + data[len(data) // 2 + 40 :]):
        found = verify(write(tmp_path, broken))
        assert "the wheel is damaged" in summaries(found)
    assert summaries(verify(tmp_path / "gone.whl")) == ["the wheel is damaged"]


def test_archs_of_what_cannot_be_read(tmp_path: Path) -> None:
    assert archs_of(write(tmp_path, b"nothing")) == ()
    assert archs_of(write(tmp_path, wheel({MODULE: b"\x7fELF"}))) == ()


def test_a_binary_that_cannot_be_read_is_a_finding(tmp_path: Path) -> None:
    (finding,) = verify(write(tmp_path, wheel({MODULE: b"\x7fELF\x01\x01"})))
    assert finding.summary == "a binary cannot be read"
    assert finding.found.endswith("truncated: bytes 0 to 64 are wanted of a file of 6 bytes")


@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_a_finding_and_never_an_error(tmp_path: Path, data: st.DataObject) -> None:
    body = bytearray(wheel({MODULE: shared(sections=SM90), "demo/a.py": b"x = 1\n" * 50}))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] ^= data.draw(st.integers(1, 255))
    for finding in verify(write(tmp_path, bytes(body)), archs=["9.0"], cxx11_abi=True):
        assert finding.summary


def test_fields_of_a_folded_header() -> None:
    text = "Name: a\r\nTag: x\nTag: y\n folded: no\n\nTag: body\n"
    assert archive.fields(text) == {"name": ["a"], "tag": ["x", "y"]}


def test_what_was_unpacked_is_removed(tmp_path: Path) -> None:
    with archive.Archive(write(tmp_path, wheel({MODULE: shared()}))) as opened:
        assert opened.read()
        (member,) = opened.members
        assert Path(member.path).exists()
    assert not Path(member.path).exists()


def test_a_member_larger_than_it_says(tmp_path: Path) -> None:
    """The size in the central directory is what was judged; zipfile reads no more, and the checksum tells."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("demo/a", b"x" * 100)
    data = bytearray(buffer.getvalue())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    assert summaries(verify(write(tmp_path, bytes(data)))) == ["the wheel is damaged"]
