"""uv's environment is clean, its failures are explained."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from envcheck.errors import WorkError
from scripts import lock_uv, process


def test_nothing_of_the_machine_but_the_default_index_reaches_uv() -> None:
    given = {
        "PATH": "/bin",
        "HOME": "/nowhere",
        "PIP_FIND_LINKS": "/opt/wheels",
        "PIP_EXTRA_INDEX_URL": "https://extra",
        "UV_INDEX": "https://more",
        "UV_OVERRIDE": "x",
        "PIP_INDEX_URL": "https://mirror/simple",
        "SSL_CERT_FILE": "/ca.pem",
    }
    found = lock_uv.environment(given)
    assert found == {
        "PATH": "/bin",
        "HOME": "/nowhere",
        "SSL_CERT_FILE": "/ca.pem",
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_HTTP_RETRIES": "2",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "NO_COLOR": "1",
    }


def test_the_index_of_pips_configuration_is_taken(tmp_path: Path) -> None:
    broken, good = tmp_path / "broken.conf", tmp_path / "pip.conf"
    broken.write_text("no section\n", encoding="utf-8")
    good.write_text(
        "[global]\nindex-url = https://mirror/%7Ex/simple\nextra-index-url = https://extra\n", encoding="utf-8"
    )
    assert lock_uv.default_index({}, [tmp_path / "absent", broken, good]) == "https://mirror/%7Ex/simple"
    assert lock_uv.default_index({"HOME": str(tmp_path)}, [broken]) is None


def test_uv_is_looked_for_beside_this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(WorkError, match="uv was not found"):
        lock_uv.program()
    (tmp_path / "uv").touch()
    assert lock_uv.program() == str(tmp_path / "uv")


@pytest.mark.parametrize(
    ("text", "said", "fix"),
    [
        ("error sending request for url (http://x)", "did not answer in 3 attempts", "kit"),
        ("Because there is no version of pyairports==0.0.1 and you require it", "pyairports==0.0.1 is not on", "kit"),
        ("Because there is no version of ray[default]==2.9 and", "ray==2.9 is not on the package index", "kit"),
        ("Because foo was not found in the package registry", "foo is not on", "kit"),
        ("write failed: No space left on device", "the disk is full", "free space"),
        ("Hash mismatch for torch==2.5.1", "was refused", "the lock is right"),
        ("No solution found\n\nhint: While the active Python version is 3.11 …", "do not go together", "nothing was"),
        ("Because a depends on b and c depends on d, nothing fits", "nothing fits", ""),
    ],
)
def test_failures_are_explained(text: str, said: str, fix: str) -> None:
    found = lock_uv.explained(WorkError(text), 3)
    assert said in found.what
    assert fix in found.fix
    assert "hint" not in found.what


@pytest.mark.parametrize("fault", ["connection reset by peer", "HTTP status server error (503 Busy)", "timed out"])
def test_a_network_fault_is_tried_again(
    fault: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = [WorkError(fault)]

    def output(argv: list[str], **_: object) -> str:
        if answers:
            raise answers.pop()
        return argv[-1]

    monkeypatch.setattr(process, "output", output)
    monkeypatch.setattr(lock_uv, "program", lambda: "uv")
    monkeypatch.setattr(lock_uv, "PAUSE_SECONDS", 0)
    assert lock_uv.run(["lock"]) == "lock"
    assert "trying again" in capsys.readouterr().err


def test_a_real_failure_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def output(argv: list[str], **_: object) -> str:
        calls.append(argv)
        raise WorkError("No solution found")

    monkeypatch.setattr(process, "output", output)
    monkeypatch.setattr(lock_uv, "program", lambda: "uv")
    with pytest.raises(WorkError, match="No solution"):
        lock_uv.run(["lock"])
    assert len(calls) == 1
