from __future__ import annotations

import io

import pytest

from envcheck.binary import abi
from envcheck.binary.elf import Elf, Need, Symbol
from envcheck.binary.image import Image
from tests import tiny_elf

OLD = "_ZN3c105ErrorC2ENS_14SourceLocationESs"
NEW = "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        pytest.param([OLD], False, id="old"),
        pytest.param([NEW], True, id="new"),
        pytest.param([OLD, NEW], True, id="both-is-new"),
        pytest.param(["_ZN3c104cuda9SetDeviceEi", "PyList_New"], None, id="no-string"),
        pytest.param(["_ZNSs6appendERKSs"], None, id="a-string-but-not-torchs"),
        pytest.param(["_ZN5torch3jit17parseSchemaOrNameERKSsb"], False, id="flashinfer-911"),
        pytest.param(["_ZN2at5PressSsv"], False, id="after-an-identifier"),
        pytest.param([], None, id="nothing"),
    ],
)
def test_cxx11_abi(symbols: list[str], expected: bool | None) -> None:
    assert abi.cxx11_abi(Symbol(name, "", "") for name in symbols) is expected


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("_ZN2at6PressSEv", False),
        ("_ZN2at7PressSsEv", False),
        ("_ZN2at6TensorC1ERKS0_Ss", True),
        ("_ZN2at4funcILi12EEEvSs", True),
        ("_ZN2at4funcIT_S1_T0_EEvv", False),
        ("_ZN2at99Ss", False),
        ("_ZN2at", False),
    ],
)
def test_an_identifier_that_ends_in_ss_is_no_string(symbol: str, expected: bool) -> None:
    assert abi.uses_old_string(symbol) is expected


@pytest.mark.parametrize(
    ("exported", "expected"),
    [
        (abi.CHECK_FAIL + abi.NEW_STRING, True),
        (abi.CHECK_FAIL + abi.OLD_STRING, False),
        ("_ZN3c106detail14torchCheckFailEPKcS2_jS2_", None),
    ],
)
def test_abi_of_torch_by_libc10(exported: str, expected: bool | None) -> None:
    assert abi.torch_cxx11_abi(Elf(Image(io.BytesIO(tiny_elf.shared(defined=[exported])), "/libc10.so"))) is expected


def need(version: str, *, weak: bool = False) -> Need:
    return Need(library="libc.so.6", version=version, weak=weak, index=2)


def test_floors_are_numeric_and_pass_over_weak_and_private_versions() -> None:
    needs = [need("GLIBC_2.4"), need("GLIBC_2.17"), need("GLIBC_2.34", weak=True), need("GLIBC_PRIVATE")]
    assert abi.floor(needs, "GLIBC") == "2.17"
    assert abi.floor(needs, "GLIBCXX") is None
    assert abi.highest(["GLIBCXX_3.4.9", "GLIBCXX_3.4.30", "GLIBCXX_DEBUG_MESSAGE_LENGTH"], "GLIBCXX") == "3.4.30"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("/s/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so", "cpython-310"),
        ("/s/x.cpython-313t-x86_64-linux-gnu.so", "cpython-313t"),
        ("/s/sgl_kernel/common_ops.abi3.so", "abi3"),
        ("/s/x.pypy310-pp73-x86_64-linux-gnu.so", "pypy310-pp73"),
        ("/s/xformers/_C.so", None),
        ("/s/libcpython-310.so", None),
    ],
)
def test_python_abi_by_name(file: str, expected: str | None) -> None:
    assert abi.python_abi(file) == expected


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        (["libtorch.so", "libcudart.so.12"], 12),
        (["libcudart.so.11.0", "libcufft.so.11"], 11),
        (["libcublasLt.so.13", "libcurand.so.10"], 13),
        (["libcufft.so.11", "libcuda.so.1"], None),
        ([], None),
    ],
)
def test_cuda_major(needed: list[str], expected: int | None) -> None:
    assert abi.cuda_major(needed) == expected
