"""What an image at rest needs of its start: said from its own variables and manifest; silent elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from envcheck.facts import Facts, Manifest
from envcheck.probes.collection import started_by_others
from envcheck.rules.container_start import ALWAYS
from tests import factories as make

RULE = "container-start"


def at_rest(facts: Facts) -> str:
    (found,) = make.outcomes(RULE, started_by_others(facts), make.target(stage="build"))
    assert found.outcome == "ok"
    assert all(option in found.summary for option in ALWAYS)
    (command,) = found.fix[0].commands
    assert command == f"{found.expected} IMAGE …"
    return command


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        pytest.param({}, False, id="unset"),
        pytest.param({"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "all"}, False, id="all"),
        pytest.param({"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}, False, id="enough"),
        pytest.param({"NVIDIA_DRIVER_CAPABILITIES": "graphics"}, True, id="graphics-only"),
        pytest.param({"NVIDIA_VISIBLE_DEVICES": "void"}, True, id="void"),
        pytest.param({"NVIDIA_VISIBLE_DEVICES": ""}, True, id="empty"),
    ],
)
def test_options_follow_from_the_image_s_variables(variables: dict[str, Any], wanted: bool) -> None:
    assert (" -e " in at_rest(make.variables(make.healthy(), **variables))) is wanted


def test_an_image_of_this_project_runs_as_any_user() -> None:
    ours = make.healthy(manifest=Manifest(stack=make.SEED, packages={}, environment={}))
    assert '--user "$(id -u):0"' in at_rest(ours)
    assert "--user" not in at_rest(make.healthy())


@pytest.mark.parametrize("facts", [make.healthy(), make.healthy(driver=make.no_driver())])
def test_a_running_host_is_not_told_how_to_start(facts: Facts) -> None:
    assert make.said(RULE, facts) == "not-applicable"
