from __future__ import annotations

import io

import pytest

from envcheck.binary import fatbin
from envcheck.binary.elf import Elf
from envcheck.binary.image import BinaryError, Image
from tests import tiny_elf

PTX, CUBIN, ARCH, FAMILY = 1, 2, 0x100000, 0x200000


def archs(section: bytes, name: str = ".nv_fatbin") -> tuple[str, ...]:
    return fatbin.archs(Elf(Image(io.BytesIO(tiny_elf.shared(sections={name: section})), "/x.so")))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([(CUBIN, 90, 0)], ("9.0",), id="cubin"),
        pytest.param([(CUBIN, 90, ARCH)], ("9.0a",), id="arch-specific"),
        pytest.param([(CUBIN, 100, FAMILY | 0x1000000)], ("10.0f",), id="family"),
        pytest.param([(PTX, 120, ARCH | 0x8000)], ("12.0a+PTX",), id="compressed-ptx"),
        pytest.param(
            [(CUBIN, 120, 0), (CUBIN, 80, 0), (PTX, 80, 0), (CUBIN, 86, 0)],
            ("8.0", "8.6", "12.0", "8.0+PTX"),
            id="order",
        ),
        pytest.param([(8, 90, 0)], (), id="lto-code"),
        pytest.param([(CUBIN, 0, 0)], (), id="no-number"),
    ],
)
def test_entries(entries: list[tuple[int, int, int]], expected: tuple[str, ...]) -> None:
    assert archs(tiny_elf.fatbin(*entries)) == expected


def test_no_gpu_code() -> None:
    assert archs(b"text", ".rodata") == ()


def test_containers_follow_each_other_with_padding() -> None:
    one = tiny_elf.fatbin((CUBIN, 80, 0))
    assert archs(one + bytes(24) + tiny_elf.fatbin((CUBIN, 90, 0))) == ("8.0", "9.0")


def test_a_stray_object_of_many_is_left_out() -> None:
    """As sm_52 in vllm/_C.abi3.so, in one container of 47."""
    many = tiny_elf.fatbin((CUBIN, 80, 0), (CUBIN, 90, 0)) * 5
    assert archs(many + tiny_elf.fatbin((CUBIN, 52, 0), (PTX, 52, 0))) == ("8.0", "9.0")
    few = tiny_elf.fatbin((CUBIN, 80, 0)) * 2
    assert archs(few + tiny_elf.fatbin((CUBIN, 52, 0))) == ("5.2", "8.0")


def test_what_is_no_container_is_passed_over() -> None:
    assert archs(b"\x11" * 5000) == ()
    assert archs(tiny_elf.fatbin((CUBIN, 90, 0)) + b"\x11" * 64) == ("9.0",)


def test_a_truncated_container_ends_quietly() -> None:
    whole = tiny_elf.fatbin((CUBIN, 80, 0), (CUBIN, 90, 0))
    assert archs(whole[:100]) == ("8.0",)


def test_an_entry_with_an_impossible_header_ends_its_container() -> None:
    damaged = bytearray(tiny_elf.fatbin((CUBIN, 80, 0), (CUBIN, 90, 0)))
    damaged[16 + 80 + 4] = 8
    assert archs(bytes(damaged)) == ("8.0",)


def test_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fatbin, "MAX_ENTRIES", 3)
    with pytest.raises(BinaryError, match="too many entries"):
        archs(tiny_elf.fatbin((CUBIN, 80, 0), (CUBIN, 90, 0)) * 4)
