"""Facts that may be shown to strangers: no user, host or account names, home paths, addresses, GPU ids, credentials."""

from __future__ import annotations

import re
from collections.abc import Callable

from envcheck.codec import Where, decode, encode
from envcheck.facts import Facts
from envcheck.probes.environment import SET, without_credentials

USER = "user"
HOST = "host"
HOMES = re.compile(
    r"(?P<root>/(?:home|Users|export/home|nfs/home|data/home|scratch/users|lustre/users))/(?P<name>[^/:\s'\",;=]+)"
)
GPU_ID = re.compile(r"\b(GPU|MIG)-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")
ADDRESS = re.compile(
    r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])"
)
URL_HOST = re.compile(r"(?<=://)(?:\*\*\*@)?(?P<host>[\w.-]+)")
PUBLIC_HOSTS = (
    "github.com",
    "gitlab.com",
    "huggingface.co",
    "flashinfer.ai",
    "download.pytorch.org",
    "codeload.github.com",
)
LOOPBACK = ("127.0.0.1", "127.0.1.1", "::1", "0.0.0.0")  # noqa: S104  # nothing is bound
NO_SITE = ("localhost", "auto", "local", HOST, "address")
"""What stands for a host in variables, and names none."""
COMMON_NAMES = frozenset(
    {"root", "ubuntu", "debian", "admin", "user", "runner", "jovyan", "vscode", "ray", "work", "app"}
)
SHORTEST_NAME = 3
VERSION_VARIABLE = re.compile(r"VERSION|^NV_|^CUDA|ARCH|REQUIRE")
ACCOUNT_VARIABLE = re.compile(
    r"^SLURM_.*(USER|ACCOUNT|NODELIST|SUBMIT|NAME|HOST|ADDR|COMMENT)|^WANDB_(ENTITY|PROJECT|NAME|RUN)"
)
HOST_VARIABLE = re.compile(r"^(MASTER_ADDR|RAY_ADDRESS|PIP_TRUSTED_HOST|NO_PROXY|no_proxy|\w+_HOST)$")
BARE_HOST = re.compile(r"(?<![\w.:/-])\.?[A-Za-z][\w-]*(?:\.[\w-]+)*(?![\w.:/-]*://)(?=$|[\s,:])")
"""A host without a scheme, as ``node17.example:6379`` or ``.example`` in a list."""
ADDRESSED = ("resources.hostname_resolves", "ray.", "environment.", ".origin.url", "driver.nvml_error")
"""Where an address may stand; elsewhere four numbers are a version: cuBLAS 12.4.5.8."""


def redact(facts: Facts) -> Facts:
    """Give the facts without what identifies a person, a machine or a site."""
    document = encode(facts)
    replace = replacer(facts)
    shown: Facts = decode(Facts, _walk(document, "", replace), Where(source="redacted facts"))
    return shown


def _walk(value: object, key: str, replace: Callable[[str, str], str]) -> object:
    if isinstance(value, str):
        return replace(key, value)
    if isinstance(value, list):
        return [_walk(item, key, replace) for item in value]
    if isinstance(value, dict):
        return {
            replace(key, name) if "/" in name else name: _walk(item, f"{key}.{name}" if key else name, replace)
            for name, item in value.items()
        }
    return value


def replacer(facts: Facts) -> Callable[[str, str], str]:
    """Give the function (key, text) -> text that knows the names of this host and its user."""
    words = {facts.host: HOST} if len(facts.host) >= SHORTEST_NAME and facts.host not in {"localhost", HOST} else {}
    words |= dict.fromkeys(user_names(facts), USER)
    pattern = re.compile("|".join(rf"(?<![\w-]){re.escape(word)}(?![\w-])" for word in words)) if words else None
    identities: dict[str, str] = {}
    home = facts.environment.get("HOME", "").rstrip("/")

    def replace(key: str, text: str) -> str:
        if key == "host":
            return HOST
        if home.count("/") > 1 and home in text:
            text = text.replace(home, f"/home/{USER}")
        text = HOMES.sub(rf"\g<root>/{USER}", text)
        text = GPU_ID.sub(lambda found: identities.setdefault(found[0], f"{found[1]}-{len(identities) + 1}"), text)
        text = without_credentials(text)
        text = _at_place(key, text)
        return (
            pattern.sub(lambda found: words[found[0]], text)
            if pattern and not key.startswith("packages.name")
            else text
        )

    return replace


def user_names(facts: Facts) -> set[str]:
    """Names of users that stand in home paths of the variables, where they are no common words."""
    found = {match["name"] for value in facts.environment.values() for match in HOMES.finditer(value)}
    home = facts.environment.get("HOME", "").rstrip("/")
    if home.count("/") > 1:
        found.add(home.rpartition("/")[2])
    return {name for name in found if len(name) >= SHORTEST_NAME and name not in COMMON_NAMES}


def _at_place(key: str, text: str) -> str:
    """Replace addresses and hosts of URLs where they may stand."""
    name = key.partition("environment.")[2]
    if name and ACCOUNT_VARIABLE.search(name):
        return SET if text else text
    if not any(key.startswith(place) or (place.startswith(".") and key.endswith(place)) for place in ADDRESSED):
        return text
    text = URL_HOST.sub(lambda found: found[0] if _is_public(found["host"]) else HOST, text)
    if HOST_VARIABLE.search(name) or key == "ray.address":
        text = BARE_HOST.sub(lambda found: found[0] if found[0] in NO_SITE or _is_public(found[0]) else HOST, text)
    if name and VERSION_VARIABLE.search(name):
        return text
    return ADDRESS.sub(lambda found: found[0] if found[0] in LOOPBACK else "address", text)


def _is_public(host: str) -> bool:
    return any(host == name or host.endswith(f".{name}") for name in PUBLIC_HOSTS)
