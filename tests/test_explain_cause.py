"""The cause comes first, what follows from it under it, and facts confirm or contradict it."""

from __future__ import annotations

import io
import json
from typing import Any

from envcheck.explain import Explanation, explain, to_json, to_text
from envcheck.facts import Facts
from envcheck.rules import by_id
from tests import factories as f

CONFLICT = "verl 0.2 requires vllm<=0.6.3, but you have vllm 0.6.4.post1 which is incompatible.\n"


def explained(text: str, **given: Any) -> Explanation:
    return explain(io.BytesIO(text.encode()), **given)


def test_the_cause_comes_before_what_stands_first_and_last() -> None:
    log = (
        "UserWarning: flash_attn was requested, but nvcc was not found.\n"
        "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).\n"
        "RuntimeError: No CUDA GPUs are available\nray.exceptions.ActorDiedError: The actor died\nodd: fatal trouble\n"
    )
    found = explained(log)
    assert [match.rule for match in found.matches] == ["driver-too-old", "nvcc-missing", "no-gpu-visible"]
    assert [line.line for line in found.matches[0].consequences] == [4, 5]
    assert found.telling == ()


def test_a_harmless_message_beside_a_failure_that_is_not_known_is_not_success() -> None:
    assert explained(CONFLICT).exit_code == 0
    for failure in ("OddError: the moon\n", "ERROR: Failed building wheel for odd\n"):
        found = explained(CONFLICT + failure)
        assert found.exit_code == 1
        assert found.root is None
        assert [line.text for line in found.telling] == [failure.strip()]
        assert to_text(found).startswith("not known")


def test_names_are_taken_from_the_text() -> None:
    error = "flash_attn_2_cuda.cpython-38-x86_64-linux-gnu.so: undefined symbol: _ZN3c104cuda9SetDeviceEi"
    match = explained(f"ImportError: /venv/{error}\n").matches[0]
    assert match.summary.startswith("flash-attn was compiled for another release of torch")
    assert "_ZN3c104cuda9SetDeviceEi" in match.summary
    assert match.fix[1].commands[0].endswith(" flash-attn")


def broken() -> Facts:
    return f.healthy(driver=f.driver("470.57.02", "11.4"))


def judged(log: str, facts: Facts) -> Explanation:
    return explained(log, facts=facts, target=f.target(), rules=by_id())


TOO_OLD = "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).\n"


def test_facts_that_show_the_cause_make_the_fix_specific() -> None:
    match = judged(TOO_OLD, broken()).matches[0]
    assert match.confirmed is True
    assert "470.57.02" in match.found
    assert match.fix != explained(TOO_OLD).matches[0].fix
    assert '"confirmed": true' in to_json(judged(TOO_OLD, broken()))
    assert "facts: " in to_text(judged(TOO_OLD, broken()))


def test_facts_that_do_not_show_the_cause_are_said() -> None:
    match = judged(TOO_OLD, f.healthy()).matches[0]
    assert match.confirmed is False
    assert "another host" in match.found


def test_what_facts_show_comes_before_what_they_contradict() -> None:
    log = "RuntimeError: Version mismatch: The cluster was started with: Ray: 2.12.0\n" + TOO_OLD + "x failed\n"
    assert explained(log).matches[0].rule == "ray-versions-differ"
    found = judged(log, broken())
    assert [match.rule for match in found.matches] == ["driver-too-old", "ray-versions-differ"]
    assert [line.text for line in found.matches[0].consequences] == ["x failed"]
    assert found.matches[1].consequences == ()


def test_facts_choose_between_rules_of_the_same_wording() -> None:
    log = "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward compatibility was attempted\n"
    assert explained(log).matches[0].rule == "cuda-compat-shadows-driver"
    match = judged(log, broken()).matches[0]
    assert (match.rule, match.confirmed) == ("driver-too-old", True)


def test_a_rule_that_facts_cannot_judge_is_neither() -> None:
    match = judged("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB\n", f.healthy()).matches[0]
    assert match.confirmed is None
    assert "confirmed" not in json.loads(to_json(explained(TOO_OLD)))["matches"][0]


def test_the_vllm_conflict_is_an_error_for_the_vllm_engine() -> None:
    facts = f.having(f.healthy(), f.package("vllm", "0.6.4.post1"), f.package("verl", "0.2.0.post2"))
    found = explained(CONFLICT, facts=facts, target=f.target(engine="vllm"), rules=by_id())
    assert found.matches[0].harmless is False
    assert found.exit_code == 1


def test_without_a_target_facts_are_not_looked_at() -> None:
    assert explained(TOO_OLD, facts=broken()).matches[0].confirmed is None


def test_the_document() -> None:
    document = json.loads(to_json(explained("\n".join([*["x"] * 4, TOO_OLD, "ray.exceptions.ActorDiedError"]))))
    assert document["version"] == 1
    assert document["known"] is True
    match = document["matches"][0]
    assert set(match) >= {"rule", "line", "text", "summary", "fix", "harmless"}
    assert match["line"] == 5
    assert match["fix"][0].keys() == {"text", "commands"}
    assert match["consequences"] == [
        {"line": 7, "text": "ray.exceptions.ActorDiedError", "why": "an actor ended because of it"}
    ]


def test_the_text() -> None:
    text = to_text(explained(TOO_OLD + CONFLICT + "RuntimeError: No CUDA GPUs are available\n" + "x failed\n"))
    cause, also, harmless = (block.splitlines()[0] for block in text.split("\n\n"))
    assert cause == "cause: driver-too-old (line 1)"
    assert also.startswith("also seen: no-gpu-visible (line ")
    assert harmless.startswith("harmless: vllm-pin-conflict (line ")
    assert "      $ nvidia-smi" in text
    assert "failed because of it:" in text
