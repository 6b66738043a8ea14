from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from scripts import compare_runs
from tests.parity_cases import Simulated

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --window-size=1250,1900"
)


def _pixels(png: bytes) -> tuple[int, int, int]:
    """Give width, height and the number of different rows of a PNG file."""
    width, height = struct.unpack(">II", png[16:24])
    data, position = b"", 8
    while position < len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        if kind == b"IDAT":
            data += png[position + 8 : position + 8 + length]
        position += length + 12
    raw = zlib.decompress(data)
    stride = len(raw) // height
    return width, height, len({raw[row * stride : (row + 1) * stride] for row in range(height)})


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_report_in_a_real_browser(tmp_path: Path) -> None:
    for name, simulated in {"one": Simulated(seed=1), "two": Simulated(seed=2, gap_end=0.036)}.items():
        (tmp_path / f"{name}.log").write_text(simulated.log(), encoding="utf-8")
    report = tmp_path / "report"
    assert compare_runs.main([*(str(tmp_path / f"{n}.log") for n in ("one", "two")), "--report", str(report)]) == 1
    shot, page = tmp_path / "shot.png", f"file://{report / 'parity.html'}"
    base = [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run([*base, f"--screenshot={shot}", page], check=True, capture_output=True, timeout=120)
    width, height, rows = _pixels(shot.read_bytes())
    assert (width, height) == (1250, 1900)
    assert rows > 400, "the page is nearly empty"
    done = subprocess.run([*base, "--dump-dom", page], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("<polyline") == 16
    assert "The runs differ." in done.stdout
