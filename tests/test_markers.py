"""Environment markers: what is answered here agrees with packaging, and what is not is left to it."""

from __future__ import annotations

import sys

import pytest
from packaging.markers import Marker

from envcheck import markers

HERE = {
    "python_version": "3.10",
    "python_full_version": "3.10.13",
    "implementation_name": "cpython",
    "implementation_version": "3.10.13",
    "platform_python_implementation": "CPython",
    "os_name": "posix",
    "sys_platform": "linux",
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_release": "",
    "platform_version": "",
    "extra": "",
}
USUAL = (
    'python_version < "3.11"',
    "python_version<'3.10'",
    'python_version >= "3.6" and platform_system == "Linux" and platform_machine == "aarch64"',
    'platform_machine == "arm64" or platform_machine == "x86_64"',
    'python_version < "3.9" or (sys_platform == "linux" and (os_name != "nt"))',
    'python_version < "3.9" and sys_platform == "linux" or os_name == "posix"',
    'python_version in "2.6 2.7 3.2 3.10"',
    'sys_platform not in "win32 darwin"',
    "python_full_version < '3.10.2'",
    'implementation_name != "PyPy"',
    "python_version ~= '3.8'",
)
UNUSUAL = (
    '"3.9" <= python_version',
    'extra == "test"',
    'platform_release >= "5.4"',
    'python_version == "3.10.*"',
    'os_name > "a"',
    'platform_machine == "86"',
)


@pytest.mark.parametrize("marker", USUAL)
def test_usual_markers_are_answered_without_packaging(marker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is packaging's, and packaging was not asked."""
    expected = Marker(marker).evaluate(HERE)
    monkeypatch.setitem(sys.modules, "packaging.markers", None)
    assert markers.holds(marker, HERE) is expected


@pytest.mark.parametrize("marker", UNUSUAL)
def test_unusual_markers_are_left_to_packaging(marker: str) -> None:
    """What is of another form has packaging's answer."""
    assert markers.holds(marker, HERE) is Marker(marker).evaluate(HERE)


@pytest.mark.parametrize(
    "marker", ["", "python_version", "python_version <", "(os_name == 'posix'", "os_name == 'posix')", "and", "a = 'b'"]
)
def test_what_is_no_marker_does_not_hold(marker: str) -> None:
    """A damaged marker makes no requirement."""
    assert markers.holds(marker, HERE) is False
