"""Where recorded hosts differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from envcheck import cli, codec, data, diff, errors
from envcheck.commands.diff import render, shown
from envcheck.facts import Driver, Facts, Gpu, LoaderEntry, Package, Ray
from envcheck.report.style import Style
from tests.report_cases import HOSTILE, UNREAD, facts

TORCH = Package(name="torch", version="2.5.1+cu124", cuda="12.4")
RAY = Package(name="ray", version="2.42.1")


def named(*hosts: Facts) -> dict[str, Facts]:
    return {f"node-{number}": host for number, host in enumerate(hosts, 1)}


def keys(*hosts: Facts) -> list[str]:
    return [difference.key for difference in diff.compare(named(*hosts)).differences]


def test_equal_hosts_do_not_differ() -> None:
    comparison = diff.compare(named(facts(host="a"), facts(host="b", collected="later")))
    assert comparison.differences == ()
    assert comparison.same > 30
    assert comparison.odd == {}


def test_the_odd_host_is_named() -> None:
    other = facts(driver=Driver(present=True, version="535.1", cuda="12.2", kernel_module="535.1"))
    comparison = diff.compare(named(facts(), other, facts()))
    found = {difference.key: difference for difference in comparison.differences}
    assert set(found) == {"driver.version", "driver.cuda", "driver.kernel_module"}
    assert [value.hosts for value in found["driver.cuda"].values] == [("node-1", "node-3"), ("node-2",)]
    assert found["driver.cuda"].odd == ("node-2",)
    assert comparison.odd == {"node-2": 3}


def test_of_two_hosts_none_is_odd() -> None:
    difference = diff.compare(named(facts(packages=(TORCH,)), facts(packages=(replace(TORCH, version="2.6.0"),))))
    assert difference.odd == {}
    assert [item.key for item in difference.differences] == ["packages.torch.version"]


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        pytest.param({"packages": (TORCH, RAY)}, {"packages": (RAY, TORCH)}, [], id="order-of-packages"),
        pytest.param({"packages": (TORCH, RAY)}, {"packages": (TORCH,)}, ["packages.ray"], id="package-absent"),
        pytest.param({"packages": (RAY, RAY)}, {"packages": (RAY,)}, ["packages.ray #2"], id="package-twice"),
        pytest.param({"ray": Ray(address="a")}, {}, ["ray"], id="table-absent"),
        pytest.param({"environment": {"A": "1"}}, {"environment": {"A": "2"}}, ["environment.A"], id="environment"),
        pytest.param(
            {"loader": (LoaderEntry(library="libcuda.so.1", path="/a"),)},
            {"loader": (LoaderEntry(library="libcuda.so.1", path=UNREAD),)},
            ["loader.libcuda.so.1.path"],
            id="unknown-against-known",
        ),
        pytest.param(
            {"gpus": (Gpu(name="H100", compute_capability="9.0", memory_bytes=1, uuid="x"),)},
            {"gpus": (Gpu(name="H100", compute_capability="9.0", memory_bytes=1, uuid="y"),)},
            [],
            id="uuid-is-volatile",
        ),
    ],
)
def test_what_differs(one: dict[str, Any], two: dict[str, Any], expected: list[str]) -> None:
    assert keys(facts(**one), facts(**two)) == expected


def test_what_an_absent_package_is_compared_with_is_its_version() -> None:
    hosts = named(
        facts(packages=(TORCH, RAY)), facts(packages=(TORCH,)), facts(packages=(TORCH, replace(RAY, version="2.9")))
    )
    (difference,) = diff.compare(hosts).differences
    assert {value.value for value in difference.values} == {"2.42.1", "2.9", diff.ABSENT}


def test_volatile_facts_are_compared_on_demand() -> None:
    hosts = {"a": facts(host="a"), "b": facts(host="b")}
    assert [item.key for item in diff.compare(hosts, volatile=True).differences] == ["host"]


def test_text_names_values_hosts_and_the_odd_one() -> None:
    hosts = named(*[facts()] * 8, facts(gpus=()))
    text = render(diff.compare(hosts), Style())
    assert "gpus" in text
    assert "and 2 more]" in text
    assert "✗" in text
    assert "Most often odd: node-9 (" in text
    assert render(diff.compare(named(facts(), facts())), Style()).startswith("2 hosts, no difference in ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"unknown": "why"}, "unknown: why"),
        ([], "none"),
        (["9.0", "8.0"], "9.0, 8.0"),
        ("", "(empty)"),
        (True, "True"),
        ("x" * 300, "x" * 200 + "..."),
    ],
)
def test_values_are_shown_in_one_line(value: object, text: str) -> None:
    assert shown(value) == text


def test_hostile_values_are_shown_as_escapes() -> None:
    text = render(diff.compare(named(facts(environment={"A": HOSTILE}), facts(environment={HOSTILE: "1"}))), Style())
    assert "\x1b" not in text
    text.encode()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write_it(name: str, **changed: object) -> str:
        path = tmp_path / name
        path.write_text(json.dumps(codec.encode(facts(**changed))), encoding="utf-8")
        return str(path)

    return write_it


def test_the_command_ends_with_0_or_1(write: Callable[..., str], capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    same = [write("a.json", host="a"), write("b.json", host="b")]
    assert cli.main(["diff", *same]) == errors.OK
    capsysbinary.readouterr()
    other = write("c.json", host="c", packages=())
    assert cli.main(["diff", *same, other, "--format", "json"]) == errors.FINDINGS
    document = json.loads(capsysbinary.readouterr().out)
    jsonschema.validate(document, json.loads(data.read("report/diff.schema.json")))
    assert document["hosts"] == ["a", "b", "c"]
    assert document["differences"][0]["odd"] == ["c"]


def test_hosts_of_one_name_are_told_apart_by_their_files(
    write: Callable[..., str], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    paths = [write("a.json"), write("b.json", host="")]
    assert cli.main(["diff", paths[0], paths[0]]) == errors.USAGE
    assert b"a.json was named twice" in capsysbinary.readouterr().err
    assert cli.main(["diff", *paths, "--format", "json"]) == errors.OK
    assert json.loads(capsysbinary.readouterr().out)["hosts"] == ["node-1", paths[1]]


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        pytest.param({0, 1, 2, 3}, "gpus.0-3.name", id="all"),
        pytest.param({0, 2}, "gpus.0,2.name", id="some"),
        pytest.param({1}, "gpus.1.name", id="one"),
    ],
)
def test_gpus_that_differ_alike_are_shown_once(changed: set[int], key: str) -> None:
    names = ["H200" if position in changed else "H100" for position in range(4)]
    one, two = (
        replace(facts(), gpus=tuple(Gpu(name=name, compute_capability="9.0", memory_bytes=1) for name in kinds))
        for kinds in (["H100"] * 4, names)
    )
    text = render(diff.compare({"a": one, "b": two}), Style())
    assert [line for line in text.splitlines() if line.startswith("gpus.")] == [key]
