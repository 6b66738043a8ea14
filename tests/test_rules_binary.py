"""Binaries: each rule holds, is broken, lacks its fact; also where no extension was read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from envcheck.binary.abi import CHECK_FAIL
from envcheck.codec import Unknown
from envcheck.facts import Extension, Facts, LoaderEntry, Origin
from envcheck.model import Outcome
from envcheck.stack import Fault
from tests import factories as make

SET_DEVICE = "_ZN3c104cuda9SetDeviceEi"
ERROR_NEW = "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
ERROR_OLD = "_ZN3c105ErrorC2ENS_14SourceLocationESs"
MODULE = "/s/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so"
LTS = make.target(make.LTS)
BUILD = make.target(stage="build")


def ext(path: str = MODULE, **changes: Any) -> Extension:
    return Extension(path=path, **changes)


def flash_attn(version: str = "2.7.4.post1", facts: Facts | None = None, **changes: Any) -> Facts:
    return make.having(facts or make.healthy(), make.package("flash-attn", version, **changes))


def torch(facts: Facts, version: str, **changes: Any) -> Facts:
    return make.having(facts, make.package("torch", version, **{"cuda": "12.4", "cxx11_abi": False, **changes}))


def only(rule: str, facts: Facts, against: Any = None) -> Outcome:
    (outcome,) = make.outcomes(rule, facts, against)
    return outcome


RULES = (
    "extension-built-for-other-torch",
    "cxx11-abi-differs",
    "private-torch-build",
    "glibc-too-old",
    "libstdcxx-too-old",
    "extension-cuda-major-differs",
    "undefined-symbol",
)


@pytest.mark.parametrize("rule", RULES)
def test_healthy_hosts_are_silent(rule: str) -> None:
    assert only(rule, make.healthy()).outcome == "ok"
    assert only(rule, make.lts(), LTS).outcome == "ok"
    assert only(rule, make.healthy(), BUILD).outcome == "ok"


@pytest.mark.parametrize("rule", RULES)
def test_packages_that_cannot_be_read_are_unknown(rule: str) -> None:
    assert only(rule, make.healthy(packages=Unknown("no interpreter"))).outcome == "unknown"


@pytest.mark.parametrize("rule", RULES[:3])
def test_without_torch_there_is_nothing_to_judge(rule: str) -> None:
    assert only(rule, make.bare()).outcome == "not-applicable"


# extension-built-for-other-torch
def test_a_symbol_of_another_torch() -> None:
    found = only(RULES[0], flash_attn(extensions=(ext(undefined=(SET_DEVICE, "_ZN2at1aEv")),)))
    assert found.outcome == "error"
    assert found.subject == "flash-attn"
    assert found.summary == "flash-attn 2.7.4.post1 was built for another torch than the installed 2.5.1"
    assert found.found == (
        "flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol c10::cuda::SetDevice(int) "
        f"({SET_DEVICE}) and 1 more"
    )
    assert found.fix[0].commands == ("nox -s build-flash-attn -- --stack verl-sglang-cu124 --engine sglang",)
    assert found.fix[1].commands[0].startswith("FLASH_ATTENTION_FORCE_BUILD=TRUE uv pip install")


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        pytest.param({"build": "cu12torch2.6cxx11abiFALSE"}, "error", id="label"),
        pytest.param({"built_for": {"torch": "2.6"}}, "error", id="built-for"),
        pytest.param({"build": "cu12torch2.5cxx11abiFALSE"}, "ok", id="this-torch"),
        pytest.param({"build": "cu12torch2.6cxx11abiFALSE", "extensions": (ext(),)}, "warning", id="label-but-loads"),
        pytest.param({"origin": Origin(url="https://x/f-2%2Bcu12torch2.6cxx11abiFALSE-cp310.whl")}, "error", id="url"),
        pytest.param({"extensions": (ext(missing=("libtorch_cuda_cu.so",)),)}, "error", id="library-of-another-torch"),
        pytest.param({"extensions": (ext(missing=("libtorch_cuda.so", "libc10.so")),)}, "ok", id="torchs-own-library"),
        pytest.param({}, "ok", id="nothing-said"),
    ],
)
def test_a_label_for_another_torch(changes: dict[str, Any], outcome: str) -> None:
    assert make.said(RULES[0], flash_attn(**changes)) == outcome


@pytest.mark.parametrize(
    ("version", "outcome"), [("0.3.9.post2", "error"), ("0.1.0", "ok"), ("0.1.4", "error"), ("9.9", "ok")]
)
def test_sgl_kernel_by_the_table_where_its_bytes_were_not_read(version: str, outcome: str) -> None:
    facts = make.having(make.healthy(), make.package("sgl-kernel", version))
    assert make.said(RULES[0], facts) == outcome
    read = make.having(make.healthy(), make.package("sgl-kernel", version, extensions=(ext(),)))
    assert make.said(RULES[0], read) == "ok"


@pytest.mark.parametrize(
    ("torch_version", "changes", "outcome"),
    [
        pytest.param("2.7.1", {}, "warning", id="no-release-wheel"),
        pytest.param("2.4.1", {}, "ok", id="release-wheel"),
        pytest.param("2.7.1", {"origin": Origin(url="file:///src")}, "ok", id="built-here"),
        pytest.param("2.7.1", {"extensions": (ext(),)}, "ok", id="its-symbols-are-there"),
    ],
)
def test_flash_attn_without_a_wheel_for_this_torch(torch_version: str, changes: dict[str, Any], outcome: str) -> None:
    facts = torch(make.without(make.healthy(), "sgl-kernel"), torch_version, cxx11_abi=torch_version > "2.6")
    assert make.said(RULES[0], flash_attn("2.6.3" if not changes else "2.7.4.post1", facts, **changes)) == outcome


def test_another_torch_than_the_stacks_names_the_stacks_pair() -> None:
    facts = flash_attn("2.7.4.post1", torch(make.healthy(), "2.4.0"), extensions=(ext(undefined=(SET_DEVICE,)),))
    assert only(RULES[0], facts).fix[0].text == ("Install the stack's own pair: torch 2.5.1, flash-attn 2.7.4.post1")


def test_an_extension_that_is_not_missed_is_a_warning() -> None:
    facts = make.having(make.healthy(), make.package("xformers", "0.0.29", extensions=(ext(undefined=(SET_DEVICE,)),)))
    assert make.said(RULES[0], facts) == "warning"
    assert make.said("undefined-symbol", facts) == "warning"


def test_a_fault_that_the_stack_knows_is_a_note() -> None:
    symbol = "_ZNK3c1011StorageImpl27throw_data_ptr_access_errorEv"
    facts = make.having(make.healthy(), make.package("torchao", "0.8.0", extensions=(ext(undefined=(symbol,)),)))
    assert make.said("undefined-symbol", facts) == "warning"
    fault = Fault(package="torchao", text="undefined symbol", reason="nothing here uses it")
    stack = make.target().stack
    knowing = replace(make.target(), stack=replace(stack, lock=replace(stack.lock, known_faults=(fault,))))
    assert make.said(RULES[0], facts, knowing) == "ok"
    found = only("undefined-symbol", facts, knowing)
    assert found.outcome == "ok"
    assert "nothing here uses it" in found.summary


# cxx11-abi-differs
def test_a_wheel_whose_name_lies() -> None:
    """flash-attn 2.8 torch2.6cxx11abiFALSE under torch 2.6+cu124: its bytes have the new ABI."""
    lying = ext(cxx11_abi=True, undefined=(ERROR_NEW,))
    facts = flash_attn("2.8.0.post2", make.lts(), build="cu12torch2.6cxx11abiFALSE", extensions=(lying,))
    found = only(RULES[1], facts, LTS)
    assert found.outcome == "error"
    assert "flash-attn 2.8.0.post2+cu12torch2.6cxx11abiFALSE has the new C++ ABI" in found.summary
    assert found.summary.endswith("the name of its wheel, cxx11abiFALSE, lies")
    assert "c10::Error::Error(c10::SourceLocation, std::__cxx11::basic_string" in found.found
    assert "2.7.4.post1" in found.fix[0].text
    assert make.said(RULES[0], facts, LTS) == "ok"  # the ABI explains the symbol; the torch minor is right


def test_the_abi_by_the_symbols_that_are_not_found() -> None:
    facts = flash_attn(extensions=(ext(undefined=(ERROR_NEW,)),))
    assert (make.said(RULES[1], facts), make.said(RULES[0], facts)) == ("error", "ok")
    new = torch(make.without(make.healthy(), "sgl-kernel"), "2.5.1", cxx11_abi=True)
    same = flash_attn(facts=new, extensions=(ext(undefined=(ERROR_NEW,)),))
    assert (make.said(RULES[1], same), make.said(RULES[0], same)) == ("ok", "error")


@pytest.mark.parametrize(
    ("version", "changes", "outcome"),
    [
        pytest.param("2.8.0.post2", {"build": "cu12torch2.6cxx11abiFALSE"}, "error", id="lying-label"),
        pytest.param("2.8.2", {}, "error", id="no-published-wheel-fits"),
        pytest.param("2.8.2", {"origin": Origin(url="file:///src")}, "ok", id="built-here"),
        pytest.param("2.7.4.post1", {"build": "cu12torch2.6cxx11abiFALSE"}, "ok", id="true-label"),
        pytest.param("2.7.4.post1", {"build": "cu12torch2.6cxx11abiTRUE"}, "error", id="label-of-the-new-abi"),
        pytest.param("2.7.4.post1", {}, "ok", id="nothing-said"),
    ],
)
def test_abi_where_the_bytes_were_not_read(version: str, changes: dict[str, Any], outcome: str) -> None:
    assert make.said(RULES[1], flash_attn(version, make.lts(), **changes), LTS) == outcome


def test_a_build_for_torch_2_7_has_the_new_abi_whatever_its_label_says() -> None:
    facts = torch(make.without(make.healthy(), "sgl-kernel"), "2.7.1", cuda="12.6", cxx11_abi=True)
    assert make.said(RULES[1], flash_attn("2.8.3", facts, build="cu12torch2.7cxx11abiFALSE")) == "ok"


def test_flashinfer_of_the_other_cuda_label() -> None:
    """One torch version, two ABIs: 2.6+cu126 has the new one, 2.6+cu124 the old one."""
    item = make.package("flashinfer-python", "0.2.5+cu126torch2.6", build="cu126torch2.6")
    found = only(RULES[1], make.having(make.lts(), item), LTS)
    assert found.outcome == "error"
    assert found.found == "by its label: built with the public torch 2.6"


def test_a_public_wheel_in_an_ngc_torch() -> None:
    facts = torch(make.healthy(), "2.5.0a0+872d972e41.nv24.08", cxx11_abi=True, cuda="12.6")
    item = make.package("flashinfer-python", "0.2.0+cu124torch2.4", build="cu124torch2.4")
    facts = make.having(facts, item)
    assert make.said(RULES[1], facts) == "error"
    assert make.said(RULES[2], facts) == "error"


def test_abi_of_torch_by_the_table_or_unknown() -> None:
    new = (ext(cxx11_abi=True),)
    by_table = torch(make.healthy(), "2.5.1", cxx11_abi=Unknown("not read"))
    assert make.said(RULES[1], flash_attn(facts=by_table, extensions=new)) == "error"
    private = torch(make.healthy(), "2.6.0a0+git1234", cxx11_abi=Unknown("not read"))
    assert make.said(RULES[1], flash_attn(facts=private, extensions=new)) == "unknown"
    silent = torch(make.healthy(), "2.6.0a0+git1234", cxx11_abi=None)
    assert make.said(RULES[1], flash_attn(facts=silent, extensions=new)) == "unknown"


def test_extensions_without_strings_tell_nothing() -> None:
    facts = make.having(make.healthy(), make.package("flash-attn", "2.8.2", extensions=(ext(cxx11_abi=None),)))
    assert make.said(RULES[1], make.without(facts, "sgl-kernel", "torchvision")) == "ok"


# private-torch-build
@pytest.mark.parametrize(
    ("version", "build", "outcome"),
    [
        ("2.5.1", "cu124", "ok"),
        ("2.5.0a0+872d972e41.nv24.08", None, "error"),
        ("2.7.0.dev20250201", "cu126", "error"),
        ("2.6.0", "cu124.nv25.1", "error"),
        ("2.6.0+git1234", None, "error"),
    ],
)
def test_private_builds(version: str, build: str | None, outcome: str) -> None:
    facts = make.having(
        torch(make.healthy(), version, build=build, cxx11_abi=True), make.package("sgl-kernel", "0.1.4")
    )
    assert make.said(RULES[2], facts) == outcome


def test_a_private_build_whose_extensions_load_is_a_warning() -> None:
    facts = torch(make.healthy(), "2.5.0a0+872d972e41.nv24.08", cxx11_abi=True)
    bare = make.without(facts, "flashinfer-python", "xformers", "vllm")
    assert make.said(RULES[2], make.having(bare, make.package("sgl-kernel", "0.1.0", extensions=(ext(),)))) == "warning"
    broken = make.package("sgl-kernel", "0.1.0", extensions=(ext(undefined=(ERROR_OLD,)),))
    assert make.said(RULES[2], make.having(bare, broken)) == "error"


# glibc-too-old
def old_system(**changes: Any) -> Facts:
    return make.healthy(os=make.system(version="20.04", glibc="2.31", libstdcxx="3.4.28"), **changes)


@pytest.mark.parametrize(
    ("version", "changes", "outcome"),
    [
        pytest.param("2.7.4.post1", {"extensions": (ext(glibc="2.32"),)}, "error", id="by-the-bytes"),
        pytest.param("2.8.3", {"extensions": (ext(glibc="2.28"),)}, "ok", id="bytes-before-the-table"),
        pytest.param("2.8.3", {}, "error", id="by-the-table"),
        pytest.param("2.8.3", {"origin": Origin(url="file:///src")}, "ok", id="built-here"),
        pytest.param("2.7.4.post1", {"tag": "cp310-cp310-manylinux_2_34_x86_64"}, "error", id="by-the-tag"),
        pytest.param("2.7.4.post1", {"tag": "cp310-cp310-manylinux2014_x86_64"}, "ok", id="manylinux2014"),
        pytest.param("2.7.4.post1", {"tag": "cp310-cp310-linux_x86_64"}, "ok", id="plain-tag"),
        pytest.param("2.7.4.post1", {"extensions": (ext(glibc=Unknown("no ELF file")),)}, "ok", id="unread"),
    ],
)
def test_glibc(version: str, changes: dict[str, Any], outcome: str) -> None:
    assert make.said(RULES[3], flash_attn(version, old_system(), **changes)) == outcome


def test_glibc_finding() -> None:
    found = only(RULES[3], flash_attn("2.8.3", old_system(), extensions=(ext(glibc="2.32"), ext("/s/b.so"))))
    assert found.summary == (
        "flash-attn: flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so needs glibc 2.32, this system has 2.31"
    )
    assert found.fix[0].commands == ("nox -s build-flash-attn -- --stack verl-sglang-cu124 --engine sglang",)


def test_wheels_that_the_stack_would_install_are_judged_before_the_build() -> None:
    stack = BUILD.stack
    parts = tuple(replace(part, version="2.7.1") if part.distribution == "torch" else part for part in stack.components)
    newer = replace(BUILD, stack=replace(stack, components=parts))
    facts = make.bare(os=make.system(glibc="2.17"))
    assert make.said(RULES[3], facts, newer) == "error"
    assert make.said(RULES[3], facts, BUILD) == "ok"
    assert make.said(RULES[3], facts, replace(newer, stage="launch")) == "ok"


def test_glibc_that_was_not_read() -> None:
    facts = make.healthy(os=make.system(glibc=Unknown("no libc.so.6")))
    assert make.said(RULES[3], facts) == "unknown"
    assert make.said(RULES[3], make.healthy(os=Unknown("nothing"))) == "unknown"


# libstdcxx-too-old
def libstdcxx(version: str | None, path: Any = "/opt/conda/lib/libstdc++.so.6", through: str = "RPATH") -> Facts:
    entry = LoaderEntry(library="libstdc++.so.6", path=path, through=through, version=version)
    rest = tuple(item for item in make.loader("3.10") if item.library != entry.library)
    return make.healthy(loader=(*rest, entry))


@pytest.mark.parametrize(
    ("needs", "outcome"),
    [
        pytest.param({"glibcxx": "3.4.30"}, "error", id="glibcxx"),
        pytest.param({"glibcxx": "3.4.29"}, "ok", id="the-same"),
        pytest.param({"cxxabi": "1.3.14"}, "error", id="cxxabi"),
        pytest.param({"cxxabi": "1.3.13"}, "ok", id="cxxabi-of-the-same-release"),
        pytest.param({"cxxabi": "1.2"}, "ok", id="cxxabi-of-old"),
        pytest.param({"glibcxx": Unknown("?"), "cxxabi": Unknown("?")}, "ok", id="unread"),
        pytest.param({"undefined": ("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv",)}, "error", id="symbol"),
    ],
)
def test_libstdcxx(needs: dict[str, Any], outcome: str) -> None:
    facts = make.having(libstdcxx("3.4.29"), make.package("tensordict", "0.6.2", extensions=(ext(**needs),)))
    assert make.said(RULES[4], facts) == outcome


def test_libstdcxx_names_the_copy_that_loads_and_the_ways_out() -> None:
    item = make.package("tensordict", "0.6.2", extensions=(ext("/s/tensordict/_C.so", glibcxx="3.4.30"),))
    found = only(RULES[4], make.having(libstdcxx("3.4.26", "/opt/old/libstdc++.so.6", "LD_LIBRARY_PATH"), item))
    assert found.found == "/opt/old/libstdc++.so.6 (through LD_LIBRARY_PATH) has GLIBCXX_3.4.26"
    assert found.expected == "a libstdc++.so.6 that has GLIBCXX_3.4.30"
    assert found.fix[0].text == "Take /opt/old out of LD_LIBRARY_PATH"
    assert found.fix[-1].commands == ("export LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libstdc++.so.6",)


def test_libstdcxx_of_the_system_where_the_loader_was_not_asked() -> None:
    item = make.package("tensordict", "0.6.2", extensions=(ext(glibcxx="3.4.32"),))
    for facts in (make.healthy(loader=Unknown("no")), make.healthy(loader=()), libstdcxx(None)):
        assert only(RULES[4], make.having(facts, item)).found == "the system's libstdc++.so.6 has GLIBCXX_3.4.30"
    nothing = make.healthy(loader=(), os=make.system(libstdcxx=Unknown("not found")))
    assert make.said(RULES[4], make.having(nothing, item)) == "unknown"


def test_no_extension_needs_a_libstdcxx() -> None:
    assert only(RULES[4], make.bare(os=Unknown("nothing"))).outcome == "ok"


# extension-cuda-major-differs
@pytest.mark.parametrize(
    ("item", "outcome"),
    [
        pytest.param(make.package("sgl-kernel", "0.3.21", extensions=(ext(cuda_major=13),)), "error", id="bytes"),
        pytest.param(make.package("vllm", "0.8.5", build="cu118"), "error", id="label"),
        pytest.param(make.package("x", "1", extensions=(ext(missing=("libcublas.so.13",)),)), "error", id="missing"),
        pytest.param(make.package("x", "1", extensions=(ext(needed=("libcudart.so.11.0",)),)), "error", id="needed"),
        pytest.param(make.package("x", "1", extensions=(ext(needed=("libcufft.so.11",)),)), "ok", id="own-numbers"),
        pytest.param(make.package("vllm", "0.8.5", build="cu128"), "ok", id="same-major"),
        pytest.param(make.package("transformer-engine-cu13", "2.10.0"), "error", id="package-name"),
        pytest.param(make.package("transformer-engine-cu12", "2.3.0"), "ok", id="package-name-same"),
        pytest.param(make.package("vllm", "0.8.5", extensions=(ext(),)), "ok", id="no-cuda"),
    ],
)
def test_cuda_major(item: Any, outcome: str) -> None:
    assert make.said(RULES[5], make.having(make.healthy(), item)) == outcome


def test_cuda_major_finding() -> None:
    extension = ext("/s/c.so", cuda_major=13, needed=("libcudart.so.13", "libc.so.6"))
    facts = make.having(make.healthy(), make.package("sgl-kernel", "0.3.21", extensions=(extension,)))
    found = only(RULES[5], facts)
    assert (found.found, found.expected) == ("c.so needs libcudart.so.13", "a build for CUDA 12")
    assert "sgl-kernel==0.1.0" in found.fix[0].commands[0]


def test_a_hook_that_is_preloaded_for_another_cuda() -> None:
    path = "/s/torch_memory_saver_hook_mode_preload_cu13.abi3.so"
    found = only(RULES[5], make.variables(make.healthy(), LD_PRELOAD=f"/lib/libjemalloc.so:{path}"))
    assert found.subject == "LD_PRELOAD"
    assert found.fix[0].commands == (f"export LD_PRELOAD={path.replace('cu13', 'cu12')}",)
    assert make.said(RULES[5], make.variables(make.healthy(), LD_PRELOAD=path.replace("cu13", "cu12"))) == "ok"


def test_a_cpu_torch_has_no_cuda_to_differ_from() -> None:
    assert make.said(RULES[5], torch(make.healthy(), "2.5.1", cuda=None)) == "not-applicable"
    assert make.said(RULES[5], torch(make.healthy(), "2.5.1", cuda=Unknown("no version.py"))) == "unknown"


# undefined-symbol
def shadowed(name: str, **changes: Any) -> Facts:
    given = {"path": f"/opt/cuda/lib64/{name}", "through": "LD_LIBRARY_PATH", "wanted": f"/s/nvidia/{name}", **changes}
    rest = tuple(item for item in make.loader("3.10") if item.library != name)
    return make.healthy(loader=(*rest, LoaderEntry(library=name, **given)))


def test_a_shadowed_library_lacks_a_symbol() -> None:
    broken = ext("/s/nvidia/cusparse/lib/libcusparse.so.12", undefined=("__nvJitLinkComplete_12_4",))
    facts = torch(shadowed("libnvJitLink.so.12"), "2.5.1", extensions=(broken,))
    found = only(RULES[6], facts)
    assert found.summary == "torch 2.5.1 cannot be loaded: libnvJitLink lacks a symbol that it needs"
    assert found.found.endswith("/opt/cuda/lib64/libnvJitLink.so.12 is taken, through LD_LIBRARY_PATH")
    assert found.fix[0].commands == ("unset LD_LIBRARY_PATH",)
    through_cache = torch(shadowed("libnvJitLink.so.12", through="cache"), "2.5.1", extensions=(broken,))
    assert only(RULES[6], through_cache).fix[0].commands == ()


def test_a_driver_that_is_older_than_a_function() -> None:
    facts = make.having(
        make.healthy(), make.package("sgl-kernel", "0.2.5", extensions=(ext(undefined=("cuGreenCtxStreamCreate",)),))
    )
    found = only(RULES[6], facts)
    assert "libcuda lacks a symbol" in found.summary
    assert found.found.startswith("flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol cuGreenCtx")
    assert found.fix[-1].text.startswith("Take stubs and compat directories out of LD_LIBRARY_PATH")


@pytest.mark.parametrize(
    ("name", "symbol", "expected", "fix"),
    [
        ("torch", "ncclCommResume", "a libnccl that defines it", "Install torch again"),
        ("vllm", SET_DEVICE, "a libc10_cuda that defines it", "Install the stack's own pair"),
        ("vllm", "PyUnicode_New", "it in the Python interpreter", "Install the stack's own pair"),
        ("vllm", "strange", "it in a library that it needs", "Install the stack's own pair"),
    ],
)
def test_other_symbols(name: str, symbol: str, expected: str, fix: str) -> None:
    item = make.package(name, "2.4.0" if name == "torch" else "0.6.3", extensions=(ext(undefined=(symbol,)),))
    facts = make.having(torch(make.healthy(loader=()), "2.4.1"), item)
    found = only(RULES[6], facts)
    assert found.expected == expected
    assert found.fix[0].text.startswith(fix)


def test_a_package_that_the_stack_does_not_have() -> None:
    facts = make.having(make.healthy(), make.package("apex-like", "1.0", extensions=(ext(undefined=(CHECK_FAIL,)),)))
    found = only(RULES[6], facts)
    assert [fix.text for fix in found.fix] == ["Install a release of apex-like that was built for torch 2.5.1"]


def test_versions_that_cannot_be_read_do_not_hide_the_finding() -> None:
    facts = make.having(
        make.healthy(),
        make.package("vllm", Unknown("no METADATA"), extensions=(ext(undefined=(SET_DEVICE,)),)),  # type: ignore[arg-type]
    )
    assert "vllm of unknown version" in only(RULES[0], facts).summary
