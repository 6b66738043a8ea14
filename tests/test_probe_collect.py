from __future__ import annotations

import json
import time
from typing import Any

import pytest

from envcheck import codec
from envcheck.codec import Unknown
from envcheck.errors import HostError
from envcheck.facts import Facts, Gpu
from envcheck.host import Completed, LocalHost, RecordedHost
from envcheck.probes import nvml, os_release, together
from envcheck.probes import python as interpreters
from envcheck.probes.collection import Collection, collect
from tests.test_probe_python import SAID

SITE = "/venv/lib/python3.10/site-packages"


def venv_host(**files: str) -> RecordedHost:
    """A host whose only interpreter is that of a virtual environment with a broken torch in it."""

    class Host(RecordedHost):
        def run(self, argv: Any, *, timeout: float = 0) -> Completed:
            if argv[0] == "/venv/bin/python":
                return Completed(stdout=json.dumps(SAID))
            return super().run(argv, timeout=timeout)

    return Host(
        files={
            "/venv/bin/python": "",
            f"{SITE}/torch-2.5.1.dist-info/METADATA": "Version: 2.5.1\n\n",
            f"{SITE}/ray-2.42.1.dist-info/METADATA": "Version: 2.42.1\n\n",
            "/home/me/ray/__init__.py": "",
            "/proc/sys/kernel/hostname": "node1\n",
            **{key.replace("__", "/"): text for key, text in files.items()},
        },
        environ={"PATH": "/venv/bin", "VIRTUAL_ENV": "/venv", "PYTHONPATH": "/home/me"},
    )


def test_an_empty_host_gives_a_whole_document() -> None:
    facts = collect(RecordedHost())
    assert isinstance(facts.python, Unknown)
    assert isinstance(facts.packages, Unknown)
    assert isinstance(facts.loader, Unknown)
    assert facts.gpus == ()
    assert facts.toolkits == ()
    assert facts.container is None
    document = json.loads(json.dumps(codec.encode(facts)))
    assert codec.decode(Facts, document, codec.Where(source="x")) == facts


def test_a_broken_torch_does_not_hide_the_rest() -> None:
    facts = collect(venv_host())
    assert facts.host == "node1"
    assert isinstance(facts.packages, tuple)
    assert {item.name: item.version for item in facts.packages} == {"torch": "2.5.1", "ray": "2.42.1"}
    assert not isinstance(facts.python, Unknown)
    assert facts.python.shadowed == ("ray=/home/me/ray",)
    assert isinstance(facts.loader, tuple)


def test_only_some_keys() -> None:
    facts = collect(venv_host(), only=frozenset({"os", "gpus", "container"}))
    assert not isinstance(facts.os, Unknown)
    assert facts.gpus == ()
    assert facts.packages == Unknown("not asked for")
    assert facts.resources == Unknown("not asked for")
    assert facts.compilers == Unknown("not asked for")
    assert facts.environment == {}
    assert facts.docker is None


def test_a_probe_that_fails_is_unknown_and_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(host: object) -> None:
        message = "surprise"
        raise ValueError(message)

    monkeypatch.setattr(os_release, "probe", broken)
    monkeypatch.setattr("envcheck.probes.compilers.start", broken)
    monkeypatch.setattr("envcheck.probes.dists.probe", lambda host, python: broken(host))
    monkeypatch.setattr("envcheck.probes.nvcc.start", lambda host, sites: broken(host))
    facts = collect(venv_host())
    why = Unknown("the probe failed: ValueError: surprise")
    assert (facts.os, facts.compilers, facts.packages, facts.toolkits) == (why, why, why, why)
    assert facts.loader == why
    assert not isinstance(facts.resources, Unknown)
    assert not isinstance(facts.cudnn, Unknown)


def test_binaries_that_cannot_be_read_leave_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        message = "surprise"
        raise ValueError(message)

    monkeypatch.setattr("envcheck.probes.elf.Reader", broken)
    monkeypatch.setattr("envcheck.probes.loader.probe", broken)
    facts = collect(venv_host())
    assert isinstance(facts.packages, tuple)
    assert isinstance(facts.loader, Unknown)


def test_an_image_at_rest_has_no_driver_and_no_limits() -> None:
    class AtRest(RecordedHost):
        at_rest = True

    facts = collect(AtRest(files={"/.dockerenv": ""}))
    assert isinstance(facts.driver, Unknown)
    assert not isinstance(facts.resources, Unknown)
    assert isinstance(facts.resources.shm_bytes, Unknown)
    assert facts.container is not None
    assert not isinstance(facts.container, Unknown)
    assert facts.container.start == ()
    outside = collect(AtRest(), only=frozenset({"os"}))
    assert outside.container is None


def test_gpus_of_the_management_interface() -> None:
    gpu = Gpu(name="NVIDIA H100", compute_capability="9.0", memory_bytes=1)
    collection = Collection(RecordedHost(), interpreters.start(RecordedHost(), None), None)
    collection._managed = nvml.Management(driver="550", cuda="12.4", gpus=(gpu,))
    assert collection.facts().gpus == (gpu,)


def test_gpus_on_the_bus_without_a_driver_but_not_in_a_container() -> None:
    bus = "/sys/bus/pci/devices/1"
    files = {f"{bus}/vendor": "0x10de", f"{bus}/device": "0x2330", f"{bus}/class": "0x030200"}
    bare = collect(RecordedHost(files=files))
    assert isinstance(bare.gpus, tuple)
    assert len(bare.gpus) == 1
    assert collect(RecordedHost(files={**files, "/.dockerenv": ""})).gpus == ()


def test_nvidia_smi_is_asked_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    host = RecordedHost(files={"/usr/bin/nvidia-smi": ""}, environ={"PATH": "/usr/bin"})
    facts = collect(host)
    assert not isinstance(facts.driver, Unknown)
    assert facts.driver.present is False


def test_later_gives_results_reasons_and_does_not_wait_for_ever() -> None:
    assert together.Later(lambda: 1, name="one").result() == 1
    slow = together.Later(lambda: time.sleep(5), name="the driver").result(0.05)
    assert slow == Unknown("the driver did not answer within 0.05 s")


def test_a_host_that_is_gone_ends_the_run() -> None:
    def gone() -> None:
        raise HostError("the container ended")

    with pytest.raises(HostError):
        together.guarded(gone)
    assert together.Later(gone, name="x").result() == Unknown("the container ended")


@pytest.mark.process
def test_this_machine() -> None:
    facts = collect(LocalHost())
    document = json.loads(json.dumps(codec.encode(facts)))
    assert codec.decode(Facts, document, codec.Where(source="x")) == facts
    assert not isinstance(facts.os, Unknown)
    assert not isinstance(facts.os.machine, Unknown)
    assert isinstance(facts.packages, tuple)
    assert "pytest" in {item.name for item in facts.packages}
