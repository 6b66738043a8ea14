from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from envcheck import data, documents, redact, schema
from envcheck.codec import Unknown, encode
from envcheck.errors import DataError, EnvcheckError
from envcheck.facts import Facts, Gpu, Origin, Package, Ray, Wish
from envcheck.host import RecordedHost
from envcheck.probes.collection import collect
from tests import factories

EMPTY = collect(RecordedHost())


@pytest.mark.parametrize("facts", [EMPTY, factories.healthy(), factories.lts(), factories.bare()])
def test_what_is_written_is_read(facts: Facts, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(documents.dumps(facts), encoding="utf-8")
    assert documents.load(str(path)) == facts


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(documents.dumps(EMPTY)))
    assert documents.load("-") == EMPTY


def test_a_judgement_holds_its_facts() -> None:
    judged = {"version": 1, "outcomes": [], "facts": encode(EMPTY)}
    assert documents.loads(json.dumps(judged), "x") == EMPTY


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(EnvcheckError, match="could not be read: No such file") as caught:
        documents.load("/nonexistent.json")
    assert caught.value.exit_code == 2


WHOLE = documents.dumps(EMPTY)


def changed(**changes: Any) -> str:
    return json.dumps({**encode(EMPTY), **changes})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x: expected a whole JSON document, found an empty file"),
        (WHOLE[: len(WHOLE) // 2], "x: expected a whole JSON document"),
        ("[]", "x: version: expected 1, found None"),
        ("{}", "x: version: expected 1, found no such key"),
        (changed(version=2), "x: version: expected 1, found 2"),
        (changed(version="1"), "x: version: expected 1, found '1'"),
        (changed(version=True), "x: version: expected 1, found True"),
        (changed(colour="red"), "x: colour: expected one of the keys"),
        (changed(gpus=[{"name": "A"}]), "x: gpus[0].compute_capability: expected a value, found no such key"),
        (changed(driver=None), "x: driver: expected a table, found None"),
        (changed(resources={"cpus": "2"}), "x: resources"),
    ],
)
def test_what_is_no_facts_document_says_where(text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        documents.loads(text, "x")
    assert str(caught.value).startswith(said)


def test_the_shipped_schema_is_that_of_the_records() -> None:
    assert data.read("facts.schema.json") == schema.facts_schema(), (
        "write it again: python -m envcheck.schema > envcheck/facts.schema.json"
    )


@pytest.mark.parametrize("facts", [EMPTY, factories.healthy(), factories.lts()])
def test_documents_follow_the_schema(facts: Facts) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(data.read("facts.schema.json")))
    validator.validate(encode(facts))
    broken = {**encode(facts), "gpus": "none"}
    assert not validator.is_valid(broken)
    assert not validator.is_valid({**encode(facts), "colour": "red"})


SECRETS = {
    "HOME": "/home/alice",
    "PATH": "/home/alice/bin:/usr/bin",
    "LD_LIBRARY_PATH": "/nfs/home/alice/lib",
    "https_proxy": "http://proxy.corp.example:3128",
    "MASTER_ADDR": "10.20.30.40",
    "NV_LIBCUBLAS_VERSION": "12.4.5.8-1",
    "CUDA_VERSION": "12.4.1.0",
    "SLURM_JOB_USER": "alice",
    "NCCL_SOCKET_IFNAME": "eth0",
    "UV_INDEX_URL": "https://me:x@packages.corp.example/simple",
}
GPU = "GPU-5d0e1f00-aaaa-bbbb-cccc-000000000000"


def told() -> Facts:
    packages = (
        Package(name="verl", version="0.2", origin=Origin(url="file:///home/alice/verl", editable=True)),
        Package(name="sglang", version="1", origin=Origin(url="https://github.com/sgl-project/sglang")),
        Package(name="nvidia-cublas-cu12", version="12.4.5.8", location="/home/alice/.venv"),
    )
    return factories.healthy(
        host="node17",
        environment=SECRETS,
        packages=packages,
        gpus=(Gpu(name="NVIDIA H100", compute_capability="9.0", memory_bytes=1, uuid=GPU),) * 2,
        ray=Ray(address="10.20.30.40:6379", session_dir="/tmp/ray/node17"),
        resources=factories.resources(hostname_resolves="fe80::1ff:fe23:4567:890a"),
        wish=Wish(files={"/home/alice/data/train.parquet": True}),
    )


def test_nothing_personal_is_left() -> None:
    shown = documents.dumps(redact.redact(told()))
    for secret in ("alice", "node17", "10.20.30.40", "corp.example", "me:x", GPU, "fe80::1ff"):
        assert secret not in shown


def test_what_rules_need_is_kept() -> None:
    shown = redact.redact(told())
    assert shown.host == "host"
    assert shown.environment["PATH"] == "/home/user/bin:/usr/bin"
    assert shown.environment["NV_LIBCUBLAS_VERSION"] == "12.4.5.8-1"
    assert shown.environment["CUDA_VERSION"] == "12.4.1.0"
    assert shown.environment["SLURM_JOB_USER"] == "set"
    assert shown.environment["https_proxy"] == "http://host:3128"
    assert shown.environment["NCCL_SOCKET_IFNAME"] == "eth0"
    assert isinstance(shown.packages, tuple)
    assert shown.packages[1].origin == Origin(url="https://github.com/sgl-project/sglang")
    assert shown.packages[2].version == "12.4.5.8"
    assert isinstance(shown.gpus, tuple)
    assert [gpu.uuid for gpu in shown.gpus] == ["GPU-1", "GPU-1"]
    assert redact.redact(shown) == shown


def test_common_names_and_loopback_stay() -> None:
    facts = factories.healthy(
        host="localhost",
        environment={"HOME": "/root", "NCCL_COMM_ID": "127.0.0.1:9"},
        resources=factories.resources(hostname_resolves="127.0.1.1"),
        python=Unknown("/root/x cannot be read"),
    )
    shown = redact.redact(facts)
    assert shown.environment == {"HOME": "/root", "NCCL_COMM_ID": "127.0.0.1:9"}
    assert shown.python == Unknown("/root/x cannot be read")


def test_a_home_elsewhere_is_named_alike() -> None:
    facts = factories.healthy(environment={"HOME": "/data/bob", "CUDA_HOME": "/data/bob/cuda", "SLURM_JOB_USER": ""})
    assert redact.redact(facts).environment == {
        "HOME": "/home/user",
        "CUDA_HOME": "/home/user/cuda",
        "SLURM_JOB_USER": "",
    }


def test_hosts_without_a_scheme_are_not_left() -> None:
    names = {
        "MASTER_ADDR": "node17.corp.example",
        "RAY_ADDRESS": "head.corp.example:6379",
        "NO_PROXY": "localhost,.corp.example,127.0.0.1",
        "PIP_TRUSTED_HOST": "pypi.corp.example download.pytorch.org",
        "DOCKER_HOST": "unix:///var/run/docker.sock",
    }
    facts = factories.healthy(environment=names, ray=Ray(address="head.corp.example:6379"))
    shown = redact.redact(facts)
    assert shown.environment == {
        "MASTER_ADDR": "host",
        "RAY_ADDRESS": "host:6379",
        "NO_PROXY": "localhost,host,127.0.0.1",
        "PIP_TRUSTED_HOST": "host download.pytorch.org",
        "DOCKER_HOST": "unix:///var/run/docker.sock",
    }
    assert shown.ray == Ray(address="host:6379")
    assert redact.redact(replace(facts, ray=Ray(address="auto"))).ray == Ray(address="auto")
