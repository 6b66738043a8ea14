"""Refuse an injected wheelhouse whose wheels of a component are of other inputs: hours of compiling were not asked for.

Called by docker/build-wheel with the arguments of `python -m scripts.build`; ``--pull`` names the wheelhouse.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from envcheck import stack as stacks
from envcheck.errors import EnvcheckError
from scripts import build, build_context, build_key, cli, wheelhouse_store
from scripts.build_key import Inputs
from scripts.wheelhouse_store import Entry


def check(inputs: Inputs, entries: Iterable[Entry]) -> None:
    """Raise EnvcheckError where wheels of the component are there, none of them of these inputs."""
    of_it = [entry for entry in entries if entry.receipt["inputs"]["component"] == inputs.component]
    if not of_it or any(entry.key == inputs.key for entry in of_it):
        return
    lines = [f"{entry.wheel.name} (key {entry.key[:12]}): {differences(inputs, entry)}" for entry in of_it]
    raise EnvcheckError(
        f"the injected wheelhouse has {inputs.component}, but not for this image (key {inputs.key[:12]}):\n"
        + "\n".join(lines),
        fix=f"build it for this image's inputs, or compile it here: --compile {inputs.component}",
    )


def differences(inputs: Inputs, entry: Entry) -> str:
    """Name what differs, as ``python cp310, wanted cp311``."""
    there, wanted = entry.receipt["inputs"], asdict(inputs)
    wanted["archs"] = list(inputs.archs)
    rows = [f"{name} {there.get(name)}, wanted {value}" for name, value in wanted.items() if there.get(name) != value]
    return "; ".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Check one component; what takes seconds to build is not refused."""
    options = build.parser().parse_args(argv)
    stack = stacks.load(options.stack)
    try:
        context = build_context.context(stack, options.name, build.wishes_of(options, stack))
    except build_context.NothingToBuildError:
        return 0
    if context.recipe.compiles:
        check(build_key.inputs(context), wheelhouse_store.entries(Path(options.pull)))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
