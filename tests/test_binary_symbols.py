from __future__ import annotations

import io
import sys

import pytest

from envcheck.binary.elf import Elf, Symbol
from envcheck.binary.image import Image
from envcheck.binary.ldso import Library
from envcheck.binary.symbols import SymbolTables, blamed, demangled, owner
from tests.tiny_elf import shared

SET_DEVICE = "_ZN3c104cuda9SetDeviceEi"


def library(path: str, *defined: str) -> Library:
    return Library(path=path, through="", elf=Elf(Image(io.BytesIO(shared(defined=defined)), path)))


def asked(*names: str) -> list[Symbol]:
    return [Symbol(name, "", "") for name in names]


def test_undefined_are_those_that_nothing_in_the_scope_defines() -> None:
    c10, python = library("/s/torch/lib/libc10.so", "_ZN3c101aEv"), library("/usr/bin/python", "PyList_New")
    tables = SymbolTables()
    names = asked("_ZN3c101aEv", "PyList_New", SET_DEVICE)
    assert tables.undefined(names, [python, c10]) == (SET_DEVICE,)
    assert tables.undefined(names, [c10]) == ("PyList_New", SET_DEVICE)


def test_a_provider_outside_the_scope_does_not_count() -> None:
    tables = SymbolTables()
    first, second = library("/a/libx.so", "nvte_a"), library("/b/libx.so", "nvte_b")
    assert tables.undefined(asked("nvte_a"), [first]) == ()
    assert tables.undefined(asked("nvte_a", "nvte_b"), [second]) == ("nvte_a",)


def test_a_library_that_turns_out_damaged_is_a_fault_and_no_provider() -> None:
    data = bytearray(shared(defined=["nvte_a"]))
    broken = Library(path="/x.so", through="", elf=Elf(Image(io.BytesIO(data), "/x.so")))
    assert broken.elf is not None
    broken.elf.dynamic[6] = [1 << 60]  # the symbol table lies nowhere
    other = library("/y.so", "nvte_a")
    assert SymbolTables().undefined(asked("nvte_a"), [broken, other]) == ()
    assert broken.fault.startswith("damaged: address")
    assert broken.elf is None


@pytest.mark.parametrize(
    ("symbols", "missing", "expected"),
    [
        pytest.param((SET_DEVICE, "cuInit"), (), (SET_DEVICE, "cuInit"), id="nothing-missing"),
        pytest.param((SET_DEVICE, "cuInit"), ("libcuda.so.1",), (SET_DEVICE,), id="driver-missing"),
        pytest.param((SET_DEVICE,), ("libc10_cuda.so",), (), id="torch-missing"),
    ],
)
def test_blamed(symbols: tuple[str, ...], missing: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert blamed(symbols, missing) == expected


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        (SET_DEVICE, "libc10_cuda"),
        ("_ZN3c105ErrorC2ENS_14SourceLocationESs", "libc10"),
        ("_ZNK3c1011StorageImpl27throw_data_ptr_access_errorEv", "libc10"),
        ("_ZN2at4_ops5zeros4callEv", "libtorch_cpu"),
        ("_ZN5torch3jit17parseSchemaOrNameERKSsb", "libtorch_cpu"),
        ("_ZTVN5torch8autograd4NodeE", "libtorch_cpu"),
        ("_ZN2at4cuda20getCurrentCUDAStreamEa", "libtorch_cuda"),
        ("_Z16THPVariable_WrapN2at10TensorBaseE", "libtorch_python"),
        ("__nvJitLinkComplete_12_4", "libnvJitLink"),
        ("cuGreenCtxStreamCreate", "libcuda"),
        ("cudaLaunchKernelExC", "libcudart"),
        ("cublasLtMatmul", "libcublas"),
        ("cudnnCreate", "libcudnn"),
        ("ncclCommResume", "libnccl"),
        ("nvrtcCompileProgram", "libnvrtc"),
        ("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv", "libstdc++"),
        ("_ZN18transformer_engine6getenvIbEET_RKSs", "libtransformer_engine"),
        ("PyUnicode_New", "the Python interpreter"),
        ("something_else", None),
    ],
)
def test_owner(symbol: str, expected: str | None) -> None:
    assert owner(symbol) == expected


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        (SET_DEVICE, "c10::cuda::SetDevice(int)"),
        ("_ZN3c105ErrorC2ENS_14SourceLocationESs", "c10::Error::Error(c10::SourceLocation, std::string)"),
        ("_ZN3c105ErrorD1Ev", "c10::Error::~Error()"),
        ("cuInit", "cuInit"),
        ("_ZN", "_ZN"),
        ("_Z" + "N1a" * 5000, "_Z" + "N1a" * 5000),
    ],
)
def test_demangled(symbol: str, expected: str) -> None:
    assert demangled(symbol) == expected


def test_without_the_demangler_the_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itanium_demangler", None)
    assert demangled(SET_DEVICE) == SET_DEVICE
